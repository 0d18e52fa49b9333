"""The recorder inside a running workflow: rows that are wrong fail at the call, rows that are right survive."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from estimators.logs.reader import read
from estimators.logs.recorder import Recorder
from estimators.logs.schema import LogError

DOCS = Path(__file__).parents[2] / "docs" / "logs.md"
HANDOFF = {
    "task": "t", "k": 0, "agent": "a", "observation": "o", "option": "go", "reward": 1.0, "duration": 2, "done": False,
    "next_agent": "a", "next_observation": "o",
}  # fmt: skip


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_task_is_told_once(tmp_path):
    path = tmp_path / "a.jsonl"
    with Recorder(path, gamma=0.95) as recorder:
        task = recorder.start("t", agent="triage", observation=[0.5, 1], context={"queue": 3})
        task.handoff(
            "ask", reward=-1, duration=3, next_agent="expert", next_observation=np.array([1.0, 2.0]),
            next_context="deep", scalar=np.float32(4.0), probability=0.25,
        )  # fmt: skip
        task.handoff("solve", reward=np.float64(10.0), duration=np.int64(5), done=True)
        with pytest.raises(LogError, match="done: task 't' has ended"):
            task.handoff("solve", reward=1.0, duration=1, done=True)
    header, first, second = rows(path)
    assert header == {"schema": "icq-handoffs/1", "gamma": 0.95}
    assert first == {
        "task": "t", "k": 0, "agent": "triage", "observation": [0.5, 1.0], "option": "ask", "reward": -1.0,
        "duration": 3, "done": False, "next_agent": "expert", "next_observation": [1.0, 2.0], "scalar": 4.0,
        "context": {"queue": 3}, "probability": 0.25,
    }  # fmt: skip
    assert second == {
        "task": "t", "k": 1, "agent": "expert", "observation": [1.0, 2.0], "option": "solve", "reward": 10.0,
        "duration": 5, "done": True, "next_agent": None, "next_observation": None, "context": "deep",
    }  # fmt: skip
    log, report = read(path)
    assert report.faultless and log.gamma == 0.95 and log.follows.tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": None}, "task: None is a NoneType; an id is text or an integer"),
        ({"task": 1.5}, "task: 1.5 is a float"),
        ({"agent": True}, "agent: True is a bool"),
        ({"agent": -1}, "agent: -1 is not in"),
        ({"k": "0"}, "k: '0' is a str; an integer is needed"),
        ({"k": -1}, "k: -1 is not in 0"),
        ({"observation": []}, "observation: an empty vector"),
        ({"observation": [1.0, "x"]}, r"observation\[1\]: 'x' is a str; a number"),
        ({"observation": [[1.0]]}, r"observation\[0\]"),
        ({"next_observation": np.array([np.nan])}, r"next_observation\[0\]: nan is not finite"),
        ({"option": ["go"]}, "option: "),
        ({"reward": "1"}, "reward: '1' is a str; a number is needed"),
        ({"reward": float("nan")}, "reward: nan is not finite"),
        ({"duration": 0}, "duration: 0 is not in 1"),
        ({"duration": 1.5}, "duration: 1.5 is a float; an integer"),
        ({"done": 1}, "done: 1 is a int; True or False"),
        ({"next_agent": None, "next_observation": None}, "next_agent: needed, because done is false"),
        ({"next_agent": None}, "next_agent: None, but its counterpart"),
        ({"next_observation": None, "done": True}, "next_observation: None, but its counterpart"),
        ({"scalar": float("inf")}, "scalar: inf is not finite"),
        ({"probability": 0}, "probability: 0 is not in"),
        ({"context": {1, 2}}, "context: not a JSON value"),
        ({"context": [float("nan")]}, "context: not a JSON value"),
        ({"chain": 0.5}, "chain: 0.5 is a float"),
    ],
)
def test_wrong_values_fail_at_the_call_and_write_nothing(change, words, tmp_path):
    with Recorder(tmp_path / "a.jsonl", gamma=0.9) as recorder:
        recorder.handoff(**HANDOFF)
        with pytest.raises(LogError, match=words):
            recorder.handoff(**(HANDOFF | change))
        recorder.handoff(**(HANDOFF | {"k": 1}))
    assert len(rows(tmp_path / "a.jsonl")) == 3


def test_a_refused_handoff_leaves_the_task_as_it_was(tmp_path):
    with Recorder(tmp_path / "a.jsonl", gamma=0.9) as recorder:
        with pytest.raises(LogError, match="observation"):
            recorder.start("t", agent="a", observation=None)
        task = recorder.start("t", agent="a", observation="o")
        with pytest.raises(LogError, match="next_context"):
            task.handoff("go", reward=0.0, duration=1, next_agent="b", next_observation="p", next_context=object())
        with pytest.raises(LogError, match="duration"):
            task.handoff("go", reward=0.0, duration=0, next_agent="b", next_observation="p")
        task.handoff("go", reward=0.0, duration=1, next_agent="b", next_observation="p")
        task.handoff("go", reward=0.0, duration=1, done=True)
    log, report = read(tmp_path / "a.jsonl")
    assert report.faultless and log.names.agent == ("a", "b")


def test_a_context_is_given_always_or_never(tmp_path):
    with Recorder(tmp_path / "a.jsonl", gamma=0.9) as recorder:
        task = recorder.start("t", agent="a", observation="o", context=1)
        with pytest.raises(LogError, match="next_context: give the context of every decision"):
            task.handoff("go", reward=0.0, duration=1, next_agent="a", next_observation="o")
        recorder.handoff(**HANDOFF, context=0)
        with pytest.raises(LogError, match="context: None, but earlier handoffs had one"):
            recorder.handoff(**(HANDOFF | {"k": 1}))
    with Recorder(tmp_path / "b.jsonl", gamma=0.9) as recorder:
        recorder.handoff(**HANDOFF)
        with pytest.raises(LogError, match="context: given, but earlier handoffs had none"):
            recorder.handoff(**(HANDOFF | {"k": 1}), context=0)


def test_what_the_loop_changes_later_is_not_recorded(tmp_path):
    seen, view = {"queue": [1]}, np.array([1.0, 2.0])
    with Recorder(tmp_path / "a.jsonl", gamma=0.9) as recorder:
        task = recorder.start("t", agent="a", observation=view, context=seen)
        seen["queue"].append(2)
        view[0] = 7.0
        task.handoff("go", reward=0.0, duration=1, done=True)
    assert rows(tmp_path / "a.jsonl")[1]["context"] == {"queue": [1]}
    assert rows(tmp_path / "a.jsonl")[1]["observation"] == [1.0, 2.0]


def test_a_log_is_continued_with_its_gamma_only(tmp_path):
    path = tmp_path / "a.jsonl"
    for k in range(3):
        with Recorder(path, gamma=0.9) as recorder:
            recorder.start("t", agent="a", observation="o", k=k).handoff(
                "go", reward=0.0, duration=1, next_agent="a", next_observation="o"
            )
    assert [r.get("k") for r in rows(path)] == [None, 0, 1, 2]
    with pytest.raises(LogError, match=r"gamma = 0.9, not icq-handoffs/1 with 0.8"):
        Recorder(path, gamma=0.8)
    with pytest.raises(LogError, match=r"gamma = 1: a number inside \(0, 1\)"):
        Recorder(path, gamma=1)
    (tmp_path / "notes.txt").write_text("milk\n")
    with pytest.raises(LogError, match="no header of a handoff log"):
        Recorder(tmp_path / "notes.txt", gamma=0.9)
    assert (tmp_path / "notes.txt").read_text() == "milk\n"
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(LogError, match="no header of a handoff log"):
        Recorder(tmp_path / "a.parquet", gamma=0.9)
    assert (tmp_path / "a.parquet").read_bytes() == b"PAR1 and so on"
    recorder.close()
    with pytest.raises(ValueError, match="closed"):
        recorder.handoff(**HANDOFF)
    with pytest.raises(FileNotFoundError):
        Recorder(tmp_path / "nowhere" / "a.jsonl", gamma=0.9)


@pytest.mark.parametrize("cut", [3, 40, 60, 150])
def test_a_torn_end_is_closed_before_going_on(cut, tmp_path):
    """Wherever a kill cut the file, the next recorder continues and the reader counts what was torn."""
    path = tmp_path / "a.jsonl"
    with Recorder(path, gamma=0.9) as recorder:
        recorder.handoff(**HANDOFF)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    assert cut < len(whole) and b"\n" not in whole[cut - 1 : cut]
    with Recorder(path, gamma=0.9) as recorder:
        recorder.handoff(**(HANDOFF | {"task": "u"}))
    with Recorder(path, gamma=0.9) as recorder:
        recorder.handoff(**(HANDOFF | {"task": "v"}))
    log, report = read(path)
    assert len(log) == 2 and report.torn.count == 1 and report.torn.first == (1 if cut < whole.index(b"\n") else 2)


def test_rows_are_forced_to_disk_as_asked(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Recorder(tmp_path / "a.jsonl", gamma=0.9) as recorder:
        recorder.handoff(**HANDOFF)
    assert synced == []
    with Recorder(tmp_path / "a.jsonl", gamma=0.9, sync_rows=2) as recorder:
        for k in range(1, 6):
            recorder.handoff(**(HANDOFF | {"k": k}))
        assert len(synced) == 2
    assert len(synced) == 3
    clock = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Recorder(tmp_path / "a.jsonl", gamma=0.9, sync_seconds=5.0) as recorder:
        recorder.handoff(**(HANDOFF | {"k": 6}))
        assert len(synced) == 3
        recorder.handoff(**(HANDOFF | {"k": 7}))
        assert len(synced) == 4


def test_a_full_disk_is_told_and_costs_one_row(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.jsonl", gamma=0.9)
    recorder.handoff(**HANDOFF)
    real = os.write
    short = iter([20, None])
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[: next(short, None)]))
    with pytest.raises(OSError, match="only 20 of"):
        recorder.handoff(**(HANDOFF | {"k": 1}))
    recorder.handoff(**(HANDOFF | {"k": 2}))
    recorder.close()
    log, report = read(tmp_path / "a.jsonl")
    assert log.k.tolist() == [0, 2] and report.torn.count == 1 and report.missing.count == 1


WORKER = """
import sys
from estimators.logs.recorder import Recorder
assert not {"jax", "numpy", "pyarrow"} & set(sys.modules)
path, name, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Recorder(path, gamma=0.9) as recorder:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(tasks):
        task = recorder.start(f"{name}-{i}", agent="a", observation="o", context={"pad": name * 200})
        for k in range(3):
            task.handoff("go", reward=1.0, duration=1, next_agent="a", next_observation="o", next_context=[k])
        task.handoff("go", reward=0.5, duration=1, done=True)
        print(i, flush=True)
"""


def workers(path, names, tasks):
    """Recording processes, all ready to start at once."""
    found = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), name, str(tasks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=DOCS.parents[1],
        )
        for name in names
    ]  # fmt: skip
    for worker in found:
        assert worker.stdout.readline() == "ready\n"
    for worker in found:
        worker.stdin.write("\n")
        worker.stdin.flush()
    return found


def test_four_processes_record_into_one_file(tmp_path):
    path = tmp_path / "a.jsonl"
    for worker in workers(path, "wxyz", 200):
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    log, report = read(path)
    assert len(log) == 4 * 200 * 4 and report.tasks == 800
    assert not (report.torn or report.duplicates or report.missing or report.out_of_order or report.contradictions)
    assert report.interleaved.count > 0  # they did write at the same time


def test_a_killed_process_loses_at_most_its_last_row(tmp_path):
    path = tmp_path / "a.jsonl"
    killed, other = workers(path, "xy", 100_000)
    for _ in range(50):
        told = int(killed.stdout.readline())
    killed.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in killed.stdout if line.endswith("\n"))])
    killed.communicate(timeout=60)
    other.send_signal(signal.SIGKILL)
    other.communicate(timeout=60)
    with Recorder(path, gamma=0.9) as recorder:
        recorder.start("z", agent="a", observation="o", context=0).handoff("go", reward=1.0, duration=1, done=True)
    log, report = read(path)
    rows_told = 4 * (told + 1)  # each told task was recorded with its four handoffs
    recorded = path.read_bytes().count(b'"task":"x-')
    assert rows_told <= recorded <= rows_told + 4
    assert report.torn.count <= 2 and not (report.missing or report.contradictions or report.duplicates)
    assert len(log) == report.rows and report.tasks == len(set(re.findall(rb'"task":"([^"]+)"', path.read_bytes())))


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    log, report = scope["log"], scope["report"]
    assert len(log) > 1 and report.faultless
