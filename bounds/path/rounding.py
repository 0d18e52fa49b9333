"""What finite precision adds to a certificate (docs/theory.md section 5d).

The computed parameters obey theta' = theta + alpha M^{-1} psi(x) delta(theta) + rho, rho the rounding of one update.
Letters: bounds.path.reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bounds.core.steps import Decay
from bounds.residual.correction import Correction
from bounds.residual.recursion import Lyapunov, product
from icq.display import Shown, shown

OPERATIONS = 12  # of a TD error, besides the sums of its two values


@shown
class Arithmetic(NamedTuple):
    """unit: largest relative error of one operation; steps: of a step size, which takes a power to compute."""

    unit: float
    steps: float


SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # units


def arithmetic(unit: float, steps: Decay, last: int) -> Arithmetic:
    """That of the learner up to handoff `last`.

    A step is step (1 + k/offset)^-power by an exponential and a logarithm off by at most 2 units: an error of the
    exponent is one of the result, so the relative error is at most 8 unit (1 + power (1 + log(1 + last/offset))).
    """
    size = 1 + abs(steps.power) * (1 + float(np.log1p(last / steps.offset)))
    return Arithmetic(unit, 8 * unit * size)


@dataclass(frozen=True)
class Rounding(Shown):
    """||rho||_W <= level(alpha, t) + slope(alpha) ||e||_W for a computed update from thbar + e, t >= ||thbar||_inf.

    rel = unit sqrt(k) |W^{1/2}|, k the largest number of parameters an update moves; push: the largest |M^{-1}psi(x)|;
    err = 3 (steps + (k + 12) unit) |W^{1/2}| push; psi_1: the largest row sum of |psi|;
    base = max |R| + 2 max |offset|; reach >= ||e||_inf / ||e||_W.
    """

    rel: float
    err: float
    psi_1: float
    base: float
    reach: float
    push: float

    def level(self, alpha: float, t: float) -> float:
        """The part that does not depend on e."""
        size = self.base + 2 * self.psi_1 * t
        return self.rel * (t + alpha * self.push * size) + alpha * self.err * size

    def slope(self, alpha: float) -> float:
        """What a unit of ||e||_W adds."""
        size = 2 * self.psi_1 * self.reach
        return self.rel * (self.reach + alpha * self.push * size) + alpha * self.err * size


def rounding(c: Correction, arithmetic: Arithmetic) -> Rounding:
    """The constants of `Rounding` for one class, weight and arithmetic.

    Lemma (rounding): with |fl(a op b) - a op b| <= unit |a op b| and step sizes off by at most `steps`, every update
    of `icq.learn.learner` with plain steps obeys the bound of `Rounding`.
    """
    pop = c.pop
    moves = np.linalg.solve(pop.metric, pop.psi.T).T
    k = int((pop.psi != 0).sum(axis=1).max())
    root = float(np.linalg.norm(c.root, 2))
    push, unit = float(np.linalg.norm(moves, axis=1).max()), arithmetic.unit
    return Rounding(
        rel=unit * np.sqrt(k) * root,
        err=3 * (arithmetic.steps + (k + OPERATIONS) * unit) * root * push,
        psi_1=float(np.abs(pop.psi).sum(axis=1).max()),
        base=float(np.abs(pop.outcomes.reward).max()) + 2 * float(np.abs(pop.offset).max()),
        reach=1 / float(np.linalg.svd(c.root, compute_uv=False)[-1]),
        push=push,
    )  # fmt: skip


def rounded(data: Lyapunov, r: Rounding, size: float, low: float, high: float) -> Lyapunov:
    """The inequality of the computed run, for steps low <= alpha <= high around references of ||thbar||_inf <= size.

    With x+ <= x + alpha (sigma + c x) the norm before rounding, W grows by at most
    ||rho|| [2 x+ + ||rho|| + 2 alpha (nu + L (2 x+ + ||rho||)) + alpha^2 (a_0 + a_1 (2 x+ + ||rho||))], and the last
    two brackets are at most 2 alpha nu + alpha^2 a_0 + 2 x+ + ||rho|| under the condition of small corrections.
    """
    level, slope = r.level(high, size), r.slope(high)
    sigma, c = data.growth
    corrections = high * data.slack_1.c1 + high**2 * data.slack_2.c1  # 2 alpha nu + alpha^2 a_0
    bracket = (4 * high * sigma + 2 * level + corrections, 4 * (1 + high * c) + 2 * slope)
    return Lyapunov(
        data.mu, data.gain_2.plus(product((level, slope), bracket), low**-2), data.gain_3, data.gain_4, data.slack_1,
        data.slack_2, data.growth,
    )  # fmt: skip


def of_average(
    arithmetic: Arithmetic, size: Float[np.ndarray, "n"], handoffs: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """How far rounding may move each entry of a running average of entries of modulus at most `size`.

    A block's average moves by a share of at least 1/k at handoff k and is rounded then: a <- (1 - s) a + s theta + rho
    with |rho| <= 8 unit size, so |error_k| <= (1 - 1/k)|error_{k-1}| + 8 unit size <= 8 unit size k.
    """
    return 8 * arithmetic.unit * size * handoffs
