"""Where commands print: one kind of console, whose lines a person or a program can copy."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class Lines(Console):
    """A console on which a string stays one line, whatever the width of the terminal; tables and prose keep to it.

    Strings are printed as they are: brackets and colons, in the name of a folder say, are no markup.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as `rich.console.Console.print` does."""
        options.setdefault("soft_wrap", all(isinstance(each, str) for each in objects))
        super().print(*objects, **options)
