"""Where commands print: one kind of console, whose lines a person or a program can copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from icq_bounds.plain import plain, plain_lines

ANY = 10_000  # letters: a width in which any table has room
WHOLE = 60  # letters of the longest word of a table that is never cut


class Lines(Console):
    """A console on which a string stays one line, whatever the width of the terminal; prose keeps to it, and so do
    tables as far as their words and numbers, which are never cut, allow.

    Strings are printed as they are: brackets and colons, in the name of a folder say, are no markup, and what would
    be an order to the terminal is shown as an escape.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as `rich.console.Console.print` does."""
        options.setdefault("soft_wrap", all(isinstance(each, str) for each in objects))
        said = [plain(each) if isinstance(each, str) else each for each in objects]
        own, tables = self._width, [each for each in objects if isinstance(each, Table)]
        try:
            self.width = max(self.width, *map(self._whole, tables), 0)
            super().print(*said, **(options | ({"crop": False} if tables else {})))
        finally:
            self._width = own

    def _whole(self, table: Table) -> int:
        """Let a table never cut a word or a number; returns the width that this takes at least."""
        free = self.options.update(width=ANY)
        for column in table.columns:
            longest = (Measurement.get(self, free, cell).minimum for cell in (column.header, *column.cells))
            column.min_width = max(column.min_width or 0, min(WHOLE, max(longest)))
        return Measurement.get(self, free, table).minimum

    def render_str(self, text: str, **options: Any) -> Text:
        """A string in a table, as letters."""
        return super().render_str(plain_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever is printed, as letters; only rich itself gives orders."""
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=plain_lines(part.text))


def says(field: str = "description") -> TextColumn:
    """The column of a progress bar with what is being done; a name in it is no markup."""
    return TextColumn(f"{{task.{field}}}", markup=False)
