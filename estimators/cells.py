"""What the interface estimators need of a log, batch by batch, and the law of one handoff that it amounts to.

A state is a pair (observation, context), a cell is a state with an option, an edge is a cell with what follows it.
A log is reduced to the number of handoffs and the sum of rewards of each cell, and the sum of discounts of each edge,
per batch; the law of everything but one batch is then a subtraction.  An exact analysis has such a law too, so every
quantity of `estimators.interface` is one function of a `Law`.  Letters: docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy import stats

from estimators.jackknife import BATCHES
from estimators.logs import Log
from icq.display import Fact, Shown
from icq.exact import Analysis, Model, contraction
from icq.solve import greedy

DENSE = 300  # states up to which a dense solve beats a sparse one
BATCHES_OF_A_CELL = 2  # batches in which a cell must occur: what remains without one of them is still a mean
VISITS_OF_A_CELL = 20  # visits it needs where an optimum over the context process is taken
COVERED = 0.99  # least share of handoffs in such cells
COVERED_ONWARD = 0.999  # the same for the context process, whose optimum depends on rare cells
CORRELATED = 0.3  # largest correlation of visits to the same state in neighbouring batches
DOUBTFUL = 0.1  # largest share of handoffs whose greedy option may be another one
TABLE = 1 << 26  # codes up to which a table of all of them is cheaper than sorting


@dataclass(frozen=True)
class Frame(Shown):
    """Which cells and edges there are.

    observation [S] of each state; code [O], agent [O] of each observation in the log or instance; options A; cells are
    rows s*A + a.  Edge e leads from cell source[e] to target[e], a state if `onward`, else an observation.  behaviour
    [O, A]: beta(a|o), None where the log does not tell.
    """

    observation: Int[np.ndarray, "S"]
    code: Int[np.ndarray, "O"]
    agent: Int[np.ndarray, "O"]
    options: int
    onward: bool
    source: Int[np.ndarray, "E"]
    target: Int[np.ndarray, "E"]
    behaviour: Float[np.ndarray, "O A"] | None = None

    @property
    def states(self) -> int:
        """S."""
        return len(self.observation)

    @cached_property
    def pair(self) -> Int[np.ndarray, "SA"]:
        """The pair x = o*A + a of each cell."""
        return (self.observation[:, None] * self.options + np.arange(self.options)).reshape(-1)

    @cached_property
    def arrival(self) -> Int[np.ndarray, "E"]:
        """The observation that each edge leads to."""
        return self.observation[self.target] if self.onward else self.target

    @cached_property
    def merged(self) -> tuple[Int[np.ndarray, "F"], Int[np.ndarray, "E"]]:
        """The distinct codes x*O + o' of edges between a pair and an observation, and the one each edge belongs to."""
        code = self.pair[self.source] * len(self.agent) + self.arrival
        return compress(code, len(self.agent) ** 2 * self.options)


@dataclass(frozen=True)
class Law(Shown):
    """The law of one handoff: mass [S, A] of cells (sums to 1), mean reward [S, A], discount [E] = E[g 1{edge} | cell].

    Cells that do not occur have mass and reward 0.  near: a law on the same frame whose greedy options are tried first.
    """

    frame: Frame
    mass: Float[np.ndarray, "S A"]
    reward: Float[np.ndarray, "S A"]
    discount: Float[np.ndarray, "E"]
    near: Law | None = None

    @cached_property
    def pair_mass(self) -> Float[np.ndarray, "O A"]:
        """d(x)."""
        return self.fold(self.mass)

    def fold(self, table: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "O A"]:
        """Sums of a table of cells over the states of each observation."""
        size = (len(self.frame.agent), self.frame.options)
        return np.bincount(self.frame.pair, table.reshape(-1), size[0] * size[1]).reshape(size)

    def mean(self, table: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
        """E[table | x], on cells; 0 where nothing occurs."""
        sums = self.fold(self.mass * table)
        mean = np.divide(sums, self.pair_mass, out=np.zeros_like(sums), where=self.pair_mass > 0)
        return np.where(self.mass > 0, mean[self.frame.observation], 0.0)

    def follow(self, value: Float[np.ndarray, "O"]) -> Float[np.ndarray, "S A"]:
        """E[g V(o') | cell]."""
        weight = self.discount * value[self.frame.arrival]
        return total(self.frame.source, weight, self.mass.size).reshape(self.mass.shape)

    @cached_property
    def interface(self) -> Model:
        """rhat and Khat."""
        code, edge = self.frame.merged
        observations = len(self.frame.agent)
        rows, columns = code // observations, code % observations
        weight = total(edge, self.mass.reshape(-1)[self.frame.source] * self.discount, len(code))
        mass = self.pair_mass
        inverse = np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0)
        kernel = _csr(weight * inverse.reshape(-1)[rows], rows, columns, (mass.size, observations))
        return Model(self.fold(self.mass * self.reward) * inverse, kernel, mass > 0)

    @cached_property
    def oracle(self) -> Model:
        """r and K of the process whose state is (observation, context); needs edges that lead to states."""
        kernel = _csr(self.discount, self.frame.source, self.frame.target, (self.mass.size, self.frame.states))
        return Model(self.reward, kernel, self.mass > 0)

    @cached_property
    def modulus(self) -> float:
        """kappa_S of the process of states (NaN where the behaviour is not known)."""
        if self.frame.behaviour is None:
            return float("nan")
        chosen = self.mass.sum(axis=1, keepdims=True) * self.frame.behaviour[self.frame.observation]
        return contraction(self.oracle.kernel, np.where(self.mass > 0, chosen, 0.0), self.oracle.available)

    @cached_property
    def interface_solution(self) -> tuple[Float[np.ndarray, "O A"], Int[np.ndarray, "O"]]:
        """The interface fixed point and its greedy options."""
        return fixed_point(self.interface, None if self.near is None else self.near.interface_solution[1])

    @cached_property
    def oracle_solution(self) -> tuple[Float[np.ndarray, "S A"], Int[np.ndarray, "S"]]:
        """The fixed point of the process whose state is (observation, context), and its greedy options."""
        return fixed_point(self.oracle, None if self.near is None else self.near.oracle_solution[1])

    @property
    def q_bar(self) -> Float[np.ndarray, "O A"]:
        """Qbar."""
        return self.interface_solution[0]

    @property
    def q_star(self) -> Float[np.ndarray, "S A"]:
        """Q*."""
        return self.oracle_solution[0]

    def lift(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "S A"]:
        """A table of pairs on cells, 0 where nothing occurs."""
        return np.where(self.mass > 0, q[self.frame.observation], 0.0)


def fixed_point(
    model: Model, near: Int[np.ndarray, "n"] | None
) -> tuple[Float[np.ndarray, "n A"], Int[np.ndarray, "n"]]:
    """The fixed point of a model and its greedy options; if the options `near` are still greedy, one linear solve."""
    if near is not None and len(near) <= DENSE:
        rows, shape = np.arange(len(near)), model.reward.shape
        kernel = model.kernel.toarray().reshape(*shape, len(near))
        v = np.linalg.solve(np.eye(len(near)) - kernel[rows, near], model.reward[rows, near])
        q = np.where(model.available, model.reward + kernel @ v, 0.0)
        if (greedy(q, model.available)[0] == near).all():
            return q, near
    solution = model.solve()
    return solution.q, solution.policy


def _csr(
    data: Float[np.ndarray, "E"], rows: Int[np.ndarray, "E"], columns: Int[np.ndarray, "E"], shape: tuple[int, int]
) -> sp.csr_array:
    """A matrix from entries already sorted by row and column."""
    starts = np.searchsorted(rows, np.arange(shape[0] + 1))
    return sp.csr_array((data, columns.astype(np.int64), starts.astype(np.int64)), shape=shape)


def total(index: Int[np.ndarray, "n"], weight: Float[np.ndarray, "n"], size: int) -> Float[np.ndarray, "size"]:
    """Sums of weights by index (`np.bincount` forgets that they are floats when there are none)."""
    return np.bincount(index, weight, size).astype(np.float64, copy=False)


def compress(code: Int[np.ndarray, "n"], size: int) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "n"]]:
    """The distinct codes among 0..size-1, sorted, and the position of each code among them."""
    if size > min(TABLE, 16 * len(code) + 1024):
        distinct, position = np.unique(code, return_inverse=True)
        return distinct, position
    distinct = np.flatnonzero(np.bincount(code, minlength=size))
    table = np.zeros(size, np.int64)
    table[distinct] = np.arange(len(distinct))
    return distinct, table[code]


def exact_law(a: Analysis) -> Law:
    """The stationary law of one handoff of an analysed instance, on the states of positive mass (no others follow)."""
    keep = a.d > 0
    options = a.oracle.reward.shape[1]
    kernel = a.oracle.kernel[np.repeat(keep, options)][:, keep].tocoo()
    order = np.lexsort((kernel.col, kernel.row))
    agent = np.asarray(a.smdp.agent)
    frame = Frame(
        np.asarray(a.smdp.observation)[keep].astype(np.int64), np.arange(len(agent)), agent, options, True,
        kernel.row[order].astype(np.int64), kernel.col[order].astype(np.int64), np.asarray(a.smdp.behaviour),
    )  # fmt: skip
    return Law(frame, a.d_state_pair[keep], a.oracle.reward[keep], kernel.data[order])


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
    def _totals(self) -> tuple[Float[np.ndarray, "SA"], Float[np.ndarray, "SA"], Float[np.ndarray, "E"]]:
        return self.count.sum(axis=0), self.reward.sum(axis=0), np.asarray(self.discount.sum(axis=0)).reshape(-1)

    def _law(self, drop: int | None, near: Law | None) -> Law:
        count, reward, discount = (total.copy() for total in self._totals)
        if drop is not None:
            count, reward = count - self.count[drop], reward - self.reward[drop]
            row = slice(self.discount.indptr[drop], self.discount.indptr[drop + 1])
            discount[self.discount.indices[row]] -= self.discount.data[row]
        shape = (self.frame.states, self.frame.options)
        each = np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
        discount = np.maximum(discount, 0.0) * each[self.frame.source]
        return Law(self.frame, (count / count.sum()).reshape(shape), (reward * each).reshape(shape), discount, near)

    @cached_property
    def whole(self) -> Law:
        """The law of all kept handoffs."""
        return self._law(None, None)

    @cached_property
    def without(self) -> list[Law]:
        """The laws of everything but one batch."""
        return [self._law(b, self.whole) for b in range(self.batches)]

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
    def doubt(self) -> float:
        """The larger share of handoffs on which the greedy option of Qbar, or (onward) of Q*, may be another one."""
        laws, model = self.without, self.whole.interface
        found = doubt(self.whole.q_bar, np.stack([law.q_bar for law in laws]), model.available,
                      self.whole.pair_mass.sum(axis=1))  # fmt: skip
        if not self.frame.onward:
            return found
        stars = np.stack([law.q_star for law in laws])
        return max(found, doubt(self.whole.q_star, stars, self.whole.mass > 0, self.whole.mass.sum(axis=1)))

    def lacking(self, *, optimum: bool = True) -> str | None:
        """Why there is too little data, and what to do; None when there is enough.  optimum: Qbar or Q* is needed."""
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
        if optimum and self.doubt > DOUBTFUL:
            return (
                f"on {self.doubt:.0%} of the handoffs the best option may be another one, on at most {DOUBTFUL:.0%} it "
                "may: log longer"
            )
        return None

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
