"""The README is short, its first sample runs and says what stands below it, and it names what there is."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"±?\d+(?:\.\d+)?(?:e[+-]\d+)?")


def test_it_is_short():
    assert len(TEXT.splitlines()) < 120


def test_the_first_sample_says_what_stands_below_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = r"^```{}\n(.*?)\n```$"
    code, said = (re.search(block.format(kind), TEXT, re.DOTALL | re.MULTILINE)[1] for kind in ("python", "text"))
    *lines, last = code.splitlines()
    assert len(lines) + 1 <= 6 and last == "check"
    names = {}
    with mpl.rc_context({"backend": "agg"}):
        exec(compile("\n".join(lines), "README.md", "exec"), names)
    now = repr(eval(last, names))
    words, numbers = ([NUMBER.sub("#", x).split() for x in (said, now)], [NUMBER.findall(x) for x in (said, now)])
    assert words[0] == words[1]
    for old, new in zip(*numbers, strict=True):
        assert float(new.strip("±")) == pytest.approx(float(old.strip("±")), rel=0.5)


def test_the_layout_names_the_rooms():
    rooms = set(re.findall(r"^\| `(\w+)/`", TEXT, re.MULTILINE))
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"} <= rooms
    assert all((ROOT / room).is_dir() for room in rooms)


def test_the_paper_is_cited_right():
    title = "Learning to Hand Off: Provably Convergent Workflow Learning under Interface Constraints"
    authors = "Li, Jiayu and Zhang, Enpei and Zhou, Dawei and Chen, Elynn and Yan, Yujun"
    assert all(part in TEXT for part in (title, authors, "2605.19140", "10.48550/arXiv.2605.19140", "2026"))
