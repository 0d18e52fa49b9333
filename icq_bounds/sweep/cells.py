"""One cell of an experiment: an instance, a way to learn, and every error beside its bound and its certificate.

A cell is a frozen dataclass of plain numbers, so it names its own result.  Running it is a pure function: equal cells
give equal numbers.  Notation: docs/theory.md sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bounds.interface import gap as interface
from icq import baselines
from icq.exact import Analysis, analyse
from icq.exact.fixed_point import greedy
from icq.learn.learner import learn
from icq.reason import NoNumber
from icq_bounds.sweep.families import Family
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.measure import measured
from icq_bounds.sweep.methods import SGD, Features, Method, Mlp, PlainMlp, Table, asymptote
from icq_bounds.sweep.store import Arrays


@dataclass(frozen=True)
class Cell:
    """What to run.  Everything that can change a number is a field."""

    method: Table | Features | Mlp | PlainMlp
    seeds: int
    checkpoints: tuple[int, ...]
    family: Family
    iid: bool = False
    who: Who = Who.ICQ

    def label(self) -> str:
        """A short name for progress lines."""
        match self.method:
            case Features(count=size) | Mlp(width=size) | PlainMlp(width=size):
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
        """Learn once; return the value of the learned policies and, for IC-Q, every error with its evidence."""
        true = analyse(self.family.workflow())
        how = (self.method, self.seeds, self.checkpoints, self.iid)
        if self.who is Who.ICQ:
            return learn_and_measure(true, *how) | exact_numbers(true)
        change = baselines.centralised if self.who is Who.CENTRALISED else baselines.independent
        a = analyse(change(true.smdp))
        record = learn(a, self.method.build(a), self.method.config(a, self.iid), range(self.seeds), self.checkpoints)
        rows = np.arange(true.smdp.num_states) if self.who is Who.CENTRALISED else np.asarray(true.smdp.observation)
        return values(true, np.asarray(record.q_average, np.float64)[:, -1][:, rows])


def learn_and_measure(a: Analysis, method: Method, seeds: int, checkpoints: Sequence[int], iid: bool) -> Arrays:
    """IC-Q on an analysed instance: learned values (`values`) and every error with its evidence (`Measured.arrays`)."""
    found = measured(a, method, seeds, checkpoints, iid)
    lifted = found.q[1, :, -1][:, np.asarray(a.smdp.observation)]
    try:
        limit = asymptote(method.population(a, method.build(a)), method.config(a, iid), iid)
    except NoNumber:  # a class without a fixed point has no limit; its bound says why
        limit = np.array(np.nan)
    return values(a, lifted) | found.arrays() | {"asymptote": limit}


def values(a: Analysis, q: Float[np.ndarray, "R S A"]) -> Arrays:
    """Stationary values in the true workflow: `value` [R] of the policies greedy in the tables over states, and those
    of the behaviour policy, of the exact interface policy and of the optimum; `value_slack`: how far solvers and
    rounding may have moved their differences.  NaN where a run diverged.
    """  # fmt: skip
    learned = [
        baselines.mean_value(a, greedy(table, a.oracle.available)[0]) if np.isfinite(table).all() else np.nan
        for table in q
    ]
    off = 2 * (a.oracle_solution.error + a.interface_value.error) + 1e-12 * float(np.abs(a.v_star).max())
    return {
        "value_slack": np.array(off), "value": np.array(learned), "value_random": np.array(baselines.random_value(a)),
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
