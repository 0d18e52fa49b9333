"""What a log says reaches a terminal as text, and a log without a usable row as one line."""

import json
import re

import pytest

from icq_bounds.cli import main

pytestmark = pytest.mark.compiles

WILD = "[bold]\x1b[31mRED\x1b[0m\x1b]0;title\x07[/x]\u202e{number}"
ROW = {"k": 0, "option": "go", "duration": 1, "done": True, "next_agent": None, "next_observation": None}


def log(path, rows):
    path.write_text("\n".join(map(json.dumps, [{"schema": "icq-handoffs/1", "gamma": 0.9}, *rows])))
    return path


def wild(path, count=400):
    """Rows whose every name is a trap, and that have a column of such a name."""
    return log(path, [
        ROW | {"task": i, "agent": WILD, "observation": WILD, "option": WILD + str(i % 2), "reward": i % 2 + i % 7 / 7,
               "context": {WILD: i % 3 // 2}, WILD: 1}
        for i in range(count)
    ])  # fmt: skip


@pytest.mark.parametrize("width", ["40", "200"])
def test_names_are_text_in_the_terminal_and_on_the_page(width, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = wild(tmp_path / "[dim]a[x].jsonl")
    main(["diagnose", str(path), "--html", str(tmp_path / "a.html")])
    said = capsys.readouterr()
    own = re.sub(r"\x1b\[[\d;]*m", "", said.out)  # colours and weights of our own
    for text in (own, (tmp_path / "a.html").read_text()):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert "\x1b[31m" not in said.out and "\x1b]" not in said.out + said.err
    assert "[bold]" in "".join(own.split()) and "\\x1b[31mRED" in "".join(own.split())
    main(["diagnose", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (
        found["interface"]["agents"] == [] or found["interface"]["agents"][0]["name"] == WILD
    )  # machines get it whole
    assert found["log"]["ignored"] == [WILD]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"k": None}, "no readable row is left of 3: column k in 3"), ({"duration": 0}, "no usable row is left: 3 rows")],
)
def test_a_log_without_a_usable_row_is_one_line(change, words, tmp_path, capsys):
    rows = [ROW | {"task": i, "agent": "a", "observation": "o", "reward": 1.0} | change for i in range(3)]
    path = log(tmp_path / "a.jsonl", rows)
    with pytest.raises(SystemExit):
        main(["diagnose", str(path), "--skip-bad"])
    said = capsys.readouterr().err
    assert words in said and "line 2" in said and said.count("\n") == 1
