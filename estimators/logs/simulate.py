"""Handoff logs of an instance: one trajectory of any length, sampled piece by piece.

The log is that of `icq.learn.sampling.trajectory` with the same seed, whatever the size of the pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from estimators.logs.log import Log, from_handoffs
from icq.coerce import Instance, Numbers, count, room, shaped
from icq.exact import Analysis, analyse
from icq.learn.sampling import BLOCK, initial_state, onward, stream_words, tables

PIECE = 1 << 19  # handoffs in memory at once
ROW = 100  # bytes of a handoff in memory


def pieces(
    a: Analysis, handoffs: int, *, seed: int, context: bool = True, q: Numbers | None = None,
    piece: int = PIECE,
) -> Iterator[Log]:  # fmt: skip
    """The log of one run in consecutive pieces, each continuing the one before.

    context: log the global state.  q: table whose maximum over the available options is the scalar sent back; None
    logs no scalar.  Raises ValueError for fewer than one handoff.
    """
    handoffs, seed = count("handoffs", handoffs), count("seed", seed, least=0, most=2**32 - 1)
    q = None if q is None else shaped("q", q, "OA", a.d_pair.shape)
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


def simulate(model: Instance, handoffs: int, *, seed: int = 0, context: bool = True, q: Numbers | None = None) -> Log:
    """The log of one run, all of it in memory; arguments as in `pieces`.  Raises ValueError as `pieces` does."""
    size = count("handoffs", handoffs)
    room(f"handoffs = {size}: a log of them", ROW * size)
    (log,) = pieces(analyse(model), size, seed=seed, context=context, q=q, piece=size)
    return log


def _first(size: int, x: Array) -> Array:
    return x[:size]
