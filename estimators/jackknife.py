"""Intervals for smooth functions of a dependent log: delete one batch of consecutive handoffs at a time.

A log of n handoffs is cut into B consecutive batches.  When batches are long against the memory of the chain, they
are nearly independent, whatever happens inside them, so the delete-a-batch jackknife needs no model of the dependence
(docs/theory.md section 7).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from estimators.estimate import Estimate

BATCHES = 32


def batch_index(n: int, batches: int = BATCHES) -> Int[np.ndarray, "n"]:
    """The batch of each of n consecutive rows; sizes differ by at most one."""
    return np.arange(n) * batches // n


def jackknife(
    whole: float, without: Float[np.ndarray, "B"], *, n_eff: float, confidence: float = 0.95, spurious: float = 0.0
) -> Estimate:
    """Bias-corrected value and Student interval of a statistic from its delete-a-batch values.

    whole: the statistic of everything; without [B]: of everything but batch b.  value = B whole - (B-1) mean(without),
    stderr^2 = (B-1)/B sum (without - mean)^2 - spurious, where `spurious` is a known part of that sum which is not
    variance (a degenerate second-order term counts twice in it).
    """
    count = len(without)
    value = count * whole - (count - 1) * float(np.mean(without))
    variance = (count - 1) / count * float(np.sum((without - np.mean(without)) ** 2)) - spurious
    stderr = float(np.sqrt(max(variance, 0.0)))
    half = stderr * float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    return Estimate(value, stderr, (value - half, value + half), n_eff)
