"""Docstrings here are plain text: `|b|`, `Q*` and `x_k` mean themselves.  This makes safe markup of them.

Backticked names become code, names of the packages links; citations of the theory page link to its section; indented
lines stay as they are; lines that begin with `name: ` are kept apart.
"""

import re
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
DOTTED = re.compile(r"(icq|synthetic|estimators|bounds|icq_bounds|audits)(\.\w+)+")
INLINE = re.compile(r"`([^`]+)`|(docs/theory\.md\s+sections?\s+(\d+[a-z]?(?:\.\d+)?))|(docs/(\w+)\.md)")
ITEM = re.compile(r"[A-Za-z_][\w, ()\[\]*]{0,60}: ")


def inline(text: str) -> str:
    """One line of markup that shows exactly this text."""
    out, end = [], 0
    for found in INLINE.finditer(text):
        out.append(escaped(text[end : found.start()]))
        code, theory, section, page, name = found.groups()
        if code is not None and DOTTED.fullmatch(code):
            out.append(f"\\ :py:obj:`{code}`\\ ")
        elif code is not None:
            out.append(f"\\ ``{code}``\\ ")
        elif theory is not None:
            out.append(f"\\ :ref:`docs/theory.md section {section} <theory-{section}>`\\ ")
        elif (DOCS / f"{name}.md").exists():
            out.append(f"\\ :doc:`{page} </{name}>`\\ ")
        else:
            out.append(escaped(page))
        end = found.end()
    return "".join([*out, escaped(text[end:])])


def escaped(text: str) -> str:
    """Text without any markup."""
    return re.sub(r"([\\*`|_<>\[\]:])", r"\\\1", text)


def paragraph(lines: list[str]) -> list[str]:
    """Lines that belong together, as a paragraph, or as one line per item."""
    items: list[str] = []
    for line in lines:
        if items and not ITEM.match(line):
            items[-1] += f" {line}"
        else:
            items.append(line)
    if len(items) == 1:
        return [f"\\ {inline(items[0])}", ""]
    return [*(f"| \\ {inline(item)}" for item in items), ""]


def markup(text: list[str]) -> list[str]:
    """The whole docstring."""
    out: list[str] = []

    def kind(line: str) -> str:
        return "blank" if not line.strip() else "as it is" if line.startswith("  ") else "text"

    for what, group in groupby(text, kind):
        lines = list(group)
        if what == "text":
            out += paragraph(lines)
        elif what == "as it is":
            out += ["::", "", *(f"  {line}" for line in lines), ""]
    return out


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring."""
    lines[:] = markup(list(lines))


def shorten(app: Sphinx, doctree: nodes.document) -> None:
    """Signatures without the places where libraries keep their types, and without the addresses of functions."""
    for signature in doctree.findall(addnodes.desc_signature):
        for text in list(signature.findall(nodes.Text)):
            short = re.sub(r"~?jaxtyping\.|jaxlib\._jax\.", "", re.sub(r"\(?<function [^()]*>\)?", "...", text))
            if short != text:
                text.parent.replace(text, nodes.Text(short))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the conversion."""
    app.connect("autodoc-process-docstring", process)
    app.connect("doctree-read", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
