"""What the recorder takes: values that are exact, and rows that the reader will take together.

Standard library only, as the recorder.  What is remembered of earlier rows is bounded: the reader looks back further.
Every function that checks raises LogError naming the field.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from estimators.logs.schema import IDS, LogError

MEMORY = 100_000  # tasks, and observations, that are remembered: the latest ones


class Rules:
    """The rows of one recorder so far."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.given: dict[str, bool] = {}  # whether rows have a context, a chain; nothing before the first
        self.owner: dict[Any, Any] = {}  # observation -> agent
        self.tasks: dict[Any, tuple[int, set[int], Any]] = {}  # handoffs 0..n-1, others, chain

    def check(self, row: dict[str, Any]) -> None:
        """Raise LogError for a row that the reader would refuse beside those before it."""
        for name in ("context", "chain"):
            had, has = self.given.get(name), row.get(name) is not None
            if had and not has:
                raise LogError(f"{name}: None, but earlier handoffs had one; give it always or never")
            if has and had is False:
                raise LogError(f"{name}: given, but earlier handoffs had none; give it always or never")
        kinds = dict(self.kinds)
        for name, kind in _kinds(row):
            known = kinds.setdefault(name.removeprefix("next_"), kind)
            if kind != known:
                raise LogError(f"{name}: {row[name]!r}, but before there were {known}; a column has ids of one kind")
        self._check_owners(row)
        self._check_task(row)

    def _check_owners(self, row: dict[str, Any]) -> None:
        here = {_key(row["observation"]): row["agent"]}
        for prefix in ("", "next_"):
            agent, observation = row[f"{prefix}agent"], row[f"{prefix}observation"]
            if observation is None:
                continue
            owner = self.owner.get(_key(observation), here.get(_key(observation), agent))
            if owner != agent:
                raise LogError(
                    f"{prefix}agent: {agent!r} acts on observation {observation!r}, but {owner!r} did before; an "
                    "observation belongs to one agent, so put the agent's name into it"
                )

    def _check_task(self, row: dict[str, Any]) -> None:
        first, others, chain = self.tasks.get(row["task"], (0, set(), row.get("chain")))
        if row["k"] < first or row["k"] in others:
            raise LogError(f"k: {row['k']} of task {row['task']!r} was recorded before; a new task needs a new name")
        if chain != row.get("chain"):
            raise LogError(f"chain: {row['chain']!r}, but task {row['task']!r} began in chain {chain!r}")

    def keep(self, row: dict[str, Any]) -> None:
        """Remember a row that was written."""
        for name in ("context", "chain"):
            self.given[name] = row.get(name) is not None
        for name, kind in _kinds(row):
            self.kinds[name.removeprefix("next_")] = kind
        for prefix in ("", "next_"):
            if row[f"{prefix}observation"] is not None:
                self.owner.setdefault(_key(row[f"{prefix}observation"]), row[f"{prefix}agent"])
        first, others, _ = self.tasks.get(row["task"], (0, set(), None))
        others.add(row["k"])
        while first in others:
            others.discard(first)
            first += 1
        self.tasks[row["task"]] = first, others, row.get("chain")
        for memory in (self.owner, self.tasks):
            while len(memory) > MEMORY:
                del memory[next(iter(memory))]


def _kinds(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The ids of a row and what kind each is."""
    found = [(name, row.get(name)) for name in IDS if name != "context"]
    return [(name, _kind(value)) for name, value in found if value is not None]


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"lists of {len(value)} numbers"
    return "integers" if isinstance(value, int) else "text"


def learn(rules: Rules, row: dict[str, Any]) -> None:
    """Remember a row of a file that somebody else wrote, if it is one."""
    with suppress(TypeError, ValueError):  # the reader will name it
        rules.keep(row)


def _key(observation: Any) -> Any:
    return tuple(observation) if isinstance(observation, list) else observation


# --- values ---------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Array and tensor scalars as Python numbers, arrays as lists."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value


def identity(name: str, value: Any) -> str | int:
    """Text, or an integer from 0."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; an id is text or an integer")
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise LogError(f"{name}: {_short(value)} is not in 0..2^63-1; use text for such ids")
    if isinstance(value, str):
        _check_text(name, value)
        return str(value)
    return int(value)


def view(name: str, value: Any) -> str | int | list[float]:
    """An id, or a vector of finite numbers."""
    value = _plain(value)
    if isinstance(value, list | tuple):
        if not value:
            raise LogError(f"{name}: an empty vector")
        return [number(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    return identity(name, value)


def integer(name: str, value: Any, least: int) -> int:
    """A whole number from `least` that fits 31 bits."""
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; an integer is needed")
    if not least <= value < 2**31:
        raise LogError(f"{name}: {_short(value)} is not in {least}..{2**31 - 1}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number that float64 keeps as it is."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; a number is needed")
    try:
        real = float(value)
    except OverflowError:
        raise LogError(f"{name}: {_short(value)} is beyond the largest number, about 1.8e308") from None
    if not math.isfinite(real):
        raise LogError(f"{name}: {value} is not finite")
    if real != value:
        raise LogError(f"{name}: {_short(value)} has more digits than a number keeps; use text for ids, or a float")
    return real


def truth(name: str, value: Any) -> bool:
    """True or False."""
    value = _plain(value)
    if not isinstance(value, bool):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; True or False is needed")
    return value


def json_value(name: str, value: Any) -> Any:
    """Any JSON value, copied, so that what the loop changes later is not recorded."""
    try:
        return _copied(name, value)
    except RecursionError:
        raise LogError(f"{name}: not a JSON value (it is nested too deeply, or contains itself)") from None


def _copied(name: str, value: Any) -> Any:
    value = _plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_text(name, value)
        return str(value)
    if isinstance(value, int):
        if abs(value) >= 10**4000:  # no parser reads it back
            raise LogError(f"{name}: not a JSON value ({_short(value)} is too large; use text)")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise LogError(f"{name}: not a JSON value ({value} is not finite)")
        return float(value)
    if isinstance(value, list | tuple):
        return [_copied(name, each) for each in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise LogError(f"{name}: not a JSON value (the key {key!r} is not text)")
            _check_text(name, key)
        return {str(key): _copied(name, each) for key, each in value.items()}
    raise LogError(f"{name}: not a JSON value (a {type(value).__name__} cannot be written)")


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LogError(f"{name}: {value!r} holds half of a surrogate pair, which is no text") from None


def _short(value: Any) -> str:
    return str(value) if abs(value) < 10**60 else "an integer of more than 60 digits"
