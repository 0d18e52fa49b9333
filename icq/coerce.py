"""What public functions are given, as what they work on: lists, numbers, NumPy and JAX arrays as NumPy arrays of the
expected shape, workflows as instances.

Anything else is refused with the name of the argument, what was expected and what to do.  Nothing is ever broadcast:
a table with one column where two options exist is a mistake, and its result would be a number that looks right.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from icq.archive import memory, size, words
from icq.smdp import ICSMDP


@runtime_checkable
class Described(Protocol):
    """What carries an instance: a `Workflow` with the names behind its codes, or an `Analysis`."""

    @property
    def smdp(self) -> ICSMDP:
        """The instance."""
        ...


Instance: TypeAlias = ICSMDP | Described
Numbers: TypeAlias = ArrayLike | Sequence[Any]  # what becomes an array: numbers, lists, NumPy and JAX arrays
MAX = float(np.finfo(np.float64).max)
MOST = 2_000_000_000  # of anything that is counted: handoffs are numbered in 32 bits, a block beyond the last included
ROWS = {"S": "global state", "O": "observation", "A": "option", "B": "outcome"}


def instance(value: Instance, name: str = "model") -> ICSMDP:
    """The instance itself, or that of a workflow.  Raises TypeError for anything else, ValueError for a batch."""
    found = getattr(value, "smdp", value)
    if not isinstance(found, ICSMDP):
        path = isinstance(value, str | os.PathLike)
        hint = "read the file with load()" if path else "from_functions, from_table and from_matrices make one"
        raise TypeError(f"{name}: a {type(value).__name__}, expected an ICSMDP or a Workflow; {hint}")
    if np.ndim(found.prob) != 3:
        raise ValueError(f"{name}: a batch of {len(found.prob)}, expected one instance: icq.smdp.index(it, 0) say")
    return found


def numbers(name: str, value: Any) -> Float[np.ndarray, "..."]:
    """Real numbers as float64, in the shape they have.  Raises ValueError for anything else."""
    if sp.issparse(value):
        raise ValueError(f"{name}: a sparse matrix, expected a dense table; .toarray() makes one")
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: some numbers are masked; fill them in, masked entries have no value")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: not an array; give rows of equal length") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: {words(array.dtype)}, not real numbers; give integers or floats")
    return array.astype(np.float64, copy=False)


def shaped(
    name: str, value: Any, axes: str, sizes: tuple[int, ...], *, batch: bool = False
) -> Float[np.ndarray, "..."]:
    """Real numbers of exactly these sizes, with any leading axes for `batch`.  Raises ValueError for anything else.

    axes: the letter of each axis (docs/theory.md section 1).
    """
    array, want = numbers(name, value), tuple(sizes)
    have = array.shape[max(array.ndim - len(want), 0) :] if batch else array.shape
    if have == want:
        return array
    letters = ", ".join(["...", *axes] if batch else axes)
    if have == want[::-1]:
        remedy = "transpose it"
    elif not batch and array.shape[-len(want) :] == want:
        remedy = f"one table at a time, {name}[0] say"
    else:
        remedy = "give one number for every " + " and ".join(ROWS.get(letter, letter) for letter in axes)
    raise ValueError(f"{name}: shape {array.shape}, expected ({letters}) = {want}; {remedy}")


def count(name: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """A whole number, also one that is written 1e6.  Raises ValueError for anything else and outside least..most."""
    number = value.item() if isinstance(value, np.generic | np.ndarray | jax.Array) and np.size(value) == 1 else value
    whole = isinstance(number, int | float) and not isinstance(number, bool)
    if not whole or (isinstance(number, float) and not number.is_integer()):
        raise ValueError(f"{name} = {value!r} is not a whole number")
    if number < least:
        raise ValueError(f"{name} = {value!r} must be at least {least}")
    if number > most:
        raise ValueError(f"{name} = {value!r} must be at most {most}")
    return int(number)


def real(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from low to high.  Raises ValueError for anything else."""
    array = numbers(name, value)
    if array.ndim or not np.isfinite(array):
        raise ValueError(f"{name} = {value!r} is not a finite number")
    if not low <= array <= high:
        raise ValueError(f"{name} = {value!r} is outside [{low:g}, {high:g}]")
    return float(array)


def within(name: str, value: Any, low: float, high: float = MAX) -> None:
    """Raise ValueError for a number, or one of an array, outside [low, high]; tracers and other objects pass."""
    plain = isinstance(value, int | float | np.ndarray | np.generic | jax.Array) and not isinstance(value, bool)
    if not plain or isinstance(value, jax.core.Tracer):
        return
    array = numbers(name, value)
    if (bad := ~((array >= low) & (array <= high))).any():
        raise ValueError(f"{name} = {np.ravel(array)[np.ravel(bad)][0]:g} is outside {low:g}..{high:g}")


def codes(name: str, value: Any, length: int | None, among: int) -> Int[np.ndarray, "n"]:
    """Codes 0..among-1, `length` of them (None: any number).  Raises ValueError naming the first bad one."""
    array = numbers(name, value)
    if array.ndim != 1 or length not in (None, len(array)):
        raise ValueError(f"{name}: shape {array.shape}, expected {'one axis' if length is None else f'({length},)'}")
    bad = ~((array >= 0) & (array < among) & (array == np.floor(array)))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"{name}[{i}] = {array[i]:g} is none of 0..{among - 1}")
    return array.astype(np.int64)


def options_of(m: ICSMDP, policy: Any) -> Int[np.ndarray, "S"]:
    """A deterministic policy of the global state: an available option for each.  Raises ValueError naming the state."""
    chosen = codes("policy", policy, m.num_states, m.num_options)
    missing = ~np.asarray(m.available)[m.observation, chosen]
    if missing.any():
        s = int(np.argmax(missing))
        raise ValueError(f"policy[{s}] = {chosen[s]}: the option is not available there")
    return chosen


def room(what: str, needed: int) -> None:
    """Raise ValueError where something needs more bytes than this machine has memory."""
    if needed > (there := memory()):
        raise ValueError(f"{what} needs {size(needed)}, this machine has {size(there)} of memory")
