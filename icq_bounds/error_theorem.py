"""The error theorem of one workflow: `theorem_report` computes it, the rest renders it.

docs/theory.md section 6.  Without a step the one is taken for which the closed form certifies the least error after the
given handoffs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, Bound
from bounds.core.term import Observed, Term
from bounds.residual import closed
from bounds.residual.constants import constants
from bounds.residual.poisson import tier_2_inequality
from bounds.residual.population import (
    Population,
    block_features,
    local_clock,
    tabular_features,
)
from bounds.residual.weights import last_weight
from bounds.theorem import NOTHING, Observations, Output, Theorem, solve_class, theorem
from estimators.decomposition import decompose
from estimators.statistics.estimate import root_mean_square
from icq.coerce import Instance, count, real
from icq.display import latex_number, latex_text
from icq.exact import Analysis, analyse, units
from icq.learn import classes
from icq.learn.classes import FunctionClass
from icq.learn.learner import LearnerConfig, learn

POINTS, LARGEST_STEP = 1000, 1e6  # how many times are shown; beyond it powers of a step overflow
STEPS = 10.0 ** np.linspace(-8, 0, 65)  # tried steps, over the largest one the certificate allows


def class_features(a: Analysis, features: int, seed: int) -> Float[np.ndarray, "X p"]:
    """Psi of so many random features per agent, or of the table for 0."""
    if features == 0:
        return tabular_features(a)
    found = classes.random_features(a.smdp, features, seed, dtype=np.float64)
    return block_features(a, np.asarray(found.features))


def best_step(pop: Population, handoffs: int) -> float:
    """The constant step whose closed form is least after `handoffs` updates from theta = 0.

    Where no step is certified, 1e-3 over the number of pairs.
    """
    fallback = 1e-3 / int(pop.analysis.interface.available.sum())
    if pop.too_slow is not None:
        return fallback
    weight = last_weight(pop)
    known = constants(pop, weight=weight)
    if not known.rate > 0:
        return fallback
    inequality, first, times = tier_2_inequality(known), closed.start(pop, 0 * pop.theta_star, weight), [handoffs]
    found = {}
    for alpha in (STEPS * 0.5 / max(inequality.mu, inequality.slack_1.c2, 1e-12)).tolist():
        if all(x.holds for x in closed.conditions(inequality, alpha)):
            found[alpha] = float(closed.squared_error(inequality, alpha, first, np.array(times))[0])
    return min(found, key=lambda alpha: found[alpha], default=fallback)


def theorem_report(
    m: Instance,
    *,
    features: int = 0,
    seed: int = 0,
    step: float | None = None,
    handoffs: int = 10_000_000,
    points: int = 5,
    runs: int = 0,
    observed: Observations = NOTHING,
) -> Theorem:
    """The theorem on a workflow, for IC-Q started at 0 with a constant step, beside what `runs` runs of it do.

    features: random features per agent, plain updates; 0 is the table with a step per own visit.  seed: of the
    features.  step: left out, `best_step`.  points: how many times between 64 and `handoffs` are shown.  runs: none, or
    at least 2, in double precision.  Raises AnalysisError for a workflow without a unique stationary law or with
    observations that are never made.
    """
    features, runs = count("features", features, least=0), count("runs", runs, least=0)
    seed = count("seed", seed, least=0, most=2**32 - 1)
    handoffs, points = count("handoffs", handoffs), count("points", points, most=POINTS)
    if step is not None and not 0 < real("step", step) <= LARGEST_STEP:
        raise ValueError(f"step = {step} must be positive, and at most {LARGEST_STEP:g}")
    whole = a = analyse(m)
    unit = units.unit(a.smdp) if observed is NOTHING else 1.0
    if unit != 1.0:
        a = analyse(units.scaled(a.smdp, unit))
    psi = class_features(a, features, seed)
    metric = local_clock(a, psi) if features == 0 else np.eye(psi.shape[1])
    solved = solve_class(a, psi, metric)
    if step is None:  # without a fixed point any step will do: the theorem says what is wrong with the class
        step = best_step(solved, handoffs) if isinstance(solved, Population) else 1e-3 / psi.shape[0]
    times = np.unique(np.geomspace(min(64, handoffs), handoffs, points).round().astype(int))
    if runs and isinstance(solved, Population):
        observed = observe(solved, features, seed, step, times, runs)
    found = theorem(a, step, times, psi=psi if features else None, metric=metric, observed=observed, solved=solved)
    return found if unit == 1.0 else found.rescaled(unit, whole)


def observe(
    pop: Population, features: int, seed: int, step: float, times: Int[np.ndarray, "n"], runs: int
) -> Observations:
    """Residual and total of both outputs in runs of the learner that the theorem speaks of.

    The theorem's average is of Q_0, ..., Q_{T-1}, the learner's of Q_1, ..., Q_T: they differ by Q_T/T, as Q_0 = 0.
    """
    a, live = pop.analysis, pop.analysis.interface.available
    if features:
        cls: FunctionClass = classes.random_features(a.smdp, features, seed, dtype=np.float64)
        config = LearnerConfig(step=step)
    else:
        cls = classes.tabular(a.smdp, dtype=np.float64)
        config = LearnerConfig(step=step, scale=1 / np.where(live, a.d_pair, 1.0))
    record = learn(a, cls, config, count("runs", runs, least=2), times)
    last = np.asarray(record.q, np.float64)
    average = np.asarray(record.q_average, np.float64) - last / times[:, None, None]
    residual, total = {}, {}
    for output, q in ((Output.LAST, last), (Output.AVERAGE, average)):
        errors, _ = decompose(a, q, pop.q_f)
        residual[output] = _seen(errors.residual, pop.residual)
        total[output] = _seen(errors.total, a.oracle_solution.error)
    return Observations(residual, total)


def _seen(errors: Float[np.ndarray, "R n"], allowance: float) -> list[Observed]:
    """Root mean squares over runs with 95 % intervals."""
    found = [root_mean_square(column) for column in errors.T]
    return [Observed(e.value, *e.interval, allowance) for e in found]


def as_json(t: Theorem) -> dict[str, Any]:
    """Everything the report says, for `json.dumps`; missing numbers are null, infinite ones the string "inf"."""
    m = t.analysis.smdp
    return {
        "instance": {
            "agents": m.num_agents, "states": m.num_states, "observations": m.num_observations,
            "options": m.num_options,
        },
        "class": t.class_name,
        "handoffs": t.times.tolist(),
        "interface": _term(t.interface),
        "approximation": _term(t.approximation),
        "residual": {o.value: [_term(term) for term in terms] for o, terms in t.residual.items()},
        "total": {o.value: [_term(t.total(o, i)) for i in range(len(t.times))] for o in t.residual},
        "value_loss": {o.value: _bound(t.value_loss(o)) for o in t.residual},
        "assumptions": [_assumption(a) | {"needed_by": list(used)} for a, used in t.assumptions.values()],
    }  # fmt: skip


def _number(value: float) -> float | str | None:
    value = float(value)
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _assumption(a: Assumption) -> dict[str, Any]:
    return {"name": a.name, "holds": a.holds, "margin": _number(a.margin), "detail": a.detail}


def _bound(b: Bound) -> dict[str, Any]:
    return {
        "name": b.name, "value": _number(b.value), "trivial": _number(b.trivial), "applicable": b.applicable,
        "terms": {k: _number(v) for k, v in b.terms.items()}, "fails": [_assumption(a) for a in b.failures],
        "reference": b.reference,
    }  # fmt: skip


def _observed(seen: Observed | None) -> dict[str, Any] | None:
    return None if seen is None else {k: _number(getattr(seen, k)) for k in ("value", "lower", "upper", "allowance")}


def _term(term: Term) -> dict[str, Any]:
    rungs = []
    for rung in term.rungs:
        said = term.verdict(rung.bound)
        more = {"exact": rung.exact, "ratio": _number(term.ratio(rung.bound.value))}
        rungs.append(_bound(rung.bound) | more | {"verdict": None if said is None else said.value})
    limit = term.limit
    return {
        "claim": term.claim, "trivial": _number(term.trivial), "best": term.best.name,
        "value": _number(term.best.value), "observed": _observed(term.observed), "rungs": rungs,
        "limit": None if limit is None else {
            "name": limit.name, "value": _number(limit.value), "is_a_bound": False,
            "fails": [_assumption(a) for a in limit.assumptions if not a.holds],
        },
    }  # fmt: skip


def as_latex(t: Theorem) -> str:
    """The statement with its numbers, and every rung in a tabular (needs no package)."""
    rows = []
    for mark, term in (
        (r"$E_{\mathrm{int}}$", t.interface),
        (r"$E_{\mathrm{app}}$", t.approximation),
        *((rf"$E_{{\mathrm{{mix}}}}$, {o.value}", terms[-1]) for o, terms in t.residual.items()),
        *((f"total, {o.value}", t.total(o)) for o in t.residual),
    ):
        for rung in term.rungs:
            seen = math.nan if term.observed is None else term.observed.value
            numbers = (rung.bound.value, seen, term.ratio(rung.bound.value))
            rows.append((mark, latex_text(rung.bound.name), *(f"${latex_number(x)}$" for x in numbers)))
    body = " \\\\\n".join(" & ".join(row) for row in rows)
    head = "term & bound & value & observed & ratio \\\\ \\hline"
    return f"{t._repr_latex_()}\n\n\\begin{{tabular}}{{llrrr}}\n{head}\n{body}\n\\end{{tabular}}\n"


def summary(t: Theorem) -> str:
    """One line: the certified total at the last time, or what is missing."""
    best = t.total(Output.LAST).best
    if not best.applicable:
        return "no certified total: " + "; ".join(map(str, best.failures))
    times = best.trivial / best.value if best.value > 0 else math.inf
    return f"certified total {best.value:.4g} after {t.times[-1]} handoffs, {times:.3g} times below the trivial cap"
