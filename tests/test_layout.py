"""The arrows between the rooms: who may import whom."""

import ast
import builtins
import dis
from importlib import import_module
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "icq": set(),
    "synthetic": {"icq"},
    "estimators": {"icq"},
    "bounds": {"icq"},
    "experiments": {"icq", "synthetic", "estimators", "bounds"},
}


def imported_packages(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_import_against_the_arrows(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        foreign = (imported_packages(file.read_text()) & set(MAY_IMPORT)) - MAY_IMPORT[package] - {package}
        assert not foreign, f"{file.relative_to(ROOT)} imports {sorted(foreign)}"


def test_the_check_sees_both_import_forms():
    assert imported_packages("import bounds.bound\nfrom experiments.cli import main") == {
        "bounds",
        "experiments",
    }


def missing_globals(module):
    """Names that code of a module looks up globally and that are not there (annotations are never looked up)."""
    code = [compile(Path(module.__file__).read_text(), module.__file__, "exec", dont_inherit=True)]
    missing = set()
    while code:
        block = code.pop()
        code += [part for part in block.co_consts if isinstance(part, CodeType)]
        looked_up = {i.argval for i in dis.get_instructions(block) if i.opname == "LOAD_GLOBAL"}
        missing |= {name for name in looked_up if not hasattr(module, name) and not hasattr(builtins, name)}
    return missing


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_name_is_defined(package):
    """Array shapes in annotations hide undefined names from the linters, so the compiled code is asked."""
    for file in (ROOT / package).rglob("*.py"):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        assert not missing_globals(import_module(name)), name


def test_an_undefined_name_is_found(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("def f():\n    return nowhere.to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_globals(import_module("broken_module")) == {"nowhere"}
