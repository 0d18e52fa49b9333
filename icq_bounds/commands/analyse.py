"""The command `icq analyse`: everything exact about an instance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from tyro.conf import Positional

from bounds.core.bound import Bound
from bounds.core.sheet import Sheet, SheetTable
from bounds.core.statement import HEADER, term_rows
from bounds.core.term import Observed, Rung, Term
from bounds.interface import gap
from estimators.statistics.estimate import finite
from icq.exact import Analysis, AnalysisError, analyse, handoff_chain, optimum, oracle_model, recurrent
from icq.exact import markov as chains
from icq.exact.fixed_point import Solution, modulus
from icq.reason import Reason
from icq.smdp import ICSMDP
from icq_bounds.plain import plain

SHOWN = 400  # states times options up to which Q* is shown
VISIBLE = 1e-9  # share of the range of values from which a solver's error is pointed out
MIXING_LIMIT = 2000  # states up to which the exact mixing time (dense powers) is worth the wait
MEANING = {
    "gamma_bar": "largest expected discount of an option (sup-norm modulus)",
    "kappa": "d-norm modulus of the interface operator; rungs that know only it need it below 1",
    "kappa_s": "the same for the oracle on global states",
    "v_star_min": "oracle's value, smallest of any state",
    "v_star_max": "and largest; neither needs a stationary law",
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
BOUNDS = {"gap_value_sup": "gap value", "gap_scalar": "scalar gap"}  # numbers that are bounds, by their names


@dataclass(frozen=True)
class AnalyseOptions:
    """Everything exact about an instance: fixed points, interface gap and its bounds, contraction, mixing.

    Values and gaps are in units of reward, the mixing time in handoffs.

    Example: icq analyse m.npz
    """

    file: Positional[Path]
    """An instance (.npz with the field names as keys)."""
    json: bool = False
    """Print one JSON object; quantities that are undefined on this instance are null."""


def run(options: AnalyseOptions, console: Console) -> None:
    """Print the exact analysis of an instance, as tables or as JSON."""
    report, terms = analysis_report(ICSMDP.load(options.file))
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
        return
    for problem in report["problems"]:
        console.print(Text.assemble(("note", "bold"), " ", problem), soft_wrap=True)
    rows = [
        (name, "undefined" if report[name] is None else f"{report[name]:.6g}", text) for name, text in MEANING.items()
        if name not in BOUNDS or not terms
    ]  # fmt: skip
    ladders = (SheetTable(caption, HEADER, term_rows(term)) for caption, term in terms.items())
    exact = SheetTable("Exact numbers", ("quantity", "value", "meaning"), tuple(rows))
    statement = "||.||_d weighs states by how often they occur; icq theorem has more bounds"
    tables = [exact, *ladders]
    if report["q_star"] is not None and not report["irreducible"]:
        cells = (["-" if x is None else f"{x:.6g}" for x in row] for row in report["q_star"])
        numbered = ((str(s), *row) for s, row in enumerate(cells))
        head = ("state", *(f"option {a}" for a in range(len(report["q_star"][0]))))
        tables.append(SheetTable("Q*, the optimum that sees the state", head, tuple(numbered)))
    print(Sheet(plain(options.file), statement, tuple(tables)).text(max(console.width, 80)))


def analysis_report(m: ICSMDP) -> tuple[dict[str, Any], dict[str, Term]]:
    """Every number of `icq analyse`, and its bounds as terms.

    Numbers are null where the instance leaves them undefined, `problems` says why; then there are no terms.
    """
    report: dict[str, Any] = dict.fromkeys(MEANING) | {"bounds": {}}
    terms: dict[str, Term] = {}
    refused: list[str] = []
    a, solved = None, None
    try:
        a = analyse(m)
        solved = a.oracle_solution
    except AnalysisError as error:
        refused.append(error.why.need if error.why.reason is Reason.SEVERAL_CLASSES else str(error))
        if error.why.reason is not Reason.NO_DISCOUNT:
            solved = optimum(m)
        if error.why.reason is Reason.NO_MASS:
            a = analyse(recurrent(m))
            refused.append(
                f"numbers that rest on the stationary law, gaps and bounds are those of the {len(a.d)} of "
                f"{m.num_states} states that recur; q_star, v_star_min and v_star_max are of all states"
            )
    transition = handoff_chain(m)
    structure, slem = chains.structure(transition), None
    if a is None:
        slem = finite(chains.slem(transition))
        report["spectral_gap"] = None if slem is None else 1 - slem
    else:
        slem, terms = finite(a.slem), ladders(a)
        report["bounds"] = {rung.bound.name: _bound(term, rung.bound) for term in terms.values() for rung in term.rungs}
        report |= {name: finite(value) for name, value in _numbers(a).items()}
        report |= {name: report["bounds"][bound]["bound"] for name, bound in BOUNDS.items()}
    report |= _optimum(m, solved)
    if a is not None:
        if report["solver_error"] > VISIBLE * report["gap_trivial"]:
            refused.append(
                f"solver_error: values and gaps are known up to {report['solver_error']:.2g} only, "
                "as gamma is so close to 1 that rounding shows"
            )
        if len(a.d) > MIXING_LIMIT:
            refused.append(f"mixing_time: not computed above {MIXING_LIMIT} states")
    if slem is None:
        refused.append("slem: the eigenvalue iteration did not converge")
    return report | {
        "slem": slem, "irreducible": structure.irreducible, "aperiodic": structure.aperiodic,
        "closed_classes": len(structure.closed), "period": list(structure.period),
        "problems": [*structure.problems(), *refused],
    }, terms  # fmt: skip


def _optimum(m: ICSMDP, solved: Solution | None) -> dict[str, Any]:
    """What needs no stationary law: of all states."""
    model = oracle_model(m)
    found: dict[str, Any] = {"gamma_bar": modulus(model.kernel), "q_star": None}
    if solved is None:
        return found
    if solved.q.size <= SHOWN:
        live = model.available
        found["q_star"] = [[x if ok else None for x, ok in zip(*row)] for row in zip(solved.q.tolist(), live.tolist())]
    return found | {"v_star_min": float(solved.v.min()), "v_star_max": float(solved.v.max())}


def _numbers(a: Analysis) -> dict[str, float]:
    value = a.interface_value
    return {
        "gamma_bar": a.gamma_bar, "kappa": a.kappa, "kappa_s": gap.oracle_contraction(a),
        "v_star_mean": float(a.d @ a.v_star), "v_bar_mean": float(a.d_obs @ a.v_bar),
        "policy_value_mean": float(a.d @ value.v), "policy_loss_sup": float(a.policy_loss.max()),
        "gap_exact_sup": a.norm_sup_state(a.gap), "gap_exact_d": a.norm_d_state(a.gap),
        "gap_trivial": gap.trivial_cap(a),
        "local_gap_sup": a.norm_sup_state(a.local_gap), "local_gap_d": a.norm_d_state(a.local_gap),
        "action_gap": a.action_gap, "spectral_gap": a.spectral_gap,
        "mixing_time": a.mixing_time() if len(a.d) <= MIXING_LIMIT else float("nan"),
        "solver_error": max(a.oracle_solution.error, a.interface_solution.error, value.error),
    }  # fmt: skip


def ladders(a: Analysis) -> dict[str, Term]:
    """The interface gap in both norms and the loss it causes, each with its bounds; captions say which."""
    gap_error, loss_error = gap.observed_error(a), gap.loss_error(a)

    def term(name: str, claim: str, seen: float, error: float, *bounds: Bound) -> Term:
        return Term(name, claim, tuple(map(Rung, bounds)), bounds[0].trivial, observed=Observed.exact(seen, error))

    return {
        "Interface gap |Q* - Qbar o phi|, largest": term(
            "interface", "||Qbar o phi - Q*||", a.norm_sup_state(a.gap), gap_error,
            gap.gap_value_bound(a), gap.scalar_gap_bound(a),
        ),
        "Interface gap in the d-norm (icq theorem shows all its bounds)": term(
            "interface", "||Qbar o phi - Q*||_d", a.norm_d_state(a.gap), gap_error,
            gap.gap_value_bound_d(a), gap.scalar_gap_bound_d(a),
        ),
        "Loss of the greedy interface policy, largest": term(
            "loss", "max V* - V^pi", float(a.policy_loss.max()), loss_error,
            gap.greedy_loss_bound(a), gap.greedy_loss_scalar(a),
        ),
    }  # fmt: skip


def _bound(term: Term, b: Bound) -> dict[str, Any]:
    assert term.observed is not None
    return {
        "observed": term.observed.value, "bound": finite(b.value), "trivial": finite(term.trivial),
        "verdict": str(term.verdict(b)), "failed": [str(x) for x in b.failures],
    }  # fmt: skip
