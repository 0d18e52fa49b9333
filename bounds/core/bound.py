"""What a bound is, and how an observation is held against it.

A bound is a number with the assumptions it rests on, each checked on the instance (docs/theory.md section 6).  When
one fails there is no number: the value is NaN and the verdict `inapplicable`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from types import MappingProxyType

from markupsafe import Markup

from icq.display import Fact, Shown, latex_number, latex_text

# The powers of reward that named numbers of bounds are in, where it is not the first.
POWER = {"noise": 2, "omega": 2} | dict.fromkeys((
    "F", "a_1", "backups", "c", "c_bar", "chi", "gamma_bar", "growth", "kappa", "kappa_f", "kappa_s", "kick_c", "lam_2",
    "lipschitz", "modulus", "mu", "power", "pull", "rate", "spread",
), 0)  # fmt: skip


@dataclass(frozen=True)
class Assumption(Shown):
    """One hypothesis of a lemma, checked on one instance.

    `margin`: signed distance to the boundary, in the unit `detail` names; negative or zero by how much it fails.
    """

    name: str
    holds: bool
    margin: float
    detail: str

    def __post_init__(self) -> None:
        if math.isnan(self.margin):
            raise ValueError(f"assumption {self.name}: the margin is NaN, so it was not checked")
        if self.holds and self.margin < 0:
            raise ValueError(f"assumption {self.name}: said to hold with the negative margin {self.margin}")

    def __str__(self) -> str:
        return f"{self.name} {'holds' if self.holds else 'fails'} (margin {self.margin:.3g}): {self.detail}"

    def _facts_(self) -> list[Fact]:
        return [Fact("", str(self))]


def below(name: str, value: float, limit: float, detail: str) -> Assumption:
    """The assumption `value < limit`, strictly; a NaN value fails it with an infinite deficit."""
    margin = -math.inf if math.isnan(value) else limit - value
    return Assumption(name, margin > 0, margin, detail)


@dataclass(frozen=True)
class Bound(Shown):
    """An upper bound on one non-negative quantity.

    value: the bound, NaN exactly when an assumption fails; may be infinite.
    terms: the named numbers it was computed from; empty when inapplicable.
    assumptions: each checked; all must hold.
    reference: where the statement and its proof are.
    trivial: what the range of rewards alone gives for the same quantity; a value not below it says nothing.
    roundoff: how far floating point may have moved `value`; verdicts compare against value + roundoff.
    formula: the bound in LaTeX where it is one formula, as in `bounds.symbolic`.
    time: the updates after which it holds; None where it does not speak of a time.
    """

    name: str
    value: float
    terms: Mapping[str, float]
    assumptions: tuple[Assumption, ...]
    reference: str
    trivial: float = math.inf
    roundoff: float = field(default=0.0, kw_only=True)
    formula: str = field(default="", kw_only=True)
    time: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", MappingProxyType(dict(self.terms)))
        if math.isnan(self.value) == self.applicable:
            state = "applicable" if self.applicable else "inapplicable"
            raise ValueError(f"bound {self.title}: the value is {self.value} but the bound is {state}")
        if self.value < 0:
            raise ValueError(f"bound {self.title}: the value {self.value} is negative")
        if math.isnan(self.trivial):
            raise ValueError(f"bound {self.title}: the trivial bound is NaN")
        if not 0 <= self.roundoff < math.inf:
            raise ValueError(f"bound {self.title}: roundoff = {self.roundoff} is not a finite allowance")

    @property
    def applicable(self) -> bool:
        """Whether every assumption holds."""
        return all(a.holds for a in self.assumptions)

    @property
    def title(self) -> str:
        """The name with the time."""
        return self.name if self.time is None else f"{self.name} after {self.time} updates"

    @property
    def failures(self) -> tuple[Assumption, ...]:
        """The assumptions that fail: which, and by how much."""
        return tuple(a for a in self.assumptions if not a.holds)

    def rescaled(self, unit: float) -> Bound:
        """The bound in reward units, of one that was computed with rewards over `unit`."""
        terms = {name: value * unit ** POWER.get(name, 1) for name, value in self.terms.items()}
        value, trivial, roundoff = self.value * unit, self.trivial * unit, self.roundoff * unit
        return replace(self, terms=terms, value=value, trivial=trivial, roundoff=roundoff)

    def __str__(self) -> str:
        if not self.applicable:
            return f"{self.title}: inapplicable; " + "; ".join(map(str, self.failures))
        return f"{self.title}: {self.value:.6g} (trivial {self.trivial:.6g})"

    def _facts_(self) -> list[Fact]:
        return [
            Fact("", self.title), Fact("value", self.value if self.applicable else "none"),
            Fact("trivial", self.trivial), *(Fact("", f"inapplicable: {a}") for a in self.failures),
            Fact("", self.reference),
        ]  # fmt: skip

    def _repr_latex_(self) -> str:
        why = "" if self.applicable else rf"\quad\text{{inapplicable: {latex_text(self.failures[0].name)}}}"
        parts = (rf"\text{{{latex_text(self.title)}}}", *filter(None, (self.formula,)), latex_number(self.value))
        return rf"$${' = '.join(parts)}{why}$$"


@dataclass(frozen=True)
class Certificate(Bound):
    """A bound computed from a table, whatever has learned it, on the error of that table.

    It is known after a run, not before; only a fault can violate it.
    """

    @classmethod
    def of(cls, bound: Bound) -> Certificate:
        """A bound that was computed from a table."""
        return cls(**{field.name: getattr(bound, field.name) for field in fields(bound)})


def conditional(
    name: str,
    assumptions: Sequence[Assumption],
    compute: Callable[[], tuple[float, Mapping[str, float]]],
    reference: str,
    trivial: float = math.inf,
    *,
    roundoff: float = 0.0,
) -> Bound:
    """The bound whose (value, terms) `compute` yields, or the inapplicable one; `compute` runs only if all hold."""
    if all(a.holds for a in assumptions):
        value, terms = compute()
        return Bound(name, float(value), terms, tuple(assumptions), reference, trivial, roundoff=roundoff)
    return Bound(name, math.nan, {}, tuple(assumptions), reference, trivial)


ROUNDING = 1e-9  # of what the range of rewards says: below, two numbers are equal within rounding


class Verdict(Enum):
    """What an observation says about a bound; see `verdict`."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNDECIDED = "undecided"
    VACUOUS = "vacuous"
    INAPPLICABLE = "inapplicable"

    def __str__(self) -> str:
        return self.value

    def __html__(self) -> str:
        return Markup('<span style="background:{};color:#fff;padding:0 6px;border-radius:3px">{}</span>').format(
            BADGE[self], self.value
        )


BADGE = {
    Verdict.HOLDS: "#1b7340", Verdict.VIOLATED: "#b3261e", Verdict.UNDECIDED: "#8a5a00", Verdict.VACUOUS: "#5f6368",
    Verdict.INAPPLICABLE: "#5f6368",
}  # fmt: skip


def verdict(
    bound: Bound, lower: float, upper: float, trivial: float | None = None, *, allowance: float = 0.0
) -> Verdict:
    """Hold the confidence interval [lower, upper] of an observed quantity against a bound.

    In order of precedence:
      inapplicable: an assumption fails, so there is no number (the interval is not looked at);
      violated:     lower > value + slack.  Before vacuous: a false statement is not excused by being useless;
      vacuous:      value >= trivial, so agreeing with it is no evidence;
      holds:        upper <= value + slack where the slack is rounding, else upper + slack <= value;
      undecided:    the interval straddles the bound, or numerical errors do not let it be told.
    slack = bound.roundoff + allowance, and nothing else is forgiven.  It is rounding, and numbers that close are equal,
    up to ROUNDING of the trivial bound (of the value where that is infinite); a larger one is an error of a solver, and
    is never forgiven in favour of a bound.  An exact (deterministic) observation passes the same number twice, with the
    certified numerical error of that number as its `allowance`.  `trivial` replaces bound.trivial when given.
    Raises ValueError for a NaN or reversed interval and for an allowance that is negative or not finite.
    """
    if not 0 <= allowance < math.inf:
        raise ValueError(f"allowance = {allowance} is not a finite non-negative number")
    if not bound.applicable:
        return Verdict.INAPPLICABLE
    if not lower <= upper:
        raise ValueError(f"bound {bound.title}: the observed interval [{lower}, {upper}] is empty or NaN")
    slack, cap = bound.roundoff + allowance, bound.trivial if trivial is None else trivial
    if lower > bound.value + slack:
        return Verdict.VIOLATED
    if bound.value >= cap:
        return Verdict.VACUOUS
    is_rounding = slack <= ROUNDING * (cap if math.isfinite(cap) else bound.value)
    return Verdict.HOLDS if upper <= bound.value + (slack if is_rounding else -slack) else Verdict.UNDECIDED
