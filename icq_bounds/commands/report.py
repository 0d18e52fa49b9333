"""The command `icq report`: one HTML page of a folder of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from icq.files import is_stdout
from icq_bounds.console import Lines
from icq_bounds.pages.report import report


@dataclass(frozen=True)
class ReportOptions:
    """One HTML page of a folder of results.

    Figures, slopes with intervals, verdicts, tightness, the theorem, provenance.  The page needs nothing but itself: it
    can be mailed, printed or read on a phone.  In a notebook: import icq_bounds as ib; ib.report("results/n10")

    Example: icq report results/n10
    """

    folder: Positional[Path]
    """What icq sweep or icq reproduce wrote; an unfinished sweep will do."""
    out: Path | None = None
    """The page (default report.html in the folder)."""
    theorem: bool = True
    """With the theorem in numbers on one of the workflows, which takes some seconds."""


def run(options: ReportOptions, console: Console) -> None:
    """Write the page of a folder of results."""
    with console.status("reading, drawing, proving"):
        page = report(options.folder, theorem=options.theorem)
    out = page.save(options.out or options.folder / "report.html")
    said = Lines(stderr=True) if is_stdout(out) else console
    said.print(f"{out}: {len(page.html) / 1e6:.1f} MB, nothing outside it is needed")
