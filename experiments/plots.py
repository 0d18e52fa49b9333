"""The figures.  Every function draws on the `ax` it is given (or a new one) and returns it.

One style: `axes` and `save_panels` apply it, `readable` and `label_ends` finish a panel.  One colour per error term
everywhere, from the colour-blind safe Okabe-Ito set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from scipy.optimize import isotonic_regression

from estimators.estimate import Estimate, root_mean_square
from experiments import n10
from experiments.cells import TERMS, Cell, Who
from experiments.methods import Table
from experiments.n10 import Preset, Results
from experiments.store import Arrays

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, RED, GREEN, PINK, AMBER, SKY, BLACK = OKABE_ITO
COLOUR = {"interface": BLUE, "app": AMBER, "mix": GREEN, "total": BLACK}
NAME = {"interface": "interface gap", "app": "approximation", "mix": "residual", "total": "total"}
WHO = {Who.ICQ: BLUE, Who.CENTRALISED: RED, Who.INDEPENDENT: PINK}
CHANNEL = {"reward": SKY, "duration": PINK, "transition": RED}
SMALLEST = 1e-4  # errors below are counted on panel D, not drawn: they would squeeze everything else into a corner
STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "figure.constrained_layout.use": True, "savefig.dpi": 150, "svg.hashsalt": "icq-bounds",
    "axes.titlelocation": "left", "axes.axisbelow": True, "axes.prop_cycle": cycler(color=OKABE_ITO),
}  # fmt: skip
NAME_SIZE, SPACING = 9.0, 1.25  # of a name at the end of a line, in points, and from one to the next
DARKER = 0.8  # of a colour, so that thin letters are legible
NEAR = 0.1  # of the width: lines that end this close to the right edge can be named there
FAR = 1.2  # steps from one name to the next: a name further from its line belongs to another one for the eye


def axes(ax: Axes | None, width: float = 5.6, height: float = 4.0) -> Axes:
    """The given axes, or new ones in the project's style."""
    if ax is not None:
        return ax
    with plt.rc_context(STYLE):
        return plt.subplots(figsize=(width, height))[1]


def readable(ax: Axes) -> Axes:
    """Plain numbers on logarithmic axes, one to three per decade, and on long ones; ticks that a panel chose stay."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        if axis.get_scale() != "log":
            if high >= 1e4 and not isinstance(axis.get_major_locator(), FixedLocator):
                axis.set_major_formatter(FuncFormatter(plain))
            continue
        if isinstance(axis.get_major_locator(), FixedLocator):
            axis.set_minor_locator(NullLocator())
            continue
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 50 else (1.0,), numticks=8))
        axis.set_major_formatter(FuncFormatter(plain))
        axis.set_minor_formatter(NullFormatter())
    return ax


def plain(x: float, _: int | None = None) -> str:
    """A tick without powers unless it is tiny: 1e-8, 0.001, 20, 10k, 3M."""
    if x < 0:
        return f"-{plain(-x)}"
    if 0 < x < 1e-4:
        return f"{x:.0e}".replace("e-0", "e-")
    if x >= 1e4:
        return f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k"
    return np.format_float_positional(x, 3, fractional=False, trim="-")


def label_ends(ax: Axes) -> Axes:
    """Names in the lines' own colours, darker, at their right ends, moved apart where lines meet: nothing to look up.

    Call it last, when limits and scales are set.  A legend where a line ends early or too many meet in one place.
    """
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ax.get_ylim()  # sets the limits that the lines ask for
    room = NAME_SIZE * SPACING * ax.figure.dpi / 72
    x, y = np.array([_end(line) for line in lines]).reshape(-1, 2).T
    places = _apart(y, room)
    fits = (x >= ax.bbox.x1 - NEAR * ax.bbox.width) & (np.abs(places - y) <= FAR * room)  # false where NaN
    if not fits.all() or len(lines) < len(ax.get_legend_handles_labels()[0]):
        ax.legend(fontsize=NAME_SIZE)
        return ax
    for line, place in zip(lines, places, strict=True):
        ink = tuple(DARKER * part for part in to_rgb(line.get_color()))
        ax.text(1.015, (place - ax.bbox.y0) / ax.bbox.height, str(line.get_label()), color=ink,
                transform=ax.transAxes, fontsize=NAME_SIZE, va="center")  # fmt: skip
    return ax


def _end(line: Line2D) -> np.ndarray:
    """The last point of a line on the screen; NaN without one."""
    points = np.column_stack([np.asarray(part, float) for part in line.get_data()])
    points = points[np.isfinite(points).all(axis=1)]
    return line.get_transform().transform(points[points[:, 0].argmax()]) if len(points) else np.full(2, np.nan)


def _apart(y: np.ndarray, room: float) -> np.ndarray:
    """The places closest to these heights that are at least `room` apart, in their order; NaN if one is."""
    if not np.isfinite(y).all():
        return np.full_like(y, np.nan)
    order, steps = np.argsort(y, kind="stable"), room * np.arange(len(y))
    places = np.empty_like(y)
    if len(y):
        places[order] = isotonic_regression(y[order] - steps).x + steps
    return places


def band(
    ax: Axes,
    x: Sequence[float] | Sequence[int],
    estimates: Sequence[Estimate],
    colour: str,
    label: str,
    dashes: str = "-",
) -> None:
    """A line with markers and its 95 % intervals."""
    value = np.array([e.value for e in estimates])
    low, high = (np.array([e.interval[k] for e in estimates]) for k in (0, 1))
    ax.plot(x, value, dashes, color=colour, marker="o", markersize=3.5, label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _last(cells: Sequence[Cell], results: Results, term: str) -> list[Estimate]:
    return [root_mean_square(results[c][f"e_{term}"][:, -1]) for c in cells]


def interface_panel(p: Preset, results: Results, ax: Axes | None = None) -> Axes:
    """A: the three terms against the gap dial."""
    ax, cells = axes(ax), n10.gap_cells(p)
    for term in TERMS:
        band(ax, p.gaps, _last(cells, results, term), COLOUR[term], NAME[term])
    ax.set(xlabel="gap dial g", ylabel="error in the d-norm", title="A  Only the interface gap moves with its dial")
    ax.set_ylim(bottom=0)
    return label_ends(ax)


def width_panel(p: Preset, results: Results, ax: Axes | None = None) -> Axes:
    """B: the three terms against network width."""
    ax, cells = axes(ax), n10.width_cells(p)
    for term in TERMS[:3]:
        band(ax, p.widths, _last(cells, results, term), COLOUR[term], NAME[term])
    ax.set(xscale="log", yscale="log", xlabel="width of every agent's network", ylabel="error in the d-norm",
           title="B  Approximation falls with width, the interface stays")  # fmt: skip
    ax.set_xticks(p.widths, [str(w) for w in p.widths])
    return label_ends(readable(ax))


def residual_panel(p: Preset, results: Results, misspecified: bool, ax: Axes | None = None) -> Axes:
    """C: the residual against handoffs; trajectory solid, i.i.d. control dashed, one colour per mixing dial."""
    ax = axes(ax)
    colours = dict(zip(p.mixings, plt.get_cmap("viridis")(np.linspace(0.0, 0.8, len(p.mixings))), strict=True))
    for cell in n10.residual_cells(p):
        if isinstance(cell.method, Table) == misspecified:
            continue
        e = [root_mean_square(results[cell]["e_mix"][:, k]) for k in range(len(cell.checkpoints))]
        eta = n10.dials(cell).mixing
        label = f"mixing {eta:g}, {'i.i.d.' if cell.iid else 'trajectory'}"
        band(ax, cell.checkpoints, e, matplotlib.colors.to_hex(colours[eta]), label, "--" if cell.iid else "-")
        asymptote = np.sqrt(float(results[cell]["asymptote"]) / np.array(cell.checkpoints[len(e) // 2 :]))
        ax.plot(cell.checkpoints[len(e) // 2 :], asymptote, ":", color="0.2", linewidth=1.2,
                label="sharp asymptote" if cell.iid and n10.dials(cell).mixing == p.mixings[-1] else None)  # fmt: skip
    title = "Misspecified features: mixing sets the level" if misspecified else "Table: mixing costs a transient"
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="residual in the d-norm", title=f"C  {title}")
    ax.legend(fontsize=8)
    return readable(ax)


def bound_panel(results: Collection[Arrays], ax: Axes | None = None) -> Axes:
    """D: every record's bound against what was observed; nothing may lie below the diagonal."""
    ax = axes(ax, 5.6, 5.0)
    shown, outside = [], []
    for term in ("mix", "total", "app", "interface"):
        pairs = [
            (r[f"e_{term}"][keep], r[f"b_{term}"][keep])
            for r in results
            if f"e_{term}" in r and (keep := np.isfinite(r[f"b_{term}"]) & (r[f"e_{term}"] > r[f"slack_{term}"])).any()
        ]
        if not pairs:
            continue
        x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
        inside = (x >= SMALLEST) | (y < x)  # a violation is drawn however small
        outside.append((y / x)[~inside])
        shown += [x[inside], y[inside]]
        size = 14 if term == "interface" else 5
        ax.scatter(x[inside], y[inside], s=size, color=COLOUR[term], alpha=0.5, linewidths=0, rasterized=True,
                   label=f"{NAME[term]} (at most {np.max(y / x):.1f}x)")  # fmt: skip
    caps = [float(np.min(r["trivial_cap"])) for r in results if "trivial_cap" in r]
    every = np.concatenate(shown)
    ends = np.array([every.min() / 1.5, max(every.max(), max(caps)) * 1.5])
    ax.plot(ends, ends, color="0.3", linewidth=1)
    ax.fill_between(ends, ends[0], ends, color="0.5", alpha=0.12, linewidth=0)
    ax.axhline(min(caps), color="0.3", linewidth=1, linestyle=":")
    beyond = np.concatenate(outside)
    if len(beyond):
        note = f"{len(beyond)} errors below {SMALLEST:g} not drawn, ratios {beyond.min():.2f} to {beyond.max():.2f}"
        ax.annotate(note, (0.5, -0.16), xycoords="axes fraction", ha="center", va="top", fontsize=8, color="0.3")
    ax.annotate("above: says nothing more than the range of rewards", (ends[0], min(caps)), xytext=(4, 3),
                textcoords="offset points", fontsize=8, color="0.3")  # fmt: skip
    ax.annotate(
        "bound violated", (ends[1], ends[0]), xytext=(-6, 8), textcoords="offset points", ha="right", color="0.3"
    )
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="observed error, d-norm", ylabel="certified bound",
           title="D  Observed against bound, every record")  # fmt: skip
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9), markerscale=2)
    return readable(ax)


def value_panel(p: Preset, results: Results, ax: Axes | None = None) -> Axes:
    """E: value in per cent of the oracle against the gap dial."""
    ax = axes(ax)
    for who in Who:
        cells = n10.gap_cells(p, who)
        band(ax, p.gaps, [n10.percent(results[c]) for c in cells], WHO[who], f"{who.value}, learned")
    cells = n10.gap_cells(p)
    for key, label, dashes in (("value_bar", "best for this interface", ":"), ("value_random", "random", "--")):
        exact = [100 * float(results[c][key] / results[c]["value_oracle"]) for c in cells]
        ax.plot(p.gaps, exact, dashes, color="0.35", linewidth=1.2, label=label)
    ax.set(xlabel="gap dial g", ylabel="value, per cent of the oracle", title="E  What the interface costs")
    ax.legend(fontsize=8)
    return ax


def draw_all(p: Preset, results: Results, folder: Path) -> list[Path]:
    """Every panel of the ten-agent experiment; returns the files."""
    panels = {
        "a_interface": lambda: interface_panel(p, results),
        "b_approximation": lambda: width_panel(p, results),
        "c_residual": lambda: _both_residuals(p, results),
        "d_bounds": lambda: bound_panel(results.values()),
        "e_value": lambda: value_panel(p, results),
    }
    return save_panels(panels, folder)


def save_panels(panels: dict[str, Callable[[], Axes]], folder: Path) -> list[Path]:
    """Draw each panel in the project's style, as PNG and SVG (without dates: equal numbers give equal files)."""
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, panel in panels.items():
        with plt.rc_context(STYLE):
            panel()
            figure = plt.gcf()
            for suffix in ("png", "svg"):
                files.append(folder / f"{name}.{suffix}")
                figure.savefig(files[-1], metadata={"Date": None} if suffix == "svg" else None)
            plt.close(figure)
    return files


def _both_residuals(p: Preset, results: Results) -> Axes:
    _, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True)
    residual_panel(p, results, False, left)
    return residual_panel(p, results, True, right)
