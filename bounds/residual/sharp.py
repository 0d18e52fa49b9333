"""Sharp mixing residual: asymptotically exact variances, not bounds (docs/theory.md section 5a).

J = Psi'D(I - Khat Sel)Psi is minus the derivative of the mean update at theta* when every greedy option of Q_F is
unique.  Averaged iterates obey a central limit theorem with covariance J^{-1}(Sigma_0 + Sigma_mix)J^{-T} whatever the
preconditioner; constant steps leave the covariance alpha C with Jt C + C Jt' = St.  Letters:
bounds.residual.population.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg as la
from jaxtyping import Float

from bounds.core.bound import Assumption, below
from bounds.residual.population import Population
from icq.display import Fact, Shown

SECTION = "docs/theory.md section 5a"


@dataclass(frozen=True)
class Sharp(Shown):
    """An asymptotic squared error per unit (1/T for averages, alpha for constant steps), in the d-norm.

    value = iid + markov is that of the trajectory, iid that of the i.i.d. control (the same J, Sigma_0 only), markov
    what correlation along the trajectory adds (of either sign).  covariance [p, p] belongs to `value`, in theta.
    NaN when an assumption fails.
    """

    value: float
    iid: float
    markov: float
    covariance: Float[np.ndarray, "p p"]
    assumptions: tuple[Assumption, ...]
    reference: str = SECTION

    @property
    def applicable(self) -> bool:
        """Whether every assumption holds."""
        return all(a.holds for a in self.assumptions)

    def _facts_(self) -> list[Fact]:
        return [
            Fact("squared error per unit", self.value), Fact("i.i.d. part", self.iid),
            Fact("by correlation", self.markov), Fact("parameters", len(self.covariance)),
            *(Fact("", f"inapplicable: {a}") for a in self.assumptions if not a.holds), Fact("", self.reference),
        ]  # fmt: skip


def greedy_margins(pop: Population) -> tuple[Float[np.ndarray, "r"], Float[np.ndarray, "r p"]]:
    """Q_F(o, greedy) - Q_F(o, a) for every other available option, and the feature differences behind it."""
    a = pop.analysis
    options = a.d_pair.shape[1]
    best = np.repeat(pop.greedy, options)
    rival = np.arange(len(pop.d))
    keep = a.interface.available.reshape(-1) & (rival != best)
    table = pop.q_f.reshape(-1)
    return (table[best] - table[rival])[keep], (pop.psi[best] - pop.psi[rival])[keep]


def unique_greedy(pop: Population) -> Assumption:
    """Every greedy option of Q_F is unique; the margin is the action gap, in reward units."""
    gap, _ = greedy_margins(pop)
    least = float(gap.min()) if len(gap) else math.inf
    floor = 1e-9 * float(np.abs(pop.q_f).max())
    return below("unique greedy options", -least, -floor, f"smallest action gap {least:.3g}")


def action_gap(pop: Population, alpha: float, covariance: Float[np.ndarray, "p p"], spreads: float = 3.0) -> Assumption:
    """Action gaps are large against the iterates' spread: gap > spreads * sd of that difference, for every rival.

    alpha * covariance is the covariance of theta.  Margin: the smallest (gap / sd) - spreads, in standard deviations.
    """
    gap, feature = greedy_margins(pop)
    sd = np.sqrt(np.maximum(alpha * np.einsum("rp,pq,rq->r", feature, covariance, feature), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(sd > 0, gap / sd, np.where(gap > 0, np.inf, 0.0))
    least = float(ratio.min()) if len(ratio) else math.inf
    return below("action gap", -least, -spreads, f"smallest gap is {least:.3g} standard deviations of the iterates")


def stable(pop: Population) -> Assumption:
    """The mean update is a contraction near theta*: eigenvalues of M^{-1}J have positive real part."""
    values = la.eigvals(np.linalg.solve(pop.metric, pop.jacobian))
    return below("stable Jacobian", -float(values.real.min()), 0.0, "smallest real part of the spectrum of M^{-1} J")


def deviation_known(pop: Population) -> Assumption:
    """The deviation matrix of the chain is known: it mixes fast enough for its digits."""
    slow = pop.too_slow
    return Assumption("deviation matrix", slow is None, math.inf if slow is None else -math.inf, str(slow or "known"))


def _sharp(pop: Population, assumptions: tuple[Assumption, ...], iid: np.ndarray, markov: np.ndarray) -> Sharp:
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    alone, extra = float(np.sum(gram * iid)), float(np.sum(gram * markov))
    return Sharp(alone + extra, alone, extra, iid + markov, assumptions)


def _nothing(pop: Population, assumptions: tuple[Assumption, ...]) -> Sharp:
    p = len(pop.theta_star)
    return Sharp(math.nan, math.nan, math.nan, np.full((p, p), math.nan), assumptions)


def averaged_limit(pop: Population) -> Sharp:
    """Theorem (averaged limit): T E||Qavg - Q_F||_d^2 -> tr(Psi'D Psi J^{-1}(Sigma_0 + Sigma_mix)J^{-T}).

    For averages of the iterates with decreasing steps alpha_k ~ k^{-a}, 1/2 < a < 1, any preconditioner.  Assumes
    unique greedy options and a stable Jacobian.
    """
    assumptions = (unique_greedy(pop), stable(pop), deviation_known(pop))
    if not all(a.holds for a in assumptions):
        return _nothing(pop, assumptions)
    inverse = np.linalg.inv(pop.jacobian)
    return _sharp(pop, assumptions, *(inverse @ s @ inverse.T for s in (pop.sigma_0, pop.sigma_mix)))


def constant_step(pop: Population, alpha: float) -> Sharp:
    """Theorem (constant step): E||Q_T - Q_F||_d^2 = alpha tr(Psi'D Psi C) + o(alpha), Jt C + C Jt' = St.

    Jt = M^{-1}J and St = M^{-1}(Sigma_0 + Sigma_mix)M^{-T}; `value` is the coefficient of alpha.  Assumes unique greedy
    options, gaps of three standard deviations at this alpha, and a stable Jacobian.
    """
    assumptions = (unique_greedy(pop), stable(pop), deviation_known(pop))
    if not all(a.holds for a in assumptions):
        return _nothing(pop, assumptions)
    iid, markov = (stationary_covariance(pop, sigma) for sigma in (pop.sigma_0, pop.sigma_mix))
    out = _sharp(pop, (*assumptions, action_gap(pop, alpha, iid + markov)), iid, markov)
    return out if out.applicable else _nothing(pop, out.assumptions)


def stationary_covariance(pop: Population, sigma: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p p"]:
    """C with Jt C + C Jt' = M^{-1} sigma M^{-T}, by the Bartels-Stewart method."""
    jt = np.linalg.solve(pop.metric, pop.jacobian)
    scaled = np.linalg.solve(pop.metric, np.linalg.solve(pop.metric, sigma).T)
    return la.solve_continuous_lyapunov(jt, scaled)
