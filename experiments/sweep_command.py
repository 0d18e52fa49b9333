"""What `icq sweep` does: from flags and file to a finished folder, and what is said at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from experiments import axes, engine, results, sweep
from experiments.errors import FailedCells, Interrupted

if TYPE_CHECKING:
    from experiments.cli import Sweep

SHOWN = 40  # cells up to which a sweep ends with a table


def run(options: Sweep, console: Console) -> None:
    """Run the missing cells of a sweep and write its dataset."""
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"jobs = {options.jobs} must be at least 1")
    spec, out = asked(options)
    executor = engine.cluster(options.dask) if options.dask else engine.processes(options.jobs or joblib.cpu_count())
    store, note = sweep.claim(spec, out)
    cells = dict.fromkeys(spec.cells())
    programs = len({cell.program() for cell in cells})
    grid = " x ".join(f"{len(values)} {name}" for name, values in spec.axes)
    console.print(f"{out}: {len(cells)} cells{f' ({grid})' if grid else ''}, {programs} compiled programs, "
                  f"{spec.replicas} replicas, {spec.checkpoints[-1]} handoffs")  # fmt: skip
    if note:
        console.print(f"note: {note}")
    start = time.perf_counter()
    try:
        engine.run_all([*cells], store, executor, console)
    except (FailedCells, Interrupted):
        results.save(results.load(out), out / "sweep.nc")  # what there is, the rest NaN
        raise
    ds = results.load(out)
    results.save(ds, out / "sweep.nc")
    _say(ds, console)
    console.print(f"{out / 'sweep.nc'} written, {time.perf_counter() - start:.1f} s.  To load it:", soft_wrap=True)
    console.print("  import xarray as xr", soft_wrap=True)
    console.print(f'  ds = xr.open_dataset("{out / "sweep.nc"}", engine="h5netcdf")', soft_wrap=True)


def asked(options: Sweep) -> tuple[sweep.Spec, Path]:
    """The sweep of a command line and its folder: the file first, then the flags."""
    said = sweep.read_file(options.file) if options.file else {}
    family = options.family or said.get("family", "dials")
    chosen = axes.parse_table(family, said.get("axes", {})) | axes.parse(family, options.axes)
    fixed = axes.parse_table(family, said.get("fix", {})) | axes.parse(family, options.fix)
    if not chosen:
        raise ValueError("axes: none given, e.g. --axes gap=0:1:9; icq sweep --help lists them")
    grid = options.checkpoints or tuple(said.get("checkpoints", ())) or None
    if grid and options.handoffs:
        raise ValueError("handoffs and checkpoints: choose one")
    spec = sweep.ask(
        family, chosen, fixed, options.replicas or said.get("replicas", sweep.REPLICAS),
        options.handoffs or said.get("handoffs", sweep.HANDOFFS), grid,
    )  # fmt: skip
    return spec, options.out or Path("results") / (options.file.stem if options.file else "sweep")


def _say(ds: xr.Dataset, console: Console) -> None:
    """The terms of every cell at the last checkpoint, and how often each bound held."""
    dims = [d for d in ds["finished"].dims]
    last = ds.isel(checkpoint=-1)
    if ds["finished"].size <= SHOWN:
        title = "root mean square error at the last checkpoint, d-norm"
        table = Table(*map(str, dims), *results.TERMS, title=title)
        squares = {term: (last[f"e_{term}"] ** 2).mean("replica", skipna=False) for term in results.TERMS}
        for where in np.ndindex(ds["finished"].shape):
            point = dict(zip(dims, where, strict=True))
            values = (ds[dim].values[k].item() for dim, k in point.items())
            labels = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
            table.add_row(*labels, *(f"{float(np.sqrt(x.isel(point))):.3g}" for x in squares.values()))
        console.print(table)
    for term in results.TERMS:
        said = ", ".join(f"{count} {word}" for word, count in results.verdicts(ds, term).items())
        console.print(f"{results.NAMES[term]:>20}: {said or 'no record'}")
    if diverged := int((last["e_total"].isnull() & last["e_int"].notnull()).sum()):
        console.print(f"note: {diverged} runs diverged (their errors are NaN): choose smaller steps")
