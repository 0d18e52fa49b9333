"""`icq reproduce`: run the cells of an experiment, conclude, and draw its panels.

An experiment is its cells, and a function of their results that draws and returns what to write and what to print.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from tyro.conf import Positional

from estimators.decomposition import NAME
from estimators.statistics.estimate import from_dict
from icq_bounds.errors import Violated
from icq_bounds.numbers import text
from icq_bounds.sweep import engine
from icq_bounds.sweep.results import KINDS
from icq_bounds.sweep.store import Store
from icq_bounds.workflows.cpu import experiment as cpu
from icq_bounds.workflows.math import experiment as math_experiment
from icq_bounds.workflows.n10 import experiment as n10
from icq_bounds.workflows.n10 import panels, summary
from icq_bounds.workflows.routing import experiment as routing

SLOPES = ("local gap", "residual")
Summary = dict[str, Any]
Concluded = tuple[Summary, list[Path], list[str]]


@dataclass(frozen=True)
class ReproduceOptions:
    """Reproduce an experiment: figures and summary.json.

    Interrupted? Run the same command again: finished cells are kept in OUT/cells.

    Example: icq reproduce n10 --preset smoke --out results/n10
    """

    experiment: Positional[Literal["n10", "routing", "cpu", "math"]]
    """n10: the ten-agent synthetic workflow; routing: a gateway and specialists around a partly seen request;
    cpu: four agents write programs for a small register machine; math: a cheap and a strong language model share
    mathematical questions, from recorded answers."""
    preset: Literal["full", "smoke"] = "full"
    """full takes up to ten minutes on two cores, smoke about one."""
    out: Path | None = None
    """Folder for figures, summary.json and finished cells (default results/EXPERIMENT)."""
    clinc: Path | None = None
    """routing only: a folder with the CLINC150 data, to route real requests too."""
    gsm8k: Path | None = None
    """math only: a .csv of recorded answers of two models with the columns prompt, MODEL, MODEL_response; without,
    made-up ones."""
    jobs: int = 2
    """Processes."""


@dataclass(frozen=True)
class Experiment:
    """cells: what runs; conclude: conclusions, figures and lines to print, from every result."""

    cells: Sequence[Any]
    conclude: Callable[[Any, Path], Concluded]


def _n10(preset: n10.N10Preset, options: ReproduceOptions) -> Experiment:
    def conclude(results: Any, folder: Path) -> Concluded:
        said = summary.summarise(preset, results, *n10.local_gap_curves(preset))
        slopes = (f"{kind} slope {text(from_dict(said[f'{kind}_slope'.replace(' ', '_')]))}" for kind in SLOPES)
        lines = [
            ", ".join(slopes),
            f"IC-Q loses {text(from_dict(said['value_lost_at_zero_gap']))} against the oracle at zero gap, and comes "
            f"{text(from_dict(said['value_gained_percent_at_zero_gap']))} % of the way to it from random options",
        ]
        for kind in KINDS:
            found = said[kind]
            worst = ", ".join(f"{NAME[t]} {r:.2f}" for t, r in found["median_ratio"].items() if r is not None)
            counts = f"{found['records']} records of {found['distinct']} distinct {kind}s"
            lines.append(f"{counts}, {found['violations']} violations; median {kind}/observed: {worst}")
        moving = f"still moves (at most {said['reference_residual_max']:.1e})"
        lines += [f"note: the reference of {label} {moving}" for label in said["references_not_converged"]]
        return said, panels.draw_all(preset, results, folder), lines

    return Experiment(n10.all_cells(preset), conclude)


def _routing(preset: routing.RoutingPreset, options: ReproduceOptions) -> Experiment:
    def conclude(results: Any, folder: Path) -> Concluded:
        said = routing.summarise(preset, results, folder)
        right = 100 * said["accuracy_at_full_view"]["value"]
        lines = [
            f"IC-Q routes {right:.2f} % of requests correctly at full view",
            f"rank correlation of gap and accuracy lost: {said['rank_correlation_of_gap_and_accuracy_lost']:.3f}",
        ]
        for words, found in said["real_requests"].items():
            shares = (100 * found[name] for name in ("icq", "classifier_with_the_same_view"))
            lines.append("real requests, {} words: IC-Q {:.1f} % right, the classifier {:.1f} %".format(words, *shares))
        return said, routing.draw(results, folder), lines

    return Experiment(routing.cells(preset, options.clinc), conclude)


def _cpu(preset: cpu.CpuPreset, options: ReproduceOptions) -> Experiment:
    def conclude(results: Any, folder: Path) -> Concluded:
        said = cpu.summarise(preset, results, folder)
        full = str(max(preset.shown))
        solved = 100 * said["pairs_solved"]["IC-Q"][full]["value"]
        lines = [
            f"IC-Q solves {solved:.1f} % of (task, start) pairs at the full summary; "
            f"search solves {100 * said['pairs_solved_by_search']:.1f} %",
            f"value {said['value_of_icq']:.4f} of the optimum's {said['value_of_optimum']:.4f}",
        ]
        return said, cpu.draw(results, folder), lines

    return Experiment(cpu.cells(preset), conclude)


def _math(preset: math_experiment.MathPreset, options: ReproduceOptions) -> Experiment:
    def conclude(results: Any, folder: Path) -> Concluded:
        said = math_experiment.summarise(preset, results, folder)
        files = math_experiment.draw(results, folder)
        view = list(said["accuracy"]["IC-Q"])[-1]
        shares = [f"{name} {100 * x['right']:.1f} % at {1000 * x['dollars']:.2f}" for name, x in said["exact"].items()]
        right, dollars = (said[key]["IC-Q"][view]["value"] for key in ("accuracy", "dollars_per_question"))
        lines = [
            f"table: {said['questions']} questions, {said['table']}",
            f"accuracy and dollars per thousand questions: {', '.join(shares)}",
            f"IC-Q that sees {view}: {100 * right:.1f} % at {1000 * dollars:.2f}",
        ]
        return said, files, lines

    return Experiment(math_experiment.cells(preset, options.gsm8k), conclude)


EXPERIMENTS: dict[str, dict[str, Callable[[ReproduceOptions], Experiment]]] = {
    "n10": {p.name: partial(_n10, p) for p in (n10.FULL, n10.SMOKE)},
    "routing": {p.name: partial(_routing, p) for p in (routing.FULL, routing.SMOKE)},
    "math": {p.name: partial(_math, p) for p in (math_experiment.FULL, math_experiment.SMOKE)},
    "cpu": {p.name: partial(_cpu, p) for p in (cpu.FULL, cpu.SMOKE)},
}


def run(options: ReproduceOptions, console: Console) -> None:
    """Run an experiment and write its figures and summary."""
    engine.check_jobs(options.jobs)
    if options.clinc is not None and options.experiment != "routing":
        raise ValueError(f"clinc: real requests belong to the routing experiment, not to {options.experiment}")
    if options.gsm8k is not None and options.experiment != "math":
        raise ValueError(f"gsm8k: recorded answers belong to the math experiment, not to {options.experiment}")
    experiment = EXPERIMENTS[options.experiment][options.preset](options)
    folder = options.out or Path("results") / options.experiment
    start = time.perf_counter()
    results = engine.run_all(experiment.cells, Store(folder / "cells"), engine.processes(options.jobs), console)
    said, files, lines = experiment.conclude(results, folder)
    said = {"experiment": options.experiment} | said | {"seconds": round(time.perf_counter() - start, 1)}
    summary.write(said, folder / "summary.json")
    for line in lines:
        console.print(line)
    console.print(f"figures and summary.json in {folder} ({len(files)} figures, {said['seconds']} s)")
    if broken := said.get("violated"):
        raise Violated(f"a bound or certificate is violated in {len(broken)} cells: {'; '.join(broken[:3])}")
