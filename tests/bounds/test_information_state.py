"""docs/theory.md section 3, rung 5: mass and shape splits of the local gap in three metrics."""

from dataclasses import replace

import numpy as np
import pytest
from broken import caught, family, never_violated, shrunk
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from strategies import instances

from bounds.interface import gap, information
from icq.exact import analyse
from icq.smdp import ICSMDP

seeds = st.integers(0, 2**32 - 1)


def features(a, seed=0, width=2):
    return np.random.default_rng(seed).normal(size=(a.smdp.num_observations, width))


def gaussian(a, seed=0):
    x = features(a, seed)
    return np.exp(-((x[:, None] - x) ** 2).sum(-1))


SPLITS = {
    "centred": information.centred_total_variation,
    "total variation": information.total_variation,
    "Wasserstein": lambda a: information.wasserstein(a, features(a)),
    "MMD": lambda a: information.maximum_mean_discrepancy(a, gaussian(a)),
}


def slack(a):
    return 1e-10 * (1 + gap.trivial_cap(a))


def observation_kernels(a):
    """K(o'|s,a) and Khat(o'|phi(s),a) as dense [S, A, O], by a loop over next states."""
    m, k = a.smdp, a.oracle.kernel.toarray().reshape(*a.q_star.shape, -1)
    lumped = np.zeros((*a.q_star.shape, m.num_observations))
    for s, o in enumerate(m.observation):
        lumped[:, :, o] += k[:, :, s]
    hat = np.where(
        a.oracle.available[..., None], a.interface.kernel.toarray().reshape(*a.q_bar.shape, -1)[m.observation], 0
    )
    return lumped, hat


@pytest.mark.parametrize("name", SPLITS)
@given(m=instances())
def test_splits_dominate_the_local_gap(name, m):
    a = analyse(m)
    mismatch = SPLITS[name](a)
    if all(x.holds for x in mismatch.assumptions):
        assert (np.abs(a.local_gap) <= mismatch.total + slack(a)).all()
        bound = information.information_state_bound(a, mismatch)
        assert gap.scalar_gap_bound(a).value <= bound.value + bound.roundoff + slack(a)


@given(instances(), seeds)
def test_centred_split_is_the_best_over_the_same_range(m, seed):
    """max |xi f| over f in [min Vbar, max Vbar]^O is reached at a vertex, and it is mass + shape."""
    a = analyse(m)
    kernel, hat = observation_kernels(a)
    xi, split = kernel - hat, information.centred_total_variation(a)
    low, high = a.v_bar.min(), a.v_bar.max()
    vertices = [np.where(xi > 0, x, y) for x, y in ((high, low), (low, high))]
    reached = np.max([np.abs((xi * f).sum(-1)) for f in vertices], axis=0)
    np.testing.assert_allclose(split.mass + split.shape, reached, atol=slack(a))
    f = np.random.default_rng(seed).uniform(low, high, size=len(a.v_bar))
    assert (np.abs(xi @ f) <= split.mass + split.shape + slack(a)).all()


@given(instances())
def test_total_variation_split(m):
    a = analyse(m)
    kernel, hat = observation_kernels(a)
    split = information.total_variation(a)
    for s, option in np.argwhere(a.oracle.available):
        k, h = kernel[s, option], hat[s, option]
        p = k / k.sum() if k.sum() else h
        q = h / h.sum() if h.sum() else p
        assert split.mass[s, option] == pytest.approx(abs((k.sum() - h.sum()) * (q @ a.v_bar)), abs=slack(a))
        shape = k.sum() * np.ptp(a.v_bar) / 2 * np.abs(p - q).sum()
        assert split.shape[s, option] == pytest.approx(shape, abs=slack(a))


@given(instances(states=(2, 6)))
def test_discrete_metric_makes_wasserstein_total_variation(m):
    """In the 0-1 metric W1 is half the l1 distance and Lip is the span."""
    a = analyse(m)
    one_hot = np.eye(m.num_observations) / np.sqrt(2)
    ours, oracle = information.wasserstein(a, one_hot), information.total_variation(a)
    np.testing.assert_allclose(ours.shape, oracle.shape, atol=slack(a))
    np.testing.assert_array_equal(ours.mass, oracle.mass)


@given(instances(states=(2, 6)), seeds)
def test_wasserstein_on_a_line(m, seed):
    """One feature: W1 is the area between distribution functions (another library's closed form)."""
    a = analyse(m)
    x = features(a, seed, width=1)
    split = information.wasserstein(a, x)
    kernel, hat = observation_kernels(a)
    rise, distance = np.abs(np.subtract.outer(a.v_bar, a.v_bar)), np.abs(x - x[:, 0])
    np.fill_diagonal(distance, 1.0)
    for s, option in np.argwhere(a.oracle.available):
        k, h = kernel[s, option], hat[s, option]
        if k.sum() and h.sum():
            expected = k.sum() * (rise / distance).max() * wasserstein_distance(x[:, 0], x[:, 0], k, h)
            assert split.shape[s, option] == pytest.approx(expected, rel=1e-8, abs=slack(a))


@given(instances(), seeds)
def test_mmd_is_the_best_over_functions_of_the_same_norm(m, seed):
    """gamma MMD(p,q) ||f||_H is the supremum over ||g||_H <= ||f||_H; checked at the witness k(p - q) and random g."""
    a = analyse(m)
    k, split = gaussian(a, seed), information.maximum_mean_discrepancy(a, gaussian(a, seed))
    if not split.assumptions[0].holds:
        return
    ones, inverse = np.ones(len(k)), np.linalg.inv(k)
    f = a.v_bar - (ones @ inverse @ a.v_bar) / (ones @ inverse @ ones)
    norm = np.sqrt(max(f @ inverse @ f, 0.0))
    kernel, hat = observation_kernels(a)
    g = np.random.default_rng(seed).normal(size=len(k))
    g *= norm / np.sqrt(g @ inverse @ g)
    for s, option in np.argwhere(a.oracle.available):
        x, y = kernel[s, option], hat[s, option]
        if x.sum() and y.sum():
            difference = x - x.sum() / y.sum() * y
            best = norm * np.sqrt(max(difference @ k @ difference, 0.0))
            assert split.shape[s, option] == pytest.approx(best, rel=1e-5, abs=1e-6 * (1 + norm))
            assert abs(difference @ g) <= split.shape[s, option] * (1 + 1e-6) + 1e-6 * (1 + norm)


def test_a_constant_costs_nothing_in_mmd():
    """p and q have equal mass: with equal values everywhere the shape part is 0 in any kernel."""
    m = ICSMDP.create(
        prob=np.full((2, 1, 2), 0.5), next_state=np.broadcast_to([0, 1], (2, 1, 2)), duration=np.ones((2, 1, 2), int),
        reward=np.ones((2, 1, 2)), observation=[0, 1], agent=[0, 0], gamma=0.9,
    )  # fmt: skip
    a = analyse(m)
    assert information.maximum_mean_discrepancy(a, np.array([[1.0, 0.3], [0.3, 2.0]])).shape.max() < 1e-12


def hidden_duration() -> ICSMDP:
    """Two hidden states that differ in nothing but how long the option takes."""
    return ICSMDP.create(
        prob=np.full((2, 1, 2), 0.5), next_state=np.broadcast_to([0, 1], (2, 1, 2)),
        duration=np.broadcast_to(np.array([1, 9])[:, None, None], (2, 1, 2)), reward=np.ones((2, 1, 2)),
        observation=[0, 0], agent=[0], gamma=0.9,
    )  # fmt: skip


def test_duration_is_all_mass_and_destination_is_all_shape():
    split = information.total_variation(a := analyse(hidden_duration()))
    assert split.shape.max() == 0.0 and split.reward.max() == 0.0
    np.testing.assert_allclose(split.mass, np.abs(a.local_gap), atol=1e-12)
    a = next(a for a in family() if a.smdp.terminal.sum() == 0 and np.ptp(a.smdp.duration) == 0 and len(a.d_obs) > 1)
    split = information.total_variation(a)
    assert split.mass.max() < 1e-12 < split.shape.max()


def test_a_state_whose_task_always_ends_has_only_mass():
    """K = 0 leaves p undefined: the mass term is then exact and the shape term 0."""
    m = ICSMDP.create(
        prob=np.full((2, 1, 2), 0.5), next_state=np.broadcast_to([0, 1], (2, 1, 2)), duration=np.ones((2, 1, 2), int),
        reward=np.ones((2, 1, 2)), terminal=np.broadcast_to(np.array([True, False])[:, None, None], (2, 1, 2)),
        observation=[0, 0], agent=[0], gamma=0.9,
    )  # fmt: skip
    a = analyse(m)
    for split in (information.total_variation(a), information.wasserstein(a, np.ones((1, 1)))):
        assert split.shape[0, 0] == 0
        np.testing.assert_allclose(split.total, np.abs(a.local_gap), atol=1e-12)


def mixed():
    """An instance of the family with two observations of different value."""
    return next(a for a in family() if len(a.d_obs) > 2 and np.ptp(a.v_bar) > 0.1)


def test_features_that_confuse_observations_are_refused():
    a = mixed()
    bound = information.information_state_bound(a, information.wasserstein(a, np.zeros((len(a.d_obs), 1))))
    (failure,) = bound.failures
    assert np.isnan(bound.value) and failure.name == "features separate" and failure.margin == 0


@pytest.mark.parametrize("shift", [0.0, -5.0])
def test_kernels_that_are_not_positive_definite_are_refused(shift):
    """The energy kernel -|x - y| is only conditionally so, and a constant kernel is singular."""
    a = mixed()
    x = features(a, width=1)
    energy = -np.abs(x - x[:, 0]) if shift else np.ones((len(x), len(x)))
    bound = information.information_state_bound(a, information.maximum_mean_discrepancy(a, energy))
    (failure,) = bound.failures
    assert np.isnan(bound.value) and failure.name == "kernel is positive definite" and failure.margin < 0


def test_bad_features_and_kernels_are_named():
    a = mixed()
    x, k = features(a), gaussian(a)
    x[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"features\[1, 0\] = nan is not finite"):
        information.wasserstein(a, x)
    k[0, 1] += 0.1
    with pytest.raises(ValueError, match=r"kernel\[0, 1\] = .* not symmetric"):
        information.maximum_mean_discrepancy(a, k)


def largest_local_gap(a):
    return float(np.abs(a.local_gap).max())


def local(split):
    """The claim ||b||_inf <= epsilon + delta as a bound of its own, so that its constants can be attacked."""

    def claim(a):
        bound = information.information_state_bound(a, split(a))
        return replace(bound, value=(1 - a.gamma_bar) * bound.value) if bound.applicable else bound

    return claim


@pytest.mark.parametrize("name", SPLITS)
def test_the_verifier_passes_the_split_and_catches_a_broken_one(name):
    split = SPLITS[name]

    def without(part):
        return lambda a: replace(mismatch := split(a), **{part: np.zeros_like(getattr(mismatch, part))})

    assert never_violated(lambda a: information.information_state_bound(a, split(a)), sup_gap, gap.observed_error)
    assert never_violated(local(split), largest_local_gap, slack)
    assert caught(lambda a: shrunk(local(split)(a), 0.9), largest_local_gap)
    for part in ("mass", "shape", "reward"):
        assert caught(local(without(part)), largest_local_gap), f"{part} was left out and nobody noticed"


def sup_gap(a):
    return a.norm_sup_state(a.gap)
