"""Coverage and bias of every estimator: make calibrate, or python -m audits.calibration.

Writes docs/calibration.md and its figures.  Data sets are drawn and estimated in blocks; every finished block is kept,
so the same command goes on where it was stopped.
"""

from __future__ import annotations

import os

# Before NumPy loads: two BLAS threads on a busy two-core machine are far slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from audits.calibration import report
from audits.calibration.blocks import BLOCK, calibrate, code
from audits.calibration.suite import SUITE, Study
from icq_bounds.errors import Interrupted, WorkError
from icq_bounds.sweep.store import Store

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class CalibrationOptions:
    """Measure coverage and bias of every estimator on workflows whose truth is known.

    Interrupted? Run the same command again: finished blocks are kept in OUT/blocks.
    """

    preset: Literal["full", "smoke"] = "full"
    """full: 1 000 data sets of every size, about half an hour on two cores; smoke: few and short, under a minute."""
    replicates: int | None = None
    """Data sets per source (left out: by the preset)."""
    largest: int | None = None
    """Leave out larger sizes (left out: by the preset)."""
    only: tuple[str, ...] = ()
    """Only quantities with one of these words in their name."""
    sources: tuple[str, ...] = ()
    """Only sources with one of these words in their name."""
    jobs: int = 2
    """Processes."""
    out: Path = Path("results/calibration")
    """Folder for finished blocks, and for the page unless it is the complete one."""
    docs: Path = DOCS
    """Where the complete page goes."""


def chosen(options: CalibrationOptions) -> tuple[Study, ...]:
    """The studies asked for.  Raises ValueError when nothing is left."""

    def wanted(name: str, words: tuple[str, ...]) -> bool:
        return not words or any(word in name for word in words)

    found = (
        Study(s.source, tuple(q for q in s.quantities if wanted(q.name, options.only)))
        for s in SUITE
        if wanted(s.source.name, options.sources)
    )
    left = tuple(study for study in found if study.quantities)
    if not left:
        names = sorted({q.name for s in SUITE for q in s.quantities})
        raise ValueError(f"only, sources: nothing left; quantities: {', '.join(names)}; sources: "
                         f"{', '.join(s.source.name for s in SUITE)}")  # fmt: skip
    return left


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when an interval covers too little or too much."""
    options = tyro.cli(CalibrationOptions, args=arguments, prog="python -m audits.calibration")
    full = options.preset == "full"
    replicates = options.replicates or (report.FULL if full else 2 * BLOCK)
    largest = options.largest or (None if full else 3000)
    whole = full and not (options.replicates or options.largest or options.only or options.sources)
    try:
        found = calibrate(chosen(options), replicates, Store(options.out / "blocks", code()), options.jobs,
                          largest=largest, console=Console(stderr=True))  # fmt: skip
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except (ValueError, WorkError) as error:
        print(f"calibrate: error: {error}", file=sys.stderr)
        return 2
    command = "make calibrate" if whole else " ".join(["python -m audits.calibration", *(arguments or sys.argv[1:])])
    folder = options.docs if whole else options.out
    report.write(found, folder, command, replicates)
    Console().print(report.summary(found))
    print(f"{folder / 'calibration.md'}: {len(found)} rows")
    return 1 if any(report.at_fault(row) for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
