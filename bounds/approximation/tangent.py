"""Neural tangent classes, and what a network of finite width adds to their bound.

f(theta, o) is any differentiable function of one block of parameters; theta_slot(o) answers observation o.  The tangent
class at theta_0 is F = {f(theta_0) + Psi (theta - theta_0)}, Psi the Jacobian, block per slot (docs/theory.md section
4).  Nothing here knows a network library: f is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from bounds.approximation.certificate import SECTION, residual
from bounds.approximation.class_error import class_error_bound, projected_certificate, solve_radius
from bounds.approximation.classes import LinearClass, linear_class
from bounds.core.bound import Bound, conditional
from bounds.interface.gap import contracts
from icq.display import Shown
from icq.exact import Analysis

Apply = Callable[[Any, Any], Any]  # (block of parameters, observation index) -> values [A] of its options
Slots = Int[np.ndarray, "O"]


@dataclass(frozen=True)
class Linearisation(Shown):
    """f and its Jacobian at one point, float64: values [O, A], features [O, A, p], flat parameters [slots, p]."""

    values: Float[np.ndarray, "O A"]
    features: Float[np.ndarray, "O A p"]
    parameters: Float[np.ndarray, "slots p"]

    def at(self, parameters: Float[np.ndarray, "slots p"], slot: Slots) -> Float[np.ndarray, "O A"]:
        """The linear model there: values + features (parameters - own parameters)."""
        return self.values + np.einsum("oap,op->oa", self.features, (parameters - self.parameters)[slot])


def flat_parameters(params: Any) -> Float[np.ndarray, "slots p"]:
    """Parameters whose leaves have a leading slot axis, one row per slot."""
    return np.asarray(jax.vmap(lambda block: ravel_pytree(block)[0])(params), np.float64)


def network_values(apply: Apply, params: Any, slot: Slots) -> Float[np.ndarray, "O A"]:
    """f(theta_slot(o), o) for every observation."""
    blocks = jax.tree.map(lambda leaf: jnp.asarray(leaf)[slot], params)
    return np.asarray(jax.vmap(apply)(blocks, jnp.arange(len(slot), dtype=jnp.int32)), np.float64)


def linearise(apply: Apply, params: Any, slot: Slots) -> Linearisation:
    """Values and Jacobian of f at `params` (leaves with a leading slot axis), each observation by its own slot."""
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], params))
    flat = jax.vmap(lambda block: ravel_pytree(block)[0])(params)

    def jacobian(row: Any, observation: Any) -> Any:
        return jax.jacrev(lambda theta: apply(unravel(theta), observation))(row)

    features = jax.vmap(jacobian)(flat[slot], jnp.arange(len(slot), dtype=jnp.int32))
    return Linearisation(
        network_values(apply, params, slot), np.asarray(features, np.float64), np.asarray(flat, np.float64)
    )


def tangent_class(a: Analysis, start: Linearisation, slot: Slots) -> LinearClass:
    """The tangent class at the linearisation point, its directions block per slot."""
    return linear_class(a, start.features, start.values, slot)


def largest_linearisation_error(
    a: Analysis, apply: Apply, start: Linearisation, iterates: Iterable[Any], slot: Slots
) -> float:
    """max |f - f_0| over the given parameters and all available (o,a), f_0 the linear model at the start."""
    drift = 0.0
    for params in iterates:
        difference = network_values(apply, params, slot) - start.at(flat_parameters(params), slot)
        drift = max(drift, float(np.abs(difference[a.interface.available]).max()))
    return drift


@dataclass(frozen=True)
class Perturbation(Shown):
    """What keeps a network at `params` from being the fixed point Q_F of its tangent class; d-norms of tables.

    linearisation: ||f - f_0||_d, f_0 the linear model at the same parameters.  stationarity and semi_gradient: with
    g = J'D(That Q - Q) the expected update of the network (J its Jacobian at `params`) and g_0 = Psi'D(That Q - Q)
    what the tangent class would make of it, the sizes ||Psi (Psi'D Psi)^+ .||_d of g and of g_0 - g as moves of Q.
    """

    q: Float[np.ndarray, "O A"]
    linearisation: float
    stationarity: float
    semi_gradient: float


def perturbation(a: Analysis, apply: Apply, start: Linearisation, params: Any, slot: Slots) -> Perturbation:
    """Measure the three perturbations of a network at `params`."""
    here = linearise(apply, params, slot)
    available = a.interface.available
    q = np.where(available, here.values, 0.0)
    weighted = (a.d_pair * residual(a, q))[..., None]
    difference = np.where(available, q - start.at(here.parameters, slot), 0.0)
    own, shift = here.features * weighted, (start.features - here.features) * weighted
    return Perturbation(q, a.norm_d(difference), _move(a, start, own, slot), _move(a, start, shift, slot))


def _move(a: Analysis, start: Linearisation, update: Float[np.ndarray, "O A p"], slot: Slots) -> float:
    """||Psi (Psi'D Psi)^+ g||_d for g = the sum of `update` over the pairs of each slot."""
    total = 0.0
    pairs = np.argwhere(a.interface.available)
    for i in np.unique(slot):
        o, option = pairs[slot[pairs[:, 0]] == i].T
        psi = np.sqrt(a.d_pair[o, option])[:, None] * start.features[o, option]
        _, size, right = np.linalg.svd(psi, full_matrices=False)
        keep = size > size.max(initial=0.0) * max(psi.shape) * np.finfo(float).eps
        total += float((((right[keep] @ update[o, option].sum(axis=0)) / size[keep]) ** 2).sum())
    return total**0.5


def network_class_bound(members: LinearClass, p: Perturbation) -> Bound:
    """Lemma: ||Q_theta - Q_F||_d <= L with L^2 = linearisation^2 + (stationarity + semi_gradient + kappa_F L)^2.

    Q_theta the network, Q_F the fixed point of its tangent class `members`, kappa_F < 1.  All three are 0 for a linear
    model at its fixed point; `projected_certificate` of Q_theta is the same statement without the split and is never
    larger.
    """
    kappa = members.modulus
    certificate = projected_certificate(members, p.q)

    def compute() -> tuple[float, dict[str, float]]:
        value = solve_radius(kappa, p.linearisation, p.stationarity + p.semi_gradient)
        return value, _parts(p)

    return conditional(
        "network against its tangent class", [contracts("kappa_F", kappa)], compute, SECTION, certificate.trivial,
        roundoff=certificate.roundoff,
    )  # fmt: skip


def network_error_bound(members: LinearClass, p: Perturbation) -> Bound:
    """Theorem: ||Q_theta - Qbar||_d <= ||Pi Qbar - Qbar||_d/sqrt(1 - kappa_F^2) + L, L of `network_class_bound`."""
    ideal, finite = class_error_bound(members), network_class_bound(members, p)

    def compute() -> tuple[float, dict[str, float]]:
        return ideal.value + finite.value, {"class_error": ideal.value, "network": finite.value, **_parts(p)}

    return conditional(
        "network error", ideal.assumptions, compute, SECTION, ideal.trivial, roundoff=ideal.roundoff + finite.roundoff
    )


def _parts(p: Perturbation) -> dict[str, float]:
    return {"linearisation": p.linearisation, "stationarity": p.stationarity, "semi_gradient": p.semi_gradient}
