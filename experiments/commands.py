"""What the commands do, behind their flags."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table as TextTable

from bounds import interface
from bounds.bound import Bound, verdict
from estimators import estimate
from estimators.decomposition import MixingSplit, mixing_split
from estimators.estimate import Estimate
from experiments import n10, plots, summary, theorem_report
from experiments.cells import TERMS, learn_and_measure
from experiments.methods import Features, Mlp, Table
from experiments.settings import Family
from experiments.store import Arrays
from icq import chain as chains
from icq.exact import Analysis, AnalysisError, analyse, handoff_chain, oracle_model
from icq.smdp import ICSMDP
from icq.solve import modulus

if TYPE_CHECKING:
    from experiments.cli import Learn, Theorem

MIXING_LIMIT = 2000  # states up to which the exact mixing time (dense powers) is worth the wait


def make(family: Family, out: Path, console: Console) -> None:
    """Write an instance of a family."""
    m = family.workflow()
    m.save(out)
    console.print(
        f"{out}: {m.num_agents} agents, {m.num_states} states, {m.num_observations} observations, "
        f"{m.num_options} options, {m.prob.shape[-1]} outcomes"
    )


def analyse_file(path: Path, as_json: bool, console: Console) -> None:
    """Print the exact analysis of an instance, as a table or as JSON."""
    m = ICSMDP.load(path)
    report = analysis_report(m)
    if as_json:
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
        "kappa": a.kappa, "kappa_s": interface.oracle_contraction(a), "v_star_mean": float(a.d @ a.v_star),
        "v_bar_mean": float(a.d_obs @ a.v_bar), "policy_value_mean": float(a.d @ value.v),
        "policy_loss_sup": float(loss.max()), "gap_exact_sup": a.norm_sup_state(a.gap),
        "gap_exact_d": a.norm_d_state(a.gap), "gap_value_sup": interface.gap_value_bound(a).value,
        "gap_scalar": interface.scalar_gap_bound(a).value, "gap_trivial": interface.trivial_cap(a),
        "local_gap_sup": a.norm_sup_state(a.local_gap), "local_gap_d": a.norm_d_state(a.local_gap),
        "action_gap": a.action_gap, "spectral_gap": a.spectral_gap,
        "mixing_time": a.mixing_time() if len(a.d) <= MIXING_LIMIT else float("nan"),
        "solver_error": max(a.oracle_solution.error, a.interface_solution.error, value.error),
    }  # fmt: skip


def _ladder(a: Analysis) -> list[tuple[Bound, float, float]]:
    """Bounds of the interface gap and of the loss it causes, each with what it bounds and that number's error."""
    sup, d = a.norm_sup_state(a.gap), a.norm_d_state(a.gap)
    gap_error, loss_error = interface.observed_error(a), interface.loss_error(a)
    return [
        (interface.gap_value_bound(a), sup, gap_error), (interface.scalar_gap_bound(a), sup, gap_error),
        (interface.gap_value_bound_d(a), d, gap_error), (interface.scalar_gap_bound_d(a), d, gap_error),
        (interface.greedy_loss_bound(a), float(a.policy_loss.max()), loss_error),
        (interface.greedy_loss_scalar(a), float(a.policy_loss.max()), loss_error),
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


def learn_file(options: Learn, console: Console) -> None:
    """Learn on an instance and print the terms at the checkpoints."""
    if options.features is not None and options.network is not None:
        raise ValueError("features and network: choose one function class")
    if options.split and options.iid:
        raise ValueError("split and iid: split runs the trajectory and the i.i.d. control; leave out iid")
    for name in ("handoffs", "seeds", "features", "network"):
        value = getattr(options, name)
        if value is not None and value < (2 if name == "seeds" else 1):
            raise ValueError(f"{name} = {value} is too small")
    method = Table() if options.features is None else Features(options.features)
    chosen = method if options.network is None else Mlp(options.network)
    a = analyse(ICSMDP.load(options.file))
    grid = n10.octaves(options.handoffs, min(1024, options.handoffs))
    grid = grid if grid[-1] == options.handoffs else (*grid, options.handoffs)
    start = time.perf_counter()
    with console.status("learning"):
        result = learn_and_measure(a, chosen, options.seeds, grid, options.iid)
        control = learn_and_measure(a, chosen, options.seeds, grid, True) if options.split else None
    seconds = time.perf_counter() - start
    terms = {name: [estimate.root_mean_square(result[f"e_{name}"][:, k]) for k in range(len(grid))] for name in TERMS}
    if options.json:
        said: dict[str, Any] = {name: [summary.as_dict(e) for e in found] for name, found in terms.items()}
        said |= {"handoffs": list(grid), "value_percent": summary.as_dict(n10.percent(result))}
        said |= {"verdicts": {t: n10.tally(result[f"verdict_{t}"]) for t in TERMS}}
        if control is not None:
            said["split"] = [
                {name: summary.as_dict(getattr(part, name)) for name in SPLIT} for part in _splits(result, control)
            ]
            said["split_ratio_limit"] = _finite(_limit(result, control))
        print(json.dumps(said, indent=2, allow_nan=False))
        return
    table = TextTable("handoffs", *(plots.NAME[name] for name in TERMS), title="root mean square error, d-norm, 95 %")
    for k, handoffs in enumerate(grid):
        table.add_row(str(handoffs), *(_short_interval(terms[name][k]) for name in TERMS))
    console.print(table)
    for name in TERMS:
        found = n10.tally(result[f"verdict_{name}"])
        console.print(f"{plots.NAME[name]:>14}: " + ", ".join(f"{count} {word}" for word, count in found.items()))
    if not bool(result["reference_converged"]):
        console.print(f"note: the reference Q_F still moves (residual {float(result['reference_residual']):.2e})")
    if control is not None:
        console.print(_split_table(grid, result, control))
    console.print(f"value: {n10.percent(result)} % of the oracle; {options.seeds} runs in {seconds:.1f} s")


SPLIT = ("markov", "iid", "excess", "excess_rms", "ratio")


def _splits(result: Arrays, control: Arrays) -> list[MixingSplit]:
    """The residual against that of the control at every checkpoint."""
    return [mixing_split(*pair) for pair in zip(result["e_mix"].T, control["e_mix"].T, strict=True)]


def _limit(result: Arrays, control: Arrays) -> float:
    """sqrt((Sigma_0 + Sigma_mix) / Sigma_0) in the norm of the error: where the ratio tends (NaN for networks)."""
    return float(np.sqrt(result["asymptote"] / control["asymptote"]))


def _split_table(grid: Sequence[int], result: Arrays, control: Arrays) -> TextTable:
    limit = _limit(result, control)
    tends = "" if np.isnan(limit) else f"; the ratio tends to {limit:.4g}"
    title = f"residual along the trajectory and with i.i.d. handoffs, same random numbers{tends}"
    table = TextTable("handoffs", "trajectory", "control", "difference", "ratio", title=title)
    found = _splits(result, control)
    for handoffs, part in zip(grid, found, strict=True):
        table.add_row(str(handoffs), *(str(x) for x in (part.markov, part.iid, part.excess_rms, part.ratio)))
    table.caption = f"pairing the runs divides the variance of their mean difference by {found[-1].saved:.2f}"
    return table


def _short_interval(e: Estimate) -> str:
    half = max(e.value - e.interval[0], e.interval[1] - e.value)
    return f"{e.value:.3g}" if half == 0 else f"{e.value:.3g} ±{half:.1g}"


def prove_file(options: Theorem, console: Console) -> None:
    """Print the error theorem on an instance, as tables, JSON or LaTeX."""
    if options.json and options.latex:
        raise ValueError("json and latex: choose one")
    for name, least in (("handoffs", 1), ("features", 0), ("points", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"{name} = {getattr(options, name)} must be at least {least}")
    m = ICSMDP.load(options.file)
    found = theorem_report.theorem_report(
        m, features=options.features, seed=options.seed, step=options.step, handoffs=options.handoffs,
        points=options.points,
    )  # fmt: skip
    if options.json:
        print(json.dumps(theorem_report.as_json(found), indent=2, allow_nan=False))
    elif options.latex:
        print(theorem_report.as_latex(found))
    else:
        print(found)
