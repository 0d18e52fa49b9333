"""The figures of the notebooks, one idea each.  Every function draws on the `ax` given (or a new one) and returns it.

Colours and style are those of `experiments.plots`; lines carry their names themselves where there is room.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from bounds.ipm import Mismatch
from bounds.term import Rung
from estimators.decomposition import Decomposition
from estimators.estimate import Estimate, root_mean_square
from experiments.cells import TERMS
from experiments.plots import COLOUR, NAME, STYLE, axes, band

PARTS = {"reward": "#0072B2", "mass": "#E69F00", "shape": "#56B4E9"}
FAINT = "0.45"


def use_style() -> None:
    """The project's style for all figures that follow; in a notebook as drawings that stay sharp when enlarged."""
    plt.rcParams.update(STYLE)
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]], apart: float = 0.062) -> None:
    """Names at the right edge, one per line that ends at this height: (y, name, colour).  Call it when limits are set.

    Names that would overlap are moved `apart` (a fraction of the height of the axes), in the order of the lines.
    """
    to_axes = ax.transData + ax.transAxes.inverted()
    finite = [end for end in ends if np.isfinite(end[0])]
    heights = [float(to_axes.transform((ax.get_xlim()[1], y))[1]) for y, *_ in finite]
    order = np.argsort(heights, kind="stable")
    place = np.clip(np.array(heights)[order], 0.0, 1.0)
    for i in range(1, len(place)):
        place[i] = max(place[i], place[i - 1] + apart)
    place -= max(place[-1] - 1.0, 0.0) if len(place) else 0.0
    for i in range(len(place) - 1, 0, -1):
        place[i - 1] = min(place[i - 1], place[i] - apart)
    for at, y in zip(order, place, strict=True):
        _, name, colour = finite[at]
        ax.text(1.02, y, name, color=colour, va="center", transform=ax.transAxes)


def terms_over_time(
    handoffs: Sequence[int],
    errors: Decomposition,
    certified: Mapping[str, Float[np.ndarray, "*batch"]],
    ax: Axes | None = None,
) -> Axes:
    """The three errors and their total against handoffs; certified upper bounds dotted in the same colour.

    errors: batch axes [runs, checkpoints], drawn as root mean squares with 95 % intervals; certified: by term, one
    number, one per checkpoint or one per run and checkpoint.
    """
    ax, ends = axes(ax, 7.2, 4.4), []
    shape = errors.total.shape
    for term in TERMS:
        runs = np.broadcast_to(getattr(errors, term), shape)
        found = [root_mean_square(runs[:, k]) for k in range(shape[1])]
        band(ax, handoffs, found, COLOUR[term], NAME[term])
        if term in certified:
            limit = np.sqrt((np.broadcast_to(certified[term], shape) ** 2).mean(axis=0))
            ax.plot(handoffs, limit, ":", color=COLOUR[term], linewidth=1.4)
        ends.append((found[-1].value, NAME[term], COLOUR[term]))
    ax.set(xscale="log", yscale="log", xlabel="handoffs learned from", ylabel="error in the d-norm",
           xlim=(handoffs[0], handoffs[-1]))  # fmt: skip
    label_ends(ax, ends)
    return ax


def curves(
    x: Sequence[float] | Float[np.ndarray, "n"],
    lines: Mapping[str, tuple[Float[np.ndarray, "n"], str, str]],
    ax: Axes | None = None,
) -> Axes:
    """Named lines (values, colour, dashes) with their names at the right edge; a line that is NaN there has none."""
    ax = axes(ax, 7.2, 4.2)
    for y, colour, dashes in lines.values():
        ax.plot(x, y, dashes, color=colour, linewidth=1.8)
    ax.set_xlim(x[0], x[-1])
    label_ends(ax, [(float(y[-1]), name, colour) for name, (y, colour, _) in lines.items()])
    return ax


def ladder(rungs: Sequence[Rung], ax: Axes | None = None, names: bool = True) -> Axes:
    """How far every bound lies above the exact value, which comes first; logarithmic, so a length is a ratio.

    A rung without a number says which assumption fails; one that says no more than the range of rewards is grey.
    """
    ax = axes(ax, 7.2, 0.32 * len(rungs) + 0.9)
    exact = next(rung.bound.value for rung in rungs if rung.exact)
    ax.axvline(exact, color=COLOUR["interface"], linewidth=1)
    for i, rung in enumerate(rungs):
        bound = rung.bound
        if not bound.applicable:
            why = bound.failures[0]
            ax.annotate(f"no number: needs {why.name}, {why.detail}", (exact, i), xytext=(5, 0),
                        textcoords="offset points", va="center", fontsize=8, color=FAINT)  # fmt: skip
            continue
        colour = "0.65" if bound.value >= bound.trivial else COLOUR["interface"]
        ax.plot([exact, bound.value], [i, i], color=colour, linewidth=2, alpha=0.6)
        ax.plot(bound.value, i, "o", color=colour, markersize=6)
        said = f"{bound.value:.3g}" if rung.exact else f"{bound.value:.3g}, {bound.value / exact:.2g} times"
        ax.annotate(said, (bound.value, i), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(rungs)), [rung.bound.name for rung in rungs] if names else [""] * len(rungs))
    ax.set(xscale="log", xlabel="bound, reward units", ylim=(len(rungs) - 0.5, -0.5))
    ax.margins(x=0.25)
    ax.grid(False)
    return ax


def attribution_map(attribution: Float[np.ndarray, "N N"], ax: Axes | None = None) -> Axes:
    """Whose certified error (rows) is caused by whose interface (columns); the numbers on the right are row sums."""
    ax = axes(ax, 5.4, 4.4)
    agents = range(len(attribution))
    image = ax.imshow(attribution, cmap="Blues", vmin=0.0)
    ax.figure.colorbar(image, ax=ax, label="share of the certified error, reward units", shrink=0.85, pad=0.14)
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
    q: Float[np.ndarray, "O A"],
    truth: Float[np.ndarray, "O A"],
    mass: Float[np.ndarray, "O A"],
    ax: Axes | None = None,
    margin: Float[np.ndarray, "O A"] | None = None,
) -> Axes:
    """Every value of a table against the true one, as large as it is often visited; `margin`: certified distances."""
    ax = axes(ax, 4.2, 4.0)
    visited = mass > 0
    x, y = truth[visited], q[visited]
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
    ends += np.array([-0.05, 0.05]) * np.ptp(ends)
    ax.plot(ends, ends, color="0.6", linewidth=1)
    if margin is not None:
        ax.vlines(x, y - margin[visited], y + margin[visited], color=COLOUR["app"], alpha=0.35, linewidth=1.2)
    ax.scatter(x, y, s=1500 * mass[visited], color=COLOUR["app"], alpha=0.7, linewidths=0)
    ax.set(xlim=ends, ylim=ends, xlabel="interface values", aspect="equal")
    return ax


def against_width(
    widths: Sequence[int], series: Mapping[str, tuple[Sequence[Estimate], str, str]], ax: Axes | None = None
) -> Axes:
    """Named series of estimates (with colour and dashes) against width, both axes logarithmic."""
    ax = axes(ax, 7.2, 4.2)
    for name, (found, colour, dashes) in series.items():
        band(ax, widths, found, colour, name, dashes)
    ax.set(xscale="log", yscale="log", xlabel="width of every agent's network", ylabel="error in the d-norm",
           xlim=(widths[0], widths[-1]))  # fmt: skip
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.xaxis.set_minor_formatter(NullFormatter())
    label_ends(ax, [(found[-1].value, name, colour) for name, (found, colour, _) in series.items()])
    return ax


def promised_and_found(promised: Float[np.ndarray, "N"], found: Sequence[float], ax: Axes | None = None) -> Axes:
    """Two bars per agent: the most that it could contribute, and what it contributed."""
    ax = axes(ax, 7.2, 3.2)
    agents = np.arange(len(promised))
    ax.bar(agents - 0.2, promised, 0.38, color=COLOUR["interface"], alpha=0.35, label="attribution")
    ax.bar(agents + 0.2, found, 0.38, color=COLOUR["interface"], label="when it sees everything")
    ax.axhline(0.0, color="0.3", linewidth=0.8)
    ax.set(xticks=agents, xlabel="agent")
    ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
    return ax


def terms_table(errors: Decomposition, certified: Mapping[str, Float[np.ndarray, "*batch"]], handoffs: int) -> str:
    """The last checkpoint as a Markdown table with a sentence on the largest term."""
    shape = errors.total.shape
    head = f"| after {handoffs:,} handoffs | observed, 95 % interval | certified | ratio |"
    seen, rows = {}, [head, "| --- | --- | --- | --- |"]
    for term in TERMS:
        seen[term] = root_mean_square(np.broadcast_to(getattr(errors, term), shape)[:, -1])
        limit = float(np.sqrt((np.broadcast_to(certified[term], shape)[:, -1] ** 2).mean()))
        rows.append(f"| {NAME[term]} | {seen[term]} | {limit:.4g} | {limit / seen[term].value:.2f} |")
    largest = max(TERMS[:3], key=lambda term: seen[term].value)
    share = seen[largest].value / sum(seen[term].value for term in TERMS[:3])
    return "\n".join([*rows, "", f"The **{NAME[largest]}** dominates: {share:.0%} of the sum of the three."])
