"""What to buy: width, bits of interface and handoffs under an error target, from explicit models of the three terms.

docs/theory.md section 6.  The models are assumptions, stated as such: the class error falls like a power of the width,
the interface gap halves with every bit an observation reveals, and the residual is either the asymptotic
sqrt(tr/T) of averaged iterates (not a bound) or the closed form of the Poisson certificate at a constant step.
Symbols and formulas are those of bounds.symbolic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import sympy as sp
from jaxtyping import Float

from bounds.residual.closed import Level, conditions, settle
from bounds.residual.constants import constants
from bounds.residual.poisson import tier_2_inequality
from bounds.residual.population import Population
from bounds.residual.weights import has_drift
from bounds.symbolic import B_0, BITS, C_APP, DIAL, EPSILON, GBAR, P_APP, TRACE, WIDTH, T, Values, evaluate
from icq.display import Fact, Shown, latex_number

APPROXIMATION_MODEL = C_APP * WIDTH**-P_APP
INTERFACE_MODEL = B_0 * 2**-BITS / (1 - GBAR)
DIAL_MODEL = B_0 * DIAL / (1 - GBAR)
RESIDUAL_MODEL = sp.sqrt(TRACE / T)
TOTAL_MODEL = INTERFACE_MODEL + APPROXIMATION_MODEL + RESIDUAL_MODEL
HANDOFFS_MODEL = TRACE / (EPSILON - INTERFACE_MODEL - APPROXIMATION_MODEL) ** 2
RESOURCES = {"width": WIDTH, "bits": BITS, "handoffs": T}
MAX_BITS = 4096


@dataclass(frozen=True)
class Costs:
    """Prices per unit of width, per bit and per handoff, all positive."""

    width: float
    bits: float
    handoffs: float

    def __post_init__(self) -> None:
        for name, price in self.prices.items():
            if not (price > 0 and math.isfinite(price)):
                raise ValueError(f"cost of {name} = {price} must be positive and finite")

    @property
    def prices(self) -> dict[str, float]:
        """By resource."""
        return {"width": self.width, "bits": self.bits, "handoffs": self.handoffs}


def derivatives(total: sp.Expr = TOTAL_MODEL) -> dict[str, sp.Expr]:
    """d total / d resource, for every resource."""
    return {name: sp.diff(total, symbol) for name, symbol in RESOURCES.items()}


def falls_fastest(
    values: Values, costs: Costs | None = None, total: sp.Expr = TOTAL_MODEL
) -> tuple[tuple[str, float], ...]:
    """(resource, change of the total per unit of it, or per unit of money when costs are given), fastest first."""
    price = {"width": 1.0, "bits": 1.0, "handoffs": 1.0} if costs is None else costs.prices
    slopes = [(name, evaluate(slope, values) / price[name]) for name, slope in derivatives(total).items()]
    return tuple(sorted(slopes, key=lambda pair: pair[1]))


@dataclass(frozen=True)
class PowerLaw(Shown):
    """Class error floor + scale * width^-power.  misfit: largest relative error of a fit (0 when it was given)."""

    scale: float
    power: float
    floor: float = 0.0
    misfit: float = 0.0

    def __post_init__(self) -> None:
        if not (self.scale >= 0 and self.power > 0 and self.floor >= 0):
            raise ValueError(f"power law: scale {self.scale}, power {self.power}, floor {self.floor}")

    def __call__(self, width: float | int) -> float:
        """The error at a width."""
        return self.floor + self.scale * width**-self.power

    def _repr_latex_(self) -> str:
        floor = f"{latex_number(self.floor)} + " if self.floor else ""
        power = f"{latex_number(self.scale)}\\,w^{{-{latex_number(self.power)}}}"
        return rf"$$E_{{\mathrm{{app}}}}(w) = {floor}{power}$$"


def fit_power(widths: Sequence[float | int], errors: Sequence[float]) -> PowerLaw:
    """Least squares of log error on log width, without floor.

    Raises ValueError for fewer than two widths, an error that is not positive, or errors that do not fall.
    """
    x, y = np.asarray(widths, float), np.asarray(errors, float)
    if len(x) != len(y) or len(x) < 2 or not (x > 0).all() or not (y > 0).all():
        raise ValueError(f"widths {list(widths)} and errors {list(errors)}: at least two positive pairs are needed")
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    if not slope < 0:
        raise ValueError(f"errors {list(errors)} do not fall with the width (fitted power {-slope:.3g})")
    misfit = float(np.abs(np.exp(intercept + slope * np.log(x)) / y - 1).max())
    return PowerLaw(float(np.exp(intercept)), float(-slope), misfit=misfit)


@dataclass(frozen=True)
class BitLaw(Shown):
    """Interface gap floor + scale * 2^-bits."""

    scale: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (self.scale >= 0 and self.floor >= 0):
            raise ValueError(f"bit law: scale {self.scale}, floor {self.floor}")

    def __call__(self, bits: float | int) -> float:
        """The error at a number of bits."""
        return self.floor + self.scale * 2.0**-bits

    def _repr_latex_(self) -> str:
        floor = f"{latex_number(self.floor)} + " if self.floor else ""
        return rf"$$E_{{\mathrm{{int}}}}(b) = {floor}{latex_number(self.scale)}\cdot 2^{{-b}}$$"


@runtime_checkable
class ResidualModel(Protocol):
    """A residual that falls with handoffs.  `handoffs` must be convex and non-increasing in the error."""

    @property
    def certified(self) -> bool:
        """Whether it is a bound."""
        ...

    @property
    def floor(self) -> float:
        """What no number of handoffs removes."""
        ...

    def handoffs(self, error: float) -> float:
        """The real number of handoffs from which the residual is at most `error`; infinite at the floor and below."""
        ...


@dataclass(frozen=True)
class SharpResidual(Shown):
    """sqrt(trace / T), asymptotic and not a bound."""

    trace: float
    certified: bool = False
    floor: float = 0.0

    def handoffs(self, error: float) -> float:
        """trace / error^2, at least 1."""
        return max(self.trace / error**2, 1.0) if error > 0 else math.inf

    def _repr_latex_(self) -> str:
        return rf"$$E_{{\mathrm{{mix}}}}(T) = \sqrt{{{latex_number(self.trace)}/T}}$$"


@dataclass(frozen=True)
class CertifiedResidual(Shown):
    """chi radius(level + (1 - pull)^T excess), the closed form at a constant step; floor is its limit."""

    level: Level
    chi: float
    excess: float
    certified: bool = True

    @property
    def floor(self) -> float:
        """What more handoffs at this step do not remove."""
        return self.chi * self.level.radius(self.level.level)

    def handoffs(self, error: float) -> float:
        """log(excess / (x^2 - S(x) - level)) / -log(1 - pull) at x = error/chi."""
        x = error / self.chi
        room = x * x - self.level.slack(x) - self.level.level
        if not (error > self.floor and room > 0):
            return math.inf
        return max(math.log(self.excess / room) / -math.log1p(-self.level.pull), 1.0) if self.excess > room else 1.0


def certified_residual(pop: Population, alpha: float, theta_0: Float[np.ndarray, "p"]) -> CertifiedResidual:
    """The certificate of a class at a constant step as a planner's residual.

    Raises ValueError naming the assumption that fails.
    """
    k = constants(pop)
    inequality = tier_2_inequality(k)
    for assumption in (has_drift(k.rate), *conditions(inequality, alpha)):
        if not assumption.holds:
            raise ValueError(f"no certified residual: {assumption}")
    level, x_0 = settle(inequality, alpha), float(np.linalg.norm(pop.error(theta_0)))
    return CertifiedResidual(level, k.chi, max(x_0**2 + level.slack(x_0) - level.level, 0.0))


@dataclass(frozen=True)
class Plan(Shown):
    """The cheapest purchase.  lower: no purchase of whole width, whole bits and any number of handoffs is cheaper, so

    `cost` (handoffs rounded up) is within the price of one handoff of the optimum.  error: of the models, at most the
    target.  certified: whether the residual model is a bound.
    """

    width: int
    bits: int
    handoffs: int
    cost: float
    lower: float
    error: float
    certified: bool

    def _facts_(self) -> list[Fact]:
        return [
            Fact("width", self.width), Fact("bits", self.bits), Fact("handoffs", self.handoffs),
            Fact("cost", self.cost), Fact("no plan is cheaper than", self.lower), Fact("error", self.error, "reward"),
            Fact("", "certified" if self.certified else "the residual is asymptotic, not a bound"),
        ]  # fmt: skip

    def _repr_latex_(self) -> str:
        terms = ((r"\mathrm{int}", self.bits), (r"\mathrm{app}", self.width), (r"\mathrm{mix}", self.handoffs))
        total = " + ".join(f"E_{{{name}}}({amount})" for name, amount in terms)
        return rf"$${total} = {latex_number(self.error)}$$"


class Infeasible(ValueError):
    """The target cannot be reached at any price; the message says which floor is in the way."""


def needed(target: float, interface: float, approximation: float, residual: ResidualModel) -> int:
    """Handoffs after which the total is at most `target`.  Raises Infeasible when no number is enough."""
    rest = target - interface - approximation
    parts = f"interface {interface:.4g}, approximation {approximation:.4g}, residual at least {residual.floor:.4g}"
    if not math.isfinite(count := residual.handoffs(rest)):
        raise Infeasible(f"target {target:.4g} is not above the sum of what handoffs do not remove: {parts}")
    return math.ceil(count)


def plan(target: float, width: PowerLaw, interface: BitLaw, residual: ResidualModel, costs: Costs) -> Plan:
    """The cheapest (width, bits, handoffs) whose modelled total is at most `target`.

    For fixed bits the cost is convex in the width (a convex non-increasing `handoffs` of an error left over that is
    concave in the width), so the first width at which one more unit does not pay is optimal.  Bits are tried one by
    one until their own price plus the optimum for a gap at its floor is no cheaper than the best plan.  Raises
    Infeasible naming the floors.
    """
    floors = {"interface": interface.floor, "approximation": width.floor, "residual": residual.floor}
    if not target > sum(floors.values()):
        worst = max(floors, key=lambda name: floors[name])
        listed = ", ".join(f"{name} {value:.4g}" for name, value in floors.items())
        raise Infeasible(
            f"target {target:.4g} is not above the floors ({listed}); the largest is that of the {worst} term"
        )
    free, _ = _best_width(target - interface.floor, width, residual, costs)
    best: tuple[float, int, int] = (math.inf, 0, 0)
    for bits in range(MAX_BITS):
        if costs.bits * bits + free >= best[0]:
            break
        found, w = _best_width(target - interface(bits), width, residual, costs)
        best = min(best, (costs.bits * bits + found, bits, w))
    lower, bits, w = best
    handoffs = needed(target, interface(bits), width(w), residual)
    cost = costs.width * w + costs.bits * bits + costs.handoffs * handoffs
    error = interface(bits) + width(w) + _residual_at(residual, handoffs, target - interface(bits) - width(w))
    return Plan(w, bits, handoffs, cost, lower, error, residual.certified)


def _best_width(rest: float, width: PowerLaw, residual: ResidualModel, costs: Costs) -> tuple[float, int]:
    """(cost of width and handoffs, width) at the optimal whole width; (inf, 1) when none is enough."""
    if not rest > width.floor + residual.floor:
        return math.inf, 1

    def cost(w: int) -> float:
        return costs.width * w + costs.handoffs * residual.handoffs(rest - width(w))

    def enough(w: int) -> bool:
        return bool(math.isfinite(cost(w)) and cost(w + 1) >= cost(w))

    w = _first(enough)
    return cost(w), w


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest n >= 1 from which a property holds, by doubling and bisection."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _residual_at(residual: ResidualModel, handoffs: int, limit: float) -> float:
    """The smallest error whose `handoffs` is at most this many, below `limit`, by bisection."""
    low, high = residual.floor, limit
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if residual.handoffs(middle) <= handoffs else (middle, high)
    return high


def marginal(p: Plan, width: PowerLaw, interface: BitLaw, residual: ResidualModel) -> Float[np.ndarray, "3"]:
    """Error removed by one more unit of width, bit and handoff at a plan."""
    here = p.error - interface(p.bits) - width(p.width)
    after = _residual_at(residual, p.handoffs + 1, here)
    return np.array([width(p.width) - width(p.width + 1), interface(p.bits) - interface(p.bits + 1), here - after])
