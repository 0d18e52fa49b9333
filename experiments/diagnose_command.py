"""The command `icq diagnose`: read a log, estimate, and print or save the page."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from estimators.log_reader import read
from experiments import diagnose_page
from experiments.diagnose import diagnose
from experiments.diagnose_words import as_json, words

if TYPE_CHECKING:
    from experiments.cli import Diagnose

STEPS = 8  # about so many things are told while diagnosing


def run(options: Diagnose, console: Console) -> None:
    """Diagnose a log.  Progress goes to stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    if options.html is not None and options.html.is_dir():
        raise IsADirectoryError(21, "is a folder; name the page itself", str(options.html))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"reading {options.file.name}", total=1.0)
        log, report = read(
            options.file, gamma=options.gamma, skip_bad=options.skip_bad,
            progress=lambda fraction: progress.update(bar, completed=fraction),
        )  # fmt: skip
        progress.update(bar, completed=0, total=STEPS)
        found = diagnose(
            log, width=options.width, double=options.double, seed=options.seed,
            tell=lambda what: progress.update(bar, description=what, advance=1),
        )  # fmt: skip
    said = words(found, log, report)
    if options.json:
        print(json.dumps(as_json(found, said, report), indent=2, allow_nan=False))
    else:
        diagnose_page.show(found, said, console)
    if options.html is not None:
        command = ["icq", "diagnose", str(options.file), "--gamma", repr(log.gamma)]
        command += ["--width", str(options.width)] if options.width is not None else []
        command += ["--double"] if options.double else []
        command += ["--seed", str(options.seed)] if options.width is not None else []
        command += ["--skip-bad"] if options.skip_bad else []
        made = diagnose_page.page(found, said, options.file.name, shlex.join([*command, "--html", str(options.html)]))
        out = made.save(options.html)
        Console(stderr=True).print(
            f"{out}: {len(made.html) / 1e6:.1f} MB, nothing outside it is needed", soft_wrap=True
        )
