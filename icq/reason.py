"""Why there is no number: one reason of an enumeration whose values are sentences, where, and what would help.

Code decides on the reason; only people read the sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Kinds of missing numbers; the value is the sentence that people read."""

    NO_FIXED_POINT = "the class has no fixed point that was found"
    SINGULAR = "the linear equations are singular"
    DEPENDENT = "the features are linearly dependent on visited pairs"
    BAD_METRIC = "the metric is not symmetric and positive definite"
    TOO_LARGE = "too large to be solved for densely"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Why:
    """reason: which kind; place: where, in words; need: what would help, in words.  Its text is the whole sentence."""

    reason: Reason
    place: str = ""
    need: str = ""

    def __str__(self) -> str:
        text = f"{self.reason.value} ({self.place})" if self.place else self.reason.value
        return f"{text}: {self.need}" if self.need else text


class NoNumber(ValueError):
    """Raised inside a computation that has no result; at the border it becomes an estimate without a value."""

    def __init__(self, reason: Reason, place: str = "", need: str = "") -> None:
        self.why = Why(reason, place, need)
        super().__init__(str(self.why))
