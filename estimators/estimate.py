"""An estimate says how far it may be off, and when there was too little to say anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    interval: confidence interval; n_eff: effective number of independent observations behind it; result: `ok`, or why
    there is no number (value and interval are then NaN).
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    n_eff: float
    result: str = "ok"

    def __str__(self) -> str:
        if self.result != "ok":
            return f"none ({self.result})"
        return f"{self.value:.4g} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"


def missing(why: str, n_eff: float = 0.0) -> Estimate:
    """No number, and why."""
    return Estimate(float("nan"), float("nan"), (float("nan"), float("nan")), n_eff, why)


def exact(value: float) -> Estimate:
    """A number computed without sampling."""
    return Estimate(value, 0.0, (value, value), float("inf"))


def mean(samples: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """Mean of independent samples with Student's t interval.  NaN stays NaN; fewer than two samples is a `result`."""
    n = float(len(samples))
    if n < 2:
        return missing(f"{n:g} sample(s), at least 2 are needed", n)
    value, stderr = float(np.mean(samples)), float(stats.sem(samples))
    half = stderr * float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return Estimate(value, stderr, (value - half, value + half), n)


def bootstrap(
    samples: Float[np.ndarray, "R ..."],
    statistic: Callable[[Float[np.ndarray, "R ..."]], float],
    *,
    confidence: float = 0.95,
    resamples: int = 999,
    seed: int = 0,
) -> Estimate:
    """A statistic of independent rows with a bias-corrected accelerated bootstrap interval over rows.

    Rows are runs: whole curves are resampled, so correlation within a run is kept.
    """
    n = float(len(samples))
    if n < 2:
        return missing(f"{n:g} sample(s), at least 2 are needed", n)
    value = float(statistic(samples))
    if not np.isfinite(samples).all():
        return Estimate(value, float("nan"), (float("nan"), float("nan")), n, "samples are not finite")
    if (samples == samples[0]).all():
        return Estimate(value, 0.0, (value, value), n)
    found = stats.bootstrap(
        (np.arange(len(samples)),), lambda rows: statistic(samples[rows]), vectorized=False, n_resamples=resamples,
        confidence_level=confidence, method="BCa", rng=np.random.default_rng(seed),
    )  # fmt: skip
    interval = (float(found.confidence_interval.low), float(found.confidence_interval.high))
    return Estimate(value, float(found.standard_error), interval, n)


def root_mean_square(errors: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """sqrt(E e^2) over independent runs: what a bound on a mean square speaks of."""
    return bootstrap(errors, lambda e: float(np.sqrt(np.mean(e**2))), confidence=confidence)


def log_log_slope(x: Float[np.ndarray, "K"], curves: Float[np.ndarray, "R K"], confidence: float = 0.95) -> Estimate:
    """Least-squares slope of log sqrt(E e^2) against log x, with an interval from resampling whole runs."""
    if len(x) < 2:
        return missing(f"{len(x)} point(s), at least 2 are needed for a slope", float(len(curves)))

    def slope(rows: Float[np.ndarray, "R K"]) -> float:
        return float(np.polyfit(np.log(x), 0.5 * np.log(np.mean(rows**2, axis=0)), 1)[0])

    return bootstrap(curves, slope, confidence=confidence)
