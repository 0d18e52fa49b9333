"""The report of a sweep: terms along every axis, slopes with intervals, every cell, verdicts, ratios, provenance.

Errors of several cells are joined as root mean squares, the norm in which the theorem speaks; lines of cells that are
not finished are left out and counted.  The layout of the dataset is that of icq_bounds.sweep.dataset.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jaxtyping import Float

from estimators.decomposition import NAME, TERMS
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, missing
from icq.display import number
from icq.reason import Reason
from icq_bounds.figures import style
from icq_bounds.figures.bound import evidence_panel
from icq_bounds.figures.sweep import ZERO, is_scale, lines, mean, plot_along, pooled, root_mean_square, value_panel
from icq_bounds.pages import html
from icq_bounds.pages.html import Drawing, Entry, Grid, Page
from icq_bounds.pages.parts import (
    Records,
    largest_term,
    origin,
    proved,
    ratios_in_words,
    tightness,
    verdicts,
)
from icq_bounds.sweep import axes, dataset
from icq_bounds.sweep.folder import read_folder, saved
from icq_bounds.sweep.methods import Features, Mlp, PlainMlp
from icq_bounds.sweep.results import KINDS
from icq_bounds.sweep.spec import Spec

CELLS = 200  # cells up to which each has a row
OCTAVES = 4  # last octaves of handoffs over which a rate is read off


def sweep_report(folder: Path, theorem: bool = True) -> Page:
    """The page of a sweep's folder, finished or not.  Raises FileNotFoundError where nothing is to report."""
    return page(*load(folder), folder.name, theorem)


def page(spec: Spec, ds: xr.Dataset, name: str, theorem: bool = True) -> Page:
    """The page of a sweep; name: of its folder."""
    records = flat(ds)
    done, cells = int(ds["finished"].sum()), ds["finished"].size
    sizes = " × ".join(f"{len(values)} {axis}" for axis, values in spec.axes)
    counts, ratios = records.counts(), records.ratio_rows()
    return html.render(
        "sweep.html",
        title=f"IC-Q sweep of the family {spec.family}",
        lead=f"{name}: {done} of {cells} cells ({sizes}), {spec.replicas} replicas, {spec.checkpoints[-1]} handoffs",
        done=done, cells=cells, records=records.size, violations=records.violations(),
        distinct={kind: records.distinct(kind) for kind in KINDS}, diverged=_diverged(ds),
        moving=int((ds["reference_converged"] == 0).sum()),
        words=f"{largest_term(_last_errors(ds))} {ratios_in_words(ratios)}",
        varied=_varied(spec), panels=_figures(ds, records), octaves=OCTAVES, slopes=_slopes(ds), rates=_rates(ds),
        every_cell=_cells(ds), verdicts=verdicts(counts), violated=_violated(ds), ratios=tightness(ratios),
        proved=_proved(spec) if theorem else None, origin=_origin(spec, ds, name),
    )  # fmt: skip


def load(folder: Path) -> tuple[Spec, xr.Dataset]:
    """The configuration and the dataset: from the cells where they are, else from sweep.nc."""
    if (folder / "cells").is_dir() and (folder / "sweep.json").exists():
        return read_folder(folder)[0], dataset.load(folder)
    path = folder / "sweep.nc"
    if not path.exists():
        raise FileNotFoundError(f"{folder}: sweep.json is there, but neither cells/ nor sweep.nc: nothing was computed")
    return saved(path, whole=True)


def flat(ds: xr.Dataset) -> Records:
    """Every record of every finished cell."""
    return Records.of([dataset.arrays_of(cell) for _, cell in _points(ds)])


def slope(x: Float[np.ndarray, "K"], found: Float[np.ndarray, "L K R"]) -> Estimate:
    """Slope of the logarithm of the pooled error against that of the axis, with an interval over replicas."""
    if len(found) == 0:
        return missing(Reason.NOT_FINISHED, "no line")
    curves = pooled(found)
    if len(curves) < 2:
        return missing(Reason.FEW_RUNS, "one replica")
    if not np.isfinite(curves).all():
        return missing(Reason.NOT_FINITE, "a run diverged")
    if (curves.max(axis=0) <= ZERO).any():
        return missing(Reason.NO_ERROR)
    e = estimate.log_log_slope(x, curves)
    low, high = e.interval
    return estimate.exact(round(low, 9)) if high - low < 1e-9 else e  # the same in every replica


def _diverged(ds: xr.Dataset) -> int:
    """Runs of finished cells whose errors are not finite."""
    e = ds["observed"].sel(output="average").isel(checkpoint=-1)
    return int((e.sel(term="total").isnull() & e.sel(term="interface").notnull()).sum())


def _last_errors(ds: xr.Dataset) -> dict[str, Float[np.ndarray, "C"]]:
    """The root mean square of every term in every cell, at the last checkpoint."""
    sizes = (ds["observed"].sel(output="average").isel(checkpoint=-1) ** 2).mean("replica", skipna=False) ** 0.5
    return {t: sizes.sel(term=t).values.ravel() for t in TERMS}


def _varied(spec: Spec) -> Grid:
    settings = axes.known(spec.family)
    asked = [[name, ", ".join(map(_short, values)), settings[name].meaning] for name, values in spec.axes]
    return Grid("What varies", ("axis", "values", "meaning"), asked)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _written(value)


def _figures(ds: xr.Dataset, records: Records) -> list[Drawing]:
    names = [*map(str, ds["finished"].dims), "checkpoint"]
    panels = []
    for name in names:
        if ds.sizes[name] > 1 and len(lines(ds, "total", name)):
            panels.append(_errors_along(ds, name))
    if ds.sizes[names[0]] > 1 and ds["value"].notnull().any():
        average = float((ds["value_oracle"] - ds["value"]).mean(skipna=True))
        alt = f"Value that the learned policy loses along {names[0]}: {number(average)} on average."
        with plt.rc_context(style.STYLE):
            panels.append(html.figure(value_panel(ds, names[0]), f"value-{names[0]}", alt))
    results = [dataset.arrays_of(cell) for _, cell in _points(ds)]
    for kind in KINDS:
        stated = records.found[kind].values()
        if any(s.comparable.any() for s in stated):
            broken = sum(s.violations for s in stated)
            alt = f"Observed error against every {kind}, per term; {broken} lie below the diagonal."
            with plt.rc_context(style.STYLE):
                panels.append(html.figure(evidence_panel(results, kind), f"{kind}s", alt))
    return panels


def _errors_along(ds: xr.Dataset, axis: str) -> Drawing:
    name, x = "handoffs" if axis == "checkpoint" else axis, ds[axis].values
    found = {t: [root_mean_square(part) for part in pooled(lines(ds, t, axis)).T] for t in TERMS}
    ends = (f"{NAME[term]} from {number(e[0].value)} to {number(e[-1].value)}" for term, e in found.items())
    alt = f"Errors as {name} goes from {x[0]} to {x[-1]}: {', '.join(ends)}."
    caption = "" if name == "handoffs" else str(ds[axis].attrs["long_name"])
    with plt.rc_context(style.STYLE):
        return html.figure(plot_along(ds, axis), f"along-{name}", alt, caption)


def _slopes(ds: xr.Dataset) -> Grid:
    rows: list[list[Entry]] = []
    for name in map(str, ds["finished"].dims):
        x = ds[name].values
        if is_scale(ds[name]) and (x > 0).sum() > 1:
            rows.append([name, *_slope_row(x[x > 0], ds.isel({name: x > 0}), name)])
    late = _late(ds)
    if late.sizes["checkpoint"] > 1:
        rows.append(["handoffs", *_slope_row(late["checkpoint"].values, late, "checkpoint")])
    return Grid("Log-log slope of each term", ("axis", "lines", *(NAME[t] for t in TERMS)), rows)


def _slope_row(x: np.ndarray, ds: xr.Dataset, name: str) -> list[Entry]:
    found = {t: lines(ds, t, name) for t in TERMS}
    return [len(found["total"]), *(slope(x.astype(float), part) for part in found.values())]


def _late(ds: xr.Dataset) -> xr.Dataset:
    """The checkpoints over which a rate is read off."""
    grid = ds["checkpoint"].values
    return ds.isel(checkpoint=grid >= grid[-1] / 2**OCTAVES)


def _rates(ds: xr.Dataset) -> Grid | str:
    """Slope of the residual and the total against handoffs, cell by cell."""
    late, rows, terms = _late(ds), [], ["residual", "total"]
    if late.sizes["checkpoint"] < 2:
        return ""
    grid = late["checkpoint"].values.astype(float)
    for point, cell in _points(late)[: 4 * CELLS]:
        if (cell["certificate_verdict"].sel(term="residual") >= 0).all():
            e = cell["observed"].sel(term=terms, output="average").transpose("term", "checkpoint", "replica").values
            rows.append([*point, *(slope(grid, part[None]) for part in e)])
    header = (*map(str, ds["finished"].dims), *(NAME[t] for t in terms))
    return Grid("Slope against handoffs, cell by cell", header, rows[:CELLS], fold=8)


def _points(ds: xr.Dataset) -> list[tuple[list[Entry], xr.Dataset]]:
    """Every finished cell with the values of its axes."""
    dims = [*map(str, ds["finished"].dims)]
    where = np.argwhere(ds["finished"].values)
    picks = (dict(zip(dims, map(int, index))) for index in where)
    return [([_short(ds[d].values[k].item()) for d, k in p.items()], ds.isel(p)) for p in picks]


def _cells(ds: xr.Dataset) -> Grid:
    rows: list[list[Entry]] = []
    for point, cell in _points(ds)[:CELLS]:
        last = cell.sel(output="average").isel(checkpoint=-1)
        terms: list[Entry] = [None] * len(TERMS)
        if (last["certificate_verdict"].sel(term="residual") >= 0).all():
            each = (last.sel(term=t) for t in TERMS)
            terms = [_rms(of["observed"].values, float(of["certificate_slack"].max())) for of in each]
        rows.append([*point, *terms, mean((cell["value_oracle"] - cell["value"]).values)])
    header = (*map(str, ds["finished"].dims), *(NAME[t] for t in TERMS), "value lost against the oracle")
    return Grid("Every cell", header, rows, fold=12)


def _rms(errors: Float[np.ndarray, "R"], slack: float) -> Estimate:
    """The root mean square; a single number where all replicas agree, 0 within the numerical slack."""
    return estimate.exact(0.0) if (errors <= slack).all() else root_mean_square(errors)


def _violated(ds: xr.Dataset) -> Grid:
    """The statements that are violated."""
    rows: list[list[Entry]] = []
    seen = {"bound": (ds["observed"] ** 2).mean("replica") ** 0.5, "certificate": ds["observed"]}
    for kind in KINDS:
        code = ds[f"{kind}_verdict"]
        for index in np.argwhere(code.values == dataset.CODES["violated"]):
            at = dict(zip(map(str, code.dims), map(int, index)))
            where = ", ".join(f"{d} {_short(ds[d].values[k].item())}" for d, k in at.items() if d != "term")
            name = NAME[str(ds["term"].values[at["term"]])]
            rows.append([name, kind, where, float(seen[kind].isel(at)), float(ds[kind].isel(at))])
    return Grid("Violations", ("term", "statement", "where", "observed", "stated"), rows[:CELLS])


def _proved(spec: Spec) -> dict[str, Any]:
    """The theorem on the workflow in the middle of the grid."""
    cell = spec.cells()[int(np.ravel_multi_index([n // 2 for n in spec.shape], spec.shape))]
    middle = ", ".join(f"{name} {_short(values[len(values) // 2])}" for name, values in spec.axes)
    which = f"the workflow in the middle of the grid ({middle})"
    if isinstance(cell.method, Mlp | PlainMlp):
        which += ", with a table, as the theorem speaks of linear classes (networks: see the records)"
    count = cell.method.count if isinstance(cell.method, Features) else 0
    return proved(cell.family.workflow(), count, spec.checkpoints[-1], which)


def _origin(spec: Spec, ds: xr.Dataset, name: str) -> dict[str, Any]:
    defaults = {name: setting.default for name, setting in axes.known(spec.family).items()}
    words = ["icq", "sweep", "--family", spec.family, "--axes"]
    words += [f"{axis}={','.join(map(_written, values))}" for axis, values in spec.axes]
    fixed = [(n, v) for n, v in spec.fixed if v is not None and (v != defaults[n] or n == "function_class")]
    if other := [f"{n}={_written(v)}" for n, v in fixed]:
        words += ["--fix", *other]
    words += ["--replicas", str(spec.replicas), "--checkpoints", *map(str, spec.checkpoints), "--out", name]
    commands = {
        "The same numbers again (an unfinished sweep goes on):": shlex.join(words),
        "This page in a notebook:": f"import icq_bounds as ib\nib.report({name!r})",
        "All records, labelled, in a notebook:": (
            f'import xarray as xr\nds = xr.open_dataset({f"{name}/sweep.nc"!r}, engine="h5netcdf")'
        ),
    }
    made = json.loads(ds.attrs["provenance"]) | {"machines": ds.attrs["machines"]}
    return origin(made, commands, spec.as_json())


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
