"""Observed against bound: the panel that every experiment and sweep has."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from matplotlib.axes import Axes

from estimators.decomposition import NAME
from icq_bounds.figures.style import COLOUR, axes, readable
from icq_bounds.sweep.results import pairs
from icq_bounds.sweep.store import Arrays

SMALLEST = 1e-4  # errors below are counted, not drawn: they would squeeze everything else into a corner


def bound_panel(results: Collection[Arrays], ax: Axes | None = None) -> Axes:
    """D: every record's bound against what was observed; nothing may lie below the diagonal."""
    ax = axes(ax, 5.6, 5.0)
    shown, outside = [], []
    for term in ("residual", "total", "approximation", "interface"):
        x, y = (np.concatenate(part) for part in zip(*(pairs(r, term) for r in results), strict=True))
        if not x.size:
            continue
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
