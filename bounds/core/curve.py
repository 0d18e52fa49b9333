"""A bound at several times of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, Bound
from icq.display import Fact, Shown, number

RELATIVE = 1e-9  # rounding of a recursion of up to a million steps, each exact to a few units of 1e-16
ABSOLUTE = 1e-13  # times the range: what an error of Q_F in its last digits can look like


@dataclass(frozen=True)
class Curve(Shown):
    """Upper bounds on one non-negative quantity at `times` (updates done); fields as in `Bound`.

    value [n] is NaN throughout exactly when an assumption fails.  terms: named numbers behind the whole curve.
    """

    name: str
    times: Int[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]
    terms: Mapping[str, float]
    assumptions: tuple[Assumption, ...]
    reference: str
    trivial: float

    @property
    def applicable(self) -> bool:
        """Whether every assumption holds."""
        return all(a.holds for a in self.assumptions)

    def at(self, i: int) -> Bound:
        """The bound at times[i]."""
        value = float(self.value[i])
        roundoff = RELATIVE * value + ABSOLUTE * self.trivial if math.isfinite(value) else 0.0
        return Bound(
            self.name, value, self.terms, self.assumptions, self.reference, self.trivial, roundoff=roundoff,
            time=int(self.times[i]),
        )  # fmt: skip

    def _facts_(self) -> list[Fact]:
        ends = [f"{number(float(self.value[i]))} at {self.times[i]}" for i in (0, -1)]
        return [
            Fact("", self.name), Fact("value", " to ".join(ends) if self.applicable else "none"),
            Fact("updates", len(self.times), "times"), Fact("trivial", self.trivial),
            *(Fact("", f"inapplicable: {a}") for a in self.assumptions if not a.holds), Fact("", self.reference),
        ]  # fmt: skip


def curve(
    name: str,
    times: Int[np.ndarray, "n"],
    assumptions: Sequence[Assumption],
    compute: Callable[[], tuple[Float[np.ndarray, "n"], Mapping[str, float]]],
    reference: str,
    trivial: float,
) -> Curve:
    """The curve whose (value, terms) `compute` yields, or the inapplicable one; `compute` runs only if all hold.

    Raises ValueError unless times are non-negative and increasing.
    """
    if len(times) == 0 or times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"times = {times.tolist()}: at least one time, non-negative and increasing")
    if all(a.holds for a in assumptions):
        value, terms = compute()
        return Curve(name, times, value, dict(terms), tuple(assumptions), reference, trivial)
    return Curve(name, times, np.full(len(times), math.nan), {}, tuple(assumptions), reference, trivial)
