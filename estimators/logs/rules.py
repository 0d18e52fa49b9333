"""What a row must have in common with the rows before it, so that the reader takes all of them together.

Standard library only, as the recorder.  What is remembered is bounded: the rules look back so far, the reader further.
"""

from __future__ import annotations

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
