"""The population fixed point Q_F of a function class: where IC-Q would stop with exact expectations.

Two routes.  A linear class: Q_F solves Q = Pi That Q with Pi the d-projection, a kappa-contraction in ||.||_d, so the
iteration certifies itself.  Any class: the expected IC-Q update, run from the learner's own initial parameters until
it stands still; its residual is part of the answer.  Notation: docs/theory.md section 4.
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

from icq.exact import Analysis
from icq.learner import PLAIN
from icq.networks import FunctionClass, Linear, Params, Tabular, q_table


@dataclass(frozen=True)
class Reference:
    """A population fixed point q [..., O, A], float64.

    residual [...]: for a linear class a certified bound on ||q - Q_F||_d; for a network the d-norm of the expected
    update of Q per unit step, which is 0 at a fixed point.  drift [...]: d-norm moved in the last tenth of the
    iterations (0 for exact solutions).  converged: residual (linear) or drift (network) is within tolerance.
    """

    q: Float[np.ndarray, "*batch O A"]
    residual: Float[np.ndarray, "*batch"]
    drift: Float[np.ndarray, "*batch"]
    iterations: int
    converged: bool


def projection(
    analysis: Analysis, features: Float[np.ndarray, "O A p"], table: Float[np.ndarray, "O A"]
) -> Float[np.ndarray, "O A"]:
    """Pi Q: the d-nearest table in the span of the features, each agent's block on its own.

    Unavailable options carry no weight and come back as the class's values there.
    """
    out = np.zeros_like(table)
    agent = np.asarray(analysis.smdp.agent)
    for i in np.unique(agent):
        rows = agent == i
        weight = np.sqrt(analysis.d_pair[rows]).reshape(-1)
        psi = features[rows].reshape(weight.size, -1)
        theta = np.linalg.lstsq(weight[:, None] * psi, weight * table[rows].reshape(-1), rcond=None)[0]
        out[rows] = (psi @ theta).reshape(out[rows].shape)
    return out


def projected_fixed_point(
    analysis: Analysis,
    features: Float[np.ndarray, "O A p"],
    offset: Float[np.ndarray, "O A"] | None = None,
    *,
    tolerance: float = 1e-12,
    max_iterations: int = 20_000,
) -> Reference:
    """Q_F = Pi That Q_F for the affine class offset + Psi theta, one block per agent.

    Certificate ||Q - Q_F||_d <= kappa/(1-kappa) ||last change||_d when kappa < 1; with kappa >= 1 there is none: the
    residual is infinite and `converged` False, whatever the iteration did.
    """
    base = np.zeros_like(analysis.q_bar) if offset is None else np.asarray(offset, np.float64)
    psi = np.asarray(features, np.float64)
    kappa = analysis.kappa
    factor = kappa / (1 - kappa) if kappa < 1 else np.inf
    scale = max(analysis.norm_d(analysis.q_bar), 1e-300)
    q, change, iterations = base, np.inf, 0
    while change > tolerance * scale * (1 - min(kappa, 0.999999)) and iterations < max_iterations:
        after = base + projection(analysis, psi, analysis.interface.bellman(q) - base)
        change = analysis.norm_d(after - q)
        q, iterations = after, iterations + 1
    error = factor * change if np.isfinite(factor) else np.inf
    return Reference(q, np.array(error), np.zeros(()), iterations, bool(error <= 10 * tolerance * scale))


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
    tolerance: float = 1e-4,
) -> Reference:
    """Population IC-Q from a batch of initial parameters (leaves [R, slots, ...]), in float64.

    theta_i <- theta_i + step * U( sum_x d(x|i) (That Q - Q)(x) grad Q_i(x) ): every agent moves by the mean of its own
    handoffs.  Plain SGD follows the same flow as the learner in its own time.  `tolerance` is
    relative to ||Qbar||_d.
    """
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
    weight = analysis.d_pair
    drift = np.sqrt((weight * (tables[:, 1] - tables[:, 0]) ** 2).sum((-2, -1)))
    moved = np.sqrt((weight * residual**2).sum((-2, -1)))
    scale = analysis.norm_d(analysis.q_bar)
    return Reference(tables[:, 1], moved, drift, iterations, bool((drift <= tolerance * scale).all()))


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
            move, state = transform.update(direction(p), state, p)
            return jax.tree.map(lambda a, b: a + step * b, p, move), state

        carry = (p, transform.init(p))
        carry = jax.lax.fori_loop(0, marks[0], body, carry)
        before = q_table(cls, carry[0])
        p_end, _ = jax.lax.fori_loop(marks[0], marks[1], body, carry)
        after, velocity = jax.jvp(partial(q_table, cls), (p_end,), (direction(p_end),))
        return jnp.stack([before, after]), velocity

    return jax.vmap(one)(params)


def reference(analysis: Analysis, cls: FunctionClass, params: Params | None = None, **options: Any) -> Reference:
    """Q_F by the best route the class allows: exact for tables, certified for linear classes, expected updates else.

    params (networks only): a batch of initial parameters; options go to `expected_update`.
    """
    if isinstance(cls, Tabular):
        error = analysis.interface_solution.error
        return Reference(analysis.q_bar, np.array(error), np.zeros(()), 0, analysis.interface_solution.converged)
    if isinstance(cls, Linear):
        return projected_fixed_point(analysis, np.asarray(cls.features), np.asarray(cls.offset))
    if params is None:
        raise ValueError("params: a network's fixed point depends on where it starts; give the initial parameters")
    return expected_update(analysis, cls, params, **options)
