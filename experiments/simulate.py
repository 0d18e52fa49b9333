"""Handoff logs of an instance: one trajectory of any length, sampled and written piece by piece.

The log is that of `icq.rollout.trajectory` with the same seed, whatever the size of the pieces.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from estimators.log_writer import LogWriter
from estimators.logs import Log, from_handoffs
from icq.exact import Analysis, analyse
from icq.rollout import BLOCK, initial_state, onward, stream_words, tables
from icq.smdp import ICSMDP

if TYPE_CHECKING:
    from experiments.cli import Simulate

PIECE = 1 << 19  # handoffs in memory at once


def pieces(
    a: Analysis, handoffs: int, *, seed: int, context: bool = True, q: Float[np.ndarray, "O A"] | None = None,
    piece: int = PIECE,
) -> Iterator[Log]:  # fmt: skip
    """The log of one run in consecutive pieces, each continuing the one before.

    context: log the global state.  q: table whose maximum over the available options is the scalar sent back; None
    logs no scalar.  Raises ValueError for fewer than one handoff.
    """
    if handoffs < 1:
        raise ValueError(f"handoffs = {handoffs} must be at least 1")
    t = tables(a)
    start, run = jax.random.split(jax.random.key(seed))
    state, words = initial_state(t, start), stream_words(run)
    blocks = -(-min(piece, handoffs) // BLOCK)
    task, k = 0, 0  # of the next handoff
    for first in range(0, -(-handoffs // BLOCK), blocks):
        state, drawn = onward(t, words, False, state, jnp.int32(first * BLOCK), blocks)
        size = min(blocks * BLOCK, handoffs - first * BLOCK)
        kept = jax.tree.map(partial(_first, size), drawn)
        log = from_handoffs(a.smdp, kept, context=context, q=q)
        log = replace(
            log, task=log.task + task, k=log.k + np.where(log.task == 0, k, 0),
            follows=np.ones(size, bool) if first else log.follows,
        )  # fmt: skip
        yield log
        ended = bool(log.done[-1])
        task, k = int(log.task[-1]) + ended, 0 if ended else int(log.k[-1]) + 1


def _first(size: int, x: Array) -> Array:
    return x[:size]


def simulate_file(options: Simulate, console: Console) -> None:
    """Write the log of a simulated run.  An interrupted run leaves no file."""
    begun = time.perf_counter()
    a = analyse(ICSMDP.load(options.file))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
        f"{size:.1f} MB, {time.perf_counter() - begun:.1f} s",
        soft_wrap=True,
    )
