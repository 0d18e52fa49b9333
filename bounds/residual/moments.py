"""Exact first and second moments of the iterates when the greedy options stay those of Q_F (small instances).

With frozen greedy options the update is affine in Delta, Delta' = Delta + alpha phi(x) (eta'Delta + delta*) with
eta = g phi(o', greedy) - phi(x), so the triple p_k(s) = P(s_k = s), m_k(s) = E[Delta_k 1{s_k = s}] and
M_k(s) = E[Delta_k Delta_k' 1{s_k = s}] obeys a linear recursion: nothing is asymptotic and nothing is bounded.
Letters: docs/theory.md section 5a and bounds.residual.population.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from bounds.core.steps import Steps, schedule
from bounds.residual.population import Population
from icq.display import Fact, Shown, spread


@dataclass(frozen=True)
class RunMoments(Shown):
    """Exact errors at `times` [n].

    norm = E||Delta||^2, error = E||Q - Q_F||_d^2, bias = ||E Q - Q_F||_d^2; averaged = E||Qavg - Q_F||_d^2 for the
    step-weighted average Qavg of Q_0, ..., Q_{k-1}, averaged_bias likewise, and path = the same average of the errors
    E||Q_j - Q_F||_d^2.  The last three are NaN at time 0.
    """

    times: Int[np.ndarray, "n"]
    norm: Float[np.ndarray, "n"]
    error: Float[np.ndarray, "n"]
    bias: Float[np.ndarray, "n"]
    averaged: Float[np.ndarray, "n"]
    averaged_bias: Float[np.ndarray, "n"]
    path: Float[np.ndarray, "n"]

    def _facts_(self) -> list[Fact]:
        return [
            Fact("updates", f"{self.times[0]} to {self.times[-1]}"), Fact("times", len(self.times)),
            Fact("root mean square error", spread(np.sqrt(self.error)), "reward in the d-norm"),
            Fact("of the average", spread(np.sqrt(self.averaged))),
        ]  # fmt: skip


@dataclass(frozen=True)
class Triple(Shown):
    """Joint moments with the indicator of the state; sum = running sum of alpha_j Delta_j.

    law [S] = P(s_k = s), first [S, p] = E[Delta 1], second [S, p, p] = E[Delta Delta' 1], sum_first [S, p] =
    E[sum 1], cross [S, p, p] = E[sum Delta' 1], sum_second [p, p] = E[sum sum'].
    """

    law: Float[np.ndarray, "S"]
    first: Float[np.ndarray, "S p"]
    second: Float[np.ndarray, "S p p"]
    sum_first: Float[np.ndarray, "S p"]
    cross: Float[np.ndarray, "S p p"]
    sum_second: Float[np.ndarray, "p p"]


@dataclass(frozen=True)
class FrozenUpdate(Shown):
    """The affine update of every outcome, and what it does to a `Triple`.  iid: redraw the state before each update."""

    pop: Population
    iid: bool = False

    @cached_property
    def mover(self) -> sp.csr_array:
        """[S, n]: sums weight(k) value(k) over the outcomes that lead to each state."""
        k, states = self.pop.outcomes, self.pop.analysis.smdp.num_states
        return sp.csr_array((k.weight, (k.target, np.arange(len(k.target)))), shape=(states, len(k.target)))

    @cached_property
    def eta(self) -> Float[np.ndarray, "n p"]:
        """g phi(o', greedy) - phi(x)."""
        k, phi = self.pop.outcomes, self.pop.phi
        return k.discount[:, None] * phi[self.pop.greedy][k.observation] - phi[k.pair]

    def start(self, law: Float[np.ndarray, "S"], error: Float[np.ndarray, "p"]) -> Triple:
        """A fixed Delta_0 and s_0 from `law`."""
        states, p = len(law), len(error)
        zero = np.zeros((states, p, p))
        first, second = np.outer(law, error), law[:, None, None] * np.outer(error, error)
        return self._redraw(Triple(law, first, second, np.zeros((states, p)), zero, np.zeros((p, p))))

    def push(self, now: Triple, alpha: float) -> Triple:
        """Lemma (moment recursion): the triple after one handoff with step alpha."""
        k, delta = self.pop.outcomes, self.pop.td_error[:, None]
        sums, cross = now.sum_first + alpha * now.first, now.cross + alpha * now.second
        joint = now.cross.sum(0)
        total = now.sum_second + alpha * (joint + joint.T) + alpha**2 * now.second.sum(0)
        m, x, eta = now.first[k.source], self.pop.phi[k.pair], self.eta
        u = np.einsum("npq,nq->np", now.second[k.source], eta)
        slope = (eta * m).sum(1, keepdims=True)
        square = (eta * u).sum(1, keepdims=True) + 2 * delta * slope + delta**2 * now.law[k.source][:, None]
        half = alpha * (u + delta * m) + 0.5 * alpha**2 * square * x
        grown = self._move(x[:, :, None] * half[:, None, :])
        lever = np.einsum("npq,nq->np", cross[k.source], eta) + delta * sums[k.source]
        return self._redraw(
            Triple(
                self._move(now.law[k.source]),
                self._move(m + alpha * x * (slope + delta * now.law[k.source][:, None])),
                self._move(now.second[k.source]) + grown + grown.transpose(0, 2, 1),
                self._move(sums[k.source]),
                self._move(cross[k.source] + alpha * lever[:, :, None] * x[:, None, :]),
                total,
            )
        )

    def _move(self, value: Float[np.ndarray, "n *rest"]) -> Float[np.ndarray, "S *rest"]:
        return (self.mover @ value.reshape(len(value), -1)).reshape(-1, *value.shape[1:])

    def _redraw(self, now: Triple) -> Triple:
        if not self.iid:
            return now

        def fresh(part: Float[np.ndarray, "S *rest"]) -> Float[np.ndarray, "S *rest"]:
            return np.multiply.outer(self.pop.analysis.d, part.sum(0))

        return Triple(
            fresh(now.law), fresh(now.first), fresh(now.second), fresh(now.sum_first), fresh(now.cross), now.sum_second
        )


def second_moments(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    start: Float[np.ndarray, "S"] | None = None,
    *,
    iid: bool = False,
) -> RunMoments:
    """Lemma (second_moments): exact moments of IC-Q with the greedy options of Q_F frozen, at increasing `times`.

    start: law of s_0 (default d).  iid: every handoff is drawn afresh from d x beta x P (the control).  Cost per
    update: about 4 n p^2 for n outcomes.
    """
    update = FrozenUpdate(pop, iid)
    gram = pop.phi.T @ (pop.d[:, None] * pop.phi)
    now = update.start(pop.analysis.d if start is None else start.astype(float), pop.error(theta_0))
    alpha = schedule(steps, int(times[-1]) + 1)
    weight, path, rows = 0.0, 0.0, []
    wanted = set(times.tolist())
    for time in range(int(times[-1]) + 1):
        square, mean = now.second.sum(0), now.first.sum(0)
        error = float(np.sum(gram * square))
        if time in wanted:
            share, drawn = (1 / weight, now.sum_first.sum(0)) if weight else (np.nan, mean)
            rows.append((
                np.trace(square), error, mean @ gram @ mean, share**2 * np.sum(gram * now.sum_second),
                share**2 * drawn @ gram @ drawn, share * path,
            ))  # fmt: skip
        path, weight = path + alpha[time] * error, weight + alpha[time]
        now = update.push(now, float(alpha[time]))
    return RunMoments(times, *np.array(rows).T)
