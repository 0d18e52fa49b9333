"""A sweep along one of its axes: every error, what was known of it before, and the value of what was learned."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from bounds.core.bound import Verdict
from estimators.decomposition import NAME, TERMS
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate
from icq_bounds.figures import style
from icq_bounds.sweep.dataset import CODES

WIDE = 20.0  # a range of more than this factor is drawn on a logarithmic scale
ZERO = 1e-9  # an error up to it is numerical


def is_scale(axis: xr.DataArray) -> bool:
    """Whether values of an axis measure something; words, switches and seeds only tell cells apart."""
    return axis.dtype.kind in "if" and axis.name != "seed"


def lines(ds: xr.Dataset, term: str, axis: str) -> Float[np.ndarray, "L K R"]:
    """Errors of a term along an axis (at the last checkpoint) or along `checkpoint`: one line per setting of all else.

    Lines with a cell that is not finished, or that learns otherwise than IC-Q, are left out.
    """
    e = _along(ds, "observed", term, axis, ("replica",))
    return e[(_along(ds, "certificate_verdict", term, axis, ("replica",)) >= 0).all(axis=(1, 2))]


def pooled(found: Float[np.ndarray, "L K R"]) -> Float[np.ndarray, "R K"]:
    """Root mean square over the lines, per replica: replicas share their randomness across cells."""
    return np.sqrt((found**2).mean(axis=0)).T


def known(ds: xr.Dataset, term: str, axis: str) -> Float[np.ndarray, "K"]:
    """The bound on that root mean square; NaN where one of the lines has none, or a vacuous one."""
    bound, code = (_along(ds, name, term, axis) for name in ("bound", "bound_verdict"))
    kept = (_along(ds, "certificate_verdict", term, axis, ("replica",)) >= 0).all(axis=(1, 2))
    bound = np.where(code == CODES[Verdict.VACUOUS.value], np.nan, bound)[kept]
    return np.sqrt((bound**2).mean(axis=0)) if len(bound) else np.full(bound.shape[1], np.nan)


def _along(ds: xr.Dataset, name: str, term: str, axis: str, inner: tuple[str, ...] = ()) -> np.ndarray:
    """A variable of the average as [lines, axis, *inner]."""
    found = ds[name].sel(term=term, output="average")
    if axis != "checkpoint":
        found = found.isel(checkpoint=-1)
    return found.transpose(..., axis, *inner).values.reshape(-1, *(found.sizes[d] for d in (axis, *inner)))


def plot_along(ds: xr.Dataset, axis: str, ax: Axes | None = None) -> Axes:
    """Every error of a sweep along one axis, or along `checkpoint`, with 95 % intervals; dashed: the bound on it.

    ds: of `load_sweep`, errors in reward units.  Root mean squares over all other axes, at the last checkpoint; a
    vacuous bound is not drawn.  ax: where to draw; new axes when left out.  Raises ValueError for an axis that the
    sweep does not have.
    """
    if axis not in (known_axes := [*map(str, ds["finished"].dims), "checkpoint"]):
        raise ValueError(f"axis = {axis!r}: this sweep has {', '.join(known_axes)}")
    ax, along = style.axes(ax), ds[axis]
    found = {t: [root_mean_square(column) for column in pooled(lines(ds, t, axis)).T] for t in TERMS}
    values = np.array([e.value for part in found.values() for e in part if e.value > ZERO])
    if log := _wide(values):
        ax.set_yscale("log")
    for k, (term, estimates) in enumerate(found.items()):
        if log and all(e.value <= ZERO for e in estimates):
            continue  # a logarithmic axis has no place for it
        _line(ax, along, estimates, style.COLOUR[term], NAME[term], shift=0.08 * (k - (len(TERMS) - 1) / 2))
        stated = known(ds, term, axis)
        if is_scale(along) and np.isfinite(stated).any() and max(e.value for e in estimates) > ZERO:
            ax.plot(_places(along), stated, "--", color=style.COLOUR[term], linewidth=1.2)
    ax.set_ylim(bottom=0.5 * values.min() if log else 0)
    name = "handoffs" if axis == "checkpoint" else axis
    ax.set(xlabel=_label(along), ylabel="error in the d-norm", title=f"Errors along {name} (dashed: bounds)")
    return style.label_ends(style.readable(ax))


def value_panel(ds: xr.Dataset, name: str, ax: Axes | None = None) -> Axes:
    """Value that learned policies lose against the oracle along an axis, per learner, beside what random ones lose."""
    lost, ax = ds["value_oracle"] - ds["value"], style.axes(ax)
    groups = {"learned": lost}
    if "who" in lost.dims and name != "who":
        groups = {str(who): lost.sel(who=who) for who in ds["who"].values}
    for (label, part), colour in zip(groups.items(), style.WHO.values()):
        other = [d for d in part.dims if d not in (name, "replica")]
        table = part.mean(other, skipna=True).transpose("replica", name).values
        _line(ax, ds[name], [mean(table[:, k]) for k in range(table.shape[1])], colour, label)
    for key, label, dashes in (("value_bar", "best for this interface", ":"), ("value_random", "random", "--")):
        exact = ds["value_oracle"] - ds[key]
        line = exact.mean([d for d in exact.dims if d != name], skipna=True).values
        ax.plot(_places(ds[name]), line, dashes, color="0.35", linewidth=1.2, label=label)
    ax.set(xlabel=_label(ds[name]), ylabel="value lost against the oracle, reward", title=f"Value lost along {name}")
    style.readable(ax).legend(fontsize=8)
    return ax


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
