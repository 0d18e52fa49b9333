"""Text from outside (names of files, labels, messages) is letters to show, never an order to a terminal."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from io import TextIOWrapper

# What a terminal obeys or breaks a line at, what turns the text around it, and halves of letters (of odd file names).
ORDERS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: object) -> str:
    r"""A text on one line, with everything that is no letter written as an escape: \x1b[31m for the order `red`."""
    return ORDERS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


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
