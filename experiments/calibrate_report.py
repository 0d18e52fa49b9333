"""The page and the figures of a calibration."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from rich.table import Table as TextTable

from experiments.calibrate_rows import BAND, ENOUGH, Calibration, Row
from experiments.plots import STYLE

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FULL = 1000  # data sets that a page needs to be final
LIBRARIES = ("numpy", "scipy", "jax")
INTRODUCTION = """\
Does a 95 % interval hold the truth in 95 % of the cases? For every estimator, on laws whose truth is computed exactly:
the share of intervals that held it, with its own 95 % Clopper-Pearson interval, over the data sets on which the
estimator said that it had enough data (column *numbers*; otherwise it gives a reason instead of a number). Between
{low:.0%} and {high:.0%} is *calibrated*; outside, but within the sampling error of the coverage, *undecided*; fewer
than {enough} numbers are not judged and read *too short*. An interval that is conservative by construction may cover
more and then reads *conservative*. Bias is given with its standard error, *spread* is the standard deviation of the
estimate, *width* the mean length of its interval. The data set of a size is the beginning of that of the next larger.
"""


def at_fault(row: Row) -> bool:
    """Whether a row is a reason to fail."""
    return row.verdict in (Calibration.UNDERCOVERS, Calibration.OVERCOVERS)


def by_quantity(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each quantity, in order of first appearance."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(row.quantity, []).append(row)
    return out


def _overview(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    out = []
    for name, mine in by_quantity(rows).items():
        judged = [row for row in mine if row.verdict is not Calibration.TOO_SHORT]
        count = [sum(row.verdict is verdict for row in mine) for verdict in Calibration]
        least, most = (f"{100 * f(row.coverage for row in judged):.1f}" if judged else "-" for f in (min, max))
        out.append((name, str(len(mine)), least, most, *(str(n) if n else "" for n in count)))
    return out


OVERVIEW = ("estimator", "rows", "least %", "most %", *(verdict.value for verdict in Calibration))


def summary(rows: Sequence[Row]) -> TextTable:
    """One line per estimator, for the terminal."""
    table = TextTable(*OVERVIEW[:4], "verdicts", title="coverage of 95 % intervals")
    for line in _overview(rows):
        said = zip(line[4:], Calibration, strict=True)
        table.add_row(*line[:4], ", ".join(f"{count} {verdict.value}" for count, verdict in said if count))
    bad = "; ".join(f"{r.quantity}, {r.source}, {r.size}: {100 * r.coverage:.1f} %" for r in rows if at_fault(r))
    table.caption = f"outside the band: {bad}" if bad else None
    return table


HEADER = (
    "source", "size", "truth", "numbers", "coverage % (95 %)", "bias ± s.e.", "spread", "rmse", "width", "n_eff",
    "ms", "verdict",
)  # fmt: skip


def _line(row: Row) -> tuple[str, ...]:
    low, high = row.coverage_interval
    covered = f"{100 * row.coverage:.1f} ({100 * low:.1f} to {100 * high:.1f})" if row.numbers else "-"
    bias = f"{row.bias:.2g} ± {row.bias_stderr:.1g}" if row.numbers > 1 else "-"
    return (
        row.source, str(row.size), f"{row.truth:.4g}", f"{row.numbers}/{row.replicates}", covered, bias,
        _short(row.spread), _short(row.rmse), _short(row.width), _short(row.n_eff), f"{1e3 * row.seconds:.3g}",
        row.verdict.value,
    )  # fmt: skip


def _short(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else "-"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def page(rows: Sequence[Row], command: str, replicates: int, seconds: float) -> str:
    """The page in Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    said = f"Written by `{command}`: {replicates} data sets of every size, {seconds / 60:.0f} minutes with Python "
    said += f"{platform.python_version()}, {versions}."
    if any(row.replicates < FULL for row in rows):
        said += (
            f" **Provisional**: fewer than {FULL} data sets leave the coverage uncertain; `make calibrate` draws them."
        )
    parts = [
        "# Calibration of every estimator", said, INTRODUCTION.format(low=BAND[0], high=BAND[1], enough=ENOUGH),
        _markdown(OVERVIEW, _overview(rows)),
        "![Coverage against size](figures/calibration_coverage.png)",
        "![Bias in standard deviations against size](figures/calibration_bias.png)",
        "![Root mean square error against size](figures/calibration_rmse.png)",
    ]  # fmt: skip
    for name, mine in by_quantity(rows).items():
        parts += [f"## {name}", _markdown(HEADER, [_line(row) for row in mine])]
    return "\n\n".join(parts) + "\n"


def panels(rows: Sequence[Row], draw: Callable[[Axes, list[Row], str, str], None], width: int = 4) -> plt.Figure:
    """One panel per quantity, one line per source; colours and markers are the same in every panel."""
    quantities = by_quantity(rows)
    names = list(dict.fromkeys(row.source for row in rows))
    look = {name: (COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]) for k, name in enumerate(names)}
    width = min(width, len(quantities))
    height = -(-len(quantities) // width)
    figure, grid = plt.subplots(height, width, figsize=(3.1 * width, 2.4 * height + 0.6), squeeze=False)
    for ax, (quantity, mine) in zip(grid.flat, quantities.items(), strict=False):
        for source, group in groupby(mine, key=lambda row: row.source):
            draw(ax, list(group), *look[source])
        ax.set_title(quantity, fontsize=9)
        ax.set(xscale="log", xlim=(0.8 * min(row.size for row in mine), 1.25 * max(row.size for row in mine)))
    for ax in grid.flat[len(quantities) :]:
        ax.set_visible(False)
    for ax in grid[:, 0]:
        ax.set_ylabel(getattr(draw, "__doc__", "") or "")
    handles = [
        matplotlib.lines.Line2D([], [], color=c, marker=m, markersize=4, label=name) for name, (c, m) in look.items()
    ]
    figure.supxlabel("size of the data set", fontsize=9)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), fontsize=8)
    return figure


def coverage(ax: Axes, rows: list[Row], colour: str, marker: str) -> None:
    """coverage, %"""
    ax.axhspan(100 * BAND[0], 100 * BAND[1], color="0.85", zorder=0)
    ax.axhline(95, color="0.6", linewidth=0.8, zorder=1)
    judged = [row for row in rows if row.verdict is not Calibration.TOO_SHORT]
    size, share = [row.size for row in judged], [100 * row.coverage for row in judged]
    ends = 100 * np.array([row.coverage_interval for row in judged]).reshape(-1, 2).T
    ax.errorbar(size, share, np.abs(ends - share), color=colour, marker=marker, markersize=3.5, linewidth=1)
    ax.set_ylim(min(ax.get_ylim()[0], 90), 100.5)


def bias(ax: Axes, rows: list[Row], colour: str, marker: str) -> None:
    """bias / spread"""
    ax.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    judged = [row for row in rows if row.verdict is not Calibration.TOO_SHORT and row.spread > 0]
    relative = [row.bias / row.spread for row in judged]
    error = [1.96 / math.sqrt(row.numbers) for row in judged]
    ax.errorbar([row.size for row in judged], relative, error, color=colour, marker=marker, markersize=3.5, linewidth=1)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -0.5), max(high, 0.5))


def rmse(ax: Axes, rows: list[Row], colour: str, marker: str) -> None:
    """root mean square error"""
    judged = [row for row in rows if row.verdict is not Calibration.TOO_SHORT and row.rmse > 0]
    if judged:
        ax.set_yscale("log")
    ax.plot([row.size for row in judged], [row.rmse for row in judged], color=colour, marker=marker, markersize=3.5,
            linewidth=1)  # fmt: skip


FIGURES = (coverage, bias, rmse)


def write(rows: Sequence[Row], folder: Path, command: str, replicates: int, seconds: float) -> None:
    """The page and its figures in a folder."""
    matplotlib.use("Agg")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "calibration.md").write_text(page(rows, command, replicates, seconds), encoding="utf-8")
    for draw in FIGURES:
        with plt.rc_context(STYLE):
            figure = panels(rows, draw)
            figure.savefig(folder / "figures" / f"calibration_{draw.__name__}.png")
            plt.close(figure)
