"""Does a 95 % interval hold the truth in 95 % of the cases?  The arithmetic of calibration, whatever is estimated.

A quantity is an estimator and the number it estimates; a source draws independent data sets of any size from a law
whose truth is known.  Every pair is judged by the share of intervals that hold the truth, among the data sets on
which the estimator says that it had enough (`Estimate.known`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from time import process_time
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from estimators.statistics.estimate import Estimate
from icq.display import Fact, Shown

CONFIDENCE = 0.95
BAND = (0.93, 0.98)  # coverage that counts as calibrated
ENOUGH = 20  # numbers below which a row is not judged
SHARE = 0.1  # of data sets with a number below which it is not judged either
FIELDS = ("given", "value", "low", "high", "n_eff", "seconds")


@dataclass(frozen=True)
class Quantity:
    """What is estimated.

    estimate: data -> Estimate; truth: model -> number (NaN where the quantity does not exist).  guaranteed: the
    interval is conservative by construction, so that covering too much is no fault.
    """

    name: str
    estimate: Callable[[Any], Estimate]
    truth: Callable[[Any], float]
    guaranteed: bool = False


@dataclass(frozen=True)
class DataSource:
    """A law with a known truth, and independent data sets drawn from it.

    build: () -> model; draw(model, seeds, size) -> one data set per seed, equal seeds give equal data; cut(data, n):
    its first n records; sizes: the sizes to look at, ascending, in `unit`.
    """

    name: str
    build: Callable[[], Any]
    draw: Callable[[Any, Sequence[int], int], Iterator[Any]]
    cut: Callable[[Any, int], Any]
    sizes: tuple[int, ...]
    unit: str = "handoffs"


@cache
def model(source: DataSource) -> Any:
    """The model of a source, built once per process."""
    return source.build()


class Calibration(Enum):
    """Verdict on one quantity, source and size.

    undecided: outside the band, but within the sampling error of the coverage itself.
    """

    CALIBRATED = "calibrated"
    UNDERCOVERS = "undercovers"
    OVERCOVERS = "overcovers"
    CONSERVATIVE = "conservative"
    UNDECIDED = "undecided"
    TOO_SHORT = "too short"


@dataclass(frozen=True)
class Row(Shown):
    """One quantity on one source at one size, over `replicates` data sets.

    numbers: data sets on which there was a number; hits: intervals that held the truth; coverage_interval:
    Clopper-Pearson; bias with bias_stderr, spread (standard deviation), rmse and width (mean interval length) in the
    unit of the quantity; seconds: mean time of one estimate.
    """

    quantity: str
    source: str
    size: int
    truth: float
    replicates: int
    numbers: int
    hits: int
    bias: float
    bias_stderr: float
    spread: float
    rmse: float
    width: float
    n_eff: float
    seconds: float
    guaranteed: bool = False

    @property
    def coverage(self) -> float:
        """Share of intervals that held the truth, among those that were given."""
        return self.hits / self.numbers if self.numbers else math.nan

    @property
    def coverage_interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the coverage."""
        if not self.numbers:
            return math.nan, math.nan
        found = stats.binomtest(self.hits, self.numbers).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)

    @property
    def verdict(self) -> Calibration:
        """Inside the band or not; too few numbers are not judged."""
        if self.numbers < max(ENOUGH, SHARE * self.replicates):
            return Calibration.TOO_SHORT
        low, high = self.coverage_interval
        if self.coverage < BAND[0]:
            return Calibration.UNDERCOVERS if high < BAND[0] else Calibration.UNDECIDED
        if self.guaranteed:
            return Calibration.CONSERVATIVE
        if self.coverage > BAND[1]:
            return Calibration.OVERCOVERS if low > BAND[1] else Calibration.UNDECIDED
        return Calibration.CALIBRATED

    def _facts_(self) -> list[Fact]:
        return [
            Fact("", self.quantity), Fact("source", self.source), Fact("size", self.size),
            Fact("truth held", f"by {self.hits} of {self.numbers} intervals"), Fact("truth", self.truth),
            Fact("bias", self.bias), Fact("spread", self.spread), Fact("replicates", self.replicates),
        ]  # fmt: skip


def estimates(
    source: DataSource, quantities: Sequence[Quantity], sizes: Sequence[int], seeds: Sequence[int]
) -> Float[np.ndarray, "quantities sizes replicates 6"]:
    """FIELDS of every estimate; given is 1 where the estimator says that it had enough data.

    The data set of a size is the beginning of that of a larger one, so curves over size share their randomness.
    """
    out = np.full((len(quantities), len(sizes), len(seeds), len(FIELDS)), np.nan)
    for r, data in enumerate(source.draw(model(source), seeds, max(sizes))):
        for k, size in enumerate(sizes):
            part = source.cut(data, size)
            for j, quantity in enumerate(quantities):
                start = process_time()
                found = quantity.estimate(part)
                given = float(found.known)
                out[j, k, r] = (given, found.value, *found.interval, found.n_eff, process_time() - start)
    return out


def row(
    quantity: Quantity, source: DataSource, size: int, truth: float, found: Float[np.ndarray, "replicates 6"]
) -> Row:
    """Judge the estimates of one quantity, source and size.

    An estimate that is given but is not a number counts as an interval that missed.
    """
    given, value, low, high, n_eff, seconds = found.T
    said = given == 1
    hits = int(((low <= truth) & (truth <= high))[said].sum())
    error = value[said & np.isfinite(value)] - truth
    count = len(error)
    spread = float(error.std(ddof=1)) if count > 1 else math.nan
    return Row(
        quantity=quantity.name, source=source.name, size=size, truth=truth, replicates=len(found),
        numbers=int(said.sum()), hits=hits, bias=float(error.mean()) if count else math.nan,
        bias_stderr=spread / math.sqrt(max(count, 1)), spread=spread,
        rmse=float(np.sqrt((error**2).mean())) if count else math.nan,
        width=float((high[said] - low[said]).mean()) if said.any() else math.nan, n_eff=float(np.mean(n_eff)),
        seconds=float(seconds.mean()), guaranteed=quantity.guaranteed,
    )  # fmt: skip


def rows(
    source: DataSource, quantities: Sequence[Quantity], sizes: Sequence[int],
    found: Float[np.ndarray, "quantities sizes replicates 6"],
) -> list[Row]:  # fmt: skip
    """Every quantity that exists on a source, at every size."""
    out = []
    for j, quantity in enumerate(quantities):
        truth = float(quantity.truth(model(source)))
        if math.isfinite(truth):
            out += [row(quantity, source, size, truth, found[j, k]) for k, size in enumerate(sizes)]
    return out
