"""The Poisson certificate: finite-time bounds on the mixing residual for any start, every constant from the instance.

docs/theory.md section 5b.  The update's Markov noise is removed by the Poisson solution nu of the handoff chain,
once (tier 1) or twice (tier 2), which leaves an inequality of the shape of bounds.residual.recursion.  Letters
there and in bounds.residual.population and bounds.residual.constants.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.curve import Curve, curve
from bounds.core.steps import Steps, schedule
from bounds.residual.constants import Constants, constants
from bounds.residual.population import Population
from bounds.residual.recursion import ZERO, Lyapunov, Quadratic, average, iterate, product
from bounds.residual.weights import Weight, has_drift

SECTION = "docs/theory.md section 5b"


def tier_1_inequality(k: Constants) -> Lyapunov:
    """Lemma (tier_1_inequality): W = V + 2 alpha E<nu(theta, s), Delta> satisfies the recursion with these data.

    G2 = (sigma + c x)^2 + 2 (sigma + c x)(2 L x + nu*),  G3 = 2 L (sigma + c x)^2,  S1 = 2 (nu* x + L x^2).
    """
    update = (k.sigma, k.c)
    square = product(update, update)
    return Lyapunov(
        mu=k.mu,
        gain_2=square.plus(product(update, (k.nu_star, 2 * k.lipschitz)), 2.0),
        gain_3=ZERO.plus(square, 2 * k.lipschitz),
        gain_4=ZERO,
        slack_1=Quadratic(0.0, 2 * k.nu_star, 2 * k.lipschitz),
        slack_2=ZERO,
        growth=update,
    )


def tier_2_inequality(k: Constants) -> Lyapunov:
    """Lemma (tier_2_inequality): tier 1's W plus alpha^2 E Omega satisfies the recursion with these data.

    G2 = Sc + lam_1 x + lam_2 x^2,  G3 = 2 (s_l + c_l x)^2 + (sigma + c x)(a_0 + 2 a_1 x),  G4 = a_1 (sigma + c x)^2,
    S1 = 2 (nu* x + L x^2),  S2 = omega + a_0 x + a_1 x^2.
    """
    update, kick = (k.sigma, k.c), (k.kick, k.kick_c)
    return Lyapunov(
        mu=k.mu,
        gain_2=Quadratic(k.noise, k.lam_1, k.lam_2),
        gain_3=product(update, (k.a_0, 2 * k.a_1)).plus(product(kick, kick), 2.0),
        gain_4=ZERO.plus(product(update, update), k.a_1),
        slack_1=Quadratic(0.0, 2 * k.nu_star, 2 * k.lipschitz),
        slack_2=Quadratic(k.omega, k.a_0, k.a_1),
        growth=update,
    )


def _conditions(
    pop: Population, k: Constants, inequality: Lyapunov, steps: Steps, last: int, weight: Weight | None
) -> tuple[Assumption, ...]:
    """A drift, the fixed point reached, and the two step conditions at the largest step of the run."""
    largest = float(schedule(steps, 1 if isinstance(steps, float) else last + 2).max())
    scale = pop.analysis.norm_d(pop.q_f) or 1.0
    solved = below("fixed point", pop.residual, 1e-9 * scale, f"||Q_F - Pi That Q_F||_d = {pop.residual:.2g}")
    return (has_drift(k.rate), solved, *inequality.conditions(largest))


def _start(pop: Population, theta_0: Float[np.ndarray, "p"], weight: Weight | None) -> float:
    """(theta_0 - theta*)'W(theta_0 - theta*)."""
    error = theta_0 - pop.theta_star
    return float(error @ (pop.metric if weight is None else weight.matrix) @ error)


def _terms(k: Constants, steps: Steps) -> dict[str, float]:
    """The constants, and for a constant step the leading orders of the stationary bounds.

    leading = chi sqrt(alpha Sc / (2 mu)) of the last iterate, leading_average = sqrt(alpha Sc / (2 rate)).
    """
    terms = dict(asdict(k))
    if isinstance(steps, float) and k.mu > 0:
        terms["leading"] = k.chi * math.sqrt(max(steps * k.noise, 0.0) / (2 * k.mu))
        terms["leading_average"] = math.sqrt(max(steps * k.noise, 0.0) / (2 * k.rate))
    return terms


def _last_iterate(
    name: str, pop: Population, k: Constants, inequality: Lyapunov, steps: Steps, theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"], weight: Weight | None, cap: float = math.inf,
) -> Curve:  # fmt: skip
    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        v = iterate(inequality, steps, _start(pop, theta_0, weight), times, cap=cap)
        return k.chi * np.sqrt(v), _terms(k, steps)

    assumptions = _conditions(pop, k, inequality, steps, int(times[-1]), weight)
    return curve(name, times, assumptions, compute, SECTION, pop.range_cap)


def tier_1(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    cap: float = math.inf,
) -> Curve:
    """Theorem (tier 1): bounds on (E||Q_T - Q_F||_d^2)^{1/2} at `times`, for any law of s_0.

    Assumes a drift of the preconditioner, 2 alpha L < 1 and 2 alpha mu <= 1.  cap: a bound on ||Delta|| that holds on
    every path, for a learner with M-nonexpansive projections onto sets that hold theta*; the theorem covers it.
    """
    k = constants(pop)
    return _last_iterate("Poisson, first order", pop, k, tier_1_inequality(k), steps, theta_0, times, None, cap)


def tier_2(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    weight: Weight | None = None,
) -> Curve:
    """Theorem (tier 2): as tier 1, with stationary averages at order alpha^2 and explicit remainders; no projection.

    Assumes a drift, 2 alpha L + alpha^2 a_1 < 1 and 2 alpha mu <= 1.
    """
    k = constants(pop, weight=weight)
    return _last_iterate("Poisson, second order", pop, k, tier_2_inequality(k), steps, theta_0, times, weight)


def iid_control(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    weight: Weight | None = None,
) -> Curve:
    """Theorem (iid control): the bound when every handoff is drawn afresh from d x beta x P; nu = 0, so W = V."""
    k = constants(pop, iid=True, weight=weight)
    return _last_iterate("independent draws", pop, k, tier_2_inequality(k), steps, theta_0, times, weight)


def averaged(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    burn_in: int = 0,
    iid: bool = False,
    weight: Weight | None = None,
) -> Curve:
    """Theorem (averaged): bounds on (sum alpha_k E||Q_k - Q_F||_d^2 / sum alpha_k)^{1/2} over burn_in <= k < T.

    By convexity also on (E||Qavg - Q_F||_d^2)^{1/2} of the step-weighted average Qavg.  Any preconditioner and any
    weight with a positive rate: neither a smallest eigenvalue nor a radius enters the drift.  Assumptions of tier 2.
    """
    k = constants(pop, iid=iid, weight=weight)
    inequality = tier_2_inequality(k)

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        v = average(inequality, k.rate, steps, _start(pop, theta_0, weight), times, burn_in=burn_in)
        return np.sqrt(v), _terms(k, steps)

    assumptions = _conditions(pop, k, inequality, steps, int(times[-1]), weight)
    return curve("Poisson, averaged", times, assumptions, compute, SECTION, pop.range_cap)
