"""The theory page cites only what exists, numbers its statements, and no document speaks of a machine."""

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THEORY = ROOT / "docs" / "theory.md"
PACKAGES = ("icq", "synthetic", "estimators", "bounds", "icq_bounds", "audits")
STATEMENT = re.compile(r"^\*\*(?:Lemma|Theorem|Corollary) (\d+)\.(\d+)", re.MULTILINE)
MACHINE = re.compile(r"(?<![\w.)/])(?:/(?:work|home|root|tmp|var|opt|mnt|usr|Users)/|[A-Z]:\\)|file://|localhost")


@cache
def test_names() -> frozenset[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return frozenset(n.name for n in nodes if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))


test_names.__test__ = False


@cache
def names_in_code() -> frozenset[str]:
    """Functions, classes, fields and arguments anywhere in the packages."""
    found = set()
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return frozenset(found)


def importable(dotted: str) -> bool:
    """Whether `package.module.attribute...` exists; a dataclass field counts as an attribute of its class."""
    parts = dotted.split(".")
    cut, found = 1, import_module(parts[0])
    while cut < len(parts):
        try:
            found = import_module(".".join(parts[: cut + 1]))
        except ModuleNotFoundError:
            break
        cut += 1
    for name in parts[cut:]:
        if name in getattr(found, "__dataclass_fields__", {}):
            return name == parts[-1]
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def problem(span: str) -> str | None:
    """What is wrong with a backticked span: every one must be a test, a file, a dotted or a bare name of the code."""
    if re.fullmatch(r"test_\w+", span):
        return None if span in test_names() else "no such test"
    if "/" in span or re.search(r"\.(py|md|json|toml|npz)$", span) or (ROOT / span).is_file():
        return None if (ROOT / span).exists() else "no such file"
    if re.fullmatch(r"\w+(\.\w+)+", span):
        if span.split(".")[0] not in PACKAGES:
            return "a dotted name starts with its package"
        return None if importable(span) else "not importable"
    if re.fullmatch(r"[A-Za-z_]\w*", span):
        return None if span in names_in_code() else "no such name in the code"
    return "not a name, a file or a test"


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(text))


def wrong_citations(text: str) -> list[str]:
    return [f"{span}: {why}" for span in dict.fromkeys(spans(text)) if (why := problem(span))]


def statements(text: str) -> dict[tuple[int, int], str]:
    """Each numbered statement with its text, up to the next statement or heading.  Raises for a number given twice."""
    out: dict[tuple[int, int], str] = {}
    for found in STATEMENT.finditer(text):
        end = re.search(r"^(#|\*\*(Lemma|Theorem|Corollary) \d)", text[found.end() :], re.MULTILINE)
        number = (int(found[1]), int(found[2]))
        if number in out:
            raise ValueError(f"{number[0]}.{number[1]}: used twice")
        out[number] = text[found.start() : found.end() + end.start() if end else len(text)]
    return out


def unsupported_statements(text: str) -> list[str]:
    """Statements without a function or without a test, out of order, or referred to and missing."""
    found, out = statements(text), []
    for (section, number), body in found.items():
        cited = spans(body)
        if not any("." in s and s.split(".")[0] in PACKAGES for s in cited):
            out.append(f"{section}.{number}: names no function")
        if not any(s.startswith("test_") for s in cited):
            out.append(f"{section}.{number}: names no test")
        if number > 1 and (section, number - 1) not in found:
            out.append(f"{section}.{number}: {section}.{number - 1} is missing")
    referred = "".join(re.findall(r"(?:Lemma|Theorem|Corollar)[a-z]*((?:,? (?:and |to )?\d+\.\d+)+)", text))
    for a, b in dict.fromkeys(re.findall(r"(\d+)\.(\d+)", referred)):
        if (int(a), int(b)) not in found:
            out.append(f"{a}.{b}: referred to, never stated")
    return out


def fragile_mathematics(text: str) -> list[str]:
    """Formulas that Markdown may break: escaped punctuation, `<`, ends of line, open delimiters, `|` in table rows."""
    text, out = re.sub(r"`[^`\n]+`", "", prose(text)), []
    for block in re.split(r"\n\s*\n", text):
        if block.count("$") % 2:
            out.append(f"open delimiter: {block[:60]!r}")
        for formula in re.findall(r"\$\$.+?\$\$|\$[^$]+\$", block, re.DOTALL):
            if re.search(r"\\[^A-Za-z]|<|\n", formula):
                out.append(f"not safe in Markdown: {formula}")
        rows = [line.count("|") for line in block.splitlines() if line.startswith("|")]
        if len(set(rows)) > 1:
            out.append(f"rows of unequal length: {block[:60]!r}")
    return out


def dead_links(text: str) -> list[str]:
    """Links within the page whose heading does not exist, by the rule of code-hosting sites."""
    heads = (re.sub(r"[^\w\s-]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return sorted(set(re.findall(r"\]\(#([^)]+)\)", text)) - set(heads))


def sections(text: str) -> set[str]:
    return set(re.findall(r"^#+ (\d+[a-z]?)\. ", text, re.MULTILINE))


def cited_sections(source: str) -> set[str]:
    return set(re.findall(r"docs/theory\.md\s+sections?\s+(\d+[a-z]?)\b", source))


# --- the documents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [wrong_citations, unsupported_statements, fragile_mathematics, dead_links])
def test_theory_page(check):
    assert check(THEORY.read_text()) == []


def test_sections_that_the_code_cites_exist():
    files = [file for package in (*PACKAGES, "tests") for file in (ROOT / package).rglob("*.py")]
    cited = {section: file.name for file in files for section in cited_sections(file.read_text())}
    missing = set(cited) - sections(THEORY.read_text())
    assert not missing, {section: cited[section] for section in missing}


def test_no_document_names_a_machine():
    files = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    assert len(files) > 1
    assert {f.name: found for f in files if (found := MACHINE.findall(f.read_text()))} == {}


def test_the_page_on_sweeps_has_every_variable_with_its_dimensions():
    from icq_bounds.sweep.dataset import NUMBERS, RECORDS, VERDICTS

    page = (ROOT / "docs" / "sweeps.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| axes(.*?) \|", page, re.MULTILINE)
    said = {name: tuple(re.findall(r"\w+", dims)) for names, dims in rows for name in re.findall(r"`(\w+)`", names)}
    own = {"value": ("replica",), "predicted": ("checkpoint",), "finished": ()}
    assert said == {name: dims for name, (dims, _) in (RECORDS | VERDICTS).items()} | dict.fromkeys(NUMBERS, ()) | own


# --- the checks themselves ------------------------------------------------------------------------------------------

GOOD = """## 1. Model

See [there](#1-model).

**Lemma 1.1 (solver).** $x_1 \\le y$, `ICSMDP`, `gamma`, `icq/exact/fixed_point.py`.

*Code* `icq.exact.fixed_point.solve`, `icq.exact.Analysis.d_pair`, `icq.smdp.ICSMDP.prob`. *Tests* `test_theory_page`.

**Theorem 1.2.** By Lemma 1.1. `icq.learn.td.scalar`, `test_theory_page`
"""


def test_a_sound_page_passes():
    for check in (wrong_citations, unsupported_statements, fragile_mathematics, dead_links):
        assert check(GOOD) == []
    assert sections(GOOD) == {"1"}


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (wrong_citations, "test_theory_page", "test_theory_pages"),
        (wrong_citations, "icq.exact.fixed_point.solve", "icq.exact.fixed_point.solved"),
        (wrong_citations, "icq.exact.fixed_point.solve", "icq.solver.solve"),
        (wrong_citations, "icq.exact.fixed_point.solve", "solve.solve"),
        (wrong_citations, "Analysis.d_pair", "Analysis.d_pairs"),
        (wrong_citations, "ICSMDP.prob", "ICSMDP.prob.T"),
        (wrong_citations, "icq/exact/fixed_point.py", "icq/solver.py"),
        (wrong_citations, "`gamma`", "`gama`"),
        (wrong_citations, "`gamma`", "`1 + 1`"),
        (unsupported_statements, "`icq.learn.td.scalar`", ""),
        (unsupported_statements, "`icq.learn.td.scalar`", "`gamma`"),
        (unsupported_statements, "`, `test_theory_page`", "`"),
        (unsupported_statements, "Theorem 1.2", "Theorem 1.3"),
        (unsupported_statements, "By Lemma 1.1", "By Lemma 2.1"),
        (unsupported_statements, "By Lemma 1.1", "By Lemmas 1.1 and 1.4"),
        (fragile_mathematics, "x_1", "\\|x\\|"),
        (fragile_mathematics, "x_1", "x<y"),
        (fragile_mathematics, "x_1", "x\ny"),
        (fragile_mathematics, "y$", "y"),
        (fragile_mathematics, "See", "| $a$ | b |\n|---|---|\n| $|a|$ | b |\n"),
        (dead_links, "(#1-model)", "(#2-model)"),
    ],
)
def test_a_broken_page_is_caught(check, old, new):
    assert old in GOOD
    assert len(check(GOOD.replace(old, new))) == 1


def test_a_number_used_twice_is_refused():
    with pytest.raises(ValueError, match=r"1\.1: used twice"):
        statements(GOOD.replace("Theorem 1.2", "Theorem 1.1"))


def test_cited_sections_are_read_over_line_ends():
    found = cited_sections("docs/theory.md section\n5b, docs/theory.md sections 1 and 2; theory.md section 9")
    assert found == {"5b", "1"}


@pytest.mark.parametrize("text", ["see /work/x", "in /home/me/a", "C:\\data", "`/tmp/out`", "http://localhost:80"])
def test_machine_paths_are_seen(text):
    assert MACHINE.search(text)


@pytest.mark.parametrize("text", ["experiments/work/x", "https://arxiv.org/abs/2605.19140", "a/tmp/b", "results/n10"])
def test_other_paths_are_not(text):
    assert not MACHINE.search(text)
