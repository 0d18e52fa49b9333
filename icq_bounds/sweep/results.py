"""What is read off the results of cells: checkpoints, percentages, ratios of bound to error, counts of verdicts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate
from icq_bounds.sweep.store import Arrays


def octaves(handoffs: int, first: int = 1024) -> tuple[int, ...]:
    """Checkpoints first, 2 first, 4 first, ... up to `handoffs`."""
    return tuple(first * 2**k for k in range(int(np.log2(handoffs / first)) + 1))


def percent(result: Arrays) -> Estimate:
    """Learned value in per cent of the oracle's."""
    return estimate.mean(100 * result["value"] / result["value_oracle"])


def tally(said: np.ndarray) -> dict[str, int]:
    """How often each verdict was said."""
    names, count = np.unique(said, return_counts=True)
    return {str(n): int(c) for n, c in zip(names, count, strict=True)}


def comparable(
    error: Float[np.ndarray, "*n"], bound: Float[np.ndarray, "*n"], slack: Float[np.ndarray, "*n"]
) -> Bool[np.ndarray, "*n"]:
    """Records that have a ratio of bound to error: the bound applies, and the error is above its numerical slack."""
    return np.isfinite(bound) & (error > slack)


def pairs(result: Arrays, term: str) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Error and bound of every comparable record of a term; none for the results of baselines."""
    if f"e_{term}" not in result:
        return np.zeros(0), np.zeros(0)
    error, bound, slack = (result[f"{part}_{term}"] for part in ("e", "b", "slack"))
    keep = comparable(error, bound, slack)
    return error[keep], bound[keep]
