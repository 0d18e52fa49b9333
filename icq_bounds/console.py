"""Where commands print: one kind of console, whose lines a person or a program can copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment
from rich.text import Text

from icq_bounds.plain import plain, plain_lines


class Lines(Console):
    """A console on which a string stays one line, whatever the width of the terminal; tables and prose keep to it.

    Strings are printed as they are: brackets and colons, in the name of a folder say, are no markup, and what would
    be an order to the terminal is shown as an escape.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as `rich.console.Console.print` does."""
        options.setdefault("soft_wrap", all(isinstance(each, str) for each in objects))
        super().print(*(plain(each) if isinstance(each, str) else each for each in objects), **options)

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
