"""The CPU-programming experiment: what share of (task, start) pairs four agents solve, against what they see.

Panel A: solved and held-out shares against the size of the summary.  Panel B: learning curves at the full summary.
Panel C: value of every pair against its exact optimum.  Panel D: the three errors on a machine so small that all its
states are listed, exactly and as handoff logs show them.  The workflow is this project's own (synthetic.cpu).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, as_dict
from icq_bounds.figures import style
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.provenance import provenance
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common import terms
from icq_bounds.workflows.common.term_cells import CpuGame, LogCell, Size, TermsCell, cells_of
from icq_bounds.workflows.cpu.cells import CpuCell
from synthetic.cpu import TASKS, CpuSizes, cpu, search
from synthetic.cpu_finite import SMALL


@dataclass(frozen=True)
class CpuPreset:
    """Sizes of the experiment; shown: summary sizes compared; updates: of 256 handoffs each; dial: summary sizes of the
    small machine `small`, whose errors are measured with sizes `terms`.
    """  # fmt: skip

    name: str
    seeds: int
    updates: int
    shown: tuple[int, ...]
    dial: tuple[int, ...]
    small: CpuSizes
    terms: Size


FULL = CpuPreset("full", seeds=2, updates=12_000, shown=(0, 1, 2, 4), dial=(0, 1, 2), small=SMALL,
              terms=Size(seeds=4, handoffs=300_000, logged=4_000_000))  # fmt: skip
SMOKE = CpuPreset("smoke", seeds=1, updates=2_000, shown=(4,), dial=(0, 2), small=replace(SMALL, length=1),
               terms=Size(seeds=4, handoffs=40_000, logged=200_000))  # fmt: skip

AnyCpuCell = CpuCell | TermsCell | LogCell
CpuResults = dict[CpuCell, Arrays]


def cells(p: CpuPreset) -> list[AnyCpuCell]:
    """IC-Q at every summary size; the baselines at the full one; the errors on the small machine."""
    full = max(p.shown)
    wanted = [(Who.ICQ, s) for s in p.shown] + [(who, full) for who in (Who.CENTRALISED, Who.INDEPENDENT)]
    made: list[AnyCpuCell] = [CpuCell(shown, who, p.updates, seed) for who, shown in wanted for seed in range(p.seeds)]
    return [*made, *cells_of([CpuGame(s, p.small) for s in p.dial], p.terms)]


def programming(results: dict[AnyCpuCell, Arrays]) -> CpuResults:
    """The results on the machine of full size."""
    return {c: r for c, r in results.items() if isinstance(c, CpuCell)}


def pairs(solved: np.ndarray) -> Float[np.ndarray, ""]:
    """Share of (task, start) pairs solved whoever acts first."""
    return np.asarray(solved.all(-1).mean())


def over_seeds(results: CpuResults, who: Who, shown: int, key: str = "solved") -> Estimate:
    """The share of pairs over the seeds of one setting, its interval cut to [0, 1]; with one seed, none."""
    found = np.array([float(pairs(r[key])) for c, r in results.items() if (c.who, c.shown) == (who, shown)])
    if len(found) == 1:
        return Estimate(float(found[0]), np.nan, (np.nan, np.nan), 1.0)
    e = estimate.mean(found)
    return replace(e, interval=(max(e.interval[0], 0.0), min(e.interval[1], 1.0)))


def summarise(p: CpuPreset, found: dict[AnyCpuCell, Arrays], folder: Path) -> dict[str, Any]:
    """Every conclusion as JSON; writes the handoff log `handoffs.parquet` of the small machine."""
    results, (size, best) = programming(found), search(cpu())
    full = max(p.shown)
    settings = sorted({(c.who.value, c.shown) for c in results})
    by_name = {who.value: who for who in Who}

    def table(key: str) -> dict[str, dict[str, Any]]:
        out: dict[str, dict[str, Any]] = {}
        for name, shown in settings:
            out.setdefault(name, {})[str(shown)] = as_dict(over_seeds(results, by_name[name], shown, key))
        return out

    main = [r for c, r in results.items() if (c.who, c.shown) == (Who.ICQ, full)]
    unsolved = ~np.all([r["solved"].all(-1) for r in main], axis=0)
    return {
        "preset": p.name, "seeds": p.seeds, "updates": p.updates, "tasks": len(TASKS), "starts": int(size.shape[1]),
        "pairs_solved_by_search": float((size >= 0).mean()), "longest_shortest_program": int(size.max()),
        "pairs_solved": table("solved"), "pairs_right_on_held_out": table("held_out"),
        "value_of_optimum": float(best.mean()), "value_of_icq": float(np.mean([r["value"].mean() for r in main])),
        "oracle_gap": float(best.mean() - np.mean([r["value"].mean() for r in main])),
        "unsolved": [f"{TASKS[t][0]}, start {s}" for t, s in np.argwhere(unsolved)],
        "terms_measured_on": "a smaller machine with all its states listed; the full one has too many for an oracle",
        **terms.summarise(found), **terms.write_log(found, folder / "handoffs.parquet"),
        "provenance": provenance(),
    }  # fmt: skip


def draw(found: dict[AnyCpuCell, Arrays], folder: Path) -> list[Path]:
    """The panels as PNG and SVG."""
    results = programming(found)
    return style.save_panels(
        {
            "a_solved": lambda: solved_share(results),
            "b_learning": lambda: learning(results),
            "c_value": lambda: value_against_optimum(results),
            "d_terms": lambda: errors(found),
        },
        folder,
    )


def solved_share(results: CpuResults, ax: Axes | None = None) -> Axes:
    """Pairs solved against summary size."""
    ax = style.axes(ax)
    for key, dashes, label in (("solved", "-", "IC-Q"), ("held_out", "--", "IC-Q, right on held-out vectors too")):
        shown = sorted({c.shown for c in results if c.who is Who.ICQ})
        values = [_percent(over_seeds(results, Who.ICQ, s, key)) for s in shown]
        style.band(ax, shown, values, style.WHO[Who.ICQ], label, dashes)
    for who in (Who.CENTRALISED, Who.INDEPENDENT):
        shown = sorted({c.shown for c in results if c.who is who})
        style.band(ax, shown, [_percent(over_seeds(results, who, s)) for s in shown], style.WHO[who], who.value)
    ax.axhline(100, color="black", linestyle=":", label="search")
    ax.set(xlabel="test vectors in the summary", ylabel="(task, start) pairs solved, %", ylim=(-3, 105),
           xticks=sorted({c.shown for c in results}), title="CPU programming")  # fmt: skip
    ax.legend()
    return ax


def errors(found: dict[AnyCpuCell, Arrays], ax: Axes | None = None) -> Axes:
    """The three errors of linear agents on the small machine against the summary."""
    dial = [c.game.shown for c, _ in terms.learned(found) if isinstance(c.game, CpuGame)]
    return terms.panel(found, dial, "test vectors in the summary", "Errors of linear agents on a small machine", ax)


def _percent(e: Estimate) -> Estimate:
    return replace(e, value=100 * e.value, stderr=100 * e.stderr, interval=(100 * e.interval[0], 100 * e.interval[1]))


def learning(results: CpuResults, ax: Axes | None = None) -> Axes:
    """Pairs solved while learning, at the full summary, one line per seed."""
    ax = style.axes(ax)
    full = max(c.shown for c in results)
    for who in Who:
        runs = [(c, r) for c, r in results.items() if c.who is who and c.shown == full]
        for i, (c, r) in enumerate(runs):
            handoffs = c.copies * c.updates * np.arange(1, c.marks + 1) / c.marks
            ax.plot(handoffs, 100 * r["curve"], "o-", color=style.WHO[who], label=who.value if i == 0 else None)
    ax.set(xlabel="handoffs", ylabel="(task, start) pairs solved, %", ylim=(-3, 105), title="Learning to program")
    style.readable(ax).legend()
    return ax


def value_against_optimum(results: CpuResults, ax: Axes | None = None) -> Axes:
    """Value of every (task, start, first agent) against its exact optimum."""
    ax = style.axes(ax)
    _, best = search(cpu())
    full = max(c.shown for c in results)
    for who in (Who.INDEPENDENT, Who.CENTRALISED, Who.ICQ):
        for c, r in results.items():
            if (c.who, c.shown, c.seed) == (who, full, 0):
                ax.plot(best.ravel(), r["value"].ravel(), ".", color=style.WHO[who], alpha=0.5, label=who.value)
    span = [float(best.min()), 1.0]
    ax.plot(span, span, ":", color="black", label="optimum")
    ax.set(xlabel="exact optimal value", ylabel="value of one greedy task", title="Value against the optimum")
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.05), ncols=2)  # between the failures at 0 and the rest
    return ax
