"""The adversary: every lemma's claim on many random instances, and a broken variant of it that has to be caught.

A lemma yields cases, each a bound with the exact (or simulated) left side.  It stands when no case is violated and its
broken variant is violated somewhere on the same cases: a search that cannot find a planted error proves nothing.
docs/theory.md section 6.  Instances come from the caller; the lemmas of sections 3, 4 and 5 are listed in
bounds.adversary.interface, bounds.adversary.approximation and bounds.adversary.residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from bounds.core.bound import Bound, Verdict, verdict
from icq.display import Fact, Shown
from icq.exact import Analysis, analyse
from icq.smdp import ICSMDP

Generator: TypeAlias = Callable[[int], ICSMDP]
SHOWN = 5  # violating seeds kept per lemma


@dataclass(frozen=True)
class Case(Shown):
    """`observed` <= bound, up to the certified numerical error `allowance` of the observation.

    lower: the lower confidence limit of a simulated observation, which alone can convict the bound.
    """

    bound: Bound
    observed: float
    allowance: float = 0.0
    lower: float | None = None

    def violates(self, bound: Bound) -> bool:
        """Whether this observation contradicts the bound.  Being useless is no excuse, so no trivial cap."""
        low = self.observed if self.lower is None else self.lower
        said = verdict(bound, low, max(low, self.observed), math.inf, allowance=self.allowance)
        return said is Verdict.VIOLATED


class Sample:
    """One random instance, with what several lemmas share about it; every lemma draws from its own stream."""

    def __init__(self, seed: int, m: ICSMDP) -> None:
        self.seed = seed
        self.smdp = m

    @cached_property
    def analysis(self) -> Analysis:
        """The exact analysis."""
        return analyse(self.smdp)

    def rng(self, stream: str) -> np.random.Generator:
        """A generator that depends on the seed and the stream's name only."""
        return np.random.default_rng([self.seed, *stream.encode()])


@dataclass(frozen=True)
class Lemma:
    """A statement under attack.

    cases: its claims on one instance.  broken: the bound with an error planted, and `flaw` says which.  stride: it is
    tried on every stride-th instance (expensive ones).
    """

    name: str
    cases: Callable[[Sample], Iterable[Case]]
    broken: Callable[[Bound], Bound]
    flaw: str
    stride: int = 1


@dataclass(frozen=True)
class Tally(Shown):
    """What the search found about one lemma.

    instances: with at least one applicable case; ratios: bound/observed of the cases whose observation is not 0;
    violations and caught count cases; first: seeds of the first violations.
    """

    instances: int = 0
    inapplicable: int = 0
    cases: int = 0
    violations: int = 0
    caught: int = 0
    first: tuple[int, ...] = ()
    ratios: tuple[float, ...] = field(default=(), repr=False)

    @property
    def stands(self) -> bool:
        """Tried, never violated, and the planted error was found."""
        return self.instances > 0 and self.violations == 0 and self.caught > 0

    @property
    def smallest(self) -> float:
        """The smallest bound/observed; NaN when every observation was 0."""
        return min(self.ratios, default=math.nan)

    @property
    def median(self) -> float:
        """The median bound/observed."""
        return float(np.median(self.ratios)) if self.ratios else math.nan

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.instances + other.instances, self.inapplicable + other.inapplicable, self.cases + other.cases,
            self.violations + other.violations, self.caught + other.caught, (self.first + other.first)[:SHOWN],
            self.ratios + other.ratios,
        )  # fmt: skip

    def _facts_(self) -> list[Fact]:
        return [
            Fact("cases", self.cases), Fact("instances", self.instances), Fact("violations", self.violations),
            Fact("planted errors caught", self.caught), Fact("smallest bound over observed", self.smallest),
            Fact("stands", self.stands),
        ]  # fmt: skip


def attack(lemma: Lemma, sample: Sample) -> Tally:
    """One lemma on one instance."""
    cases = list(lemma.cases(sample))
    live = [c for c in cases if c.bound.applicable]
    bad = sum(c.violates(c.bound) for c in live)
    return Tally(
        instances=int(bool(live)),
        inapplicable=int(bool(cases) and not live),
        cases=len(live),
        violations=bad,
        caught=sum(c.violates(lemma.broken(c.bound)) for c in live),
        first=(sample.seed,) if bad else (),
        ratios=tuple(c.bound.value / c.observed for c in live if c.observed > 10 * (c.allowance + c.bound.roundoff)),
    )


def search(lemmas: Sequence[Lemma], generator: Generator, seeds: Iterable[int]) -> dict[str, Tally]:
    """Every lemma on the instance of every seed (of every stride-th seed).

    Raises RuntimeError naming lemma and seed when a lemma's own code fails.
    """
    found = {lemma.name: Tally() for lemma in lemmas}
    for seed in seeds:
        sample = Sample(seed, generator(seed))
        for lemma in lemmas:
            if seed % lemma.stride == 0:
                try:
                    found[lemma.name] += attack(lemma, sample)
                except Exception as error:  # whatever it is, it is told with the lemma and the seed
                    raise RuntimeError(f"lemma {lemma.name}, seed {seed}: {error}") from error
    return found


def merged(parts: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
    """The tallies of several searches together."""
    total: dict[str, Tally] = {}
    for part in parts:
        for name, tally in part.items():
            total[name] = total.get(name, Tally()) + tally
    return total


def scaled(factor: float) -> Callable[[Bound], Bound]:
    """The planted error of a lost factor."""
    return lambda bound: replace(bound, value=factor * bound.value) if bound.applicable else bound


def reduced(compute: Callable[[dict[str, float]], float]) -> Callable[[Bound], Bound]:
    """The planted error of another formula of the same terms."""
    return lambda bound: replace(bound, value=compute(dict(bound.terms))) if bound.applicable else bound
