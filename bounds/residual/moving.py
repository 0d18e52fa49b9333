"""The moving reference: bounds before the run that follow the population path (docs/theory.md section 5d).

theta_k = thbar_k + e_k with thbar the population path from the same start, so e_0 = 0.  The path is a number; only e
is random, and its second moment obeys the recursion of section 5b from zero, with constants along the path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.curve import Curve, curve
from bounds.core.steps import Steps, schedule
from bounds.residual import _loops
from bounds.residual.path import Path, mean_step, population_path
from bounds.residual.population import Population
from bounds.residual.recursion import Lyapunov, row
from bounds.residual.reference import CommonGrowths, References, inequality, references, structure, worst
from bounds.residual.weights import Weight
from icq.display import Shown

SECTION = "docs/theory.md section 5d"


GROUP = 8  # stretches of one choice of greedy options whose constants are taken together


@dataclass(frozen=True, eq=False)
class Moving(Shown):
    """A run around its population path: data[i] is the inequality of the handoffs ends[i-1] <= k < ends[i]."""

    pop: Population
    path: Path
    alpha: Float[np.ndarray, "steps"]
    structure: CommonGrowths
    ends: Int[np.ndarray, "n"]
    data: tuple[Lyapunov, ...]

    def fluctuation(
        self, times: Int[np.ndarray, "n"], weights: Float[np.ndarray, "L"] | None = None
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Bounds on (E||Q_T - Q_thbar_T||_d^2)^{1/2}, and with weights [T + 1] of Q_0, ..., Q_T on the root of the
        weighted mean of E||Q_k - Q_thbar_k||_d^2 over k <= T.
        """
        s, rows = self.structure, np.array([row(x) for x in self.data])
        given = np.zeros(len(self.alpha) - 1) if weights is None else weights
        v, mean = _loops.iterate(
            rows, self.ends, self.alpha, 0.0, np.asarray(times, np.int64), given, True, s.rate, s.chi
        )
        return s.chi * np.sqrt(v), np.sqrt(mean)


def moving(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    weight: Weight | None = None,
    iid: bool = False,
) -> Moving:
    """Path, constants along it and their inequalities, for a run through times[-1] handoffs."""
    last = int(times[-1])
    alpha = schedule(steps, last + 2)
    s = structure(pop, weight, iid)
    path = population_path(pop, alpha[: last + 1], theta_0, times)
    knots, off = _groups(path, times)
    found = references(s, path.theta[knots])
    both = References(*(np.concatenate([v[:-1], v[1:]]) for v in (getattr(found, n) for n in _NAMES)))
    off = np.linalg.norm(off @ np.abs(s.correction.root), axis=1)
    top, turn = worst(s, both, off), np.maximum.reduceat(_turns(s, path, alpha), knots[:-1])
    data = tuple(inequality(s, top, i, float(turn[i])) for i in range(len(off)))
    return Moving(pop, path, alpha, s, np.asarray(path.times[knots[1:]], np.int64), data)


_NAMES = tuple(References.__dataclass_fields__)


def _groups(path: Path, times: Int[np.ndarray, "m"]) -> tuple[Int[np.ndarray, "knots"], Float[np.ndarray, "n p"]]:
    """Knots that bound groups of stretches with the same greedy options, and how far iterates are from each chord.

    The times asked for bound groups, too.
    """
    asked = set(np.asarray(times).tolist())
    same = (path.pairs[:-1] == path.pairs[1:]).all(axis=1)
    knots, off = [0], []
    while knots[-1] < len(path.off):
        first = knots[-1]
        end = first + 1
        while end < min(first + GROUP, len(path.off)) and same[first:end].all() and path.times[end] not in asked:
            end += 1
        inner = path.theta[first : end + 1]
        chord = inner[-1] - inner[0]
        length = float(chord @ chord)
        share = np.clip((inner - inner[0]) @ chord / length, 0, 1) if length > 0 else np.zeros(len(inner))
        away = np.abs(inner - inner[0] - share[:, None] * chord)
        # an iterate is near the chord of its stretch, whose ends are near the chord of the group
        off.append((path.off[first:end] + np.maximum(away[:-1], away[1:])).max(axis=0))
        knots.append(end)
    return np.array(knots), np.array(off)


def _turns(s: CommonGrowths, path: Path, alpha: Float[np.ndarray, "steps"]) -> Float[np.ndarray, "n"]:
    """The largest |ubar_{k+1} - ubar_k|/alpha_k of every stretch.

    One handoff: from its two ends.  More: w moves by -alpha A w with fixed greedy options, linear in the reference.
    """
    pop, root = s.correction.pop, s.correction.root
    w = np.array([mean_step(pop, theta)[0] for theta in path.theta])
    out = np.empty(len(path.off))
    for i, (first, end) in enumerate(zip(path.times[:-1].tolist(), path.times[1:].tolist(), strict=True)):
        if end == first + 1:
            out[i] = np.linalg.norm((w[i + 1] - w[i]) @ root) / alpha[first]
        else:
            a = path.field(pop, i)
            ends = np.linalg.norm(np.array([a @ w[i], a @ w[i + 1]]) @ root, axis=1).max()
            out[i] = ends + np.linalg.norm((np.abs(a) @ (np.abs(a) @ path.off[i])) @ np.abs(root))
    return out


def average_weights(last: int, power: float) -> Float[np.ndarray, "L"]:
    """The learner's weights of Q_0, ..., Q_T, up to a factor: k^(p+1) - (k-1)^(p+1), none for the start."""
    k = np.arange(1, last + 1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        share = -np.expm1((power + 1) * np.log1p(-1.0 / k))
    return np.concatenate([[0.0], share * (k / last) ** (power + 1)])


def _conditions(m: Moving) -> tuple[Assumption, ...]:
    """A drift, the fixed point reached, and the two step conditions at the largest step of the run."""
    s, pop = m.structure, m.pop
    scale = max(pop.analysis.norm_d(pop.q_f), 1.0)
    return (
        below("drift", -s.rate, 0.0, f"certified rate {s.rate:.4g} of the weight must be positive"),
        below("fixed point", pop.residual, 1e-9 * scale, f"||Q_F - Pi That Q_F||_d = {pop.residual:.2g}"),
        *m.data[0].conditions(float(m.alpha.max())),
    )


def _distance(pop: Population, theta: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n"]:
    """||Q_theta - Q_F||_d."""
    return np.sqrt(((theta - pop.theta_star) @ pop.psi.T) ** 2 @ pop.d)


def last_iterate(m: Moving, times: Int[np.ndarray, "n"]) -> Curve:
    """Theorem (moving reference): (E||Q_T - Q_F||_d^2)^{1/2} <= ||Q_thbar_T - Q_F||_d + chi V_T^{1/2}.

    The first is a number of the path, V_T obeys the recursion from V_0 = 0.  Any law of the first state, any schedule.
    Assumes a drift, 2 alpha L + alpha^2 a_1 < 1 and 2 alpha mu <= 1 for the largest step.
    """

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        path, noise = _distance(m.pop, m.path.at(times)), m.fluctuation(times)[0]
        return path + noise, {"path": float(path[-1]), "fluctuation": float(noise[-1])}

    return curve("moving reference", times, _conditions(m), compute, SECTION, m.pop.range_cap)


def averaged(m: Moving, times: Int[np.ndarray, "n"], power: float) -> Curve:
    """Theorem (moving reference, averaged): the same for the learner's average, whose weights are about k^power.

    (E||Qavg_T - Q_F||_d^2)^{1/2} <= ||mean of Q_thbar_k - Q_F||_d + (weighted mean of E||Q_k - Q_thbar_k||_d^2)^{1/2}.
    """

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        weights = average_weights(int(times[-1]), power)
        path, noise = mean_path(m, times, weights), m.fluctuation(times, weights)[1]
        return path + noise, {"path": float(path[-1]), "fluctuation": float(noise[-1])}

    return curve("moving reference, average", times, _conditions(m), compute, SECTION, m.pop.range_cap)


def mean_path(m: Moving, times: Int[np.ndarray, "n"], weights: Float[np.ndarray, "L"]) -> Float[np.ndarray, "n"]:
    """||sum w_k Q_thbar_k / sum w_k - Q_F||_d over k <= T; iterates off their chords are added entry by entry."""
    path, pop = m.path, m.pop
    clock = np.concatenate([[0.0], np.cumsum(m.alpha[:-1])])
    starts = path.times[:-1]
    mass = np.add.reduceat(weights, starts)
    late = np.add.reduceat(weights * clock[:-1], starts) - mass * clock[starts]
    share = late / (clock[path.times[1:]] - clock[starts])
    moved = mass[:, None] * (path.theta[:-1] - pop.theta_star) + share[:, None] * np.diff(path.theta, axis=0)
    sums, off = np.cumsum(moved, axis=0), np.cumsum(mass[:, None] * path.off, axis=0)
    total = np.cumsum(weights)
    out = []
    for time in times.tolist():
        i = int(np.searchsorted(path.times, time)) - 1
        mean = (sums[i] + weights[time] * (path.theta[i + 1] - pop.theta_star)) / total[time]
        away = np.abs(pop.psi) @ (off[i] / total[time])
        out.append(float(np.sqrt((pop.psi @ mean) ** 2 @ pop.d) + np.sqrt(away**2 @ pop.d)))
    return np.array(out)
