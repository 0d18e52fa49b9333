"""Exact and simulated left sides for the bounds of docs/theory.md section 5, independent of their proofs.

One-step expectations go outcome by outcome with the real maximum over options.  Long runs freeze the greedy options of
Q_F, which the certificates cover (they use no more of a maximum than |max Q - max Q_F| <= max |Q - Q_F|) and which
makes second moments linear: a matrix power is a run of any length.  Letters: bounds.residual.population.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bounds.residual.correction import Correction
from bounds.residual.moments import FrozenUpdate, Triple
from bounds.residual.population import Population
from icq.display import Shown, shown

DOUBLINGS = 18


@shown
class LongMoments(NamedTuple):
    """E[Delta] and E[Delta Delta'] after `time` handoffs, and the latter averaged over all earlier times."""

    time: int
    mean: Float[np.ndarray, "p"]
    last: Float[np.ndarray, "p p"]
    path: Float[np.ndarray, "p p"]


@dataclass(frozen=True)
class FrozenRun(Shown):
    """Exact second moments at T = 0, 1, 2, 4, ..., 2^DOUBLINGS with frozen greedy options and a constant step.

    The vector (law, E[Delta 1], E[Delta Delta' 1]) [S (1 + p + p^2)] is multiplied by one matrix per handoff.
    """

    pop: Population
    alpha: float

    @cached_property
    def matrix(self) -> Float[np.ndarray, "m m"]:
        """Built from Kronecker products, one block per (next state, state)."""
        pop, k = self.pop, self.pop.outcomes
        states, p = pop.analysis.smdp.num_states, len(pop.theta_star)
        phi = pop.phi[k.pair]
        eta = k.discount[:, None] * pop.phi[pop.greedy][k.observation] - phi
        a = np.eye(p) + self.alpha * phi[:, :, None] * eta[:, None, :]
        b = self.alpha * phi * pop.td_error[:, None]
        size = 1 + p + p * p
        block = np.zeros((len(phi), size, size))
        block[:, 0, 0] = 1
        block[:, 1 : p + 1, 0] = b
        block[:, 1 : p + 1, 1 : p + 1] = a
        block[:, p + 1 :, 0] = np.einsum("ni,nj->nij", b, b).reshape(len(phi), -1)
        mixed = np.einsum("nik,nj->nijk", a, b) + np.einsum("ni,njk->nijk", b, a)
        block[:, p + 1 :, 1 : p + 1] = mixed.reshape(len(phi), p * p, p)
        block[:, p + 1 :, p + 1 :] = np.einsum("nik,njl->nijkl", a, a).reshape(len(phi), p * p, p * p)
        out = np.zeros((states, states, size, size))
        np.add.at(out, (k.target, k.source), k.weight[:, None, None] * block)
        return out.transpose(0, 2, 1, 3).reshape(states * size, states * size)

    def first(self, law: Float[np.ndarray, "S"], error: Float[np.ndarray, "p"]) -> Float[np.ndarray, "m"]:
        """The vector of a fixed Delta_0."""
        one = np.concatenate([[1.0], error, np.outer(error, error).reshape(-1)])
        return np.outer(law, one).reshape(-1)

    def runs(self, law: Float[np.ndarray, "S"], error: Float[np.ndarray, "p"]) -> Iterator[LongMoments]:
        """T = 1, 2, 4, ..., 2^DOUBLINGS."""
        power, vector = self.matrix, self.first(law, error)
        total, p = vector, len(error)
        now = power @ vector
        for j in range(DOUBLINGS + 1):
            mean = now.reshape(-1, 1 + p + p * p)[:, 1 : 1 + p].sum(0)
            yield LongMoments(2**j, mean, self._second(now, p), self._second(total, p) / 2**j)
            total = total + power @ total
            now = power @ now
            power = power @ power

    def _second(self, vector: Float[np.ndarray, "m"], p: int) -> Float[np.ndarray, "p p"]:
        return vector.reshape(-1, 1 + p + p * p)[:, 1 + p :].sum(0).reshape(p, p)


@dataclass(frozen=True)
class OneStep(Shown):
    """The update from any Delta with the real maximum, every outcome by itself.

    z: the deviation matrix, 0 for the control.  weight: W of the coordinates Delta = L'(theta - theta*), None for M.
    """

    pop: Population
    z: Float[np.ndarray, "S S"]
    weight: Float[np.ndarray, "p p"] | None = None

    @cached_property
    def correction(self) -> Correction:
        """Coordinates, linear response and kink of nu."""
        return Correction(self.pop, self.z, self.weight)

    def td(self, delta: Float[np.ndarray, "K p"]) -> Float[np.ndarray, "K n"]:
        """The TD error of every outcome at Q_F + (read of Delta)."""
        pop, k = self.pop, self.pop.outcomes
        table = pop.q_f.reshape(-1) + delta @ self.correction.read.T
        live = pop.analysis.interface.available
        value = np.where(live, table.reshape(len(delta), *live.shape), -np.inf).max(2)
        return k.reward + k.discount * value[:, k.observation] - table[:, k.pair]

    def step(self, delta: Float[np.ndarray, "K p"]) -> Float[np.ndarray, "K n p"]:
        """How every outcome moves Delta, per unit of alpha."""
        return self.td(delta)[:, :, None] * self.correction.push[self.pop.outcomes.pair]

    def mean(self, value: Float[np.ndarray, "K n *rest"]) -> Float[np.ndarray, "S K *rest"]:
        """E[value | s]."""
        k = self.pop.outcomes
        weights = np.zeros((len(self.z), len(k.source)))
        weights[k.source, np.arange(len(k.source))] = k.weight
        return np.tensordot(weights, value, (1, 1))

    def nu(self, delta: Float[np.ndarray, "K p"]) -> Float[np.ndarray, "S K p"]:
        """Z E[phi delta | .]."""
        return np.tensordot(self.z, self.mean(self.step(delta)), 1)

    def second(self, delta: Float[np.ndarray, "K p"]) -> Float[np.ndarray, "S K"]:
        """F = G + 2 X + 2 Y + 2 ||Delta|| U of every state and Delta: what the second correction makes up for."""
        k, c, td, step = self.pop.outcomes, self.correction, self.td(delta), self.step(delta)
        along = np.einsum("nkp,knp->kn", self.nu(delta)[k.target], step)
        response = td * (delta @ c.v[k.target, :, k.pair].T)
        kink = np.linalg.norm(delta, axis=1)[:, None] * c.follow(c.kink) * np.abs(td)
        return self.mean((step**2).sum(2) + 2 * (along + response + kink))

    def corrected(self, delta: Float[np.ndarray, "K p"], alpha: float, tier: int) -> Float[np.ndarray, "S K"]:
        """W of every state and Delta."""
        w = (delta**2).sum(1) + 2 * alpha * (self.nu(delta) * delta).sum(2)
        return w if tier == 1 else w + alpha**2 * np.tensordot(self.z, self.second(delta), 1)

    def after(self, delta: Float[np.ndarray, "p"], alpha: float, after: float, tier: int) -> Float[np.ndarray, "S"]:
        """E[W(Delta', s') | s], W' defined with the next step."""
        k = self.pop.outcomes
        moved = delta + alpha * self.step(delta[None])[0]
        value = self.corrected(moved, after, tier)[k.target, np.arange(len(moved))]
        return self.mean(value[None])[:, 0]


@dataclass(frozen=True)
class Simulation(Shown):
    """Squared d-norm errors of independent runs [runs] with the real maximum: last table and plain average."""

    last: Float[np.ndarray, "R"]
    average: Float[np.ndarray, "R"]


def walks(
    pop: Population,
    alpha: float | Float[np.ndarray, "T"],
    theta_0: Float[np.ndarray, "p"],
    rng: np.random.Generator,
    *,
    runs: int,
    start: Float[np.ndarray, "S"] | None = None,
    iid: bool = False,
    project: Callable[[Float[np.ndarray, "R p"]], Float[np.ndarray, "R p"]] | None = None,
) -> Iterator[Float[np.ndarray, "R p"]]:
    """Delta of independent runs with the real maximum, after 0, 1, 2, ... handoffs without end.

    alpha: a constant, or one step per handoff.  start: law of s_0, left out d.  iid: every handoff starts afresh from
    d.  project: done to Delta after every update.
    """
    k, live, each = pop.outcomes, pop.analysis.interface.available, np.arange(runs)
    law = pop.analysis.d if start is None else start
    state = rng.choice(len(law), size=runs, p=law / law.sum())
    delta = np.tile(pop.error(theta_0), (runs, 1))
    level = np.cumsum(k.weight)
    base = np.concatenate([[0.0], level])[np.searchsorted(k.source, np.arange(len(law)))]
    for time in count():
        yield delta
        if iid:
            state = rng.choice(len(law), size=runs, p=pop.analysis.d)
        row = np.searchsorted(level, base[state] + rng.random(runs) * (1 - 1e-12), side="right")
        table = pop.q_f.reshape(-1) + delta @ pop.phi.T
        value = np.where(live, table.reshape(runs, *live.shape), -np.inf).max(2)
        td = k.reward[row] + k.discount[row] * value[each, k.observation[row]] - table[each, k.pair[row]]
        step = alpha if isinstance(alpha, float) else alpha[time]
        delta = delta + step * td[:, None] * pop.phi[k.pair[row]]
        delta = delta if project is None else project(delta)
        state = k.target[row]


def simulate(
    pop: Population, alpha: float, theta_0: Float[np.ndarray, "p"], steps: int, rng: np.random.Generator, *,
    runs: int = 300, radii: Float[np.ndarray, "N"] | None = None,
) -> Simulation:  # fmt: skip
    """`runs` runs of `steps` handoffs; with `radii` every agent's parameters are projected on a ball."""
    owner, origin = _owner(pop), pop.root.T @ pop.theta_star

    def project(delta: Float[np.ndarray, "R p"]) -> Float[np.ndarray, "R p"]:
        length = np.sqrt(((delta + origin) ** 2) @ owner.T)
        return (delta + origin) * (np.minimum(1.0, radii / np.maximum(length, 1e-300)) @ owner) - origin

    walk = walks(pop, alpha, theta_0, rng, runs=runs, project=None if radii is None else project)
    average = sum(islice(walk, steps), np.zeros((runs, len(theta_0)))) / steps
    return Simulation(*(((x @ pop.phi.T) ** 2) @ pop.d for x in (next(walk), average)))


def _owner(pop: Population) -> Float[np.ndarray, "N p"]:
    """1 where a parameter belongs to an agent."""
    agent = np.repeat(np.asarray(pop.analysis.smdp.agent), pop.q_f.shape[1])
    blocks = [np.abs(pop.psi[agent == i]).sum(0) > 0 for i in range(pop.analysis.smdp.num_agents)]
    return np.array(blocks).astype(float)


def vector(t: Triple) -> Float[np.ndarray, "m"]:
    """All numbers of a triple."""
    return np.concatenate([getattr(t, f.name).reshape(-1) for f in fields(Triple)])


def triple(like: Triple, numbers: Float[np.ndarray, "m"]) -> Triple:
    """The inverse of `vector`."""
    parts, at = [], 0
    for f in fields(Triple):
        shape = getattr(like, f.name).shape
        size = math.prod(shape)
        parts.append(numbers[at : at + size].reshape(shape))
        at += size
    return Triple(*parts)


def long_limits(pop: Population, alpha: float) -> Float[np.ndarray, "2"]:
    """(E||Q - Q_F||_d^2/alpha, T E||Qavg - E Qavg||_d^2) at T = 2^30 of a constant step, by the moment recursion."""
    update = FrozenUpdate(pop)
    zero = update.start(pop.analysis.d, 0 * pop.theta_star)
    matrix = np.stack([vector(update.push(triple(zero, e), alpha)) for e in np.eye(len(vector(zero)))], axis=1)
    end = triple(zero, np.linalg.matrix_power(matrix, 2**30) @ vector(zero))
    gram, mean = pop.phi.T @ (pop.d[:, None] * pop.phi), end.sum_first.sum(0)
    spread = (end.sum_second - np.outer(mean, mean)) / (alpha**2 * 2.0**30)
    return np.array([np.sum(gram * end.second.sum(0)) / alpha, np.sum(gram * spread)])
