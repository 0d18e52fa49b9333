"""An estimate says how far it may be off, and when there was too little to say anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from icq.display import Fact, Shown, number


@dataclass(frozen=True)
class Estimate(Shown):
    """A measured number.

    interval: confidence interval; n_eff: effective number of independent observations behind it; result: `ok`, or why
    there is no number (value and interval are then NaN); note: what the number is where that is not what its name says;
    confidence: level of the interval, None where there is none or it is not known.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    n_eff: float
    result: str = "ok"
    note: str = ""
    confidence: float | None = None

    def __str__(self) -> str:
        if self.result != "ok":
            return f"none ({self.result})"
        return f"{self.value:.4g} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"

    def _line_(self) -> str:
        if self.result != "ok":
            return str(self)
        note = f", {self.note}" if self.note else ""
        if self.stderr == 0 and np.isinf(self.n_eff):
            return f"{number(self.value)} (exact{note})"
        return f"{number(self.value)} ({self._range}, n_eff {number(self.n_eff)}{note})"

    @property
    def _range(self) -> str:
        level = "" if self.confidence is None else f"{100 * self.confidence:.4g} %: "
        return f"{level}{number(self.interval[0])} to {number(self.interval[1])}"

    def _facts_(self) -> list[Fact]:
        known = self.result == "ok"
        return [
            Fact("", None if known else str(self)), Fact("value", self.value if known else None),
            Fact("interval", self._range if known else None), Fact("n_eff", self.n_eff), Fact("", self.note or None),
        ]  # fmt: skip


def as_dict(e: Estimate) -> dict[str, Any]:
    """An estimate as JSON; NaN becomes null."""
    return {
        "value": finite(e.value), "interval": [finite(x) for x in e.interval], "n": finite(e.n_eff), "result": e.result,
    }  # fmt: skip


def finite(x: float) -> float | None:
    """A number as JSON: None for NaN and infinity."""
    return float(x) if np.isfinite(x) else None


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
    return Estimate(value, stderr, (value - half, value + half), n, confidence=confidence)


def root_mean_square(errors: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """sqrt(E e^2) over independent runs: what a bound on a mean square speaks of.

    Student interval of its logarithm, centre and standard error by deleting one run at a time; on the scale itself
    the interval would be far too short below (docs/calibration.md).
    """
    n = len(errors)
    if n < 2:
        return missing(f"{n} sample(s), at least 2 are needed", float(n))
    square = np.asarray(errors, np.float64) ** 2
    value = float(np.sqrt(square.mean()))
    if not np.isfinite(square).all():
        return Estimate(value, float("nan"), (float("nan"), float("nan")), float(n), "samples are not finite")
    if (square == square[0]).all():
        return Estimate(value, 0.0, (value, value), float(n), confidence=confidence)
    rest = square.sum() - square
    if rest.min() <= 0:
        return missing("all runs but one have no error at all: there is no scatter to speak of", float(n))
    return delete_one_positive(value, np.sqrt(rest / (n - 1)), confidence)


def log_log_slope(x: Float[np.ndarray, "K"], curves: Float[np.ndarray, "R K"], confidence: float = 0.95) -> Estimate:
    """Least-squares slope of log sqrt(E e^2) against log x; Student interval from deleting one whole run at a time."""
    n = len(curves)
    if len(x) < 2:
        return missing(f"{len(x)} point(s), at least 2 are needed for a slope", float(n))
    if n < 2:
        return missing(f"{n} run(s), at least 2 are needed", float(n))
    square = np.asarray(curves, np.float64) ** 2
    total = square.sum(axis=0)

    def slope(mean: Float[np.ndarray, "K *many"]) -> Float[np.ndarray, "*many"]:
        return np.asarray(np.polyfit(np.log(x), 0.5 * np.log(mean), 1)[0])

    if not np.isfinite(square).all() or ((total - square) <= 0).any():
        return missing("a curve is not finite, or all runs but one have no error at all", float(n))
    return delete_one(float(slope(total / n)), slope(((total - square) / (n - 1)).T), confidence)


def delete_one(whole: float, without: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """The jackknife of independent runs: whole, and the values without each run; bias-corrected Student interval."""
    n = len(without)
    centre = n * whole - (n - 1) * float(without.mean())
    stderr = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    half = stderr * float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return Estimate(whole, stderr, (centre - half, centre + half), float(n), confidence=confidence)


def delete_one_positive(whole: float, without: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """`delete_one` of the logarithm of positive numbers, whose scatter grows with them."""
    found = delete_one(float(np.log(whole)), np.log(without), confidence)
    low, high = (float(np.exp(end)) for end in found.interval)
    return Estimate(whole, whole * found.stderr, (low, high), float(len(without)), confidence=confidence)
