"""The house: which room may import which, that no arrow goes up, no circle exists and no room is crowded."""

import ast
import builtins
import dis
import re
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
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
    "icq_bounds": {"icq", "synthetic", "estimators", "bounds"},
    "audits": {"icq", "synthetic", "estimators", "bounds", "icq_bounds"},
    "notebooks": {"icq", "synthetic", "estimators", "bounds", "icq_bounds"},
    "benchmarks": {"icq", "synthetic", "estimators", "bounds", "icq_bounds"},
}
PRODUCT = ("icq", "synthetic", "estimators", "bounds", "icq_bounds")
CROWD = 15


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(packages=tuple(MAY_IMPORT)):
    return {module_of(file): file for package in packages for file in sorted((ROOT / package).rglob("*.py"))}


def imports(source, known):
    """The modules among `known` that a source imports anywhere: in functions and for types only, too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [
                whole if (whole := f"{node.module}.{alias.name}") in known else str(node.module) for alias in node.names
            ]
        else:
            continue
        found |= {name for name in names if name in known}
    return found


def room(module, files):
    """The folder a module lives in; modules right below a top folder are rooms of their own."""
    parts = module.split(".")
    if files[module].name == "__init__.py":
        return module
    return module if len(parts) == 2 else ".".join(parts[:-1])


@pytest.fixture(scope="module")
def arrows():
    """module -> modules it imports."""
    files = modules()
    return {module: imports(file.read_text(), files) - {module} for module, file in files.items()}


def test_no_import_against_the_arrows(arrows):
    for module, targets in arrows.items():
        package = module.split(".")[0]
        foreign = {target for target in targets if target.split(".")[0] not in MAY_IMPORT[package] | {package}}
        assert not foreign, f"{module} imports {sorted(foreign)}"


def circle(graph):
    """One circle of a graph, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_circles_of_modules_or_of_rooms(arrows):
    assert circle(arrows) is None
    files, between = modules(), defaultdict(set)
    for module, targets in arrows.items():
        here = room(module, files)
        between[here] |= {there for target in targets if (there := room(target, files)) != here}
    assert circle(between) is None


def test_the_checks_see_every_form_of_import_and_a_circle():
    known = {"bounds.core.bound", "icq_bounds.cli", "icq.exact", "icq.smdp"}
    source = (
        "import bounds.core.bound\nfrom icq_bounds.cli import main\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from icq import exact\ndef f():\n    from icq.smdp import ICSMDP\n"
    )
    assert imports(source, known) == known
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None


def test_no_room_is_crowded():
    counts = Counter(file.parent for file in modules().values() if file.name != "__init__.py")
    assert {str(room.relative_to(ROOT)): n for room, n in counts.items() if n > CROWD} == {}


def type_names(source):
    """Names of classes, with multiplicity, and of type aliases."""
    tree = ast.parse(source)
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    aliases = {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and "TypeAlias" in ast.dump(node)
    }
    return classes, aliases


def test_a_class_name_means_one_thing():
    classes, aliases = Counter(), set()
    for file in modules((*PRODUCT, "audits", "notebooks")).values():
        named, also = type_names(file.read_text())
        classes.update(named)
        aliases |= also
    twice = {name for name, count in classes.items() if count > 1 or name in aliases}
    assert not twice, f"defined twice: {sorted(twice)}"
    assert type_names("class A: pass\nclass A: pass\nB: TypeAlias = int\n") == (["A", "A"], {"B"})


def test_private_modules_stay_in_their_room(arrows):
    for module, targets in arrows.items():
        for target in targets:
            *place, name = target.split(".")
            if name.startswith("_") and name != "__main__":
                assert module.startswith(".".join(place)), f"{module} imports {target}"


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


@pytest.mark.parametrize("package", PRODUCT)
def test_every_name_is_defined(package):
    """Array shapes in annotations hide undefined names from the linters, so the compiled code is asked."""
    for file in (ROOT / package).rglob("*.py"):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        assert not missing_globals(import_module(name)), name


def test_an_undefined_name_is_found(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("def f():\n    return nowhere.to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_globals(import_module("broken_module")) == {"nowhere"}


# Decisions on what a message says: code decides on the reason instead (icq/reason.py).
ON_MESSAGES = {
    "a word looked for in a message": r"\bin [\w.]*\.(?:result|reason|why|place|need|note|message)\b(?! is\b)(?!\()",
    "a stored word compared": r"\.result\s*[!=]=|\bresult\"\]\s*[!=]=",
    "a name cut at a word": r"\.split\(f?[\"']\s*[A-Za-z]",
    "a pattern of letters": r"\bre\.(?:sub|search|match|fullmatch|findall|finditer|split)\(",
}
AS_RESULT = {"a message made a result": r"\bstr\((?:error|none|wrong|failure|exception)\)"}
ESTIMATING = ("estimators/", "icq_bounds/diagnosis/")  # elsewhere messages are only handed on to people
FOREIGN = {"icq_bounds/sweep/provenance.py", "icq_bounds/pages/html.py", "synthetic/math_features.py"}  # text of others


def decisions(source, patterns):
    """The lines of a source that look like decisions on a message, and why; not those that loop over one."""
    return [
        (number, why)
        for number, line in enumerate(source.splitlines(), 1)
        for why, pattern in patterns.items()
        if re.search(pattern, line.split("  # ")[0]) and " for " not in line.split(" in ")[0]
    ]


def test_code_decides_on_reasons_and_never_on_messages():
    for file in modules(PRODUCT).values():
        name = str(file.relative_to(ROOT))
        patterns = ON_MESSAGES | AS_RESULT if name.startswith(ESTIMATING) else ON_MESSAGES
        assert name in FOREIGN or not decisions(file.read_text(), patterns), name


@pytest.mark.parametrize(
    "line",
    [
        "longer = OFTEN in e.result",
        'if e.result != "ok":',
        "return missing(str(error))",
        'name = bound.name.split(" after ")[0]',
        'text = re.sub(r"option (\\d+)", option, text)',
    ],
)
def test_a_decision_on_a_message_is_found(line):
    assert decisions(line, ON_MESSAGES | AS_RESULT)
