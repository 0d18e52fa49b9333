"""The lemmas of docs/theory.md section 4 under attack: certificates of tables, classes, networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bounds.adversary.interface import EPS, claim, features_of, on_least, random_table, worst
from bounds.adversary.search import Case, Lemma, Sample, reduced, scaled
from bounds.approximation import certificate, class_error, tangent
from bounds.approximation.classes import Ball, Box, ConvexClass, linear_class
from icq.exact import Analysis


def table_certificates(s: Sample) -> Iterator[Case]:
    """Sup, d-norm and pointwise certificate of a random table, and of Qbar shifted by a constant (tight)."""
    a = s.analysis
    for q in (random_table(a, s.rng("table")), np.where(a.interface.available, a.q_bar + 0.1, 0.0)):
        seen, error = q - a.q_bar, a.interface_solution.error
        yield Case(certificate.certificate_sup(a, q), a.norm_sup(seen), error)
        yield Case(certificate.certificate_d(a, q), a.norm_d(seen), error)
        bound, e = certificate.certificate_pointwise(a, q)
        yield Case(bound, a.norm_d(seen), error)
        yield worst(e, np.abs(seen), a.interface.available, bound.roundoff, error)


def moduli(s: Sample) -> Iterator[Case]:
    """ghat <= gbar; That is kappa-Lipschitz on a random pair, and exactly so on the worst pair."""
    a, rng = s.analysis, s.rng("moduli")
    yield Case(claim(a.gamma_bar, roundoff=8 * EPS * len(a.d)), certificate.interface_modulus(a))
    kappa = certificate.interface_contraction(a)
    for p, q in ((random_table(a, rng), random_table(a, rng)), certificate.worst_pair(a)):
        moved = a.norm_d(a.interface.bellman(p) - a.interface.bellman(q))
        yield Case(claim(kappa * a.norm_d(p - q)), moved, 1e-12 * (1 + a.norm_d(p) + a.norm_d(q)))


def random_class(a: Analysis, rng: np.random.Generator) -> ConvexClass:
    """A linear class of one to three features per agent, a ball in one, or a box."""
    offset = rng.normal(size=a.q_bar.shape) if rng.random() < 0.5 else None
    span = linear_class(a, rng.normal(size=(*a.q_bar.shape, int(rng.integers(1, 4)))), offset)
    kind = int(rng.integers(3))
    if kind == 0:
        return span
    if kind == 1:
        return Ball(span, float(rng.exponential(a.norm_d(a.q_bar) + 0.1)))
    values = a.q_bar[a.interface.available]
    low, high = np.sort(rng.uniform(values.min() - 0.2, values.max() + 0.2, size=2))
    return Box(a, float(low), float(high))


def projecting(members: ConvexClass) -> float:
    """Rounding of a projection whose offset may be far larger than the values."""
    zero = np.zeros_like(members.analysis.q_bar)
    offset = members.span.offset if isinstance(members, Ball) else getattr(members, "offset", zero)
    return 16 * EPS * offset.size * float(np.abs(offset).max())


def class_modulus(s: Sample) -> Iterator[Case]:
    """||P That Q - P That Q'||_d <= kappa_F ||Q - Q'||_d."""
    a, rng = s.analysis, s.rng("class modulus")
    members = random_class(a, rng)
    p = random_table(a, rng)
    least = np.where(a.interface.available, a.d_pair, np.inf).min(axis=1)
    far = p + on_least(a.d_pair, least, a.interface.available, rng)
    for q in (random_table(a, rng), far):
        moved = a.norm_d(members.along(a.interface.bellman(p) - a.interface.bellman(q)))
        yield Case(claim(members.modulus * a.norm_d(p - q)), moved, 1e-12 * (1 + a.norm_d(p) + a.norm_d(q)))


def class_errors(s: Sample) -> Iterator[Case]:
    """||Q_F - Qbar||_d of a random class."""
    a = s.analysis
    members = random_class(a, s.rng("class"))
    bound = class_error.class_error_bound(members)
    if not bound.applicable:
        yield Case(bound, math.nan)
        return
    found = class_error.class_fixed_point(members)
    yield Case(bound, a.norm_d(found.q - a.q_bar), found.error + a.interface_solution.error + projecting(members))


def fixed_points(s: Sample) -> Iterator[Case]:
    """The certified error of a class fixed point stopped early, against the converged one."""
    a = s.analysis
    members = random_class(a, s.rng("class"))
    if members.modulus < 1:
        full = class_error.class_fixed_point(members)
        short = class_error.class_fixed_point(members, max_iterations=int(s.rng("stop").integers(1, 4)))
        yield Case(claim(short.error), a.norm_d(short.q - full.q), full.error + projecting(members))


def projected(s: Sample) -> Iterator[Case]:
    """||Q - Q_F||_d of a random table, of a member, and of Qbar."""
    a, rng = s.analysis, s.rng("projected")
    members = random_class(a, s.rng("class"))
    if members.modulus >= 1:
        return
    found = class_error.class_fixed_point(members)
    q = random_table(a, rng)
    for table in (q, members.project(q), a.q_bar):
        seen = a.norm_d(table - found.q)
        yield Case(class_error.projected_certificate(members, table), seen, found.error + projecting(members))


def radius(s: Sample) -> Iterator[Case]:
    """No L' > L solves L'^2 <= epsilon^2 + (eta + kappa L')^2: the largest root by bisection."""
    rng = s.rng("radius")
    kappa, epsilon, eta = float(rng.uniform(0, 0.99)), *rng.exponential(size=2)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        inside = middle**2 <= epsilon**2 + (eta + kappa * middle) ** 2
        low, high = (middle, high) if inside else (low, middle)
    yield Case(claim(class_error.solve_radius(kappa, epsilon, eta)), low, 1e-9 * (1 + low))


def network_bounds(s: Sample) -> Iterator[Case]:
    """A small tanh network moved away from its linearisation, against the fixed point of its tangent class and Qbar."""
    a, rng = s.analysis, s.rng("network")
    slot = np.asarray(a.smdp.agent)
    inputs, width, agents = features_of(a), int(rng.integers(1, 4)), a.smdp.num_agents
    first = {"w": rng.normal(size=(agents, 3, width)), "v": rng.normal(size=(agents, width, a.q_bar.shape[1]))}
    moved = {name: leaf + 10 ** rng.uniform(-3, 0) * rng.normal(size=leaf.shape) for name, leaf in first.items()}

    def apply(block: dict[str, Any], o: Any) -> Any:
        return jnp.tanh(jnp.asarray(inputs)[o] @ block["w"]) @ block["v"]

    with jax.enable_x64(True):
        here = tangent.linearise(apply, first, slot)
        members = tangent.tangent_class(a, here, slot)
        p = tangent.perturbation(a, apply, here, moved, slot)
    bound = tangent.network_class_bound(members, p)
    if not bound.applicable:
        yield Case(bound, math.nan)
        return
    found = class_error.class_fixed_point(members)
    yield Case(bound, a.norm_d(p.q - found.q), found.error)
    yield Case(tangent.network_error_bound(members, p), a.norm_d(p.q - a.q_bar), a.interface_solution.error)


TWO = (scaled(0.5), "factor .5")
TENTH = (scaled(0.9), "factor .9")
HUNDREDTH = (scaled(0.99), "factor .99")

LEMMAS = (
    Lemma("moduli", moduli, *HUNDREDTH),
    Lemma("certificates", table_certificates, *TENTH),
    Lemma("class modulus", class_modulus, *TENTH),
    Lemma("class fixed point", fixed_points, *TWO),
    Lemma("class error", class_errors, reduced(lambda t: t["distance"]), "best approximation"),
    Lemma("projected certificate", projected, *TENTH),
    Lemma("network", network_bounds, reduced(lambda t: t["linearisation"]), "linearisation only", stride=50),
    Lemma("solve radius", radius, *HUNDREDTH),
)
