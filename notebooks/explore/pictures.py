"""The figures of the notebooks, one idea each.  Every function draws on the `ax` given (or a new one) and returns it.

Colours and style are those of `icq_bounds.figures.style`; lines carry their names themselves where there is room.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bounds.core.term import Rung
from bounds.interface.gap import gap_value_bound_d, scalar_gap_bound_d
from bounds.interface.information import Mismatch
from bounds.ladder import signed_gap_bound_d
from estimators.decomposition import NAME, TERMS, Decomposition
from estimators.statistics.estimate import Estimate, root_mean_square
from icq.exact import Analysis
from icq_bounds.figures.style import BLACK, BLUE, CHANNEL, COLOUR, SKY, STYLE, axes, band, label_ends, readable

PARTS = {"reward": CHANNEL["reward"], "mass": CHANNEL["duration"], "shape": CHANNEL["transition"]}
FAINT = "0.45"
Bounds: TypeAlias = Mapping[str, Sequence[float]]  # by term, at every checkpoint
Certificates: TypeAlias = Mapping[str, Float[np.ndarray, "R K"]]  # by term, of every run at every checkpoint


def use_style() -> None:
    """The project's style for all figures that follow; in a notebook as drawings that stay sharp when enlarged."""
    plt.rcParams.update(STYLE)
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def terms_over_time(
    handoffs: Sequence[int],
    errors: Decomposition,
    bounds: Bounds,
    certificates: Certificates,
    ax: Axes | None = None,
) -> Axes:
    """The three errors and their total against handoffs; in the same colour bounds dashed and certificates dotted.

    errors: batch axes [runs, checkpoints], drawn as root mean squares with 95 % intervals; so are certificates, without.
    """
    ax = axes(ax, 7.2, 4.4)
    shape = errors.total.shape
    for term in TERMS:
        runs = np.broadcast_to(getattr(errors, term), shape)
        found = [root_mean_square(runs[:, k]) for k in range(shape[1])]
        band(ax, handoffs, found, COLOUR[term], NAME[term])
        if term in bounds:
            ax.plot(handoffs, bounds[term], "--", color=COLOUR[term], linewidth=1.4)
        if term in certificates:
            ax.plot(handoffs, np.sqrt((certificates[term] ** 2).mean(axis=0)), ":", color=COLOUR[term], linewidth=1.4)
    ax.set(xscale="log", yscale="log", xlabel="handoffs learned from", ylabel="error in the d-norm",
           xlim=(handoffs[0], handoffs[-1]))  # fmt: skip
    return label_ends(readable(ax))


def gap_against_dial(dial: Sequence[float], analyses: Sequence[Analysis], ax: Axes | None = None) -> Axes:
    """The interface gap, the local gap behind it and three bounds at every position of a dial."""
    ax = axes(ax, 7.2, 4.2)
    lines = [
        ("scalar bound", [scalar_gap_bound_d(a).value for a in analyses], "0.5", "--"),
        ("gap value", [gap_value_bound_d(a).value for a in analyses], SKY, "--"),
        ("signed gap value", [signed_gap_bound_d(a).value for a in analyses], BLUE, "--"),
        ("interface gap", [a.norm_d_state(a.gap) for a in analyses], BLUE, "-"),
        ("local gap", [a.norm_d_state(a.local_gap) for a in analyses], BLACK, "-"),
    ]
    for name, y, colour, dashes in lines:
        ax.plot(dial, y, dashes, color=colour, linewidth=1.8, label=name)
    ax.set(xlabel="gap dial", ylabel="d-norm, reward units", xlim=(dial[0], dial[-1]))
    ax.set_ylim(bottom=0.0)
    return label_ends(ax)


def ladder(rungs: Sequence[Rung], ax: Axes | None = None, limit: float | None = None) -> Axes:
    """How far every bound lies above the exact value, which comes first; on the right how many times it is.

    A rung without a number says which assumption fails; one that says no more than the range of rewards is grey.
    limit: right end of the axis, for ladders that are to be compared.
    """
    ax = axes(ax, 7.2, 0.32 * len(rungs) + 0.9)
    exact = next(rung.bound.value for rung in rungs if rung.exact)
    ax.axvline(exact, color=COLOUR["interface"], linewidth=1)
    for i, rung in enumerate(rungs):
        bound, said = rung.bound, f"{rung.bound.value:.3g}"
        if bound.applicable:
            colour = "0.65" if bound.value >= bound.trivial else COLOUR["interface"]
            ax.plot([exact, bound.value], [i, i], color=colour, linewidth=2, alpha=0.6)
            ax.plot(bound.value, i, "o", color=colour, markersize=6)
            said += f", {bound.value / exact:.2f} times" if exact > 0 and not rung.exact else ""
        else:
            said = f"needs {bound.failures[0].name}"
        ax.text(1.02, i, said, va="center", fontsize=8, transform=ax.get_yaxis_transform(), color=FAINT)
    ax.set_yticks(range(len(rungs)), [rung.bound.name for rung in rungs])
    ax.set(xlabel="bound, reward units", ylim=(len(rungs) - 0.5, -0.5), xlim=(0.0, limit))
    ax.grid(False)
    return ax


def attribution_map(attribution: Float[np.ndarray, "N N"], ax: Axes | None = None) -> Axes:
    """Whose bound (rows) is caused by whose interface (columns); the numbers on the right are row sums."""
    ax = axes(ax, 5.4, 4.4)
    agents = range(len(attribution))
    image = ax.imshow(attribution, cmap="Blues", vmin=0.0)
    ax.figure.colorbar(image, ax=ax, label="share of the bound, reward units", shrink=0.85, pad=0.14)
    for i, total in enumerate(attribution.sum(axis=1)):
        ax.text(len(attribution) - 0.3, i, f"{total:.2f}", va="center", fontsize=8, color=FAINT)
    ax.set(xticks=agents, yticks=agents, xlabel="caused by the interface of agent", ylabel="error of agent")
    ax.grid(False)
    return ax


def mismatch_bars(mismatches: Sequence[Mismatch], worst: float, ax: Axes | None = None) -> Axes:
    """Reward, how long and where, at the pair (s, a) where each split is largest; `worst` is max |b| itself."""
    ax = axes(ax, 7.2, 0.45 * len(mismatches) + 1.2)
    for i, split in enumerate(mismatches):
        if not all(a.holds for a in split.assumptions):
            ax.text(0.01, i, str(split.assumptions[0]), va="center", fontsize=8, transform=ax.get_yaxis_transform())
            continue
        at, left = np.unravel_index(int(split.total.argmax()), split.total.shape), 0.0
        for name, colour in PARTS.items():
            size = float(getattr(split, name)[at])
            ax.barh(i, size, left=left, color=colour, label=name if i == 0 else None)
            left += size
        ax.annotate(f"{left:.3g}", (left, i), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.axvline(worst, color="black", linewidth=1)
    ax.set_yticks(range(len(mismatches)), [split.name for split in mismatches])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set_xlabel("upper bound of the local gap at its worst pair, reward units")
    ax.legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
    return ax


def against_truth(
    q: Float[np.ndarray, "O A"], truth: Float[np.ndarray, "O A"], mass: Float[np.ndarray, "O A"], ax: Axes | None = None
) -> Axes:
    """Every visited value of a table against the true one; four sizes of points, larger for those visited more."""
    ax = axes(ax, 4.4, 4.0)
    x, y, size = truth[mass > 0], q[mass > 0], mass[mass > 0]
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
    ends += np.array([-0.05, 0.05]) * np.ptp(ends)
    ax.plot(ends, ends, color="0.6", linewidth=1)
    quarter = np.ceil(4 * size / size.max())
    for k in np.unique(quarter):
        some = quarter == k
        ax.plot(x[some], y[some], "o", color=COLOUR["approximation"], alpha=0.6, markeredgewidth=0, markersize=2.4 * np.sqrt(k))
    ax.set(xlabel="interface value", ylabel="value in the class")
    return ax


Series: TypeAlias = Mapping[str, tuple[Sequence[Estimate], str]]  # name: estimates, dashes


def against_width(widths: Sequence[int], series: Series, ax: Axes | None = None) -> Axes:
    """Named series of class errors and bounds against width, with their intervals."""
    ax = _named(axes(ax, 7.2, 4.0), widths, series)
    ax.set(xlabel="width of every agent's network", ylabel="error in the d-norm", xlim=(widths[0], widths[-1]))
    ax.set_xticks(widths)
    ax.set_ylim(bottom=0.0)
    ax.legend()
    return ax


def certificates(handoffs: Sequence[int], series: Series, ax: Axes | None = None) -> Axes:
    """The distance of learned tables from the interface values, and certificates of it, against handoffs."""
    ax = _named(axes(ax, 7.2, 4.0), handoffs, series)
    ax.set(xscale="log", yscale="log", xlabel="handoffs learned from", ylabel="distance in the d-norm",
           xlim=(handoffs[0], handoffs[-1]))  # fmt: skip
    return label_ends(readable(ax))


def _named(ax: Axes, x: Sequence[int], series: Series) -> Axes:
    for name, (found, dashes) in series.items():
        band(ax, x, found, COLOUR["approximation"], name, dashes)
    return ax


def promised_and_found(
    promised: Float[np.ndarray, "N"], found: Sequence[float], agent: int, ax: Axes | None = None
) -> Axes:
    """By how much each interface could lower the bound of `agent`, and by how much it did when opened."""
    ax = axes(ax, 7.2, 3.2)
    agents = np.arange(len(promised))
    ax.bar(agents - 0.2, promised, 0.38, color=COLOUR["interface"], alpha=0.35, label="attribution")
    ax.bar(agents + 0.2, found, 0.38, color=COLOUR["interface"], label="when it sees everything")
    ax.axhline(0.0, color="0.3", linewidth=0.8)
    ax.set(xticks=agents, xlabel="whose interface", ylabel=f"fall of the bound of agent {agent}")
    ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
    return ax


def terms_table(handoffs: Sequence[int], errors: Decomposition, bounds: Bounds, certificates: Certificates) -> str:
    """The last checkpoint as a Markdown table, and which term is the largest from when to when."""
    shape = errors.total.shape
    head = f"| after {handoffs[-1]:,} handoffs | observed, 95 % interval | bound | ratio | certificate |"
    rows, size = [head, "| --- " * 5 + "|"], {}
    for term in TERMS:
        runs = np.broadcast_to(getattr(errors, term), shape)
        seen, size[term] = root_mean_square(runs[:, -1]), np.sqrt((runs**2).mean(axis=0))
        bound = bounds[term][-1]
        after = f"{np.sqrt((certificates[term][:, -1] ** 2).mean()):.4g}" if term in certificates else ""
        said = str(seen) if seen.stderr > 0 else f"{seen.value:.4g}, exact"
        rows.append(f"| {NAME[term]} | {said} | {bound:.4g} | {bound / seen.value:.2f} | {after} |")
    largest = [max(TERMS[:3], key=lambda term: size[term][k]) for k in range(shape[1])]
    starts = [k for k in range(shape[1]) if k == 0 or largest[k] != largest[k - 1]]
    said = ", ".join(f"the **{NAME[largest[k]]}** from {handoffs[k]:,} handoffs on" for k in starts)
    return "\n".join([*rows, "", f"The largest of the three is {said}."])
