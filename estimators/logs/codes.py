"""Names to codes 0..n-1, batch by batch, without a Python object per row.

Integers are their own codes while they are small; text and vectors get codes in sorted order, so the codes do not
depend on the order of rows or batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from estimators.logs.schema import LogError
from icq.display import Shown, shown

SMALL = 65_536  # integers below this are codes as they are, whatever is missing between them


class Kind(Enum):
    """What the ids of a column are; the value names it in errors."""

    INTEGER = "integers"
    TEXT = "text"
    VECTOR = "lists of numbers"
    JSON = "JSON values"


@shown
class Chunk(NamedTuple):
    """One encoded batch of a column: codes (-1 null), and what they stand for unless they are integers themselves."""

    codes: Int[np.ndarray, "n"]
    words: pa.Array | None
    kind: Kind | None = None


class Checks:
    """The rows of one batch that break the format; a row counts for the first column that refuses it."""

    def __init__(self, size: int) -> None:
        self.bad = np.zeros(size, bool)
        self.first: dict[str, tuple[int, str]] = {}  # column -> first row, what is wrong there
        self.count: dict[str, int] = {}

    def refuse(self, column: str, bad: Bool[np.ndarray, "n"], values: pa.Array | np.ndarray, why: str) -> None:
        """Mark rows as bad because of a column."""
        new = bad & ~self.bad
        if not new.any():
            return
        row = int(np.argmax(new))
        value = values[row].as_py() if isinstance(values, pa.Array) else values[row].item()
        if column not in self.first or row < self.first[column][0]:
            self.first[column] = (row, f"{column} = {'null' if value is None else repr(value)} {why}")
        self.count[column] = self.count.get(column, 0) + int(new.sum())
        self.bad |= bad


def nulls(values: pa.Array) -> Bool[np.ndarray, "n"]:
    """Where there is no value."""
    if values.null_count == 0:
        return np.zeros(len(values), bool)
    return values.is_null().to_numpy(zero_copy_only=False)


def unknown(values: pa.Array) -> Bool[np.ndarray, "n"]:
    """Null, or NaN: tables that know no null write integers with gaps as floats."""
    missing = nulls(values)
    if pa.types.is_floating(values.type):
        missing = missing | pc.is_nan(values).fill_null(True).to_numpy(zero_copy_only=False)
    return missing


def integers(column: str, values: pa.Array, missing: Bool[np.ndarray, "n"], checks: Checks) -> Int[np.ndarray, "n"]:
    """Integers, -1 where missing; floats are accepted where they are whole.  Refuses the other rows."""
    if pa.types.is_floating(values.type):
        raw = values.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
        whole = missing | ((np.abs(raw) < 2.0**53) & (raw == np.round(raw)))
        checks.refuse(column, ~whole, values, "is not an integer")
        return np.where(missing | ~whole, -1.0, raw).astype(np.int64)
    if not (pa.types.is_integer(values.type) or pa.types.is_null(values.type)):
        raise LogError(f"column {column} holds {values.type}, integers are needed")
    if pa.types.is_uint64(values.type):
        large = pc.greater(values, pa.scalar(2**63 - 1, pa.uint64())).fill_null(False)
        checks.refuse(column, large.to_numpy(zero_copy_only=False), values, "is too large; write such ids as text")
        values = pc.if_else(large, pa.scalar(0, pa.uint64()), values)
    return values.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Coded(Shown):
    """The codes of each column of a book (-1 where null), and what they stand for."""

    codes: dict[str, Int[np.ndarray, "n"]]
    names: tuple[str, ...] = ()
    features: Float[np.ndarray, "O F"] | None = None


class Codebook:
    """Collects the ids of columns that share one vocabulary (`agent` and `next_agent`)."""

    def __init__(self, *columns: str, vectors: bool = False, named: bool = True) -> None:
        self.columns, self.vectors, self.named = columns, vectors, named
        self.kind: Kind | None = None
        self.width = 0
        self._chunks: dict[str, list[Chunk]] = {name: [] for name in columns}

    def add(self, column: str, values: pa.Array, checks: Checks) -> Chunk:
        """Encode one batch of a column, with a dictionary of its own."""
        if pa.types.is_dictionary(values.type) and (
            not is_text(values.type.value_type) or values.dictionary.null_count
        ):
            values = values.dictionary_decode()
        kind = self._kind(column, values.type)
        if kind is None:
            return Chunk(np.full(len(values), -1, np.int32), None)
        if self.kind is not None and kind != self.kind:
            raise LogError(f"column {column} holds {kind.value}, but before there were {self.kind.value}")
        self.kind = kind
        if kind is Kind.TEXT:
            return self._texts(column, values, checks)
        if kind is Kind.INTEGER:
            missing = unknown(values)
            out = integers(column, values, missing, checks)
            checks.refuse(
                column, ~missing & (out < 0), values, "is negative; integer ids are 0, 1, 2, ..., null is none"
            )
            return Chunk(_narrow(out), None, kind)
        return self._vectors(column, values, checks)

    def _texts(self, column: str, values: pa.Array, checks: Checks) -> Chunk:
        """Codes of texts; a table may hold bytes that are none."""
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        codes, words = indices(coded), coded.dictionary
        try:
            words.validate(full=True)
        except pa.ArrowInvalid:
            raw = words.cast(pa.large_binary()).to_pylist()
            whole = [word.decode(errors="replace") for word in raw]
            broken = np.append([word != text.encode() for word, text in zip(raw, whole, strict=True)], False)
            words = pa.array(whole, pa.large_string())
            checks.refuse(column, broken[codes], words.take(pa.array(codes, mask=codes < 0)), "is not UTF-8")
        return Chunk(codes, words.cast(pa.large_string()), Kind.TEXT)

    def _kind(self, column: str, arrow: pa.DataType) -> Kind | None:
        """The kind of an Arrow type; None for a column of nulls."""
        if pa.types.is_null(arrow):
            return None
        if is_text(arrow) or pa.types.is_dictionary(arrow):
            return Kind.TEXT
        if pa.types.is_integer(arrow) or pa.types.is_floating(arrow):
            return Kind.INTEGER
        lists = pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow)
        if self.vectors and lists and (pa.types.is_integer(arrow.value_type) or pa.types.is_floating(arrow.value_type)):
            return Kind.VECTOR
        allowed = "text, integers or lists of numbers" if self.vectors else "text or integers"
        raise LogError(f"column {column} holds {arrow}; ids are {allowed} (write anything else as its JSON text)")

    def _vectors(self, column: str, values: pa.Array, checks: Checks) -> Chunk:
        """Codes of vectors: their 8F bytes are the name."""
        missing = nulls(values)
        length = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        if self.width == 0 and (~missing).any():
            self.width = int(length[~missing][0])
        fits = ~missing & (length == self.width) & (length > 0)
        checks.refuse(column, ~missing & ~fits, values, f"has not {max(self.width, 1)} numbers, as the first one")
        flat = values.filter(pa.array(fits)).flatten().cast(pa.float64()).fill_null(np.nan)
        table = flat.to_numpy(zero_copy_only=False).reshape(-1, max(self.width, 1)) + 0.0  # no -0.0
        finite = np.ones(len(values), bool)
        finite[fits] = np.isfinite(table).all(1)
        checks.refuse(column, ~finite, values, "is not finite")
        raw = pa.Array.from_buffers(pa.binary(8 * table.shape[1]), len(table), [None, pa.py_buffer(table)])
        coded = raw.dictionary_encode()
        codes = np.full(len(values), -1, np.int32)
        codes[fits] = indices(coded)
        return Chunk(codes, coded.dictionary, Kind.VECTOR)

    def keep(self, column: str, chunk: Chunk, good: Bool[np.ndarray, "n"] | None) -> None:
        """Store an encoded batch (its good rows)."""
        self._chunks[column].append(chunk if good is None else chunk._replace(codes=chunk.codes[good]))

    def finish(self) -> Coded:
        """One set of codes for all batches and columns; the batches are released."""
        if self.kind in (None, Kind.INTEGER):
            return Coded({name: self._pop(name) for name in self.columns})
        dictionaries = [chunk.words for name in self.columns for chunk in self._chunks[name] if chunk.words is not None]
        whole = pa.concat_arrays(dictionaries).dictionary_encode()
        target = np.append(indices(whole), np.int32(-1))  # position in all dictionaries -> code
        codes, offset = {}, 0
        for name in self.columns:
            parts = []
            for local, words, _ in self._chunks.pop(name):
                size = 0 if words is None else len(words)
                parts.append(np.append(target[offset : offset + size], np.int32(-1))[local])
                offset += size
            codes[name] = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return self._sorted(codes, whole.dictionary) if self.named else Coded(codes)

    def _pop(self, column: str) -> Int[np.ndarray, "n"]:
        parts = [chunk.codes for chunk in self._chunks.pop(column)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def _sorted(self, codes: dict[str, np.ndarray], words: pa.Array) -> Coded:
        """Codes in the order of the words."""
        if self.kind is Kind.TEXT:
            order = pc.sort_indices(words).to_numpy()
            words = words.take(pa.array(order))
        else:
            table = np.frombuffer(words.buffers()[1], np.float64)[words.offset * self.width :][
                : len(words) * self.width
            ]
            table = table.reshape(-1, self.width)
            order = np.lexsort(table.T[::-1])
            table = table[order]
        rank = np.full(len(order) + 1, -1, np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        codes = {name: rank[column] for name, column in codes.items()}
        if self.kind is Kind.TEXT:
            return Coded(codes, names=tuple(words.to_pylist()))
        return Coded(codes, features=table)


def compact(coded: Coded) -> Coded:
    """Drop names that no row uses; give integers codes 0..n-1, and names, when they are too sparse to be codes."""
    columns = list(coded.codes.values())
    top = max((int(c.max(initial=-1)) for c in columns), default=-1)
    if not coded.names and coded.features is None:
        if top < SMALL:
            return Coded({name: c.astype(np.int32, copy=False) for name, c in coded.codes.items()})
        used = np.unique(np.concatenate([pc.unique(pa.array(c)).to_numpy() for c in columns]))
        used = used[used >= 0]
        if top < 4 * len(used) and top < 2**31:
            return Coded({name: c.astype(np.int32, copy=False) for name, c in coded.codes.items()})
        new = {name: np.where(c >= 0, np.searchsorted(used, c), -1).astype(np.int32) for name, c in coded.codes.items()}
        return Coded(new, names=tuple(map(str, used.tolist())))
    size = len(coded.names) if coded.features is None else len(coded.features)
    seen = np.zeros(size + 1, bool)
    for column in columns:
        seen[column] = True
    seen = seen[:size]
    if seen.all():
        return coded
    rank = np.append(np.cumsum(seen) - 1, -1).astype(np.int32)
    names = tuple(name for name, s in zip(coded.names, seen) if s)
    features = None if coded.features is None else coded.features[seen]
    return Coded({name: rank[c] for name, c in coded.codes.items()}, names, features)


def by_appearance(codes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Codes 0, 1, ... in the order in which they first appear."""
    top = np.maximum.accumulate(codes)
    if len(codes) == 0 or (codes[0] == 0 and (np.diff(top) <= 1).all()):
        return codes.astype(np.int32, copy=False)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def is_text(arrow: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    return pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow)


def indices(coded: pa.DictionaryArray) -> Int[np.ndarray, "n"]:
    """The codes of a dictionary array, -1 where null."""
    return coded.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)


def _narrow(codes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    return codes.astype(np.int32) if codes.max(initial=0) < 2**31 else codes
