"""One cell of an experiment: an instance, a way to learn, and every error beside its bound.

A cell is a frozen dataclass of plain numbers, so it names its own result.  Running it is a pure function: equal cells
give equal numbers.  Notation: docs/theory.md sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float

from bounds.approximation.certificate import certificate_pointwise
from bounds.core.bound import Assumption, Bound, Verdict, conditional, verdict
from bounds.interface import gap as interface
from estimators.decomposition import TERMS, decompose
from icq import baselines
from icq.exact import Analysis, analyse
from icq.exact.fixed_point import greedy
from icq.learn import sampling
from icq.learn.classes import FunctionClass
from icq.learn.learner import learn, seed_keys
from icq_bounds.sweep.families import Family
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import SGD, Certifier, Features, Method, Mlp, Reference, Table, add_bounds, asymptote
from icq_bounds.sweep.store import Arrays


@dataclass(frozen=True)
class Cell:
    """What to run.  Everything that can change a number is a field."""

    method: Table | Features | Mlp
    seeds: int
    checkpoints: tuple[int, ...]
    family: Family
    iid: bool = False
    who: Who = Who.ICQ

    def label(self) -> str:
        """A short name for progress lines."""
        match self.method:
            case Features(count=size) | Mlp(width=size):
                kind = f"{type(self.method).__name__}({size})"
            case _:
                kind = type(self.method).__name__
        numbers = (f"{name} {getattr(self.family, name):g}" for name in ("gap", "mixing") if hasattr(self.family, name))
        return ", ".join([self.who.value, kind, *numbers, "iid" if self.iid else "Markov"])

    def program(self) -> Hashable:
        """Cells that agree in this run the same compiled program."""
        method = replace(self.method, schedule=SGD)
        return (method, self.who is Who.CENTRALISED, self.seeds, len(self.checkpoints), self.family.sizes())

    def run(self) -> Arrays:
        """Learn once; return the value of the learned policies and, for IC-Q, every error beside its bound."""
        true = analyse(self.family.workflow())
        how = (self.method, self.seeds, self.checkpoints, self.iid)
        if self.who is Who.ICQ:
            return learn_and_measure(true, *how) | exact_numbers(true)
        change = baselines.centralised if self.who is Who.CENTRALISED else baselines.independent
        _, q = learn_tables(analyse(change(true.smdp)), *how)
        rows = np.arange(true.smdp.num_states) if self.who is Who.CENTRALISED else np.asarray(true.smdp.observation)
        return values(true, q[:, -1][:, rows])


def learn_tables(
    a: Analysis, method: Method, seeds: int, checkpoints: Sequence[int], iid: bool
) -> tuple[FunctionClass, Float[np.ndarray, "R K O A"]]:
    """The class, and the averaged tables of every run at the checkpoints."""
    cls = method.build(a.smdp)
    record = learn(sampling.tables(a), cls, method.config(iid), range(seeds), checkpoints)
    return cls, np.asarray(record.q_average, np.float64)


def learn_and_measure(a: Analysis, method: Method, seeds: int, checkpoints: Sequence[int], iid: bool) -> Arrays:
    """IC-Q on an analysed instance: learned values (`values`) and the decomposition beside its bounds (`measure`)."""
    cls, q = learn_tables(a, method, seeds, checkpoints, iid)
    reference = method.reference(a, cls, seed_keys(range(seeds)))
    lifted = q[:, -1][:, np.asarray(a.smdp.observation)]
    out = values(a, lifted) | measure(a, q, reference, partial(method.certify, a, cls))
    return out | {"asymptote": asymptote(method.population(a, cls), method.config(iid), iid)}


def values(a: Analysis, q: Float[np.ndarray, "R S A"]) -> Arrays:
    """Stationary values in the true workflow: `value` [R] of the policies greedy in the tables over states, and those
    of the behaviour policy, of the exact interface policy and of the optimum.  NaN where a run diverged.
    """  # fmt: skip
    learned = [
        baselines.mean_value(a, greedy(table, a.oracle.available)[0]) if np.isfinite(table).all() else np.nan
        for table in q
    ]
    return {
        "value": np.array(learned), "value_random": np.array(baselines.random_value(a)),
        "value_bar": np.array(a.d @ a.interface_value.v), "value_oracle": np.array(a.d @ a.v_star),
    }  # fmt: skip


def exact_numbers(a: Analysis) -> Arrays:
    """Constants of the instance and the sup-norm ladder of the interface gap."""
    numbers = {
        "gamma_bar": a.gamma_bar, "kappa": a.kappa, "slem": a.slem, "q_bar_norm": a.norm_d(a.q_bar),
        "action_gap": a.action_gap, "local_gap_sup": a.norm_sup_state(a.local_gap),
        "local_gap_d": a.norm_d_state(a.local_gap), "gap_exact_sup": a.norm_sup_state(a.gap),
        "gap_value_sup": interface.gap_value_bound(a).value, "gap_scalar": interface.scalar_gap_bound(a).value,
        "trivial_cap": interface.trivial_cap(a),
    }  # fmt: skip
    return {name: np.array(value) for name, value in numbers.items()}


def measure(
    a: Analysis,
    q: Float[np.ndarray, "R K O A"],
    reference: Reference,
    certify: Callable[[Float[np.ndarray, "O A"]], Certifier],
) -> Arrays:
    """The decomposition of every record [R, K] in the d-norm, each term beside its bound.

    e_TERM: observed; b_TERM: bound, NaN where inapplicable; slack_TERM: allowance for rounding and solver error;
    verdict_TERM: the verdict in words; sup_TERM: observed in the sup norm.  A run that diverged has NaN errors and no
    bound on them.
    """
    runs, marks = q.shape[:2]
    q_f = np.broadcast_to(reference.q, (runs, *q.shape[2:]))
    observed, sup = decompose(a, q, q_f[:, None])
    slack = allowances(a, reference)
    out: Arrays = {
        "reference_residual": np.array(reference.residual), "reference_converged": np.array(reference.converged)
    }  # fmt: skip
    for term in TERMS:
        out[f"e_{term}"] = np.broadcast_to(getattr(observed, term), (runs, marks)).copy()
        out[f"sup_{term}"] = np.broadcast_to(getattr(sup, term), (runs, marks)).copy()
        out[f"b_{term}"], out[f"slack_{term}"] = np.zeros((runs, marks)), np.zeros((runs, marks))
        out[f"verdict_{term}"] = np.full((runs, marks), Verdict.INAPPLICABLE.value, dtype="<U12")
    gap = interface.gap_value_bound_d(a)
    for r in range(runs):
        approximation, certificate = certificate_pointwise(a, q_f[r])[0], certify(q_f[r])
        for k in range(marks):
            residual = certificate(q[r, k]) if np.isfinite(q[r, k]).all() else diverged()
            total = add_bounds("total", gap, approximation, residual)
            for term, bound in zip(TERMS, (gap, approximation, residual, total), strict=True):
                seen = float(out[f"e_{term}"][r, k])
                out[f"b_{term}"][r, k] = bound.value
                out[f"slack_{term}"][r, k] = bound.roundoff + slack[term]
                said = verdict(bound, seen, seen, allowance=slack[term])
                out[f"verdict_{term}"][r, k] = said.value
    return out


def allowances(a: Analysis, reference: Reference) -> dict[str, float]:
    """How far the numbers of each term may be off by solver error, in reward units."""
    numerical = a.oracle_solution.error + a.interface_solution.error
    slack = {"interface": numerical, "approximation": numerical + reference.error, "residual": reference.error}
    return slack | {"total": sum(slack.values())}


def diverged() -> Bound:
    """No certificate speaks of a table that is not finite."""
    finite = Assumption("finite table", False, -np.inf, "the run diverged: choose a smaller step")
    return conditional("certificate", [finite], lambda: (np.nan, {}), "docs/theory.md section 4")
