"""What people say of a workflow, checked word by word: outcomes, options, names and start states.

Every refusal names the call, the index and what to change; nothing is read in a way nobody meant.
"""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from icq import laws
from icq.fields import LARGEST, REWARD_LIMIT

State: TypeAlias = Hashable
Name: TypeAlias = Hashable
NUMBERS = ("prob", "reward", "duration")  # of an outcome


class BuildError(ValueError):
    """A description that is not a workflow; the message names the state and option, and says what to change."""


@dataclass(frozen=True)
class Outcome:
    """What an option may lead to.

    prob: its probability.  next_state: where the next agent takes over, None when the task ends.  reward: of the whole
    option, already discounted inside it (`discounted_sum`).  duration: primitive steps, at least 1.
    """

    prob: float
    next_state: State | None
    reward: float = 0.0
    duration: int = 1


def checked(outcomes: Iterable[Outcome], s: State, option: Name) -> list[Outcome]:
    """The possible outcomes of an option, in plain numbers.  Raises BuildError.

    Probabilities in single precision are divided by their sum, with the warning `laws.Normalised`.
    """
    where = f"outcomes({s!r}, {option!r})"
    if not listed(outcomes):
        raise BuildError(f"{where} is {outcomes!r}, not a list; give a list of Outcome")
    row, probs = [], []
    for i, branch in enumerate(outcomes):
        if not isinstance(branch, Outcome):
            raise BuildError(f"{where}[{i}] is {branch!r}; give Outcome(prob, next_state, reward, duration)")
        plain = check_outcome(f"{where}[{i}]: ", branch)
        if plain.prob > 0:
            row.append(plain)
            probs.append(branch.prob if hasattr(branch.prob, "dtype") else plain.prob)  # of the type it came in
    law = np.array(probs)
    total, limit = float(law.sum(dtype=np.float64)), laws.tolerance(law.dtype, len(law))
    if not abs(total - 1) <= limit:
        raise BuildError(f"{where}: the probabilities sum to {total:.9g}, not to 1; {laws.remedy(total, limit)}")
    exact = laws.normalised("outcomes", law).tolist()
    return [Outcome(prob, x.next_state, x.reward, x.duration) for prob, x in zip(exact, row, strict=True)]


def check_outcome(where: str, branch: Outcome) -> Outcome:
    """The outcome in plain numbers.  Raises BuildError for a number that is none, or that no outcome has."""
    prob, reward, duration = (number(f"{where}{name}", getattr(branch, name)) for name in NUMBERS)
    if not (math.isfinite(prob) and prob >= 0):
        raise BuildError(f"{where}prob = {branch.prob} is not a probability")
    if not math.isfinite(reward):
        raise BuildError(f"{where}reward = {branch.reward} is not finite")
    if abs(reward) > REWARD_LIMIT:
        raise BuildError(f"{where}reward = {branch.reward} is beyond {REWARD_LIMIT:g}; choose a larger unit")
    if not 1 <= duration <= LARGEST or duration != int(duration):
        raise BuildError(
            f"{where}duration = {branch.duration}; an option takes at least one primitive step, a whole number of "
            f"them, and at most {LARGEST}"
        )
    return Outcome(prob, key(f"{where}next_state", branch.next_state), reward, int(duration))


def number(what: str, value: Any) -> float:
    """A number as it is.  Raises BuildError for text and anything else."""
    if isinstance(value, str | bytes):
        raise BuildError(f"{what} = {value!r} is text, not a number; convert it first, with float() say")
    if isinstance(value, jax.Array | np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise BuildError(f"{what} = {value!r} is not a number")
    try:
        return float(value)
    except OverflowError:  # a whole number or a fraction beyond all floats
        return math.inf


def key(what: str, value: Any) -> Any:
    """A name that can be looked up again: hashable, and equal to itself.  Raises BuildError for another one."""
    try:
        hash(value)
    except TypeError as error:
        raise BuildError(f"{what} = {value!r} cannot be looked up; give a tuple or a text instead") from error
    if not _equals_itself(value):
        raise BuildError(f"{what} = {value!r} is no name; an ending is None, and missing names are to be filled in")
    return value


def _equals_itself(value: Any) -> bool:
    try:
        return bool(value == value)
    except (ValueError, TypeError):  # an array of several answers
        return False


def listed(value: Any) -> bool:
    """Whether something is a list of things, and no text: numbers in an array without an axis are none."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes) and getattr(value, "ndim", 1) > 0


def menu_of(offered: Sequence[Name], s: State) -> tuple[Name, ...]:
    """The options of a state.  Raises BuildError for what is no list."""
    if not listed(offered):
        raise BuildError(f"options({s!r}) is {offered!r}, not a list; give [{offered!r}]")
    return tuple(key(f"options({s!r})[{i}]", option) for i, option in enumerate(offered))


def start_law(start: Mapping[State, float] | Iterable[State]) -> dict[State, float]:
    """The law of start states, from a list or from weights.  Raises BuildError."""
    if not listed(start):
        raise BuildError(f"start: {start!r} is not a list of states; give [{start!r}], or weights of states")
    if isinstance(start, Mapping):
        weights = {s: number(f"start[{s!r}]", weight) for s, weight in start.items()}
    else:
        weights = {s: float(count) for s, count in Counter(key("start", s) for s in start).items()}
    if not weights:
        raise BuildError("start: name at least one state, with a positive weight")
    if None in weights:
        raise BuildError("start: None is how a task ends, not a state; call the state something else")
    if bad := [s for s, weight in weights.items() if not 0 <= weight < math.inf]:
        raise BuildError(f"start[{bad[0]!r}] = {weights[bad[0]]} is no weight: weights are finite and not negative")
    if not any(weights.values()):
        raise BuildError(f"start: all {len(weights)} weights are 0; name at least one state with a positive one")
    law = laws.law("start", list(weights.values()), len(weights))
    return {s: float(share) for s, share in zip(weights, law, strict=True) if share > 0}


def same_menu(
    offered: tuple[Name, ...], known: tuple[Name, ...], s: State, other: State, view: tuple[Name, Name]
) -> None:
    """Raise BuildError unless a state offers what another one offers that looks the same."""
    if not offered:
        raise BuildError(f"options({s!r}) is empty; end a task with next_state=None, not with such a state")
    if len(set(offered)) != len(offered):
        raise BuildError(f"options({s!r}) = {list(offered)} names an option twice")
    if offered != known:
        raise BuildError(
            f"options({s!r}) = {list(offered)}, but in {other!r} it is {list(known)}, and {view[0]!r} sees "
            f"{view[1]!r} in both; show the difference in observe() or offer the same options"
        )
