"""The command `icq analyse`: everything exact about an instance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as TextTable
from tyro.conf import Positional

from bounds.core.bound import Bound, verdict
from bounds.interface import gap
from icq.exact import Analysis, AnalysisError, analyse, handoff_chain, oracle_model
from icq.exact import markov as chains
from icq.exact.fixed_point import modulus
from icq.smdp import ICSMDP

MIXING_LIMIT = 2000  # states up to which the exact mixing time (dense powers) is worth the wait
MEANING = {
    "gamma_bar": "largest expected discount of an option (sup-norm modulus)",
    "kappa": "d-norm modulus of the interface operator; certificates need it below 1",
    "kappa_s": "the same for the oracle on global states",
    "v_star_mean": "oracle's value, stationary mean",
    "v_bar_mean": "interface value Vbar, stationary mean",
    "policy_value_mean": "true value of the greedy interface policy, stationary mean",
    "policy_loss_sup": "largest loss of that policy in any state",
    "gap_exact_sup": "interface gap |Q* - Qbar o phi|, largest",
    "gap_exact_d": "interface gap in the d-norm",
    "gap_value_sup": "its bound by the gap value",
    "gap_scalar": "its scalar bound, local gap / (1 - gamma_bar)",
    "gap_trivial": "what the range of rewards alone says",
    "local_gap_sup": "local gap |b|: Bellman residual of the interface solution",
    "local_gap_d": "local gap in the d-norm",
    "action_gap": "smallest margin of the greedy option in Qbar",
    "slem": "second largest eigenvalue modulus of the handoff chain",
    "spectral_gap": "1 - slem",
    "mixing_time": "handoffs until total variation from stationarity is below 1/4",
    "solver_error": "certified error of the fixed points, all rounding included",
}


@dataclass(frozen=True)
class AnalyseOptions:
    """Everything exact about an instance: fixed points, interface gap and its bounds, contraction, mixing."""

    file: Positional[Path]
    """An instance (.npz with the field names as keys)."""
    json: bool = False
    """Print one JSON object; quantities that are undefined on this instance are null."""


def run(options: AnalyseOptions, console: Console) -> None:
    """Print the exact analysis of an instance, as a table or as JSON."""
    m = ICSMDP.load(options.file)
    report = analysis_report(m)
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
        return
    for problem in report["problems"]:
        console.print(f"[bold]note[/bold] {problem}")
    table = TextTable("quantity", "value", "meaning")
    for name, value in report.items():
        if name in MEANING:
            table.add_row(name, "undefined" if value is None else f"{value:.6g}", MEANING[name])
    console.print(table)
    if report["bounds"]:
        console.print(_bound_table(report["bounds"]))


def analysis_report(m: ICSMDP) -> dict[str, Any]:
    """Every number of `icq analyse`; null where the instance leaves it undefined, `problems` says why."""
    report: dict[str, Any] = dict.fromkeys(MEANING)
    a: Analysis | None = None
    refused: list[str] = []
    try:
        a = analyse(m)
    except AnalysisError as error:
        refused = [str(error)]
    if a is None:
        transition = handoff_chain(m)
        structure = chains.structure(transition)
        report["gamma_bar"] = modulus(oracle_model(m).kernel)
        report["slem"] = _finite(chains.slem(transition))
    else:
        structure, report["gamma_bar"], report["slem"] = a.chain, a.gamma_bar, _finite(a.slem)
    problems = list(dict.fromkeys([*structure.problems(), *refused]))
    report["bounds"] = {}
    if a is not None:
        report |= {name: _finite(value) for name, value in _numbers(a).items()}
        if len(a.d) > MIXING_LIMIT:
            problems.append(f"mixing_time: not computed above {MIXING_LIMIT} states")
        report["bounds"] = {b.name: _bound(b, seen, allowance) for b, seen, allowance in _ladder(a)}
    elif report["slem"] is not None:
        report["spectral_gap"] = 1 - report["slem"]
    if report["slem"] is None:
        problems.append("slem: the eigenvalue iteration did not converge")
    report["irreducible"], report["aperiodic"] = structure.irreducible, structure.aperiodic
    report["closed_classes"], report["period"] = len(structure.closed), list(structure.period)
    report["problems"] = problems
    return report


def _numbers(a: Analysis) -> dict[str, float]:
    value, loss = a.interface_value, a.policy_loss
    return {
        "kappa": a.kappa, "kappa_s": gap.oracle_contraction(a), "v_star_mean": float(a.d @ a.v_star),
        "v_bar_mean": float(a.d_obs @ a.v_bar), "policy_value_mean": float(a.d @ value.v),
        "policy_loss_sup": float(loss.max()), "gap_exact_sup": a.norm_sup_state(a.gap),
        "gap_exact_d": a.norm_d_state(a.gap), "gap_value_sup": gap.gap_value_bound(a).value,
        "gap_scalar": gap.scalar_gap_bound(a).value, "gap_trivial": gap.trivial_cap(a),
        "local_gap_sup": a.norm_sup_state(a.local_gap), "local_gap_d": a.norm_d_state(a.local_gap),
        "action_gap": a.action_gap, "spectral_gap": a.spectral_gap,
        "mixing_time": a.mixing_time() if len(a.d) <= MIXING_LIMIT else float("nan"),
        "solver_error": max(a.oracle_solution.error, a.interface_solution.error, value.error),
    }  # fmt: skip


def _ladder(a: Analysis) -> list[tuple[Bound, float, float]]:
    """Bounds of the interface gap and of the loss it causes, each with what it bounds and that number's error."""
    sup, d = a.norm_sup_state(a.gap), a.norm_d_state(a.gap)
    gap_error, loss_error = gap.observed_error(a), gap.loss_error(a)
    return [
        (gap.gap_value_bound(a), sup, gap_error), (gap.scalar_gap_bound(a), sup, gap_error),
        (gap.gap_value_bound_d(a), d, gap_error), (gap.scalar_gap_bound_d(a), d, gap_error),
        (gap.greedy_loss_bound(a), float(a.policy_loss.max()), loss_error),
        (gap.greedy_loss_scalar(a), float(a.policy_loss.max()), loss_error),
    ]  # fmt: skip


def _bound(b: Bound, seen: float, allowance: float) -> dict[str, Any]:
    return {
        "observed": seen, "bound": _finite(b.value), "trivial": _finite(b.trivial),
        "verdict": verdict(b, seen, seen, allowance=allowance).value, "failed": [str(x) for x in b.failures],
    }  # fmt: skip


def _bound_table(bounds: dict[str, dict[str, Any]]) -> TextTable:
    table = TextTable("bound", "observed", "bound value", "ratio", "trivial", "verdict")
    for name, b in bounds.items():
        value = "-" if b["bound"] is None else f"{b['bound']:.4g}"
        ratio = "-" if b["bound"] is None or b["observed"] <= 1e-9 else f"{b['bound'] / b['observed']:.2f}"
        table.add_row(
            name, f"{b['observed']:.4g}", value, ratio, f"{b['trivial']:.4g}", "; ".join([b["verdict"], *b["failed"]])
        )
    return table


def _finite(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None
