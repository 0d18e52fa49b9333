"""One error of the theorem with its ladder of bounds, what is exact about it, and what was observed.

docs/theory.md section 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bounds.core.bound import ROUNDING, Assumption, Bound, Verdict, verdict
from icq.display import Fact, Shown, number


@dataclass(frozen=True)
class Rung(Shown):
    """One bound of a ladder.  exact: it is the quantity itself, shown for comparison and never called certified."""

    bound: Bound
    exact: bool = False

    def _facts_(self) -> list[Fact]:
        return [*self.bound._facts_(), Fact("", "the quantity itself, not a bound" if self.exact else None)]


@dataclass(frozen=True)
class Asymptotic(Shown):
    """A number that is exact in a limit and is not a bound; NaN when an assumption fails."""

    name: str
    value: float
    assumptions: tuple[Assumption, ...]

    def __post_init__(self) -> None:
        if math.isnan(self.value) == all(a.holds for a in self.assumptions):
            raise ValueError(f"{self.name}: the value is {self.value} but its assumptions say otherwise")

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.name), Fact("value", self.value),
                *(Fact("", f"inapplicable: {a}") for a in self.assumptions if not a.holds)]  # fmt: skip


@dataclass(frozen=True)
class Observed(Shown):
    """A measured or computed quantity with its confidence interval; `allowance` is its certified numerical error."""

    value: float
    lower: float
    upper: float
    allowance: float = 0.0

    @classmethod
    def exact(cls, value: float, allowance: float = 0.0) -> Observed:
        """A computed number."""
        return cls(value, value, value, allowance)

    def rescaled(self, unit: float) -> Observed:
        """In reward units, of what was observed with rewards over `unit`."""
        return Observed(self.value * unit, self.lower * unit, self.upper * unit, self.allowance * unit)

    def _facts_(self) -> list[Fact]:
        return [Fact("value", self.value), Fact("between", f"{number(self.lower)} and {number(self.upper)}"),
                Fact("allowance", self.allowance)]  # fmt: skip


@dataclass(frozen=True)
class Term(Shown):
    """An error (`claim`: which, in letters), its ladder, and the cap above which a bound says nothing."""

    name: str
    claim: str
    rungs: tuple[Rung, ...]
    trivial: float
    limit: Asymptotic | None = None
    observed: Observed | None = None

    def rescaled(self, unit: float) -> Term:
        """The term in reward units, of one that was computed with rewards over `unit`."""
        rungs = tuple(replace(rung, bound=rung.bound.rescaled(unit)) for rung in self.rungs)
        limit = None if self.limit is None else replace(self.limit, value=self.limit.value * unit)
        seen = None if self.observed is None else self.observed.rescaled(unit)
        return Term(self.name, self.claim, rungs, self.trivial * unit, limit, seen)

    @property
    def best(self) -> Bound:
        """The smallest certified number, or the first certified rung, inapplicable, when there is none."""
        certified = [rung.bound for rung in self.rungs if not rung.exact]
        return min((b for b in certified if b.applicable), key=lambda b: b.value, default=certified[0])

    def verdict(self, bound: Bound) -> Verdict | None:
        """What the observation says about a rung; None when nothing was observed."""
        if not bound.applicable:
            return Verdict.INAPPLICABLE
        if self.observed is None:
            return None
        seen = self.observed
        return verdict(bound, seen.lower, seen.upper, self.trivial, allowance=seen.allowance)

    def ratio(self, value: float) -> float:
        """value / observed: NaN without one of them or for one lost in a solver's error; for an observation that is 0
        up to its allowance 1 or infinite.
        """  # fmt: skip
        if self.observed is None or math.isnan(value):
            return math.nan
        if self.observed.value > self.observed.allowance:
            return value / self.observed.value
        if not self.observed.allowance <= ROUNDING * self.trivial:
            return math.nan  # a solver's error, of which nothing is a multiple
        return math.inf if value > self.observed.allowance else 1.0

    def _facts_(self) -> list[Fact]:
        best, seen = self.best, self.observed
        return [
            Fact("", self.name), Fact("", self.claim), Fact("observed", None if seen is None else seen.value, "reward"),
            Fact("certified", best.value if best.applicable else "none"), Fact("by", best.name),
            Fact("verdict", self.verdict(best)), Fact("rungs", len(self.rungs)), Fact("trivial", self.trivial),
        ]  # fmt: skip
