"""Semi-Markov temporal differences, unbatched: one scalar crosses the agent boundary.

Notation: docs/theory.md section 1.  `discount` is gamma**duration, 0 when the task ended, so the maths never asks
how long the option took.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from icq.learn.classes import at


def scalar(q: Float[Array, "A"], available: Bool[Array, "A"]) -> Float[Array, ""]:
    """m = max over available options of Q_j(o', a): the one number agent j returns to the agent before it."""
    return jnp.max(jnp.where(available, q, -jnp.inf))


def target(reward: Float[Array, ""], discount: Float[Array, ""], m: Float[Array, ""]) -> Float[Array, ""]:
    """R + g m, a constant for the gradient (semi-gradient)."""
    return jax.lax.stop_gradient(reward + discount * m)


def td_error(
    q: Float[Array, "A"],
    action: Int[Array, ""],
    reward: Float[Array, ""],
    discount: Float[Array, ""],
    m: Float[Array, ""],
) -> Float[Array, ""]:
    """delta = R + g m - Q_i(o, a)."""
    return target(reward, discount, m) - at(q, action)
