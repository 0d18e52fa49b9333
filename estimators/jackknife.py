"""Intervals for smooth functions of a dependent log: delete one batch of consecutive handoffs at a time.

A log of n handoffs is cut into B consecutive batches.  When batches are long against the memory of the chain, they
are nearly independent, whatever happens inside them, so the delete-a-batch jackknife needs no model of the dependence
(docs/theory.md section 7).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from estimators.estimate import Estimate, missing

BATCHES = 32
SEPARATED = 3.0  # standard deviations of pure noise above which a squared norm shows its own linear variance


def batch_index(n: int, batches: int = BATCHES) -> Int[np.ndarray, "n"]:
    """The batch of each of n consecutive rows; sizes differ by at most one."""
    return np.arange(n) * batches // n


def jackknife(
    whole: float, without: Float[np.ndarray, "B"], *, n_eff: float, confidence: float = 0.95, second: float = 0.0
) -> Estimate:
    """Bias-corrected value and Student interval of a statistic from its delete-a-batch values.

    whole: the statistic of everything; without [B]: of everything but batch b.  value = B whole - (B-1) mean(without),
    stderr^2 = (B-1)/B sum (without - mean)^2.  second: the variance of a known term of second order (`degenerate`),
    which that sum counts twice, and which remains where the sum happens to be small.
    """
    count = len(without)
    value = count * whole - (count - 1) * float(np.mean(without))
    found = (count - 1) / count * float(np.sum((without - np.mean(without)) ** 2))
    stderr = float(np.sqrt(max(found - second, second)))
    half = stderr * float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    return Estimate(value, stderr, (value - half, value + half), n_eff, confidence=confidence)


def positive(whole: float, without: Float[np.ndarray, "B"], *, n_eff: float, confidence: float = 0.95) -> Estimate:
    """The jackknife of the logarithm of a positive statistic, whose scatter grows with it.

    A statistic that is 0 with and without every batch is 0; one that is 0 without some batch rests on that one.
    """
    if whole <= 0 or without.min() <= 0:
        nothing = whole <= 0 and without.max() <= 0
        why = "all of it comes from one batch of the log: log more handoffs"
        return Estimate(0.0, 0.0, (0.0, 0.0), n_eff, confidence=confidence) if nothing else missing(why, n_eff)
    logs = jackknife(float(np.log(whole)), np.log(without), n_eff=n_eff, confidence=confidence)
    value, (low, high) = float(np.exp(logs.value)), np.exp(logs.interval)
    return Estimate(value, value * logs.stderr, (float(low), float(high)), n_eff, confidence=confidence)


def degenerate(influence: Float[np.ndarray, "B K"]) -> tuple[float, float]:
    """Variance of sum_{b != c} X_b.X_c / (B(B-1)) when the batch vectors X_b have mean zero, and its linear slope.

    influence [B, K]: rows X_b, known up to a common vector.  The variance is 2 tr(S^2)/(B(B-1)) with S the covariance
    of a row; tr(S^2) is estimated without bias from the products of different rows, centred without their diagonal.
    The slope 4 tr(S^2)/(B tr S) is what the variance of |mean X|^2 grows by per unit of |E X|^2 in a direction drawn
    like the noise.
    """
    count = len(influence)
    centred = influence - influence.mean(axis=0)
    gram = centred @ centred.T
    trace = float(np.trace(gram)) / (count - 1)
    np.fill_diagonal(gram, 0.0)
    rows = gram.sum(axis=1) / (count - 2)
    gram = gram - rows[:, None] - rows + gram.sum() / ((count - 1) * (count - 2))
    np.fill_diagonal(gram, 0.0)
    square = float((gram**2).sum()) / (count * (count - 3))
    return 2 * square / (count * (count - 1)), 4 * square / (count * trace) if trace > 0 else 0.0


def norm(
    whole: float,
    without: Float[np.ndarray, "B"],
    influence: Float[np.ndarray, "B K"],
    *,
    n_eff: float,
    confidence: float = 0.95,
) -> Estimate:
    """The norm whose square has the plug-in value `whole` and the delete-a-batch values `without`.

    Lemma: if the table is a mean of batch vectors X_b, the bias-corrected square is the mean of X_b.X_c over pairs
    b != c, so it is unbiased; its variance is L + c with L linear in the square and c that of `degenerate`, and the
    jackknife finds L + 2c.  The interval holds every square u >= 0 with (value - u)^2 <= t^2 (c + u L/value), a
    score interval: near 0 it tests with the variance that holds at 0.  Its end is never below that of value 0, because
    a square that came out negative is small, not known to be zero.  Then the root is taken.

    influence [B, K]: rows X_b in coordinates in which the square is a sum of squares.
    """
    count = len(without)
    square = count * whole - (count - 1) * float(np.mean(without))
    found = (count - 1) / count * float(np.sum((without - np.mean(without)) ** 2))
    noise, slope = degenerate(influence)
    linear = max(found - 2 * noise, 0.0)
    sure = min(max(square, 0.0) / (SEPARATED * np.sqrt(noise)), 1.0) if noise > 0 else 1.0
    per_unit = (sure * linear / square if square > 0 else 0.0) + (1 - sure) * slope
    t = float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    centre = square + t**2 * per_unit / 2
    half = t * np.sqrt(max(noise + per_unit * square + (t * per_unit / 2) ** 2, 0.0))
    high = float(np.sqrt(max(centre + half, t * np.sqrt(noise))))
    low = float(np.sqrt(max(centre - half, 0.0)))
    value = float(np.sqrt(max(square, 0.0)))
    return Estimate(value, (high - low) / (2 * t), (low, high), n_eff, confidence=confidence)
