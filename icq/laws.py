"""Rows of probabilities as people store them: they sum to 1 only within the precision of their type.

What is within it is divided by its sum, and a warning says so; what is not is refused with the row, how far it is off,
the tolerance and the remedy.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from icq.note import Note

TOLERANCE = 1e-9  # of double precision


class Normalised(Note):
    """Rows of probabilities were divided by their sums, which were 1 only within the precision of their type."""


def tolerance(dtype: np.dtype[Any], width: int) -> float:
    """How far the sum of `width` probabilities of this type may be from 1: their rounding and that of adding them."""
    coarse = dtype.kind == "f" and dtype.itemsize < 8
    return max(TOLERANCE, (8 + 2 * width) * float(np.finfo(dtype).eps)) if coarse else TOLERANCE


def normalised(name: str, rows: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "... n"]:
    """The rows in double precision, divided by their sums where those are 1 within the precision they are stored in.

    The others are left for `off` to refuse.  Warns with Normalised where a sum was off by more than doubles are.
    """
    wide = rows.astype(np.float64)
    if not wide.size or (limit := tolerance(rows.dtype, rows.shape[-1])) == TOLERANCE:
        return wide
    total = wide.sum(-1, keepdims=True)
    close = np.abs(total - 1) <= limit
    worst = float(np.abs(total - 1).max(initial=0.0, where=close))
    if worst > TOLERANCE:
        text = f"{name}: rows summed to 1 within {worst:.1g}, as {rows.dtype} does; they were divided by their sums"
        warnings.warn(text, Normalised, stacklevel=4)
    return np.where(close, wide / np.where(close, total, 1.0), wide)


def off(total: Float[np.ndarray, "..."], limit: float) -> Bool[np.ndarray, "..."]:
    """Which row sums are not 1 within the limit."""
    return ~(np.abs(total - 1) <= limit)


def remedy(total: float, limit: float) -> str:
    """What a row that sums to `total` is answered with."""
    return f"it must be 1 within {limit:.1g} and is off by {abs(total - 1):.1g}; divide each row by its sum"


def law(name: str, value: Any, size: int) -> Float[np.ndarray, "n"]:
    """A law over `size` things from weights, divided by their sum.  Raises ValueError naming the weight."""
    try:
        weights = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: not a list of numbers; give {size} weights") from error
    if weights.dtype.kind not in "biuf" or weights.shape != (size,):
        raise ValueError(f"{name}: {_kind(weights)}, expected {size} weights, one for each")
    weights = weights.astype(np.float64)
    if (bad := ~(np.isfinite(weights) & (weights >= 0))).any():
        i = int(np.argmax(bad))
        raise ValueError(f"{name}[{i}] = {weights[i]:g} is no weight: weights are finite and not negative")
    if not (largest := float(weights.max())) > 0:
        raise ValueError(f"{name}: all {size} weights are 0; at least one must be positive")
    weights = weights / largest  # so that the sum of huge ones is finite
    return weights / weights.sum()


def _kind(array: np.ndarray) -> str:
    return f"shape {array.shape}" if array.dtype.kind in "biuf" else "not numbers"
