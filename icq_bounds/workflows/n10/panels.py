"""The panels of the ten-agent experiment; each draws on the `ax` given (or a new one) and returns it.

Solid: observed, root mean square over runs with its 95 % band.  Dashed: the bound, known before the runs.  Dotted: a
certificate, computed after them.  Dash-dotted: where the theory says that the observed line should lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bounds.core.bound import Verdict
from estimators.decomposition import NAME, TERMS
from estimators.statistics.estimate import Estimate
from icq_bounds.figures.bound import evidence_panel
from icq_bounds.figures.style import COLOUR, WHO, axes, band, label_ends, readable, save_panels
from icq_bounds.figures.sweep import ZERO, root_mean_square
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.results import lost
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.n10 import experiment
from icq_bounds.workflows.n10.experiment import N10Preset, N10Results

LAST, AVERAGE = 0, 1
HIGH = 1e3  # published kinds of bounds above it are named, not drawn


def _seen(result: Arrays, term: str, output: int, k: int = -1) -> Estimate:
    return root_mean_square(result[f"observed_{term}"][output][:, k])


def _stated(result: Arrays, term: str, output: int, k: int = -1) -> float:
    """A bound, NaN where it is vacuous: what says nothing is not drawn."""
    empty = result[f"bound_verdict_{term}"][output][k] == Verdict.VACUOUS.value
    return np.nan if empty else float(result[f"bound_{term}"][output][k])


def _certified(result: Arrays, term: str, output: int) -> float:
    return float(np.sqrt((result[f"certificate_{term}"][output][:, -1] ** 2).mean()))


DASHES = {"observed": "solid", "bound": "dashed", "certificate": "dotted", "predicted": "dash-dotted"}


def _key(ax: Axes, *styles: str) -> None:
    """What dashes mean, under the label of the axis."""
    ax.set_xlabel(f"{ax.get_xlabel()}\n({', '.join(f'{DASHES[s]}: {s}' for s in styles)})")


def interface_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """A: every term of a table against the gap dial."""
    ax, found = axes(ax, 6.4, 4.4), [results[c] for c in experiment.gap_cells(p)]
    for term in TERMS:
        if term == "approximation":
            continue  # a table has none
        band(ax, p.gaps, [_seen(r, term, AVERAGE) for r in found], COLOUR[term], NAME[term])
        ax.plot(p.gaps, [_stated(r, term, AVERAGE) for r in found], "--", color=COLOUR[term])
    ax.set(xlabel="gap dial g", ylabel="error in the d-norm", ylim=(0, None),
           title=f"A  Only the interface gap moves with its dial\n(table, {p.gap_handoffs:,} handoffs)")  # fmt: skip
    _key(ax, "observed", "bound")
    return label_ends(ax)


def rank_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """B: every term of linear classes against their rank."""
    return _classes(p.ranks, [results[c] for c in experiment.rank_cells(p)], "features of every agent", "bound", ax)


def width_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """B: every term of networks against their width; nothing bounds them in advance."""
    found = [results[c] for c in experiment.width_cells(p)]
    return _classes(p.widths, found, "width of every agent's network", "certificate", ax)


def _classes(x: Sequence[int], found: Sequence[Arrays], xlabel: str, kind: str, ax: Axes | None) -> Axes:
    ax = axes(ax)
    for term in TERMS[:3]:
        seen = [_seen(r, term, AVERAGE) for r in found]
        shown = np.array([e.value > ZERO for e in seen])
        some = np.asarray(x)[shown]
        band(ax, some.tolist(), [e for e, keep in zip(seen, shown, strict=True) if keep], COLOUR[term], NAME[term])
        each = (_stated(r, term, AVERAGE) if kind == "bound" else _certified(r, term, AVERAGE) for r in found)
        stated = np.array(list(each))
        ax.plot(some, stated[shown], "--" if kind == "bound" else ":", color=COLOUR[term])
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="error in the d-norm")
    ax.set_xticks(x, [str(w) for w in x])
    _key(ax, "observed", kind)
    return label_ends(readable(ax))


def residual_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """C: the residual of a table's last iterate against handoffs, one colour per mixing dial, with published kinds of
    bounds on the first of them.
    """  # fmt: skip
    ax = axes(ax, 6.4, 4.6)
    cells = experiment.residual_cells(p)
    for cell, colour in zip(cells, _colours(len(cells)), strict=True):
        r, grid = results[cell], cell.checkpoints
        seen = [_seen(r, "residual", LAST, k) for k in range(len(grid))]
        band(ax, grid, seen, colour, f"mixing {experiment.dials(cell).mixing:g}")
        ax.plot(grid, [_stated(r, "residual", LAST, k) for k in range(len(grid))], "--", color=colour)
        ax.plot(grid, r["predicted"], "-.", color="0.2", linewidth=0.9)
    cap = float(results[cells[0]]["trivial_residual"])
    ax.axhline(cap, color="0.6", linewidth=1, linestyle=":", label="range of rewards alone")
    found = results[experiment.literature_cell(p)]
    for name, label, dashes in (("average", "textbook, average", "-"), ("last", "sup norm, last iterate", "--")):
        value = np.where(found[name] < HIGH, found[name], np.nan)
        beyond = "" if np.isfinite(value).any() else f" (above {np.nanmin(found[name]):.0e})"
        ax.plot(found["times"], value, dashes, color="0.6", linewidth=1.2, label=label + beyond)
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="residual in the d-norm",
           title="C  A table's residual falls under its bound")  # fmt: skip
    ax.legend(fontsize=8, loc="lower left")
    _key(ax, "observed", "bound", "predicted")
    return readable(ax)


def mixing_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """C: the residual at fixed handoffs against the relaxation time: of misspecified features it grows, drawn afresh it
    does not, and of a table it does not, because the cluster only renames what a table tells apart.
    """  # fmt: skip
    ax = axes(ax, 6.4, 4.6)
    lines = [
        ("features, trajectory", COLOUR["residual"], experiment.mixing_cells(p)),
        ("features, i.i.d.", COLOUR["approximation"], experiment.mixing_cells(p, iid=True)),
        ("table, trajectory", COLOUR["interface"], experiment.residual_cells(p)),
    ]
    for label, colour, cells in lines:
        at = [cell.checkpoints.index(p.feature_handoffs) for cell in cells]
        found = [(results[cell], k) for cell, k in zip(cells, at, strict=True)]
        x = [experiment.relaxation_time(r) for r, _ in found]
        band(ax, x, [_seen(r, "residual", LAST, k) for r, k in found], colour, label)
        ax.plot(x, [_stated(r, "residual", LAST, k) for r, k in found], "--", color=colour)
        ax.plot(x, [r["predicted"][k] for r, k in found], "-.", color="0.2", linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel="relaxation time of the handoff chain, handoffs",
           ylabel="residual in the d-norm",
           title=f"C  What mixing costs after {p.feature_handoffs:,} handoffs")  # fmt: skip
    ax.legend(fontsize=8, loc="upper left")
    _key(ax, "observed", "bound", "predicted")
    return readable(ax)


def network_panel(p: N10Preset, results: N10Results, mixing: float, ax: Axes | None = None) -> Axes:
    """F: the residual of networks with plain steps against handoffs, one colour per width."""
    ax = axes(ax, 6.4, 4.6)
    cells = experiment.plain_cells(p, mixing)
    for (width, scale), cell, colour in zip(p.plain, cells, _colours(len(cells)), strict=True):
        r, grid = results[cell], cell.checkpoints
        label = f"width {width}" + (f", output scale {scale:g}" if scale != 1 else "")
        band(ax, grid, [_seen(r, "residual", LAST, k) for k in range(len(grid))], colour, label)
        ax.plot(grid, [_stated(r, "residual", LAST, k) for k in range(len(grid))], "--", color=colour)
        ax.plot(grid, r["predicted"], "-.", color="0.2", linewidth=0.9)
    ax.axhline(float(results[cells[0]]["trivial_residual"]), color="0.6", linewidth=1, linestyle=":",
               label="range of rewards alone")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="residual in the d-norm",
           title=f"F  Networks under the bound known before\n(mixing {mixing:g}, {p.plain_seeds} runs)")  # fmt: skip
    ax.legend(fontsize=8, loc="lower left")
    _key(ax, "observed", "bound", "predicted")
    return readable(ax)


def loss_panel(p: N10Preset, results: N10Results, ax: Axes | None = None) -> Axes:
    """E: what is lost against the oracle, in reward, between the oracle (0) and the random policy."""
    ax = axes(ax, 6.4, 4.4)
    for who in p.learners:
        found = [results[c] for c in experiment.value_cells(p, who)]
        band(ax, p.value_gaps, [loss(r) for r in found], WHO[who], f"{who.value}, learned")
    found = [results[c] for c in experiment.value_cells(p, Who.ICQ)]
    for key, label, dashes in (("value_bar", "best for this interface", ":"), ("value_random", "random", "--")):
        exact = [float(r["value_oracle"] - r[key]) for r in found]
        ax.plot(p.value_gaps, exact, dashes, color="0.35", linewidth=1.2, label=label)
    ax.axhline(0, color="0.6", linewidth=1)
    ax.set(xlabel="gap dial g", ylabel="value lost against the oracle, reward", title="E  What the interface costs")
    ax.legend(fontsize=8)
    return ax


def loss(result: Arrays) -> Estimate:
    """Value lost against the oracle, in reward."""
    return lost(result["value"], float(result["value_oracle"]))


def _colours(count: int) -> list[str]:
    points: Float[np.ndarray, "n 4"] = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, count))
    return [matplotlib.colors.to_hex(c) for c in points]


def draw_all(p: N10Preset, results: N10Results, folder: Path) -> list[Path]:
    """Every panel of the ten-agent experiment; returns the files."""
    found = experiment.learned(results).values()
    panels = {
        "a_interface": lambda: interface_panel(p, results),
        "b_approximation": lambda: _both_classes(p, results),
        "c_residual": lambda: residual_panel(p, results),
        "c_mixing": lambda: mixing_panel(p, results),
        "d_bounds": lambda: evidence_panel(found, "bound"),
        "d_certificates": lambda: evidence_panel(found, "certificate"),
        "e_loss": lambda: loss_panel(p, results),
    }
    if p.plain:
        panels["f_networks"] = lambda: _every_mixing(p, results)
    return save_panels(panels, folder)


def _every_mixing(p: N10Preset, results: N10Results) -> Axes:
    count = len(p.plain_mixings)
    _, parts = plt.subplots(1, count, figsize=(5.75 * count, 4.6), squeeze=False, sharey=True)
    return [network_panel(p, results, eta, ax) for eta, ax in zip(p.plain_mixings, parts[0], strict=True)][-1]


def _both_classes(p: N10Preset, results: N10Results) -> Axes:
    _, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.4))
    rank_panel(p, results, left).set_title("B  Approximation falls with the rank of a linear class")
    right = width_panel(p, results, right)
    right.set_title("B  and with the width of a network")
    return right
