"""Whatever the terminal: lines that people and programs copy come whole, from folders with any name."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.table import Table

from icq_bounds.cli import main
from icq_bounds.console import Lines

pytestmark = pytest.mark.compiles

ROOT = Path(__file__).parents[2]
NAME = "Ordner mit Übermaß [bold] :x: und sehr, sehr, sehr, sehr langem Namen"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("terminals") / NAME
    place.mkdir()
    main(["make", "garnet", "--states", "9", "--observations", "4", "--out", str(place / "g.npz")])
    return place


@pytest.mark.parametrize("columns", ["40", "200", None])
def test_lines_stay_whole(columns, place, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    file, log, answers = (str(place / name) for name in ("g.npz", "log.jsonl", "answers.jsonl"))
    expected = {
        f"{file}: 4 agents, 9 states, 4 observations, 3 options, 4 outcomes":
            ["make", "garnet", "--states", "9", "--observations", "4", "--out", file],
        f"{log}: 40 handoffs, ": ["simulate", file, "--handoffs", "40", "--out", log],
        file: ["analyse", file],
        f"{answers}: read it with icq diagnose": ["math", answers, "--questions", "2"],
    }  # fmt: skip
    for line, arguments in expected.items():
        Path(answers).unlink(missing_ok=True)
        main(arguments)
        out = capsys.readouterr().out
        assert any(said.startswith(line) for said in out.splitlines()), (columns, arguments, out)


def test_strings_are_lines_and_tables_keep_to_the_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console, line = Lines(), f"{NAME} " * 5
    console.print(line)
    assert capsys.readouterr().out == f"{line}\n"
    table = Table("what", "value")
    table.add_row("[b]rather a long description[/b] of a number", "0.123456")
    console.print(table)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40 and "0.123456" in out and "[b]" in out


def test_commands_have_no_other_console():
    """Except those that say nothing, and those that draw a page of given width into a string."""
    for file in (ROOT / "icq_bounds").rglob("*.py"):
        if file.name != "console.py":
            assert not re.search(r"\bConsole\((?!quiet=True)", file.read_text()), file


def test_in_a_narrow_terminal_of_another_place(place):
    """In a terminal of 40 columns, another locale and time zone; colours may come, line breaks may not."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    code = "from icq_bounds.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LC_ALL", "LANG")}
    environment |= {"TERM": "xterm", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "make", "garnet", "--states", "30", "--out", "ä b.npz"],
        stdout=theirs, stderr=theirs, cwd=place, env=environment,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0, said
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
    assert "ä b.npz: 4 agents, 30 states, " in plain.splitlines()[-1]
