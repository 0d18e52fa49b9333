"""What the interface estimators need of a log: sums over states that are pairs of an observation and a context.

Only cells that are seen often enough are kept, so that every law with a part of the batches still knows them.  Letters:
docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from estimators.doubt import MANY, Doubt, doubt
from estimators.law import Frame, compress
from estimators.logs.log import SAFE, Log, in_units, power_of
from estimators.statistics.jackknife import BATCHES, slices
from estimators.sums import Batch, Sums, add
from estimators.view import disconnected
from icq.display import Fact
from icq.reason import Reason, Why

BATCHES_OF_A_CELL = 2  # batches in which a cell must occur: what remains without one of them is still a mean
VISITS_OF_A_CELL = 20  # visits it needs to be in halves of the batches, and for an optimum over contexts
COVERED = 0.99  # least share of handoffs in such cells
COVERED_ONWARD = 0.999  # the same for the context process, whose optimum depends on rare cells
CORRELATED = 0.3  # largest correlation of visits to the same state in neighbouring batches


@dataclass(frozen=True, eq=False)
class Cells(Sums):
    """Sums of a log whose states are pairs of an observation and a context.

    handoffs: rows of the log; covered: share of them that is kept.  Kept are handoffs in cells seen in at least two
    batches (and often, if edges lead to states) that end the task or lead to a state, or observation, with such a cell.
    """

    handoffs: int
    covered: float

    KEPT: ClassVar[float] = np.inf  # each law keeps fixed points, which several tables share

    def in_unit(self) -> tuple[Cells, int]:
        """The same with rewards in units of 2^power (`estimators.logs.log.Log.in_unit`)."""
        return self._scaled

    @cached_property
    def _scaled(self) -> tuple[Cells, int]:
        power = power_of(self.cell[1], 2 * SAFE)
        return (
            (replace(self, cell=np.stack([self.cell[0], in_units(self.cell[1], power)])), power) if power else (self, 0)
        )

    @cached_property
    def visits(self) -> Float[np.ndarray, "B S"]:
        """Handoffs in each state per batch."""
        return self.count.reshape(self.batches, self.frame.states, self.frame.options).sum(axis=2)

    @cached_property
    def memory(self) -> float:
        """Correlation of visits to a state between neighbouring batches, all states pooled, without its small bias."""
        centred = self.visits - self.visits.mean(axis=0)
        total = float((centred**2).sum())
        return float((centred[1:] * centred[:-1]).sum()) / total + 1 / self.batches if total > 0 else 0.0

    @cached_property
    def n_eff(self) -> float:
        """Independent handoffs that would scatter the visits as much as these do over batches, at most all kept."""
        total = self.visits.sum(axis=0)
        kept = float(total.sum())
        if kept == 0:
            return 0.0
        found = float(self.visits.var(axis=0, ddof=1).sum())
        independent = float((total * (1 - total / kept)).sum()) / self.batches
        return kept * min(independent / found, 1.0) if found > 0 else kept

    @cached_property
    def frequent(self) -> bool:
        """Whether halves of the batches hold all cells, but those of 0.1 % of the handoffs."""
        count = self.totals.cell[0]
        return bool(count[count < VISITS_OF_A_CELL].sum() <= (1 - COVERED_ONWARD) * count.sum())

    @cached_property
    def doubt(self) -> Doubt:
        """How sure the greedy options of Qbar are."""
        tables = np.stack([law.q_bar for law in self.without])
        law = self.whole
        return doubt(law.q_bar, tables, law.interface.available, law.pair_mass.sum(axis=1), law.rounding)

    def lacking(self, *, optimum: bool = True) -> Why | None:
        """Why there is too little data, and what to do; None when there is enough.

        optimum: Qbar is needed; where its best options are in doubt, halves of the batches show what that does if cells
        are frequent enough for halves.
        """
        least, often = (COVERED_ONWARD, f" and {VISITS_OF_A_CELL} visits") if self.frame.onward else (COVERED, "")
        if not np.isfinite(self.totals.cell[1]).all():
            return Why(Reason.NOT_FINITE, "a reward")
        if self.covered < least:
            reason = Reason.RARELY_VISITED_CELLS if self.frame.onward else Reason.RARE_CELLS
            place = f"{1 - self.covered:.2%} of them, at most {1 - least:.1%} may be; a cell needs "
            return Why(reason, f"{place}{BATCHES_OF_A_CELL} batches{often}", "log longer, or log a coarser context")
        if self.memory > CORRELATED and (parts := self._parts()) is not None:
            return parts
        if self.memory > CORRELATED:
            place = f"visits of neighbouring batches have correlation {self.memory:.2f}, above {CORRELATED}"
            return Why(Reason.SHORT, place, "log longer")
        if optimum and self.doubt.share > MANY and not self.frequent:
            place = (
                f"{self.doubt.share:.0%} of the handoffs may go to another one; more than {MANY:.0%} only may where "
                f"{COVERED_ONWARD:.1%} are in cells seen {VISITS_OF_A_CELL} times"
            )
            return Why(Reason.IN_DOUBT, place, "log longer")
        return None

    def _parts(self) -> Why | None:
        """That the observations fall into parts that nothing leads between."""
        frame = self.frame
        source, every = frame.observation[frame.source // frame.options], np.arange(len(frame.code))
        why = disconnected(source, frame.arrival, every, len(frame.code))
        return None if why is None else replace(why, observation=int(frame.code[why.observation or 0]))

    @cached_property
    def led_once(self) -> float:
        """Share of handoffs in cells that were seen to lead anywhere in one batch only: without it they end tasks."""
        batch = np.repeat(np.arange(self.batches), np.diff(self.first))
        seen = np.unique(self.frame.source[self.edge] * self.batches + batch) // self.batches
        count = self.totals.cell[0]
        once = np.bincount(seen, minlength=len(count)) == 1
        return float(count[once].sum() / count.sum())

    def _facts_(self) -> list[Fact]:
        return [
            Fact("handoffs", self.handoffs), Fact("covered", self.covered), Fact("states", self.frame.states),
            Fact("observations", len(self.frame.agent)), Fact("options", self.frame.options),
            Fact("batches", self.batches),
        ]  # fmt: skip


def gather(log: Log, *, onward: bool = False, batches: int = BATCHES) -> Cells:
    """Sufficient statistics of a log with context; onward: edges lead to states (needs the next handoff's context).

    Raises ValueError for a log without context, or with fewer handoffs than batches.
    """
    if log.context is None:
        raise ValueError("the log has no context; cells are pairs of an observation and a context")
    n = len(log)
    if n < batches:
        raise ValueError(f"{n} handoffs for {batches} batches")
    parts = slices(n, batches)
    contexts = int(log.context.max()) + 1
    name, state = compress(log.observation * contexts + log.context, log.num_observations * contexts)
    options = log.num_options
    live = log.discount > 0
    if onward:
        after = np.full(n, -1)
        after[:-1] = np.where(log.follows[1:], state[1:], -1)
        acting = np.arange(len(name))
    else:
        after, acting = log.next_observation, name // contexts
    cell = state * options + log.option
    kept = ~live | (after >= 0)
    targets = len(name) if onward else log.num_observations
    least = VISITS_OF_A_CELL if onward else 0
    while True:
        good, enter = _usable(cell, kept, parts, len(name) * options, acting, targets, least)
        fewer = kept & good[cell] & (~live | enter[after])
        if fewer.sum() == kept.sum():
            break
        kept = fewer
    return _tally(log, cell, np.where(live, after, -1), kept, parts, name // contexts, onward)


def _usable(
    cell: Int[np.ndarray, "n"],
    kept: Bool[np.ndarray, "n"],
    parts: list[slice],
    cells: int,
    acting: Int[np.ndarray, "S"],
    targets: int,
    least: int,
) -> tuple[Bool[np.ndarray, "SA"], Bool[np.ndarray, "T"]]:
    """Cells seen in two batches and `least` times, and the targets (of states `acting`) that have one."""
    seen, often = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    for rows in parts:
        visits = np.bincount(cell[rows][kept[rows]], minlength=cells)
        seen += visits > 0
        often += visits
    good = (seen >= BATCHES_OF_A_CELL) & (often >= least)
    enter = np.zeros(targets, bool)
    enter[acting[good.reshape(len(acting), -1).any(axis=1)]] = True
    return good, enter


def _tally(
    log: Log,
    cell: Int[np.ndarray, "n"],
    after: Int[np.ndarray, "n"],
    kept: Bool[np.ndarray, "n"],
    parts: list[slice],
    observation: Int[np.ndarray, "S"],
    onward: bool,
) -> Cells:
    """Sums over the kept rows of each batch, states and observations renumbered to those that are left."""
    options, ends = log.num_options, np.concatenate(([0], np.cumsum(kept)))
    cell, after, reward, g = cell[kept], after[kept], log.reward[kept], log.discount[kept]
    states, position = compress(cell // options, len(observation))
    cell = position * options + cell % options
    names, of_state = compress(observation[states], int(log.num_observations))
    rename = np.full(len(observation) if onward else log.num_observations, -1)
    rename[states if onward else names] = np.arange(len(states) if onward else len(names))
    targets = max(len(states) if onward else len(names), 1)
    inside = [slice(ends[rows.start], ends[rows.stop]) for rows in parts]
    batches = (Batch(cell[rows], rename[after[rows]], reward[rows], g[rows]) for rows in inside)
    found = add(batches, len(states) * options, targets, noise=False)
    frame = Frame(
        of_state, names, log.owner[names], options, onward, found.code // targets, found.code % targets,
        None if log.probability is None else _behaviour(of_state, cell, log.probability[kept], (len(names), options)),
    )  # fmt: skip
    return Cells(frame, found.cell, found.first, found.edge, found.value, len(log), len(cell) / len(log))


def _behaviour(
    observation: Int[np.ndarray, "S"],
    cell: Int[np.ndarray, "n"],
    probability: Float[np.ndarray, "n"],
    shape: tuple[int, int],
) -> Float[np.ndarray, "O A"] | None:
    """The mean logged probability of each pair; None if one is not logged."""
    if not np.isfinite(probability).all():
        return None
    pair = observation[cell // shape[1]] * shape[1] + cell % shape[1]
    size = shape[0] * shape[1]
    total, visits = np.bincount(pair, probability, size), np.bincount(pair, minlength=size)
    return np.divide(total, visits, out=np.zeros(len(visits)), where=visits > 0).reshape(shape)
