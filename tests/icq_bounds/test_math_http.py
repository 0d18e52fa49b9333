"""The endpoint against a server on loopback: what is tried again, for how long, and that the key stays secret."""

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.logs.reader import read
from estimators.logs.recorder import Recorder
from icq_bounds.workflows.math.backends import Backend, Problem, equals
from icq_bounds.workflows.math.play import Team, at_random, play
from tests.math_stub import said, server

pytest.importorskip("httpx2")
from icq_bounds.workflows.math.endpoint import Ask, Endpoint, Retry, _retry_after

KEY = "sk-very-secret-0123456789"
PROBLEM = Problem(3, "What is 20 + 22?", equals(42.0))
GOOD = (200, said("20 + 22 = 42\n#### 42"), {})


@pytest.fixture
def waits():
    return []


@pytest.fixture
def ask(monkeypatch, waits):
    monkeypatch.setenv("SOME_KEY", KEY)

    def call(url, **retry):
        how = Retry(**({"tries": 3, "wait": 1.0, "longest": 30.0, "timeout": 5.0} | retry))
        with Endpoint(url, {"s": Ask("small-model")}, key_variable="SOME_KEY", retry=how, sleep=waits.append) as end:
            assert isinstance(end, Backend)
            return end.answer(PROBLEM, "s")

    return call


def test_a_good_answer(ask, waits):
    with server([GOOD]) as (url, calls):
        answer = ask(url)
    assert (answer.text, answer.correct, answer.tokens, answer.failure) == ("20 + 22 = 42\n#### 42", True, 7, "")
    assert answer.seconds > 0 and waits == []
    assert calls[0]["path"] == "/v1/chat/completions" and calls[0]["body"]["model"] == "small-model"
    assert calls[0]["headers"]["authorization"] == f"Bearer {KEY}"
    assert calls[0]["body"]["messages"][-1] == {"role": "user", "content": PROBLEM.text}


def test_a_wrong_answer_is_no_failure(ask):
    with server([(200, said("#### 41"), {})]) as (url, _):
        answer = ask(url)
    assert not answer.correct and answer.failure == ""


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((500, {}, {}), "HTTP 500"),
        ((429, {}, {}), "HTTP 429"),
        ((200, b"{torn", {}), "not JSON"),
        ((200, b"\xff\xfe", {}), "not JSON"),
        ((200, b"[" * 100_000, {}), "not JSON"),
        ((200, [], {}), "no choices"),
        ((200, {"choices": []}, {}), "no choices"),
        ((200, {"choices": [{}]}, {}), "no text"),
        ((200, {"choices": ["hello"]}, {}), "no text"),
        ((200, said(None), {}), "no text"),
        ((200, said("  "), {}), "no text"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_recorded(ask, waits, bad, says):
    with server([bad, bad, GOOD]) as (url, calls):
        assert ask(url).correct
        assert len(calls) == 3
    assert len(waits) == 2 and 0.5 <= waits[0] <= 1.0 <= waits[1] <= 2.0
    with server([bad]) as (url, calls):
        answer = ask(url)
        assert len(calls) == 3  # no more than allowed, and no wait after the last
    assert says in answer.failure and not answer.correct and answer.tokens == 0
    assert len(waits) == 4


@pytest.mark.parametrize("status", [301, 400, 401, 404])
def test_what_will_not_pass_is_not_tried_again(ask, waits, status):
    with server([(status, {"error": {"message": f"your key {KEY} is bad"}}, {"location": "/elsewhere"})]) as (
        url,
        calls,
    ):
        answer = ask(url)
        assert len(calls) == 1
    assert answer.failure.startswith(f"HTTP {status}") and waits == []
    assert KEY not in repr(answer)
    assert ("$SOME_KEY" in answer.failure) == (status == 401)


def test_a_rate_limit_is_obeyed(ask, waits):
    with server([(429, {}, {"retry-after": "17"}), GOOD]) as (url, _):
        assert ask(url).correct
    assert waits == [17.0]
    with server([(503, {}, {"retry-after": "9999"}), GOOD]) as (url, _):
        assert ask(url).correct
    assert waits == [17.0, 30.0]  # never longer than allowed


def test_the_time_of_a_date_to_wait_for():
    assert _retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=40))) == pytest.approx(40, abs=5)
    assert _retry_after(format_datetime(datetime.now(UTC) - timedelta(seconds=40))) == 0.0
    assert [_retry_after(x) for x in (None, "soon", "nan", "-3", "2.5")] == [None, None, None, 0.0, 2.5]


def test_silence_and_no_server_are_failures(ask):
    with server([0.4]) as (url, calls):
        assert "Timeout" in ask(url, tries=2, timeout=0.1).failure
        assert len(calls) == 2
    assert "ConnectError" in ask(url, tries=1).failure  # it has stopped


def test_tokens_nobody_counted_are_estimated(ask):
    for usage in (None, {}, {"completion_tokens": "many"}, {"completion_tokens": -1}, {"completion_tokens": True}):
        with server([(200, said("#### 42  ") | {"usage": usage}, {})]) as (url, _):
            assert ask(url).tokens == 3


@given(st.integers(1, 2000), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_pauses_double_and_are_bounded(failed, jitter, asked):
    retry = Retry(wait=0.5, longest=20.0)
    pause = retry.pause(failed, asked, jitter)
    assert 0 < pause <= 20.0
    assert pause >= min(20.0, 0.5 * 2.0 ** min(failed - 1, 20) / 2, asked if asked is not None else 20.0)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("api.example.org/v1", "http"),
        ("ftp://example.org", "http"),
        ("https://user:word@example.org/v1", "user name"),
        ("http://example.org/v1", "unencrypted"),
    ],
)
def test_addresses_that_are_refused(monkeypatch, url, says):
    monkeypatch.setenv("SOME_KEY", KEY)
    with pytest.raises(ValueError, match=says) as error:
        Endpoint(url, {"s": Ask("m")}, key_variable="SOME_KEY")
    assert KEY not in str(error.value) and "word" not in str(error.value)


def test_wrong_settings_are_named(monkeypatch):
    for bad in ({"tries": 0}, {"wait": -1.0}, {"longest": float("inf")}, {"timeout": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Retry(**bad)
    monkeypatch.setenv("SOME_KEY", "naïve")
    with pytest.raises(ValueError, match="SOME_KEY") as error:
        Endpoint("http://127.0.0.1:1", {}, key_variable="SOME_KEY")
    assert "naïve" not in str(error.value)


def test_a_run_survives_failures_and_its_log_has_no_key(monkeypatch, tmp_path, caplog, capsys):
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    strategies = {"brief": Ask("small"), "careful": Ask("large")}
    script = [GOOD, (500, {"error": KEY}, {}), (200, b"?", {}), GOOD, (401, {}, {}), *[GOOD] * 5]
    with server(script) as (url, calls):
        quick = Retry(tries=1)
        with Endpoint(url, strategies, key_variable="SOME_KEY", retry=quick, sleep=lambda s: None) as end:
            log = tmp_path / "log.jsonl"
            with Recorder(log, gamma=0.99) as recorder:
                problems = [Problem(i, f"{i} + 22?", equals(42.0)) for i in range(12)]
                done = play(end, problems, Team(("brief",), ("careful",)), at_random(0), recorder)
            everything = [log.read_text(), caplog.text, repr(end), repr(vars(end)), repr(done), *capsys.readouterr()]
    assert len(calls) >= 8
    assert sum(len(s.failures) for s in done) == 3 and any(s.correct for s in done)
    found, report = read(log)
    assert report.faultless and int(found.done.sum()) == 12
    assert all(KEY not in text for text in everything)
