"""Function-approximation error: how far the fixed point Q_F of Pi That is from Qbar, or from any table at hand.

Letters are those of docs/theory.md section 4: F a closed convex class, Pi its d-projection, P the projection onto its
directions, kappa_F <= kappa the modulus of P That in ||.||_d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bounds.approximation.certificate import SECTION, residual, table
from bounds.approximation.classes import ConvexClass, LinearClass
from bounds.approximation.sector_angle import Distance, fits, sector_distance
from bounds.core.bound import Assumption, Bound, Certificate, below, conditional
from bounds.interface.gap import contracts, rounding, value_range
from icq.coerce import Numbers
from icq.display import Fact, Shown, spread
from icq.exact import Analysis
from icq.exact.projected import LIMIT, Convex, Projected, fixed_point, search
from icq.reason import NoNumber, Reason

NEWTON_LIMIT = 1500  # dimension of a class up to which a policy is evaluated by a dense solve


@dataclass(frozen=True)
class ClassSolution(Shown):
    """Q_F with its certificate: `error` bounds ||q - Q_F||_d, rounding included, converged or not."""

    q: Float[np.ndarray, "O A"]
    error: float
    iterations: int
    converged: bool

    def _facts_(self) -> list[Fact]:
        how = "converged" if self.converged else "did not converge"
        return [Fact("observations", len(self.q)), Fact("options", self.q.shape[1]),
                Fact("values", spread(self.q), "reward"), Fact("error at most", self.error),
                Fact("", f"{how} after {self.iterations} iterations")]  # fmt: skip


def trivial_error(a: Analysis) -> float:
    """Distance of two tables inside the range of interface values.

    Q_F may leave that range, but clipping it cannot, so a bound on its error says nothing unless it is below.
    """
    low, high = value_range(a.interface)
    return high - low


def class_fixed_point(members: ConvexClass, *, tolerance: float = 1e-11, max_iterations: int = LIMIT) -> ClassSolution:
    """Q_F = Pi That Q_F, unique because kappa_F < 1 or by its sector; see `icq.exact.projected`.

    The certificate is that of the theorem of `projected_certificate`, or ||Q - Q_F||_d <= kappa_F ||Q - Q_before||_d/(1
    - kappa_F) for Q = Pi That Q_before; neither depends on the way.  `tolerance` is relative to the range of values.
    Raises NoNumber where neither is there, or the search ends without a fixed point.
    """
    a, kappa = members.analysis, members.modulus
    problem: Projected = Convex(a.interface, a.d_pair, members.project)
    if isinstance(members, LinearClass) and members.rank <= NEWTON_LIMIT:
        problem = members.affine
    if kappa >= 1:
        return _by_sector(members, problem, tolerance, max_iterations)
    goal = tolerance * trivial_error(a) * (1 - kappa)

    def enough(point: Float[np.ndarray, "*point"], residual: float) -> bool:
        noise = _projected_rounding(a, problem.table(point))
        return kappa * residual + noise <= max(goal, 2 * noise)

    found = search(problem, enough, limit=max_iterations)
    before = problem.table(found.point)
    after = members.project(a.interface.bellman(before))
    error = (kappa * a.norm_d(after - before) + _projected_rounding(a, after)) / (1 - kappa)
    return ClassSolution(after, error, found.iterations, found.converged)


def _by_sector(members: ConvexClass, problem: Projected, tolerance: float, limit: int) -> ClassSolution:
    a = members.analysis
    known = _sector(members, a.q_bar)
    if known is None:
        need = f"kappa_F = {members.modulus:.6g} is not below 1, so it is not certified to exist"
        raise NoNumber(Reason.NO_FIXED_POINT, need=need)
    goal = tolerance * trivial_error(a) / known.growth
    found = fixed_point(problem, lambda _, residual: residual <= goal, limit=limit)
    after = problem.table(found.point)
    error = projected_certificate(members, after)
    return ClassSolution(after, error.value + error.roundoff, found.iterations, found.converged)


def _sector(members: ConvexClass, q: Float[np.ndarray, "O A"]) -> Distance | None:
    return sector_distance(members, q) if isinstance(members, LinearClass) else None


def _residual_d(members: ConvexClass, q: Float[np.ndarray, "O A"]) -> float:
    a = members.analysis
    return a.norm_d(q - members.project(a.interface.bellman(q)))


def _projected_rounding(a: Analysis, q: Float[np.ndarray, "O A"]) -> float:
    """Rounding in ||.||_d of one application of Pi That: a projected entry sums over at most q.size others."""
    return rounding(a.interface, q, q) * (1 + q.size)


def solve_radius(kappa: float, epsilon: float, eta: float) -> float:
    """The largest L >= 0 with L^2 <= epsilon^2 + (eta + kappa L)^2."""
    return (kappa * eta + (eta**2 + (1 - kappa**2) * epsilon**2) ** 0.5) / (1 - kappa**2)


def projected_certificate(members: ConvexClass, q: Numbers) -> Certificate:
    """Theorem: any table Q has ||Q - Q_F||_d <= L, the smallest of three, if kappa_F < 1 or the class has a sector.

    Contraction: L = ||Q - Pi That Q||_d/(1 - kappa_F), for kappa_F < 1.
    Right angle: the L of `solve_radius` with epsilon = ||Q - Pi Q||_d and eta = ||P(Q - That Q)||_d, likewise.
    The second is never the larger one for a linear class; with epsilon = 0 there they are equal.
    Sector: that of `bounds.approximation.sector_angle`, for a linear class.
    """
    a, kappa = members.analysis, members.modulus
    q = table(a, q)
    change = residual(a, q)
    epsilon, eta = a.norm_d(q - members.project(q)), a.norm_d(members.along(change))
    size, sector = _residual_d(members, q), _sector(members, q)
    known = [] if sector is None else [sector]
    if kappa < 1:
        angle = solve_radius(kappa, epsilon, eta)
        known.append(Distance(min(size / (1 - kappa), angle), 1 / (1 - kappa)))
    best = min(known, default=Distance(math.nan, 0.0))

    def compute() -> tuple[float, dict[str, float]]:
        return best.value, {"residual": size, "epsilon": epsilon, "eta": eta, "kappa_f": kappa}

    assumption = contracts("kappa_F", kappa) if kappa < 1 or sector is None else _has_form(sector)
    roundoff = 2 * _projected_rounding(a, q) * best.growth
    return Certificate.of(
        conditional("projected certificate", [assumption], compute, SECTION, trivial_error(a), roundoff=roundoff)
    )


def _has_form(sector: Distance | None) -> Assumption:
    """A positive definite form of the class in its sector; the margin is one over its growth."""
    detail = "no form of the class in its sector is positive definite" if sector is None else "in its sector"
    return below("drift", 0.0 if sector is None else -1 / sector.growth, 0.0, detail)


def class_error_sector(members: LinearClass) -> Bound:
    """Theorem (sector angle) at Q = Qbar: ||Q_F - Qbar||_d <= L, whatever kappa_F, if the class has a form."""
    a, found = members.analysis, sector_distance(members, members.analysis.q_bar)
    small, best = fits(members), found or Distance(math.nan, 0.0)
    noise = a.interface_solution.error + 2 * _projected_rounding(a, a.q_bar)
    return conditional(
        "class error, sector", [_has_form(found) if small.holds else small],
        lambda: (best.value, {"growth": best.growth}), SECTION, trivial_error(a), roundoff=noise * best.growth,
    )  # fmt: skip


def class_error_bound(members: ConvexClass) -> Bound:
    """Theorem: ||Q_F - Qbar||_d <= ||Pi Qbar - Qbar||_d/sqrt(1 - kappa_F^2) if kappa_F < 1, F closed and convex.

    The right angle of `projected_certificate` at Q = Qbar, where eta = 0.  For subspaces it is Pythagoras; for convex
    sets it replaces the usual 1/(1 - kappa).
    """
    a, kappa = members.analysis, members.modulus
    distance = a.norm_d(a.q_bar - members.project(a.q_bar))

    def compute() -> tuple[float, dict[str, float]]:
        return distance / (1 - kappa**2) ** 0.5, {"distance": distance, "kappa_f": kappa}

    noise = a.interface_solution.error + 2 * _projected_rounding(a, a.q_bar)
    roundoff = noise / (1 - kappa) if kappa < 1 else 0.0
    assumption = contracts("kappa_F", kappa)
    bound = conditional("class error", [assumption], compute, SECTION, trivial_error(a), roundoff=roundoff)
    return replace(bound, formula=r"\frac{\lVert\Pi\bar Q-\bar Q\rVert_d}{\sqrt{1 - \kappa_F^{2}}}")
