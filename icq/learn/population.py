"""Population IC-Q: the learner with exact expectations instead of samples.

The fixed point Q_F it runs into is the reference that separates approximation error from residual for classes without
a closed form (docs/theory.md section 4).  It is run from the learner's own initial parameters until it stands still;
how still is part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from icq.coerce import count, real
from icq.display import Fact, Shown, spread
from icq.exact import Analysis
from icq.learn.classes import FunctionClass, Params, q_table
from icq.learn.learner import PLAIN


@dataclass(frozen=True)
class PopulationRun(Shown):
    """A population fixed point q [..., O, A], float64.

    residual [...]: d-norm of the velocity of Q under the expected update at unit step, 0 exactly at a fixed point.
    drift [...]: d-norm moved in the last tenth of the iterations.  converged: both are within tolerance.
    """

    q: Float[np.ndarray, "R O A"]
    residual: Float[np.ndarray, "R"]
    drift: Float[np.ndarray, "R"]
    iterations: int
    converged: bool

    def _facts_(self) -> list[Fact]:
        how = "converged" if self.converged else "did not converge"
        return [
            Fact("starts x observations x options", " x ".join(map(str, np.shape(self.q)))),
            Fact("residual", spread(self.residual), "reward in the d-norm"), Fact("drift", spread(self.drift)),
            Fact("", f"{how} after {self.iterations} iterations"),
        ]  # fmt: skip


@struct.dataclass
class _Expected:
    """rhat, Khat (dense), d_pair and available as arrays for the compiled expected update."""

    reward: Float[Array, "O A"]
    kernel: Float[Array, "OA O"]
    weight: Float[Array, "O A"]
    available: Any


def expected_update(
    analysis: Analysis,
    cls: FunctionClass,
    params: Params,
    *,
    step: float,
    iterations: int,
    optimiser: optax.GradientTransformation = PLAIN,
    tolerance: float = 1e-3,
) -> PopulationRun:
    """Population IC-Q from a batch of initial parameters (leaves [R, slots, ...]), in float64.

    theta_i <- theta_i + step * U( sum_x d(x|i) (That Q - Q)(x) grad Q_i(x) ): every agent moves by the mean of its own
    handoffs.  Plain SGD follows the same flow as the learner in its own time.  `tolerance` is
    relative to ||Qbar||_d.
    """
    step, iterations = real("step", step, low=0.0), count("iterations", iterations)
    agent = np.asarray(analysis.smdp.agent)
    share = np.bincount(agent, weights=analysis.d_obs, minlength=int(agent.max()) + 1)[agent]
    with jax.enable_x64(True):
        wide = partial(jax.tree.map, _widen)
        expected = _Expected(
            jnp.asarray(analysis.interface.reward), jnp.asarray(analysis.interface.kernel.toarray()),
            jnp.asarray(analysis.d_pair / share[:, None]), jnp.asarray(analysis.interface.available),
        )  # fmt: skip
        marks = np.array([iterations - max(iterations // 10, 1), iterations])
        tables, residual = _run_expected(expected, wide(cls), wide(params), optimiser, jnp.float64(step), marks)
        tables, residual = np.asarray(tables), np.asarray(residual)
    drift = np.array([analysis.norm_d(table) for table in tables[:, 1] - tables[:, 0]])
    moved = np.array([analysis.norm_d(table) for table in residual])
    scale = analysis.norm_d(analysis.q_bar)
    still = np.maximum(drift, moved) <= tolerance * scale
    return PopulationRun(tables[:, 1], moved, drift, iterations, bool(still.all()))


def _widen(leaf: Any) -> Any:
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


@partial(jax.jit, static_argnames=("transform",))
def _run_expected(
    expected: _Expected, cls: FunctionClass, params: Params, transform: Any, step: Float[Array, ""], marks: Any
) -> tuple[Float[Array, "R 2 O A"], Float[Array, "R O A"]]:
    """Q at the two marks and the velocity of Q at the end, per run."""

    def bellman_error(q: Float[Array, "O A"]) -> Float[Array, "O A"]:
        v = jnp.max(jnp.where(expected.available, q, -jnp.inf), axis=1)
        return expected.reward + jnp.reshape(expected.kernel @ v, q.shape) - q

    def direction(p: Params) -> Params:
        q, pull_back = jax.vjp(partial(q_table, cls), p)
        return pull_back(expected.weight * bellman_error(q))[0]

    def one(p: Params) -> tuple[Float[Array, "2 O A"], Float[Array, "O A"]]:
        def body(_: Any, carry: Any) -> Any:
            p, state = carry
            with jax.numpy_dtype_promotion("standard"):  # Optax's counters rely on implicit promotion
                move, state = transform.update(direction(p), state, p)
            return jax.tree.map(lambda a, b: a + step * b, p, move), state

        carry = (p, transform.init(p))
        carry = jax.lax.fori_loop(0, marks[0], body, carry)
        before = q_table(cls, carry[0])
        p_end, _ = jax.lax.fori_loop(marks[0], marks[1], body, carry)
        after, velocity = jax.jvp(partial(q_table, cls), (p_end,), (direction(p_end),))
        return jnp.stack([before, after]), velocity

    return jax.vmap(one)(params)
