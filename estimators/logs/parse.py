"""One line of a JSON Lines log as the object it holds, or in a person's words why it holds none."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from estimators.logs.schema import REQUIRED

BEGINNINGS = (b'{"task":', b'{"schema":')  # how the recorder begins a line
LONG = re.compile(rb"[0-9]{20}")  # integers that the fast parser rounds


class UnreadableLine(Exception):
    """A line that is no JSON object in UTF-8; the message says why."""


def parse(line: bytes) -> Any:
    """The JSON value of a line.  Raises UnreadableLine.

    The fast parser is believed where it cannot differ from the exact one: no integer is too long for it, and no key is
    there twice, as there are no more colons than keys.
    """
    if not LONG.search(line):
        try:
            row = orjson.loads(line)
        except ValueError:
            return _exactly(line)
        if isinstance(row, dict) and line.count(b":") in (len(row), _keys(row)):
            return row
    return _exactly(line)


def _exactly(line: bytes) -> Any:
    """The same by Python's parser, which knows NaN and integers of any size."""
    try:
        return json.loads(line.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UnreadableLine(
            f"byte 0x{byte:02x} at position {error.start} is not UTF-8; save the log as UTF-8"
        ) from None
    except RecursionError:
        raise UnreadableLine("nested too deeply") from None
    except ValueError:
        raise UnreadableLine("not one JSON object") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnreadableLine(f"the key {twice!r} is there twice")
    return found


def _keys(value: dict[str, Any]) -> int:
    """How many keys there are, inside too."""
    count = 0
    left: list[Any] = [value]
    while left:
        each = left.pop()
        if type(each) is dict:
            count += len(each)
        left += [x for x in (each.values() if type(each) is dict else each) if type(x) is dict or type(x) is list]
    return count


def cut(line: bytes) -> bool:
    """Whether an unreadable line may be the beginning of an object whose end was not written."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if error.end < len(line) or error.reason != "unexpected end of data":
            return False
    return line.lstrip().startswith(b"{")


def behind(line: bytes) -> dict[str, Any] | None:
    """The row or header that another process wrote right behind a row that was cut, on the same line."""
    for beginning in BEGINNINGS:
        start = line.find(beginning, 1)
        while start > 0:
            try:
                found = parse(line[start:])
            except UnreadableLine:
                start = line.find(beginning, start + 1)
                continue
            whole = isinstance(found, dict) and (found.keys() >= set(REQUIRED) or is_header(found))
            return found if whole and _half(line[:start]) else None
    return None


def _half(line: bytes) -> bool:
    """Whether an object was begun and not ended."""
    try:
        parse(line)
    except UnreadableLine:
        return cut(line)
    return False


def is_header(row: Any) -> bool:
    """Whether a line says what the file is."""
    return isinstance(row, dict) and "schema" in row and "task" not in row
