"""One cell of the routing experiment: how well IC-Q routes at one view size, beside what is exact.

Running a cell is a pure function of its fields.  Notation: docs/theory.md sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from icq import baselines
from icq.build import Workflow
from icq.exact import Analysis, analyse
from icq.exact.fixed_point import greedy
from icq.learn import classes, sampling
from icq.learn.learner import LearnerConfig, learn
from icq.tasks import start_law, task_total
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common.table_errors import errors_of_table
from synthetic.routing import Routing, answered, routing


@dataclass(frozen=True)
class RoutingCell:
    """What to run.  bits: view of every agent; handoffs: learned per seed."""

    bits: int
    who: Who
    seeds: int
    handoffs: int
    specialists: int = 4
    intents: int = 4
    instance: int = 0

    @property
    def game(self) -> Routing:
        """The workflow's sizes and prices."""
        return Routing(self.specialists, self.intents, seed=self.instance).with_view(self.bits)

    def label(self) -> str:
        """A short name for progress lines."""
        return f"{self.who.value}, view of {self.bits} bits"

    def program(self) -> Hashable:
        """Cells that agree in this run the same compiled program."""
        return (self.bits, self.who is Who.CENTRALISED, self.seeds, self.specialists, self.intents)

    def run(self) -> Arrays:
        """Learn and measure: `right` share of requests answered by the right specialist, `value` at the start, `steps`
        and `handoffs` per task, one per seed; for IC-Q the errors against Qbar and Q*; exact numbers of the instance.
        """  # fmt: skip
        workflow, true = _solved(self.game)
        m, starts = workflow.smdp, start_law(workflow.smdp)
        change = {Who.CENTRALISED: baselines.centralised, Who.INDEPENDENT: baselines.independent}.get(self.who)
        seen = true if change is None else analyse(change(m))
        config = LearnerConfig(step=1.0, decay_power=1.0, decay_offset=30.0, averaging_power=2.0, visit_normalised=True)
        record = learn(sampling.tables(seen), classes.tabular(seen.smdp), config, range(self.seeds), [self.handoffs])
        q = np.asarray(record.q_average[:, -1], np.float64)
        rows = np.arange(m.num_states) if self.who is Who.CENTRALISED else np.asarray(m.observation)
        event = answered(workflow, self.game)
        totals: dict[str, list[float]] = {"right": [], "value": [], "steps": [], "per_task": []}
        for table in q:
            policy = greedy(table, seen.interface.available)[0][rows]
            totals["right"].append(float(starts @ task_total(m, policy, event)))
            totals["value"].append(float(starts @ true.oracle.evaluate(policy).v))
            totals["steps"].append(float(starts @ task_total(m, policy, np.asarray(m.duration, float))))
            totals["per_task"].append(float(starts @ task_total(m, policy, np.ones(m.prob.shape))))
        out = {name: np.array(numbers) for name, numbers in totals.items()}
        return out | (_exact(workflow, true, self.game) | errors_of_table(true, q) if change is None else {})


@lru_cache(maxsize=2)
def _solved(game: Routing) -> tuple[Workflow, Analysis]:
    workflow = routing(game)
    return workflow, analyse(workflow.smdp)


def _exact(workflow: Workflow, a: Analysis, game: Routing) -> Arrays:
    """What no learner enters: accuracy and value of the interface optimum, the oracle and random options."""
    m, starts, event = workflow.smdp, start_law(workflow.smdp), answered(workflow, game)
    out = {}
    for name, policy in (("bar", a.interface_solution.policy[m.observation]), ("star", a.oracle_solution.policy)):
        out[f"right_{name}"] = np.array(starts @ task_total(m, policy, event))
        out[f"value_{name}"] = np.array(starts @ a.oracle.evaluate(policy).v)
    behaviour = np.asarray(m.behaviour)[m.observation]
    out["value_random"] = np.array(starts @ a.oracle.evaluate_random(behaviour).v)
    numbers = {
        "states": m.num_states, "observations": m.num_observations, "kappa": a.kappa, "gamma_bar": a.gamma_bar,
        "local_gap_d": a.norm_d_state(a.local_gap), "local_gap_sup": a.norm_sup_state(a.local_gap),
    }  # fmt: skip
    return out | {name: np.array(value) for name, value in numbers.items()}
