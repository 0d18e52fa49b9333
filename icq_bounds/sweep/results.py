"""What is read off the results of cells: checkpoints, values lost, statements beside what was observed, verdicts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from bounds.core.bound import Verdict
from estimators.decomposition import TERMS
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate
from icq.display import Fact, Shown
from icq.reason import Reason
from icq_bounds.sweep.store import Arrays

Stated: TypeAlias = Literal["bound", "certificate"]
KINDS: tuple[Stated, ...] = ("bound", "certificate")
DIGITS = 9  # to which two statements on a term that agree are one


def octaves(handoffs: int, first: int = 1024) -> tuple[int, ...]:
    """Checkpoints first, 2 first, 4 first, ... up to `handoffs`."""
    return tuple(first * 2**k for k in range(int(np.log2(handoffs / first)) + 1))


def half_decades(handoffs: int, first: int = 10_000) -> tuple[int, ...]:
    """Checkpoints 10k, 30k, 100k, 300k, ... up to `handoffs`."""
    grid = (first * 10 ** (k // 2) * (3 if k % 2 else 1) for k in count())
    return tuple(takewhile(lambda k: k <= handoffs, grid))


def lost(value: Float[np.ndarray, "R"], oracle: float) -> Estimate:
    """Value lost against the oracle, in reward, over runs: a loss has a meaning whatever the sign of values.

    No value exceeds that of the oracle, so the interval is cut at 0.  Runs that diverged have no number.
    """
    loss = np.maximum(oracle - np.asarray(value, np.float64), 0.0)
    if not np.isfinite(loss).all():
        return estimate.missing(Reason.NOT_FINITE, "the value of a run", n_eff=float(len(loss)))
    e = estimate.mean(loss)
    return e if not e.known else replace(e, interval=(max(e.interval[0], 0.0), e.interval[1]))


def gained(result: Arrays) -> Estimate:
    """Per cent of the way from random options to the oracle; negative below random.

    Without a number where that way is rounding and solver error.
    """
    oracle, random = float(result["value_oracle"]), float(result["value_random"])
    e, way = lost(result["value"], oracle), oracle - random
    if not e.known:
        return e
    if not way > float(result["value_slack"]):
        return estimate.missing(Reason.NOTHING_TO_GAIN, n_eff=e.n_eff)
    value, *ends = (100 * (1 - x / way) for x in (e.value, *e.interval))
    return replace(e, value=value, stderr=100 * e.stderr / way, interval=(ends[1], ends[0]))


def tally(said: np.ndarray) -> dict[str, int]:
    """How often each verdict was said."""
    names, counts = np.unique(said, return_counts=True)
    return {str(n): int(c) for n, c in zip(names, counts, strict=True)}


@dataclass(frozen=True)
class Statements(Shown):
    """Statements of one kind on one term, flat, each beside what was observed, in the d-norm.

    A bound stands beside a root mean square over runs, a certificate beside one run.  value is NaN where there is no
    number; slack: allowance for numerical error; verdict: in words.
    """

    observed: Float[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]
    slack: Float[np.ndarray, "n"]
    verdict: np.ndarray

    @property
    def applicable(self) -> Bool[np.ndarray, "n"]:
        """Which have a number."""
        return np.isfinite(self.value)

    @property
    def comparable(self) -> Bool[np.ndarray, "n"]:
        """Which have a ratio of statement to error: a number, and an error above the numerical slack."""
        return self.applicable & (self.observed > self.slack)

    @property
    def ratios(self) -> Float[np.ndarray, "m"]:
        """Statement over error of those that have a ratio."""
        return self.value[self.comparable] / self.observed[self.comparable]

    @property
    def distinct(self) -> int:
        """How many different statements there are: numbers that differ within DIGITS digits."""
        return len({f"{x:.{DIGITS - 1}e}" for x in self.value[self.applicable].tolist()})

    @property
    def violations(self) -> int:
        """How many are violated."""
        return int((self.verdict == Verdict.VIOLATED.value).sum())

    def _facts_(self) -> list[Fact]:
        return [Fact("records", int(self.applicable.sum())), Fact("distinct", self.distinct),
                Fact("violations", self.violations)]  # fmt: skip


def statements(results: Collection[Arrays], kind: Stated, term: str) -> Statements:
    """Every statement of a kind on a term in the results of cells; baselines have none."""
    parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, "<U12"))]
    for r in results:
        if f"observed_{term}" not in r:
            continue
        observed = r[f"observed_{term}"]
        if kind == "bound":
            observed = np.sqrt((observed**2).mean(axis=1))
        rest = (r[f"{kind}_{term}"], r[f"{kind}_slack_{term}"], r[f"{kind}_verdict_{term}"])
        parts.append(tuple(np.ravel(x) for x in (observed, *rest)))
    return Statements(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def violations(results: Collection[Arrays]) -> int:
    """How many statements of any kind are violated."""
    return sum(statements(results, kind, term).violations for kind in KINDS for term in TERMS)
