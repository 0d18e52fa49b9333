"""The benchmark harness compares what it says: turns, medians, and one replaceable part of the page per benchmark."""

import time

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.harness import Contender, Section, Timing


def test_contenders_take_turns_and_rates_are_work_over_median_seconds():
    calls = []
    contenders = [Contender(name, lambda name=name: calls.append(name)) for name in "ab"]
    found = harness.measure(contenders, rounds=3, warm=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert found.seconds.shape == (2, 3)
    t = Timing(("a", "b"), np.array([10.0, 5.0]), np.array([[1.0, 2.0, 9.0], [2.0, 4.0, 18.0]]))
    assert t.rate("a") == 5.0 and t.each("a") == 0.2
    assert t.ratio("a", "b") == (4.0, 4.0, 4.0)  # a slow round slows both and cancels


def test_a_slow_contender_is_seen_to_be_slow():
    found = harness.measure([Contender("idle", lambda: None), Contender("sleeps", lambda: time.sleep(0.002))], 3, 0)
    assert found.ratio("idle", "sleeps")[0] > 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="contenders"):
        harness.measure([Contender("a", int), Contender("a", int)])
    with pytest.raises(ValueError, match="rounds"):
        harness.measure([Contender("a", int)], rounds=0)


def test_publishing_replaces_only_its_own_part(tmp_path, monkeypatch):
    for name in ("PAGE", "RESULTS"):
        monkeypatch.setattr(harness, name, tmp_path / name)
    one = Section("speed", "a note", ("who", "rate"), (("x", "1"),))
    harness.publish("first", "First", "make a", [one])
    harness.publish("second", "Second", "make b", [one])
    harness.publish("first", "First, again", "make a", [one])
    page = (tmp_path / "PAGE").read_text()
    assert page.count("<!-- begin first -->") == 1 and "First, again" in page and "## Second" in page
    assert "| who | rate |\n| --- | --- |\n| x | 1 |" in page
    assert (tmp_path / "RESULTS" / "first.json").exists()


def test_numbers_read_well():
    assert [harness.number(x) for x in (0.12345, 12.345, 123456.0, float("nan"))] == [
        "0.123",
        "12.3",
        "123\u2009000",
        "n/a",
    ]
