"""Errors that end a command, and how they become one line; no JAX here, the command line catches them.

Words are for people only where this project has chosen them: an error that it raises itself.  What other libraries
say (of shapes, of LAPACK, of markup) is a fault of this project, and is said to be one; TRACE shows it.
"""

from __future__ import annotations

import dis
import os
import sys
import warnings

from icq_bounds.plain import plain

ROOMS = ("icq", "synthetic", "estimators", "bounds", "icq_bounds")
TRACE = "ICQ_TRACE"  # environment variable: show tracebacks, and the warnings of other libraries
MEANT = (ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError, ImportError)
RAISE = dis.opmap["RAISE_VARARGS"]


class WorkError(RuntimeError):
    """Cells cannot be run, or some have no result; what is finished is kept."""


class FailedCells(WorkError):
    """Some cells had errors; the others are kept."""


class Interrupted(KeyboardInterrupt):
    """Stopped from outside; the message says what is kept and how to go on."""


class Violated(WorkError):
    """A bound or a certificate is violated by what was observed; everything is written."""


def one_line(error: Exception, command: str) -> str:
    """What a person is told of an error."""
    if isinstance(error, OSError):
        said = error.strerror or str(error)
        said = said if error.filename is None else f"{error.filename}: {said}"
    elif isinstance(error, MEANT) and _is_ours(error):
        said = str(error)
    elif isinstance(error, MemoryError):
        said = "not enough memory for this; ask for less of what it counts, or use a larger machine"
    else:
        said = f"icq {command} cannot do this, and should have said why; {TRACE}=1 shows where it failed"
    return " ".join(said.split()) or type(error).__name__


def _is_ours(error: Exception) -> bool:
    """Whether a `raise` of this project has raised it: not a library, and not what a line of ours called."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    code, room = place.tb_frame.f_code.co_code, str(place.tb_frame.f_globals.get("__name__")).partition(".")[0]
    return room in ROOMS and code[place.tb_lasti] == RAISE


def traced() -> bool:
    """Whether tracebacks are to be shown."""
    return os.environ.get(TRACE, "") not in ("", "0")


def show_own_warnings() -> None:
    """From here on warnings of this project are lines on stderr, and those of libraries are not shown unless traced."""
    from icq.note import Note  # here: the command line begins without JAX

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, Note):
            print(f"icq: note: {plain(message)}", file=sys.stderr)

    if not traced():
        warnings.showwarning = show
