"""Which recorded answers a cell replays; it names the table by its fingerprint, never by its path."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from synthetic.math_data import RecordedAnswers, load_answers, made_up


@dataclass(frozen=True)
class RecordedTable:
    """Which table.  data: its fingerprint; file: where it lies, no part of the question; without a file, `questions`
    made-up ones.
    """  # fmt: skip

    data: str
    questions: int
    file: Path | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, file: Path | None, questions: int) -> RecordedTable:
        """The table in a file, or so many made-up questions."""
        table = made_up(questions) if file is None else load_answers(file)
        return cls(table.fingerprint(), len(table), file)

    def table(self) -> RecordedAnswers:
        """The table itself.  Raises ValueError where the file has changed meanwhile."""
        table = made_up(self.questions) if self.file is None else load_answers(self.file)
        if table.fingerprint() != self.data:
            raise ValueError(f"{self.file}: changed since the experiment began; start it again")
        return table
