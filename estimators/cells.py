"""What the interface estimators need of a log, batch by batch.

A log is reduced to the number of handoffs and the sum of rewards of each cell, and the sum of discounts of each edge
(`estimators.context`), per batch; the law of everything but one batch is then a subtraction.  Letters: docs/theory.md
sections 1 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy import stats

from estimators.context import ContextLaw, Frame, compress
from estimators.logs.log import Log
from estimators.statistics.jackknife import BATCHES, signs
from icq.display import Fact, Shown
from icq.exact.fixed_point import greedy

BATCHES_OF_A_CELL = 2  # batches in which a cell must occur: what remains without one of them is still a mean
VISITS_OF_A_CELL = 20  # visits it needs to be in halves of the batches, and for an optimum over contexts
COVERED = 0.99  # least share of handoffs in such cells
COVERED_ONWARD = 0.999  # the same for the context process, whose optimum depends on rare cells
CORRELATED = 0.3  # largest correlation of visits to the same state in neighbouring batches
TRACE = 1e-9  # of all of the log in each of its halves
DOUBTFUL = 0.1  # largest share of handoffs whose greedy option may be another one


Sums: TypeAlias = tuple[Float[np.ndarray, "SA"], Float[np.ndarray, "SA"], Float[np.ndarray, "E"]]  # of `Cells`


@dataclass(frozen=True)
class Cells(Shown):
    """Sufficient statistics of a log in B batches.

    count, reward [B, S*A]: handoffs and summed rewards of each cell; discount [B, E]: summed g of each edge (sparse).
    handoffs: rows of the log; covered: share of them that is kept.  Kept are handoffs in cells seen in at least two
    batches (and often, if edges lead to states) that end the task or lead to a state, or observation, with such a cell.
    """

    frame: Frame
    count: Float[np.ndarray, "B SA"]
    reward: Float[np.ndarray, "B SA"]
    discount: sp.csr_array
    handoffs: int
    covered: float

    @property
    def batches(self) -> int:
        """B."""
        return len(self.count)

    @cached_property
    def _totals(self) -> Sums:
        return self.count.sum(axis=0), self.reward.sum(axis=0), np.asarray(self.discount.sum(axis=0)).reshape(-1)

    def _law(self, sums: Sums, near: ContextLaw | None) -> ContextLaw:
        count, reward, discount = sums
        shape = (self.frame.states, self.frame.options)
        each = np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
        discount = np.maximum(discount, 0.0) * each[self.frame.source]
        return ContextLaw(
            self.frame, (count / count.sum()).reshape(shape), (reward * each).reshape(shape), discount, near
        )

    @cached_property
    def whole(self) -> ContextLaw:
        """The law of all kept handoffs."""
        return self._law(self._totals, None)

    @cached_property
    def without(self) -> list[ContextLaw]:
        """The laws of everything but one batch."""
        return [self._law(self._but(b), self.whole) for b in range(self.batches)]

    def _but(self, drop: int) -> Sums:
        count, reward, discount = self._totals
        discount, row = discount.copy(), slice(self.discount.indptr[drop], self.discount.indptr[drop + 1])
        discount[self.discount.indices[row]] -= self.discount.data[row]
        return count - self.count[drop], reward - self.reward[drop], discount

    @cached_property
    def halves(self) -> list[tuple[ContextLaw, ContextLaw]]:
        """The laws of the two halves of the batches, for every row of `jackknife.signs`."""
        return [(self._mostly(plus), self._mostly(~plus)) for plus in signs(self.batches) > 0]

    def _mostly(self, batches: Bool[np.ndarray, "B"]) -> ContextLaw:
        """The law of some batches with a trace of all, so that cells they lack keep one: something may lead there."""
        part = batches @ self.count, batches @ self.reward, batches @ self.discount
        count, reward, discount = (x + TRACE * total for x, total in zip(part, self._totals, strict=True))
        return self._law((count, reward, discount), self.whole)

    def only(self, batches: Bool[np.ndarray, "B"]) -> Cells:
        """Some of the batches, on the same frame; cells may have no visits there."""
        return replace(
            self,
            count=self.count[batches],
            reward=self.reward[batches],
            discount=self.discount[np.flatnonzero(batches)],
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
        count = self._totals[0]
        return bool(count[count < VISITS_OF_A_CELL].sum() <= (1 - COVERED_ONWARD) * count.sum())

    @cached_property
    def doubt(self) -> float:
        """The share of handoffs on which the greedy option of Qbar may be another one."""
        tables = np.stack([law.q_bar for law in self.without])
        return doubt(self.whole.q_bar, tables, self.whole.interface.available, self.whole.pair_mass.sum(axis=1))

    def lacking(self, *, optimum: bool = True) -> str | None:
        """Why there is too little data, and what to do; None when there is enough.

        optimum: Qbar is needed; where its best options are in doubt, halves of the batches show what that does if cells
        are frequent enough for halves.
        """
        least, often = (COVERED_ONWARD, f" and {VISITS_OF_A_CELL} times") if self.frame.onward else (COVERED, "")
        if not np.isfinite(self._totals[1]).all():
            return "a reward in the log is not finite"
        if self.covered < least:
            return (
                f"{1 - self.covered:.2%} of the handoffs are in cells (observation, context, option) not seen in "
                f"{BATCHES_OF_A_CELL} batches{often}, or lead to one; at most {1 - least:.1%} may be: log longer, or "
                "log a coarser context"
            )
        if self.memory > CORRELATED:
            return (
                f"visits of neighbouring batches have correlation {self.memory:.2f}, at most {CORRELATED} is allowed: "
                "the chain is slow against a batch, log longer"
            )
        if optimum and self.doubt > DOUBTFUL and not self.frequent:
            return (
                f"on {self.doubt:.0%} of the handoffs the best option may be another one; on more than {DOUBTFUL:.0%} "
                f"it may only where {COVERED_ONWARD:.1%} are in cells seen {VISITS_OF_A_CELL} times: log longer"
            )
        return None

    @cached_property
    def led_once(self) -> float:
        """Share of handoffs in cells that were seen to lead anywhere in one batch only: without it they end tasks."""
        batch, edge = self.discount.nonzero()
        seen = np.unique(self.frame.source[edge] * self.batches + batch) // self.batches
        once = np.bincount(seen, minlength=self.count.shape[1]) == 1
        count = self._totals[0]
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
    starts = -(-np.arange(batches + 1) * n // batches)
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
        good, enter = _usable(cell, kept, starts, len(name) * options, acting, targets, least)
        fewer = kept & good[cell] & (~live | enter[after])
        if fewer.sum() == kept.sum():
            break
        kept = fewer
    return _tally(log, cell, np.where(live, after, -1), kept, starts, name // contexts, onward)


def _usable(
    cell: Int[np.ndarray, "n"],
    kept: Bool[np.ndarray, "n"],
    starts: Int[np.ndarray, "b"],
    cells: int,
    acting: Int[np.ndarray, "S"],
    targets: int,
    least: int,
) -> tuple[Bool[np.ndarray, "SA"], Bool[np.ndarray, "T"]]:
    """Cells seen in two batches and `least` times, and the targets (of states `acting`) that have one."""
    seen, often = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    for start, stop in pairwise(starts):
        visits = np.bincount(cell[start:stop][kept[start:stop]], minlength=cells)
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
    starts: Int[np.ndarray, "b"],
    observation: Int[np.ndarray, "S"],
    onward: bool,
) -> Cells:
    """Sums over the kept rows of each batch, states and observations renumbered to those that are left."""
    options, bounds = log.num_options, np.concatenate(([0], np.cumsum(kept)))[starts]
    cell, after, reward, g = cell[kept], after[kept], log.reward[kept], log.discount[kept]
    states, position = compress(cell // options, len(observation))
    cell = position * options + cell % options
    names, of_state = compress(observation[states], int(log.num_observations))
    rename = np.full(len(observation) if onward else log.num_observations, -1)
    rename[states if onward else names] = np.arange(len(states) if onward else len(names))
    live = after >= 0
    targets = len(states) if onward else len(names)
    size = len(states) * options
    code, edge = compress(cell[live] * targets + rename[after[live]], size * targets)
    edges = np.concatenate(([0], np.cumsum(live)))[bounds]
    g = g[live]
    count, earned = np.zeros((len(starts) - 1, size)), np.zeros((len(starts) - 1, size))
    entries, sums, ends = [], [], [0]
    for b in range(len(starts) - 1):
        part, on = slice(bounds[b], bounds[b + 1]), slice(edges[b], edges[b + 1])
        count[b] = np.bincount(cell[part], minlength=size)
        earned[b] = np.bincount(cell[part], reward[part], minlength=size)
        found = np.bincount(edge[on], g[on], minlength=len(code))
        entries.append(np.flatnonzero(found))
        sums.append(found[entries[b]])
        ends.append(ends[b] + len(entries[b]))
    frame = Frame(
        of_state, names, log.owner[names], options, onward, code // max(targets, 1), code % max(targets, 1),
        None if log.probability is None else _behaviour(of_state, cell, log.probability[kept], (len(names), options)),
    )  # fmt: skip
    shape = (len(starts) - 1, len(code))
    discount = sp.csr_array((np.concatenate(sums).astype(float), np.concatenate(entries), np.array(ends)), shape=shape)
    return Cells(frame, count, earned, discount, len(log), len(cell) / len(log))


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
    total, visits = (
        np.bincount(pair, probability, shape[0] * shape[1]),
        np.bincount(pair, minlength=shape[0] * shape[1]),
    )
    return np.divide(total, visits, out=np.zeros(len(visits)), where=visits > 0).reshape(shape)


def doubt(
    q: Float[np.ndarray, "n A"],
    without: Float[np.ndarray, "B n A"],
    available: Bool[np.ndarray, "n A"],
    mass: Float[np.ndarray, "n"],
) -> float:
    """The expected share of handoffs from rows whose best option is not the estimated one.

    A rival whose margin is t jackknife standard errors is better with probability Phi(-t).  A maximum is smooth only
    where its winner is beyond doubt.
    """
    best, _ = greedy(q, available)
    rows = np.arange(len(q))
    margin = q[rows, best][:, None] - q
    apart = without[:, rows, best][:, :, None] - without
    stderr = np.sqrt((len(without) - 1) * apart.var(axis=0))
    rival = available.copy()
    rival[rows, best] = False
    t = np.divide(margin, stderr, out=np.where(margin > 0, np.inf, 0.0), where=stderr > 0)
    return float(mass @ np.minimum(np.where(rival, stats.norm.sf(t), 0.0).sum(axis=1), 1.0))
