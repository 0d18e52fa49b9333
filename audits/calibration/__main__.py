"""Coverage and bias of every estimator: make calibrate, or python -m audits.calibration.

Writes docs/calibration.md and its figures.  Data sets are drawn and estimated in blocks; every finished block is kept,
so the same command goes on where it was stopped.
"""

from __future__ import annotations

import os

# Before NumPy loads: two BLAS threads on a busy two-core machine are far slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hashlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import jax
import joblib
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from audits.calibration import report
from audits.calibration.rows import Quantity, Row, Source, estimates, rows
from audits.calibration.suite import SUITE, Study
from icq_bounds.sweep.store import Arrays, Store, code_version

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = 50  # data sets of one job; a multiple of them keeps one compiled program per source


Work: TypeAlias = "dict[Block, tuple[Source, tuple[Quantity, ...]]]"


@dataclass(frozen=True)
class Block:
    """A job: data sets first..first+count-1 of one source, every quantity at every size."""

    source: str
    quantities: tuple[str, ...]
    sizes: tuple[int, ...]
    first: int
    count: int


def code() -> str:
    """A hash of all code that can change a number here."""
    own = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("calibrate*.py")))
    return hashlib.sha256(code_version().encode() + own).hexdigest()[:16]


def compute(source: Source, quantities: Sequence[Quantity], block: Block, compiled: str = "") -> tuple[Block, Arrays]:
    """Run a block; workers share compiled programs through a folder."""
    if compiled:
        jax.config.update("jax_compilation_cache_dir", compiled)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    seeds = range(block.first, block.first + block.count)
    return block, {"found": estimates(source, quantities, block.sizes, seeds)}


def calibrate(
    studies: Sequence[Study], replicates: int, store: Store, jobs: int, *, largest: int | None = None,
    console: Console | None = None,
) -> list[Row]:  # fmt: skip
    """Every row of every study; blocks that are in the store are not computed again.

    largest: sizes beyond are left out.
    """
    work: Work = {}
    for study in studies:
        sizes = tuple(n for n in study.source.sizes if largest is None or n <= largest)
        names = tuple(q.name for q in study.quantities)
        for first in range(0, replicates, BLOCK):
            block = Block(study.source.name, names, sizes, first, min(BLOCK, replicates - first))
            work[block] = (study.source, study.quantities)
    done = {block: found["found"] for block in work if (found := store.get(block)) is not None}
    missing = sorted((block for block in work if block not in done), key=lambda block: block.first)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console or Console(quiet=True)) as progress, TemporaryDirectory() as compiled:
        bar = progress.add_task("starting", total=len(work), completed=len(done))
        for block, arrays in _until_done(work, missing, jobs, compiled if jobs > 1 else ""):
            store.put(block, arrays)
            done[block] = arrays["found"]
            progress.update(bar, advance=1, description=f"{block.source}, data sets from {block.first}")
    out: list[Row] = []
    for study in studies:
        mine = [block for block in work if block.source == study.source.name]
        together = np.concatenate([done[block] for block in mine], axis=2)
        out += rows(study.source, study.quantities, mine[0].sizes, together)
    return out


def _until_done(work: Work, missing: Sequence[Block], jobs: int, compiled: str) -> Iterator[tuple[Block, Arrays]]:
    """The results of the missing blocks; when a process of the pool dies, the rest goes to a new one.

    Raises BrokenProcessPool when a pool dies before it finished anything: its blocks kill it.
    """
    left = dict.fromkeys(missing)
    while left:
        before = len(left)
        pool = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        try:
            for block, arrays in pool(joblib.delayed(compute)(*work[block], block, compiled) for block in list(left)):
                del left[block]
                yield block, arrays
        except BrokenProcessPool:
            if len(left) == before:
                raise
            warnings.warn(f"a worker died; {len(left)} blocks go to new ones", stacklevel=2)


@dataclass(frozen=True)
class Options:
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


def chosen(options: Options) -> tuple[Study, ...]:
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
    options = tyro.cli(Options, args=arguments, prog="python -m audits.calibration")
    full = options.preset == "full"
    replicates = options.replicates or (report.FULL if full else 2 * BLOCK)
    largest = options.largest or (None if full else 3000)
    whole = full and not (options.replicates or options.largest or options.only or options.sources)
    try:
        found = calibrate(chosen(options), replicates, Store(options.out / "blocks", code()), options.jobs,
                          largest=largest, console=Console(stderr=True))  # fmt: skip
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except ValueError as error:
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
