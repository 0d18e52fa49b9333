"""The law of one handoff between states, from which everything that is estimated of a workflow follows.

A cell is a state with an option, an edge is a cell with what follows it.  States are observations where the interface
model is wanted (a cell is then a pair x = (o, a)), and pairs of observation and context where the interface gap is.  A
log amounts to such a law with and without each of its batches (`estimators.sums`), and so does an exact analysis, so
that every quantity is one function of it.  Letters: docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from icq.display import Shown, shown
from icq.exact import Analysis, Model, contraction
from icq.reason import NoNumber, Reason

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


@shown
class SecondMoments(NamedTuple):
    """E[R^2 | cell] [S, A], and E[R g 1{edge} | cell], E[g^2 1{edge} | cell] [E]."""

    square: Float[np.ndarray, "S A"]
    cross: Float[np.ndarray, "E"]
    second: Float[np.ndarray, "E"]


@shown
class Fixed(NamedTuple):
    """A fixed point: q [n, A] (0 where unavailable), its greedy options [n] and their values v [n]."""

    q: Float[np.ndarray, "n A"]
    policy: Int[np.ndarray, "n"]
    v: Float[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Law(Shown):
    """The law of one handoff: mass [S, A] of cells (sums to 1), mean reward [S, A], discount [E] = E[g 1{edge} | cell].

    Cells that do not occur have mass and reward 0.  moments: those of second order, where the noise of TD errors is
    wanted; near: a law on the same frame whose greedy options are tried first; length: handoffs that were added up.
    """

    frame: Frame
    mass: Float[np.ndarray, "S A"]
    reward: Float[np.ndarray, "S A"]
    discount: Float[np.ndarray, "E"]
    moments: SecondMoments | None = None
    near: Law | None = None
    length: float = 0.0

    @cached_property
    def span(self) -> tuple[float, float]:
        """The least and the largest of 0, mean rewards and values: the range of what a handoff was seen to be worth."""
        alike = self.frame.onward and self.frame.states == len(self.frame.agent)  # then both fixed points are one
        worth = np.concatenate([self.reward.reshape(-1), (self.q_star if alike else self.q_bar).reshape(-1)])
        return min(float(worth.min(initial=0.0)), 0.0), max(float(worth.max(initial=0.0)), 0.0)

    @property
    def most_discount(self) -> float:
        """The largest expected discount of a cell."""
        return float(total(self.frame.source, self.discount, self.mass.size).max(initial=0.0))

    @property
    def rounding(self) -> float:
        """What cannot be told from 0: the size of values x eps x the numbers that were added up."""
        return negligible(max(-self.span[0], self.span[1]), max(self.length, float(self.mass.size)))

    @property
    def flat(self) -> Float[np.ndarray, "SA"]:
        """The mass, flat: d(x) where states are observations."""
        return self.mass.reshape(-1)

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

    def follow(
        self, value: Float[np.ndarray, "O"], discount: Float[np.ndarray, "E"] | None = None
    ) -> Float[np.ndarray, "S A"]:
        """E[g V(o') | cell], or with another weight of the edges in the place of g."""
        weight = (self.discount if discount is None else discount) * value[self.frame.arrival]
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
    def model(self) -> Model:
        """r and K of the process of the states; needs edges that lead to states."""
        kernel = _csr(self.discount, self.frame.source, self.frame.target, (self.mass.size, self.frame.states))
        return Model(self.reward, kernel, self.mass > 0)

    @cached_property
    def modulus(self) -> float:
        """The d-norm modulus of the process of the states, kappa_S (NaN where the behaviour is not known)."""
        if self.frame.behaviour is None:
            return float("nan")
        chosen = self.mass.sum(axis=1, keepdims=True) * self.frame.behaviour[self.frame.observation]
        return contraction(self.model.kernel, np.where(self.mass > 0, chosen, 0.0), self.model.available)

    @cached_property
    def interface_solution(self) -> Fixed:
        """The interface fixed point."""
        return fixed_point(self.interface, None if self.near is None else self.near.interface_solution.policy)

    @cached_property
    def solution(self) -> Fixed:
        """The fixed point of the process of the states: the interface fixed point where these are observations."""
        return fixed_point(self.model, None if self.near is None else self.near.solution.policy)

    @property
    def q_bar(self) -> Float[np.ndarray, "O A"]:
        """Qbar."""
        return self.interface_solution.q

    @property
    def q_star(self) -> Float[np.ndarray, "S A"]:
        """Q* of the process of the states."""
        return self.solution.q

    def lift(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "S A"]:
        """A table of pairs on cells, 0 where nothing occurs."""
        return np.where(self.mass > 0, q[self.frame.observation], 0.0)

    def noise(self, q: Float[np.ndarray, "O A"], v: Float[np.ndarray, "O"]) -> Float[np.ndarray, "X"]:
        """E[(R + g v(o') - q(x))^2 | x] where states are observations; 0 where nothing is known.  Needs `moments`."""
        assert self.moments is not None
        square, cross, second = self.moments
        total = square + 2 * self.follow(v, cross) + self.follow(v**2, second)
        found = np.where(self.mass > 0, total - 2 * q * (self.reward + self.follow(v)) + q**2, 0.0).reshape(-1)
        size = max(float(np.abs(x).max(initial=0.0)) for x in (self.reward, q, v))
        return np.where(found > negligible(size**2, max(self.length, float(self.mass.size))), found, 0.0)


def negligible(size: float, length: float) -> float:
    """Rounding of a sum of so many numbers of this size: what is below it cannot be told from 0."""
    return size * float(np.finfo(np.float64).eps) * length


def fixed_point(model: Model, near: Int[np.ndarray, "n"] | None) -> Fixed:
    """The fixed point of a model, certified; if the options `near` are still greedy, it is one linear solve.

    Raises NoNumber where a discount cannot be told from 1: values have no limit then.
    """
    most = float(model.kernel.sum(axis=1).max()) if model.kernel.nnz else 0.0
    if most >= 1:
        place = f"a handoff discounts by {most!r}, which cannot be told from 1"
        raise NoNumber(Reason.NOT_CONTRACTING, place, "give a gamma further below 1, or log tasks that end")
    solution = model.solve(near)
    return Fixed(solution.q, solution.policy, solution.v)


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
