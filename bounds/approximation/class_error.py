"""Function-approximation error: how far the fixed point Q_F of Pi That is from Qbar, or from any table at hand.

Letters are those of docs/theory.md section 4: F a closed convex class, Pi its d-projection, P the projection onto its
directions, kappa_F <= kappa the modulus of P That in ||.||_d.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bounds.approximation.certificate import SECTION, residual, table
from bounds.approximation.classes import ConvexClass, LinearClass
from bounds.core.bound import Bound, Certificate, conditional
from bounds.interface.gap import contracts, rounding, value_range
from icq.coerce import Numbers
from icq.display import Fact, Shown, spread
from icq.exact import Analysis
from icq.exact.projected import LIMIT, Convex, Projected, search
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
    """Q_F = Pi That Q_F, unique because kappa_F < 1; see `icq.exact.projected`.

    The certificate ||Q - Q_F||_d <= kappa_F ||Q - Q_before||_d/(1 - kappa_F) for Q = Pi That Q_before does not depend
    on the way.  `tolerance` is relative to the range of values.  Raises NoNumber when kappa_F >= 1.
    """
    a, kappa = members.analysis, members.modulus
    if kappa >= 1:
        need = f"kappa_F = {kappa:.6g} is not below 1, so it is not certified to exist"
        raise NoNumber(Reason.NO_FIXED_POINT, need=need)
    problem: Projected = Convex(a.interface, a.d_pair, members.project)
    if isinstance(members, LinearClass) and members.rank <= NEWTON_LIMIT:
        problem = members.affine
    goal = tolerance * trivial_error(a) * (1 - kappa)

    def enough(point: Float[np.ndarray, "*point"], residual: float) -> bool:
        noise = _projected_rounding(a, problem.table(point))
        return kappa * residual + noise <= max(goal, 2 * noise)

    found = search(problem, enough, limit=max_iterations)
    before = problem.table(found.point)
    after = members.project(a.interface.bellman(before))
    error = (kappa * a.norm_d(after - before) + _projected_rounding(a, after)) / (1 - kappa)
    return ClassSolution(after, error, found.iterations, found.converged)


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
    """Theorem: any table Q has ||Q - Q_F||_d <= L, the smaller of two solutions, if kappa_F < 1.

    Contraction: L = ||Q - Pi That Q||_d/(1 - kappa_F).
    Right angle: the L of `solve_radius` with epsilon = ||Q - Pi Q||_d and eta = ||P(Q - That Q)||_d.
    The second is never the larger one for a linear class; with epsilon = 0 there they are equal.
    """
    a, kappa = members.analysis, members.modulus
    q = table(a, q)
    change = residual(a, q)
    epsilon, eta = a.norm_d(q - members.project(q)), a.norm_d(members.along(change))
    size = _residual_d(members, q)

    def compute() -> tuple[float, dict[str, float]]:
        value = min(size / (1 - kappa), solve_radius(kappa, epsilon, eta))
        return value, {"residual": size, "epsilon": epsilon, "eta": eta, "kappa_f": kappa}

    roundoff = 2 * _projected_rounding(a, q) / (1 - kappa) if kappa < 1 else 0.0
    assumptions = [contracts("kappa_F", kappa)]
    return Certificate.of(
        conditional("projected certificate", assumptions, compute, SECTION, trivial_error(a), roundoff=roundoff)
    )


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
