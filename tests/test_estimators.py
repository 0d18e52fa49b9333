"""Intervals that cover, decompositions that add up."""

import numpy as np
import pytest
from hypothesis import given
from strategies import instances

from estimators import estimate
from estimators.decomposition import decompose
from icq.exact import AnalysisError, analyse


def covers(e, truth):
    return e.interval[0] <= truth <= e.interval[1]


def test_mean_and_bootstrap_intervals_cover_at_their_level():
    rng = np.random.default_rng(0)
    trials = 300
    hits = {"mean": 0, "rms": 0}
    for _ in range(trials):
        x = rng.gamma(4.0, size=32)
        hits["mean"] += covers(estimate.mean(x), 4.0)
        hits["rms"] += covers(
            estimate.bootstrap(x, lambda e: float(np.sqrt(np.mean(e**2))), resamples=300), np.sqrt(20.0)
        )
    stderr = np.sqrt(0.95 * 0.05 / trials)
    assert abs(hits["mean"] / trials - 0.95) < 4 * stderr
    assert hits["rms"] / trials > 0.95 - 0.03 - 4 * stderr  # BCa undercovers slightly at 32 rows


def test_slope_of_an_exact_power_law_and_of_a_noisy_one():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    exact = estimate.log_log_slope(x, np.ones((5, 1)) * 3 * x**-0.5)
    assert exact.value == pytest.approx(-0.5, abs=1e-12)
    assert exact.interval[1] - exact.interval[0] < 1e-12
    rng = np.random.default_rng(1)
    noisy = estimate.log_log_slope(x, rng.normal(size=(64, 4)) * x**-0.5)
    assert covers(noisy, -0.5)
    assert not covers(noisy, 0.0)


def test_too_little_or_broken_data_is_a_result_not_a_number():
    for e in (estimate.mean(np.array([1.0])), estimate.log_log_slope(np.array([1.0]), np.ones((4, 1)))):
        assert np.isnan(e.value) and e.result != "ok" and "none" in str(e)
    assert np.isnan(estimate.mean(np.array([1.0, np.nan])).value)
    broken = estimate.root_mean_square(np.array([1.0, np.nan, 2.0]))
    assert np.isnan(broken.value) and "finite" in broken.result


@given(instances(states=(2, 8)))
def test_the_decomposition_adds_up_in_both_norms(m):
    try:
        a = analyse(m)
    except AnalysisError:
        return
    rng = np.random.default_rng(0)
    q, q_f = rng.normal(size=(2, 3, *a.q_bar.shape))
    for part, norm in zip(decompose(a, q, q_f), ("d", "sup"), strict=True):
        assert part.norm == norm
        assert (part.slack >= -1e-12).all()
        size = a.norm_d if norm == "d" else a.norm_sup
        assert part.mix[1] == pytest.approx(size(np.where(a.interface.available, q[1] - q_f[1], 0.0)))
    at_truth = decompose(a, a.q_bar, a.q_bar)[0]
    assert at_truth.total == pytest.approx(at_truth.interface) and at_truth.app == at_truth.mix == 0
    broken = decompose(a, np.full_like(a.q_bar, np.nan), a.q_bar)[0]
    assert np.isnan(broken.mix) and np.isnan(broken.total)
