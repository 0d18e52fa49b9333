"""The routing experiment: accuracy against how much of a request everybody sees, beside the measured gap.

Panel A: share of requests answered by the right specialist.  Panel B: the three errors and the bound on the gap.
Panel C: accuracy lost against the interface gap.  Panel D: IC-Q on real requests beside a classifier that sees the same
words, where a folder of them is given.  Panel E: the three errors of agents linear in what they see, exactly and as
handoff logs show them.  The workflow is this project's own (synthetic.routing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from estimators.statistics import estimate
from estimators.statistics.estimate import as_dict
from icq_bounds.figures import style
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.provenance import provenance
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common import terms
from icq_bounds.workflows.common.term_cells import LogCell, RoutingGame, Size, TermsCell, cells_of
from icq_bounds.workflows.routing.cells import RoutingCell
from icq_bounds.workflows.routing.text_cells import TextCell, fingerprint


@dataclass(frozen=True)
class RoutingPreset:
    """Sizes of the experiment; bits: views compared; handoffs: learned per seed.

    terms: sizes of the cells with linear agents.  words: views of real requests (None: all words), where a folder of
    them is given; updates: of their learners.
    """

    name: str
    seeds: int
    handoffs: int
    bits: tuple[int, ...]
    specialists: int
    intents: int
    terms: Size
    words: tuple[int | None, ...] = (None,)
    updates: int = 1500


FULL = RoutingPreset("full", seeds=8, handoffs=4_000_000, bits=(0, 1, 2, 3, 4), specialists=3, intents=4,
              terms=Size(seeds=4, handoffs=1_000_000, logged=5_000_000),
              words=(1, 3, 5, None), updates=5000)  # fmt: skip
SMOKE = RoutingPreset("smoke", seeds=4, handoffs=400_000, bits=(0, 1, 2), specialists=2, intents=2,
               terms=Size(seeds=4, handoffs=200_000, logged=100_000))  # fmt: skip

AnyRoutingCell = RoutingCell | TextCell | TermsCell | LogCell
RoutingResults = dict[AnyRoutingCell, Arrays]


def cells(p: RoutingPreset, texts: Path | None = None) -> list[AnyRoutingCell]:
    """Every learner at every view; with a folder of real requests also IC-Q and a classifier on those."""
    made: list[AnyRoutingCell] = [
        RoutingCell(bits, who, p.seeds, p.handoffs, p.specialists, p.intents) for who in Who for bits in p.bits
    ]
    made += cells_of([RoutingGame(bits, p.specialists, p.intents) for bits in p.bits], p.terms)
    if texts is not None:
        data = fingerprint(texts)
        made += [TextCell(words, p.updates, data, texts) for words in p.words]
    return made


def _of(results: RoutingResults, who: Who) -> list[tuple[int, Arrays]]:
    rows = ((c.bits, r) for c, r in results.items() if isinstance(c, RoutingCell) and c.who is who)
    return sorted(rows, key=lambda pair: pair[0])


def _texts(results: RoutingResults) -> list[tuple[int | None, Arrays]]:
    rows = ((c.words, r) for c, r in results.items() if isinstance(c, TextCell))
    return sorted(rows, key=lambda pair: pair[0] or 10**9)


def summarise(p: RoutingPreset, results: RoutingResults, folder: Path) -> dict[str, Any]:
    """Every conclusion as JSON; writes the handoff log `handoffs.parquet` of the narrowest view."""
    learned = _of(results, Who.ICQ)
    gap = [float(r["e_interface"]) for _, r in learned]
    lost = [float(r["right_star"] - r["right"].mean()) for _, r in learned]
    full = max(p.bits)

    def per_view(key: str) -> dict[str, Any]:
        return {who.value: {str(b): as_dict(estimate.mean(r[key])) for b, r in _of(results, who)} for who in Who}

    return {
        "preset": p.name, "seeds": p.seeds, "handoffs": p.handoffs,
        "accuracy_at_full_view": as_dict(estimate.mean(dict(learned)[full]["right"])),
        "accuracy": per_view("right"), "value": per_view("value"),
        "accuracy_of_interface_optimum": {str(b): float(r["right_bar"]) for b, r in learned},
        "accuracy_of_oracle": {str(b): float(r["right_star"]) for b, r in learned},
        "terms_d_norm_of": "tables, which represent every Q exactly: no approximation error",
        "terms_d_norm": {
            str(b): terms.of_table(r) for b, r in learned
        },
        "rank_correlation_of_gap_and_accuracy_lost": float(stats.spearmanr(gap, lost).statistic),
        "kappa": {str(b): float(r["kappa"]) for b, r in learned},
        **terms.summarise(results), **terms.write_log(results, folder / "handoffs.parquet"),
        "real_requests": {
            "all" if words is None else str(words): {
                "icq": float(r["right"]), "classifier_with_the_same_view": float(r["supervised"]),
            }
            for words, r in _texts(results)
        },
        "provenance": provenance(),
    }  # fmt: skip


def draw(results: RoutingResults, folder: Path) -> list[Path]:
    """The panels as PNG and SVG."""
    panels: dict[str, Callable[[], Axes]] = {
        "a_accuracy": lambda: accuracy(results), "b_terms": lambda: errors(results),
        "c_gap": lambda: against_gap(results), "e_linear": lambda: linear(results),
    }  # fmt: skip
    if _texts(results):
        panels["d_requests"] = lambda: real_requests(results)
    return style.save_panels(panels, folder)


def accuracy(results: RoutingResults, ax: Axes | None = None) -> Axes:
    """Share of requests answered by the right specialist, against the view."""
    ax = style.axes(ax)
    for who in Who:
        rows = _of(results, who)
        values = [estimate.mean(100 * r["right"]) for _, r in rows]
        style.band(ax, [b for b, _ in rows], values, style.WHO[who], who.value)
    learned = _of(results, Who.ICQ)
    ax.plot([b for b, _ in learned], [100 * float(r["right_bar"]) for _, r in learned], ":", color="black",
            label="exact interface fixed point")  # fmt: skip
    ax.set(xlabel="bits of a request that everybody sees", ylabel="requests answered by the right specialist, %",
           ylim=(-3, 103), xticks=[b for b, _ in learned], title="Routing")  # fmt: skip
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.06))
    return ax


def errors(results: RoutingResults, ax: Axes | None = None) -> Axes:
    """Interface gap, residual and total of IC-Q, with the bound on the gap."""
    rows = _of(results, Who.ICQ)
    bits = [b for b, _ in rows]
    ax = terms.table_panel([r for _, r in rows], bits, style.axes(ax))
    ax.set(xlabel="bits of a request that everybody sees", xticks=bits, title="Errors of IC-Q")
    return ax


def against_gap(results: RoutingResults, ax: Axes | None = None) -> Axes:
    """Accuracy lost against the exact interface gap, one point per view."""
    ax = style.axes(ax)
    rows = _of(results, Who.ICQ)
    gap = np.array([float(r["e_interface"]) for _, r in rows])
    for key, marker, label in (("right_bar", "s", "exact interface fixed point"), ("right", "o", "IC-Q")):
        lost = [100 * float(r["right_star"] - r[key].mean()) for _, r in rows]
        colour = "black" if key == "right_bar" else style.WHO[Who.ICQ]
        ax.plot(
            gap,
            lost,
            marker + "-",
            color=colour,
            markerfacecolor="white" if key == "right_bar" else colour,
            label=label,
        )
        if key == "right":
            for x, y, (b, _) in zip(gap, lost, rows, strict=True):
                ax.annotate(f"{b} bits", (x, y), textcoords="offset points", xytext=(6, -10))
    ax.set(xlabel="interface gap in the d-norm", ylabel="requests lost, percentage points", title="What the gap costs")
    ax.legend()
    return ax


def linear(results: RoutingResults, ax: Axes | None = None) -> Axes:
    """The three errors of linear agents against the view."""
    bits = [c.game.bits for c, _ in terms.learned(results) if isinstance(c.game, RoutingGame)]
    return terms.panel(results, bits, "bits of a request that everybody sees", "Errors of linear agents", ax)


def real_requests(results: RoutingResults, ax: Axes | None = None) -> Axes:
    """Accuracy on unseen real requests against the words seen: IC-Q and a supervised classifier with the same view."""
    ax = style.axes(ax)
    rows = _texts(results)
    x = np.arange(len(rows))
    for key, colour, label in (("supervised", "black", "classifier told every domain"),
                               ("right", style.WHO[Who.ICQ], "IC-Q, told only what it earned")):  # fmt: skip
        ax.plot(x, [100 * float(r[key]) for _, r in rows], "o-", color=colour, label=label)
    ax.set_xticks(x, ["all" if words is None else str(words) for words, _ in rows])
    ax.set(xlabel="words of a request that everybody sees", ylabel="unseen requests at the right specialist, %",
           ylim=(0, 103), title="Real requests")  # fmt: skip
    ax.legend()
    return ax
