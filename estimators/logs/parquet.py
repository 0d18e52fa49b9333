"""Parquet as batches of columns, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from estimators.logs.report import Finding
from estimators.logs.schema import COLUMNS, IDS, REQUIRED, SCHEMA, LogError, check_gamma

BATCH = 1 << 18  # rows


class ParquetRows:
    """A Parquet file, row group by row group; text stays dictionary-encoded."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        try:
            schema = pq.read_schema(path)
            text = [name for name in schema.names if name in IDS and _textual(schema.field(name).type)]
            self._file = pq.ParquetFile(path, read_dictionary=text)
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            raise LogError(
                "not a readable Parquet file: it is cut or damaged, or was written by something else"
            ) from None
        metadata = schema.metadata or {}
        said = metadata.get(b"icq.schema", SCHEMA.encode()).decode(errors="backslashreplace")
        if said != SCHEMA:
            raise LogError(f"the schema is {said}, this reader knows {SCHEMA}")
        self.gamma: float | None = None
        if b"icq.gamma" in metadata:
            try:
                self.gamma = check_gamma(float(metadata[b"icq.gamma"]))
            except LogError as error:
                raise LogError(f"metadata icq.gamma: {error}") from None
            except ValueError:
                said = metadata[b"icq.gamma"].decode(errors="backslashreplace")
                raise LogError(f"metadata icq.gamma: {said!r} is not a number inside (0, 1)") from None
        self._names = schema.names
        if missing := [name for name in REQUIRED if name not in self._names]:
            raise LogError(f"column {missing[0]} is missing; required are {', '.join(REQUIRED)}")
        if twice := [name for name in COLUMNS if self._names.count(name) > 1]:
            raise LogError(f"column {twice[0]} is there {self._names.count(twice[0])} times")
        self.ignored = set(self._names) - set(COLUMNS)
        self.bad: dict[str, Finding] = {}
        self.torn, self.unreadable, self.refused = Finding(), Finding(), 0
        self.lost: list[int] = []

    def batches(self, wanted: tuple[str, ...]) -> Iterator[tuple[dict[str, pa.Array], float]]:
        """Batches of the wanted columns that the file has."""
        names = [name for name in wanted if name in self._names]
        total, seen = self._file.metadata.num_rows, 0
        try:
            for batch in self._file.iter_batches(BATCH, columns=names):
                seen += batch.num_rows
                yield {name: batch.column(name) for name in names}, seen / max(total, 1)
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            raise LogError(f"damaged after row {seen}: what comes then cannot be read") from None

    def number(self, row: int) -> int:
        """Rows are counted from 0."""
        return row

    def numbers(self, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The numbers of several rows."""
        return rows


def _textual(arrow: pa.DataType) -> bool:
    return pa.types.is_string(arrow) or pa.types.is_large_string(arrow)
