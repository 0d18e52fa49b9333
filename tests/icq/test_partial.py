"""Q* needs no stationary law: absorbing goals, observations that are seen at the start only, two goals."""

import numpy as np
import pytest

from icq.build import Outcome, from_functions
from icq.exact import AnalysisError, analyse, optimum, recurrent
from icq.reason import Reason
from icq.smdp import ICSMDP
from icq_bounds.commands.analyse import analysis_report


def puterman(gamma=0.95, **views):
    """Puterman (1994), example 3.1.1: in state 1 earn 5 and stay or leave evenly, or earn 10 and leave; -1 for ever."""
    return ICSMDP.create(
        prob=[[[0.5, 0.5], [1, 0]], [[1, 0], [1, 0]]], next_state=[[[0, 1], [1, 0]], [[1, 0], [1, 0]]],
        duration=np.ones((2, 2, 2), int), reward=[[[5, 5], [10, 10]], [[-1, -1], [0, 0]]], gamma=gamma,
        **{"observation": [0, 1], "agent": [0, 0], "available": [[True, True], [True, False]]} | views,
    )  # fmt: skip


def test_an_absorbing_state_has_values():
    m = puterman()
    assert np.allclose(optimum(m).v, [-8.571428571428571, -20.0], rtol=1e-12)
    report = analysis_report(m)[0]
    assert report["q_star"][0] == pytest.approx([-8.571428571428571, -9.0]) and report["q_star"][1][1] is None
    assert report["v_star_max"] == pytest.approx(-8.571428571428571)
    assert report["v_star_mean"] == pytest.approx(-20) and report["gap_exact_sup"] == 0  # of the state that recurs
    said = " ".join(report["problems"])
    assert "observations without stationary mass (0)" in said and "end the task at its goal" in said
    assert "1 of 2 states that recur" in said


def chain_of(goals, observe=lambda s: s):
    """Starts in `start`; tries lead to one of the goals, which absorb."""

    def outcomes(s, option):
        if s in goals:
            return [Outcome(1.0, s)]
        return [Outcome(1 / len(goals), goal, reward=float(i)) for i, goal in enumerate(goals)]

    return from_functions(
        start=["start"], agent=lambda s: "worker", observe=observe, options=lambda s: ["try", "wait"],
        outcomes=outcomes, gamma=0.9,
    )  # fmt: skip


def test_what_is_undefined_is_said_in_the_names_of_the_workflow():
    with pytest.raises(AnalysisError, match=r"without stationary mass \('start'\).*next_state=None") as caught:
        analyse(chain_of(["goal"]))
    assert caught.value.why.reason is Reason.NO_MASS
    with pytest.raises(AnalysisError, match=r"2 closed classes \{'won'\}; \{'lost'\}.*icq\.exact\.optimum"):
        analyse(chain_of(["won", "lost"]))


def test_two_goals_have_q_star_and_nothing_that_needs_a_law():
    report, terms = analysis_report(chain_of(["won", "lost"]).smdp)
    assert report["v_star_max"] == pytest.approx(0.5) and report["v_star_mean"] is None and not terms
    assert any("end the task at its goal" in x for x in report["problems"])
    assert len(report["problems"]) == len(set(report["problems"]))


def test_the_recurrent_part_has_the_values_of_the_whole():
    def outcomes(s, option):
        step = {"a": 0.3, "b": 0.8}[option]
        return [Outcome(step, (s + 1) % 4, reward=s + step), Outcome(1 - step, 3, reward=1.0)]

    flow = from_functions(
        start=[5, 0], agent=lambda s: f"agent {s % 2}", observe=lambda s: s, options=lambda s: ["a", "b"],
        outcomes=lambda s, option: [Outcome(1.0, 0, reward=2.0)] if s == 5 else outcomes(s, option), gamma=0.9,
    )  # fmt: skip
    part, whole = analyse(recurrent(flow)), optimum(flow)
    keep = [flow.states.index(s) for s in flow.states if s != 5]
    assert np.allclose(part.v_star, whole.v[keep], rtol=1e-12) and whole.v[0] == pytest.approx(2 + 0.9 * part.v_star[0])


@pytest.mark.parametrize("gamma", [1 - 2**-53, 1 - 2**-51])
def test_a_discount_of_one_within_rounding_has_no_values(gamma):
    """Wrong values with an error of 1e16 must not hold five times."""
    m = puterman(gamma, observation=[0, 0], agent=[0], available=[[True, True]])
    with pytest.raises(AnalysisError) as caught:
        analyse(m)
    assert caught.value.why.reason is Reason.NO_DISCOUNT
    report = analysis_report(m)[0]
    assert report["v_star_mean"] is None and "gamma further below 1" in " ".join(report["problems"])


def test_a_discount_near_one_points_at_its_error():
    report = analysis_report(puterman(1 - 1e-11))[0]
    assert any(x.startswith("solver_error") for x in report["problems"])
    assert {b["verdict"] for b in report["bounds"].values()} <= {"undecided", "vacuous", "inapplicable"}
