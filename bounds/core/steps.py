"""Step-size schedules: a constant, a decay, an array alpha[k], or a function of the handoff index k = 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from icq.coerce import room
from icq.display import Shown


@dataclass(frozen=True)
class Decay(Shown):
    """alpha_k = step / (1 + k/offset)^power, k in handoffs: the schedule of `icq.learn.learner.LearnerConfig`."""

    step: float
    offset: float
    power: float

    def __call__(self, k: int | Float[np.ndarray, "n"]) -> float | Float[np.ndarray, "n"]:
        """The step of handoff k, or of many."""
        return self.step * (1.0 + k / self.offset) ** -self.power


STEP = 32  # bytes of a step and of what is computed from it
Steps: TypeAlias = float | np.ndarray | Decay | Callable[[int], float]


def schedule(steps: Steps, count: int) -> Float[np.ndarray, "count"]:
    """alpha_0, ..., alpha_{count-1}.  Raises ValueError for a short array, a step that is not positive, and more of
    them than memory holds.
    """  # fmt: skip
    room(f"handoffs = {count}: a step for each", STEP * count)
    if isinstance(steps, Decay):
        alpha = np.asarray(steps(np.arange(count, dtype=np.float64)))
    elif callable(steps):
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
