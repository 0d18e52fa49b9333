"""One error of the theorem with its ladder of bounds, what is exact about it, and what was observed.

docs/theory.md section 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bounds.bound import Assumption, Bound, Verdict, verdict


@dataclass(frozen=True)
class Rung:
    """One bound of a ladder.  exact: it is the quantity itself, shown for comparison and never called certified."""

    bound: Bound
    exact: bool = False


@dataclass(frozen=True)
class Asymptotic:
    """A number that is exact in a limit and is not a bound; NaN when an assumption fails."""

    name: str
    value: float
    assumptions: tuple[Assumption, ...]

    def __post_init__(self) -> None:
        if math.isnan(self.value) == all(a.holds for a in self.assumptions):
            raise ValueError(f"{self.name}: the value is {self.value} but its assumptions say otherwise")


@dataclass(frozen=True)
class Observed:
    """A measured or computed quantity with its confidence interval; `allowance` is its certified numerical error."""

    value: float
    lower: float
    upper: float
    allowance: float = 0.0

    @classmethod
    def exact(cls, value: float, allowance: float = 0.0) -> Observed:
        """A computed number."""
        return cls(value, value, value, allowance)


@dataclass(frozen=True)
class Term:
    """An error (`claim`: which, in letters), its ladder, and the cap above which a bound says nothing."""

    name: str
    claim: str
    rungs: tuple[Rung, ...]
    trivial: float
    limit: Asymptotic | None = None
    observed: Observed | None = None

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
        """value / observed: NaN without one of them; for an observation that is 0 up to its allowance 1 or infinite."""
        if self.observed is None or math.isnan(value):
            return math.nan
        if self.observed.value > self.observed.allowance:
            return value / self.observed.value
        return math.inf if value > self.observed.allowance else 1.0
