"""The last catch of `icq`: one line in words that this project has chosen, whatever went wrong inside."""

import ast
import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from rich.text import Text

from icq import coerce, laws
from icq_bounds import flags
from icq_bounds.cli import main
from icq_bounds.commands import report
from icq_bounds.errors import TRACE

pytestmark = pytest.mark.compiles


class Odd(Exception):
    """An error with lines."""


def deep():
    return deep()


FOREIGN = {
    "LAPACK": lambda: np.linalg.inv(np.zeros((2, 2))),
    "shapes": lambda: np.zeros(2) + np.zeros(3),
    "conversion": lambda: float("x"),
    "JSON": lambda: json.dumps(float("nan"), allow_nan=False),
    "JSON read": lambda: json.loads("{"),
    "markup": lambda: Text.from_markup("[/x]"),
    "names": lambda: {}["secret"],
    "attributes": lambda: None.secret,
    "syntax": lambda: ast.literal_eval("(" * 50),
    "recursion": deep,
    "memory": lambda: np.zeros((10**7, 10**7)),
    "overflow": lambda: 10.0**1000,
    "lines": lambda: (_ for _ in ()).throw(Odd("two\nlines")),
}
WORDS = ("singular", "broadcast", "convert", "compliant", "property", "tag", "secret", "parenthes", "recursion", "two",
         "allocate", "range", "Traceback", "numpy")  # fmt: skip


def told(call, monkeypatch, capsys):
    monkeypatch.setattr(report, "run", lambda options, console: call())
    monkeypatch.setattr(report.run, "__annotations__", {"options": report.ReportOptions})
    with pytest.raises(SystemExit) as stopped:
        main(["report", "folder"])
    said = capsys.readouterr()
    assert stopped.value.code == 1 and said.out == "" and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("name", FOREIGN)
def test_no_words_of_libraries_reach_a_user(name, monkeypatch, capsys):
    said = told(FOREIGN[name], monkeypatch, capsys)
    assert said.startswith("icq: error: ") and not [word for word in WORDS if word in said], said
    assert f"{TRACE}=1" in said or "not enough memory" in said


def test_our_own_words_do(monkeypatch, capsys):
    said = told(lambda: coerce.count("seeds", 1.5), monkeypatch, capsys)
    assert said == "icq: error: seeds = 1.5 is not a whole number\n"


def test_a_variable_shows_the_trace(monkeypatch):
    monkeypatch.setenv(TRACE, "1")
    monkeypatch.setattr(report, "run", lambda options, console: FOREIGN["names"]())
    monkeypatch.setattr(report.run, "__annotations__", {"options": report.ReportOptions})
    with pytest.raises(KeyError, match="secret"):
        main(["report", "folder"])


def test_warnings_of_this_project_are_notes_and_those_of_libraries_are_not_shown(monkeypatch, capsys):
    def warn(options, console):
        warnings.warn("rows were divided", laws.Normalised, stacklevel=1)
        np.float64(1e300) * np.float64(1e300)

    monkeypatch.setattr(report, "run", warn)
    monkeypatch.setattr(report.run, "__annotations__", {"options": report.ReportOptions})
    main(["report", "folder"])
    assert capsys.readouterr().err == "icq: note: rows were divided\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "from icq_bounds import cli; cli.run = lambda *_: print('x' * 10**6); cli.main(['analyse'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("1e6", 10**6), ("-2", -2), ("1e30", int(1e30)), ("2.0", 2)])
def test_whole_numbers_may_be_written_with_an_exponent(text, number):
    assert flags.whole(text) == number


@pytest.mark.parametrize("text", ["1.5", "nan", "inf", "1e400", "many", "", "9" * 5000])
def test_other_text_is_no_whole_number(text):
    with pytest.raises(ValueError, match="is not a whole number"):
        flags.whole(text)


ABSURD = {
    "learn {m} --handoffs 1e30": "handoffs = .* must be at most 2000000000",
    "learn {m} --seeds 1e9": "seeds = 1000000000 must be at most 1000000",
    "learn {m} --network 1e9 --handoffs 10": "width = 1000000000: .* weights",
    "theorem {m} --handoffs 1e15": "handoffs = .* must be at most",
    "theorem {m} --points 1e9": "points = 1000000000 must be at most 1000",
    "theorem {m} --step nan": "step = nan is not a finite number",
    "simulate {m} --handoffs 1e19 --out x.jsonl": "handoffs = .* must be at most",
    "simulate {m} --handoffs 10 --seed -1 --out x.jsonl": "seed = -1 must be at least 0",
    "make dials --agents 1e9 --out x.npz": "agents = 1000000000.* cannot be built",
    "make garnet --states 1e12 --out x.npz": "states = .* cannot be built",
    "make routing --intents 1e11 --out x.npz": "intents = .* cannot be built",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("absurd") / "m.npz"
    main(["make", "garnet", "--states", "6", "--observations", "4", "--agents", "2", "--out", str(path)])
    return path


@pytest.mark.parametrize("command", ABSURD)
def test_absurd_counts_are_refused_by_name(command, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([part.format(m=model) for part in command.split()])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(ABSURD[command], said), said
    assert not [*tmp_path.iterdir()], "nothing was written"
