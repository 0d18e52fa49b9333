"""The second-order Poisson certificate at a constant step, in closed form.

bounds.residual.recursion iterates an inequality; at a constant step alpha everything it needs is elementary
(docs/theory.md section 6).  With net = 2 alpha mu - G.c2 > 0, G(x) what one step adds and S(x) the slack |W - V|,

    r = (G.c1 + sqrt(G.c1^2 + 4 net G.c0)) / (2 net)       where the drift balances the gain
    level = r^2 + S(r)                                     the fixed point of the worst case
    pull = (2 net r - G.c1) / (2 (1 + S.c2) r + S.c1)      how fast it is approached from above
    radius(w) = the largest x with x^2 - S(x) <= w

The same formulas in symbols are in bounds.symbolic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.curve import Curve, curve
from bounds.residual.constants import Constants, constants
from bounds.residual.poisson import tier_2_inequality
from bounds.residual.population import Population
from bounds.residual.recursion import Lyapunov, Quadratic, spread
from bounds.residual.weights import Weight, has_drift
from icq.display import Shown

SECTION = "docs/theory.md section 6"


@dataclass(frozen=True)
class Level(Shown):
    """Where the worst case of a constant step settles: r, level, pull of the module docstring, and the slack S."""

    r: float
    level: float
    pull: float
    slack: Quadratic

    def radius(self, w: float) -> float:
        """The largest x with x^2 - S(x) <= w."""
        return spread(self.slack, w)[1]

    def after(self, w_0: float, times: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Lemma (geometric): W_T <= level + (1 - pull)^T max(W_0 - level, 0).

        The worst-case map is increasing, and concave above its fixed point, so its tangent there lies above it.
        """
        fade = np.exp(times * math.log1p(-self.pull)) if self.pull < 1 else (times == 0).astype(float)
        return self.level + fade * max(w_0 - self.level, 0.0)


def settle(inequality: Lyapunov, alpha: float) -> Level:
    """The level of a constant step; needs `conditions`."""
    gain, slack = inequality.gain(alpha, alpha), inequality.slack(alpha)
    net = 2 * alpha * inequality.mu - gain.c2
    r = (gain.c1 + math.sqrt(gain.c1**2 + 4 * net * gain.c0)) / (2 * net)
    steep = 2 * (1 + slack.c2) * r + slack.c1
    pull = (2 * net * r - gain.c1) / steep if steep > 0 else net
    return Level(r, r * r + slack(r), pull, slack)


def conditions(inequality: Lyapunov, alpha: float) -> tuple[Assumption, ...]:
    """Those of the recursion, and a drift that outweighs what grows with the error."""
    growth = inequality.gain(alpha, alpha).c2
    net = below("net drift", growth, 2 * alpha * inequality.mu, "x^2 coefficient of the gain against 2 alpha mu")
    return (*inequality.conditions(alpha), net)


def squared_error(
    inequality: Lyapunov, alpha: float, v_0: float, times: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Theorem (closed form, last iterate): V_T <= radius(W_T)^2, W_T of `Level.after`, W_0 = V_0 + S(sqrt V_0)."""
    found = settle(inequality, alpha)
    w = found.after(v_0 + found.slack(math.sqrt(v_0)), times)
    return np.array([found.radius(float(x)) ** 2 for x in w])


def mean_squared_error(
    inequality: Lyapunov, rate: float, alpha: float, v_0: float, times: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Theorem (closed form, averaged): bounds on sum_{k<T} E||Q_k - Q_F||_d^2 / T, with X = radius(level),

    [W_0 + S.c0 + S.c1^2/(4 (1 - S.c2)) + slope max(W_0 - level, 0)/pull] / (2 rate alpha T)
    + G(X) / (2 rate alpha),    slope = (G.c1 + 2 G.c2 X) / (2 (1 - S.c2) X - S.c1).

    rate: that of the Lyapunov weight.  G(radius(w)) is concave in w and `slope` is its
    derivative at the level, so the excess of the gains over G(X) is at most slope times the geometric sum of
    `Level.after`.
    """
    found, gain = settle(inequality, alpha), inequality.gain(alpha, alpha)
    s0, s1, s2 = found.slack
    w_0 = v_0 + found.slack(math.sqrt(v_0))
    excess = max(w_0 - found.level, 0.0)
    x = found.radius(found.level)
    steep = 2 * (1 - s2) * x - s1
    slope = (gain.c1 + 2 * gain.c2 * x) / steep if steep > 0 else (math.inf if gain.c1 > 0 else gain.c2 / (1 - s2))
    first = w_0 + s0 + s1**2 / (4 * (1 - s2)) + (slope * excess / found.pull if excess > 0 else 0.0)
    return (first / times + gain(x)) / (2 * rate * alpha)


def _assumptions(pop: Population, k: Constants, alpha: float, weight: Weight | None) -> tuple[Assumption, ...]:
    scale = pop.analysis.norm_d(pop.q_f) or 1.0
    solved = below("fixed point", pop.residual, 1e-9 * scale, f"||Q_F - Pi That Q_F||_d = {pop.residual:.2g}")
    return (has_drift(k.rate), solved, *conditions(tier_2_inequality(k), alpha))


def last_iterate(
    pop: Population,
    alpha: float,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    weight: Weight | None = None,
) -> Curve:
    """Theorem: bounds on (E||Q_T - Q_F||_d^2)^{1/2} at a constant step, chi sqrt of `squared_error`."""
    k = constants(pop, weight=weight)
    inequality = tier_2_inequality(k)

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        found = settle(inequality, alpha)
        value = k.chi * np.sqrt(squared_error(inequality, alpha, start(pop, theta_0, weight), times))
        return value, {"stationary": k.chi * found.radius(found.level), "pull": found.pull}

    return curve("Poisson, closed form", times, _assumptions(pop, k, alpha, weight), compute, SECTION, pop.range_cap)


def averaged(
    pop: Population,
    alpha: float,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    weight: Weight | None = None,
) -> Curve:
    """Theorem: bounds on (E||Qavg - Q_F||_d^2)^{1/2} at a constant step, the root of `mean_squared_error`."""
    k = constants(pop, weight=weight)
    inequality = tier_2_inequality(k)

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        first = start(pop, theta_0, weight)
        value = np.sqrt(mean_squared_error(inequality, k.rate, alpha, first, times))
        forever = mean_squared_error(inequality, k.rate, alpha, 0.0, np.array([2**62]))
        return value, {"stationary": float(np.sqrt(forever[0]))}

    assumptions = _assumptions(pop, k, alpha, weight)
    return curve("Poisson, averaged, closed form", times, assumptions, compute, SECTION, pop.range_cap)


def start(pop: Population, theta_0: Float[np.ndarray, "p"], weight: Weight | None = None) -> float:
    """V_0 = (theta_0 - theta*)'W(theta_0 - theta*)."""
    error = theta_0 - pop.theta_star
    return float(error @ (pop.metric if weight is None else weight.matrix) @ error)
