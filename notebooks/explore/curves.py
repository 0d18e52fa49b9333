"""What the notebooks on mixing, on the total and on one's own workflow show, and what their sliders move.

Every function draws on the `ax` it is given (or a new one) and returns it.  Letters: docs/theory.md sections 5 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import sympy as sp
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import NullLocator

from bounds import symbolic
from bounds.core.curve import Curve
from bounds.interface.gap import trivial_cap
from bounds.planner import BitLaw, Costs, Infeasible, PowerLaw, ResidualModel, plan
from bounds.residual import poisson
from bounds.residual.sharp import constant_step
from bounds.theorem import Output
from estimators import decomposition
from estimators.decomposition import NAME, decompose
from estimators.statistics.estimate import Estimate, root_mean_square
from icq.learn.learner import learn, seed_keys
from icq_bounds.figures.style import COLOUR, RED, axes, band, label_ends
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.measure import Measured
from icq_bounds.sweep.methods import Features, Schedule, Table
from icq_bounds.sweep.results import octaves
from notebooks.explore import terms
from notebooks.explore.terms import Terms, learned_by

CONTROL, BOUND, INK = "0.55", RED, "0.15"
TERMS, AVERAGE = decomposition.TERMS[:3], 1


def class_name(features: int) -> str:
    """A class in words."""
    return f"{features} features" if features else "table"


# --- trajectory and control -----------------------------------------------------------------------------------------


@lru_cache(maxsize=terms.POSITIONS)
def residuals(family: DialsFamily, features: int, iid: bool, seeds: int, handoffs: int) -> Float[np.ndarray, "R K"]:
    """||Qavg - Q_F||_d of `seeds` runs of IC-Q after 256, 512, ... handoffs; `features` per agent, 0 is a table."""
    a, method = terms.analysis(family), Features(features) if features else Table()
    cls = method.build(a)
    record = learn(a, cls, method.config(a, iid), range(seeds), octaves(handoffs, 256))
    reference = method.reference(a, cls, seed_keys(range(seeds)))
    return decompose(a, np.asarray(record.q_average, np.float64), reference.q[:, None])[0].residual


def residual(
    family: DialsFamily, features: int, *, seeds: int = 16, handoffs: int = 2**17, ax: Axes | None = None
) -> Axes:
    """Observed residuals along a trajectory and of the i.i.d. control, and the sharp prediction of both."""
    ax, grid, found = axes(ax), octaves(handoffs, 256), learned_by(family, features)
    for iid, colour, name in ((False, COLOUR["residual"], "trajectory"), (True, CONTROL, "control")):
        e = residuals(family, features, iid, seeds, handoffs)
        band(ax, grid, [root_mean_square(e[:, k]) for k in range(len(grid))], colour, name)
        sharp = np.sqrt((found.control if iid else found.constant) / np.array(grid))
        ax.plot(grid, sharp, "-.", color=INK, linewidth=1.1, label="sharp prediction" if iid else None)
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="residual",
           title=f"{class_name(features)}, mixing {family.mixing:g}")  # fmt: skip
    ax.legend(fontsize=8)
    return ax


def correlation(
    family: DialsFamily, features: int, *, name: str = "", octaves: int = 11, ax: Axes | None = None
) -> Axes:
    """How many handoffs count as one when correlation up to a lag is counted: the control's 1, and what is added.

    name: of the position, in the title; class and mixing dial where left out.
    """
    ax, found = axes(ax), learned_by(family, features)
    count = terms.partial_variance(found.problem, octaves)
    count = count / count[0]
    lag = 2.0 ** np.arange(-1, octaves + 1)  # no lag at all is drawn at one half
    ax.fill_between(lag, 0, np.minimum(count, 1), color=CONTROL, alpha=0.35, linewidth=0)
    ax.fill_between(lag, 1, count, color=COLOUR["residual"], alpha=0.35, linewidth=0)
    ax.plot(lag, count, "o-", color=COLOUR["residual"], markersize=3.5)
    ax.axhline(1, color=CONTROL, linewidth=1)
    ax.annotate("control", (lag[-1], 1), (0, -4), textcoords="offset points", ha="right", va="top", fontsize=9)
    name = name or f"{class_name(features)}, mixing {family.mixing:g}"
    ax.set_title(f"{name}: {found.constant / found.control:.3g} count as one")
    ax.set(xscale="log", xlabel="correlation counted up to lag", ylabel="handoffs that count as one")
    ticks = [0, *(4**k for k in range(octaves // 2 + 1))]
    ax.set_xticks([max(k, 0.5) for k in ticks], [str(k) for k in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    return ax


def persistence(family: DialsFamily, gaps: Sequence[float], kept: Sequence[float], *, ax: Axes | None = None) -> Axes:
    """How many handoffs of a table count as one, against how long the hidden part stays; one line per gap dial."""
    ax = axes(ax)
    for gap, shade in zip(gaps, np.linspace(0.35, 1.0, len(gaps)), strict=True):
        found = [learned_by(replace(family, gap=gap, persistence=p), 0) for p in kept]
        count = [each.constant / each.control for each in found]
        ax.plot(kept, count, "o-", color=COLOUR["residual"], alpha=shade, markersize=3.5, label=f"gap {gap:g}")
    ax.set(xlabel="persistence: probability that the hidden part is kept", ylabel="handoffs that count as one")
    ax.set_title("Table: what is hidden and stays slows learning down")
    return label_ends(ax)


# --- bound ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=terms.POSITIONS)
def table_errors(
    family: DialsFamily, local_step: float, seeds: int, marks: tuple[int, ...]
) -> Float[np.ndarray, "R K"]:
    """||Q_T - Qbar||_d of a table from 0 whose pairs take constant steps per own visit."""
    a = terms.analysis(family)
    method = Table(Schedule(local_step, decay_offset=1.0, decay_power=0.0), "local", "double")
    record = learn(a, method.build(a), method.config(a, False), range(seeds), marks)
    return decompose(a, np.asarray(record.q), a.q_bar)[0].residual


@lru_cache(maxsize=terms.POSITIONS)
def bounds(family: DialsFamily, local_step: float, handoffs: int) -> tuple[Curve, Curve, float]:
    """Poisson bounds of first and second order for a table from 0 with constant steps, and its sharp level."""
    pop = learned_by(family, 0).problem
    times = np.unique(np.geomspace(64, handoffs, 24).round().astype(int))
    alpha, start = local_step * float(pop.analysis.d_pair.mean()), np.zeros_like(pop.theta_star)
    level = math.sqrt(alpha * constant_step(pop, alpha).value)
    return poisson.tier_1(pop, alpha, start, times), poisson.tier_2(pop, alpha, start, times), level


def bounded(
    family: DialsFamily, local_step: float, *, seeds: int = 0, handoffs: int = 2**18, ax: Axes | None = None
) -> Axes:
    """A table with constant steps: Poisson bounds of first and second order, sharp level, what rewards alone say,

    and what `seeds` runs were observed to do.
    """  # fmt: skip
    ax, pop = axes(ax), learned_by(family, 0).problem
    first, second, level = bounds(family, local_step, handoffs)
    times = second.times
    ax.plot(times, first.value, "--", color=BOUND, linewidth=1, alpha=0.6, label="bound, first order only")
    ax.plot(times, second.value, "--", color=BOUND, linewidth=2, label="bound, known before the run")
    if seeds:
        e = table_errors(family, local_step, seeds, tuple(times.tolist()))
        band(ax, times.tolist(), [root_mean_square(e[:, k]) for k in range(len(times))], COLOUR["residual"], "observed")
    ax.axhline(level, color=INK, linestyle="-.", linewidth=1.1, label="sharp level")
    ax.axhline(pop.range_cap, color=CONTROL, linewidth=1, label="what rewards alone say")
    above = f"{second.value[-1] / level:.2g} x sharp" if second.value[-1] < pop.range_cap else "vacuous"
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="residual", ylim=(5e-4, 50))
    ax.set_title(f"mixing {family.mixing:g}, local step {local_step:g}: {above}")
    ax.legend(fontsize=8, loc="lower left")
    return ax


# --- total ----------------------------------------------------------------------------------------------------------

HANDOFFS = np.geomspace(1e2, 1e8, 241)
LIMITS = (5e-3, 20.0)


def budget(at: Terms, constant: float, handoffs: int, cap: float, *, name: str = "", ax: Axes | None = None) -> Axes:
    """The three errors and their sum against handoffs, and which is the largest after `handoffs`.

    constant: of the residual, sqrt(constant/T); at: the terms after `handoffs`; cap: what the range of rewards alone
    says of the total; name: of the position, in the title.
    """
    ax, residual = axes(ax), np.sqrt(constant / HANDOFFS)
    known = {name: np.full_like(residual, getattr(at, name).value) for name in TERMS[:2]}
    lines = {**known, "residual": residual}
    for term, y in lines.items():
        ax.plot(HANDOFFS, y, color=COLOUR[term], linewidth=2, label=NAME[term])
    ax.plot(HANDOFFS, sum(lines.values()), color=COLOUR["total"], linewidth=2, label="sum")
    ax.axvline(handoffs, color="0.7", linewidth=1, zorder=0)
    ax.axhline(cap, color=CONTROL, linewidth=1, label="what rewards alone say")
    ax.plot([handoffs], [at.total.value], "o", color=COLOUR["total"])
    ax.plot([handoffs], [at.total.bound], "v", color=BOUND, label="bound on the sum")
    ax.set(xscale="log", yscale="log", xlabel="handoffs", ylabel="error in the d-norm")
    ax.set_title(f"{name}\n{said(at)}" if name else said(at), fontsize=10)
    ax.set(xlim=(HANDOFFS[0], HANDOFFS[-1]), ylim=LIMITS)
    ax.legend(fontsize=8, ncols=2, loc="upper right")
    return ax


def dials_budget(family: DialsFamily, features: int, handoffs: int, *, ax: Axes | None = None) -> Axes:
    """`budget` of a dials workflow."""
    name = f"gap {family.gap:g}, {class_name(features)}, mixing {family.mixing:g}, {handoffs:,} handoffs"
    at, constant = terms.terms(family, features, handoffs), learned_by(family, features).constant
    cap = trivial_cap(terms.analysis(terms.without_mixing(family)))
    return budget(at, constant, handoffs, cap, name=name, ax=ax)


def said(t: Terms) -> str:
    """Which error dominates, and its share of the sum."""
    if t.dominant is None:
        return "not known: an assumption fails"
    share = getattr(t, t.dominant).value / t.total.value
    return f"{NAME[t.dominant]} dominates, {share:.0%} of {t.total.value:.2g}"


def dominance(family: DialsFamily, features: int, gaps: Sequence[float], *, ax: Axes | None = None) -> Axes:
    """Which error is the largest, over gap dial and handoffs, with contours of their sum.

    gaps: where the interface gap is computed; drawn linearly between.
    """
    ax, found, fine = axes(ax), learned_by(family, features), np.linspace(gaps[0], gaps[-1], 241)
    known = [terms.interface_of(replace(family, gap=g)).value for g in gaps]
    gap = np.interp(fine, np.asarray(gaps), known)[:, None]
    residual = np.sqrt(found.constant / HANDOFFS)[None, :]
    sizes = np.stack(np.broadcast_arrays(gap, found.error.value, residual))
    colours = ListedColormap([COLOUR[term] for term in TERMS])
    ax.pcolormesh(
        HANDOFFS, fine, sizes.argmax(0), cmap=colours, vmin=-0.5, vmax=2.5, alpha=0.45, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    lines = ax.contour(HANDOFFS, fine, sizes.sum(0), levels=[0.1, 0.2, 0.4, 0.8, 1.6], colors=INK, linewidths=0.9)
    for k, term in enumerate(TERMS):
        rows, columns = np.nonzero(sizes.argmax(0) == k)
        if len(rows) > 0.04 * sizes[0].size:
            ax.text(
                float(np.exp(np.log(HANDOFFS)[columns].mean())), float(fine[rows].mean()), NAME[term], ha="center",
                va="center", fontsize=9, weight="bold", bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0},
            )  # fmt: skip
    ax.clabel(lines, fmt="%g", fontsize=8)
    ax.set(xscale="log", xlabel="handoffs", ylabel="gap dial", title=class_name(features))
    ax.grid(visible=False)
    return ax


def evaluated(formulas: Mapping[str, sp.Expr], values: symbolic.Values) -> str:
    """Two Markdown tables: every formula with its number, and what its symbols are and mean."""
    rows = ["| term | formula | number |", "| --- | --- | --- |"]
    for name, formula in formulas.items():
        rows.append(
            f"| {name} | ${sp.latex(sp.powsimp(formula, force=True))}$ | {symbolic.evaluate(formula, values):.3g} |"
        )
    rows += ["", "| symbol | number | meaning |", "| --- | --- | --- |"]
    for symbol in sorted(set().union(*(f.free_symbols for f in formulas.values())), key=str):
        meaning = symbolic.MEANING[symbol].replace("|", "\\|")
        rows.append(f"| ${sp.latex(symbol)}$ | {values[symbol]:.3g} | {meaning} |")
    return "\n".join(rows)


# --- planner --------------------------------------------------------------------------------------------------------

BOUGHT = {"width": COLOUR["approximation"], "bits": COLOUR["interface"], "handoffs": COLOUR["residual"]}


def shopping(
    target: float, targets: Sequence[float], width: PowerLaw, bits: BitLaw, residual: ResidualModel, costs: Costs,
    *, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """What the cheapest design for each target error spends on width, bits and handoffs; `target` is spelt out."""
    ax, spent = axes(ax), np.full((3, len(targets)), np.nan)
    for k, goal in enumerate(targets):
        try:
            p = plan(goal, width, bits, residual, costs)
        except Infeasible:
            continue
        spent[:, k] = costs.width * p.width, costs.bits * p.bits, costs.handoffs * p.handoffs
    for (name, colour), cost in zip(BOUGHT.items(), spent, strict=True):
        ax.plot(targets, cost, color=colour, linewidth=2, label=name)
    ax.plot(targets, spent.sum(0), color=COLOUR["total"], linewidth=2, label="cost of all")
    ax.axvline(target, color="0.7", linewidth=1, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="target for the total error", ylabel="spent")
    ax.set_title(f"{name_of(costs)}\n{bought(target, width, bits, residual, costs)}", fontsize=10)
    ax.legend(fontsize=8)
    return ax


def name_of(costs: Costs) -> str:
    """Prices in words."""
    return f"a bit costs {costs.bits:g}, 1000 handoffs {1000 * costs.handoffs:g}"


def bought(target: float, width: PowerLaw, bits: BitLaw, residual: ResidualModel, costs: Costs) -> str:
    """The cheapest design in words, or why there is none."""
    try:
        p = plan(target, width, bits, residual, costs)
    except Infeasible as error:
        return str(error).split(";")[0]
    return f"{target:g}: width {p.width}, {p.bits} bits, {p.handoffs:,} handoffs for {p.cost:.3g}"


# --- one's own workflow -----------------------------------------------------------------------------------------------


def diagnosed(found: Mapping[str, Estimate], truth: Mapping[str, float], *, ax: Axes | None = None) -> Axes:
    """The three terms of a diagnosis with their intervals, beside the exact ones where those are known."""
    ax = axes(ax, 5.6, 2.2)
    for k, (term, e) in enumerate(found.items()):
        if e.known:
            ax.barh(k, e.value, height=0.55, color=COLOUR[term])
            ax.plot(e.interval, [k, k], color=INK, linewidth=1.5)
        else:
            ax.text(0, k, " not known", va="center", fontsize=9)
    marks = [(truth[term], k) for k, term in enumerate(found) if term in truth]
    if marks:
        x, y = zip(*marks, strict=True)
        ax.plot(x, y, "|", color=RED, markersize=22, markeredgewidth=2, label="exact")
        ax.legend(fontsize=8)
    ax.set_yticks(range(len(found)), [NAME[term] for term in found])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel("values are off by (reward units)")
    ax.grid(axis="y", visible=False)
    return ax


def errors_and_bounds(found: Mapping[str, Measured]) -> str:
    """A Markdown table: root mean square of every error of the average after the last handoff, with its bound."""
    last = max(int(m.times[-1]) for m in found.values())
    rows = [f"| after {last:,} handoffs | " + " | ".join(NAME[term] for term in decomposition.TERMS) + " |"]
    rows.append("| --- " * 5 + "|")
    for name, m in found.items():
        cells = []
        for term in decomposition.TERMS:
            e, bound = m.seen[term][AVERAGE][-1].value, m.before.bounds[term][Output.AVERAGE][-1]
            cells.append(f"{e:.3f} (at most {bound.value:.3f})" if bound.value > 0 else f"{e:.3f}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)
