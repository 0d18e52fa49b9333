"""What the log says about each pair x = (o, a): the empirical interface model, batch by batch.

A cell is a pair together with the observation handed over to.  Sums of 1, R, g, R^2, R g and g^2 per cell determine
the law d(x), the interface model rhat, Khat and the second moment of every TD error, so a functional of the log is
computed once per left-out batch without touching the rows again.  The same `Law` comes from an instance exactly.
Letters: docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from estimators.logs.log import Log
from estimators.statistics.jackknife import BATCHES
from icq.display import Shown
from icq.exact import Analysis, Model, outcome_discount
from icq.exact.fixed_point import Solution, solve

KEYS = 2_000_000  # largest table of possible cells that is indexed directly instead of sorted


@dataclass(frozen=True, eq=False)
class Law(Shown):
    """d(x) [O, A], the interface model, and E[R^2|x] [X], E[R g 1{o'}|x], E[g^2 1{o'}|x] [X, O] (x = o*A + a)."""

    mass: Float[np.ndarray, "O A"]
    model: Model
    square: Float[np.ndarray, "X"]
    cross: sp.csr_array
    second: sp.csr_array

    @cached_property
    def solution(self) -> Solution:
        """Qbar of the interface model, certified."""
        return solve(self.model.reward, self.model.kernel, self.model.available)

    @property
    def flat(self) -> Float[np.ndarray, "X"]:
        """d(x), flat."""
        return self.mass.reshape(-1)

    def noise(self, q: Float[np.ndarray, "O A"], v: Float[np.ndarray, "O"]) -> Float[np.ndarray, "X"]:
        """E[(R + g v(o') - q(x))^2 | x]; 0 where nothing is known."""
        table = q.reshape(-1)
        mean = self.model.reward.reshape(-1) + self.model.kernel @ v
        second = self.square + 2 * (self.cross @ v) + self.second @ v**2
        return np.where(self.flat > 0, second - 2 * table * mean + table**2, 0.0)


@dataclass(frozen=True, eq=False)
class Sums(Shown):
    """Sums per batch: visits, R, R^2 by pair [B, X]; g, R g, g^2 by cell [B, C]; a cell c is (pair[c], target[c])."""

    shape: tuple[int, int]
    pair: Int[np.ndarray, "C"]
    target: Int[np.ndarray, "C"]
    visits: Float[np.ndarray, "B X"]
    reward: Float[np.ndarray, "B X"]
    square: Float[np.ndarray, "B X"]
    discount: Float[np.ndarray, "B C"]
    cross: Float[np.ndarray, "B C"]
    second: Float[np.ndarray, "B C"]

    def whole(self) -> Law:
        """The law of everything."""
        return self._whole

    @cached_property
    def _whole(self) -> Law:
        return self._law(*(part.sum(0) for part in self._parts()))

    def without(self) -> Iterable[Law]:
        """The law of everything but batch b; small ones are kept, large ones are made one at a time."""
        return self._kept if self.discount.size <= KEYS else self._each()

    @cached_property
    def _kept(self) -> tuple[Law, ...]:
        return tuple(self._each())

    def _each(self) -> Iterator[Law]:
        total = [part.sum(0) for part in self._parts()]
        for b in range(len(self.visits)):
            yield self._law(*(all_ - part[b] for all_, part in zip(total, self._parts())))

    def _parts(self) -> tuple[Float[np.ndarray, "B _"], ...]:
        return self.visits, self.reward, self.square, self.discount, self.cross, self.second

    def _law(
        self,
        visits: Float[np.ndarray, "X"],
        reward: Float[np.ndarray, "X"],
        square: Float[np.ndarray, "X"],
        discount: Float[np.ndarray, "C"],
        cross: Float[np.ndarray, "C"],
        second: Float[np.ndarray, "C"],
    ) -> Law:
        seen = visits > 0
        scale = np.divide(1.0, visits, out=np.zeros_like(visits), where=seen)
        ends = np.searchsorted(self.pair, np.arange(len(visits) + 1))
        size = (len(visits), self.shape[0])

        def matrix(value: Float[np.ndarray, "C"]) -> sp.csr_array:
            return sp.csr_array((value * scale[self.pair], self.target, ends), shape=size)

        model = Model((reward * scale).reshape(self.shape), matrix(discount), seen.reshape(self.shape))
        mass = (visits / visits.sum()).reshape(self.shape)
        return Law(mass, model, square * scale, matrix(cross), matrix(second))


@dataclass(frozen=True)
class Rows(Shown):
    """Rows (or weighted outcomes) to add up."""

    pair: Int[np.ndarray, "n"]
    target: Int[np.ndarray, "n"]
    reward: Float[np.ndarray, "n"]
    discount: Float[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"] | None = None


def slices(n: int, batches: int = BATCHES) -> list[slice]:
    """The rows of each batch, as `estimators.statistics.jackknife.batch_index` cuts them."""
    edges = [-(-b * n // batches) for b in range(batches + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def sums(log: Log, batches: int = BATCHES) -> Sums:
    """The sums of a log in `batches` consecutive batches."""
    return log.once(f"sums in {batches} batches", lambda: _sums(log, batches))


def _sums(log: Log, batches: int) -> Sums:
    options = log.num_options
    parts = (
        Rows(log.observation[rows] * options + log.option[rows], log.next_observation[rows], log.reward[rows],
             log.discount[rows])
        for rows in slices(len(log), batches)
    )  # fmt: skip
    return _add((log.num_observations, options), parts)


def law(a: Analysis) -> Law:
    """The exact law of an instance under its behaviour policy, in the stationary regime."""
    m = a.smdp
    obs, weight = np.asarray(m.observation), (a.d_state_pair[..., None] * m.prob).reshape(-1)
    keep = np.flatnonzero(weight > 0)
    pair = np.broadcast_to((obs[:, None] * m.num_options + np.arange(m.num_options))[..., None], m.prob.shape)
    rows = Rows(
        pair.reshape(-1)[keep], obs[np.asarray(m.next_state).reshape(-1)[keep]],
        np.asarray(m.reward, np.float64).reshape(-1)[keep], outcome_discount(m).reshape(-1)[keep], weight[keep],
    )  # fmt: skip
    return _add((m.num_observations, m.num_options), [rows]).whole()


def _add(shape: tuple[int, int], parts: Iterable[Rows]) -> Sums:
    """Batch after batch, so that a batch stays in the cache; then the cells of all batches side by side."""
    pairs = shape[0] * shape[1]
    by_pair, by_cell, keys = [], [], []
    for rows in parts:
        by_pair.append([_sum(rows.pair, v, rows.weight, pairs) for v in (None, rows.reward, rows.reward**2)])
        alive = np.flatnonzero(rows.discount > 0)
        index, key = codes(rows.pair[alive] * shape[0] + rows.target[alive], pairs * shape[0])
        g, r = rows.discount[alive], rows.reward[alive]
        weight = None if rows.weight is None else rows.weight[alive]
        by_cell.append([_sum(index, v, weight, len(key)) for v in (g, r * g, g**2)])
        keys.append(key)
    every = np.unique(np.concatenate(keys))
    cells = np.zeros((3, len(keys), len(every)))
    for b, (key, part) in enumerate(zip(keys, by_cell)):
        cells[:, b, np.searchsorted(every, key)] = part
    visits, reward, square = np.array(by_pair).transpose(1, 0, 2)
    return Sums(shape, every // shape[0], every % shape[0], visits, reward, square, *cells)


def _sum(
    slot: Int[np.ndarray, "n"], value: Float[np.ndarray, "n"] | None, weight: Float[np.ndarray, "n"] | None, size: int
) -> Float[np.ndarray, "size"]:
    parts = value if weight is None else weight if value is None else value * weight
    return np.bincount(slot, weights=parts, minlength=size).astype(np.float64)


def codes(key: Int[np.ndarray, "n"], limit: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "C"]]:
    """The index of each key among the distinct ones, and those in increasing order."""
    if limit > KEYS:
        distinct, index = np.unique(key, return_inverse=True)
        return index, distinct
    seen = np.zeros(limit, bool)
    seen[key] = True
    return (np.cumsum(seen) - 1)[key], np.flatnonzero(seen)
