"""The chain that a log shows: which observation (or context) follows which, counted batch by batch.

The view has one-step probabilities and a stationary law whether or not it is Markov.  Everything computed from them
is a fact about the Markov chain with these one-step probabilities; it is a fact about the workflow only as far as the
view is Markov (docs/theory.md section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from estimators.law import compress
from estimators.logs.log import Log
from estimators.statistics.estimate import expect
from estimators.statistics.jackknife import BATCHES, slices
from icq.display import Fact, Shown
from icq.exact import Analysis
from icq.exact import markov as chains
from icq.reason import NoNumber, Reason, Why

PER_BATCH = 5  # memories that a batch must be long
LEAVES = 2  # batches in which every pair or state must have been seen


@dataclass(frozen=True, eq=False)
class Counts(Shown):
    """Steps [B, C] from source[c] to target[c] of a chain on `size` states, in B consecutive batches."""

    size: int
    source: Int[np.ndarray, "C"]
    target: Int[np.ndarray, "C"]
    steps: Float[np.ndarray, "B C"]

    def matrix(self, steps: Float[np.ndarray, "C"]) -> sp.csr_array:
        """Row-normalised steps; a state never left has an empty row."""
        counts = sp.csr_array((steps, (self.source, self.target)), shape=(self.size, self.size))
        counts.eliminate_zeros()
        left = np.asarray(counts.sum(axis=1))
        return sp.csr_array(sp.diags_array(np.divide(1.0, left, out=np.zeros_like(left), where=left > 0)) @ counts)

    def whole(self) -> sp.csr_array:
        """P of everything."""
        return self.matrix(self.steps.sum(0))

    @cached_property
    def without(self) -> list[sp.csr_array]:
        """P of everything but each batch."""
        total = self.steps.sum(0)
        return [self.matrix(total - part) for part in self.steps]

    @property
    def visits(self) -> Float[np.ndarray, "B S"]:
        """How often each state was left in each batch."""
        return np.stack([np.bincount(self.source, weights=row, minlength=self.size) for row in self.steps])

    def check(self, context: bool) -> None:
        """Raise NoNumber where this is not yet a chain (of contexts, or observations) to speak of."""
        visits = self.visits
        rare = np.flatnonzero((visits > 0).sum(0) < LEAVES)
        if len(rare):
            code = int(rare[0])
            some = f"context {code}, in" if context else "in"
            place = f"{some} fewer than {LEAVES} of {len(visits)}, one of {len(rare)} such states"
            need = "log until every state has been left many times"
            raise NoNumber(Why(Reason.RARE_STATE, place, need, observation=None if context else code))
        check_one_class(self.whole())

    def _facts_(self) -> list[Fact]:
        return [Fact("states", self.size), Fact("kinds of steps", len(self.source)), Fact("batches", len(self.steps)),
                Fact("steps", int(self.steps.sum()))]  # fmt: skip


def counts(log: Log, *, context: bool = False, batches: int = BATCHES) -> Counts:
    """The steps of a log: from each observation to the next one, or from each context to that of the row that follows.

    Raises ValueError when the context is asked for and not logged.
    """
    if context and log.context is None:
        raise ValueError("the log has no context; only the chain of observations can be estimated")
    size = int(log.context.max(initial=-1)) + 1 if context and log.context is not None else log.num_observations
    keys, steps = [], []
    for rows in slices(len(log), batches):
        key, index = compress(_steps(log, rows, context) @ np.array([size, 1]), size**2)
        keys.append(key)
        steps.append(np.bincount(index, minlength=len(key)))
    every = np.unique(np.concatenate(keys))
    table = np.zeros((batches, len(every)))
    for b, (key, part) in enumerate(zip(keys, steps)):
        table[b, np.searchsorted(every, key)] = part
    return Counts(size, every // size, every % size, table)


def _steps(log: Log, rows: slice, context: bool) -> Int[np.ndarray, "n 2"]:
    """Where the chain was and where it went next, where both are known.

    After a task that ended without naming the next one comes the first observation of the next task in the log.
    """
    if context and log.context is not None:
        onward = np.flatnonzero(log.follows[rows.start + 1 : rows.stop + 1]) + rows.start
        return np.stack([log.context[onward], log.context[onward + 1]], axis=1)
    step = np.stack([log.observation[rows], log.next_observation[rows]], axis=1)
    ended = np.flatnonzero(log.done[rows] & (step[:, 1] < 0))
    ended = ended[rows.start + ended + 1 < len(log)]
    step[ended, 1] = log.observation[rows.start + ended + 1]
    return step[step[:, 1] >= 0]


def transition(source: Analysis | Log, *, context: bool = False) -> sp.csr_array:
    """One-step probabilities of the view: of observations, or (context) of the context; of an instance or a log.

    Of an instance the handoff chain itself, or lumped with the stationary weights of states given observations.
    """
    expect("source", source, Analysis, Log)
    if isinstance(source, Log):
        return counts(source, context=context, batches=1).whole()
    if context:
        return source.transition
    states, obs = len(source.d), np.asarray(source.smdp.observation)
    lump = sp.csr_array((np.ones(states), (np.arange(states), obs)), shape=(states, len(source.d_obs)))
    weigh = sp.csr_array((source.w, (obs, np.arange(states))), shape=(len(source.d_obs), states))
    return sp.csr_array(weigh @ source.transition @ lump)


def memory(p: sp.csr_array) -> float:
    """How many handoffs of a view count as one, at least 1: s/(1 - s), s the second modulus of the lazy (I + P)/2.

    For real lambda_2 >= 0 this is (1 + lambda_2)/(1 - lambda_2).  A cycle is no memory: what alternates averages out.
    """
    slow = chains.slem(sp.csr_array((sp.eye_array(p.shape[0]) + p) / 2))
    if np.isnan(slow):  # too many alike for the lazy chain
        slow = chains.slem(p)
        return (1 + slow) / (1 - slow) if slow < 1 else float("inf")
    return max(slow / (1 - slow), 1.0) if slow < 1 else float("inf")


def check_one_class(p: sp.csr_array) -> None:
    """Raise NoNumber unless a chain has one closed class."""
    structure = chains.structure(p)
    if len(structure.closed) != 1:
        raise NoNumber(Reason.REDUCIBLE, structure.problems()[0], "log until every state has been left")


def disconnected(
    source: Int[np.ndarray, "n"], target: Int[np.ndarray, "n"], seen: Int[np.ndarray, "m"], size: int
) -> Why | None:
    """That observations fall into parts between which no step of these leads; None where they do not.

    seen: the observations that occur.  The first of the smallest part is named.
    """
    steps = sp.csr_array((np.ones(len(source)), (source, target)), shape=(size, size))
    part = connected_components(steps, directed=False)[1][seen]
    labels, first, count = np.unique(part, return_index=True, return_counts=True)
    if len(labels) < 2:
        return None
    smallest = int(count.argmin())
    place = f"it is in one of {len(labels)} parts, with {count[smallest] - 1} other observations"
    need = "diagnose each part as a log of its own; no longer log brings them together"
    return Why(Reason.DISCONNECTED, place, need, observation=int(seen[first[smallest]]))


def _parts(log: Log) -> Why | None:
    """The same of a log, by the steps inside its tasks and chains."""
    onward = np.flatnonzero(log.next_observation >= 0)
    follows = np.flatnonzero(log.follows[1:])
    source = np.concatenate([log.observation[onward], log.observation[follows]])
    target = np.concatenate([log.next_observation[onward], log.observation[follows + 1]])
    return disconnected(source, target, np.unique(log.observation), log.num_observations)


def effective(log: Log, *, context: bool = False) -> float:
    """n_eff, how many independent handoffs a log is worth: its rows over the memory of the view.

    Raises NoNumber when its batches are not independent enough to have intervals: each must hold PER_BATCH memories,
    and every state must be left in LEAVES batches.
    """
    n, least = len(log), BATCHES * PER_BATCH
    if n < least:
        raise NoNumber(Reason.FEW_HANDOFFS, f"{n} rows, at least {least} are needed", "log longer", n_eff=float(n))
    seen = counts(log, context=context)
    seen.check(context)
    held = memory(seen.whole())
    if not n / held >= least and (why := _parts(log)) is not None:
        raise NoNumber(why, n_eff=n / held)
    if not n / held >= least:
        place = f"{'contexts' if context else 'observations'} are remembered for about {held:.3g} handoffs, so {n} rows"
        place += f" are {n / held:.3g} effective ones"
        raise NoNumber(Reason.SHORT, place, f"log at least {least * held:.3g} handoffs", n_eff=n / held)
    return n / held
