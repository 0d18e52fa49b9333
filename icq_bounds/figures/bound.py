"""Observed against stated: the panels that every experiment and sweep has."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bounds.core.bound import Verdict
from estimators.decomposition import NAME
from icq_bounds.figures.style import COLOUR, axes, readable
from icq_bounds.sweep.results import Stated, statements
from icq_bounds.sweep.store import Arrays

SMALLEST = 1e-4  # errors below are counted, not drawn: they would squeeze everything else into a corner
WORDS: dict[Stated, tuple[str, str, str]] = {
    "bound": ("root mean square error over runs, d-norm", "bound, known before the run", "bound violated"),
    "certificate": ("error of one run, d-norm", "certificate, computed after the run", "certificate violated"),
}


def evidence_panel(results: Collection[Arrays], kind: Stated, ax: Axes | None = None) -> Axes:
    """Every statement of a kind against what was observed; nothing may lie below the diagonal.  Hollow: vacuous."""
    ax, words = axes(ax, 5.6, 5.0), WORDS[kind]
    xs, ys, outside = [], [], []
    for term in ("residual", "total", "approximation", "interface"):
        found = statements(results, kind, term)
        keep = found.comparable
        if not keep.any():
            continue
        x, y, empty = found.observed[keep], found.value[keep], found.verdict[keep] == Verdict.VACUOUS.value
        inside = (x >= SMALLEST) | (y < x)  # a violation is drawn however small
        outside.append((y / x)[~inside])
        xs.append(x[inside])
        ys.append(y[inside])
        size = 14 if term == "interface" or kind == "bound" else 5
        label = f"{NAME[term]} ({_ratio(y / x)})"
        style: Any = {"edgecolors": COLOUR[term], "s": size, "alpha": 0.6, "linewidths": 0.6, "rasterized": True}
        ax.scatter(x[inside & ~empty], y[inside & ~empty], facecolors=COLOUR[term], label=label, **style)
        ax.scatter(x[inside & empty], y[inside & empty], facecolors="none", **style)
    if not xs:
        ax.set_title(f"No {kind} applies to any record")
        return ax
    x, y = np.concatenate(xs), np.concatenate(ys)
    ends = np.array([min(x.min(), y.min()) / 1.5, max(x.max(), y.max()) * 2.5])
    ax.plot(ends, ends, color="0.3", linewidth=1)
    ax.fill_between(ends, ends[0], ends, color="0.5", alpha=0.12, linewidth=0)
    if np.isfinite(cap := min((float(r["trivial_total"]) for r in results if "trivial_total" in r), default=np.inf)):
        ax.axhline(cap, color="0.3", linewidth=1, linestyle=":", label="range of rewards alone, total")
    beyond = np.concatenate(outside)
    if len(beyond):
        note = f"{len(beyond)} errors below {SMALLEST:g} not drawn, ratios {beyond.min():.2f} to {beyond.max():.2f}"
        ax.annotate(note, (0.5, -0.16), xycoords="axes fraction", ha="center", va="top", fontsize=8, color="0.3")
    ax.annotate(words[2], (ends[1], ends[0]), xytext=(-6, 8), textcoords="offset points", ha="right", color="0.3")
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel=words[0], ylabel=words[1],
           title=f"Observed against {kind}")  # fmt: skip
    ax.legend(loc="upper left", markerscale=1.5, fontsize=8, title=f"{kind} over observed, median", title_fontsize=8,
              alignment="left", frameon=True, framealpha=0.9, edgecolor="none")  # fmt: skip
    return readable(ax)


def _ratio(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.2f}, at most {ratios.max():.3g}"
