"""FileRows in the order of a log: tasks together, handoffs by k, every irregularity counted.

Chains come in the order in which they first appear, tasks of a chain likewise, handoffs of a task by k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from estimators.logs.codes import by_appearance
from estimators.logs.report import Finding
from estimators.logs.schema import LogError

Columns = dict[str, np.ndarray]


@dataclass
class FileRows:
    """The columns of a log, and where each row stood in the file (None: row i stood in place i)."""

    columns: Columns
    place: Int[np.ndarray, "n"] | None
    unit: str  # how places are called, `row` or `line`
    numbers: Callable[[Int[np.ndarray, "n"]], Int[np.ndarray, "n"]]  # the numbers of places; increasing
    found: dict[str, Finding] = field(default_factory=dict)
    lost: list[Int[np.ndarray, "m"]] = field(default_factory=list)  # numbers of what was left out, or could not be read

    def where(self, index: int | np.integer) -> int:
        """The number in the file of row `index`."""
        return int(self.standing(np.array([index]))[0])

    def standing(self, index: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
        """The numbers in the file of some rows."""
        return self.numbers(index if self.place is None else self.place[index])

    def leave_out(self, bad: Bool[np.ndarray, "n"]) -> None:
        """Keep the other rows, and remember where these stood."""
        self.lost.append(self.standing(np.flatnonzero(bad)))
        self.take(np.flatnonzero(~bad))

    def take(self, index: np.ndarray) -> None:
        """Keep or permute rows, column by column."""
        size = len(self.columns["task"])
        self.place = np.arange(size, dtype=np.int32)[index] if self.place is None else self.place[index]
        for name in self.columns:
            self.columns[name] = self.columns[name][index]

    def note(self, name: str, mask: Bool[np.ndarray, "n"], offset: int = 0) -> None:
        """Count the marked rows under a name of the report; mask[i] speaks of row i + offset."""
        if mask.any():
            marked = np.flatnonzero(mask) + offset
            first = marked[0] if self.place is None else self.place[marked].min()
            found = Finding(len(marked), int(self.numbers(np.array([first]))[0]))
            self.found[name] = self.found.get(name, Finding()) + found


def arrange(rows: FileRows, *, skip_bad: bool) -> Bool[np.ndarray, "n"]:
    """Order the rows in place; which rows follow the one before them is returned.

    Raises LogError for a task in two chains, and for conflicting copies of a handoff unless `skip_bad`.
    """
    c = rows.columns
    c["task"] = by_appearance(c["task"])
    _count_disorder(rows)
    if "chain" in c:
        _chain_order(rows)
    same, step = _steps(c)
    if not (np.diff(c["task"]) >= 0).all() or (same & (step < 0)).any():
        rows.take(np.lexsort((c["k"], c["task"])))
        same, step = _steps(c)
    if (same & (step == 0)).any():
        _drop_copies(rows, same & (step == 0), skip_bad)
        c["task"] = by_appearance(c["task"])
        same, step = _steps(c)
    _count_missing(rows, same, step)
    return _link(rows, same & (step == 1), same)


def _steps(c: Columns) -> tuple[Bool[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """For each pair of neighbouring rows: the same task?  By how much does k grow?"""
    return c["task"][1:] == c["task"][:-1], np.diff(c["k"])


def _count_disorder(rows: FileRows) -> None:
    """FileRows after a later one of their task, and rows that return to a task, in the order of the file."""
    task, k = rows.columns["task"], rows.columns["k"]
    if (np.diff(task) >= 0).all():
        rows.note("out_of_order", (task[1:] == task[:-1]) & (np.diff(k) < 0), 1)
        return
    back = (task[1:] != task[:-1]) & (task[1:] <= np.maximum.accumulate(task)[:-1])
    rows.note("interleaved", back, 1)
    order = np.argsort(task, kind="stable")
    late = np.zeros(len(task), bool)
    late[order[1:]] = (task[order[1:]] == task[order[:-1]]) & (k[order[1:]] < k[order[:-1]])
    rows.note("out_of_order", late)


def _chain_order(rows: FileRows) -> None:
    """Number the tasks chain by chain."""
    c = rows.columns
    c["chain"] = by_appearance(c["chain"])
    chain_of = np.empty(int(c["task"].max(initial=-1)) + 1, np.int32)
    chain_of[c["task"][::-1]] = c["chain"][::-1]
    torn = chain_of[c["task"]] != c["chain"]
    if torn.any():
        raise LogError(f"{rows.unit} {rows.where(np.argmax(torn))}, column chain: the task began in another chain")
    rank = np.empty(len(chain_of), np.int32)
    rank[np.argsort(chain_of, kind="stable")] = np.arange(len(chain_of), dtype=np.int32)
    c["task"] = rank[c["task"]]


def _drop_copies(rows: FileRows, copy: Bool[np.ndarray, "m"], skip_bad: bool) -> None:
    """Exact copies once; conflicting ones are an error, or all left out.  copy[i]: row i+1 has the task and k of i."""
    c = rows.columns
    pair = np.flatnonzero(copy)
    differs = np.zeros(len(pair), bool)
    which = np.full(len(pair), "", dtype=object)
    for name, column in c.items():
        a, b = column[pair], column[pair + 1]
        unequal = ~((a == b) | ((a != a) & (b != b)))  # NaN is a copy of NaN
        which[unequal & ~differs] = name
        differs |= unequal
    if differs.any() and not skip_bad:
        i = int(np.argmax(differs))
        first, second = sorted((rows.where(pair[i]), rows.where(pair[i] + 1)))
        k = c["k"][pair[i]]
        raise LogError(
            f"{rows.unit} {second}, column {which[i]}: the task and k (= {k}) of {rows.unit} {first}, but other content"
        )
    group = np.concatenate(([0], np.cumsum(~copy)))  # rows of equal task and k
    clash = np.zeros(group[-1] + 1, bool)
    clash[group[pair[differs]]] = True
    left_out = clash[group]
    rows.note("conflicts", left_out)
    extra = np.concatenate(([False], copy)) & ~left_out
    rows.note("duplicates", extra)
    if left_out.any():
        rows.leave_out(left_out)
    rows.take(np.flatnonzero(~extra[~left_out]))


def _count_missing(rows: FileRows, same: Bool[np.ndarray, "m"], step: Int[np.ndarray, "m"]) -> None:
    """Handoffs that k says must have been there."""
    k = rows.columns["k"]
    absent = np.zeros(len(k), np.int64)
    if len(k):
        absent[0] = k[0]
        absent[1:] = np.where(same, step - 1, k[1:])
    rows.note("missing", absent > 0)
    if "missing" in rows.found:
        rows.found["missing"] = Finding(int(absent.sum()), rows.found["missing"].first)


def _link(rows: FileRows, next_k: Bool[np.ndarray, "m"], same: Bool[np.ndarray, "m"]) -> Bool[np.ndarray, "n"]:
    """Which rows continue the row before; what contradicts that is noted."""
    c = rows.columns
    done, named = c["done"][:-1], c["next_observation"][:-1] >= 0
    differs = (c["next_observation"][:-1] != c["observation"][1:]) | (c["next_agent"][:-1] != c["agent"][1:])
    over = same & done
    rows.note("after_end", over)
    false = next_k & ~done & differs
    links = next_k & ~done & ~differs
    if "chain" in c:
        onward = ~same & (c["chain"][1:] == c["chain"][:-1]) & done & (c["k"][1:] == 0) & ~_between(rows)
        false |= onward & named & differs
        links |= onward & ~(named & differs)
    rows.note("contradictions", false)
    last = np.append(~same, True) if len(c["k"]) else np.zeros(0, bool)
    rows.note("unfinished", last & ~c["done"])
    if "chain" not in c:
        lost = c["done"] & (c["next_observation"] >= 0)
        rows.note("next_ignored", lost)
        for name in ("next_agent", "next_observation"):
            c[name] = np.where(lost, np.int32(-1), c[name])
    follows = np.zeros(len(c["k"]), bool)
    follows[1:] = links
    rows.note("breaks", ~follows)
    return follows


def _between(rows: FileRows) -> Bool[np.ndarray, "m"]:
    """Whether something was lost in the file between two neighbours: it may have been a whole task of their chain."""
    size = len(rows.columns["k"])
    if not any(map(len, rows.lost)):
        return np.zeros(max(size - 1, 0), bool)
    lost, places = np.sort(np.concatenate(rows.lost)), rows.standing(np.arange(size))
    first, last = np.minimum(places[1:], places[:-1]), np.maximum(places[1:], places[:-1])
    return np.searchsorted(lost, last) > np.searchsorted(lost, first)
