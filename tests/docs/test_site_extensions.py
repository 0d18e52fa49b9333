"""The extensions that build the site: a missed link, an unreadable formula and odd docstrings."""

import io
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs the extra docs")
pytest.importorskip("myst_parser", reason="needs the extra docs")
sys.path.append(str(Path(__file__).parents[2] / "docs" / "_ext"))

import evidence
import face
import mathml
import plain_docstrings
from docutils import nodes
from docutils.core import publish_doctree
from sphinx.application import Sphinx

import icq_bounds

PAGE = """# A page

`test_cells_run` and `icq.smdp` and `gamma`.

```{eval-rst}
.. py:module:: icq.smdp
```
"""


def warnings(folder: Path, text: str) -> str:
    """What the build of one page complains about."""
    (folder / "index.md").write_text(text)
    said = io.StringIO()
    app = Sphinx(
        folder, None, folder / "out", folder / "trees", "dummy", status=None, warning=said, freshenv=True,
        confoverrides={"extensions": ["myst_parser", "evidence"]},
    )  # fmt: skip
    app.build(force_all=True)
    return said.getvalue()


def test_a_missed_link_is_a_warning(tmp_path):
    assert warnings(tmp_path, PAGE) == ""
    assert "icq.smdb" in warnings(tmp_path, PAGE.replace("`icq.smdp`", "`icq.smdb`"))
    assert "test_cells_walk" in warnings(tmp_path, PAGE.replace("test_cells_run", "test_cells_walk"))


def test_tests_are_found_where_they_are():
    file, line = evidence.tests()["test_tests_are_found_where_they_are"]
    assert file == "docs/test_site_extensions"
    assert "def test_tests_are_found" in Path(__file__).read_text().splitlines()[line - 1]


def test_formulas_become_mathml_and_broken_ones_nothing():
    found = mathml.convert(r"\frac{a}{b} \tag{7}", nodes.math(), block=True)
    assert "<mfrac>" in found and "(7)" in found and 'display="block"' in found
    assert mathml.convert(r"\frac{a", nodes.math(), block=False) == ""


@pytest.mark.parametrize(
    "line",
    ["|b| and Q* and x_k, ||v||_d", "`Q` [S, A]: *a* <b>", "1. not a list", "- nor this", ":a: b", "a::", "_x_ `y`"],
)
def test_docstrings_show_what_they_say(line):
    found = publish_doctree("\n".join(plain_docstrings.markup([line])), settings_overrides={"report_level": 5})
    assert not list(found.findall(nodes.system_message)) and not list(found.findall(nodes.problematic))
    assert found.astext().split() == line.replace("`", "").split()


def test_formulas_in_docstrings_stay_and_items_keep_their_lines():
    lines = ["Lemma.", "", "    a = b", "", "first: one", "  more of it", "second: two"]
    found = publish_doctree("\n".join(plain_docstrings.markup(lines)), settings_overrides={"report_level": 5})
    assert next(found.findall(nodes.literal_block)).astext() == "a = b"
    assert "docs/theory.md section 5b <theory-5b>" in plain_docstrings.inline("see docs/theory.md section 5b.")


def test_the_reference_lists_the_names_of_the_face_and_no_others(tmp_path):
    (tmp_path / "index.rst").write_text("Names\n=====\n\n.. face::\n")
    said = io.StringIO()
    extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "plain_docstrings", "face"]
    app = Sphinx(
        tmp_path, None, tmp_path / "out", tmp_path / "trees", "dummy", status=None, warning=said, freshenv=True,
        confoverrides={"extensions": extensions},
    )  # fmt: skip
    app.build(force_all=True)
    found = {name.split(".")[1] for name in app.env.domains.python_domain.objects if name.startswith("icq_bounds.")}
    assert found >= set(icq_bounds.__all__)
    documented = re.findall(r"auto(?:class|function):: icq_bounds\.(\w+)", "\n".join(face.page()))
    assert documented == icq_bounds.__all__
