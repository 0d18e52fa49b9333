"""JSON Lines as batches of columns, with the number of every line.

Every line goes through one parser (`estimators.logs.parse`), and a column of a batch through Arrow as a whole where all
its values are of the known type; otherwise value by value, which is slow and exact about what is wrong where.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from estimators.logs.codes import Kind
from estimators.logs.contexts import JSON, canonical
from estimators.logs.parse import UnreadableLine, behind, cut, is_header, parse
from estimators.logs.report import Finding
from estimators.logs.schema import COLUMNS, IDS, OPTIONAL, REQUIRED, SCHEMA, LogError, check_gamma
from icq.display import printable

BLOCK = 1 << 24  # bytes read at once
ROWS = 1 << 14  # lines made a batch of columns at once
BOM = b"\xef\xbb\xbf"

ARROW = {Kind.INTEGER: pa.int64(), Kind.TEXT: pa.string(), Kind.VECTOR: pa.list_(pa.float64())}
PYTHON = {Kind.INTEGER: {int}, Kind.TEXT: {str}, Kind.VECTOR: {list}}
NUMBERS = {
    "k": pa.int64(), "duration": pa.int64(), "done": pa.bool_(), "reward": pa.float64(), "scalar": pa.float64(),
    "probability": pa.float64(),
}  # fmt: skip
TYPES: dict[str, set[type]] = {"k": {int}, "duration": {int}, "done": {bool}}
KNOWN = frozenset(COLUMNS)
VECTORS = ("observation", "next_observation")
NONE = type(None)


class JsonLines:
    """The lines of a file; a line that was cut is counted, other lines that are no handoffs raise or are counted."""

    unit = "line"

    def __init__(self, path: Path, skip_bad: bool) -> None:
        self.path, self.skip_bad = path, skip_bad
        self.gamma: float | None = None
        self.ignored: set[str] = set()
        self.bad: dict[str, Finding] = {}
        self.torn, self.unreadable, self.refused = Finding(), Finding(), 0
        self.lost: list[int] = []  # lines that may have been handoffs
        self._line = 0  # lines looked at so far
        self._row = 0  # rows delivered so far
        self._passed: list[int] = []  # for each line that is no row: how many rows came before it
        self._kinds: dict[str, Kind | None] = {name: None for name in IDS if name != "context"}
        self._cut: tuple[int, str] | None = None  # a line that may have been cut: the next one tells

    def number(self, row: int) -> int:
        """Lines are counted from 1; those that are no rows count too."""
        return row + 1 + bisect_right(self._passed, row)

    def numbers(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The numbers of several rows."""
        return rows + 1 + np.searchsorted(self._passed, rows, side="right")

    def batches(self, wanted: tuple[str, ...]) -> Iterator[tuple[dict[str, pa.Array], float]]:
        """All wanted columns of one batch of lines after the other, of type null where nothing was logged."""
        total, read, rest = self.path.stat().st_size, 0, b""
        with open(self.path, "rb") as file:
            while block := file.read(BLOCK):
                read += len(block)
                block, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    for batch in self._parse(block.split(b"\n"), wanted):
                        yield batch, read / max(total, 1)
        if rest:
            for batch in self._parse([rest], wanted, whole=False):
                yield batch, 1.0
        self._settle(torn=False)

    def _parse(self, lines: list[bytes], wanted: tuple[str, ...], whole: bool = True) -> Iterator[dict[str, pa.Array]]:
        """The rows of some lines; whole: their end was written."""
        for first in range(0, len(lines), ROWS):
            rows, places, stopped = [], [], None
            for line in lines[first : first + ROWS]:
                self._line += 1
                try:
                    row = self._row_of(line, whole)
                except LogError as error:  # the rows before it may hold an earlier one
                    stopped = error
                    break
                if row is not None:
                    rows.append(row)
                    places.append(self._line)
            if rows:
                yield from self._columns(rows, places, wanted)
            if stopped is not None:
                raise stopped

    def _row_of(self, line: bytes, whole: bool) -> dict[str, Any] | None:
        """The handoff on a line; None for blank lines, headers and lines that are left out."""
        line = line.removeprefix(BOM) if self._line == 1 else line
        if not line.strip():
            return None
        try:
            row = parse(line)
        except UnreadableLine as why:
            self._settle(torn=False)
            row = behind(line)
            if row is None:
                self._cut = (self._line, str(why))
                if not (cut(line) and whole):
                    self._settle(torn=not whole and cut(line))
                return None
            self._torn(self._line)
        self._settle(torn=is_header(row))
        if is_header(row):
            self._header(row)
            return None
        if not isinstance(row, dict):
            self._refuse("task", "the line is not a JSON object", self._line)
            return None
        return row

    def _settle(self, torn: bool) -> None:
        """An unreadable line is torn if it is the last one and was cut, or the last before a recorder went on."""
        if self._cut is None:
            return
        (line, why), self._cut = self._cut, None
        if torn:
            self._torn(line)
            return
        if not self.skip_bad:
            raise LogError(f"line {line} cannot be read: {why}")
        self.unreadable += Finding(1, line)
        self.refused += 1
        self.lost.append(line)

    def _torn(self, line: int) -> None:
        self.torn += Finding(1, line)
        self.lost.append(line)

    def _refuse(self, column: str, why: str, line: int) -> None:
        """Raise for a line, or count it."""
        if not self.skip_bad:
            raise LogError(f"line {line}, column {column}: {why}")
        self.bad[column] = self.bad.get(column, Finding()) + Finding(1, line)
        self.refused += 1
        self.lost.append(line)

    def _header(self, row: dict[str, Any]) -> None:
        where = f"line {self._line}"
        if row["schema"] != SCHEMA:
            raise LogError(f"{where}: the schema is {printable(str(row['schema'])[:60])}, this reader knows {SCHEMA}")
        if row.get("gamma") is None:
            return
        try:
            gamma = check_gamma(row["gamma"])
        except LogError as error:
            raise LogError(f"{where}: {error}") from None
        if self.gamma is not None and gamma != self.gamma:
            raise LogError(f"{where}: gamma = {gamma}, but {self.gamma} before")
        self.gamma = gamma

    def _columns(
        self, rows: list[dict[str, Any]], places: list[int], wanted: tuple[str, ...]
    ) -> Iterator[dict[str, pa.Array]]:
        """The rows as columns, without those that no column can hold."""
        self.ignored |= set().union(*rows) - KNOWN
        wrong: dict[int, _Wrong] = {}
        columns = {name: self._column(name, [row.get(name) for row in rows], wrong) for name in wanted}
        good = np.array([i for i in range(len(rows)) if i not in wrong], np.int64)
        if wrong and not self.skip_bad:
            good = good[good < min(wrong)]
        if len(good):
            self._deliver(np.array(places)[good])
            take = pa.array(good)
            yield {name: column.take(take) if wrong else column for name, column in columns.items()}
        for i in sorted(wrong):
            self._refuse(wrong[i].column, wrong[i].message, places[i])

    def _deliver(self, places: np.ndarray) -> None:
        """Keep the numbers of rows that are handed over: only what lies between them takes room."""
        rows = self._row + np.arange(len(places))
        before = places - 1 - rows  # lines so far that were no rows
        self._passed += np.repeat(rows, np.diff(before, prepend=len(self._passed))).tolist()
        self._row += len(places)

    def _column(self, name: str, values: list[Any], wrong: dict[int, _Wrong]) -> pa.Array:
        """The values of a column; a row that another column refused, or that this one refuses, has null."""
        arrow = self._uniform(name, values)
        if arrow is not None:
            try:
                return pa.array(values, arrow)
            except (ValueError, OverflowError, TypeError):
                pass  # value by value, then
        out: list[Any] = [None] * len(values)
        for i, value in enumerate(values):
            if value is not None or (name in REQUIRED and not name.startswith("next_")):
                try:
                    out[i] = None if i in wrong else self._value(name, value)
                except _Wrong as found:
                    wrong[i] = found
        return pa.array(out, JSON if name == "context" else NUMBERS.get(name) or self._arrow(name))

    def _uniform(self, name: str, values: list[Any]) -> pa.DataType | None:
        """The type of a column whose values are all of it; None where that is not sure."""
        types = set(map(type, values))
        if name in OPTIONAL or name.startswith("next_"):
            if types == {NONE}:
                return pa.null()
            types = types - {NONE}
        if name in NUMBERS:
            return NUMBERS[name] if types <= TYPES.get(name, {float, int}) else None
        if name == "context":
            return pa.int64() if types == {int} else pa.string() if types == {str} else None
        kind = self._kinds[name.removeprefix("next_")]
        if kind is Kind.VECTOR and types == {list}:
            types = {list, *map(type, chain.from_iterable(filter(None, values)))} - {int, float}
        return ARROW[kind] if kind is not None and types == PYTHON[kind] else None

    def _arrow(self, name: str) -> pa.DataType:
        """Columns that share a vocabulary share its kind."""
        kind = self._kinds[name.removeprefix("next_")]
        return ARROW[kind] if kind else pa.null()

    def _value(self, name: str, value: Any) -> Any:
        """A JSON value as what its column holds.  Raises _Wrong."""
        if value is None:
            raise _Wrong(name, f"{name} = null is needed")
        if name in NUMBERS:
            return CONVERT[name](name, value)
        if name != "context":
            return self._id(name, value)
        try:
            return canonical(value).encode()
        except ValueError as error:
            raise _Wrong(name, f"{name} = {_short(value)} {error}") from None

    def _id(self, name: str, value: Any) -> Any:
        known = self._kinds[name.removeprefix("next_")]
        if isinstance(value, str):
            kind = Kind.TEXT
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise _Wrong(name, f"{name} = {_short(value)} holds half of a surrogate pair, which is no text")
        elif _is_whole(value):
            kind, value = Kind.INTEGER, int(value)
            if abs(value) >= 2**63:
                raise _Wrong(name, f"{name} = {_short(value)} is too large; write such ids as text")
        elif name in VECTORS and isinstance(value, list) and all(_is_number(x) for x in value):
            kind, value = Kind.VECTOR, [_real(name, x) for x in value]
        else:
            allowed = "text, an integer or a list of numbers" if name in VECTORS else "text or an integer"
            raise _Wrong(name, f"{name} = {_short(value)}: an id is {allowed}")
        if known is None:
            self._kinds[name.removeprefix("next_")] = kind
        elif known is not kind:
            raise _Wrong(name, f"{name} = {_short(value)}, but before there were {known.value}")
        return value


class _Wrong(Exception):
    """A value that its column cannot hold."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column, self.message = column, message


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a very deep value
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _integer(name: str, value: Any) -> int:
    if not _is_whole(value) or abs(value) >= 2**63:
        raise _Wrong(name, f"{name} = {_short(value)} is not an integer")
    return int(value)


def _real(name: str, value: Any) -> float:
    if not _is_number(value):
        raise _Wrong(name, f"{name} = {_short(value)} is not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _truth(name: str, value: Any) -> bool:
    if not (isinstance(value, bool) or _is_whole(value)) or value not in (0, 1):
        raise _Wrong(name, f"{name} = {_short(value)} is not true or false")
    return bool(value)


CONVERT: dict[str, Callable[[str, Any], Any]] = {
    "k": _integer, "duration": _integer, "done": _truth, "reward": _real, "scalar": _real, "probability": _real,
}  # fmt: skip
