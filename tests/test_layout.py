"""The arrows between the rooms: who may import whom."""

import ast
from pathlib import Path

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
