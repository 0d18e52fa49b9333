"""Observed, bound and certificate of every term over handoffs: the panel of a check."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bounds.core.bound import Verdict
from estimators.decomposition import NAME, TERMS
from estimators.statistics.estimate import root_mean_square
from icq_bounds.figures.style import COLOUR, axes, band, label_ends, readable
from icq_bounds.sweep.dataset import CODES


def check_panel(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """The terms of a check's dataset, of the output it names.  On the logarithmic axis there is no place for an error
    that is 0 up to numerical error, nor any use for a vacuous bound; the title names what is left out.
    """  # fmt: skip
    ax, grid, ds = axes(ax, 6.4, 4.2), ds["checkpoint"].values.tolist(), ds.sel(output=ds.attrs["shown"])
    zero, vacuous = [], []
    for term in TERMS:
        part, colour = ds.sel(term=term), COLOUR[term]
        errors = part["observed"].values
        if not (errors > part["bound_slack"].values).any():
            zero.append(f"{NAME[term]} is 0")
            continue
        band(ax, grid, [root_mean_square(column) for column in errors.T], colour, NAME[term])
        empty = part["bound_verdict"].values == CODES[Verdict.VACUOUS.value]
        if empty.any():
            vacuous.append(NAME[term])
        bound = np.where(empty, np.nan, part["bound"].values)
        certificate = np.sqrt((part["certificate"].values ** 2).mean(axis=0))
        for values, dashes in ((bound, "--"), (certificate, ":")):
            if np.isfinite(values).any():
                ax.plot(grid, values, dashes, color=colour, linewidth=1.3)
    if np.isfinite(cap := float(ds["trivial"].sel(term="total"))):
        ax.axhline(cap, color="0.5", linewidth=1, label="_trivial")
        ax.annotate("range of rewards alone", (grid[0], cap), xytext=(0, 3), textcoords="offset points", fontsize=8)
    notes = [*zero, *([f"vacuous bound of {' and '.join(vacuous)} not drawn"] if vacuous else [])]
    title = "\n".join(["solid: observed; dashed: bound; dotted: certificate", *(["; ".join(notes)] if notes else [])])
    ax.set(xscale="log", yscale="log", xlabel="handoffs learned from", ylabel="root mean square error, d-norm")
    ax.set_title(title, fontsize=10, loc="left")
    return label_ends(readable(ax))
