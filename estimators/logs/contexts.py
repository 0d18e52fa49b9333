"""Contexts are any JSON value, and two are one only if their JSON text is: 1, 1.0, "1", true and -0.0 are five.

Whole numbers from 0 stay codes of their own and text stays text as long as a log has nothing else.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from estimators.logs.codes import Checks, Chunk, Codebook, Coded, Kind, indices, is_text, nulls

ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
JSON = pa.binary()  # how a source hands over contexts that are JSON texts already


def canonical(value: Any) -> str:
    """The same text for the same JSON value, and for no other.  Raises ValueError for what is no JSON value."""
    try:
        text = ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None
    except TypeError:
        raise ValueError("is no JSON value; write it as text") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("is not finite") from None
    return text


class ContextBook(Codebook):
    """The vocabulary of the column `context`."""

    def __init__(self) -> None:
        super().__init__("context")

    def add(self, column: str, values: pa.Array, checks: Checks) -> Chunk:
        """Encode one batch; whatever is neither whole numbers nor text by its JSON text."""
        arrow = values.type
        plain = is_text(arrow.value_type) if pa.types.is_dictionary(arrow) else is_text(arrow)
        if pa.types.is_null(arrow):
            return Chunk(np.full(len(values), -1, np.int32), None)
        if plain or (pa.types.is_integer(arrow) and _small(values)):
            self.kind = None  # each batch is of its own kind
            return super().add(column, values, checks)
        texts = values if arrow == JSON else _texts(column, values, checks)
        coded = texts.cast(pa.large_string()).dictionary_encode()
        self.kind = Kind.JSON
        return Chunk(indices(coded), coded.dictionary, Kind.JSON)

    def finish(self) -> Coded:
        """Codes as they are while all are numbers or all are text, else of the JSON texts."""
        chunks = self._chunks["context"]
        kinds = {chunk.kind for chunk in chunks if chunk.codes.max(initial=-1) >= 0}
        if kinds <= {Kind.INTEGER} or kinds == {Kind.TEXT}:
            self.kind = next(iter(kinds), None)
        else:
            self._chunks["context"] = [_in_json(chunk) for chunk in chunks]
            self.kind = Kind.TEXT
        return super().finish()


def _small(values: pa.Array) -> bool:
    """Whether these integers can be codes: from 0, and int64."""
    least, most = pc.min_max(values).as_py().values()
    return least is None or (least >= 0 and most < 2**63)


def _texts(column: str, values: pa.Array, checks: Checks) -> pa.Array:
    """The JSON text of every value of a table; what has none is refused."""
    numbers = pa.types.is_nested(values.type) and not pa.types.is_struct(values.type)
    missing, bad = nulls(values), np.zeros(len(values), bool)
    out: list[str | None] = []
    first: ValueError | None = None
    for i, value in enumerate(values.to_pylist()):
        out.append(None)
        if missing[i] or value != value:  # a data frame writes NaN for null
            continue
        try:
            if numbers and None in value:
                raise ValueError("is not finite")
            out[i] = canonical(value)
        except ValueError as error:
            first, bad[i] = first or error, True
    if first is not None:
        checks.refuse(column, bad, values, f"{first}")
    return pa.array(out, pa.large_string())


def _in_json(chunk: Chunk) -> Chunk:
    """A chunk whose words are JSON texts."""
    if chunk.kind is Kind.JSON or chunk.codes.max(initial=-1) < 0:
        return chunk._replace(codes=chunk.codes.astype(np.int32))
    if chunk.words is not None:
        return chunk._replace(words=_array([canonical(word) for word in chunk.words.to_pylist()]))
    used, codes = np.unique(chunk.codes, return_inverse=True)
    codes = np.where(chunk.codes >= 0, codes - int(used[0] < 0), -1).astype(np.int32)
    return Chunk(codes, _array([str(code) for code in used[used >= 0].tolist()]), Kind.JSON)


def _array(words: list[str]) -> pa.Array:
    return pa.array(words, pa.large_string())


def minority(missing: Bool[np.ndarray, "n"]) -> tuple[Bool[np.ndarray, "n"], str]:
    """The rows to refuse where a column is given on some rows only, the fewer ones, and why."""
    if 2 * int(missing.sum()) <= len(missing):
        return missing, "null, but other rows have one; give it on every row or on none"
    return ~missing, f"given, but {int(missing.sum())} other rows have none; give it on every row or on none"
