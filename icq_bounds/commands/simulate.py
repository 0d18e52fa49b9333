"""The command `icq simulate`: the handoff log of a simulated run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from tyro.conf import Positional

from estimators.logs.simulate import PIECE, pieces
from estimators.logs.writer import LogWriter
from icq.exact import analyse
from icq.smdp import ICSMDP
from icq_bounds.console import says


@dataclass(frozen=True)
class SimulateOptions:
    """Write a handoff log of an instance, in the format that docs/logs.md describes.

    The log ends a task and begins the next one as one continuing run; the same seed gives the same log.

    Example: icq simulate m.npz --handoffs 10000000 --out log.parquet
    """

    file: Positional[Path]
    """An instance (.npz)."""
    handoffs: int
    """Rows of the log."""
    out: Path
    """Where to write it: .parquet, or .jsonl for JSON Lines."""
    context: bool = True
    """Log the global state as context; without it nothing can tell the interface gap from a log."""
    scalar: bool = True
    """Log the scalar sent back: the exact interface value Vbar of the next observation."""
    seed: int = 0
    """Of the run."""


def run(options: SimulateOptions, console: Console) -> None:
    """Write the log of a simulated run.  An interrupted run leaves no file."""
    begun = time.perf_counter()
    a = analyse(ICSMDP.load(options.file))
    columns = (says(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    q = a.q_bar if options.scalar else None
    tasks = 0
    with (
        LogWriter(options.out, gamma=float(a.smdp.gamma), chained=True) as writer,
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        bar = progress.add_task("handoffs", total=options.handoffs)
        for log in pieces(a, options.handoffs, seed=options.seed, context=options.context, q=q, piece=PIECE):
            writer.write(log)
            progress.advance(bar, len(log))
            tasks = int(log.task[-1]) + 1
    size = options.out.stat().st_size / 1e6
    context = "with" if options.context else "without"
    console.print(
        f"{options.out}: {options.handoffs} handoffs, {tasks} tasks, {context} context, "
        f"{size:.1f} MB, {time.perf_counter() - begun:.1f} s"
    )
