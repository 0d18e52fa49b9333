"""`icq math`: every backend through the command, resumption after a kill, and the table it can write."""

import json

import pytest

from estimators.logs.reader import read
from icq_bounds import cli
from synthetic.math_data import load_answers, made_up
from tests.math_stub import said, server


def test_recorded_answers_are_played_compared_and_resumed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # names of two words stand on one line
    log, table = tmp_path / "log.jsonl", tmp_path / "said.csv"
    command = ["math", str(log), "--questions", "30", "--plays", "3", "--table", str(table)]
    cli.main(command)
    out = capsys.readouterr().out
    for name in ("always cheap", "always strong", "per-question oracle", "90 questions played"):
        assert name in out
    found, report = read(log)
    assert report.faultless and int(found.done.sum()) == 90
    back = load_answers(table)
    assert back.responses == made_up(30).responses and (back.correct == made_up(30).correct).all()

    lines = log.read_text().splitlines(keepends=True)
    goes_on = next(i for i, line in enumerate(lines) if i > 40 and '"done":false' in line)
    log.write_text("".join(lines[: goes_on + 1]) + lines[goes_on + 1][:20])  # killed while it wrote a row
    cli.main(command)
    again, _ = read(log)
    assert int(again.done.sum()) == 90
    tasks = [json.loads(line)["task"] for line in log.read_text().splitlines() if '"done":true' in line]
    assert len(set(tasks)) == 90 and sum("again" in task for task in tasks) == 1
    capsys.readouterr()
    cli.main(command)
    assert "questions played" not in capsys.readouterr().out  # nothing was left to do


def test_an_endpoint_is_asked_what_the_table_asks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    table = tmp_path / "t.csv"
    cli.main(["math", str(tmp_path / "made.jsonl"), "--questions", "8", "--table", str(table)])
    with server([(200, said("#### 12"), {})]) as (url, calls):
        cli.main(["math", str(tmp_path / "log.jsonl"), "--backend", "endpoint", "--gsm8k", str(table), "--url", url,
                  "--cheap", "small", "--strong", "large", "--key-variable", "SOME_KEY"])  # fmt: skip
    assert {call["body"]["model"] for call in calls} == {"small", "large"}
    assert len(calls) <= 16  # nothing is asked twice
    assert "sk-secret" not in capsys.readouterr().out + (tmp_path / "log.jsonl").read_text()
    assert read(tmp_path / "log.jsonl")[1].faultless


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--questions", "0"], "questions = 0"),
        (["--plays", "0"], "plays = 0"),
        (["--questions", "10000000000000000000000"], "questions = 10000000000000000000000"),
        (["--plays", "3000000000"], "plays = 3000000000"),
        (["--gsm8k", "absent.csv"], "lm-sys/RouteLLM"),
        (["--backend", "endpoint"], "give --url"),
        (["--worth", "0"], "worth = 0"),
        (["--bits", "7"], "bits = 7"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, says):
    with pytest.raises(SystemExit):
        cli.main(["math", str(tmp_path / "log.jsonl"), *words])
    assert says in capsys.readouterr().err
    assert not (tmp_path / "log.jsonl").exists()


def test_a_data_file_belongs_to_its_experiment(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "cpu", "--gsm8k", "t.csv"])
    assert "gsm8k: recorded answers belong to the math experiment" in capsys.readouterr().err
