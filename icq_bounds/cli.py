"""The `icq` command: a registry.  Each command is a module of `icq_bounds.commands`, loaded when it is called."""

from __future__ import annotations

import os

# Before NumPy loads: two BLAS threads on a busy two-core machine are far slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from difflib import get_close_matches
from importlib import import_module
from io import StringIO
from typing import get_type_hints

import icq_bounds
from icq_bounds import errors
from icq_bounds.plain import any_letters, leave, plain, plain_lines

COMMANDS = {
    "make": "an instance of a family:        icq make dials --gap 0.5 --out m.npz",
    "analyse": "everything exact about it:      icq analyse m.npz",
    "learn": "run IC-Q, split its error:      icq learn m.npz --handoffs 100000 --network 16",
    "theorem": "every bound of every term:      icq theorem m.npz --handoffs 1000000",
    "simulate": "a handoff log of it:            icq simulate m.npz --handoffs 1000000 --out log.parquet",
    "diagnose": "which error dominates a log:    icq diagnose log.parquet --html page.html",
    "sweep": "any grid of settings:           icq sweep --axes gap=0:1:9 width=8,16 --out results/gap",
    "report": "results as one HTML page:       icq report results/gap",
    "reproduce": "an experiment with figures:     icq reproduce n10 --preset smoke (also routing, cpu, math)",
    "math": "language models at work:        icq math log.jsonl --backend recorded",
}
HELP = """Learn handoff workflows with IC-Q, split their error in three, and hold each part beside its bound.

usage: icq COMMAND [options], icq COMMAND --help, icq --version
An error is one line; ICQ_TRACE=1 before the command shows where it came from.

"""


def overview() -> str:
    """The help of `icq` itself: every command with an example, on one screen."""
    return HELP + "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())


def run(name: str, arguments: Sequence[str]) -> None:
    """Carry out one command.  Raises what the command raises; SystemExit for options that it does not know."""
    import tyro

    from icq_bounds.console import Lines
    from icq_bounds.flags import whole_numbers

    module = import_module(f"icq_bounds.commands.{name}")
    complaints = StringIO()  # of the parser, which repeats what it was given
    try:
        with redirect_stderr(complaints):
            options = tyro.cli(
                get_type_hints(module.run, include_extras=True)["options"], prog=f"icq {name}", args=arguments,
                description=module.description() if hasattr(module, "description") else None,
                config=(tyro.conf.OmitSubcommandPrefixes,), registry=whole_numbers(),
            )  # fmt: skip
    finally:
        print(plain_lines(complaints.getvalue()), end="", file=sys.stderr)
    module.run(options, Lines())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `icq`: errors are one line on stderr and a non-zero exit status.

    With ICQ_TRACE=1 in the environment an error is shown with its traceback instead.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("--help", "-h"):
        print(overview())
        return
    if name == "--version":
        print(f"icq-bounds {icq_bounds.__version__}")
        return
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        print(f"icq: error: no command {name!r}: {meant}", file=sys.stderr)
        sys.exit(2)
    any_letters()
    try:
        with warnings.catch_warnings():
            errors.show_own_warnings()
            run(name, rest)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        leave()
        sys.exit(141)
    except Exception as error:
        if errors.traced():
            raise
        print(f"icq: error: {plain(errors.one_line(error, name))}", file=sys.stderr)
        if detail := getattr(error, "detail", ""):
            print(detail, file=sys.stderr)
        leave()
        sys.exit(1)
    except KeyboardInterrupt as stopped:
        print(f"icq: {plain(stopped) or 'interrupted; run the same command again to continue'}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
