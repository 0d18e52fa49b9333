"""Cells of the mathematical-reasoning experiment: IC-Q on recorded answers of two language models.

Beside what is learned stands what is exact.  Running a cell is a pure function of its fields.  Notation:
docs/theory.md sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from icq import baselines
from icq.build import Workflow
from icq.display import Fact, Shown
from icq.exact import Analysis, analyse
from icq.exact.fixed_point import greedy
from icq.learn import classes, sampling
from icq.learn.learner import LearnerConfig, learn
from icq.tasks import start_law, task_total
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common.recorded import RecordedTable
from icq_bounds.workflows.common.table_errors import errors_of_table
from synthetic.math_data import RecordedAnswers
from synthetic.math_routing import ALWAYS_CHEAP, ALWAYS_STRONG, Prices, amounts, math_routing, policy_of


@dataclass(frozen=True)
class MathCell:
    """What to learn.  bits: view of every agent (None: the question itself); handoffs: learned per seed."""

    source: RecordedTable
    bits: int | None
    who: Who
    seeds: int
    handoffs: int
    prices: Prices = field(default_factory=Prices)

    def label(self) -> str:
        """A short name for progress lines."""
        return f"{self.who.value}, view of {'everything' if self.bits is None else f'{self.bits} bits'}"

    def program(self) -> Hashable:
        """Cells that agree in this run the same compiled program."""
        return ("math", self.source, self.bits, self.who is Who.CENTRALISED, self.seeds)

    def run(self) -> Arrays:
        """Learn and measure: `right`, `dollars` and `strong` (responses of the strong model) per question, `value` at
        the start, one per seed; for IC-Q the errors against Qbar and Q*, and the exact numbers of the instance.
        """  # fmt: skip
        play = _played(self.source, self.bits, self.prices)
        m = play.true.smdp
        change = {Who.CENTRALISED: baselines.centralised, Who.INDEPENDENT: baselines.independent}.get(self.who)
        seen = play.true if change is None else analyse(change(m))
        config = LearnerConfig(step=1.0, decay_power=1.0, decay_offset=30.0, averaging_power=2.0, visit_normalised=True)
        record = learn(sampling.tables(seen), classes.tabular(seen.smdp), config, range(self.seeds), [self.handoffs])
        q = np.asarray(record.q_average[:, -1], np.float64)
        rows = np.arange(m.num_states) if self.who is Who.CENTRALISED else np.asarray(m.observation)
        per_seed = [play.totals(greedy(table, seen.interface.available)[0][rows]) for table in q]
        out = {name: np.array([totals[name] for totals in per_seed]) for name in per_seed[0]}
        return out | (_exact(play) | errors_of_table(play.true, q) if change is None else {})


@dataclass(frozen=True)
class Played(Shown):
    """A solved instance and what its outcomes add up to; made by `_played`."""

    workflow: Workflow
    true: Analysis
    starts: Float[np.ndarray, "S"]
    amount: dict[str, np.ndarray]

    def totals(self, policy: Int[np.ndarray, "S"]) -> dict[str, float]:
        """Exact expected totals per question, and the discounted value at the start, of a policy of the state."""
        m = self.true.smdp
        out = {name: float(self.starts @ task_total(m, policy, amount)) for name, amount in self.amount.items()}
        return out | {"value": float(self.starts @ self.true.oracle.evaluate(policy).v)}

    def _facts_(self) -> list[Fact]:
        return [*self.true._facts_(), Fact("amounts", ", ".join(self.amount))]


@lru_cache(maxsize=2)
def _played(source: RecordedTable, bits: int | None, prices: Prices) -> Played:
    return play(source.table(), bits, prices)


def play(table: RecordedAnswers, bits: int | None, prices: Prices) -> Played:
    """The workflow of a table, analysed."""
    workflow = math_routing(table, bits, prices)
    add = amounts(workflow, table, prices)
    parts = {"right": add.right, "dollars": add.dollars, "strong": np.asarray(add.strong, float)}
    return Played(workflow, analyse(workflow.smdp), start_law(workflow.smdp), parts)


def _exact(play: Played) -> Arrays:
    """What no learner enters: totals of the interface optimum (`_bar`), of the per-question oracle (`_star`), and of
    sending every question to one model (`_cheap`, `_strong`); size and contraction of the instance; `gap_logged`: the
    interface gap over the handoffs that a log shows, all but those of the inbox.
    """  # fmt: skip
    a, m = play.true, play.true.smdp
    shown = np.asarray(m.agent)[m.observation] != play.workflow.agents.index("inbox")
    mass = a.d_state_pair[shown]
    gap_logged = np.sqrt((mass * a.gap[shown] ** 2).sum() / mass.sum())
    policies = {
        "bar": a.interface_solution.policy[m.observation], "star": a.oracle_solution.policy,
        "cheap": policy_of(play.workflow, ALWAYS_CHEAP), "strong": policy_of(play.workflow, ALWAYS_STRONG),
    }  # fmt: skip
    out: Arrays = {
        f"{name}_{who}": np.array(x) for who, policy in policies.items() for name, x in play.totals(policy).items()
    }
    numbers = {"states": m.num_states, "observations": m.num_observations, "kappa": a.kappa, "gamma_bar": a.gamma_bar,
               "gap_logged": gap_logged}  # fmt: skip
    return out | {name: np.array(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class FrontierCell:
    """Accuracy against cost of the exact interface optimum as the worth of a right answer varies."""

    source: RecordedTable
    bits: int | None
    worths: tuple[float, ...]
    prices: Prices = field(default_factory=Prices)

    def label(self) -> str:
        """A short name for progress lines."""
        return f"accuracy against cost, view of {'everything' if self.bits is None else f'{self.bits} bits'}"

    def program(self) -> Hashable:
        """Nothing is compiled."""
        return ("math frontier", self.source, self.bits)

    def run(self) -> Arrays:
        """`right` and `dollars` per question, one per worth."""
        found = []
        for worth in self.worths:
            prices = Prices(self.prices.cheap, self.prices.strong, worth, self.prices.gamma, self.prices.step_tokens)
            done = play(self.source.table(), self.bits, prices)
            found.append(done.totals(done.true.interface_solution.policy[done.true.smdp.observation]))
        return {name: np.array([totals[name] for totals in found]) for name in ("right", "dollars")}


@dataclass(frozen=True)
class HeldOutCell:
    """The interface optimum of a random half of the questions, judged on the other half; `splits` times."""

    source: RecordedTable
    bits: int
    splits: int
    prices: Prices = field(default_factory=Prices)

    def label(self) -> str:
        """A short name for progress lines."""
        return f"unseen questions, view of {self.bits} bits"

    def program(self) -> Hashable:
        """Nothing is compiled."""
        return ("math held out", self.source, self.bits)

    def run(self) -> Arrays:
        """`right`, `dollars`, `strong` and `value` on the other half, one per split; `unknown`: share of its
        observations the first half never showed, where the strong model is asked.
        """  # fmt: skip
        table, rows = self.source.table(), []
        for split in range(self.splits):
            order = np.random.default_rng([split, 1]).permutation(len(table))
            known, unseen = (
                play(table.take(np.sort(part)), self.bits, self.prices) for part in np.array_split(order, 2)
            )
            policy, unknown = _carried_over(known, unseen)
            rows.append(unseen.totals(policy) | {"unknown": unknown})
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _carried_over(known: Played, unseen: Played) -> tuple[Int[np.ndarray, "S"], float]:
    """What agents learned on one table, done on another; ALWAYS_STRONG where they never saw such a thing."""
    w, best = known.workflow, known.true.interface_solution.policy
    learned = {
        (w.agents[i], name): w.options[i][best[o]]
        for o, (name, i) in enumerate(zip(w.observations, np.asarray(w.smdp.agent), strict=True))
    }
    to = unseen.workflow
    codes, missed = [], 0
    for name, i in zip(to.observations, np.asarray(to.smdp.agent), strict=True):
        agent = str(to.agents[i])
        option = "draw" if agent == "inbox" else learned.get((agent, name))
        missed += option is None
        codes.append(to.options[i].index(ALWAYS_STRONG[agent] if option is None else option))
    return np.array(codes)[to.smdp.observation], missed / len(codes)
