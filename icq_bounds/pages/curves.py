"""Figures of a report that follow an axis of a sweep.  The style is that of icq_bounds.figures.style."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from estimators.decomposition import NAME
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate
from icq.display import number
from icq_bounds.figures import style
from icq_bounds.pages import html
from icq_bounds.pages.html import Drawing

WIDE = 20.0  # a range of more than this factor is drawn on a logarithmic scale


def is_scale(axis: xr.DataArray) -> bool:
    """Whether values of an axis measure something; words, switches and seeds only tell cells apart."""
    return axis.dtype.kind in "if" and axis.name != "seed"


def along(axis: xr.DataArray, curves: Mapping[str, Float[np.ndarray, "R K"]]) -> Drawing:
    """Root mean square of each term at every value of an axis, with 95 % intervals over replicas."""
    found = {term: [root_mean_square(part[:, k]) for k in range(part.shape[1])] for term, part in curves.items()}
    name = "handoffs" if axis.name == "checkpoint" else str(axis.name)
    with plt.rc_context(style.STYLE):
        ax = style.axes(None)
        for k, (term, estimates) in enumerate(found.items()):
            _line(ax, axis, estimates, style.COLOUR[term], NAME[term], shift=0.08 * (k - (len(found) - 1) / 2))
        values = np.array([e.value for part in found.values() for e in part])
        if _wide(values[values > 1e-9]):
            ax.set_yscale("log")
            ax.set_ylim(bottom=0.5 * values[values > 1e-9].min())
        else:
            ax.set_ylim(bottom=0)
        ax.set(xlabel=_label(axis), ylabel="error in the d-norm", title=f"Errors along {name}")
        style.label_ends(style.readable(ax))
    ends = (f"{NAME[term]} from {number(e[0].value)} to {number(e[-1].value)}" for term, e in found.items())
    x = axis.values
    alt = f"Errors as {name} goes from {x[0]} to {x[-1]}: {', '.join(ends)}."
    return html.figure(ax, f"along-{name}", alt, "" if name == "handoffs" else str(axis.attrs["long_name"]))


def value_along(ds: xr.Dataset, name: str) -> Drawing:
    """Value of the learned policy along an axis, per learner, between the random policy and the oracle."""
    percent = 100 * ds["value"] / ds["value_oracle"]
    groups = {"learned": percent}
    if "who" in percent.dims and name != "who":
        groups = {str(who): percent.sel(who=who) for who in ds["who"].values}
    with plt.rc_context(style.STYLE):
        ax = style.axes(None)
        for (label, part), colour in zip(groups.items(), style.WHO.values()):
            other = [d for d in part.dims if d not in (name, "replica")]
            table = part.mean(other, skipna=True).transpose("replica", name).values
            _line(ax, ds[name], [mean(table[:, k]) for k in range(table.shape[1])], colour, label)
        for key, label, dashes in (("value_bar", "best for this interface", ":"), ("value_random", "random", "--")):
            exact = 100 * ds[key] / ds["value_oracle"]
            line = exact.mean([d for d in exact.dims if d != name], skipna=True).values
            ax.plot(_places(ds[name]), line, dashes, color="0.35", linewidth=1.2, label=label)
        ax.set(xlabel=_label(ds[name]), ylabel="value, per cent of the oracle", title=f"Value along {name}")
        style.readable(ax).legend(fontsize=8)
    average = float(percent.mean(skipna=True))
    return html.figure(ax, f"value-{name}", f"Value of the learned policy along {name}: {average:.1f} % on average.")


def root_mean_square(errors: Float[np.ndarray, "R"]) -> Estimate:
    """The root mean square; without an interval where all replicas agree, as a single one does."""
    return estimate.exact(abs(float(errors[0]))) if (errors == errors[0]).all() else estimate.root_mean_square(errors)


def mean(values: Float[np.ndarray, "R"]) -> Estimate:
    """The mean; without an interval where all replicas agree, as a single one does."""
    return estimate.exact(float(values[0])) if (values == values[0]).all() else estimate.mean(values)


def _line(ax: Axes, axis: xr.DataArray, estimates: list[Estimate], colour: str, label: str, shift: float = 0.0) -> None:
    """A line with a band for numbers, points with bars, side by side, for words."""
    x = _places(axis)
    if is_scale(axis):
        style.band(ax, x.tolist(), estimates, colour, label)
        if axis.name == "checkpoint" or (x.min() > 0 and _wide(x)):
            ax.set_xscale("log")
        return
    value = np.array([e.value for e in estimates])
    reach = np.abs(np.array([e.interval for e in estimates]).T - value)
    ax.errorbar(x + shift, value, reach, fmt="o", color=colour, label=label, capsize=3)
    ax.set_xticks(x, [str(v).lower() if axis.dtype.kind == "b" else str(v) for v in axis.values])
    ax.set_xlim(-0.5, len(x) - 0.5)


def _places(axis: xr.DataArray) -> Float[np.ndarray, "K"]:
    return axis.values.astype(float) if is_scale(axis) else np.arange(axis.size, dtype=float)


def _label(axis: xr.DataArray) -> str:
    units = axis.attrs["units"]
    name = "handoffs" if axis.name == "checkpoint" else str(axis.name)
    return name if units in ("1", name) else f"{name} ({units})"


def _wide(values: np.ndarray) -> bool:
    return bool(len(values) > 0 and values.max() > WIDE * values.min())
