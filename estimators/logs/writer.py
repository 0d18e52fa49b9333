"""Writing handoff logs, Parquet or JSON Lines by the suffix of the file (the format: docs/logs.md)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from estimators.logs.log import Log
from estimators.logs.schema import SCHEMA

PIECE = 1 << 20  # rows turned into a table at once
PARQUET = (".parquet", ".pq")
LINES = (".jsonl", ".ndjson", ".json")


class LogWriter:
    """A log written piece by piece; the file appears when the last piece is written, whole or not at all.

    chained: write the `chain` column, so that the end of a task is known to begin the next one.  All pieces need the
    columns and names of the first.  Raises ValueError for an unknown suffix, OSError when the folder cannot be written.

    >>> with LogWriter("log.parquet", gamma=0.9, chained=True) as writer:  # doctest: +SKIP
    ...     writer.write(piece)
    """

    def __init__(self, path: str | os.PathLike[str], *, gamma: float, chained: bool) -> None:
        self.path, self.gamma, self.chained = Path(path), gamma, chained
        if self.path.suffix not in PARQUET + LINES:
            raise ValueError(f"{self.path}: unknown suffix; use {', '.join(PARQUET + LINES)}")
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part")
        self._part, self._file = Path(name), os.fdopen(handle, "wb")
        self._parquet: pq.ParquetWriter | None = None
        self._begun = False
        self._task, self._chain = -1, -1  # of the last row written

    def write(self, log: Log) -> None:
        """Append the rows of a log.  Raises ValueError for a number that the reader would refuse."""
        for name, column, bad in _refused(log):
            if bad.any():
                first = int(np.argmax(bad))
                raise ValueError(f"{name}[{first}] = {column[first]} is not finite")
        for start in range(0, len(log), PIECE):
            self._write(pa.table(self._columns(log, slice(start, start + PIECE))))

    def _write(self, table: pa.Table) -> None:
        if self.path.suffix in LINES:
            if not self._begun:
                self._file.write(header(self.gamma))
            write_lines(table, self._file)
        else:
            if self._parquet is None:
                about = {"icq.schema": SCHEMA, "icq.gamma": repr(float(self.gamma))}
                self._parquet = pq.ParquetWriter(self._file, table.schema.with_metadata(about), compression="zstd")
            self._parquet.write_table(table, row_group_size=PIECE)
        self._begun = True

    def _columns(self, log: Log, rows: slice) -> dict[str, pa.Array]:
        """The rows in Arrow's types."""
        features = log.features
        out = {"task": pa.array(log.task[rows], pa.int64()), "k": pa.array(log.k[rows], pa.int64())}
        for name in ("agent", "observation", "option", "reward", "duration", "done", "next_agent", "next_observation"):
            values = getattr(log, name)[rows]
            vocabulary = name.removeprefix("next_")
            if vocabulary in ("agent", "observation", "option"):
                names = getattr(log.names, vocabulary)
                out[name] = _ids(values, names, features if vocabulary == "observation" else None)
            else:
                out[name] = pa.array(values, pa.int64() if name == "duration" else None)
        out["scalar"] = pa.array(log.scalar[rows], from_pandas=True)  # NaN is null
        if log.context is not None:
            out["context"] = _ids(log.context[rows], log.names.context, None)
        if log.probability is not None:
            out["probability"] = pa.array(log.probability[rows], from_pandas=True)
        if self.chained:
            out["chain"] = pa.array(self._chains(log.task[rows], log.follows[rows]))
        return out

    def _chains(self, task: Int[np.ndarray, "n"], follows: Bool[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """A chain ends where a task begins that does not follow the one before."""
        begins = (np.diff(task, prepend=self._task) != 0) & ~follows
        begins[0] |= self._chain < 0
        chain = self._chain + np.cumsum(begins, dtype=np.int64)
        self._task, self._chain = int(task[-1]), int(chain[-1])
        return chain

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self._begun:
                    raise ValueError(f"{self.path}: nothing was written")
                if self._parquet is not None:
                    self._parquet.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                os.chmod(self._part, 0o666 & ~_umask())
                os.replace(self._part, self.path)
        finally:
            if self._parquet is not None and self._parquet.is_open:  # after an error: the part is thrown away
                with suppress(OSError, pa.ArrowException):
                    self._parquet.close()
            self._file.close()
            self._part.unlink(missing_ok=True)


def _refused(log: Log) -> Iterator[tuple[str, np.ndarray, Bool[np.ndarray, "n"]]]:
    """Where each column of numbers has one that no log may have; NaN is null where it may be."""
    yield "reward", log.reward, ~np.isfinite(log.reward)
    yield "scalar", log.scalar, np.isinf(log.scalar)
    if log.features is not None:
        yield "features", log.features, ~np.isfinite(log.features).all(axis=1)


def write(log: Log, path: str | os.PathLike[str]) -> None:
    """Write a log; `estimators.logs.reader.read` gives it back.  Raises ValueError for an empty log."""
    onward = log.follows[1:] & (log.task[1:] != log.task[:-1])
    named = log.done & (log.next_observation >= 0)
    with LogWriter(path, gamma=log.gamma, chained=bool(onward.any() or named.any())) as writer:
        writer.write(log)


def header(gamma: float) -> bytes:
    """The first line of a JSON Lines log."""
    return json.dumps({"schema": SCHEMA, "gamma": float(gamma)}).encode() + b"\n"


def write_lines(table: pa.Table, file: BinaryIO) -> None:
    """One JSON object per row, put together column-wise."""
    parts: list[pa.Array | pa.Scalar] = []
    opening = "{"
    for name in table.column_names:
        parts += [f'{opening}"{name}":', _json_text(table.column(name).combine_chunks())]
        opening = ","
    lines = pc.binary_join_element_wise(*(_large(p) for p in (*parts, "}\n", "")))
    for chunk in lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]:
        file.write(_bytes(chunk))


def _large(part: pa.Array | str) -> pa.Array | pa.Scalar:
    return pa.scalar(part, pa.large_string()) if isinstance(part, str) else part.cast(pa.large_string())


def _bytes(text: pa.Array) -> memoryview:
    """The characters of all strings, without gaps between them."""
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    return memoryview(text.buffers()[2])[offsets[0] : offsets[-1]]


def _json_text(values: pa.Array) -> pa.Array:
    """Each value as JSON."""
    if pa.types.is_dictionary(values.type):
        words = values.dictionary
        if pa.types.is_integer(words.type):
            words = words.cast(pa.large_string())
        else:
            words = pa.array([json.dumps(word) for word in words.to_pylist()], pa.large_string())
        return words.take(values.indices).fill_null("null")
    if pa.types.is_list(values.type):
        inside = pc.binary_join(values.cast(pa.list_(pa.string())), ",")
        values = pc.binary_join_element_wise("[", inside, "]", "")
    return values.cast(pa.string()).cast(pa.large_string()).fill_null("null")


def _ids(codes: Int[np.ndarray, "n"], names: tuple[str, ...], features: Float[np.ndarray, "O F"] | None) -> pa.Array:
    """Codes as what they stand for; null where negative."""
    missing = codes < 0
    if features is None and not names:
        return pa.array(codes, pa.int64(), mask=missing)
    if features is None:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=missing), pa.array(names))
    flat = pa.array(features[codes[~missing]].ravel(), pa.float64())
    size = features.shape[1]
    offsets = np.append(0, np.cumsum(np.where(missing, 0, size))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(missing, False)), flat)


def _umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
