"""What `icq sweep` does: from flags and file to a finished folder, and what is said at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import joblib
import numpy as np
import xarray as xr
from rich.console import Console
from tyro.conf import Positional

from estimators.decomposition import TERMS
from estimators.statistics.estimate import root_mean_square
from icq.coerce import count
from icq_bounds.commands import _terms
from icq_bounds.errors import FailedCells, Interrupted
from icq_bounds.sweep import axes, dataset, engine
from icq_bounds.sweep import spec as sweep
from icq_bounds.sweep.families import FAMILIES
from icq_bounds.sweep.learning import Learning
from icq_bounds.sweep.results import KINDS

SHOWN = 40  # cells up to which a sweep ends with a table


@dataclass(frozen=True)
class SweepOptions:
    """Every combination of the given values, learned by independent replicas and split into its error terms.

    Every finished cell is kept at once in OUT/cells.  Interrupted, killed, or the disk was full? Run the same command
    again: only missing cells run. OUT/sweep.nc holds all of it as one labelled dataset:
    import xarray as xr; ds = xr.open_dataset("OUT/sweep.nc", engine="h5netcdf")
    """

    file: Positional[Path | None] = None
    """A TOML file with family, axes, fix, replicas, handoffs, checkpoints; flags beside it win."""
    axes: tuple[str, ...] = ()
    """What varies, NAME=VALUES each: a list 0,0.5,1 or a range 0:1:9 (first:last:count, add :log for equal ratios)."""
    fix: tuple[str, ...] = ()
    """Settings other than their default that do not vary, NAME=VALUE each."""
    family: str | None = None
    """Family of workflows: dials (default), garnet or routing."""
    replicas: int | None = None
    """Independent runs of every cell (default 8)."""
    handoffs: int | None = None
    """Handoffs of every run; seven checkpoints by doubling up to there (default 65536)."""
    checkpoints: tuple[int, ...] | None = None
    """The checkpoints instead, in handoffs."""
    out: Path | None = None
    """Folder of the sweep (default results/NAME of the file, or results/sweep)."""
    jobs: int | None = None
    """Processes on this machine (default: one per core)."""
    dask: str | None = None
    """Run on the workers of this Dask scheduler instead, tcp://host:port."""


def description() -> str:
    """The help: what every axis means."""
    examples = (
        "icq sweep --axes gap=0:1:9 width=8,16,32 mixing=0.75,0.1,0.01 --out results/gap",
        "icq sweep --axes function_class=table,features mixing=0.01:0.75:5:log iid=false,true --replicas 32",
        "icq sweep --family garnet --axes observations=5,10,20 seed=0:9:10 --fix states=40",
        "icq sweep --family routing --axes view=1,2,3,4 function_class=table,network",
        "icq sweep my.toml --dask tcp://head:8786",
    )
    listings = [f"Axes of the family {name} [default]:\n{axes.listing(family)}" for name, family in FAMILIES.items()]
    listings.append(f"Axes of every family, how to learn:\n{axes.listing(Learning)}")
    return "\n\n".join(
        [cleandoc(str(SweepOptions.__doc__)), "Examples:\n" + "\n".join(f"  {e}" for e in examples), *listings]
    )


def run(options: SweepOptions, console: Console) -> None:
    """Run the missing cells of a sweep and write its dataset."""
    if options.jobs is not None:
        count("jobs", options.jobs, most=engine.MOST_JOBS)
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
        dataset.save(dataset.load(out), out / "sweep.nc")  # what there is, the rest NaN
        raise
    ds = dataset.load(out)
    dataset.save(ds, out / "sweep.nc")
    _say(ds, console)
    console.print(f"{out / 'sweep.nc'} written, {time.perf_counter() - start:.1f} s.  To load it:")
    console.print("  import xarray as xr")
    console.print(f'  ds = xr.open_dataset("{out / "sweep.nc"}", engine="h5netcdf")')


def asked(options: SweepOptions) -> tuple[sweep.Spec, Path]:
    """The sweep of a command line and its folder: the file first, then the flags."""
    said = sweep.read_file(options.file) if options.file else {}
    family = options.family or said.get("family", "dials")
    chosen = axes.parse_table(family, said.get("axes", {})) | axes.parse(family, options.axes)
    fixed = axes.parse_table(family, said.get("fix", {})) | axes.parse(family, options.fix)
    if not chosen:
        raise ValueError("axes: none given, e.g. --axes gap=0:1:9; icq sweep --help lists them")
    grid = options.checkpoints or tuple(said.get("checkpoints", ())) or None
    if grid and options.handoffs is not None:
        raise ValueError("handoffs and checkpoints: choose one")
    replicas, handoffs = (
        said.get(name, usual) if given is None else given
        for name, given, usual in (
            ("replicas", options.replicas, sweep.REPLICAS), ("handoffs", options.handoffs, sweep.HANDOFFS),
        )
    )  # fmt: skip
    spec = sweep.ask(family, chosen, fixed, replicas, handoffs, grid)
    return spec, options.out or Path("results") / (options.file.stem if options.file else "sweep")


def _say(ds: xr.Dataset, console: Console) -> None:
    """The terms of every cell at the last checkpoint, and how often each bound held."""
    dims = [str(dim) for dim in ds["finished"].dims]
    seen = ds["observed"].sel(output="average").isel(checkpoint=-1).transpose(*dims, "term", "replica")
    rows = []
    for where in np.ndindex(ds["finished"].shape) if ds["finished"].size <= SHOWN else ():
        values = (ds[dim].values[k].item() for dim, k in zip(dims, where, strict=True))
        labels = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        rows.append((labels, [root_mean_square(errors) for errors in seen.values[where]]))
    counts = {kind: {term: dataset.verdicts(ds, term, kind) for term in TERMS} for kind in KINDS}
    _terms.show(console, " of the average at the last checkpoint", dims, rows, counts)
    if diverged := int((seen.sel(term="total").isnull() & seen.sel(term="interface").notnull()).sum()):
        console.print(f"note: {diverged} runs diverged (their errors are NaN): choose smaller steps")
