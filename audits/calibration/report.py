"""The page and the figures of a calibration."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from rich.table import Table as TextTable

from audits.calibration.rows import BAND, ENOUGH, Calibration, Row
from icq_bounds.figures.style import OKABE_ITO, STYLE, readable

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FULL = 1000  # data sets that a page needs to be final
LIBRARIES = ("numpy", "scipy", "jax")
INTRODUCTION = """\
Does a 95 % interval hold the truth in 95 % of the cases? For every estimator, on laws whose truth is computed exactly:
the share of intervals that held it, with its own 95 % Clopper-Pearson interval, over the data sets on which the
estimator said that it had enough data (column *numbers*; otherwise it gives a reason instead of a number). Between
{low:.0%} and {high:.0%} is *calibrated*; outside, but within the sampling error of the coverage, *undecided*; fewer
than {enough} numbers, or than one in ten, are not judged and read *too short*. An interval that is conservative by
construction may cover more and then reads *conservative*. Bias is given with its standard error, *spread* is the
standard deviation of the estimate, *width* the mean length of its interval. The data set of a size is the beginning of
that of the next larger one.

The rules that say what is enough, and the form of some intervals, were settled while these workflows were looked at, so
the page shows that there are logs on which intervals hold what they promise, and where they do not; it is no test on
workflows never seen.
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


def page(rows: Sequence[Row], command: str, replicates: int) -> str:
    """The page in Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    said = f"Written by `{command}`: {replicates} data sets of every size with Python "
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


@dataclass(frozen=True)
class Figure:
    """What is drawn against the size: value and half-widths of its error bar per row, and the least range shown."""

    name: str
    label: str
    height: Callable[[Row], float]
    bar: Callable[[Row], tuple[float, float]]
    shown: tuple[float, float] | None
    reference: float | None = None
    band: tuple[float, float] | None = None


def _coverage_bar(row: Row) -> tuple[float, float]:
    low, high = row.coverage_interval
    return 100 * (row.coverage - low), 100 * (high - row.coverage)


def _relative_bias(row: Row) -> float:
    return row.bias / row.spread if row.spread > 0 else math.nan


def _bias_bar(row: Row) -> tuple[float, float]:
    half = 1.96 / math.sqrt(row.numbers)
    return half, half


FIGURES = (
    Figure("coverage", "coverage, %", lambda row: 100 * row.coverage, _coverage_bar, (90.0, 100.5), 95.0,
           (100 * BAND[0], 100 * BAND[1])),
    Figure("bias", "bias / spread", _relative_bias, _bias_bar, (-0.5, 0.5), 0.0),
    Figure("rmse", "root mean square error", lambda row: row.rmse or math.nan, lambda row: (0.0, 0.0), None),
)  # fmt: skip


def panels(rows: Sequence[Row], figure: Figure, width: int = 4) -> plt.Figure:
    """One panel per quantity, one line per source; colours and markers are the same in every panel."""
    quantities = by_quantity(rows)
    names = list(dict.fromkeys(row.source for row in rows))
    width = min(width, len(quantities))
    height = -(-len(quantities) // width)
    sheet, grid = plt.subplots(height, width, figsize=(3.1 * width, 2.4 * height + 0.6), squeeze=False)
    for ax, (quantity, mine) in zip(grid.flat, quantities.items(), strict=False):
        _panel(ax, mine, figure, names)
        ax.set_title(quantity, fontsize=9)
    for ax in grid.flat[len(quantities) :]:
        ax.set_visible(False)
    for ax in grid[:, 0]:
        ax.set_ylabel(figure.label)
    handles = [
        Line2D([], [], color=OKABE_ITO[k % len(OKABE_ITO)], marker=MARKERS[k % len(MARKERS)], markersize=4, label=name)
        for k, name in enumerate(names)
    ]
    sheet.supxlabel("size of the data set", fontsize=9)
    sheet.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), fontsize=8)
    return sheet


def _panel(ax: Axes, rows: list[Row], figure: Figure, names: list[str]) -> None:
    """One quantity; points of different sources are set apart a little."""
    if figure.band is not None:
        ax.axhspan(*figure.band, color="0.87", zorder=0)
    if figure.reference is not None:
        ax.axhline(figure.reference, color="0.6", linewidth=0.8, zorder=1)
    drawn = 0
    for source, group in groupby(rows, key=lambda row: row.source):
        judged = [row for row in group if row.verdict is not Calibration.TOO_SHORT]
        k = names.index(source)
        hue = OKABE_ITO[k % len(OKABE_ITO)]
        size = [row.size * 1.05 ** (k - len(names) / 2) for row in judged]
        bars = np.array([figure.bar(row) for row in judged]).reshape(-1, 2).T
        ax.errorbar(size, [figure.height(row) for row in judged], bars, color=hue, linewidth=1,
                    marker=MARKERS[k % len(MARKERS)], markersize=3.5, elinewidth=0.7)  # fmt: skip
        drawn += len(judged)
    sizes = sorted({row.size for row in rows})
    ax.set(xscale="log", xlim=(0.75 * sizes[0], 1.35 * sizes[-1]))
    ax.set_xticks(sizes, [f"{n // 1000}k" if n >= 1000 else str(n) for n in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    if figure.shown is None:
        ax.set_yscale("log" if drawn else "linear")
        readable(ax)
    else:
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, figure.shown[0]), max(high, figure.shown[1]))


def write(rows: Sequence[Row], folder: Path, command: str, replicates: int) -> None:
    """The page and its figures in a folder."""
    matplotlib.use("Agg")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "calibration.md").write_text(page(rows, command, replicates), encoding="utf-8")
    for figure in FIGURES:
        with plt.rc_context(STYLE):
            sheet = panels(rows, figure)
            sheet.savefig(folder / "figures" / f"calibration_{figure.name}.png", dpi=90)
            plt.close(sheet)
