"""Runs the notebooks: `make notebooks` brings scripts and notebooks in step and executes every cell.

A notebook is a pair of files.  The percent script is what one reviews, the .ipynb with its outputs is what one reads.
Whichever of the two was edited last is followed.  What differs from run to run (times, versions, the names of widgets)
is not kept, so a notebook in which nothing has changed is a file in which nothing has changed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import jupytext
import nbformat
import tyro
from jupytext.cli import jupytext as command
from nbclient import NotebookClient
from rich.progress import track

FOLDER = Path(__file__).parents[1] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3",
    },
}  # fmt: skip
PATIENCE = 300  # seconds for one cell


def scripts(folder: Path = FOLDER) -> list[Path]:
    """The percent scripts, in the order of their numbers."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def render(script: Path) -> Path:
    """Bring the pair in step, run it from its own folder, write the notebook.  Raises CellExecutionError."""
    command(["--sync", "--quiet", str(script)])
    notebook = script.with_suffix(".ipynb")
    nb = nbformat.read(notebook, as_version=4)
    nb.metadata = METADATA
    client = NotebookClient(
        nb, timeout=PATIENCE, record_timing=False, store_widget_state=False,
        resources={"metadata": {"path": str(script.parent)}}, extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )  # fmt: skip
    with TemporaryDirectory() as settings:  # nobody's own: equal cells give equal pages
        client.execute(env={"OPENBLAS_NUM_THREADS": "1"} | os.environ | {"IPYTHONDIR": settings})
    notebook.write_text(nbformat.writes(steady(nb)) + "\n")
    command(["--sync", "--quiet", str(script)])  # the script as it is written from the notebook, blank lines included
    script.touch()  # as new as its notebook: neither counts as outdated
    return notebook


def steady(nb: Any) -> Any:
    """The notebook without what changes at every run.  Live widgets go too: they answer only to a running kernel."""
    nb.metadata, nb.nbformat_minor = METADATA, 5
    count: dict[str, int] = {}
    for cell in nb.cells:
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        count[name] = count.get(name, 0) + 1
        cell.id = name if count[name] == 1 else f"{name}-{count[name]}"
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = {}
    return nb


def cells(nb: Any) -> list[tuple[str, str]]:
    """Kind and source of every cell: what a script and its notebook must agree in."""
    return [(cell.cell_type, cell.source) for cell in nb.cells]


def pair(script: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The cells of a script and those of its notebook."""
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    return cells(jupytext.read(script, fmt="py:percent")), cells(notebook)


def main(only: Annotated[tuple[str, ...], tyro.conf.Positional] = ()) -> None:
    """Execute the notebooks and keep their outputs.

    Args:
        only: beginnings of file names, `01 03` say; all when left out.

    """
    chosen = [s for s in scripts() if not only or s.name.startswith(only)]
    if not chosen:
        raise SystemExit(f"no notebook begins with {', '.join(only)}; there are {', '.join(s.stem for s in scripts())}")
    for script in track(chosen, "notebooks", transient=True):
        print(render(script).relative_to(FOLDER.parent), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
