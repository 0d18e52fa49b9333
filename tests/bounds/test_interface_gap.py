"""docs/theory.md section 3: rungs 1, 2, 4, 6, their d-norm forms, and the loss of the greedy interface policy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from broken import caught, family, never_violated, shrunk, twins
from hypothesis import given
from strategies import garnet, instances

from bounds.core.bound import Verdict, verdict
from bounds.interface import gap
from icq.exact import analyse
from icq.smdp import ICSMDP


def slack(a):
    """Numerical allowance for comparing two solved quantities entry by entry."""
    return 1e-10 * (1 + gap.trivial_cap(a))


def iterate(reward, kernel, available, policy=None):
    """X = reward + K max_a X by plain dense iteration: an oracle that shares no code with the solver."""
    x, dense = np.zeros_like(reward), kernel.toarray()
    for _ in range(20_000):
        v = np.where(available, x, -np.inf).max(1) if policy is None else x[np.arange(len(x)), policy]
        after = np.where(available, reward + (dense @ v).reshape(x.shape), 0.0)
        if np.abs(after - x).max() < 1e-13:
            return after
        x = after
    raise AssertionError("the reference iteration did not converge")


@given(instances())
def test_local_gap_is_the_residual_of_the_lifted_solution(m):
    a = analyse(m)
    kernel, lumped = a.oracle.kernel.toarray(), a.interface.kernel.toarray().reshape(*a.q_bar.shape, -1)
    b = np.zeros_like(a.q_star)
    for s in range(m.num_states):
        o = m.observation[s]
        for option in np.flatnonzero(m.available[o]):
            row = np.bincount(m.observation, kernel[s * m.num_options + option], m.num_observations)
            b[s, option] = a.oracle.reward[s, option] - a.interface.reward[o, option]
            b[s, option] += (row - lumped[o, option]) @ a.v_bar
    np.testing.assert_allclose(gap.local_gap(a, a.q_bar), b, atol=slack(a))


@given(instances(gamma=(0.3, 0.9)))
def test_gap_value_dominates_the_gap_pointwise(m):
    a = analyse(m)
    e = a.gap_value.q
    np.testing.assert_allclose(e, iterate(np.abs(a.local_gap), a.oracle.kernel, a.oracle.available), atol=slack(a))
    assert (np.abs(a.gap) <= e + slack(a)).all()


@given(instances(options=1))
def test_gap_values_are_tight_without_choice(m):
    """With one option Q* - Qbar o phi = (I - K)^{-1} b exactly, so the signed values are; E is if b keeps its sign."""
    a = analyse(m)
    upper, lower, _ = gap.signed_gap_value(a, a.q_bar)
    np.testing.assert_allclose(upper, a.gap, atol=slack(a))
    np.testing.assert_allclose(lower, -a.gap, atol=slack(a))
    if (a.local_gap >= 0).all() or (a.local_gap <= 0).all():
        np.testing.assert_allclose(np.abs(a.gap), a.gap_value.q, atol=slack(a))


@given(instances())
def test_signed_gap_value_brackets_the_gap(m):
    a = analyse(m)
    upper, lower, _ = gap.signed_gap_value(a, a.q_bar)
    assert (-lower - slack(a) <= a.gap).all() and (a.gap <= upper + slack(a)).all()
    e = a.gap_value.q
    assert (np.maximum(np.abs(upper), np.abs(lower)) <= e + slack(a)).all()


@given(instances())
def test_sup_norm_rungs_are_ordered(m):
    a = analyse(m)
    rungs = [gap.exact_gap(a), gap.gap_value_bound(a), gap.scalar_gap_bound(a)]
    for tight, loose in pairwise(rungs):
        assert tight.value <= loose.value + slack(a)
    assert rungs[0].value <= gap.trivial_cap(a) + slack(a)
    if not np.abs(a.local_gap).max() > slack(a):
        assert rungs[0].value <= slack(a), "no local gap, no gap"


@given(instances())
def test_d_norm_rungs_are_ordered(m):
    a = analyse(m)
    observed, middle, loose = a.norm_d_state(a.gap), gap.gap_value_bound_d(a), gap.scalar_gap_bound_d(a)
    assert observed <= middle.value + slack(a)
    assert middle.value <= gap.gap_value_bound(a).value + slack(a)
    if loose.applicable:
        assert middle.value <= loose.value + slack(a)
    else:
        assert np.isnan(loose.value)
        (failure,) = loose.failures
        assert failure.name == "kappa_S < 1" and failure.margin == 1 - gap.oracle_contraction(a) <= 0


@given(instances(), instances())
def test_oracle_contraction_bounds_every_difference(m, other):
    a = analyse(m)
    rng = np.random.default_rng(other.num_states)
    p, q = rng.normal(size=(2, *a.q_star.shape))
    p, q = (np.where(a.oracle.available, x, 0.0) for x in (p, q))
    after = a.norm_d_state(a.oracle.bellman(p) - a.oracle.bellman(q))
    assert after <= gap.oracle_contraction(a) * a.norm_d_state(p - q) + 1e-12


def test_oracle_contraction_ignores_transient_states():
    """A hidden state that is never revisited has no weight in the norm and must not cost the certificate."""
    m = ICSMDP.create(
        prob=np.ones((3, 1, 1)), next_state=[[[1]], [[2]], [[1]]], duration=np.full((3, 1, 1), 3),
        reward=[[[5.0]], [[1.0]], [[-1.0]]], observation=[0, 0, 1], agent=[0, 0], gamma=0.9,
    )  # fmt: skip
    a = analyse(m)
    assert a.d[0] == 0
    assert gap.oracle_contraction(a) == pytest.approx(0.9**3)
    assert gap.scalar_gap_bound_d(a).applicable


@given(instances())
def test_greedy_loss_pointwise(m):
    a = analyse(m)
    signed, cap = gap.signed_loss_cap(a), gap.greedy_loss_cap(a)
    assert (a.policy_loss <= signed + slack(a)).all() and (signed <= cap + slack(a)).all()
    sup = a.policy_loss.max()
    assert sup <= gap.greedy_loss_bound(a).value + slack(a)
    assert sup <= gap.greedy_loss_scalar(a).value + slack(a)
    assert gap.greedy_loss_scalar(a).value <= 2 * gap.scalar_gap_bound(a).value + slack(a)
    assert sup <= gap.trivial_cap(a) + slack(a)


@given(instances())
def test_greedy_loss_d(m):
    a = analyse(m)
    bound = gap.greedy_loss_d(a)
    smallest = np.where(a.oracle.available, np.asarray(m.behaviour)[m.observation], np.inf).min(1)
    assert gap.observed_loss_d(a) == pytest.approx(np.sqrt(a.d @ (smallest * a.policy_loss**2)))
    if bound.applicable:
        assert gap.observed_loss_d(a) <= bound.value + slack(a)


def test_scalar_gap_and_greedy_loss_are_tight():
    """On the twins Q* - Qbar = +-1 + gamma/(1-gamma): rungs 1, 2, 4 agree; the loss 2 occurs in the wrong state."""
    a = analyse(twins(2, stay=0.5))
    assert [gap.exact_gap(a).value, gap.gap_value_bound(a).value, gap.scalar_gap_bound(a).value] == pytest.approx(
        [2] * 3
    )
    wrong = int(a.policy_loss.argmax())
    assert a.policy_loss[wrong] == pytest.approx(3.0) and gap.signed_loss_cap(a)[wrong] == pytest.approx(3.0)
    assert gap.greedy_loss_cap(a)[wrong] == pytest.approx(4.0)


def test_trivial_cap_needs_zero_in_the_range():
    """Constant rewards with a hidden duration have a gap, which range(r)/(1 - gbar) = 0 would deny."""
    m = ICSMDP.create(
        prob=np.full((2, 1, 2), 0.5), next_state=np.broadcast_to([0, 1], (2, 1, 2)),
        duration=np.broadcast_to(np.array([1, 9])[:, None, None], (2, 1, 2)), reward=np.ones((2, 1, 2)),
        observation=[0, 0], agent=[0], gamma=0.9,
    )  # fmt: skip
    a = analyse(m)
    assert 0.1 < gap.exact_gap(a).value <= gap.trivial_cap(a)
    assert np.ptp(a.oracle.reward) == 0


def test_scalar_rung_can_be_vacuous():
    a = next(a for a in family() if gap.scalar_gap_bound(a).value > gap.trivial_cap(a))
    observed = gap.exact_gap(a).value
    assert verdict(gap.scalar_gap_bound(a), observed, observed, allowance=slack(a)) is Verdict.VACUOUS


def sup_gap(a):
    return a.norm_sup_state(a.gap)


def d_gap(a):
    return a.norm_d_state(a.gap)


def loss(a):
    return float(a.policy_loss.max())


CLAIMS = [
    (gap.exact_gap, sup_gap, gap.observed_error, 0.99),
    (gap.gap_value_bound, sup_gap, gap.observed_error, 0.95),
    (gap.scalar_gap_bound, sup_gap, gap.observed_error, 0.9),
    (gap.gap_value_bound_d, d_gap, gap.observed_error, 0.95),
    (gap.scalar_gap_bound_d, d_gap, gap.observed_error, 0.9),
    (gap.greedy_loss_bound, loss, gap.loss_error, 0.9),
    (gap.greedy_loss_scalar, loss, gap.loss_error, 0.9),
    (gap.greedy_loss_d, gap.observed_loss_d, gap.loss_error, 0.6),
]


@pytest.mark.parametrize(("claim", "observe", "error", "factor"), CLAIMS, ids=lambda x: getattr(x, "__name__", None))
def test_the_verifier_passes_the_bound_and_catches_a_lost_factor(claim, observe, error, factor):
    assert never_violated(claim, observe, error)
    assert caught(lambda a: shrunk(claim(a), factor), observe)


def without_resolvent(bound, modulus):
    """The claim with its 1/(1 - modulus) forgotten."""
    return shrunk(bound, 1 - modulus) if bound.applicable else bound


def test_the_verifier_catches_a_missing_resolvent():
    assert caught(lambda a: without_resolvent(gap.scalar_gap_bound(a), a.gamma_bar), sup_gap)
    assert caught(lambda a: without_resolvent(gap.scalar_gap_bound_d(a), gap.oracle_contraction(a)), d_gap)
    assert caught(lambda a: without_resolvent(gap.greedy_loss_scalar(a), a.gamma_bar), loss)
    assert caught(lambda a: replace(gap.gap_value_bound(a), value=float(np.abs(a.local_gap).max())), sup_gap)


def test_the_d_loss_needs_its_weight():
    """The same right side against the loss weighted by d alone is violated somewhere."""
    rare = [analyse(rare_option(seed)) for seed in range(40)]
    unweighted = [float(np.sqrt(a.d @ a.policy_loss**2)) for a in rare]
    pairs = [(gap.greedy_loss_d(a), x) for a, x in zip(rare, unweighted)]
    assert Verdict.VIOLATED in [verdict(b, x, x, allowance=1e-9) for b, x in pairs]
    assert Verdict.VIOLATED not in [
        verdict(gap.greedy_loss_d(a), x := gap.observed_loss_d(a), x, allowance=gap.loss_error(a)) for a in rare
    ]


def rare_option(seed: int) -> ICSMDP:
    """A random one-step problem with an option the behaviour hardly ever tries."""
    m = garnet(seed, states=4, options=2, observations=2, agents=2, terminal=1.0, unavailable=0.0)
    return m.replace(behaviour=np.array([[0.995, 0.005], [0.995, 0.005]])).validate()
