"""JSON Lines as batches of columns, with the number of every line.

Blocks of lines go through Arrow's parser; a block that it does not take, or that is not one handoff per line, is read
again line by line, which is slow and exact about what is wrong where.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json as pj

from estimators.logs.codes import Kind
from estimators.logs.report import Finding
from estimators.logs.schema import COLUMNS, IDS, REQUIRED, SCHEMA, LogError, check_gamma

BLOCK = 1 << 25  # bytes read at once
PARSE = 1 << 22  # bytes per parser thread
HEAD = 1000  # lines read one by one to learn what the ids are
ROW = b'{"task":'  # how the recorder begins a row

ARROW = {Kind.INTEGER: pa.int64(), Kind.TEXT: pa.string(), Kind.VECTOR: pa.list_(pa.float64())}
NUMBERS = {
    "k": pa.int64(), "duration": pa.int64(), "done": pa.bool_(), "reward": pa.float64(), "scalar": pa.float64(),
    "probability": pa.float64(),
}  # fmt: skip
KNOWN = frozenset(COLUMNS)
VECTORS = ("observation", "next_observation", "context")


class JsonLines:
    """The lines of a file; torn lines are counted, other lines that are no handoffs raise or are counted as `bad`."""

    unit = "line"

    def __init__(self, path: Path, skip_bad: bool) -> None:
        self.path, self.skip_bad = path, skip_bad
        self.gamma: float | None = None
        self.ignored: set[str] = set()
        self.bad: dict[str, Finding] = {}
        self.torn, self.refused = Finding(), 0
        self._row = 0  # rows delivered so far
        self._passed: list[int] = []  # for each line that is no row: how many rows came before it
        self._kinds: dict[str, Kind | None] = dict.fromkeys(IDS)
        self._any_json = False  # contexts are of several kinds: each is known by its JSON text

    def number(self, row: int) -> int:
        """Lines are counted from 1; those that are no rows count too."""
        return row + 1 + bisect_right(self._passed, row)

    def batches(self, wanted: tuple[str, ...]) -> Iterator[tuple[dict[str, pa.Array], float]]:
        """All wanted columns of one block after the other, of type null where nothing was logged."""
        total, read, rest = self.path.stat().st_size, 0, b""
        with open(self.path, "rb") as file:
            while block := file.read(BLOCK):
                read += len(block)
                block, _, rest = (rest + block).rpartition(b"\n")
                for batch in self._parse(block, wanted):
                    yield batch, read / max(total, 1)
        for batch in self._parse(rest, wanted):
            yield batch, 1.0

    def _parse(self, block: bytes, wanted: tuple[str, ...]) -> Iterator[dict[str, pa.Array]]:
        """The rows of whole lines."""
        if self._row == 0 and block:
            lines = block.split(b"\n", HEAD)
            yield from self._line_by_line(lines[:HEAD], wanted)
            block = lines[HEAD] if len(lines) > HEAD else b""
        if not block:
            return
        table = self._fast(block, wanted)
        if table is None:
            yield from self._line_by_line(block.split(b"\n"), wanted)
            return
        for batch in table.to_batches():
            self._row += batch.num_rows
            yield {name: batch.column(name) for name in wanted}

    def _fast(self, block: bytes, wanted: tuple[str, ...]) -> pa.Table | None:
        """The block through Arrow's parser; None when it is not exactly one handoff of the known types per line."""
        types = {name: ARROW[kind] if kind else pa.null() for name, kind in self._shared_kinds().items()} | NUMBERS
        apart = self._any_json and "context" in wanted
        schema = pa.schema([(name, types[name]) for name in wanted if not (apart and name == "context")])
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(pa.BufferReader(block), pj.ReadOptions(block_size=PARSE), options)
        except pa.ArrowException:
            return None
        whole = table.num_rows == block.count(b"\n") + 1 and table.column("task").null_count == 0
        if not whole or not table.schema.equals(schema):
            return None
        if apart:
            found = (orjson.loads(line).get("context") for line in block.split(b"\n"))
            table = table.append_column("context", pa.array(map(_canonical, found), pa.string()))
        return table

    def _shared_kinds(self) -> dict[str, Kind | None]:
        """Columns that share a vocabulary share its kind."""
        return {name: self._kinds[name.removeprefix("next_")] for name in IDS}

    def _line_by_line(self, lines: list[bytes], wanted: tuple[str, ...]) -> Iterator[dict[str, pa.Array]]:
        """The same, one line at a time."""
        columns: dict[str, list[Any]] = {name: [] for name in wanted}
        start = self._row
        for line in lines:
            row = self._row_of(line)
            if row is None:
                self._passed.append(self._row)
                continue
            self.ignored |= row.keys() - KNOWN
            try:
                values = {name: self._value(name, row.get(name)) for name in wanted}
            except _Wrong as wrong:
                self._refuse(wrong.column, wrong.message)
                continue
            for name, value in values.items():
                columns[name].append(value)
            self._row += 1
        if self._row > start:
            kinds = self._shared_kinds()
            types = {name: ARROW[kind] if kind else pa.null() for name, kind in kinds.items()} | NUMBERS
            if self._any_json:
                types["context"] = pa.string()
            yield {name: pa.array(values, types[name]) for name, values in columns.items()}

    def _row_of(self, line: bytes) -> dict[str, Any] | None:
        """The handoff on a line; None for blank and torn lines, headers, and refused lines."""
        if not line.strip():
            return None
        try:
            row = _loads(line)
        except ValueError:
            self.torn += Finding(1, self.number(self._row))
            return self._behind_torn(line)
        if isinstance(row, dict) and "schema" in row and "task" not in row:
            self._header(row)
            return None
        if not isinstance(row, dict):
            self._refuse("task", "the line is not a JSON object", passed=False)
            return None
        return row

    def _behind_torn(self, line: bytes) -> dict[str, Any] | None:
        """A whole row written right behind a torn one."""
        start = line.find(ROW, 1)
        while start > 0:
            try:
                row = _loads(line[start:])
            except ValueError:
                start = line.find(ROW, start + 1)
                continue
            return row if isinstance(row, dict) else None
        return None

    def _header(self, row: dict[str, Any]) -> None:
        where = f"line {self.number(self._row)}"
        if row["schema"] != SCHEMA:
            raise LogError(f"{where}: the schema is {row['schema']}, this reader knows {SCHEMA}")
        if row.get("gamma") is None:
            return
        gamma = check_gamma(row["gamma"])
        if self.gamma is not None and gamma != self.gamma:
            raise LogError(f"{where}: gamma = {gamma}, but {self.gamma} before")
        self.gamma = gamma

    def _refuse(self, column: str, why: str, passed: bool = True) -> None:
        """Raise for the current line, or count it."""
        line = self.number(self._row)
        if not self.skip_bad:
            raise LogError(f"line {line}, column {column}: {why}")
        self.bad[column] = self.bad.get(column, Finding()) + Finding(1, line)
        self.refused += 1
        if passed:
            self._passed.append(self._row)

    def _value(self, name: str, value: Any) -> Any:
        """A JSON value as what its column holds.  Raises _Wrong."""
        if value is None:
            if name in REQUIRED and not name.startswith("next_"):
                raise _Wrong(name, f"{name} = null is needed")
            return None
        if name in NUMBERS:
            return CONVERT[name](name, value)
        return self._id(name, value)

    def _id(self, name: str, value: Any) -> Any:
        if name == "context" and self._any_json:
            return _canonical(value)
        known = self._kinds[name.removeprefix("next_")]
        if isinstance(value, str):
            kind = Kind.TEXT
        elif _is_whole(value):
            kind, value = Kind.INTEGER, int(value)
            if abs(value) >= 2**63:
                raise _Wrong(name, f"{name} = {_short(value)} is too large; write such ids as text")
        elif name in VECTORS and isinstance(value, list) and all(_is_number(x) for x in value):
            kind, value = Kind.VECTOR, [_real(name, x) for x in value]
        elif name == "context" and known is None:
            self._any_json = True
            return _canonical(value)
        elif name == "context" and known is not None:
            raise _Wrong(name, f"{name} = {_short(value)}, but before there were {known.value}")
        else:
            allowed = "text, an integer or a list of numbers" if name in VECTORS else "text or an integer"
            raise _Wrong(name, f"{name} = {_short(value)}: an id is {allowed}")
        if known is None:
            self._kinds[name.removeprefix("next_")] = kind
        elif known is not kind:
            raise _Wrong(name, f"{name} = {_short(value)}, but before there were {known.value}")
        return value


def _loads(line: bytes) -> Any:
    """Python's parser where the fast one refuses: it knows NaN and integers of any size, and gets better errors."""
    try:
        return orjson.loads(line)
    except ValueError:
        return json.loads(line)


def _canonical(value: Any) -> str | None:
    """The same text for the same JSON value."""
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


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
    text = json.dumps(value)
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
        return math.inf if value > 0 else -math.inf  # as the fast parser reads it


def _truth(name: str, value: Any) -> bool:
    if value not in (0, 1):
        raise _Wrong(name, f"{name} = {_short(value)} is not true or false")
    return bool(value)


CONVERT: dict[str, Callable[[str, Any], Any]] = {
    "k": _integer, "duration": _integer, "done": _truth, "reward": _real, "scalar": _real, "probability": _real,
}  # fmt: skip
