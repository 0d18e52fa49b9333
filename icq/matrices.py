"""IC-SMDPs from transition matrices, dense or sparse.  Notation: docs/theory.md section 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from icq import coerce, laws
from icq.coerce import Numbers
from icq.described import BuildError
from icq.fields import LARGEST, REWARD_LIMIT
from icq.smdp import ICSMDP

Sparse: TypeAlias = sp.sparray | sp.spmatrix


def from_matrices(
    transition: Numbers | Sequence[Sparse],
    reward: Numbers,
    *,
    observation: Numbers,
    agent: Numbers,
    gamma: float,
    duration: Numbers | None = None,
) -> ICSMDP:
    """An endless workflow from transition[a, s, s'], expected rewards [S, A] and durations [S, A] (1 when left out).

    transition: an array, or one matrix [S, S] for every option, which may be sparse.  observation [S] of each state,
    agent [O] that acts on each observation.  Every option is available everywhere.  Rows in single precision are
    divided by their sums, with the warning `laws.Normalised`.  Raises BuildError, and ICSMDPError for the rest.
    """
    matrices = _matrices(transition)
    pairs = (matrices[0].shape[0], len(matrices))
    try:
        earned = coerce.shaped("reward", reward, "SA", pairs)
        lasts = np.ones(pairs) if duration is None else coerce.shaped("duration", duration, "SA", pairs)
    except ValueError as error:
        raise BuildError(str(error)) from error
    _refuse("reward", earned, ~np.isfinite(earned), "is not finite")
    _refuse("reward", earned, np.abs(earned) > REWARD_LIMIT, f"is beyond {REWARD_LIMIT:g}; choose a larger unit")
    whole = (lasts >= 1) & (lasts <= LARGEST) & (lasts == np.floor(lasts))
    _refuse("duration", lasts, ~whole, f"is no whole number of primitive steps from 1 to {LARGEST}")
    listed = [_outcomes(a, matrix) for a, matrix in enumerate(matrices)]
    shape = (*pairs, max(part.shape[1] for part, _ in listed))
    prob, following = np.zeros(shape), np.zeros(shape, np.int64)
    for a, (law, where) in enumerate(listed):
        prob[:, a, : law.shape[1]], following[:, a, : law.shape[1]] = law, where
    return ICSMDP.create(
        prob=prob, next_state=following, duration=np.broadcast_to(lasts[..., None], shape),
        reward=np.broadcast_to(earned[..., None], shape), observation=observation, agent=agent, gamma=gamma,
    )  # fmt: skip


def _matrices(transition: Any) -> list[Any]:
    """One matrix for every option, in the precision it came in.  Raises BuildError on shapes and types."""
    if sp.issparse(transition):
        raise BuildError(f"transition: one matrix of shape {transition.shape}; give a list of one for every option")
    if isinstance(transition, Sequence) and any(sp.issparse(part) for part in transition):
        if odd := [a for a, part in enumerate(transition) if not sp.issparse(part)]:
            raise BuildError(f"transition[{odd[0]}]: not sparse, as another one is; give all in one kind")
        found = [sp.coo_array(part) for part in transition]
        for a, part in enumerate(found):
            part.sum_duplicates()
            if part.ndim != 2 or part.shape != (found[0].shape[0],) * 2 or part.dtype.kind not in "biuf":
                size = found[0].shape[0]
                raise BuildError(f"transition[{a}]: shape {part.shape}, expected real numbers (S, S) = {(size, size)}")
        return found
    try:
        coerce.numbers("transition", transition)
    except ValueError as error:
        raise BuildError(str(error)) from error
    law = np.asarray(transition)
    if law.ndim != 3 or law.shape[1] != law.shape[2] or not law.size:
        raise BuildError(f"transition: shape {law.shape}, expected (A, S, S): one matrix for every option")
    return list(law)


def _outcomes(a: int, matrix: Any) -> tuple[Float[np.ndarray, "S B"], Int[np.ndarray, "S B"]]:
    """Where an option may lead from every state, and how likely.  Raises BuildError naming transition[a, s].

    matrix [S, S]: an array, or a sparse one in coordinates.
    """
    size = matrix.shape[0]
    if not isinstance(matrix, np.ndarray):
        order = np.lexsort((matrix.col, matrix.row))
        source, target, chance = matrix.row[order], matrix.col[order], matrix.data[order]
    else:
        source, target = np.nonzero(matrix)
        chance = matrix[source, target]
    if (bad := ~(np.isfinite(chance) & (chance >= 0))).any():
        i = int(np.argmax(bad))
        raise BuildError(f"transition[{a}, {source[i]}, {target[i]}] = {chance[i]} is not a probability")
    count = np.bincount(source, minlength=size)
    shape = (size, max(int(count.max()), 1))
    prob, following = np.zeros(shape, chance.dtype), np.zeros(shape, int)
    place = np.arange(len(source)) - (np.cumsum(count) - count)[source]
    prob[source, place], following[source, place] = chance, target
    total, limit = prob.sum(1, dtype=np.float64), laws.tolerance(chance.dtype, prob.shape[1])
    if (bad := laws.off(total, limit)).any():
        s = int(np.argmax(bad))
        raise BuildError(f"transition[{a}, {s}] sums to {total[s]:.9g}; {laws.remedy(float(total[s]), limit)}")
    return laws.normalised("transition", prob), following


def _refuse(name: str, table: Float[np.ndarray, "S A"], bad: np.ndarray, why: str) -> None:
    if bad.any():
        s, a = map(int, np.argwhere(bad)[0])
        raise BuildError(f"{name}[{s}, {a}] = {table[s, a]:g} {why}")
