"""Whatever the terminal: lines that people and programs copy come whole, from folders with any name, as letters."""

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from estimators.logs.recorder import Recorder
from icq_bounds import plain
from icq_bounds.cli import main
from icq_bounds.console import Lines, says

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
    many = Table("who answers", "right, %", "dollars per 1000", "tokens", "seconds", title="a title " * 9)
    row = ("always-cheap", "91.12345678", "0.9741234567", "123456789.1", "0.00123456")
    many.add_row(*row)
    console.print(many)
    out = capsys.readouterr().out
    assert all(number in out for number in row) and "…" not in out, "a number is whole or not there"


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


ORDERS = "\x1b[31mred\x1b]0;title\x07\x9b2J\x08\x7f\r\u202eturned\u2028"
MARKUP = "[/x] [bold] [link=file:///x] :x: [red"
INSIDE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]")


@given(st.text(max_size=30))
def test_any_text_is_letters_on_one_line(text):
    said = plain.plain(text + ORDERS)
    assert not INSIDE.search(said) and "\n" not in said and "\\x1b[31mred" in said
    assert said.encode() and plain.plain(said) == said
    assert plain.plain("Übermaß 数 é [/x]") == "Übermaß 数 é [/x]"


def test_nothing_from_outside_orders_the_terminal(capsys):
    console = Lines()
    table = Table("a" + ORDERS, title=ORDERS, caption=MARKUP)
    table.add_row(ORDERS + MARKUP)
    table.add_row(Text(ORDERS))
    for each in (ORDERS, MARKUP, Text(ORDERS), table):
        console.print(each)
    out = capsys.readouterr().out
    assert not INSIDE.search(out) and out.count("\\x1b[31m") >= 5 and out.splitlines()[1] == MARKUP


def test_what_a_progress_bar_says_is_letters():
    """On a terminal, where rich itself moves the cursor and colours."""
    console = Lines()
    console.width, console.file, console._force_terminal = 300, io.StringIO(), True
    with Progress(says(), says("fields[left]"), console=console) as progress:
        progress.add_task(MARKUP + ORDERS, total=1, left=MARKUP)
    said = console.file.getvalue()
    assert "[/x] [bold]" in said and "\x1b[31mred" not in said and "\\x1b[31mred" in said


def test_names_of_files_are_letters_in_every_command(tmp_path, capsys, monkeypatch):
    """Reading, writing and failing, with names that are markup, orders to the terminal and no letters at all."""
    monkeypatch.chdir(tmp_path)
    base = f"{MARKUP}{ORDERS}\udcff"
    name, log, html = (f"{base}.{suffix}" for suffix in ("npz", "jsonl", "html"))
    Path(name).parent.mkdir(parents=True)
    main(["make", "dials", "--agents", "2", "--clusters", "2", "--out", name])
    main(["analyse", name])
    with Recorder(log, gamma=0.9) as recorder:
        for k in range(4):
            task = recorder.start(f"{k}", agent=f"a{ORDERS}{MARKUP}", observation=f"o{k % 2}")
            task.handoff("x" if k % 2 else "y", reward=float(k), duration=1, done=True)
    main(["diagnose", log, "--html", html])
    out = capsys.readouterr()
    assert plain.plain(Path(name)) in out.out and not INSIDE.search(out.out + out.err)
    for wrong in (["analyse", f"{name}x"], ["analyse", log], ["report", name], ["diagnose", log, "--html", log],
                  ["sweep", f"{name}x"], ["simulate", name, "--handoffs", "3", "--out", f"{name}x"],
                  ["make", f"--{name}"], ["make", "dials", "--gap", name], [name]):  # fmt: skip
        with pytest.raises(SystemExit):
            main(wrong)
        said = capsys.readouterr().err
        assert said and not INSIDE.search(said), wrong
    assert "<title>" in Path(html).read_text(encoding="utf-8")


def test_an_instance_goes_through_a_pipe(tmp_path):
    """The instance alone is on the standard output; links and devices stay what they are."""
    (tmp_path / "link.npz").symlink_to("target.npz")
    code = f"""
from icq_bounds.cli import main
for out in ("/dev/stdout", "/dev/null", {str(tmp_path / "link.npz")!r}):
    main(["make", "garnet", "--states", "9", "--observations", "4", "--out", out])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    data = (tmp_path / "target.npz").read_bytes()
    assert done.stdout.startswith(data[:2]) and len(done.stdout.split(b"/dev/null: ")[0]) == len(data)
    assert b"/dev/stdout: 4 agents" in done.stderr and (tmp_path / "link.npz").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_full_disk_is_one_line_and_a_reader_that_left_none():
    code = "from icq_bounds import cli; cli.run = lambda *_: print('much ' * 10**5); cli.main(['analyse'])"
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1, "icq: error: No space left on device\n")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(60) == 141
    process.stderr.close()


def test_warnings_are_a_line_and_letters_that_a_terminal_lacks_are_escaped(place):
    code = """
import warnings
from icq.note import Note
from icq_bounds import cli
def run(name, rest):
    warnings.warn("cell \x1b[31m is damaged", Note)
    print("ä")
cli.run = run
cli.main(["analyse"])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("\\xe4\n", "icq: note: cell \\x1b[31m is damaged\n")
