"""icq diagnose: recovery of exact terms, what it says without context or data, and the page."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from strategies import garnet

from audits import recovery
from audits.recovery import EVERY, Recovery, RecoveryTrial, counts, truth
from estimators.logs import simulate
from estimators.logs.log import Vocabulary
from estimators.logs.reader import read
from estimators.logs.recorder import Recorder
from estimators.logs.writer import write
from estimators.statistics.estimate import Estimate, exact, missing
from estimators.values import sent_error, value_error, value_error_change
from icq.exact import analyse
from icq.reason import Reason, Why
from icq_bounds.cli import main
from icq_bounds.diagnosis import words
from icq_bounds.diagnosis.diagnosis import EACH, diagnose, root
from icq_bounds.diagnosis.words import verdict
from icq_bounds.sweep.families import DialsFamily

pytestmark = pytest.mark.compiles

SMALL = DialsFamily(agents=3, clusters=2, gap=0.8, seed=1)
SECRET = "<script>alert('$x$')</script>"


@pytest.fixture(scope="module")
def small():
    return analyse(SMALL.workflow())


@pytest.fixture(scope="module")
def log(small):
    (whole,) = simulate.pieces(small, 30_000, seed=0, q=small.q_bar)
    return whole


@pytest.fixture(scope="module")
def file(log, tmp_path_factory):
    path = tmp_path_factory.mktemp("diagnose") / "log.parquet"
    write(log, path)
    return path


def said(arguments, capsys):
    main(["diagnose", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


# --- recovery -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recovered():
    return [RecoveryTrial(replace(SMALL, seed=seed), 30_000, seed).run() for seed in range(8)]


def test_exact_terms_are_recovered(recovered):
    found, held = recovered, counts(recovered)
    assert held["approximation"] == 8  # a table represents everything
    assert held[EVERY] >= 6
    for term in ("interface", "residual"):
        z = [(r.found[term].value - r.truth[term]) / r.found[term].stderr for r in found]
        assert abs(np.mean(z)) < 4 / np.sqrt(8)
        assert all(r.found[term].stderr < 0.2 * r.truth[term] for r in found)  # and not by being wide


def test_intervals_that_are_too_short_are_caught(recovered):
    short = []
    for r in recovered:
        e = r.found["residual"]
        low, high = (e.value + 0.05 * (end - e.value) for end in e.interval)
        broken = replace(e, interval=(low, high))
        short.append(Recovery(r.seed, {**r.found, "residual": broken}, r.truth))
    assert counts(short)["residual"] <= 3 < counts(recovered)["residual"]
    assert counts(short)[EVERY] <= 3


def test_what_is_not_estimated_is_not_recovered():
    r = Recovery(0, {"residual": missing(Reason.SHORT)}, {"residual": 0.0})
    assert not r.holds("residual")


def test_the_script_fails_when_too_few_are_recovered(monkeypatch, capsys):
    arguments = ["--seeds", "1", "--handoffs", "5000", "--agents", "2", "--jobs", "1"]
    good = Recovery(0, {"residual": exact(1.0)}, {"residual": 1.0})
    monkeypatch.setattr(recovery.RecoveryTrial, "run", lambda _: good)
    assert recovery.main(arguments) == 0
    monkeypatch.setattr(recovery.RecoveryTrial, "run", lambda _: replace(good, truth={"residual": 2.0}))
    assert recovery.main(arguments) == 1
    assert "seed 0: residual is 2, said 1" in capsys.readouterr().out
    assert recovery.main(["--seeds", "0"]) == 2


# --- the parts ------------------------------------------------------------------------------------------------------


def test_the_three_terms_have_joint_intervals(log):
    """Each is wider than 95 % by the factor that Bonferroni asks for."""
    d = diagnose(log)
    gap = d.interface.gap
    assert pytest.approx(1 - 0.05 / 3) == EACH
    assert gap.interval[1] - gap.interval[0] > 2 * 2.3 * gap.stderr  # Student's t at 95 % is 2.04
    assert d.residual.handoffs == len(log)
    assert d.residual.independent.value**2 * d.residual.correlation.value == pytest.approx(d.residual.error.value**2)


def test_shares_add_up_and_agents_have_their_own_gap(small, log):
    d = diagnose(log)
    assert sum(a.share.value for a in d.interface.agents) == pytest.approx(100, abs=1)
    assert [a.share.value for a in d.interface.agents] == sorted(
        (a.share.value for a in d.interface.agents), reverse=True
    )
    obs = np.asarray(small.smdp.agent)[np.asarray(small.smdp.observation)]
    for a in d.interface.agents:
        own = (obs == int(a.name.split()[1]))[:, None] * small.d_state_pair
        exactly = np.sqrt((own * small.local_gap**2).sum() / own.sum())
        assert abs(a.local.value - exactly) < 5 * a.local.stderr


def test_the_best_split_is_judged_on_other_rows(small, log):
    split = diagnose(log).interface.split
    by = np.bincount(small.smdp.observation, (small.d_state_pair * small.local_gap**2).sum(1))
    left = np.sqrt(by.sum() - by[int(split.observation.split()[1])])
    assert abs(split.after.value - left) < 5 * split.after.stderr
    assert abs(split.saves.value - (np.sqrt(by.sum()) - left)) < 5 * split.saves.stderr
    assert split.saves.value < 2 * (np.sqrt(by.sum()) - np.sqrt(by.sum() - by.max()))


def test_values_are_compared_with_the_fixed_point(small, log):
    q = np.where(small.interface.available, 0.8 * small.q_bar + 0.1, 0.0)
    found, exactly = value_error(log, q), value_error(small, q).value
    assert exactly == pytest.approx(small.norm_d(q - small.q_bar))
    assert abs(found.value - exactly) < 4 * found.stderr
    better = value_error_change(log, q, small.q_bar)
    assert abs(better.value - exactly) < 4 * better.stderr + value_error(log, small.q_bar).interval[1]


def test_scalars_that_were_sent_are_judged(small, log):
    from estimators.td_noise import noise

    known = noise(log)
    assert sent_error(log, known).interval[0] == 0  # the exact values were sent
    off = sent_error(replace(log, scalar=log.scalar + 0.5), known)
    assert abs(off.value - 0.5) < 4 * off.stderr and off.note == ""
    rng = np.random.default_rng(0)
    moving = sent_error(replace(log, scalar=log.scalar + rng.normal(0.5, 0.2, len(log))), known)
    assert "scatter by" in moving.note and abs(moving.value - 0.5) < 4 * moving.stderr
    assert sent_error(replace(log, scalar=np.full(len(log), np.nan)), known).why.reason is Reason.NO_SCALAR


def test_options_in_doubt_leave_the_size_of_the_values():
    (tied,) = simulate.pieces(analyse(garnet(3, states=20, observations=6, agents=3)), 12_000, seed=0)
    d = diagnose(tied)
    assert d.residual.error.why.reason is Reason.IN_DOUBT and d.residual.correlation.why == d.residual.error.why
    assert d.residual.value.known or d.residual.value.why.reason is Reason.IN_DOUBT
    assert verdict(d.terms).dominant is None


def test_root_of_a_constant():
    found = root(Estimate(4.0, 0.4, (3.24, 4.84), 9.0), 100)
    assert (found.value, *found.interval) == pytest.approx((0.2, 0.18, 0.22))
    assert root(Estimate(-1.0, 1.0, (-2.0, 1.0), 9.0), 100).why.reason is Reason.NOT_POSITIVE


def test_reasons_say_the_names_of_the_log(log):
    why = Why(Reason.RARE_PAIR, "in 1 of 32", "log more handoffs", option=1, observation=0)
    assert str(why).endswith("(option 1 of observation 0: in 1 of 32): log more handoffs")
    named = replace(log, names=Vocabulary(observation=("new", "old"), option=("ask", "answer")))
    assert "(option 'answer' of observation 'new': in 1 of 32)" in why.sentence(partial(words._name, named))


# --- the verdict ----------------------------------------------------------------------------------------------------


def near(value, half=0.01):
    return Estimate(value, half / 2, (max(value - half, 0.0), value + half), 100.0)


def test_a_term_dominates_only_beyond_its_interval():
    terms = {"interface": near(0.5), "approximation": exact(0.0), "residual": near(0.1)}
    assert verdict(terms).dominant == "interface"
    assert verdict({**terms, "residual": near(0.9)}).dominant == "residual"
    close = verdict({**terms, "residual": near(0.49)})
    assert close.dominant is None and "overlap" in close.sentence and "times as many handoffs" in close.sentence
    unknown = verdict({**terms, "interface": missing(Reason.NO_CONTEXT)})
    assert unknown.dominant is None and "without the interface gap" in unknown.sentence
    nothing = verdict({k: missing(Reason.SHORT) for k in terms})
    assert nothing.dominant is None and nothing.sentence.startswith("Nothing can be said yet")


# --- the command ----------------------------------------------------------------------------------------------------


def test_a_simulated_log_as_json(small, file, capsys):
    found = said([file], capsys)
    assert found["verdict"]["dominant"] == "interface"
    exactly = truth(small, 30_000)
    for part, term in (("interface", "gap"), ("residual", "error")):
        low, high = found[part][term]["interval"]
        assert low <= exactly[part] <= high
    assert found["lacks"] == [] and found["log"]["rows"] == 30_000


def test_without_context_the_gap_is_not_identifiable(log, tmp_path, capsys):
    path = tmp_path / "blind.parquet"
    write(replace(log, context=None), path)
    found = said([path], capsys)
    assert found["verdict"]["dominant"] is None
    assert found["interface"]["gap"]["value"] is None
    (lack,) = [lack for lack in found["lacks"] if "interface gap" in lack["what"]]
    assert "context" in lack["why"]
    assert any(line.startswith("context") for line in found["advice"])
    assert found["residual"]["error"]["value"] > 0


def foreign(path, tasks, agents=("triage", SECRET), gamma=None):
    """A log that no model of ours produced: text for names, tasks that end, no gamma in the file."""
    rng = np.random.default_rng(0)
    with Recorder(path, gamma=0.9) as recorder:
        for number in range(tasks):
            mood = int(rng.integers(2))
            task = recorder.start(f"ticket {number}", agent=agents[0], observation="new", context={"mood": mood})
            for step in range(1 + int(rng.integers(1, 3))):
                option, last = ("ask", "answer")[int(rng.integers(2))], step >= 1
                onward = {} if last else {"next_agent": agents[-1], "next_observation": f"{SECRET} {step}",
                                          "next_context": {"mood": mood}}  # fmt: skip
                reward = float(mood * (option == "ask") + 0.3 * (option == "answer") + 0.1 * rng.normal())
                task.handoff(option, reward=reward, duration=1 + int(rng.integers(4)), done=last, **onward)
                if last:
                    break
    if gamma is None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if '"schema"' not in line))
    return path


def test_a_log_of_somebody_else(tmp_path, capsys):
    path = foreign(tmp_path / "theirs.jsonl", 3000)
    with pytest.raises(SystemExit):
        main(["diagnose", str(path)])
    assert "gamma" in capsys.readouterr().err
    found = said([path, "--gamma", "0.9"], capsys)
    assert {a["name"] for a in found["interface"]["agents"]} == {"triage", SECRET}
    assert found["interface"]["local"]["interval"][0] > 0.2
    assert found["residual"]["error"]["result"] == "ok"  # tasks that end are followed by the next ones
    assert found["interface"]["channels"]["reward"]["value"] > found["interface"]["channels"]["duration"]["value"]


def test_one_agent_and_one_handoff(tmp_path, capsys):
    one = foreign(tmp_path / "one.jsonl", 300, agents=("triage",), gamma=0.9)
    assert [a["name"] for a in said([one], capsys)["interface"]["agents"]] == ["triage"]
    for tasks in (1, 10):
        tiny = foreign(tmp_path / f"tiny{tasks}.jsonl", tasks, gamma=0.9)
        found = said([tiny, "--width", "4"], capsys)
        assert found["verdict"]["sentence"].startswith("Nothing can be said yet")
        lacking = " ".join(lack["what"] for lack in found["lacks"])
        assert all(term in lacking for term in ("interface gap", "approximation", "residual", "local gap"))
    main(["diagnose", str(tiny), "--html", str(tmp_path / "tiny.html")])
    assert "Nothing can be said yet" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "tiny.html").read_text()  # a table has no approximation error, however short the log


def test_networks_instead_of_a_table(file, capsys):
    found = said([file, "--width", "2", "--double"], capsys)["approximation"]
    assert found["error"]["result"] == "ok" and found["error"]["value"] > 0
    assert found["certified"]["result"] != "ok" or found["certified"]["value"] >= 0.9 * found["error"]["value"]
    assert np.isfinite(found["wider"]["value"])
    with pytest.raises(SystemExit):
        main(["diagnose", str(file), "--double"])
    assert "width" in capsys.readouterr().err


def test_the_page_is_self_contained_and_shows_everything(tmp_path, capsys):
    path = foreign(tmp_path / "theirs.jsonl", 3000, gamma=0.9)
    main(["diagnose", str(path), "--html", str(tmp_path / "page.html")])
    out = capsys.readouterr().out
    assert SECRET in out and "What to log next time" in out and "[dim]" not in out
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text and "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")
    for heading in ("Verdict", "From whom it is hidden", "What more would buy", "The log", "What is missing"):
        assert f"<h2>{heading}</h2>" in text
    assert "&lt;script&gt;" in text
    log, _ = read(path)
    assert str(len(log)) in text


def test_a_browser_shows_the_page(browser, file, tmp_path, capsys):
    main(["diagnose", str(file), "--html", str(tmp_path / "page.html")])
    assert "interface gap dominates" in " ".join(capsys.readouterr().out.split())
    for width, phone in ((360, True), (1280, False)):
        seen = browser.load(tmp_path / "page.html", width, phone=phone)
        assert (seen.requests, seen.complaints) == ([], [])
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js("document.querySelectorAll('figure svg').length") == 2
