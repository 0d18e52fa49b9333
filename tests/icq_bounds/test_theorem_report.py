"""The theorem as a report, and the table of how tight it is."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats
from strategies import garnet

from audits import tightness
from audits.tightness import Setup, observe, prove, root_mean_square, rows, sheet
from bounds.core.bound import Verdict
from bounds.core.term import Observed
from bounds.residual.moments import second_moments
from bounds.residual.population import local_clock, population, tabular
from bounds.theorem import Observations, Output
from icq.exact import AnalysisError, analyse
from icq.reason import Reason
from icq.smdp import ICSMDP
from icq_bounds.error_theorem import as_json, as_latex, best_step, class_features, summary, theorem_report
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import ring

pytestmark = pytest.mark.compiles


def small():
    """A workflow with a contraction, a gap and several agents."""
    return garnet(2, states=8, observations=5, options=2, agents=2, gamma=0.6, max_duration=8, unavailable=0.0)


@pytest.fixture(scope="module")
def report():
    return theorem_report(small(), handoffs=10**5, points=3)


def test_the_report_is_the_theorem_at_growing_times(report):
    assert report.times.tolist() == [64, 2530, 10**5]
    curve = report.curve()
    assert np.isfinite(curve).all() and curve[-1] < curve[0]
    assert curve[-1] >= report.interface.observed.value


def test_the_default_step_beats_its_neighbours(report):
    """The closed form at the chosen step is the least over a grid around it."""

    def closed(found):
        return min(r.bound.value for r in found.residual[Output.LAST][-1].rungs if "closed" in r.bound.name)

    pop = tabular(analyse(small()))
    step = best_step(pop, 10**5)
    chosen = closed(report)
    for factor in (0.5, 2.0):  # one octave either way
        other = theorem_report(small(), step=factor * step, handoffs=10**5, points=3)
        assert chosen <= closed(other) * (1 + 1e-9)
    assert best_step(pop, 10**7) < step, "more handoffs allow a smaller step"


@pytest.mark.parametrize("features", [0, 1])
def test_runs_fill_the_observed_column(features):
    """The learner of the theorem: what it does stands beside every rung, and no rung is violated."""
    found = theorem_report(small(), features=features, handoffs=10**5, points=3, runs=8)
    for output in Output:
        for i in range(3):
            for term in (found.residual[output][i], found.total(output, i)):
                assert term.observed is not None and term.observed.lower <= term.observed.upper
                assert not [r for r in term.rungs if term.verdict(r.bound) is Verdict.VIOLATED]
    last = found.residual[Output.LAST][-1]
    (path,) = [r.bound for r in last.rungs if r.bound.name == "moving reference"]
    assert last.best.value <= path.value < path.trivial
    with pytest.raises(ValueError, match="runs"):
        theorem_report(small(), runs=1)


def test_json_holds_everything_and_is_strict(report):
    found = json.loads(json.dumps(as_json(report), allow_nan=False))
    names = {r["name"] for r in found["interface"]["rungs"]}
    assert names == {r.bound.name for r in report.interface.rungs}
    total = found["total"]["last iterate"][-1]
    assert total["value"] == report.total(Output.LAST).best.value
    assert found["handoffs"] == report.times.tolist() and found["class"] == "table"
    (exact,) = [r for r in found["interface"]["rungs"] if r["exact"]]
    assert exact["ratio"] == 1.0 and exact["verdict"] == "holds"
    assert {a["name"] for a in found["assumptions"]} == set(report.assumptions)
    assert found["residual"]["average"][-1]["limit"]["is_a_bound"] is False


def test_json_of_a_failed_assumption_has_no_number_but_a_reason():
    m = garnet(0, states=8, observations=4, options=3, gamma=0.99, max_duration=1, terminal=0.0)
    found = theorem_report(m, features=2, handoffs=1000, points=2)
    assert "no certified total" in summary(found)
    data = json.loads(json.dumps(as_json(found), allow_nan=False))
    total = data["total"]["last iterate"][-1]
    assert total["value"] is None and not total["rungs"][0]["applicable"]
    assert total["rungs"][0]["fails"][0]["margin"] < 0
    assert "class fixed point" in str(found) or "contraction" in str(found)


def test_a_class_without_a_fixed_point_leaves_the_interface_term():
    """Sweeps of these features overflow; once the command ended in an error of the linear algebra."""
    m = ICSMDP.load(Path(__file__).parents[1] / "data" / "no_class_fixed_point.npz")
    found = theorem_report(m, features=2, seed=3, handoffs=1000, points=2)
    assert found.interface.best.applicable and not found.total().best.applicable
    assert str(Reason.NO_FIXED_POINT) in str(found.approximation.best.failures[0])


def test_infinite_bounds_survive_json():
    found = theorem_report(small(), step=0.02, handoffs=10**7, points=2)
    data = json.dumps(as_json(found), allow_nan=False)
    assert '"inf"' in data


def test_latex_lists_every_rung(report):
    tex = as_latex(report)
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert tex.count("{") == tex.count("}") and tex.count("$") % 2 == 0
    body = tex.split(r"\hline")[1]
    count = sum(len(t.rungs) for t in (report.interface, report.approximation)) + 2
    count += sum(len(r[-1].rungs) for r in report.residual.values())
    assert body.count("&") == 4 * count
    assert f"{report.total().best.value:.4g}" in tex


def test_the_summary_says_how_far_below_the_trivial_cap(report):
    best = report.total().best
    assert f"{best.value:.4g} after 100000 handoffs" in summary(report)
    assert f"{best.trivial / best.value:.3g} times below" in summary(report)


def test_features_are_blocks_of_agents(report):
    a = analyse(small())
    psi = class_features(a, 3, 0)
    assert psi.shape == (a.d_pair.size, 3 * a.smdp.num_agents)
    agent = np.repeat(np.asarray(a.smdp.agent), a.d_pair.shape[1])
    for i in range(a.smdp.num_agents):
        assert not psi[agent == i][:, [k for k in range(psi.shape[1]) if k // 3 != i]].any()
    assert class_features(a, 0, 0).shape[1] == a.interface.available.sum()


def test_a_reducible_workflow_is_an_error_that_says_why():
    m = ICSMDP.create(
        prob=np.ones((2, 1, 1)), next_state=[[[0]], [[1]]], duration=np.ones((2, 1, 1), int),
        reward=np.zeros((2, 1, 1)), observation=[0, 1], agent=[0, 0], gamma=0.5,
    )  # fmt: skip
    with pytest.raises(AnalysisError, match="2 closed classes"):
        theorem_report(m)


def test_intervals_of_a_root_mean_square_cover():
    """Of skew squares, 16 runs each: nearly as often as they say, where an interval of the mean square itself fails."""
    rng, truth = np.random.default_rng(0), np.exp(1.5**2 / 2)
    covered = failed = 0
    for _ in range(400):
        squares = rng.lognormal(0, 1.5, 16)
        seen = root_mean_square(squares)
        assert seen.value == pytest.approx(math.sqrt(squares.mean()))
        covered += seen.lower <= math.sqrt(truth) <= seen.upper
        low, high = stats.ttest_1samp(squares, 0).confidence_interval(0.999)
        failed += not max(low, 0) <= truth <= high
    assert covered >= 0.96 * 400 and failed >= 0.08 * 400


SETUP = Setup("small", small, 0, 0.05, 2000)
AT_REST = Setup("small features", small, 2, 0.05, 1000, at_rest=True)


def one_option():
    """Without choice the greedy options cannot change, so the moment recursion is exact."""
    return garnet(
        5, states=5, observations=3, options=1, outcomes=3, agents=2, gamma=0.6, max_duration=4, unavailable=0.0
    )


@pytest.mark.parametrize("at_rest", [False, True])
def test_the_simulation_agrees_with_exact_moments(at_rest):
    pop = tabular(analyse(one_option()))
    setup = Setup("exact", one_option, 0, 0.03, 300, at_rest)
    alpha, runs = 0.03 / len(pop.theta_star), 600
    errors = observe(pop, setup, alpha, runs)
    start = pop.theta_star if at_rest else 0 * pop.theta_star
    exact = second_moments(pop, alpha, start, np.array([300]))
    for seen, value in ((errors.last, exact.error[0]), (errors.path, exact.path[0])):
        assert seen.mean() == pytest.approx(value, abs=4 * stats.sem(seen) + 0.02 * value)
    assert errors.total.mean() >= errors.last.mean() * 0.1
    assert len(set(errors.last.tolist())) == runs, "every run has its own randomness"


def test_a_step_beyond_a_full_one_is_refused():
    """The learner would cap it, and the theorem does not speak of capped steps."""
    pop = tabular(analyse(one_option()))
    with pytest.raises(ValueError, match="more than a full step"):
        observe(pop, Setup("large", one_option, 0, 1.0, 10), 0.5, 2)


def test_feature_runs_start_at_the_fixed_point():
    a = analyse(small())
    psi = class_features(a, 2, 0)
    pop = population(a, psi, np.eye(psi.shape[1]))
    setup = Setup("rest", small, 2, 1e-6, tightness.MARKS, at_rest=True)
    errors = observe(pop, setup, 1e-6, 3)
    assert errors.last.max() < 1e-8 * a.norm_d(pop.q_f) ** 2
    moving = observe(pop, Setup("zero", small, 2, 1e-6, tightness.MARKS), 1e-6, 3)
    assert moving.last == pytest.approx(a.norm_d(pop.q_f) ** 2, rel=1e-2)


@pytest.fixture(scope="module")
def proved():
    """The theorem and the error along the path for both setups."""
    return {setup.name: prove(setup, 8) for setup in (SETUP, AT_REST)}


def test_no_rung_is_violated_and_the_table_has_them_all(proved):
    for found, path in proved.values():
        body = rows(found, path, residual_only=False)
        assert not [row for row in body if row[-1] == str(Verdict.VIOLATED)]
        said = {row[1] for row in body}
        for r in (*found.interface.rungs, *found.residual[Output.LAST][0].rungs):
            assert r.bound.name in said
        assert {row[0] for row in body} >= {"interface", "approximation", "residual, path", "total, average"}
        along = {row[1] for row in body if row[0] == "residual, path"}
        assert along >= {"Poisson, averaged", "Poisson, averaged, closed form"}, "they bound the path before convexity"
        assert not along & {"moving reference, averaged", "textbook"}, "they bound the average alone"
        assert len(rows(found, path, residual_only=True)) < len(body)


def test_a_wrong_bound_would_show_as_violated(proved):
    found, _ = proved[SETUP.name]
    term = found.residual[Output.LAST][0]
    low = Observed(10 * term.best.value, 9 * term.best.value, 11 * term.best.value)
    wrong = theorem_report(
        small(), step=0.05 / 10, handoffs=2000, points=1,
        observed=Observations({Output.LAST: [low]}),
    )  # fmt: skip
    row = rows(wrong, low, residual_only=True)[0]
    assert row[0] == "residual, last iterate" and row[-1] == "violated"


def test_the_document(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tightness, "SETUPS", (SETUP,))
    tightness.main(runs=3, out=tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("# Tightness") and "python -m audits.tightness --runs 3" in text
    assert "**small**: 2 agents, 8 states, table" in text and "| interface | gap value |" in text
    assert "Tightness" in capsys.readouterr().out


def test_a_violated_row_fails_the_audit(proved, monkeypatch, tmp_path):
    found, path = proved[SETUP.name]
    high = Observed(*(1e6 * x for x in (path.value, path.lower, path.upper)))
    monkeypatch.setattr(tightness, "SETUPS", (SETUP,))
    monkeypatch.setattr(tightness, "prove", lambda setup, runs: (found, high))
    with pytest.raises(SystemExit, match="violated: residual, path Poisson, averaged"):
        tightness.main(runs=2, out=tmp_path / "t.md")
    assert (tmp_path / "t.md").exists()


def test_the_interface_is_shown_once_per_workflow(proved, monkeypatch):
    monkeypatch.setattr(tightness, "prove", lambda setup, runs: proved[SETUP.name])
    found = sheet((SETUP, Setup("again", small, 0, 0.05, 400)), 2)
    assert [any(row[0] == "interface" for row in table.rows) for table in found.tables] == [True, False]


def test_ring_dials_small_scale():
    """A dials workflow end to end: no verdict is violated; four runs need not decide on the path, which is tight."""

    def make():
        return dials_instance(Shape(topology=ring(3), clusters=2, visible=1), Dials(gap=0.5), 0)

    found, _ = prove(Setup("ring", make, 0, 0.01, 4000), 4)
    term = found.residual[Output.LAST][0]
    said = {r.bound.name: term.verdict(r.bound) for r in term.rungs}
    assert said.pop("moving reference") in (Verdict.HOLDS, Verdict.UNDECIDED)
    assert set(said.values()) <= {Verdict.HOLDS, Verdict.VACUOUS, Verdict.INAPPLICABLE}
    total = found.total(Output.LAST)
    assert total.verdict(total.best) in (Verdict.HOLDS, Verdict.UNDECIDED)
    assert local_clock(found.analysis, class_features(found.analysis, 0, 0)).shape[0] == found.analysis.d_pair.size
    assert jax.config.jax_enable_x64 is False
