"""Recording handoffs inside an agent loop: one JSON line per handoff (the format: docs/logs.md).

A row is one `write` to a file opened for appending: several processes may record into one file, and a killed process
loses at most the row it was writing.  Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import time
from types import TracebackType
from typing import Any, TypeAlias

from estimators.logs.schema import SCHEMA, LogError, check_gamma

# What callers pass, checked by hand at the call: NumPy and tensor scalars and arrays are as good as Python's numbers.
Id: TypeAlias = Any  # text or an integer from 0
View: TypeAlias = Any  # an id, or a vector of finite numbers
Number: TypeAlias = Any
Json: TypeAlias = Any


HEAD = 4  # lines among which the header is looked for


class Recorder:
    """A handoff log that a running workflow appends to.

    path: a `.jsonl` file; it is continued if it exists.  gamma: discount per primitive step.  sync_rows, sync_seconds:
    force rows to the disk every so many rows or seconds, so that they survive a power cut too; without, a kill of the
    process loses nothing but a power cut may.

    Raises LogError when the file is no handoff log or has another gamma, OSError when it cannot be written.

        with Recorder("handoffs.jsonl", gamma=0.95) as recorder:
            task = recorder.start("ticket 17", agent="triage", observation="billing question")
            task.handoff("forward", reward=-1.0, duration=3, next_agent="billing", next_observation="refund wanted")
            task.handoff("refund", reward=10.0, duration=5, done=True)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, gamma: Number, sync_rows: int | None = None,
        sync_seconds: float | None = None,
    ) -> None:  # fmt: skip
        self.path, self.gamma = os.fspath(path), check_gamma(gamma)
        self._sync_rows, self._sync_seconds = sync_rows, sync_seconds
        self._context: bool | None = None  # whether rows have one; None before the first
        self._unsynced, self._synced_at = 0, time.monotonic()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        self._file: int | None = os.open(self.path, flags, 0o666)
        try:
            self._begin(self._file)
        except BaseException:
            self.close()
            raise

    def _begin(self, file: int) -> None:
        """Check that the file is a log of this gamma; end a torn last line; write the header of a new file.

        Two processes that begin a file together may both write the header: readers allow that.
        """
        header = json.dumps({"schema": SCHEMA, "gamma": self.gamma}).encode() + b"\n"
        if os.fstat(file).st_size:
            with open(self.path, "rb") as old:
                head = [line for line in (old.readline(1 << 16) for _ in range(HEAD)) if line]
                old.seek(-1, os.SEEK_END)
                whole = old.read(1) == b"\n"
            torn_header = len(head) == 1 and not whole and header.startswith(head[0])
            if not torn_header:
                self._check_header(head)
            if not whole:
                self._append(b"\n")
            if not torn_header:
                return
        self._append(header)

    def _check_header(self, head: list[bytes]) -> None:
        """Find the header among the first lines: torn ones may stand before it."""
        for line in head:
            try:
                found = json.loads(line)
                schema, gamma = found["schema"], found["gamma"]
            except (ValueError, KeyError, TypeError):
                continue
            if schema != SCHEMA or gamma != self.gamma:
                had = f"is a log of {schema} with gamma = {gamma}"
                raise LogError(f"{self.path}: {had}, not {SCHEMA} with {self.gamma}")
            return
        raise LogError(f"{self.path}: has no header of a handoff log in its first lines; record into another file")

    def start(self, task: Id, *, agent: Id, observation: View, context: Json = None, k: Number = 0) -> Task:
        """A task whose next decision is `agent`'s, on `observation`.

        k: how many handoffs the task has had; give it when another process recorded those.
        """
        return Task(self, task, agent, observation, context, k)

    def handoff(
        self, *, task: Id, k: Number, agent: Id, observation: View, option: Id, reward: Number, duration: Number,
        done: Any, next_agent: Id = None, next_observation: View = None, scalar: Number = None, context: Json = None,
        probability: Number = None, chain: Id = None,
    ) -> None:  # fmt: skip
        """Append one row.  Raises LogError naming the field that is wrong, and then nothing is written."""
        row: dict[str, Any] = {
            "task": _identity("task", task), "k": _integer("k", k, 0), "agent": _identity("agent", agent),
            "observation": _view("observation", observation), "option": _identity("option", option),
            "reward": _number("reward", reward), "duration": _integer("duration", duration, 1),
            "done": _truth("done", done), "next_agent": None, "next_observation": None,
        }  # fmt: skip
        if (next_agent is None) != (next_observation is None):
            missing = "next_agent" if next_agent is None else "next_observation"
            raise LogError(f"{missing}: None, but its counterpart is given; give both or neither")
        if next_agent is not None:
            row["next_agent"] = _identity("next_agent", next_agent)
            row["next_observation"] = _view("next_observation", next_observation)
        elif not row["done"]:
            raise LogError("next_agent: needed, because done is false")
        if scalar is not None:
            row["scalar"] = _number("scalar", scalar)
        if context is not None:
            row["context"] = _json("context", context)
        if context is None and self._context:
            raise LogError("context: None, but earlier handoffs had one; give it always or never")
        if context is not None and self._context is False:
            raise LogError("context: given, but earlier handoffs had none; give it always or never")
        if probability is not None:
            row["probability"] = _number("probability", probability)
            if not 0 < row["probability"] <= 1:
                raise LogError(f"probability: {probability} is not in (0, 1]; it is that of the chosen option")
        if chain is not None:
            row["chain"] = _identity("chain", chain)
        self._append(json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        self._context = context is not None
        self._sync_if_due()

    def _append(self, line: bytes) -> None:
        if self._file is None:
            raise ValueError(f"{self.path}: the recorder is closed")
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full: end the fragment, so that only this row is lost
            os.write(self._file, b"\n")
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes of a row could be written")

    def _sync_if_due(self) -> None:
        self._unsynced += 1
        due = self._sync_rows is not None and self._unsynced >= self._sync_rows
        if self._sync_seconds is not None and time.monotonic() - self._synced_at >= self._sync_seconds:
            due = True
        if due:
            self.sync()

    def sync(self) -> None:
        """Force what was recorded to the disk."""
        if self._file is not None:
            os.fsync(self._file)
        self._unsynced, self._synced_at = 0, time.monotonic()

    def close(self) -> None:
        """End recording; closing twice is allowed."""
        if self._file is not None:
            if self._unsynced and (self._sync_rows is not None or self._sync_seconds is not None):
                self.sync()
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Task:
    """One task being recorded: it remembers who acts on what, so that each handoff is told once."""

    def __init__(self, recorder: Recorder, name: Id, agent: Id, observation: View, context: Json, k: Number) -> None:
        self.recorder = recorder
        self.name, self.k = _identity("task", name), _integer("k", k, 0)
        self.agent, self.observation = _identity("agent", agent), _view("observation", observation)
        self.context = None if context is None else _json("context", context)
        self.done = False

    def handoff(
        self, option: Id, *, reward: Number, duration: Number, done: Any = False, next_agent: Id = None,
        next_observation: View = None, next_context: Json = None, scalar: Number = None, probability: Number = None,
    ) -> None:  # fmt: skip
        """The agent chose `option`; it lasted `duration` primitive steps and earned `reward`, and the next agent acts.

        reward: discounted inside the option, sum of gamma^t r_t.  scalar: what the next agent sent back.
        probability: of the chosen option.  Raises LogError naming the field that is wrong; the task then stands as
        before.
        """
        if self.done:
            raise LogError(f"done: task {self.name!r} has ended")
        following = None if next_context is None else _json("next_context", next_context)
        if not done and (following is None) != (self.context is None):
            raise LogError("next_context: give the context of every decision of a task, or of none")
        self.recorder.handoff(
            task=self.name, k=self.k, agent=self.agent, observation=self.observation, option=option, reward=reward,
            duration=duration, done=done, next_agent=next_agent, next_observation=next_observation, scalar=scalar,
            context=self.context, probability=probability,
        )  # fmt: skip
        self.k, self.done = self.k + 1, bool(done)
        if next_agent is not None:
            self.agent, self.observation = _identity("agent", next_agent), _view("observation", next_observation)
        self.context = following


def _plain(value: Any) -> Any:
    """Array and tensor scalars as Python numbers, arrays as lists."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value


def _identity(name: str, value: Any) -> str | int:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; an id is text or an integer")
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise LogError(f"{name}: {value} is not in 0..2^63-1; use text for such ids")
    return value


def _view(name: str, value: Any) -> str | int | list[float]:
    """An id, or a vector of finite numbers."""
    value = _plain(value)
    if isinstance(value, list | tuple):
        if not value:
            raise LogError(f"{name}: an empty vector")
        return [_number(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    return _identity(name, value)


def _integer(name: str, value: Any, least: int) -> int:
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; an integer is needed")
    if not least <= value < 2**31:
        raise LogError(f"{name}: {value} is not in {least}..{2**31 - 1}")
    return value


def _number(name: str, value: Any) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; a number is needed")
    if not math.isfinite(value):
        raise LogError(f"{name}: {value} is not finite")
    return float(value)


def _truth(name: str, value: Any) -> bool:
    value = _plain(value)
    if not isinstance(value, bool):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; True or False is needed")
    return value


def _json(name: str, value: Any) -> Any:
    """Any JSON value, copied, so that what the loop changes later is not recorded."""
    try:
        return json.loads(json.dumps(_plain(value), allow_nan=False, default=_plain_or_refuse))
    except (TypeError, ValueError) as error:
        raise LogError(f"{name}: not a JSON value ({error})") from None


def _plain_or_refuse(value: Any) -> Any:
    plain = _plain(value)
    if plain is value:
        raise TypeError(f"{type(value).__name__} cannot be written")
    return plain
