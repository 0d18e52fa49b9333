"""The face: its names, how fast it loads, and that nothing in a user's own folder gets in its way."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import icq_bounds as ib

pytestmark = pytest.mark.compiles

ROOT = Path(__file__).parents[2]


def test_names_are_sorted_and_few():
    assert ib.__all__ == sorted(ib.__all__)
    assert 35 <= len(ib.__all__) <= 45
    assert {*ib.__all__, "__version__"} == set(dir(ib))


@pytest.mark.parametrize("name", ib.__all__)
def test_every_name_resolves_and_says_what_it_is(name):
    found = getattr(ib, name)
    assert len(inspect.getdoc(found) or "") > 20
    assert found is getattr(ib, name)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'verifi'"):
        ib.verifi  # noqa: B018


def test_no_name_is_shadowed_by_a_module():
    """Importing `icq_bounds.x` sets the attribute x of the package, whatever was there."""
    assert {module.name for module in pkgutil.iter_modules(ib.__path__)} & set(ib.__all__) == set()


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "icq_bounds" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = set()
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            seen |= {alias.asname for alias in node.names if alias.asname}
        elif isinstance(node, ast.Assign):
            seen |= {name.id for target in node.targets for name in target.elts}
    assert seen == set(ib.__all__)


def test_every_package_says_that_it_is_typed():
    for package in ("icq", "synthetic", "estimators", "bounds", "icq_bounds"):
        assert (ROOT / package / "py.typed").exists()


LOADING = """
import sys, time
start = time.perf_counter()
import icq_bounds
seconds = time.perf_counter() - start
heavy = {"jax", "numpy", "scipy", "xarray", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
print(seconds)
"""


def python(code, cwd=ROOT):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_loads_nothing_heavy_and_is_fast():
    assert min(float(python(LOADING)) for _ in range(3)) < 0.3


OWN = ("experiments/__init__.py", "plots.py", "utils.py", "commands/__init__.py", "pages/__init__.py", "figures.py")
WORK = """
from icq_bounds.cli import main
main(["--version"])
main(["make", "dials", "--agents", "2", "--out", "m.npz"])
main(["analyse", "m.npz"])
import icq_bounds as ib
print(ib.analyse(ib.load("m.npz")))
"""


def test_a_users_own_modules_do_not_get_in_the_way(tmp_path):
    """The folder is first on the path, as it is in a script or a notebook that lies there."""
    for name in OWN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('{name} was imported')\n")
    said = python(WORK, tmp_path)
    assert said.startswith(f"icq-bounds {ib.__version__}\n")
    assert "gap_exact_d" in said and "Analysis:" in said
