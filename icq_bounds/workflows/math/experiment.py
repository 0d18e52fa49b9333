"""The mathematical-reasoning experiment: accuracy and cost of two language models under a learned division of labour.

Panel A: accuracy against cost.  Panel B: the three errors and the bound on the gap against the view.  Panel C:
value against the view, learned and exact, also on questions nobody learned from.  Panel D: the three errors of agents
linear in the bits that they see.  The workflow is this project's own
(synthetic.math_routing); the table is the user's, or made up, and every figure says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from estimators.logs.reader import read
from estimators.logs.recorder import Recorder
from estimators.statistics import estimate
from estimators.statistics.estimate import as_dict
from icq_bounds.diagnosis.diagnosis import diagnose
from icq_bounds.figures import style
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.provenance import provenance
from icq_bounds.sweep.results import lost
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common import terms
from icq_bounds.workflows.common.recorded import RecordedTable
from icq_bounds.workflows.common.term_cells import MathGame, Size, TermsCell
from icq_bounds.workflows.math.backends import Answer, Problem, Recorded
from icq_bounds.workflows.math.cells import FrontierCell, HeldOutCell, MathCell
from icq_bounds.workflows.math.play import Team, at_random, play
from synthetic.math_features import BITS
from synthetic.math_routing import Prices

AnyMathCell = MathCell | FrontierCell | HeldOutCell | TermsCell
MathResults = dict[AnyMathCell, Arrays]
POLICIES = {"star": "per-question oracle", "cheap": "always cheap", "strong": "always strong"}
LEGEND_SIZE = 8
LOGGED = 1  # bits seen in the log: every pair of view and context is then common


@dataclass(frozen=True)
class MathPreset:
    """Sizes of the experiment.

    bits: views compared (None: the question itself); told: views of the learners without a scalar and of the curves of
    accuracy against cost, one point per worth; splits: halvings of the questions; plays: of every question in the log;
    questions: made up where no table is given; terms: sizes of the cells with linear agents (`logged` is not
    used: a log of plays is diagnosed instead).
    """

    name: str
    seeds: int
    handoffs: int
    bits: tuple[int | None, ...]
    told: tuple[int | None, ...]
    worths: tuple[float, ...]
    splits: int
    plays: int
    questions: int
    terms: Size


FULL = MathPreset("full", seeds=8, handoffs=1_000_000, bits=(*range(BITS + 1), None), told=(0, 3, BITS),
              worths=(0.002, 0.005, 0.01, 0.02, 0.05, 0.2), splits=8, plays=30, questions=1000,
              terms=Size(seeds=4, handoffs=1_000_000, logged=0))  # fmt: skip
SMOKE = MathPreset("smoke", seeds=4, handoffs=300_000, bits=(0, 1, BITS, None), told=(BITS,), worths=(0.005, 0.02, 0.1),
               splits=4, plays=120, questions=200,
               terms=Size(seeds=4, handoffs=200_000, logged=0))  # fmt: skip


def cells(p: MathPreset, file: Path | None = None) -> list[AnyMathCell]:
    """Learners, curves and held-out questions; the centralised oracle is the same at every view, so it learns once."""
    source = RecordedTable.of(file, p.questions)
    made: list[AnyMathCell] = [MathCell(source, b, Who.ICQ, p.seeds, p.handoffs) for b in p.bits]
    made.append(MathCell(source, max(_seen(p)), Who.CENTRALISED, p.seeds, p.handoffs))
    made += [MathCell(source, b, Who.INDEPENDENT, p.seeds, p.handoffs) for b in p.told]
    made += [FrontierCell(source, b, p.worths) for b in (*p.told, None)]
    made += [TermsCell(MathGame(source, b), p.terms.seeds, p.terms.handoffs) for b in _seen(p)]
    return made + [HeldOutCell(source, b, p.splits) for b in _seen(p)]


def _seen(p: MathPreset) -> list[int]:
    """The views that are bits."""
    return [b for b in p.bits if b is not None]


def view_name(bits: int | None) -> str:
    """A view in words."""
    return "everything" if bits is None else str(bits)


def _of(results: MathResults, who: Who) -> list[tuple[int | None, Arrays]]:
    rows = ((c.bits, r) for c, r in results.items() if isinstance(c, MathCell) and c.who is who)
    return sorted(rows, key=lambda pair: BITS + 1 if pair[0] is None else pair[0])


def _exact(results: MathResults) -> Arrays:
    """Exact numbers that are the same at every view."""
    return _of(results, Who.ICQ)[0][1]


def _source(results: MathResults) -> RecordedTable:
    """The table behind all cells."""
    return next(c.source for c in results if isinstance(c, MathCell))


def _data(results: MathResults) -> str:
    """What the figures say about the table."""
    source = _source(results)
    return f"{source.questions} {'made-up' if source.file is None else 'recorded'} questions"


def replay(
    source: RecordedTable, path: Path, plays: int, bits: int | None, width: int, seed: int = 0
) -> dict[str, Any]:
    """Play every question `plays` times at random into a new handoff log, and say what a diagnosis of it finds.

    The context is which of the two models are right on the question: coarser than the question, so that a log of this
    size shows every context often; the interface gap it identifies is a lower bound.  width: of the networks whose
    approximation error the log judges.
    """
    table, team = source.table(), Team(("cheap",), ("strong",))
    backend = Recorded(table)

    def context(problem: Problem, read: Answer | None) -> str:
        return "cheap {}, strong {}".format(*("right" if x else "wrong" for x in table.correct[problem.number]))

    problems, choose = backend.problems(), at_random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with Recorder(path, gamma=Prices().gamma) as recorder:
        for turn in range(plays):
            name = partial("{1.number} play {0}".format, turn)
            play(backend, problems, team, choose, recorder, bits=bits, name=name, context=context)
    log, report = read(path)
    found = diagnose(log, width=width)
    return {
        "log": path.name, "tasks": plays * len(problems), "handoffs": len(log.reward), "faultless": report.faultless,
        "view": view_name(bits), "interface": as_dict(found.interface.gap), "local_gap": as_dict(found.interface.local),
        "approximation": as_dict(found.approximation.error), "residual": as_dict(found.residual.error),
    }  # fmt: skip


def summarise(p: MathPreset, results: MathResults, folder: Path) -> dict[str, Any]:
    """Every conclusion as JSON; writes the handoff log `handoffs.jsonl`."""
    learned, exact, source = _of(results, Who.ICQ), _exact(results), _source(results)

    def per_view(key: str) -> dict[str, Any]:
        return {who.value: {view_name(b): as_dict(estimate.mean(r[key])) for b, r in _of(results, who)} for who in Who}

    return {
        "preset": p.name, "seeds": p.seeds, "handoffs": p.handoffs, "questions": source.questions,
        "table": "made up by a random generator: says nothing about real models" if source.file is None
                 else "recorded answers of two language models, given by the user",
        "models": list(source.table().models), "prices": vars(Prices()),
        "accuracy": per_view("right"), "dollars_per_question": per_view("dollars"), "value": per_view("value"),
        "share_of_strong": per_view("strong"),
        "exact": {
            label: {key: float(exact[f"{key}_{name}"]) for key in ("right", "dollars", "strong", "value")}
            for name, label in POLICIES.items()
        },
        "exact_interface_optimum": {
            view_name(b): {key: float(r[f"{key}_bar"]) for key in ("right", "dollars", "strong", "value")}
            for b, r in learned
        },
        "terms_d_norm_of": "tables, which represent every Q exactly: no approximation error",
        "terms_d_norm": {
            view_name(b): terms.of_table(r) for b, r in learned
        },
        "unseen_questions": {
            str(c.bits): {key: as_dict(estimate.mean(r[key])) for key in r}
            for c, r in results.items() if isinstance(c, HeldOutCell)
        },
        "terms_of_linear_agents": terms.summarise(results)["terms_of_linear_agents"],
        "from_the_log": replay(source, folder / "handoffs.jsonl", p.plays, LOGGED, p.terms.width)
        | {"exact_gap_over_the_same_handoffs": float(dict(learned)[LOGGED]["gap_logged"])},
        "provenance": provenance(),
    }  # fmt: skip


def draw(results: MathResults, folder: Path) -> list[Path]:
    """The panels as PNG and SVG."""
    panels: dict[str, Callable[[], Axes]] = {
        "a_accuracy_cost": lambda: accuracy_cost(results), "b_terms": lambda: errors(results),
        "c_value": lambda: value(results), "d_linear": lambda: linear(results),
    }  # fmt: skip
    return style.save_panels(panels, folder)


def accuracy_cost(results: MathResults, ax: Axes | None = None) -> Axes:
    """Accuracy against dollars per thousand questions: curves of the exact optimum of a view, points of learners."""
    ax, exact = style.axes(ax, 6.4, 4.4), _exact(results)
    points = {name: (1000 * float(exact[f"dollars_{name}"]), 100 * float(exact[f"right_{name}"])) for name in POLICIES}
    mix = np.array([points["cheap"], points["strong"]]).T
    ax.plot(*mix, "--", color="0.6", label="a coin sends questions")
    curves = [(c, r) for c, r in results.items() if isinstance(c, FrontierCell)]
    for (c, r), shade in zip(curves, np.linspace(0.75, 0.0, len(curves)), strict=True):
        order = np.argsort(r["dollars"])
        label = f"interface optimum, {'the question' if c.bits is None else f'{c.bits} bits'} seen"
        ax.plot(1000 * r["dollars"][order], 100 * r["right"][order], ".-", color=str(shade), linewidth=1, label=label)
    for who, marker in zip(Who, "osv", strict=True):
        rows = _of(results, who)
        x, y = (np.array([r[key].mean() for _, r in rows]) for key in ("dollars", "right"))
        ax.plot(1000 * x, 100 * y, marker, color=style.WHO[who], markersize=6, alpha=0.8, label=who.value, zorder=3)
        if who is Who.ICQ:
            for (b, _), at in zip(rows, zip(1000 * x, 100 * y, strict=True), strict=True):
                ax.annotate("all" if b is None else str(b), at, textcoords="offset points", xytext=(5, -11),
                            color=style.WHO[who], fontsize=LEGEND_SIZE)  # fmt: skip
    for (name, at), marker in zip(points.items(), "*<>", strict=True):
        ax.plot(*at, marker, color="black", markersize=10 if name == "star" else 7, label=POLICIES[name], zorder=2)
    ax.set(xlabel="dollars per thousand questions", ylabel="questions answered right, %",
           title=f"Accuracy against cost, {_data(results)}")  # fmt: skip
    ax.legend(fontsize=LEGEND_SIZE, loc="lower right")
    return ax


def _ticks(ax: Axes, rows: Sequence[tuple[int | None, Arrays]]) -> np.ndarray:
    """Views as equally spaced positions; the question itself comes last."""
    x = np.arange(len(rows))
    ax.set_xticks(x, ["question" if b is None else str(b) for b, _ in rows])
    return x


def linear(results: MathResults, ax: Axes | None = None) -> Axes:
    """The three errors of linear agents against the view."""
    bits = [c.game.bits for c, _ in terms.learned(results) if isinstance(c.game, MathGame)]
    xlabel = "bits seen of the question and of the response"
    return terms.panel(results, bits, xlabel, f"Errors of linear agents, {_data(results)}", ax)


def errors(results: MathResults, ax: Axes | None = None) -> Axes:
    """Interface gap, residual and total of IC-Q against the view, with the bound on the gap."""
    ax, rows = style.axes(ax), _of(results, Who.ICQ)
    x = _ticks(ax, rows)
    terms.table_panel([r for _, r in rows], x.tolist(), ax)
    ax.set(xlabel="bits seen of the question and of the response", title=f"Errors of IC-Q, {_data(results)}")
    return ax


def value(results: MathResults, ax: Axes | None = None) -> Axes:
    """Value at the start that is lost against the per-question oracle, in reward, against the view."""
    ax, rows, exact = style.axes(ax), _of(results, Who.ICQ), _exact(results)
    best, x = float(exact["value_star"]), _ticks(ax, rows)
    place = {b: i for i, (b, _) in enumerate(rows)}
    for who in (Who.ICQ, Who.INDEPENDENT):
        shown = _of(results, who)
        values = [lost(r["value"], best) for _, r in shown]
        style.band(ax, [place[b] for b, _ in shown], values, style.WHO[who], who.value)
    central = best - float(_of(results, Who.CENTRALISED)[0][1]["value"].mean())
    ax.axhline(central, color=style.WHO[Who.CENTRALISED], linewidth=1, label=Who.CENTRALISED.value)
    ax.plot(x, [best - float(r["value_bar"]) for _, r in rows], ":", color="black", label="exact interface optimum")
    unseen = [(place[c.bits], r["value"]) for c, r in results.items() if isinstance(c, HeldOutCell)]
    held = [estimate.mean(best - v) for _, v in unseen]
    style.band(ax, [i for i, _ in unseen], held, style.SKY, "on unseen questions")
    for name, dashes in (("cheap", "--"), ("strong", "-.")):
        ax.axhline(best - float(exact[f"value_{name}"]), color="0.5", linestyle=dashes, linewidth=1,
                   label=POLICIES[name])  # fmt: skip
    ax.set(xlabel="bits seen of the question and of the response", ylabel="value lost against the per-question oracle",
           title=f"Value lost, {_data(results)}")  # fmt: skip
    ax.legend(fontsize=LEGEND_SIZE, loc="lower left", bbox_to_anchor=(0.0, 0.1))  # between the cheap model and the rest
    return ax
