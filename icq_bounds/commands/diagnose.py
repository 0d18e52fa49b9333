"""The command `icq diagnose`: read a log, estimate, and print or save the page."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn
from tyro.conf import Positional

from estimators.logs.reader import read
from estimators.logs.schema import LogError
from icq_bounds.console import Lines, says
from icq_bounds.diagnosis import page
from icq_bounds.diagnosis.diagnosis import diagnose
from icq_bounds.diagnosis.words import as_json, findings, words
from icq_bounds.plain import plain

STEPS = 8  # about so many things are told while diagnosing


@dataclass(frozen=True)
class DiagnoseOptions:
    """Which error dominates in a workflow, from its handoff log alone: docs/diagnose.md.

    The interface gap, the approximation error and the residual with intervals; from which agents something is hidden,
    and whether it is what an option earns, how long it takes or where it leads; what one more unit of data, interface
    or width would buy; what could not be estimated and what to log next time. Errors are in units of reward.
    The log may come from any workflow; its columns are described in docs/logs.md, and without a context column the
    interface gap cannot be known.

    Example: icq diagnose log.parquet --html page.html
    """

    file: Positional[Path]
    """A handoff log, Parquet or JSON Lines."""
    gamma: float | None = None
    """Discount per primitive step, where the file does not say."""
    width: int | None = None
    """Judge networks of this width, fitted on the first half of the log, instead of a table."""
    double: bool = False
    """Also fit networks of twice that width, and say what they would buy."""
    html: Path | None = None
    """Also write the page here; it needs nothing but itself."""
    json: bool = False
    """Print one JSON object instead."""
    skip_bad: bool = False
    """Leave unusable rows out and count them, instead of stopping at the first."""
    seed: int = 0
    """Seed of the networks."""


def run(options: DiagnoseOptions, console: Console) -> None:
    """Diagnose a log.  Progress goes to stderr."""
    columns = (says(), BarColumn(), TimeElapsedColumn())
    if options.html is not None and options.html.is_dir():
        raise IsADirectoryError(21, "is a folder; name the page itself", str(options.html))
    if options.html is not None and options.html.exists() and options.html.samefile(options.file):
        raise ValueError(f"html: {options.html} is the log itself; give the page another name")
    aside = Lines(stderr=True)
    with Progress(*columns, console=aside, transient=True, disable=not aside.is_terminal) as progress:
        bar = progress.add_task(f"reading {plain(options.file.name)}", total=1.0)
        log, report = read(
            options.file, gamma=options.gamma, skip_bad=options.skip_bad,
            progress=lambda fraction: progress.update(bar, completed=fraction),
        )  # fmt: skip
        if len(log) == 0:
            raise LogError(f"{options.file}: no usable row is left: {'; '.join(findings(report))}")
        progress.update(bar, completed=0, total=STEPS)
        found = diagnose(
            log, width=options.width, double=options.double, seed=options.seed,
            tell=lambda what: progress.update(bar, description=what, advance=1),
        )  # fmt: skip
    said = words(found, log, report)
    if options.json:
        print(json.dumps(as_json(found, said, report), indent=2, allow_nan=False))
    else:
        page.show(found, said, console)
    if options.html is not None:
        command = ["icq", "diagnose", str(options.file), "--gamma", repr(log.gamma)]
        command += ["--width", str(options.width)] if options.width is not None else []
        command += ["--double"] if options.double else []
        command += ["--seed", str(options.seed)] if options.width is not None else []
        command += ["--skip-bad"] if options.skip_bad else []
        made = page.page(found, said, options.file.name, shlex.join([*command, "--html", str(options.html)]))
        out = made.save(options.html)
        Lines(stderr=True).print(f"{out}: {len(made.html) / 1e6:.1f} MB, nothing outside it is needed")
