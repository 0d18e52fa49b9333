"""The figures.  Every function draws on the `ax` it is given (or a new one) and returns it.

One style: `axes` and `save_panels` apply it, `readable` and `label_ends` finish a panel.  One colour per error term
everywhere, from the colour-blind safe Okabe-Ito set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from scipy.optimize import isotonic_regression

from estimators.statistics.estimate import Estimate
from icq import files
from icq_bounds.sweep.learning import Who

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, RED, GREEN, PINK, AMBER, SKY, BLACK = OKABE_ITO
COLOUR = {"interface": BLUE, "approximation": AMBER, "residual": GREEN, "total": BLACK}
WHO = {Who.ICQ: BLUE, Who.CENTRALISED: RED, Who.INDEPENDENT: PINK}
CHANNEL = {"reward": SKY, "duration": PINK, "transition": RED}
STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "figure.constrained_layout.use": True, "savefig.dpi": 150, "svg.hashsalt": "icq-bounds",
    "axes.titlelocation": "left", "axes.axisbelow": True, "axes.prop_cycle": plt.cycler(color=OKABE_ITO),
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


def save_panels(panels: dict[str, Callable[[], Axes]], folder: Path) -> list[Path]:
    """Draw each panel in the project's style, as PNG and SVG (without dates: equal numbers give equal files)."""
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, panel in panels.items():
        with plt.rc_context(STYLE):
            panel()
            figure = plt.gcf()
            for suffix in ("png", "svg"):
                drawn = BytesIO()
                figure.savefig(drawn, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
                written.append(folder / f"{name}.{suffix}")
                files.write(written[-1], drawn.getvalue())
            plt.close(figure)
    return written
