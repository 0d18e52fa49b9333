"""Two certificates in the manner of the literature, beside the Poisson certificate (docs/theory.md section 5c).

`textbook`: projected semi-gradient steps and the worst-case mixing curve rho(t), in the manner of Bhandari, Russo and
Singal (2018).  `sup_norm`: a table in the sup norm, whose contraction needs no kappa, by the smoothness of the squared
p-norm in the manner of Chen, Maguluri, Shakkottai and Shanmugam (2021), with the Poisson solution instead of a mixing
time.  Letters: bounds.residual.population, bounds.residual.recursion.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.curve import Curve, curve
from bounds.core.steps import Steps, schedule
from bounds.residual.correction import Correction
from bounds.residual.population import Population, contraction_assumption, is_tabular
from bounds.residual.recursion import ZERO, Lyapunov, Quadratic, iterate, product
from icq.exact.fixed_point import modulus
from icq.exact.markov import tv_curve

SECTION = "docs/theory.md section 5c"
LONGEST_LAG = 1024  # lags beyond it are not tried; any lag gives a bound


def agent_norms(pop: Population, theta: Float[np.ndarray, "p"]) -> tuple[Float[np.ndarray, "N"], bool]:
    """||theta_i||_M of each agent's block, and whether the class has one block per agent (M too).

    Without that a projection would need several agents' parameters, and IC-Q passes one scalar.
    """
    agent = np.repeat(np.asarray(pop.analysis.smdp.agent), pop.q_f.shape[1])
    owner = np.array([np.abs(pop.psi[agent == i]).sum(0) > 0 for i in range(pop.analysis.smdp.num_agents)])
    separate = bool((owner.sum(0) == 1).all())
    other = ~(owner[:, :, None] & owner[:, None, :]).any(0)
    separate = separate and not np.abs(pop.metric[other]).any()
    return np.linalg.norm(owner * (pop.root.T @ theta), axis=1), separate


def lags(pop: Population, last: int) -> tuple[Int[np.ndarray, "L"], Float[np.ndarray, "L"]]:
    """Lags t = 0, 1, 2, ... and rho(t) = max_s TV(P^t(s, .), d), until it is negligible."""
    a, found = pop.analysis, [1.0 - float(pop.analysis.d.min())]
    count = 16
    while count < min(last, LONGEST_LAG) and found[-1] > 1e-9:
        count *= 2
        found = tv_curve(a.transition, a.d, np.arange(count + 1)).tolist()
    return np.arange(len(found)), np.array(found)


def lag_penalty(
    alpha: Float[np.ndarray, "T"], rho: Float[np.ndarray, "L"], per_step: float, per_rho: float
) -> Float[np.ndarray, "T"]:
    """b_k = min_{t <= k} { per_step sum_{j=k-t}^{k-1} alpha_j + per_rho rho(t) }."""
    total = np.concatenate([[0.0], np.cumsum(alpha)])
    best = np.full(len(alpha), per_rho * rho[0])
    for t in range(1, min(len(rho), len(alpha))):
        moved = total[t:-1] - total[: -t - 1]
        best[t:] = np.minimum(best[t:], per_step * moved + per_rho * rho[t])
    return best


def _accumulate(value: Float[np.ndarray, "T"], times: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """sum_{k < t} value(k), the last value being repeated for ever."""
    total = np.concatenate([[0.0], np.cumsum(value)])
    inside = np.minimum(times, len(value))
    return total[inside] + (times - inside) * value[-1]


def textbook(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    radii: Float[np.ndarray, "N"] | None = None,
) -> Curve:
    """Theorem (textbook): bounds on (E||Qavg - Q_F||_d^2)^{1/2} of the step-weighted average, projected IC-Q.

    Every agent projects its own parameters onto the M-ball of its radius after its update (default: the smallest ball
    with theta*).  With F = max ||phi(x)||, R^2 = sum of squared radii, G = F (Rmax + 2 (max |offset| + F R)) and
    b_k = min_t { (2 G + 8 F^2 R) G sum_{j=k-t}^{k-1} alpha_j + 4 G R rho(t) },

        E||Qavg - Q_F||_d^2 <= [||Delta_0||^2 + G^2 sum alpha_k^2 + 2 sum alpha_k b_k] / (2 (1-kappa_F) sum alpha_k).

    Assumes kappa_F < 1, one block of parameters per agent, theta* and theta_0 inside the balls, an aperiodic chain.
    """
    star, separate = agent_norms(pop, pop.theta_star)
    first, _ = agent_norms(pop, theta_0)
    radii = star if radii is None else radii
    k = pop.outcomes
    reach, radius = float(np.sqrt(pop.norm2.max())), float(np.linalg.norm(radii))
    level = float(np.abs(pop.offset).max()) + reach * radius
    g = reach * (float(np.abs(k.reward).max()) + 2 * level)
    slip = 1e-12 * radius or float(np.finfo(float).tiny)  # in a ball of radius 0 is 0 alone
    assumptions = (
        contraction_assumption(pop),
        below("one block per agent", float(not separate), 1.0, "each feature and each part of M belongs to one agent"),
        below("theta* inside", float((star - radii).max()), slip, "M-norm by which theta* leaves its agent's ball"),
        below("start inside", float((first - radii).max()), slip, "M-norm by which theta_0 leaves its agent's ball"),
        below("aperiodic", float(max(pop.analysis.chain.period)), 1.5, "period of the handoff chain"),
    )

    if times[0] < 1:
        raise ValueError(f"times[0] = {times[0]}: an average needs at least one update")

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        _, rho = lags(pop, int(times[-1]))
        # With a constant step b_k no longer changes once k has passed the longest lag.
        alpha = schedule(steps, len(rho) if isinstance(steps, float) else int(times[-1]))
        penalty = lag_penalty(alpha, rho, (2 * g + 8 * reach**2 * radius) * g, 4 * g * radius)
        error = pop.error(theta_0)
        above = error @ error + _accumulate(g**2 * alpha**2 + 2 * alpha * penalty, times)
        value = above / (2 * (1 - pop.kappa) * _accumulate(alpha, times))
        return np.sqrt(value), {"G": g, "R": radius, "F": reach, "kappa": pop.kappa}

    return curve("textbook", times, assumptions, compute, SECTION, pop.range_cap)


def p_norm(table: Float[np.ndarray, "R p"], power: float) -> Float[np.ndarray, "R"]:
    """(sum |x|^power)^{1/power} of every row, scaled so that large powers do not overflow."""
    top = np.abs(table).max(axis=-1, keepdims=True, initial=0.0)
    ratio = np.divide(np.abs(table), top, out=np.zeros_like(table), where=top > 0)
    return top[..., 0] * (ratio**power).sum(axis=-1) ** (1 / power)


def sup_norm_inequality(pop: Population, power: float) -> Lyapunov:
    """Lemma (sup_norm_inequality): the recursion of V = E||Q - Qbar||_p^2, p = power >= 2, table and diagonal M.

    With u(x) = d(x)/M(x), gh the largest row sum of Khat and mu = u_min (1 - gh (sum u / u_min)^{1/p}):
    W = V + 2 alpha E<nu, grad>, G2 = (p-1)(s + c x)^2 + 2 (s + c x)((p-1) nu* + p L x), G3 = 2 L (s + c x)^2,
    S1 = 2 (nu* x + L x^2); s, c, L, nu* as in tier 1, in the p-norm of tables.
    """
    k, live = pop.outcomes, pop.d > 0
    scale = np.diag(pop.metric)
    share = pop.d[live] / scale
    clock = np.zeros(len(pop.d))
    clock[live] = scale
    step = clock[k.pair]
    sigma = np.sqrt(pop.expect((pop.td_error / step) ** 2)).max()
    c = np.sqrt(pop.expect(((1 + k.discount) / step) ** 2)).max()
    fix = Correction(pop, pop.analysis.deviation)
    root = np.sqrt(scale)
    nu_star = p_norm(fix.nu_star / root, power).max()
    own = np.abs(np.diagonal(fix.u, axis1=1, axis2=2))
    lipschitz = p_norm(np.abs(fix.b / root[:, None]).sum(2) + own, power).max()
    reach = (share.sum() / share.min()) ** (1 / power)
    mu = share.min() * (1 - modulus(pop.analysis.interface.kernel) * reach)
    update = (float(sigma), float(c))
    drag = (float((power - 1) * nu_star), float(power * lipschitz))
    square = product(update, update)
    return Lyapunov(
        mu=float(mu),
        gain_2=ZERO.plus(square, power - 1).plus(product(update, drag), 2.0),
        gain_3=ZERO.plus(square, 2 * float(lipschitz)),
        gain_4=ZERO,
        slack_1=Quadratic(0.0, 2 * float(nu_star), 2 * float(lipschitz)),
        slack_2=ZERO,
        growth=update,
    )


def sup_norm(pop: Population, steps: Steps, theta_0: Float[np.ndarray, "p"], times: Int[np.ndarray, "n"]) -> Curve:
    """Theorem (sup norm): bounds on (E||Q_T - Qbar||_inf^2)^{1/2} of an asynchronous table, for any law of s_0.

    Needs no contraction in the d-norm and no bound on the iterates: the largest row sum gh of Khat is always below 1,
    and p above log(sum u / u_min) / log(1/gh) makes the drift positive.  The best of a few such p at each time.
    Assumes a table with diagonal M and small steps (2 alpha L < 1, 2 alpha mu <= 1).
    """
    share = pop.d[pop.d > 0] / np.diag(pop.metric) if is_tabular(pop) else np.ones(1)
    table = below("table", float(not is_tabular(pop)), 1.0, "one parameter per available pair and a diagonal M")
    largest = float(schedule(steps, 1 if isinstance(steps, float) else int(times[-1]) + 2).max())
    if not table.holds:
        return curve("sup norm", times, (table,), lambda: (np.zeros(0), {}), SECTION, math.inf)
    gh = modulus(pop.analysis.interface.kernel)
    least = max(math.log(share.sum() / share.min()) / math.log(1 / gh), 1.0) if gh > 0 else 1.0
    powers = [max(least * factor, 2.0) for factor in (1.1, 1.3, 1.7, 2.5, 4.0)]
    tried = {p: sup_norm_inequality(pop, p) for p in dict.fromkeys(powers)}
    usable = {p: l for p, l in tried.items() if all(a.holds for a in l.conditions(largest))}
    best = min(tried.values(), key=lambda l: l.slack(largest).c2)
    error = theta_0 - pop.theta_star

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        curves = {p: iterate(l, steps, float(p_norm(error[None], p)[0]) ** 2, times) for p, l in usable.items()}
        values = np.stack(list(curves.values()))
        chosen = list(curves)[int(values[:, -1].argmin())]
        return np.sqrt(values.min(axis=0)), {"power": float(chosen), "modulus": gh, "mu": usable[chosen].mu}

    assumptions: tuple[Assumption, ...] = (table, *best.conditions(largest))
    return curve("sup norm", times, assumptions, compute, SECTION, float(pop.range_error.max()))
