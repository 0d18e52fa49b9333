"""Does `icq diagnose` recover the exact terms?  python -m audits.recovery --seeds 100

Every seed is a workflow of its own with a simulated log of its own, written to a file, read back and diagnosed; the
exact terms come from the analysis of the workflow.  A term that is not estimated is not recovered.
"""

from __future__ import annotations

import os

# Before NumPy loads: two BLAS threads on a busy two-core machine are far slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from estimators import approximation, interface, td_noise
from estimators.logs import simulate
from estimators.logs.reader import read
from estimators.logs.writer import LogWriter
from estimators.statistics.estimate import Estimate
from icq.display import Fact, Shown, number
from icq.exact import Analysis, analyse
from icq_bounds.diagnosis.diagnosis import diagnose, root
from icq_bounds.sweep import engine
from icq_bounds.sweep.families import DialsFamily

NEEDED = 0.93  # of the seeds
EVERY = "all three"


@dataclass(frozen=True)
class RecoveryOptions:
    """Count in how many seeds the exact terms lie within the intervals of a diagnosis of a simulated log."""

    seeds: int = 100
    """Workflows, each with one log."""
    first: int = 0
    """The first seed."""
    handoffs: int = 200_000
    """Rows of every log."""
    agents: int = 10
    """Agents of every workflow."""
    gap: float = 1.0
    """What the interfaces hide, in [0, 1]."""
    same_workflow: bool = False
    """Seeds tell only logs apart, of one workflow."""
    jobs: int = 2
    """Processes."""


@dataclass(frozen=True)
class Recovery(Shown):
    """The estimated terms of one log, and the exact ones."""

    seed: int
    found: Mapping[str, Estimate]
    truth: Mapping[str, float]

    def holds(self, term: str) -> bool:
        """The exact value is inside the interval."""
        e = self.found[term]
        return e.known and bool(e.interval[0] <= self.truth[term] <= e.interval[1])

    def _facts_(self) -> list[Fact]:
        terms = (Fact(f"{term}, exact {number(x)}", self.found[term]) for term, x in self.truth.items())
        return [Fact("seed", self.seed), *terms]


def truth(a: Analysis, handoffs: int) -> dict[str, float]:
    """The exact terms of a workflow; the residual is that of so many handoffs."""
    return {
        "interface": interface.interface_gap(a).value, "approximation": approximation.class_error(a).value,
        "residual": root(td_noise.residual_constant(a), handoffs).value,
    }  # fmt: skip


@dataclass(frozen=True)
class RecoveryTrial:
    """A job: simulate a log, write it, read it, diagnose it."""

    family: DialsFamily
    handoffs: int
    seed: int

    def label(self) -> str:
        """A short name for progress lines."""
        return f"seed {self.seed}"

    def program(self) -> Hashable:
        """One for all."""
        return self.handoffs

    def run(self) -> Recovery:
        """Estimates beside the truth."""
        a = analyse(self.family.workflow())
        with TemporaryDirectory() as folder:
            path = Path(folder) / "log.parquet"
            with LogWriter(path, gamma=float(a.smdp.gamma), chained=True) as writer:
                for log in simulate.pieces(a, self.handoffs, seed=self.seed, q=a.q_bar):
                    writer.write(log)
            log, _ = read(path)
        return Recovery(self.seed, diagnose(log).terms, truth(a, self.handoffs))


def counts(found: Iterable[Recovery]) -> dict[str, int]:
    """Seeds in which each term, and all of them at once, are recovered."""
    every = list(found)
    terms = list(every[0].truth)
    held = {term: sum(r.holds(term) for r in every) for term in terms}
    return held | {EVERY: sum(all(r.holds(term) for term in terms) for r in every)}


def table(found: list[Recovery]) -> Table:
    """Counts, and how far the estimates are off."""
    out = Table("term", "recovered", "no estimate", "exact (mean)", "estimate (mean)", "half width (mean)")
    for term, held in counts(found).items():
        if term == EVERY:
            out.add_row(term, f"{held} of {len(found)}", "", "", "", "")
            continue
        good = [r for r in found if r.found[term].known]
        ends = [(e.interval[1] - e.interval[0]) / 2 for r in good for e in [r.found[term]]]
        means = [np.mean([r.truth[term] for r in good]), np.mean([r.found[term].value for r in good]), np.mean(ends)]
        shown = [f"{m:.4g}" for m in means] if good else ["-"] * 3
        out.add_row(term, f"{held} of {len(found)}", str(len(found) - len(good)), *shown)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when the terms are recovered together in fewer seeds than needed."""
    options = tyro.cli(RecoveryOptions, args=arguments, prog="python -m audits.recovery")
    if options.seeds < 1:
        print("recovery: error: seeds must be at least 1", file=sys.stderr)
        return 2
    family = DialsFamily(agents=options.agents, gap=options.gap)
    seeds = range(options.first, options.first + options.seeds)
    trials = [
        RecoveryTrial(family if options.same_workflow else replace(family, seed=s), options.handoffs, s) for s in seeds
    ]
    done = engine.run_all(trials, None, engine.processes(options.jobs), Console(stderr=True), noun="seeds")
    found = [done[trial] for trial in trials]
    console = Console()
    console.print(table(found))
    for r in found:
        for term, e in r.found.items():
            if not r.holds(term):
                console.print(f"seed {r.seed}: {term} is {r.truth[term]:.6g}, said {e}", soft_wrap=True, markup=False)
    return 0 if counts(found)[EVERY] >= NEEDED * len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
