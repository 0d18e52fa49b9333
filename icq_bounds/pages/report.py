"""`icq report DIR`: everything a folder of results says, as one HTML page that needs nothing else.

In a notebook:

    import icq_bounds as ib
    ib.report("results/n10")
"""

from __future__ import annotations

import json
from pathlib import Path

from icq_bounds.pages.experiment import experiment_report
from icq_bounds.pages.html import Page
from icq_bounds.pages.n10 import n10_report, progress
from icq_bounds.pages.sweep import sweep_report

AGAIN = "the same icq reproduce command writes it again"


def report(folder: Path | str, theorem: bool = True) -> Page:
    """The page of a folder that `icq sweep` or `icq reproduce` wrote.

    theorem: with the theorem in numbers on one of its workflows, which takes some seconds.
    Raises FileNotFoundError, saying what is missing, for a folder with nothing to report.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; icq sweep and icq reproduce write one")
    if (folder / "sweep.json").exists() or (folder / "sweep.nc").exists():
        return sweep_report(folder, theorem)
    if (folder / "summary.json").exists():
        return _experiment(folder, theorem)
    if (folder / "cells").is_dir():
        raise FileNotFoundError(_unfinished(folder))
    raise FileNotFoundError(
        f"{folder}: nothing to report; neither sweep.json (of icq sweep) nor summary.json (of icq reproduce) is there"
    )


def _unfinished(folder: Path) -> str:
    there = ", ".join(progress(folder)) or f"{len(list((folder / 'cells').glob('*.npz')))} finished cells"
    return (
        f"{folder}: summary.json is missing, the experiment is not finished: so far there are {there}. "
        "The same icq reproduce command goes on where it stopped"
    )


def _experiment(folder: Path, theorem: bool) -> Page:
    path = folder / "summary.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return n10_report(folder, said, theorem) if said["experiment"] == "n10" else experiment_report(folder, said)
    except KeyError as error:
        raise ValueError(f"{path}: the key {error} is missing; {AGAIN}") from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is damaged; {AGAIN}") from error
