"""docs/theory.md section 3: refining one observation by its hidden state."""

import numpy as np
import pytest
from broken import family
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from bounds.interface import gap
from bounds.interface.split import best_split, certified_gap, refine
from icq.exact import analyse
from icq.smdp import ICSMDP


def slack(a):
    return 1e-10 * (1 + gap.trivial_cap(a))


@given(instances(), st.integers(0, 100))
def test_refinement_is_the_analysis_of_the_refined_instance(m, pick):
    a = analyse(m)
    o = pick % m.num_observations
    fine = refine(a, o)
    fresh = analyse(fine.smdp.validate())
    for name in ("d", "w", "d_obs", "d_pair", "q_bar", "q_star", "local_gap"):
        np.testing.assert_allclose(getattr(fine, name), getattr(fresh, name), atol=slack(a), err_msg=name)
    behind = np.flatnonzero(m.observation == o)
    assert len(np.unique(fine.smdp.observation[behind])) == len(behind)
    assert fine.smdp.num_observations == m.num_observations + len(behind) - 1
    np.testing.assert_array_equal(fine.smdp.agent[fine.smdp.observation], m.agent[m.observation])
    np.testing.assert_allclose(fine.d_state_pair, a.d_state_pair)


@given(instances())
def test_refining_everything_closes_the_gap(m):
    a = analyse(m)
    fine = a
    for o in range(m.num_observations):
        fine = refine(fine, o)
    assert fine.norm_sup_state(fine.gap) <= slack(a) and certified_gap(fine) <= slack(a)


@given(instances())
def test_best_split_is_the_smallest_certified_gap(m):
    a = analyse(m)
    splits = best_split(a)
    expected = [certified_gap(analyse(refine(a, o).smdp)) for o in range(m.num_observations)]
    np.testing.assert_allclose(splits.after, expected, atol=slack(a))
    assert splits.before == certified_gap(a)
    if splits.best is None:
        assert min(expected) >= splits.before * (1 - 1e-8) - slack(a)
    else:
        assert splits.after[splits.best] == np.nanmin(splits.after) < splits.before
    rows = best_split(a, lambda a: gap.scalar_gap_bound(a).value, candidates=[0])
    assert rows.before == gap.scalar_gap_bound(a).value and np.isnan(rows.after[1:]).all()


def test_the_observation_that_hides_something_is_found():
    """Observation 1 hides a coin that decides the reward; observation 0 hides a coin without any effect."""
    reward = np.array([0.0, 0.0, 1.0, -1.0])
    m = ICSMDP.create(
        prob=np.full((4, 1, 4), 0.25), next_state=np.broadcast_to(np.arange(4), (4, 1, 4)),
        duration=np.ones((4, 1, 4), int), reward=np.broadcast_to(reward[:, None, None], (4, 1, 4)),
        observation=[0, 0, 1, 1], agent=[0, 1], gamma=0.9,
    )  # fmt: skip
    splits = best_split(a := analyse(m))
    assert splits.best == 1 and splits.after[1] == pytest.approx(0, abs=1e-9)
    assert splits.after[0] == pytest.approx(splits.before)
    fine = refine(a, 1)
    assert best_split(fine).best is None, "nothing is left to gain"


def test_refinement_may_raise_the_gap():
    """Seeing more in one place moves Qbar elsewhere; no monotonicity is claimed, so none may be assumed."""
    rises = [
        fine.norm_d_state(fine.gap) > a.norm_d_state(a.gap) * 1.001
        for a in family()
        for o in range(a.smdp.num_observations)
        for fine in [refine(a, o)]
    ]
    assert any(rises)


def test_states_without_mass_stay_where_they_are():
    m = ICSMDP.create(
        prob=np.ones((3, 1, 1)), next_state=[[[1]], [[2]], [[1]]], duration=np.ones((3, 1, 1), int),
        reward=[[[5.0]], [[1.0]], [[-1.0]]], observation=[0, 0, 0], agent=[0], gamma=0.9,
    )  # fmt: skip
    fine = refine(analyse(m), 0)
    np.testing.assert_array_equal(fine.smdp.observation, [0, 0, 1])
    assert fine.w[0] == 0


def test_an_observation_that_does_not_exist_is_refused():
    a = family()[0]
    with pytest.raises(ValueError, match=r"observation = 99 is outside 0\.\."):
        refine(a, 99)
