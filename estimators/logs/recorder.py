"""Recording handoffs inside an agent loop: one JSON line per handoff (the format: docs/logs.md).

A row is one `write` to a file opened for appending: several processes may record into one file, and a killed process
loses at most the row it was writing.  Standard library only.
"""

from __future__ import annotations

import json
import os
import time
from types import TracebackType
from typing import Any, TypeAlias

from estimators.logs.rules import Rules, identity, integer, json_value, learn, number, truth, view
from estimators.logs.schema import REQUIRED, SCHEMA, LogError, check_gamma

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
        self._rules = Rules()
        self._torn = False  # a row was written in part: begin a new line
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
        header = self._header()
        if os.fstat(file).st_size:
            with open(self.path, "rb") as old:
                head = [line for line in (old.readline(1 << 16) for _ in range(HEAD)) if line]
                old.seek(-1, os.SEEK_END)
                whole = old.read(1) == b"\n"
            self._torn = not whole
            if not (len(head) == 1 and not whole and header.startswith(head[0])):
                self._check_header(head)
                if whole:
                    return
        self._append(b"" if self._torn else header)

    def _header(self) -> bytes:
        return json.dumps({"schema": SCHEMA, "gamma": self.gamma}).encode() + b"\n"

    def _check_header(self, head: list[bytes]) -> None:
        """Find the header among the first lines, torn ones may stand before it, and learn from the rows behind it."""
        known = False
        for line in head:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict) and found.keys() >= {"schema", "gamma"} and not known:
                schema, gamma = found["schema"], found["gamma"]
                if schema != SCHEMA or gamma != self.gamma:
                    had = f"is a log of {schema} with gamma = {gamma}"
                    raise LogError(f"{self.path}: {had}, not {SCHEMA} with {self.gamma}")
                known = True
            elif known and isinstance(found, dict) and found.keys() >= set(REQUIRED):
                learn(self._rules, found)
        if known:
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
        if self._file is None:
            raise ValueError(f"{self.path}: the recorder is closed")
        row: dict[str, Any] = {
            "task": identity("task", task), "k": integer("k", k, 0), "agent": identity("agent", agent),
            "observation": view("observation", observation), "option": identity("option", option),
            "reward": number("reward", reward), "duration": integer("duration", duration, 1),
            "done": truth("done", done), "next_agent": None, "next_observation": None,
        }  # fmt: skip
        if (next_agent is None) != (next_observation is None):
            missing = "next_agent" if next_agent is None else "next_observation"
            raise LogError(f"{missing}: None, but its counterpart is given; give both or neither")
        if next_agent is not None:
            row["next_agent"] = identity("next_agent", next_agent)
            row["next_observation"] = view("next_observation", next_observation)
        elif not row["done"]:
            raise LogError("next_agent: needed, because done is false")
        if row["done"] and next_agent is not None and chain is None:
            raise LogError(
                "next_agent: the task has ended; leave it out, or give the chain in which the next task follows"
            )
        if scalar is not None:
            row["scalar"] = number("scalar", scalar)
        if context is not None:
            row["context"] = json_value("context", context)
        if probability is not None:
            row["probability"] = number("probability", probability)
            if not 0 < row["probability"] <= 1:
                raise LogError(f"probability: {probability} is not in (0, 1]; it is that of the chosen option")
        if chain is not None:
            row["chain"] = identity("chain", chain)
        self._rules.check(row)
        self._append(json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        self._rules.keep(row)
        self._sync_if_due()

    def _append(self, line: bytes) -> None:
        if self._file is None:
            raise ValueError(f"{self.path}: the recorder is closed")
        if self._torn:  # a header behind it tells the reader that the line before was cut
            line = b"\n" + self._header() + line
        written = os.write(self._file, line)
        self._torn = written < len(line)
        if self._torn:  # the disk is full
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
        self.name, self.k = identity("task", name), integer("k", k, 0)
        self.agent, self.observation = identity("agent", agent), view("observation", observation)
        self.context = None if context is None else json_value("context", context)
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
        following = None if next_context is None else json_value("next_context", next_context)
        if not done and (following is None) != (self.context is None):
            raise LogError("next_context: give the context of every decision of a task, or of none")
        self.recorder.handoff(
            task=self.name, k=self.k, agent=self.agent, observation=self.observation, option=option, reward=reward,
            duration=duration, done=done, next_agent=next_agent, next_observation=next_observation, scalar=scalar,
            context=self.context, probability=probability,
        )  # fmt: skip
        self.k, self.done = self.k + 1, bool(done)
        if next_agent is not None:
            self.agent, self.observation = identity("agent", next_agent), view("observation", next_observation)
        self.context = following
