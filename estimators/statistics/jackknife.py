"""Intervals for smooth functions of a dependent log: delete one batch of consecutive handoffs at a time.

A log of n handoffs is cut into B consecutive batches.  When batches are long against the memory of the chain, they
are nearly independent, whatever happens inside them, so the delete-a-batch jackknife needs no model of the dependence
(docs/theory.md section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.linalg import hadamard

from estimators.statistics.estimate import Estimate
from icq.display import Shown

BATCHES = 32
SEPARATED = 3.0  # standard deviations of pure noise above which a squared norm shows its own linear variance


def batch_index(n: int, batches: int = BATCHES) -> Int[np.ndarray, "n"]:
    """The batch of each of n consecutive rows; sizes differ by at most one."""
    return np.arange(n) * batches // n


def slices(n: int, batches: int = BATCHES) -> list[slice]:
    """The rows of each batch."""
    edges = [-(-b * n // batches) for b in range(batches + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class SquareNoise(Shown):
    """What batch vectors X_b of mean zero and covariance S say of |mean X|^2.

    variance: of sum_{b != c} X_b.X_c / (B(B-1)), 2 tr(S^2)/(B(B-1)); trace: tr S; gram [B, B]: X_b.X_c for b != c,
    centred without the diagonal.  In squares of the unit of X, and their squares.
    """

    variance: float
    trace: float
    gram: Float[np.ndarray, "B B"]

    @property
    def slope(self) -> float:
        """What the variance of |mean X|^2 gains per unit of |E X|^2 in a direction drawn like the noise.

        4 tr(S^2)/(B tr S).
        """
        return 2 * (len(self.gram) - 1) * self.variance / self.trace if self.trace > 0 else 0.0

    def along(self, scores: Float[np.ndarray, "B"]) -> float:
        """What it gains when E X moves as noise moves it: 4 m'S^2m / (B m'Sm).

        scores [B]: m.X_b, centred; m = E X.
        """
        count, length = len(scores), float(scores @ scores)
        return 4 * float(scores @ self.gram @ scores) / (count * (count - 2) * length) if length > 0 else 0.0


def degenerate(influence: Float[np.ndarray, "B K"]) -> SquareNoise:
    """The noise of batch vectors, from rows X_b known up to a common vector.

    tr(S^2) is estimated without bias from the products of different rows, centred without their diagonal
    (docs/theory.md section 7.1).
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
    return SquareNoise(2 * square / (count * (count - 1)), trace, gram)


def norm(
    pseudo: Float[np.ndarray, "B"],
    influence: Float[np.ndarray, "B K"],
    *,
    n_eff: float,
    confidence: float = 0.95,
    bias: tuple[float, float] = (0.0, 0.0),
) -> Estimate:
    """The norm whose square has these pseudo-values, of `leave_one_out` or of `halves`.

    Lemma: if the table is a mean of batch vectors X_b, the mean pseudo-value is that of X_b.X_c over pairs b != c, so
    the square is unbiased; its variance is L + c with c that of `degenerate`, and the pseudo-values find L + 2c.  A
    square that is low by noise has an L that is low, too: L is estimated at the value, and true at u it is expected to
    be L + p (u - value), p the slope along the noise, never less than L/value.  The interval holds every square u >= 0
    with (value - u)^2 <= t^2 max(c, c + L + p (u - value)), a score interval: near 0 it tests with the variance that
    holds at 0.  Its end is never below that of value 0, because a square that came out negative is small, not known to
    be zero.  Then the root is taken.

    influence [B, K]: rows X_b in coordinates in which the square is a sum of squares; bias: the least and the largest
    that the mean pseudo-value may have, by which the interval is longer.
    """
    count, square = len(pseudo), float(pseudo.mean())
    noise = degenerate(influence)
    linear = max(float(pseudo.var(ddof=1)) / count - 2 * noise.variance, 0.0)
    pure = float(np.sqrt(noise.variance))
    sure = min(max(square, 0.0) / (SEPARATED * pure), 1.0) if pure > 0 else 1.0
    proportional = (sure * linear / square if square > 0 else 0.0) + (1 - sure) * noise.slope
    per_unit = max(proportional, sure * noise.along((pseudo - square) / 2) + (1 - sure) * noise.slope)
    variance = noise.variance + proportional * square
    t = float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    centre = square + t**2 * per_unit / 2
    half = t * np.sqrt(max(variance + (t * per_unit / 2) ** 2, 0.0))
    low, high = centre - half, max(centre + half, t * pure)
    if variance + per_unit * (low - square) < noise.variance:
        low = square - t * pure
    low, high = float(np.sqrt(max(low - bias[1], 0.0))), float(np.sqrt(max(high - bias[0], 0.0)))
    value = float(np.sqrt(max(square, 0.0)))
    return Estimate(
        value, (high - low) / (2 * t), (min(low, value), max(high, value)), n_eff, confidence=confidence
    )  # fmt: skip


def leave_one_out(whole: float, without: Float[np.ndarray, "B"]) -> Float[np.ndarray, "B"]:
    """Pseudo-values of a statistic from its delete-a-batch values: B whole - (B-1) without."""
    return len(without) * whole - (len(without) - 1) * without


def halves(whole: float, plus: Float[np.ndarray, "H"], minus: Float[np.ndarray, "H"]) -> Float[np.ndarray, "B"]:
    """Pseudo-values from the values of the H = B - 1 halves of `signs` and of their other halves.

    value - mean((plus + minus)/2 - value) + sum_j signs[j] (plus - minus)_j / 2: for a smooth statistic those of
    `leave_one_out` to first order.  A half is as far from the whole as the whole is from the truth, so a maximum whose
    winner is in doubt changes its mind here as often as it does there, which leaving one batch out hardly ever shows.
    """
    return 2 * whole - float((plus + minus).mean()) / 2 + signs(len(plus) + 1).T @ (plus - minus) / 2


def kink(whole: float, pseudo: Float[np.ndarray, "B"], influence: Float[np.ndarray, "B K"]) -> tuple[float, float]:
    """How far the squares of halves are off the square of the whole beyond squared noise, and one standard error.

    For a smooth table the mean over halves exceeds the whole by the squared noise tr S/B of the mean, up
    to terms of higher order; what is left comes from maxima whose winners are in doubt.
    """
    count, noise = len(pseudo), degenerate(influence)
    stderr = np.sqrt(max(float(pseudo.var(ddof=1)) / count - noise.variance, noise.variance))
    return whole - float(pseudo.mean()) - noise.trace / count, float(stderr)


def bias_of(off: float) -> tuple[float, float]:
    """The least and the largest bias of the mean pseudo-value of `halves` whose `kink` is off.

    Lemma: the maximum of two normal estimates is biased by b = s psi(gap/s), psi(x) = phi(x) - x (1 - Phi(x)), with s
    their noise; that of halves has sqrt(2) s, and psi falls, so off >= (sqrt(2) - 1) b >= 0.  `halves` takes off the
    difference, which leaves b - off, between -off and sqrt(2) off.
    """
    ends = -off, float(np.sqrt(2)) * off
    return min(ends), max(ends)


def signs(batches: int = BATCHES) -> Float[np.ndarray, "H B"]:
    """Orthogonal ways to halve the batches, 1 and -1: rows of a Hadamard matrix but the constant one."""
    return hadamard(batches)[1:].astype(float)
