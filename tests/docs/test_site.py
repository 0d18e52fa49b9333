"""The documentation site: every page is reachable, every link leads somewhere, every cell and code sample runs."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import matplotlib as mpl
import pytest
import test_docs

from icq_bounds.cli import main

pytestmark = pytest.mark.compiles

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md") if not {"_build", "api"} & set(p.relative_to(DOCS).parts)
)
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_CELLS = [page for page in PAGES if CELL.search((DOCS / page).read_text())]
NOTEBOOKS = "notebooks/*"  # copied there when the site is built; test_notebooks.py looks at them
DEAR = {"howto/cluster.md"}  # a whole sweep, as in test_sweep.py; the site's build runs it


def entries(text: str) -> list[str]:
    """The pages that the toctrees of a page name."""
    bodies = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for body in bodies for line in body.splitlines() if line.strip() and line[0] != ":"]
    return [re.sub(r"^.+ <(.+)>$", r"\1", line) for line in lines]  # Title <page>


def reachable(root: Path = DOCS) -> set[str]:
    """Every page that toctrees lead to from the index."""
    found, queue = {"index.md"}, ["index.md"]
    for page in queue:
        for entry in set(entries((root / page).read_text())) - {NOTEBOOKS}:
            at = root / entry.lstrip("/") if entry.startswith("/") else (root / page).parent / entry
            name = at.with_name(f"{at.name}.md").resolve().relative_to(root.resolve()).as_posix()
            if name not in found:
                found.add(name)
                queue.append(name)
    return found


def slugs(text: str) -> set[str]:
    """The addresses of headings, by the rule of code-hosting sites."""
    heads = re.findall(r"^#+ (.+)$", test_docs.prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", re.sub(r"[`*$]", "", head.lower())).strip().replace(" ", "-") for head in heads}


def dead_links(page: Path, text: str | None = None) -> list[str]:
    """Relative links of a page (of this text, if given) whose file or heading does not exist."""
    out = []
    text = page.read_text() if text is None else text
    text = re.sub(r"`[^`\n]+`|\$\$.+?\$\$|\$[^$]+\$", "", test_docs.prose(text))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in slugs(file.read_text())):
            out.append(target)
    return out


def shell(line: str) -> None:
    """`icq ...` in this process."""
    program, *arguments = shlex.split(line)
    assert program == "icq", f"{line}: cells run no other program"
    main(arguments)


def run(text: str) -> str:
    """What the cells of a page print, run one after the other; a line that begins with ! is a command."""
    names = {"__name__": "page", "run_command": shell}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for cell in CELL.findall(text):
            code = re.sub(r"^!(.+)$", lambda found: f"run_command({found[1]!r})", cell, flags=re.MULTILINE)
            exec(compile(code, "cell", "exec"), names)
    return said.getvalue()


def test_every_page_is_in_the_contents():
    assert reachable() == set(PAGES)
    assert NOTEBOOKS in entries((DOCS / "notebooks.md").read_text())


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_links_lead_somewhere(page):
    assert dead_links(DOCS / page) == []


@pytest.mark.parametrize("page", sorted(set(WITH_CELLS) - DEAR))
def test_cells_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mpl.rc_context({"backend": "agg"}):
        said = run((DOCS / page).read_text())
    assert said.strip()


def test_pages_that_promise_cells_have_them():
    assert {"tutorial.md", *(page for page in PAGES if page.startswith("howto/own-"))} <= set(WITH_CELLS)


def test_python_samples_elsewhere_are_valid():
    for page in PAGES:
        for code in re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE):
            compile(code, page, "exec")


# --- the checks themselves ------------------------------------------------------------------------------------------


def test_broken_pages_are_caught(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A page\n\n[here](#a-page) [there](b.md) [wrong](#b) ![](c.png) [far](https://arxiv.org)\n")
    assert dead_links(page) == ["b.md", "#b", "c.png"]
    (tmp_path / "index.md").write_text("```{toctree}\n:hidden:\n\nA page <a>\n```\n")
    assert reachable(tmp_path) == {"index.md", "a.md"}
    with pytest.raises(ZeroDivisionError):
        run("```{code-cell} python\n1 / 0\n```\n")
    with pytest.raises(SystemExit):
        run("```{code-cell} python\n!icq analyse missing.npz\n```\n")
