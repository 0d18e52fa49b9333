"""Step-size schedules: a constant, an array alpha[k], or a function of the handoff index k = 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Steps: TypeAlias = float | np.ndarray | Callable[[int], float]


def schedule(steps: Steps, count: int) -> Float[np.ndarray, "count"]:
    """alpha_0, ..., alpha_{count-1}.  Raises ValueError for a short array or a step that is not positive."""
    if callable(steps):
        alpha = np.array([float(steps(k)) for k in range(count)])
    elif isinstance(steps, np.ndarray):
        if steps.ndim != 1 or len(steps) < count:
            raise ValueError(f"steps: shape {steps.shape}, at least {count} steps are needed")
        alpha = steps[:count].astype(np.float64)
    else:
        alpha = np.full(count, float(steps))
    bad = ~(np.isfinite(alpha) & (alpha > 0))
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(f"steps[{k}] = {alpha[k]} is not a positive number")
    return alpha
