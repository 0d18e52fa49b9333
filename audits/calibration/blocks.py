"""The work of a calibration: data sets are drawn and estimated in blocks, and every finished block is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from audits.calibration.rows import Row, estimates, rows
from audits.calibration.suite import Study
from icq_bounds.sweep import engine
from icq_bounds.sweep.store import Arrays, Store, code_version

BLOCK = 50  # data sets of one job; a multiple of them keeps one compiled program per source


@dataclass(frozen=True)
class DataSets:
    """A job: data sets first..first+count-1 of one source, every quantity at every size.

    Names tell jobs apart; `study` is what they stand for.
    """

    source: str
    quantities: tuple[str, ...]
    sizes: tuple[int, ...]
    first: int
    count: int
    study: Study = field(repr=False, compare=False)

    def label(self) -> str:
        """A short name for progress lines."""
        return f"{self.source}, data sets from {self.first}"

    def program(self) -> Hashable:
        """Blocks of one source run the same programs."""
        return self.source

    def run(self) -> Arrays:
        """`found`: the estimates."""
        seeds = range(self.first, self.first + self.count)
        return {"found": estimates(self.study.source, self.study.quantities, self.sizes, seeds)}


def code() -> str:
    """A hash of all code that can change a number here."""
    own = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(code_version().encode() + own).hexdigest()[:16]


def calibrate(
    studies: Sequence[Study], replicates: int, store: Store, jobs: int, *, largest: int | None = None,
    console: Console | None = None,
) -> list[Row]:  # fmt: skip
    """Every row of every study; blocks that are in the store are not computed again.

    largest: sizes beyond are left out.  Raises as `icq_bounds.sweep.engine.run_all` does.
    """
    work: dict[str, list[DataSets]] = {}
    for study in studies:
        sizes = tuple(n for n in study.source.sizes if largest is None or n <= largest)
        names = tuple(q.name for q in study.quantities)
        work[study.source.name] = [
            DataSets(study.source.name, names, sizes, first, min(BLOCK, replicates - first), study)
            for first in range(0, replicates, BLOCK)
        ]
    every = sorted((block for blocks in work.values() for block in blocks), key=lambda block: block.first)
    done = engine.run_all(every, store, engine.processes(jobs), console, noun="blocks")
    out: list[Row] = []
    for study in studies:
        blocks = work[study.source.name]
        together = np.concatenate([done[block]["found"] for block in blocks], axis=2)
        out += rows(study.source, study.quantities, blocks[0].sizes, together)
    return out
