"""The panels of the ten-agent experiment; each draws on the `ax` given (or a new one) and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from estimators.decomposition import NAME, TERMS
from estimators.statistics.estimate import Estimate, root_mean_square
from icq_bounds.figures.bound import bound_panel
from icq_bounds.figures.style import COLOUR, WHO, axes, band, label_ends, readable, save_panels
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import Table
from icq_bounds.sweep.results import percent
from icq_bounds.workflows.n10 import experiment
from icq_bounds.workflows.n10.experiment import N10Preset, N10Results


def _last(cells: Sequence[Cell], results: N10Results, term: str) -> list[Estimate]:
    return [root_mean_square(results[c][f"e_{term}"][:, -1]) for c in cells]


def interface_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """A: the three terms against the gap dial."""
    ax, cells = axes(ax), experiment.gap_cells(p)
    for term in TERMS:
        band(ax, p.gaps, _last(cells, results, term), COLOUR[term], NAME[term])
    ax.set(xlabel="gap dial g", ylabel="error in the d-norm", title="A  Only the interface gap moves with its dial")
    ax.set_ylim(bottom=0)
    return label_ends(ax)


def width_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """B: the three terms against network width."""
    ax, cells = axes(ax), experiment.width_cells(p)
    for term in TERMS[:3]:
        band(ax, p.widths, _last(cells, results, term), COLOUR[term], NAME[term])
    ax.set(xscale="log", yscale="log", xlabel="width of every agent's network", ylabel="error in the d-norm",
           title="B  Approximation falls with width, the interface stays")  # fmt: skip
    ax.set_xticks(p.widths, [str(w) for w in p.widths])
    return label_ends(readable(ax))


def residual_panel(p: N10Preset, results: N10Results, misspecified: bool, ax: Axes | None = None) -> Axes:
    """C: the residual against handoffs; trajectory solid, i.i.d. control dashed, one colour per mixing dial."""
    ax = axes(ax)
    colours = dict(zip(p.mixings, plt.get_cmap("viridis")(np.linspace(0.0, 0.8, len(p.mixings))), strict=True))
    for cell in experiment.residual_cells(p):
        if isinstance(cell.method, Table) == misspecified:
            continue
        e = [root_mean_square(results[cell]["e_residual"][:, k]) for k in range(len(cell.checkpoints))]
        eta = experiment.dials(cell).mixing
        label = f"mixing {eta:g}, {'i.i.d.' if cell.iid else 'trajectory'}"
        band(ax, cell.checkpoints, e, matplotlib.colors.to_hex(colours[eta]), label, "--" if cell.iid else "-")
        asymptote = np.sqrt(float(results[cell]["asymptote"]) / np.array(cell.checkpoints[len(e) // 2 :]))
        ax.plot(cell.checkpoints[len(e) // 2 :], asymptote, ":", color="0.2", linewidth=1.2,
                label="sharp asymptote" if cell.iid and eta == p.mixings[-1] else None)  # fmt: skip
    title = "Misspecified features: mixing sets the level" if misspecified else "Table: mixing costs a transient"
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="residual in the d-norm", title=f"C  {title}")
    ax.legend(fontsize=8)
    return readable(ax)


def value_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """E: value in per cent of the oracle against the gap dial."""
    ax = axes(ax)
    for who in Who:
        cells = experiment.gap_cells(p, who)
        band(ax, p.gaps, [percent(results[c]) for c in cells], WHO[who], f"{who.value}, learned")
    cells = experiment.gap_cells(p)
    for key, label, dashes in (("value_bar", "best for this interface", ":"), ("value_random", "random", "--")):
        exact = [100 * float(results[c][key] / results[c]["value_oracle"]) for c in cells]
        ax.plot(p.gaps, exact, dashes, color="0.35", linewidth=1.2, label=label)
    ax.set(xlabel="gap dial g", ylabel="value, per cent of the oracle", title="E  What the interface costs")
    ax.legend(fontsize=8)
    return ax


def draw_all(p: N10Preset, results: N10Results, folder: Path) -> list[Path]:
    """Every panel of the ten-agent experiment; returns the files."""
    panels = {
        "a_interface": lambda: interface_panel(p, results),
        "b_approximation": lambda: width_panel(p, results),
        "c_residual": lambda: _both_residuals(p, results),
        "d_bounds": lambda: bound_panel(results.values()),
        "e_value": lambda: value_panel(p, results),
    }
    return save_panels(panels, folder)


def _both_residuals(p: N10Preset, results: N10Results) -> Axes:
    _, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True)
    residual_panel(p, results, False, left)
    return residual_panel(p, results, True, right)
