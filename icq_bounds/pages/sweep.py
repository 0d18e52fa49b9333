"""The report of a sweep: terms along every axis, slopes with intervals, every cell, verdicts, ratios, provenance.

Errors of several cells are joined as root mean squares, the norm in which the theorem speaks; lines of cells that are
not finished are left out and counted.  The layout of the dataset is that of icq_bounds.sweep.dataset.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jaxtyping import Float
from markupsafe import Markup

from estimators.decomposition import TERMS
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, missing
from icq_bounds.figures import style
from icq_bounds.figures.bound import bound_panel
from icq_bounds.figures.style import NAME
from icq_bounds.pages import html
from icq_bounds.pages.curves import along, drawn, is_scale, value_along
from icq_bounds.pages.html import Cell, Page, Section
from icq_bounds.pages.parts import (
    EXACT,
    Records,
    largest_term,
    provenance_section,
    ratio_section,
    ratios_in_words,
    theorem_section,
    verdict_section,
)
from icq_bounds.sweep import axes, dataset
from icq_bounds.sweep.methods import Features, Mlp
from icq_bounds.sweep.spec import Spec, read_folder

CELLS = 200  # cells up to which each has a row
OCTAVES = 4  # last octaves of handoffs over which a rate is read off
SOURCE = {"b": "bound", "e": "observed", "slack": "slack"}


def sweep_report(folder: Path, theorem: bool = True) -> Page:
    """The page of a sweep's folder, finished or not.  Raises FileNotFoundError where nothing is to report."""
    spec, ds = load(folder)
    records = flat(ds)
    done, cells = int(ds["finished"].sum()), ds["finished"].size
    sizes = " × ".join(f"{len(values)} {name}" for name, values in spec.axes)
    sections = [
        html.section("Summary", *_summary(spec, ds, records)),
        html.section("Figures", *_figures(ds, records)),
        html.section("Slopes", *_slopes(ds)),
        html.section("Cells", *_cells(ds)),
        verdict_section(records.counts(), *_violations(ds)),
        ratio_section(records.ratio_rows()),
        *([_theorem(spec)] if theorem else []),
        _provenance(spec, ds, folder),
    ]
    lead = (
        f"{folder.name}: {done} of {cells} cells ({sizes}), {spec.replicas} replicas, {spec.checkpoints[-1]} handoffs"
    )
    return html.page(f"IC-Q sweep of the family {spec.family}", lead, sections)


def load(folder: Path) -> tuple[Spec, xr.Dataset]:
    """The configuration and the dataset: from the cells where they are, else from sweep.nc."""
    if (folder / "cells").is_dir() and (folder / "sweep.json").exists():
        return read_folder(folder)[0], dataset.load(folder)
    path = folder / "sweep.nc"
    if not path.exists():
        raise FileNotFoundError(f"{folder}: sweep.json is there, but neither cells/ nor sweep.nc: nothing was computed")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as ds:
            return Spec.from_json(json.loads(ds.attrs["config"])), ds.load()
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); run the same icq sweep again") from error


def flat(ds: xr.Dataset) -> Records:
    """Every record of every finished cell."""
    words = np.array([*dataset.CODES])[np.argsort([*dataset.CODES.values()])]
    out = {}
    for term in TERMS:
        records = ds.sel(term=term)
        code = records["verdict"].values.ravel()
        for part, source in SOURCE.items():
            out[f"{part}_{term}"] = records[source].values.ravel()[code >= 0]
        out[f"verdict_{term}"] = words[code[code >= 0] + 1]
    known = np.isfinite(ds[EXACT[0]].values.ravel())
    return Records(out | {name: ds[name].values.ravel()[known] for name in EXACT})


def lines(ds: xr.Dataset, term: str, axis: str) -> Float[np.ndarray, "L K R"]:
    """Errors of a term along an axis (at the last checkpoint) or along `checkpoint`: one line per setting of all else.

    Lines with a cell that is not finished, or that learns otherwise than IC-Q, are left out.
    """
    e, code = (ds[name].sel(term=term) for name in ("observed", "verdict"))
    if axis != "checkpoint":
        e, code = e.isel(checkpoint=-1), code.isel(checkpoint=-1)
    order = (..., axis, "replica")
    shape = (-1, e.sizes[axis], e.sizes["replica"])
    found, known = (x.transpose(*order).values.reshape(shape) for x in (e, code))
    return found[(known >= 0).all(axis=(1, 2))]


def pooled(found: Float[np.ndarray, "L K R"]) -> Float[np.ndarray, "R K"]:
    """Root mean square over the lines, per replica: replicas share their randomness across cells."""
    return np.sqrt((found**2).mean(axis=0)).T


def slope(x: Float[np.ndarray, "K"], found: Float[np.ndarray, "L K R"]) -> Estimate:
    """Slope of the logarithm of the pooled error against that of the axis, with an interval over replicas."""
    if len(found) == 0:
        return missing("no finished line")
    curves = pooled(found)
    if len(curves) < 2:
        return missing("one replica")
    if not np.isfinite(curves).all():
        return missing("a run diverged")
    if (curves.max(axis=0) <= 1e-9).any():
        return missing("the error is 0")
    e = estimate.log_log_slope(x, curves)
    low, high = e.interval
    return estimate.exact(round(low, 9)) if high - low < 1e-9 else e  # the same in every replica


def _summary(spec: Spec, ds: xr.Dataset, records: Records) -> list[Markup]:
    done, cells = int(ds["finished"].sum()), ds["finished"].size
    seen, violated = records.arrays["e_total"], records.violations()
    facts = {"cells finished": f"{done} of {cells}", "records": str(len(seen)), "violations": str(violated)}
    sizes = (ds["observed"].isel(checkpoint=-1) ** 2).mean("replica", skipna=False) ** 0.5
    errors = {t: sizes.sel(term=t).values.ravel() for t in TERMS}
    parts = [html.facts(facts)]
    if done < cells:
        unfinished = (
            f"This sweep is unfinished: {done} of {cells} cells are there. The same icq sweep command computes "
        )
        parts.append(html.notice(unfinished, "the others; everything below speaks of those that are there."))
    if violated:
        parts.append(html.notice(f"{violated} records violate a bound; they are listed under Verdicts.", bad=True))
    if diverged := int(np.isnan(seen).sum()):
        why = "because their run diverged, and so is every mean over them: choose smaller steps."
        parts.append(html.notice(f"{diverged} records are NaN {why}"))
    if moving := int((ds["reference_converged"] == 0).sum()):
        parts.append(html.notice(f"In {moving} cells the reference Q_F still moves: raise reference_iterations."))
    parts.append(html.paragraph(largest_term(errors), " ", ratios_in_words(records.ratio_rows())))
    settings = axes.known(spec.family)
    asked = [[n, ", ".join(map(_short, v)), settings[n].meaning] for n, v in spec.axes]
    parts.append(html.table("What varies", ("axis", "values", "meaning"), asked))
    return parts


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _written(value)


def _figures(ds: xr.Dataset, records: Records) -> list[Markup]:
    names = [*map(str, ds["finished"].dims), "checkpoint"]
    panels = []
    for name in names:
        found = {NAME[t]: lines(ds, t, name) for t in TERMS}
        if ds.sizes[name] > 1 and len(found[NAME["total"]]):
            curves = {term: pooled(part) for term, part in found.items()}
            colours = {NAME[t]: style.COLOUR[t] for t in TERMS}
            panels.append(along(ds[name], curves, colours))
    if ds.sizes[names[0]] > 1 and ds["value"].notnull().any():
        panels.append(value_along(ds, names[0]))
    a = records.arrays
    if any((np.isfinite(a[f"b_{t}"]) & (a[f"e_{t}"] > a[f"slack_{t}"])).any() for t in TERMS):
        with plt.rc_context(style.STYLE):
            ax = bound_panel([a])
            ax.set_title("Observed against bound, every record")
            panels.append(
                drawn(ax, "bounds", f"{len(a['e_total'])} records, observed error against certified bound, per term; "
                      f"{records.violations()} lie below the diagonal.")
            )  # fmt: skip
    return [html.figures(*panels)] if panels else [html.paragraph("There is nothing to draw yet.")]


def _slopes(ds: xr.Dataset) -> list[Markup]:
    rows: list[list[Cell]] = []
    grid = ds["checkpoint"].values.astype(float)
    late = grid >= grid[-1] / 2**OCTAVES
    for name in map(str, ds["finished"].dims):
        x = ds[name].values
        if is_scale(ds[name]) and (x > 0).sum() > 1:
            found = {t: lines(ds.isel({name: x > 0}), t, name) for t in TERMS}
            rows.append([name, len(found["total"]), *(slope(x[x > 0].astype(float), found[t]) for t in TERMS)])
    if late.sum() > 1:
        found = {t: lines(ds.isel(checkpoint=late), t, "checkpoint") for t in TERMS}
        rows.append(["handoffs", len(found["total"]), *(slope(grid[late], found[t]) for t in TERMS)])
    say = html.paragraph(
        "How an error grows with an axis: the slope of its logarithm against that of the axis, least squares, with the "
        "95 % interval over replicas. Errors are root mean squares over all other axes, at the last "
        f"checkpoint; against handoffs over the last {OCTAVES} octaves. Values of an axis that are not positive have "
        "no logarithm and play no part."
    )
    header = ("axis", "lines", *(NAME[t] for t in TERMS))
    parts = [say, html.table("Log-log slope of each term", header, rows)]
    if late.sum() > 1:
        parts.append(_rates(ds.isel(checkpoint=late), grid[late]))
    return parts


def _rates(ds: xr.Dataset, grid: Float[np.ndarray, "K"]) -> Markup:
    """Slope of the residual and the total against handoffs, cell by cell."""
    rows: list[list[Cell]] = []
    for point, cell in _points(ds):
        if (cell["verdict"].sel(term="residual") >= 0).all():
            e = cell["observed"].sel(term=["residual", "total"]).transpose("term", "checkpoint", "replica").values
            rows.append([*point, *(slope(grid, part[None]) for part in e)])
    header = (*map(str, ds["finished"].dims), NAME["residual"], NAME["total"])
    return html.table("Slope against handoffs, cell by cell", header, rows[:CELLS], fold=8)


def _points(ds: xr.Dataset) -> list[tuple[list[Cell], xr.Dataset]]:
    """Every finished cell with the values of its axes."""
    dims = [*map(str, ds["finished"].dims)]
    where = np.argwhere(ds["finished"].values)
    picks = (dict(zip(dims, map(int, index))) for index in where[: 4 * CELLS])
    return [([_short(ds[d].values[k].item()) for d, k in p.items()], ds.isel(p)) for p in picks]


def _cells(ds: xr.Dataset) -> list[Markup]:
    rows: list[list[Cell]] = []
    every = _points(ds)
    for point, cell in every[:CELLS]:
        last = cell.isel(checkpoint=-1)
        terms: list[Cell] = [None] * len(TERMS)
        if (last["verdict"].sel(term="residual") >= 0).all():
            each = (last.sel(term=t) for t in TERMS)
            terms = [_rms(of["observed"].values, float(of["slack"].max())) for of in each]
        rows.append([*point, *terms, _mean(100 * (cell["value"] / cell["value_oracle"]).values)])
    header = (*map(str, ds["finished"].dims), *(NAME[t] for t in TERMS), "value, % of the oracle")
    say = html.paragraph(
        "Root mean square errors in the d-norm at the last checkpoint and the value of the learned policy, with 95 % "
        "intervals over replicas; 0 is 0 within numerical slack."
    )
    done = int(ds["finished"].sum())
    cut = [html.paragraph(f"The first {CELLS} of {done} cells; all of them are in sweep.nc.")] if done > CELLS else []
    return [say, *cut, html.table("Every cell", header, rows, fold=12)] if rows else [html.paragraph("None yet.")]


def _rms(errors: Float[np.ndarray, "R"], slack: float) -> Estimate:
    """The root mean square; a single number where all replicas agree, 0 within the numerical slack."""
    if (errors <= slack).all():
        return estimate.exact(0.0)
    return estimate.exact(float(errors[0])) if (errors == errors[0]).all() else estimate.root_mean_square(errors)


def _mean(values: Float[np.ndarray, "R"]) -> Estimate:
    """The mean; a single number where all replicas agree."""
    return estimate.exact(float(values[0])) if (values == values[0]).all() else estimate.mean(values)


def _violations(ds: xr.Dataset) -> list[Markup]:
    """The records that violate a bound."""
    rows: list[list[Cell]] = []
    for term in TERMS:
        records = ds.sel(term=term)
        code = records["verdict"]
        for index in np.argwhere(code.values == dataset.CODES["violated"]):
            at = dict(zip(map(str, code.dims), map(int, index)))
            seen, bound = (float(records[part].isel(at)) for part in ("observed", "bound"))
            where = ", ".join(f"{d} {_short(ds[d].values[k].item())}" for d, k in at.items())
            rows.append([NAME[term], where, seen, bound])
    table = html.table("Violations", ("term", "record", "observed", "bound"), rows[:CELLS])
    return [html.notice(f"{len(rows)} records violate a bound.", bad=True), table] if rows else []


def _theorem(spec: Spec) -> Section:
    """The theorem on the workflow in the middle of the grid."""
    cell = spec.cells()[int(np.ravel_multi_index([n // 2 for n in spec.shape], spec.shape))]
    middle = ", ".join(f"{name} {_short(values[len(values) // 2])}" for name, values in spec.axes)
    which = f"the workflow in the middle of the grid ({middle})"
    if isinstance(cell.method, Mlp):
        which += ", with a table, as the theorem speaks of linear classes (networks are certified record by record)"
    count = cell.method.count if isinstance(cell.method, Features) else 0
    return theorem_section(cell.family.workflow(), count, spec.checkpoints[-1], which)


def _provenance(spec: Spec, ds: xr.Dataset, folder: Path) -> Section:
    defaults = {name: setting.default for name, setting in axes.known(spec.family).items()}
    words = ["icq", "sweep", "--family", spec.family, "--axes"]
    words += [f"{name}={','.join(map(_written, values))}" for name, values in spec.axes]
    if other := [f"{n}={_written(v)}" for n, v in spec.fixed if v is not None and v != defaults[n]]:
        words += ["--fix", *other]
    words += ["--replicas", str(spec.replicas), "--checkpoints", *map(str, spec.checkpoints), "--out", folder.name]
    commands = {
        "The same numbers again (an unfinished sweep goes on):": shlex.join(words),
        "This page in a notebook:": f'from icq_bounds.pages.report import report\nreport("{folder.name}")',
        "All records, labelled, in a notebook:": (
            f'import xarray as xr\nds = xr.open_dataset("{folder.name}/sweep.nc", engine="h5netcdf")'
        ),
    }
    made = json.loads(ds.attrs["provenance"]) | {"machines": ds.attrs["machines"]}
    return provenance_section(made, commands, spec.as_json())


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
