"""Names in backticks become links: functions to the API reference, tests to their source.  A miss is an error.

A span counts if it is a dotted name of one of the packages (`icq.exact.analyse`) or the name of a test (`test_...`).
Numbered headings of the theory page get the labels theory-1, theory-5b, theory-8.3, so that docstrings link to them.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
TESTS = Path(__file__).parents[2] / "tests"
DOTTED = re.compile(r"(icq|synthetic|estimators|bounds|icq_bounds|audits)(\.\w+)+")
TEST = re.compile(r"test_\w+")
NUMBER = re.compile(r"(\d+[a-z]?(?:\.\d+)?)\.? ")
METADATA = ("icq.gamma", "icq.schema")  # keys of a Parquet file, not names of code
UNCHECKED = ("api", "changelog")  # generated from docstrings, and about the past


@cache
def tests() -> dict[str, tuple[str, int]]:
    """The file (relative to tests/, without suffix) and line of every test; a name used twice means the theory one."""
    found: dict[str, tuple[str, int]] = {}
    for file in sorted(TESTS.rglob("test_*.py"), key=lambda f: f.parent.name == "theory"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and TEST.fullmatch(node.name):
                found[node.name] = (file.relative_to(TESTS).with_suffix("").as_posix(), node.lineno)
    return found


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Turn code spans of a page into references that are resolved, or missed, later."""
    page = app.env.docname
    if page.split("/")[0] in UNCHECKED:
        return
    for span in list(doctree.findall(nodes.literal)):
        name = span.astext()
        if isinstance(span.parent, nodes.reference | pending_xref):
            continue
        if DOTTED.fullmatch(name) and name not in METADATA:
            kind = {"refdomain": "py", "reftype": "obj"}
        elif TEST.fullmatch(name):
            kind = {"refdomain": "std", "reftype": "test"}
        else:
            continue
        link = pending_xref("", reftarget=name, refwarn=True, refexplicit=False, refdoc=page, **kind)
        span.replace_self(link)
        link += span
    if page == "theory":
        label_sections(app.env, doctree)


def label_sections(env: BuildEnvironment, doctree: nodes.document) -> None:
    """theory-N for every numbered heading of the theory page."""
    standard = env.domains.standard_domain
    for section in doctree.findall(nodes.section):
        title = section[0].astext()
        if number := NUMBER.match(title):
            name = f"theory-{number[1]}"
            standard.labels[name] = ("theory", section["ids"][0], title)
            standard.anonlabels[name] = ("theory", section["ids"][0])


def link_test(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """A reference to the line of a test."""
    if node["reftype"] != "test" or node["reftarget"] not in tests():
        return None
    file, line = tests()[node["reftarget"]]
    where = app.builder.get_relative_uri(node["refdoc"], f"tests/{file}")
    link = nodes.reference("", "", internal=True, refuri=f"{where}#L-{line}")
    link += content
    return link


def test_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The source of every test file."""
    for file in sorted({file for file, _ in tests().values()}):
        source = highlight((TESTS / f"{file}.py").read_text(), PythonLexer(), HtmlFormatter(lineanchors="L"))
        title = f"tests/{file}.py"
        yield f"tests/{file}", {"title": title, "body": f"<h1>{escape(title)}</h1>{source}", "parents": []}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the links and the pages of tests."""
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", link_test)
    app.connect("html-collect-pages", test_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
