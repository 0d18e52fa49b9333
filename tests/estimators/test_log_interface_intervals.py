"""The jackknifed norm: what it estimates, the variance that counts twice, and the coverage of its interval."""

import numpy as np
import pytest

from estimators.statistics.estimate import Estimate, jackknife
from estimators.statistics.jackknife import (
    BATCHES,
    SquareNoise,
    batch_index,
    bias_of,
    degenerate,
    halves,
    kink,
    leave_one_out,
    norm,
    signs,
)

COVARIANCE = np.array([1.0, 0.6, 0.3, 0.3, 0.2])


def draw(rng: np.random.Generator, mean: np.ndarray, count: int = BATCHES) -> np.ndarray:
    return mean + rng.normal(size=(count, len(mean))) * np.sqrt(COVARIANCE)


def leave_outs(x: np.ndarray) -> tuple[float, np.ndarray]:
    """|mean|^2 of all batch vectors, and of all but each."""
    rest = (x.sum(axis=0) - x) / (len(x) - 1)
    return float((x.mean(axis=0) ** 2).sum()), (rest**2).sum(axis=1)


def estimate(x: np.ndarray) -> Estimate:
    return norm(leave_one_out(*leave_outs(x)), x, n_eff=1.0)


def pairs(x: np.ndarray) -> float:
    gram = x @ x.T
    return float(gram.sum() - np.trace(gram)) / (len(x) * (len(x) - 1))


def test_batches_are_consecutive_and_even():
    index = batch_index(1000)
    assert (np.diff(index) >= 0).all() and np.ptp(np.bincount(index)) <= 1 and len(np.bincount(index)) == BATCHES


def test_the_corrected_square_is_the_mean_over_pairs_of_batches():
    x = draw(np.random.default_rng(0), np.full(5, 0.4))
    assert jackknife(*leave_outs(x), n_eff=1.0).value == pytest.approx(pairs(x))
    assert estimate(x).value == pytest.approx(np.sqrt(pairs(x)))


def test_the_degenerate_variance_and_the_slope():
    rng = np.random.default_rng(1)
    noise = [degenerate(draw(rng, np.full(5, 3.0))) for _ in range(2000)]
    found = np.array([(n.variance, n.slope) for n in noise])
    square = (COVARIANCE**2).sum()
    truth = np.array([2 * square / (BATCHES * (BATCHES - 1)), 4 * square / (BATCHES * COVARIANCE.sum())])
    stderr = found.std(axis=0) / np.sqrt(len(found))
    assert abs(found[:, 0].mean() - truth[0]) < 4 * stderr[0]
    assert found[:, 1].mean() == pytest.approx(truth[1], rel=0.1)


def test_the_jackknife_counts_the_degenerate_part_twice():
    rng = np.random.default_rng(2)
    samples = [draw(rng, np.zeros(5)) for _ in range(3000)]
    values = np.array([pairs(x) for x in samples])
    found = np.mean([jackknife(*leave_outs(x), n_eff=1.0).stderr ** 2 for x in samples])
    ratio = found / values.var()
    assert ratio == pytest.approx(2 * (BATCHES - 1) / (BATCHES - 2), rel=0.15)
    square = (COVARIANCE**2).sum()
    assert values.var() == pytest.approx(2 * square / (BATCHES * (BATCHES - 1)), rel=0.15)


@pytest.mark.parametrize("size", [0.0, 0.1, 0.3, 1.0])
def test_the_interval_of_a_norm_holds_it(size):
    rng = np.random.default_rng(3)
    mean = size * np.ones(5) / np.sqrt(5)
    found = [estimate(draw(rng, mean)).interval for _ in range(2000)]
    coverage = np.mean([low <= size <= high for low, high in found])
    assert 0.93 < coverage < 0.98


def test_the_plain_jackknife_interval_of_a_zero_norm_is_caught():
    rng = np.random.default_rng(4)
    plain = [jackknife(*leave_outs(draw(rng, np.zeros(5))), n_eff=1.0).interval[0] for _ in range(1000)]
    assert np.mean(np.array(plain) <= 0) > 0.985  # twice the variance


def test_a_negative_square_is_small_and_not_known_to_be_zero():
    rng = np.random.default_rng(5)
    found = next(e for e in (estimate(draw(rng, np.zeros(5))) for _ in range(100)) if e.value == 0)
    assert found.interval[0] == 0 < found.interval[1] and found.stderr > 0
    assert estimate(np.zeros((BATCHES, 5))).interval == (0.0, 0.0)


def test_what_is_not_a_number_stays_so():
    assert np.isnan(estimate(np.full((BATCHES, 5), np.nan)).value)


def of_halves(x: np.ndarray, value) -> np.ndarray:
    """Pseudo-values of value(mean of batch vectors) from halves of the batches."""
    chosen = signs() > 0
    plus, minus = (np.array([value(x[part].mean(axis=0)) for part in side]) for side in (chosen, ~chosen))
    return halves(value(x.mean(axis=0)), plus, minus)


def square(v: np.ndarray) -> float:
    return float(v @ v)


def test_halves_are_half_orthogonal_and_all_different():
    ways = signs()
    assert (ways.sum(axis=1) == 0).all() and (np.abs(ways) == 1).all()
    assert ways @ ways.T == pytest.approx(BATCHES * np.eye(BATCHES - 1))


def test_halves_say_of_a_smooth_number_what_leaving_out_says():
    x = draw(np.random.default_rng(6), np.full(5, 0.4))
    linear = x @ np.arange(5.0)
    assert of_halves(x, lambda v: float(v @ np.arange(5.0))) == pytest.approx(linear)
    found = of_halves(x, square)
    assert found.mean() == pytest.approx(pairs(x))
    centre = x.mean(axis=0)
    assert found - found.mean() == pytest.approx(2 * (x - centre) @ centre)


def test_halves_see_the_kink_that_one_batch_does_not_reach():
    rng = np.random.default_rng(7)

    def top(v: np.ndarray) -> float:
        return float(max(v[0], v[1]))

    means = np.array([0.0, -0.1])
    samples = [means + rng.normal(size=(BATCHES, 2)) * np.array([0.2, 1.0]) for _ in range(1500)]
    out = np.array([[top((x.sum(axis=0) - row) / (BATCHES - 1)) for row in x] for x in samples])
    whole = np.array([top(x.mean(axis=0)) for x in samples])
    one = np.array([leave_one_out(w, o) for w, o in zip(whole, out)])
    half = np.array([of_halves(x, top) for x in samples])

    def of_truth(pseudo: np.ndarray) -> float:
        """The mean square of the error beside the variance that the pseudo-values say."""
        return ((pseudo.mean(axis=1) - top(means)) ** 2).mean() / (pseudo.var(axis=1, ddof=1) / BATCHES).mean()

    assert of_truth(half) == pytest.approx(1.0, abs=0.2)
    assert of_truth(one) > 1.25


def top(v: np.ndarray) -> np.ndarray:
    return np.array([v[0], max(v[1], v[2])])


@pytest.mark.parametrize(("gap", "least", "most"), [(1.0, -0.02, 0.02), (0.0, 0.1, 1.0), (0.05, 0.1, 1.0)])
def test_the_bias_of_a_tie_is_within_what_halves_say(gap, least, most):
    """The square of (v_0, max(v_1, v_2)), v_2 below v_1 by `gap`: none, tied, and in between."""
    rng, means, chosen = np.random.default_rng(10), np.array([1.0, 1.0, 1.0 - gap]), signs() > 0
    found, errors, stderrs = [], [], []
    for _ in range(600):
        x = means + rng.normal(size=(BATCHES, 3)) * 0.3
        whole = top(x.mean(axis=0))
        plus, minus = (np.array([top(x[part].mean(axis=0)) for part in side]) for side in (chosen, ~chosen))
        pseudo = halves(square(whole), (plus**2).sum(axis=1), (minus**2).sum(axis=1))
        off, stderr = kink(square(whole), pseudo, signs().T @ (plus - minus) / 2)
        found.append(off)
        stderrs.append(stderr)
        errors.append(pseudo.mean() - square(top(means)))
    off, error, unit = np.mean(found), np.mean(errors), np.mean(stderrs)
    assert least < off / unit < most
    low, high = bias_of(float(off))
    slack = 4 * unit / np.sqrt(len(errors))
    assert low - slack <= error <= high + slack
    if gap == 0.0:
        assert error == pytest.approx(high, abs=slack)  # the lemma is sharp at a tie


def test_the_slope_along_the_noise():
    rng = np.random.default_rng(8)
    mean = np.array([1.0, 2.0, 0.5, 0.0, 1.0])
    found = []
    for _ in range(2000):
        x = draw(rng, mean)
        found.append(degenerate(x).along((x - x.mean(axis=0)) @ mean))
    truth = 4 * (mean @ (COVARIANCE**2 * mean)) / (BATCHES * (mean @ (COVARIANCE * mean)))
    assert np.mean(found) == pytest.approx(truth, rel=0.08)  # a ratio of two estimates
    proportional = 4 * (mean @ (COVARIANCE * mean)) / (BATCHES * (mean @ mean))
    assert truth > proportional  # Cauchy's inequality


def uneven(mean: np.ndarray, count: int) -> np.ndarray:
    """Intervals of the length of a mean whose noise lies in one direction of five."""
    rng = np.random.default_rng(9)
    scale = np.sqrt([1.0, 0.02, 0.02, 0.02, 0.02])
    return np.array([estimate(mean + rng.normal(size=(BATCHES, 5)) * scale).interval for _ in range(count)])


def test_uneven_noise_misses_on_neither_side_and_a_variance_in_proportion_is_caught(monkeypatch):
    mean = np.array([0.4, 0.3, 0.3, 0.3, 0.3])
    found = uneven(mean, 2000)
    below, above = (found[:, 1] < np.linalg.norm(mean)).mean(), (found[:, 0] > np.linalg.norm(mean)).mean()
    assert 0.01 < below < 0.05 and 0.01 < above < 0.05
    monkeypatch.setattr(SquareNoise, "along", lambda self, scores: 0.0)
    assert (uneven(mean, 2000)[:, 1] < np.linalg.norm(mean)).mean() > 0.1
