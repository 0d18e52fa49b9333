"""What the log says about each pair x = (o, a): the empirical interface model, batch by batch.

A cell is a pair together with the observation handed over to.  Sums of 1, R, g, R^2, R g and g^2 per cell determine
the law d(x), the interface model rhat, Khat and the second moment of every TD error, so a functional of the log is
computed once per left-out batch without touching the rows again.  The same `Law` comes from an instance exactly.
Letters: docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from estimators.jackknife import BATCHES, batch_index
from estimators.logs import Log
from icq.exact import Analysis, Model, outcome_discount

KEYS = 20_000_000  # largest table of possible cells that is indexed directly instead of sorted


@dataclass(frozen=True, eq=False)
class Law:
    """d(x) [O, A], the interface model, and E[R^2|x] [X], E[R g 1{o'}|x], E[g^2 1{o'}|x] [X, O] (x = o*A + a)."""

    mass: Float[np.ndarray, "O A"]
    model: Model
    square: Float[np.ndarray, "X"]
    cross: sp.csr_array
    second: sp.csr_array

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
class Sums:
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
        return self._law(*(part.sum(0) for part in self._parts()))

    def without(self) -> Iterator[Law]:
        """The law of everything but batch b, one b at a time."""
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


def sums(log: Log, batches: int = BATCHES) -> Sums:
    """The sums of a log in `batches` consecutive batches."""
    shape = (log.num_observations, log.num_options)
    pair = log.observation * shape[1] + log.option
    return _accumulate(shape, pair, log.next_observation, log.reward, log.discount, batch_index(len(log), batches),
                       batches)  # fmt: skip


def law(a: Analysis) -> Law:
    """The exact law of an instance under its behaviour policy, in the stationary regime."""
    m = a.smdp
    obs, weight = np.asarray(m.observation), (a.d_state_pair[..., None] * m.prob).reshape(-1)
    keep = np.flatnonzero(weight > 0)
    pair = np.broadcast_to((obs[:, None] * m.num_options + np.arange(m.num_options))[..., None], m.prob.shape)
    shape = (m.num_observations, m.num_options)
    return _accumulate(
        shape, pair.reshape(-1)[keep], obs[np.asarray(m.next_state).reshape(-1)[keep]],
        np.asarray(m.reward, np.float64).reshape(-1)[keep], outcome_discount(m).reshape(-1)[keep],
        np.zeros(len(keep), np.int64), 1, weight[keep],
    ).whole()  # fmt: skip


def _accumulate(
    shape: tuple[int, int],
    pair: Int[np.ndarray, "n"],
    target: Int[np.ndarray, "n"],
    reward: Float[np.ndarray, "n"],
    discount: Float[np.ndarray, "n"],
    batch: Int[np.ndarray, "n"],
    batches: int,
    weight: Float[np.ndarray, "n"] | None = None,
) -> Sums:
    pairs = shape[0] * shape[1]

    def table(slot: np.ndarray, value: np.ndarray | None, share: np.ndarray | None, width: int) -> np.ndarray:
        parts = value if share is None else share if value is None else value * share
        found = np.bincount(slot, weights=parts, minlength=batches * width)
        return found.reshape(batches, width).astype(np.float64)

    slot = batch * pairs + pair
    visits, rewards, square = (table(slot, v, weight, pairs) for v in (None, reward, reward**2))
    alive = np.flatnonzero(discount > 0)
    index, key = _codes(pair[alive] * shape[0] + target[alive], pairs * shape[0])
    g, r, share = discount[alive], reward[alive], None if weight is None else weight[alive]
    slot = batch[alive] * len(key) + index
    gs, cross, second = (table(slot, v, share, len(key)) for v in (g, r * g, g**2))
    return Sums(shape, key // shape[0], key % shape[0], visits, rewards, square, gs, cross, second)


def _codes(key: Int[np.ndarray, "n"], limit: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "C"]]:
    """The index of each key among the distinct ones, and those in increasing order."""
    if limit > KEYS:
        distinct, index = np.unique(key, return_inverse=True)
        return index, distinct
    seen = np.zeros(limit, bool)
    seen[key] = True
    return (np.cumsum(seen) - 1)[key], np.flatnonzero(seen)
