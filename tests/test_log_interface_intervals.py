"""The jackknifed norm: what it estimates, the variance that counts twice, and the coverage of its interval."""

import numpy as np
import pytest

from estimators.estimate import Estimate
from estimators.jackknife import BATCHES, batch_index, degenerate, jackknife, norm

COVARIANCE = np.array([1.0, 0.6, 0.3, 0.3, 0.2])


def draw(rng: np.random.Generator, mean: np.ndarray, count: int = BATCHES) -> np.ndarray:
    return mean + rng.normal(size=(count, len(mean))) * np.sqrt(COVARIANCE)


def leave_outs(x: np.ndarray) -> tuple[float, np.ndarray]:
    """|mean|^2 of all batch vectors, and of all but each."""
    rest = (x.sum(axis=0) - x) / (len(x) - 1)
    return float((x.mean(axis=0) ** 2).sum()), (rest**2).sum(axis=1)


def estimate(x: np.ndarray) -> Estimate:
    return norm(*leave_outs(x), x, n_eff=1.0)


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
    found = np.array([degenerate(draw(rng, np.full(5, 3.0))) for _ in range(2000)])
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
