"""The moving reference: bounds before the run that follow the population path (docs/theory.md section 5d).

theta_k = thbar_k + e_k with thbar the population path from the same start, so e_0 = 0.  The path is a number; only e
is random, and its second moment obeys the recursion of section 5b from zero, with constants along the path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.linalg as la
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.curve import Curve, curve
from bounds.core.steps import Steps, schedule
from bounds.path.population_path import Path, mean_step, population_path
from bounds.path.reference import CommonGrowths, References, inequality, references, structure, worst
from bounds.path.rounding import Arithmetic, of_average, rounded, rounding
from bounds.residual import loops
from bounds.residual.population import Population
from bounds.residual.recursion import Lyapunov, row
from bounds.residual.weights import Weight, has_drift
from icq.display import Shown, shown

SECTION = "docs/theory.md section 5d"


GROUP = 8  # stretches of one choice of greedy options whose constants are taken together


@shown
class Fluctuation(NamedTuple):
    """Bounds at each time.  last: (E||Q_T - Q_thbar_T||_d^2)^{1/2}; mean: the root of the weighted mean of
    E||Q_k - Q_thbar_k||_d^2, NaN without an average; peak: the largest (E||e_k||_W^2)^{1/2} until then.
    """  # fmt: skip

    last: Float[np.ndarray, "n"]
    mean: Float[np.ndarray, "n"]
    peak: Float[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Following(Shown):
    """The population path of a run from theta_0 with the steps alpha, cut where constants are taken together.

    times: those asked for.
    """

    pop: Population
    alpha: Float[np.ndarray, "steps"]
    theta_0: Float[np.ndarray, "p"]
    times: Int[np.ndarray, "n"]

    @cached_property
    def path(self) -> Path:
        """The path through all steps but the last."""
        return population_path(self.pop, self.alpha[:-1], self.theta_0, self.times)

    @cached_property
    def _cut(self) -> tuple[Int[np.ndarray, "knots"], Float[np.ndarray, "n p"]]:
        return _groups(self.path, self.times)

    @property
    def knots(self) -> Int[np.ndarray, "knots"]:
        """Knots of the path between which constants are taken together."""
        return self._cut[0]

    @property
    def away_pairs(self) -> Float[np.ndarray, "n"]:
        """How far, in any entry of the table, references may be from the chord between two such knots."""
        return (self._cut[1] @ np.abs(self.pop.psi).T).max(axis=1)


@dataclass(frozen=True, eq=False)
class Moving(Following):
    """A run around its population path, through times[-1] handoffs from theta_0 with the steps alpha [times[-1] + 2].

    arithmetic: of the learner; None: real numbers.  given: the path, where it is not the population's own, but moves by
    (I + N)w with ||N|| <= lag in the norm of the weight.  Path and inequalities are computed when they are asked for.
    """

    structure: CommonGrowths
    arithmetic: Arithmetic | None = None
    given: Path | None = None
    lag: float = 0.0

    @cached_property
    def path(self) -> Path:
        """The path through all steps but the last; it does not depend on the weight."""
        return super().path if self.given is None else self.given

    @cached_property
    def away(self) -> Float[np.ndarray, "n"]:
        """As `away_pairs`, in the norm of the weight."""
        return np.linalg.norm(self._cut[1] @ np.abs(self.structure.correction.root), axis=1)

    @cached_property
    def largest(self) -> References:
        """The constants between each two knots, the largest of all references there."""
        found = references(self.structure, self.path.theta[self.knots])
        both = References(*(np.concatenate([v[:-1], v[1:]]) for v in (getattr(found, n) for n in _NAMES)))
        return worst(self.structure, both, self.away)

    @cached_property
    def turns(self) -> Float[np.ndarray, "n"]:
        """|ubar_{k+1} - ubar_k|/alpha_k between each two knots, the largest."""
        return np.maximum.reduceat(_turns(self.structure, self.path, self.alpha, self.lag), self.knots[:-1])

    @cached_property
    def inequalities(self) -> tuple[Lyapunov, ...]:
        """The inequality between each two knots; real numbers."""
        return tuple(inequality(self.structure, self.largest, i, float(t)) for i, t in enumerate(self.turns))

    @cached_property
    def groups(self) -> tuple[Int[np.ndarray, "knots"], tuple[Lyapunov, ...]]:
        """Knots [n + 1] of the path, and the inequality of the handoffs between each two of them, with rounding."""
        s, path, (knots, off), data = self.structure, self.path, self._cut, self.inequalities
        if self.arithmetic is None:
            return knots, data
        r, ends = rounding(s.correction, self.arithmetic), np.abs(path.theta[knots]).max(axis=1)
        size = np.maximum(ends[:-1], ends[1:]) + off.max(axis=1)
        steps = [self.alpha[i : j + 1] for i, j in pairwise(path.times[knots].tolist())]
        return knots, tuple(
            rounded(x, r, float(t), float(a.min()), float(a.max())) for x, t, a in zip(data, size, steps, strict=True)
        )

    def fluctuation(self, average: Average | None = None) -> Fluctuation:
        """What the recursion says at `times`."""
        s, (knots, data) = self.structure, self.groups
        nothing = Average(np.zeros(len(self.alpha) - 1), True)
        weights, inclusive = average or nothing
        _, mean, peak, error = loops.iterate(
            np.array([row(x, s.rate, s.chi) for x in data]), self.path.times[knots[1:]].astype(np.int64), self.alpha,
            0.0, self.times.astype(np.int64), weights, inclusive,
        )  # fmt: skip
        return Fluctuation(error, np.sqrt(mean), peak)


@shown
class Average(NamedTuple):
    """Weights w_k [L] of Q_0, Q_1, ... in an average; after T handoffs it holds k <= T if inclusive, else k < T."""

    weights: Float[np.ndarray, "L"]
    inclusive: bool


def learners_average(last: int, power: float) -> Average:
    """That of `icq.learn.learner`: Q_k weighs k^(p+1) - (k-1)^(p+1), up to a factor, the start nothing."""
    k = np.arange(1, last + 1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        share = -np.expm1((power + 1) * np.log1p(-1.0 / k))
    return Average(np.concatenate([[0.0], share * (k / last) ** (power + 1)]), True)


def moving(
    pop: Population,
    steps: Steps,
    theta_0: Float[np.ndarray, "p"],
    times: Int[np.ndarray, "n"],
    *,
    weight: Weight | None = None,
    iid: bool = False,
    arithmetic: Arithmetic | None = None,
) -> Moving:
    """A run around its path; weight: of the Lyapunov function, None for the preconditioner.

    arithmetic: of the learner (`bounds.path.rounding.arithmetic`); None for real numbers.  Raises ValueError as
    `schedule` does.
    """
    alpha = schedule(steps, int(times[-1]) + 2)
    return Moving(pop, alpha, theta_0, times, structure(pop, weight, iid), arithmetic)


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


def _turns(
    s: CommonGrowths, path: Path, alpha: Float[np.ndarray, "steps"], lag: float
) -> Float[np.ndarray, "n"]:  # fmt: skip
    """The largest |ubar_{k+1} - ubar_k|/alpha_k of every stretch.

    One handoff: from its two ends.  More: w moves by -alpha A (I + N)w with fixed greedy options, linear in the
    reference; ||N|| <= lag.
    """
    pop, root = s.correction.pop, s.correction.root
    w = np.array([mean_step(pop, theta)[0] for theta in path.theta])
    out, sizes = np.empty(len(path.off)), dict[bytes, float]()
    for i, (first, end) in enumerate(zip(path.times[:-1].tolist(), path.times[1:].tolist(), strict=True)):
        if end == first + 1:
            out[i] = np.linalg.norm((w[i + 1] - w[i]) @ root) / alpha[first]
            continue
        a, both = path.field(pop, i), np.array([w[i], w[i + 1]])
        out[i] = np.linalg.norm(both @ a.T @ root, axis=1).max()
        out[i] += np.linalg.norm((np.abs(a) @ (np.abs(a) @ path.off[i])) @ np.abs(root))
        if lag > 0:
            key = path.pairs[i].tobytes()
            if key not in sizes:
                sizes[key] = float(np.linalg.norm(la.solve_triangular(root, (root.T @ a).T, lower=True), 2))
            far = np.linalg.norm(both @ root, axis=1).max() + np.linalg.norm((np.abs(a) @ path.off[i]) @ np.abs(root))
            out[i] += lag * sizes[key] * far
    return out


def _conditions(m: Moving) -> tuple[Assumption, ...]:
    """A drift, the fixed point reached, and the two step conditions at the largest step of the run."""
    s, pop, largest = m.structure, m.pop, float(m.alpha.max())
    scale = pop.analysis.norm_d(pop.q_f) or 1.0
    corrections = 2 * largest * s.single[1] + largest**2 * s.a_1
    return (
        has_drift(s.rate),
        below("fixed point", pop.residual, 1e-9 * scale, f"||Q_F - Pi That Q_F||_d = {pop.residual:.2g}"),
        below("small corrections", corrections, 1.0, "x^2 coefficient of |W - V| must be below 1"),
        below("no overshoot", 2 * largest * s.mu, 1.0, "2 alpha mu must be below 1"),
    )


def last_iterate(m: Moving) -> Curve:
    """Theorem (moving reference): (E||Q_T - Q_F||_d^2)^{1/2} <= ||Q_thbar_T - Q_F||_d + chi V_T^{1/2} at m.times.

    The first is a number of the path, V_T obeys the recursion from V_0 = 0.  Any law of the first state, any schedule.
    Assumes a drift, 2 alpha L + alpha^2 a_1 < 1 and 2 alpha mu <= 1 for the largest step.
    """
    pop = m.pop

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        path = np.sqrt(((m.path.at(m.times) - pop.theta_star) @ pop.psi.T) ** 2 @ pop.d)
        noise = m.fluctuation().last
        return path + noise, {"path": float(path[-1]), "fluctuation": float(noise[-1])}

    return curve("moving reference", m.times, _conditions(m), compute, SECTION, pop.range_cap)


def averaged(m: Moving, average: Average) -> Curve:
    """Theorem (moving reference, averaged): the same for any weighted average of the iterates.

    (E||Qavg_T - Q_F||_d^2)^{1/2} <= ||mean of Q_thbar_k - Q_F||_d + (weighted mean of E||Q_k - Q_thbar_k||_d^2)^{1/2}.
    """

    def compute() -> tuple[Float[np.ndarray, "n"], dict[str, float]]:
        path, found = mean_path(m, average), m.fluctuation(average)
        lost = np.zeros(len(path)) if m.arithmetic is None else _lost(m, found.peak)
        terms = {"path": float(path[-1]), "fluctuation": float(found.mean[-1]), "rounding": float(lost[-1])}
        return path + found.mean + lost, terms

    return curve("moving reference, averaged", m.times, _conditions(m), compute, SECTION, m.pop.range_cap)


def _lost(m: Moving, peak: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """What rounding of the running average may cost at m.times: entries of modulus |thbar| and, in mean square, |e|."""
    assert m.arithmetic is not None
    root, psi = m.structure.correction.root, np.abs(m.pop.psi)
    reach = 1 / float(np.linalg.svd(root, compute_uv=False)[-1])
    size = float(np.abs(m.path.theta).max() + m.path.off.max()) + reach * peak
    one = float(np.sqrt((psi.sum(axis=1) ** 2) @ m.pop.d))
    return of_average(m.arithmetic, size * one, m.times)


def mean_path(m: Moving, average: Average) -> Float[np.ndarray, "n"]:
    """||sum w_k Q_thbar_k / sum w_k - Q_F||_d at m.times; how far iterates are off their chords is added."""
    sums, off, mass = path_sums(m, average)
    moved, away = (sums / mass[:, None]) @ m.pop.psi.T, (off / mass[:, None]) @ np.abs(m.pop.psi).T
    return np.sqrt(moved**2 @ m.pop.d) + np.sqrt(away**2 @ m.pop.d)


def path_sums(
    m: Following, average: Average
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"], Float[np.ndarray, "n"]]:
    """sum w_k (thbar_k - theta*) at m.times, entry by entry how far it may be off, and sum w_k."""
    path, pop, (weights, inclusive) = m.path, m.pop, average
    clock = np.concatenate([[0.0], np.cumsum(m.alpha[:-1])])
    starts = path.times[:-1]
    each = weights[: path.times[-1]]
    mass = np.add.reduceat(each, starts)
    late = np.add.reduceat(each * clock[: len(each)], starts) - mass * clock[starts]
    share = late / (clock[path.times[1:]] - clock[starts])
    moved = mass[:, None] * (path.theta[:-1] - pop.theta_star) + share[:, None] * np.diff(path.theta, axis=0)
    sums, off = np.cumsum(moved, axis=0), np.cumsum(mass[:, None] * path.off, axis=0)
    at = np.searchsorted(path.times, m.times) - 1
    last = weights[m.times] if inclusive else np.zeros(len(m.times))
    whole = np.cumsum(weights)[m.times] - weights[m.times] + last
    return sums[at] + last[:, None] * (path.theta[at + 1] - pop.theta_star), off[at], whole
