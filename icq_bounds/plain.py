"""Text from outside (names of files, labels, messages) is letters to show, never an order to a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper


def plain(text: object) -> str:
    r"""A text on one line, with everything that is no letter written as an escape: \x1b[31m for the order `red`."""
    from icq.display import printable  # here: the command line begins without JAX

    return printable(str(text))


def plain_lines(text: str) -> str:
    """The same for a text whose line breaks are its own."""
    return "\n".join(map(plain, text.split("\n")))


def any_letters() -> None:
    """Letters that the terminal's encoding lacks are printed as escapes instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave() -> None:
    """Print what is left, or nothing more where nobody takes it: Python would complain about that at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):  # a stream without a number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
