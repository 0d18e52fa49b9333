"""What a reader has to say about a handoff log (docs/logs.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from icq.display import Fact, Shown, printable


@dataclass(frozen=True)
class Finding(Shown):
    """How often something was seen, and the first row (or line) of it; `first` is None when it was not seen."""

    count: int = 0
    first: int | None = None

    def __bool__(self) -> bool:
        return self.count > 0

    def __add__(self, other: Finding) -> Finding:
        firsts = [f for f in (self.first, other.first) if f is not None]
        return Finding(self.count + other.count, min(firsts, default=None))


NONE = Finding()
MENDED = {
    "torn": "torn lines, cut off when a process was killed: not readable, left out",
    "unreadable": "lines that are not one JSON object in UTF-8: left out, as was asked for",
    "duplicates": "exact copies of a handoff (same task and k, all columns equal): one kept, these left out",
    "conflicts": "handoffs logged twice with different content: all of them left out",
    "missing": "handoffs missing before or between the ones logged (k jumps); first is the row after a gap",
    "out_of_order": "rows that come after a later handoff of their task: put in order",
    "interleaved": "rows that return to a task after rows of another one: put together",
    "contradictions": "rows whose next agent or observation is not that of the handoff that follows: not linked to it",
    "after_end": "rows that end their task although it goes on: not linked to what follows",
    "next_ignored": "rows that end their task and name a next observation, without a chain column: name left out",
}
NOTED = {
    "unfinished": "tasks without a last handoff (still running, or the end was not logged)",
    "no_scalar": "rows that go on without a scalar: excluded from what compares it",
    "no_probability": "rows without option probability: excluded from what weights by it",
    "breaks": "rows that begin a chain of handoffs: excluded from serial dependence",
}


@dataclass(frozen=True)
class ReaderReport(Shown):
    """What the reader found in a log; `MENDED` and `NOTED` say what each finding means.

    unit: `line` counts from 1 (JSON Lines), `row` from 0 (Parquet).  rows: handoffs in the file; kept: in the `Log`.
    bad: column -> rows left out because of it.  ignored: columns that the format does not know.
    """

    source: str
    unit: str
    rows: int
    kept: int
    tasks: int
    torn: Finding = NONE
    unreadable: Finding = NONE
    duplicates: Finding = NONE
    conflicts: Finding = NONE
    missing: Finding = NONE
    out_of_order: Finding = NONE
    interleaved: Finding = NONE
    contradictions: Finding = NONE
    after_end: Finding = NONE
    next_ignored: Finding = NONE
    unfinished: Finding = NONE
    no_scalar: Finding = NONE
    no_probability: Finding = NONE
    breaks: Finding = NONE
    bad: dict[str, Finding] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def faultless(self) -> bool:
        """Nothing was left out, mended or unlinked."""
        return not self.bad and not any(getattr(self, name) for name in MENDED)

    def __str__(self) -> str:
        lines = [f"{printable(self.source)}: {self.kept} of {self.rows} handoffs kept, {self.tasks} tasks"]
        for name, text in (MENDED | NOTED).items():
            found: Finding = getattr(self, name)
            if found:
                lines.append(f"  {found.count} {text}; first: {self.unit} {found.first}")
        for column, found in self.bad.items():
            lines.append(f"  {found.count} rows left out because of column {column}; first: {self.unit} {found.first}")
        if self.ignored:
            lines.append(f"  columns not part of the format, ignored: {', '.join(map(printable, self.ignored))}")
        return "\n".join(lines)

    def _facts_(self) -> list[Fact]:
        found = {name: f.count for name in MENDED | NOTED if (f := getattr(self, name))}
        return [
            Fact("source", self.source), Fact("handoffs", f"{self.kept} of {self.rows} kept"),
            Fact("tasks", self.tasks), Fact("", "faultless" if self.faultless else None),
            *(Fact(name.replace("_", " "), count) for name, count in found.items()),
            Fact("bad columns", ", ".join(self.bad) or None), Fact("ignored", ", ".join(self.ignored) or None),
        ]  # fmt: skip
