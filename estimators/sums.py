"""Sums over the handoffs of consecutive batches: the law of everything, without each batch, and of halves of them.

A log is reduced to the number of handoffs and the sum of rewards of each cell, and the sum of discounts of each edge
(`estimators.law`), per batch; with R^2, R g and g^2 beside them also the second moment of every TD error follows.  The
law of everything but one batch is then a subtraction, without touching the rows again.  Letters: docs/theory.md
sections 1 and 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from estimators.law import Frame, Law, SecondMoments, compress
from estimators.logs.log import Log
from estimators.statistics.jackknife import BATCHES, signs, slices
from icq.display import Shown, shown
from icq.exact import Analysis, outcome_discount

TRACE = 1e-9  # of all of the log in each of its halves
S = TypeVar("S", bound="Sums")


@shown
class Totals(NamedTuple):
    """Sums over batches."""

    cell: Float[np.ndarray, "m C"]
    edge: Float[np.ndarray, "m E"]


@dataclass(frozen=True, eq=False)
class Sums(Shown):
    """cell [m, B, C]: sums of 1 and R, and of R^2 where noise is wanted, by batch and cell of the frame.

    Batch b has the edges edge[first[b]:first[b+1]], with sums value [m, N] of g, and of R g and g^2.
    """

    frame: Frame
    cell: Float[np.ndarray, "m B C"]
    first: Int[np.ndarray, "B+1"]
    edge: Int[np.ndarray, "N"]
    value: Float[np.ndarray, "k N"]

    KEPT: ClassVar[float] = 2_000_000  # edges in all batches up to which laws are kept instead of made again

    @property
    def batches(self) -> int:
        """B."""
        return self.cell.shape[1]

    @property
    def count(self) -> Float[np.ndarray, "B C"]:
        """Handoffs in each cell per batch."""
        return self.cell[0]

    @cached_property
    def totals(self) -> Totals:
        """Sums over all batches."""
        return Totals(self.cell.sum(axis=1), self._edges(np.ones(self.batches)))

    def _edges(self, weight: Float[np.ndarray, "B"]) -> Float[np.ndarray, "k E"]:
        each, size = np.repeat(weight, np.diff(self.first)), len(self.frame.source)
        return np.stack([np.bincount(self.edge, each * row, size).astype(np.float64, copy=False) for row in self.value])

    def _law(self, sums: Totals, near: Law | None) -> Law:
        (count, reward, *square), (discount, *others) = sums
        shape = (self.frame.states, self.frame.options)
        each = np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
        of = each[self.frame.source]
        moments = SecondMoments((square[0] * each).reshape(shape), others[0] * of, others[1] * of) if square else None
        mass, mean = (count / count.sum()).reshape(shape), (reward * each).reshape(shape)
        return Law(self.frame, mass, mean, np.maximum(discount, 0.0) * of, moments, near, float(count.sum()))

    @cached_property
    def whole(self) -> Law:
        """The law of all handoffs."""
        return self._law(self.totals, None)

    @property
    def without(self) -> Iterable[Law]:
        """The laws of everything but one batch; small ones are kept, large ones are made one at a time."""
        return self._kept if self.batches * len(self.frame.source) <= self.KEPT else self._each()

    @cached_property
    def _kept(self) -> tuple[Law, ...]:
        return tuple(self._each())

    def _each(self) -> Iterator[Law]:
        for b in range(self.batches):
            edges, rows = self.totals.edge.copy(), slice(self.first[b], self.first[b + 1])
            edges[:, self.edge[rows]] -= self.value[:, rows]
            yield self._law(Totals(self.totals.cell - self.cell[:, b], edges), self.whole)

    @cached_property
    def halves(self) -> list[tuple[Law, Law]]:
        """The laws of the two halves of the batches, for every row of `jackknife.signs`."""
        return [(self._mostly(plus), self._mostly(~plus)) for plus in signs(self.batches) > 0]

    def _mostly(self, batches: Bool[np.ndarray, "B"]) -> Law:
        """The law of some batches with a trace of all, so that cells they lack keep one: something may lead there."""
        weight = batches.astype(float)
        part = (np.stack([weight @ sums for sums in self.cell]), self._edges(weight))
        return self._law(Totals(*(x + TRACE * every for x, every in zip(part, self.totals, strict=True))), self.whole)

    def only(self: S, batches: Bool[np.ndarray, "B"]) -> S:
        """Some of the batches, on the same frame; cells may have no visits there."""
        size = np.diff(self.first)
        keep, first = np.repeat(batches, size), np.concatenate(([0], np.cumsum(size[batches])))
        return replace(
            self, cell=self.cell[:, batches], first=first, edge=self.edge[keep], value=self.value[:, keep]
        )  # fmt: skip


class Batch(NamedTuple):
    """Handoffs (or weighted outcomes) to add up; the target of one without discount may be anything."""

    cell: Int[np.ndarray, "n"]
    target: Int[np.ndarray, "n"]
    reward: Float[np.ndarray, "n"]
    discount: Float[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"] | None = None


@shown
class Added(NamedTuple):
    """The fields of `Sums`, and the codes cell*targets + target of its edges."""

    cell: Float[np.ndarray, "m B C"]
    first: Int[np.ndarray, "B+1"]
    edge: Int[np.ndarray, "N"]
    value: Float[np.ndarray, "k N"]
    code: Int[np.ndarray, "E"]


def add(parts: Iterable[Batch], cells: int, targets: int, *, noise: bool) -> Added:
    """Batch after batch, so that a batch stays in the cache; then the edges of all batches side by side.

    noise: also the sums of second order.
    """
    by_cell, by_edge, codes = [], [], []
    for cell, target, reward, discount, weight in parts:
        by_cell.append([_sum(cell, x, weight, cells) for x in (None, reward, *([reward**2] if noise else []))])
        alive = np.flatnonzero(discount > 0)
        code, edge = compress(cell[alive] * targets + target[alive], cells * targets)
        g, r, share = discount[alive], reward[alive], None if weight is None else weight[alive]
        by_edge.append([_sum(edge, x, share, len(code)) for x in (g, *([r * g, g**2] if noise else []))])
        codes.append(code)
    every = np.unique(np.concatenate(codes))
    first = np.concatenate(([0], np.cumsum([len(code) for code in codes])))
    edge = np.concatenate([np.searchsorted(every, code) for code in codes])
    return Added(np.array(by_cell).transpose(1, 0, 2), first, edge, np.concatenate(by_edge, axis=1), every)


def _sum(
    slot: Int[np.ndarray, "n"], value: Float[np.ndarray, "n"] | None, weight: Float[np.ndarray, "n"] | None, size: int
) -> Float[np.ndarray, "size"]:
    parts = value if weight is None else weight if value is None else value * weight
    return np.bincount(slot, parts, size).astype(np.float64, copy=False)


def _of_pairs(agent: Int[np.ndarray, "O"], options: int, parts: Iterable[Batch]) -> Sums:
    """Sums whose states are the observations."""
    size = len(agent)
    found, observations = add(parts, size * options, size, noise=True), np.arange(size)
    source, target = np.divmod(found.code, max(size, 1))
    frame = Frame(observations, observations, agent, options, True, source, target)
    return Sums(frame, found.cell, found.first, found.edge, found.value)


def sums(log: Log, batches: int = BATCHES) -> Sums:
    """The sums of a log in `batches` consecutive batches, states the observations."""
    return log.once(f"sums in {batches} batches", lambda: _sums(log, batches))


def _sums(log: Log, batches: int) -> Sums:
    parts = (
        Batch(log.observation[rows] * log.num_options + log.option[rows], log.next_observation[rows],
              log.reward[rows], log.discount[rows])
        for rows in slices(len(log), batches)
    )  # fmt: skip
    return _of_pairs(log.owner, log.num_options, parts)


def pair_law(a: Analysis) -> Law:
    """The exact law of an instance under its behaviour policy, in the stationary regime; states are observations."""
    m = a.smdp
    obs, weight = np.asarray(m.observation), (a.d_state_pair[..., None] * m.prob).reshape(-1)
    keep = np.flatnonzero(weight > 0)
    pair = np.broadcast_to((obs[:, None] * m.num_options + np.arange(m.num_options))[..., None], m.prob.shape)
    outcomes = Batch(
        pair.reshape(-1)[keep], obs[np.asarray(m.next_state).reshape(-1)[keep]],
        np.asarray(m.reward, np.float64).reshape(-1)[keep], outcome_discount(m).reshape(-1)[keep], weight[keep],
    )  # fmt: skip
    return _of_pairs(np.asarray(m.agent), m.num_options, [outcomes]).whole
