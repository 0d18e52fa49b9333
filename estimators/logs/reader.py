"""Reading a handoff log from Parquet or JSON Lines (the format: docs/logs.md).

The file is streamed in batches; names become codes on the way, so ten million rows fit in a small part of the memory
that they would take as Python objects.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from estimators.logs.codes import Checks, Chunk, Codebook, Coded, compact, integers, nulls
from estimators.logs.contexts import ContextBook, minority
from estimators.logs.lines import JsonLines
from estimators.logs.log import Log, Vocabulary
from estimators.logs.order import Columns, FileRows, arrange
from estimators.logs.parquet import ParquetRows
from estimators.logs.report import Finding, ReaderReport
from estimators.logs.schema import COLUMNS, OPTIONAL, REQUIRED, SCHEMA, LogError, check_gamma

REALS = ("reward", "scalar", "probability")


Source: TypeAlias = JsonLines | ParquetRows


def read(
    path: str | os.PathLike[str],
    *,
    gamma: float | None = None,
    skip_bad: bool = False,
    context: bool = True,
    progress: Callable[[float], None] | None = None,
) -> tuple[Log, ReaderReport]:
    """The log in a file, and a report on everything irregular in it.

    gamma: discount per primitive step, where the file does not say.  skip_bad: leave unusable rows out and count them,
    instead of stopping at the first.  context=False does not load that column.  progress is told the fraction read.
    Integer columns are int32; codes are int64 where an index made of several of them would not fit.

    Raises LogError naming the row (Parquet, from 0) or line (JSON Lines, from 1), the column and the value;
    FileNotFoundError.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise LogError(f"{path}: is not a regular file; save the log to one first")
    try:
        with open(path, "rb") as file:
            parquet = file.read(4) == b"PAR1"
        source: Source = ParquetRows(path) if parquet else JsonLines(path, skip_bad)
        return _read(path, source, gamma, skip_bad, context, progress)
    except LogError as error:
        raise LogError(f"{path}: {error}") from None


def _read(
    path: Path, source: Source, gamma: float | None, skip_bad: bool, context: bool,
    progress: Callable[[float], None] | None,
) -> tuple[Log, ReaderReport]:  # fmt: skip
    gather = _Gather(source, skip_bad)
    wanted = tuple(name for name in COLUMNS if context or name != "context")
    for batch, fraction in source.batches(wanted):
        gather.add(batch)
        if progress is not None:
            progress(fraction)
    size = gather.rows + source.refused
    if size == 0:
        torn = f" ({source.torn.count} torn lines, the first is line {source.torn.first})" if source.torn else ""
        raise LogError(f"holds no handoffs{torn}")
    known = _agree(gamma, source.gamma)
    if gather.rows == 0:
        raise LogError(f"no readable row is left of {size}: {_refusals(source)}")
    rows, coded = gather.finish()
    _owners(rows, coded, gather)
    follows = arrange(rows, skip_bad=skip_bad)
    log = _log(known, rows.columns, coded, follows)
    rows.note("no_scalar", np.isnan(log.scalar) & ~log.done)
    rows.note("no_probability", np.isnan(rows.columns["probability"]))
    bad = {name: gather.bad.get(name, Finding()) + source.bad.get(name, Finding()) for name in gather.bad | source.bad}
    return log, ReaderReport(
        source=str(path), unit=source.unit, rows=size, kept=len(log), tasks=int(log.task.max(initial=-1)) + 1,
        torn=source.torn, unreadable=source.unreadable, bad=bad, ignored=tuple(sorted(source.ignored)), **rows.found,
    )  # fmt: skip


def _said(why: str, row: int) -> str:
    return why


def _refusals(source: Source) -> str:
    """What was left out, and where it began."""
    said = [
        f"column {column} in {found.count}, first {source.unit} {found.first}" for column, found in source.bad.items()
    ]
    if source.unreadable:
        said.append(f"{source.unreadable.count} are not JSON objects in UTF-8, first line {source.unreadable.first}")
    return "; ".join(said)


def _agree(given: float | None, stored: float | None) -> float:
    """The discount per primitive step, from the caller or from the file."""
    if given is None and stored is None:
        raise LogError(
            "gamma is not in the file: pass gamma=..., the discount per primitive step (or write it into the Parquet "
            f'metadata as icq.gamma, or as first line {{"schema": "{SCHEMA}", "gamma": ...}})'
        )
    if given is not None and stored is not None and check_gamma(given) != stored:
        raise LogError(f"gamma = {given} was passed, but the file says {stored}")
    return check_gamma(given) if given is not None else float(stored or 0)


class _Gather:
    """Batches checked row by row and collected as compact columns."""

    def __init__(self, source: Source, skip_bad: bool) -> None:
        self.source, self.skip_bad = source, skip_bad
        self.rows = 0
        self.bad: dict[str, Finding] = {}
        self.books = (
            Codebook("task", named=False), Codebook("agent", "next_agent"),
            Codebook("observation", "next_observation", vectors=True), Codebook("option"),
            ContextBook(), Codebook("chain", named=False),
        )  # fmt: skip
        self._book = {name: book for book in self.books for name in book.columns}
        self._numbers: dict[str, list[np.ndarray]] = {name: [] for name in ("k", "duration", "done", *REALS)}
        self._kept: list[np.ndarray] = []
        self._lost: list[np.ndarray] = []  # numbers of the rows that were left out

    def add(self, batch: dict[str, pa.Array]) -> None:
        """Check a batch and keep its good rows.  Raises LogError for the first bad one unless they are skipped."""
        size = len(batch["task"])
        checks = Checks(size)
        numbers = _numeric(batch, checks)
        ended = numbers["done"]
        chunks: dict[str, Chunk] = {}
        for name, values in batch.items():
            if name in self._book:
                chunks[name] = chunk = self._book[name].add(name, values, checks)
                absent = chunk.codes == -1
                if name.startswith("next_"):
                    checks.refuse(name, absent & ~ended, values, "is needed where done is false")
                elif name in REQUIRED:
                    checks.refuse(name, absent, values, "is needed")
        half = (chunks["next_agent"].codes == -1) != (chunks["next_observation"].codes == -1)
        checks.refuse(
            "next_agent", half & ended, batch["next_agent"], "but next_observation is not alike: give both or none"
        )
        good = self._settle(checks)
        for name, chunk in chunks.items():
            self._book[name].keep(name, chunk, good)
        for name, values in numbers.items():
            self._numbers[name].append(values if good is None else values[good])
        self.rows += size

    def _settle(self, checks: Checks) -> Bool[np.ndarray, "n"] | None:
        """The good rows of a checked batch; None means all."""
        if not checks.first:
            if self._kept:
                self._kept.append(np.arange(self.rows, self.rows + len(checks.bad), dtype=np.int32))
            return None
        if not self.skip_bad:
            column, (row, message) = min(checks.first.items(), key=lambda item: item[1][0])
            raise LogError(f"{self.source.unit} {self.source.number(self.rows + row)}, column {column}: {message}")
        for column, (row, _) in checks.first.items():
            self._count(column, Finding(checks.count[column], self.source.number(self.rows + row)))
        if not self._kept:
            self._kept.append(np.arange(self.rows, dtype=np.int32))
        self._kept.append((self.rows + np.flatnonzero(~checks.bad)).astype(np.int32))
        self._lost.append(self.source.numbers(self.rows + np.flatnonzero(checks.bad)))
        return ~checks.bad

    def _count(self, column: str, found: Finding) -> None:
        self.bad[column] = self.bad.get(column, Finding()) + found

    def finish(self) -> tuple[FileRows, dict[str, Coded]]:
        """All rows as one set of columns, and the vocabularies; optional columns without any value are absent."""
        columns: Columns = {name: np.concatenate(self._numbers.pop(name)) for name in list(self._numbers)}
        coded = {}
        for book in self.books:
            name = book.columns[0]
            if name in OPTIONAL and book.kind is None:
                continue
            found = book.finish()
            if name in OPTIONAL and (found.codes[name] < 0).all():
                continue
            coded[name] = compact(found) if book.named else found
            columns |= coded[name].codes
        place = np.concatenate(self._kept) if self._kept else None
        rows = FileRows(columns, place, self.source.unit, self.source.numbers)
        rows.lost = [np.array(self.source.lost, np.int64), *self._lost]
        for name in ("context", "chain"):
            if name in columns and len(columns["task"]):
                bad, why = minority(rows.columns[name] < 0)
                self.refuse(rows, name, bad, partial(_said, why))
                if (rows.columns[name] < 0).all():
                    del rows.columns[name], coded[name]
        return rows, coded

    def refuse(self, rows: FileRows, column: str, bad: Bool[np.ndarray, "n"], why: Callable[[int], str]) -> None:
        """Raise for the first bad row, or leave all of them out and count them."""
        if not bad.any():
            return
        first = int(np.argmax(bad))
        if not self.skip_bad:
            raise LogError(f"{rows.unit} {rows.where(first)}, column {column}: {why(first)}")
        self._count(column, Finding(int(bad.sum()), rows.where(first)))
        rows.leave_out(bad)


def _numeric(batch: dict[str, pa.Array], checks: Checks) -> Columns:
    """The columns that are numbers, checked, in their final types."""
    out: Columns = {}
    for name, least in (("k", 0), ("duration", 1)):
        values = batch[name]
        missing = nulls(values)
        checks.refuse(name, missing, values, "is needed")
        whole = integers(name, values, missing, checks)
        checks.refuse(name, ~missing & ~((whole >= least) & (whole < 2**31)), values, f"is not in {least}..{2**31 - 1}")
        out[name] = whole.astype(np.int32)
    out["done"] = _boolean("done", batch["done"], checks)
    for name in REALS:
        out[name] = _real(name, batch.get(name), len(out["done"]), checks)
    reward, scalar, probability = (out[name] for name in REALS)
    checks.refuse("reward", ~np.isfinite(reward), batch["reward"], "is not finite")
    checks.refuse("scalar", np.isinf(scalar), scalar, "is not finite")
    outside = ~np.isnan(probability) & ~((probability > 0) & (probability <= 1))
    checks.refuse("probability", outside, probability, "is not in (0, 1]: it is that of the chosen option")
    return out


def _boolean(name: str, values: pa.Array, checks: Checks) -> Bool[np.ndarray, "n"]:
    missing = nulls(values)
    checks.refuse(name, missing, values, "is needed")
    if pa.types.is_boolean(values.type):
        return values.fill_null(False).to_numpy(zero_copy_only=False)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_null(values.type)):
        raise LogError(f"column {name} holds {values.type}, true or false is needed")
    whole = integers(name, values, missing, checks)
    checks.refuse(name, ~missing & (whole != 0) & (whole != 1), values, "is not true or false")
    return whole == 1


def _real(name: str, values: pa.Array | None, size: int, checks: Checks) -> np.ndarray:
    """Float64, NaN where null."""
    if values is None or pa.types.is_null(values.type):
        return np.full(size, np.nan)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_decimal(values.type)):
        raise LogError(f"column {name} holds {values.type}, numbers are needed")
    wide = pc.cast(values, pa.float64(), safe=False)
    return (wide.fill_null(np.nan) if wide.null_count else wide).to_numpy(zero_copy_only=False)


def _owners(rows: FileRows, coded: dict[str, Coded], gather: _Gather) -> None:
    """Refuse rows that give an observation to another agent than the first one seen with it."""
    c = rows.columns
    size = int(max(c["observation"].max(initial=-1), c["next_observation"].max(initial=-1))) + 1
    owner = np.full(size + 1, -1, np.int32)  # the last entry is that of no observation
    c = rows.columns
    known = np.flatnonzero((c["next_observation"] >= 0) & (~c["done"] | ("chain" in c)))[::-1]
    owner[c["next_observation"][known]] = c["next_agent"][known]  # the first row is written last
    owner[c["observation"][::-1]] = c["agent"][::-1]
    agents, observations = coded["agent"], coded["observation"]
    for prefix in ("", "next_"):
        c = rows.columns
        agent, observation = c[f"{prefix}agent"], c[f"{prefix}observation"]
        wrong = owner[observation] != agent
        if prefix:
            wrong &= (observation >= 0) & (~c["done"] | ("chain" in c))

        def why(row: int, agent: np.ndarray = agent, observation: np.ndarray = observation) -> str:
            seen, o = _name(agents, int(agent[row])), int(observation[row])
            return f"{seen} acts on observation {_name(observations, o)}, but {_name(agents, int(owner[o]))} did before"

        gather.refuse(rows, f"{prefix}agent", wrong, why)


def _name(coded: Coded, code: int) -> str:
    if coded.features is not None:
        return str(coded.features[code].tolist())
    return repr(coded.names[code]) if coded.names else str(code)


def _log(gamma: float, c: Columns, coded: dict[str, Coded], follows: Bool[np.ndarray, "n"]) -> Log:
    """The columns as a Log, with the names that its rows use."""
    final = {}
    for name in ("agent", "observation", "option", "context"):
        if name in coded:
            left = Coded({column: c[column] for column in coded[name].codes}, coded[name].names, coded[name].features)
            final[name] = compact(left)
            c |= final[name].codes
    _widen(c)
    kept = {name: c[name] for name in (*REQUIRED, "scalar")}
    return Log(
        gamma=gamma, follows=follows, context=c.get("context"),
        probability=None if np.isnan(c["probability"]).all() else c["probability"],
        features=final["observation"].features, names=Vocabulary(**{name: f.names for name, f in final.items()}),
        **kept,
    )  # fmt: skip


def _widen(c: Columns) -> None:
    """Codes are int32, unless an index made of them, (state, option, next state), would not fit."""
    size = {name: int(c[name].max(initial=0)) + 1 for name in ("observation", "next_observation", "option")}
    states = max(size["observation"], size["next_observation"]) * (int(c["context"].max()) + 1 if "context" in c else 1)
    if states * states * size["option"] >= 2**31:
        for name in ("agent", "observation", "option", "next_agent", "next_observation", "context"):
            if name in c:
                c[name] = c[name].astype(np.int64)
