"""What public functions are given, as what they work on: lists, numbers, NumPy and JAX arrays as NumPy arrays of the
expected shape, workflows as instances.

Anything else is refused with the name of the argument, what was expected and what to do.  Nothing is ever broadcast:
a table with one column where two options exist is a mistake, and its result would be a number that looks right.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

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
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: not an array ({error}); give rows of equal length") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: dtype {array.dtype} is not real numbers; give integers or floats")
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


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number, also one that is written 1e6.  Raises ValueError for anything else and for fewer than `least`."""
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "iuf" or number != np.round(number) or not np.isfinite(number):
        raise ValueError(f"{name} = {value!r} is not a whole number")
    if number < least:
        raise ValueError(f"{name} = {value!r} must be at least {least}")
    return int(number)
