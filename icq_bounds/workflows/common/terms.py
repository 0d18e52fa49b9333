"""The three errors of an experiment's agents as JSON and as one panel, beside what logs say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from estimators.decomposition import NAME, TERMS
from estimators.logs.writer import LogWriter
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, as_dict, finite, recorded
from icq_bounds.figures import style
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common.term_cells import Game, LogCell, TermsCell


def learned(results: Mapping[Any, Arrays]) -> list[tuple[TermsCell, Arrays]]:
    """The cells that learned, in the order of the preset."""
    return [(c, r) for c, r in results.items() if isinstance(c, TermsCell)]


def logged(results: Mapping[Any, Arrays]) -> dict[Game, tuple[LogCell, Arrays]]:
    """The cells that logged, by game."""
    return {c.game: (c, r) for c, r in results.items() if isinstance(c, LogCell)}


def error(r: Arrays, part: str) -> Estimate:
    """One error: exact, or the root mean square over seeds."""
    e = r[f"e_{part}"]
    return estimate.root_mean_square(e) if e.ndim else estimate.exact(float(e))


def estimated(r: Arrays, term: str) -> Estimate:
    """One term of a log."""
    value, low, high = (float(x) for x in r[term])
    return Estimate(value, np.nan, (low, high), float(r[f"{term}_n"]), recorded(str(r[f"{term}_result"])))


def summarise(results: Mapping[Any, Arrays]) -> dict[str, Any]:
    """Every error of agents linear in what they see, and what the logs say, by game."""
    out: dict[str, Any] = {"terms_of_linear_agents": {}, "terms_from_logs": {}}
    for c, r in learned(results):
        found: dict[str, Any] = {NAME[t]: as_dict(error(r, t)) for t in TERMS}
        found["interface bound"] = finite(float(r["bound_interface"]))
        found["range of rewards"] = float(r["trivial_cap"])
        found |= {"verdict": str(r["bound_verdict_interface"]), "class fixed point": str(r["reference"])}
        found |= {name: int(r[name]) for name in ("states", "observations", "parameters")}
        out["terms_of_linear_agents"][c.game.label()] = found | {"handoffs": c.handoffs}
    for game, (log, r) in logged(results).items():
        terms: dict[str, Any] = {}
        for term in TERMS[:3]:
            terms[term] = as_dict(estimated(r, term))
            if np.isfinite(exact := float(r[f"{term}_exact"])):
                terms[f"{term} exact"] = exact
        out["terms_from_logs"][game.label()] = terms | {"handoffs": log.handoffs, "width": log.width}
    return out


def of_table(r: Arrays) -> dict[str, Any]:
    """The errors of a table, which represents every Q, with the bound on the gap beside what rewards alone say."""
    return {
        "interface": float(r["e_interface"]), "approximation": 0.0,
        "residual": as_dict(estimate.root_mean_square(r["e_residual"])),
        "total": as_dict(estimate.root_mean_square(r["e_total"])),
        "interface_bound": float(r["bound_interface"]), "range_of_rewards": float(r["trivial_cap"]),
        "verdict": str(r["bound_verdict_interface"]),
    }  # fmt: skip


def table_panel(rows: Sequence[Arrays], x: Sequence[int], ax: Axes) -> Axes:
    """Interface gap, residual and total of tables, with the bound on the gap; grey where rewards alone say as much."""
    colour = style.COLOUR["interface"]
    ax.plot(x, [float(r["e_interface"]) for r in rows], "o-", color=colour, label=NAME["interface"])
    stated, caps = (np.array([float(r[key]) for r in rows]) for key in ("bound_interface", "trivial_cap"))
    label = f"its bound\n(rewards alone: {caps.min():.3g})"
    ax.plot(x, stated, "o--", color=colour, markerfacecolor="white", label=label)
    ax.plot(np.asarray(x)[stated >= caps], stated[stated >= caps], "o", color="0.65", zorder=4)
    for term in ("residual", "total"):
        style.band(ax, x, [estimate.root_mean_square(r[f"e_{term}"]) for r in rows], style.COLOUR[term], NAME[term])
    ax.set(ylabel="error in the d-norm", ylim=(0, None))
    return style.label_ends(ax)


def panel(results: Mapping[Any, Arrays], x: Sequence[int], xlabel: str, title: str, ax: Axes | None = None) -> Axes:
    """The errors of linear agents against the interface dial x; points: the interface gap as logs alone say it."""
    ax, rows, logs = style.axes(ax), learned(results), logged(results)
    for part in TERMS:
        style.band(ax, x, [error(r, part) for _, r in rows], style.COLOUR[part], NAME[part])
    both = [(at, logs[c.game][1]) for at, (c, _) in zip(x, rows, strict=True) if c.game in logs]
    seen = [(at, e) for at, r in both if (e := estimated(r, "interface")).known]
    if seen:
        value = np.array([e.value for _, e in seen])
        ends = np.array([e.interval for _, e in seen])
        ax.errorbar([at for at, _ in seen], value, np.abs(ends.T - value), fmt="s", color=style.COLOUR["interface"],
                    markerfacecolor="white", capsize=3, zorder=4,
                    label=f"{NAME['interface']}, from a log")  # fmt: skip
    ax.set(xlabel=xlabel, ylabel="error in the d-norm", xticks=x, ylim=(0, None), title=title)
    return style.label_ends(ax)


def write_log(results: Mapping[Any, Arrays], path: Path) -> dict[str, str]:
    """The log of the first game as a file, of which `icq diagnose` says what `terms_from_logs` says; its name."""
    cell, _ = next(iter(logged(results).values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    log = cell.log()
    with LogWriter(path, gamma=log.gamma, chained=True) as writer:
        writer.write(log)
    return {"log": path.name, "log_of": cell.game.label()}
