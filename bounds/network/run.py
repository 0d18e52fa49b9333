"""A network's run around its population path, kernel by kernel (docs/theory.md section 5e).

The reference q is a table that moves like a table with the preconditioner K^{-1}, K the kernel of a piece of the path:
q_{k+1} = q_k + alpha_k K D (That q_k - q_k).  Constants are taken with one kernel for several pieces, a stage.  While
the network's own kernel, its table and its steps keep to what a piece and a stage allow, f_theta - q obeys the
perturbed inequality; a run that does not is killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg as la
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.steps import Steps, schedule
from bounds.network.kernel import LEAST_SHARE, Kernel, KernelPath, bends, kernel_path, relative, responses, turning
from bounds.network.perturbed import Disturbance, floor, killed, perturbed
from bounds.path.moving import Average, Following, Moving, path_sums
from bounds.path.population_path import Path
from bounds.path.reference import structure, td_errors
from bounds.path.twin import onward
from bounds.residual import loops
from bounds.residual.population import Population, population, tabular_features
from bounds.residual.recursion import Lyapunov, row
from bounds.residual.weights import Weight, has_drift, sector_weight
from icq.display import Fact, Shown
from icq.exact import Analysis
from icq.learn.classes import Params
from icq.learn.networks import Network

SHARE, FINE = 0.02, 0.004  # how far the path's own kernel may be from the ones that are used
SAFETY = 4.0  # times what the prediction expects of a run is what it may do before it is killed
BENT = 1.5  # times what a step bends at the ends of a stage is what it may bend
LEAST = 0.002  # what the kernel of a run may differ at the least
DRAWS = 8  # of the prediction, from which the expected drift of the kernel is taken
MOST = 80  # kernels along a path; each costs as much as the constants of a table


@dataclass(frozen=True, eq=False)
class Piece(Shown):
    """Handoffs first <= k < last, during which the reference moves by one fine kernel.

    A run is killed whose kernel is further than eta from it, or whose table is further than reach from the reference in
    an entry.  times [m]: those asked for, and reference [m, X], twin [m] there; sums, off [m + 1, X], mass [m + 1]: of
    the average (`path_sums`), in the end too.
    """

    kernel: Kernel
    follows: Following
    first: int
    last: int
    eta: float
    reach: float
    times: Int[np.ndarray, "m"]
    reference: Float[np.ndarray, "m X"]
    twin: Float[np.ndarray, "m"]
    sums: Float[np.ndarray, "n X"]
    off: Float[np.ndarray, "n X"]
    mass: Float[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Stage(Shown):
    """Consecutive pieces with one kernel for all constants.

    eta: how far the run's kernel may be from it.  turn, bend: of a step of size eps = alpha |delta|; eps turn bounds
    the change of the kernel, relative to this one, and eps^2 bend what the table is off its first order in the norm of
    the weight.  rows: of the recursion, through the handoffs `ends`.
    """

    kernel: Kernel
    pieces: tuple[Piece, ...]
    eta: float
    turn: float
    bend: float
    weight: Weight | None
    chi: float
    rows: Float[np.ndarray, "n row"]
    ends: Int[np.ndarray, "n"]
    assumptions: tuple[Assumption, ...]


@dataclass(frozen=True, eq=False)
class NetworkRun(Shown):
    """A network's run around its path, through times[-1] handoffs with the steps alpha [times[-1] + 2]; scale [O, A] of
    the steps, one number an agent.  Everything is computed when it is asked for.
    """

    analysis: Analysis
    cls: Network
    alpha: Float[np.ndarray, "steps"]
    scale: Float[np.ndarray, "O A"]
    times: Int[np.ndarray, "n"]
    average: Average
    iid: bool = False
    safety: float = SAFETY

    @cached_property
    def live(self) -> Int[np.ndarray, "X"]:
        """The indices o A + a of the available pairs."""
        return np.flatnonzero(self.analysis.interface.available.reshape(-1))

    @cached_property
    def path(self) -> KernelPath:
        """The kernels along the path of the parameters."""
        return kernel_path(self.analysis, self.cls, self.scale, float(self.alpha[:-2].sum()), SHARE, FINE)

    @cached_property
    def known(self) -> tuple[Assumption, ...]:
        """What must hold before anything is computed."""
        rise, p = float(np.diff(self.alpha).max(initial=0.0)), self.path
        found = (
            below("kernel has full rank", LEAST_SHARE, p.least, f"lambda_min/lambda_max of K D is {p.least:.2g}"),
            Assumption("steps do not grow", rise <= 0, 0.0 if rise <= 0 else -rise, f"the largest rise is {rise:.2g}"),
        )  # fmt: skip
        if not found[0].holds:
            return found
        return (*found, below("kernel moves slowly", float(len(p.coarse)), MOST + 0.5, f"{len(p.coarse)} are needed"))

    @cached_property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Those of the whole run, of each the one with the least margin."""
        if not all(x.holds for x in self.known):
            return self.known
        worst: dict[str, Assumption] = {}
        for x in (x for stage in self.stages for x in stage.assumptions):
            if x.name not in worst or x.margin < worst[x.name].margin:
                worst[x.name] = x
        return (*self.known, *worst.values())

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The reference, kernel by kernel, and what the prediction expects of a run along it."""
        starts, stop = self._starts(self.path.fine), int(self.times[-1])
        q, cov = self.path.table.reshape(-1)[self.live], np.zeros((len(self.live), len(self.live)))
        out = []
        for i, (first, k) in enumerate(starts):
            piece, cov = self._piece(k, first, starts[i + 1][0] if i + 1 < len(starts) else stop, q, cov)
            out.append(piece)
            q = piece.follows.path.theta[-1]
        return tuple(out)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every kernel with its inequalities; ends early where one of them fails an assumption."""
        return tuple(self._follow())

    def _follow(self) -> Iterator[Stage]:
        coarse, before = self._starts(self.path.coarse), None
        for i, (first, k) in enumerate(coarse):
            stop = coarse[i + 1][0] if i + 1 < len(coarse) else int(self.times[-1])
            after = coarse[i + 1][1].params if i + 1 < len(coarse) else self.path.last
            stage = self._stage(k, [p for p in self.pieces if first <= p.first < stop], after, before)
            yield stage
            before = stage.weight
            if not all(x.holds for x in stage.assumptions):
                return

    def _starts(self, kernels: Sequence[Kernel]) -> list[tuple[int, Kernel]]:
        """Kernels by the handoff from which they are used; of several at the same one, the last."""
        clock = np.concatenate([[0.0], np.cumsum(self.alpha[:-2])])
        places = np.searchsorted(clock, [k.since for k in kernels], side="right") - 1
        found = dict(zip(places.tolist(), kernels, strict=True))
        return [(i, found[i]) for i in sorted(found) if i < int(self.times[-1])]

    def _piece(
        self, k: Kernel, first: int, last: int, q: Float[np.ndarray, "X"], cov: Float[np.ndarray, "X X"]
    ) -> tuple[Piece, Float[np.ndarray, "X X"]]:
        asked = self.times[(self.times > first) & (self.times <= last)]
        local = np.unique([*(asked - first), last - first])
        m = Following(_table(self.analysis, k), self.alpha[first : last + 1], q, local)
        spread = onward(m, cov, iid=self.iid)
        drift = self._drift(k, cov, spread.covariance, first)
        weights, here = self.average.weights[first : last + 1], np.isin(local, asked - first)
        inner, end = path_sums(m, Average(weights, self.average.inclusive)), path_sums(m, Average(weights, False))
        sums, off, mass = (np.concatenate([x[here], y[-1:]]) for x, y in zip(inner, end, strict=True))
        return Piece(
            k, m, first, last, k.drift + max(drift, LEAST), self.safety * spread.widest, asked, m.path.at(local)[here],
            spread.value[here], sums, off, mass,
        ), spread.covariance  # fmt: skip

    def _drift(
        self, k: Kernel, before: Float[np.ndarray, "X X"], after: Float[np.ndarray, "X X"], first: int
    ) -> float:  # fmt: skip
        """Some times the largest drift of the kernel that the prediction expects of a run at either end of a piece."""
        rng = np.random.default_rng([first, DRAWS])
        ends = [x for x in (before, after) if x.any()]
        draws = np.concatenate([rng.multivariate_normal(np.zeros(len(x)), x, DRAWS, method="eigh") for x in ends])
        return self.safety * float(responses(self.cls, k.params, self.scale, draws, self.live).max())

    def _stage(self, k: Kernel, pieces: Sequence[Piece], after: Params, before: Weight | None) -> Stage:
        first, last = pieces[0].first, pieces[-1].last
        away = np.array([relative(p.kernel.matrix, k.matrix) for p in pieces])
        slips = (1 + away) * np.array([p.eta for p in pieces])
        eta, slip = float((away + slips).max()), float(slips.max())
        pop = _table(self.analysis, k)
        weight = sector_weight(pop, eta)
        if weight is None:
            lost = Assumption("drift", False, -math.inf, f"no weight has one for kernels within {eta:.2g}")
            none = np.zeros(0, int)
            return Stage(k, tuple(pieces), eta, 0.0, 0.0, None, math.nan, np.zeros((0, loops.ROW)), none, (lost,))
        shape, spectrum = structure(pop, weight, self.iid), la.eigh(weight.matrix, pop.metric, eigvals_only=True)
        twist = math.sqrt(spectrum[-1] / spectrum[0])
        path, end = _joined([p.follows.path for p in pieces]), np.array([last - first])
        lag = twist * float(away.max())
        m = Moving(pop, self.alpha[first : last + 2], path.theta[0], end, shape, given=path, lag=lag)
        bent = [bends(self.cls, params, self.scale, self.live) for params in (k.params, after)]
        turn = BENT * max(turning(b, k.matrix) for b in bent)
        bend = BENT * max(math.sqrt(float(np.einsum("xi,ij,xj->x", b.step, weight.matrix, b.step).max())) for b in bent)
        data = self._inequalities(m, twist, eta, slip, turn, bend, max(p.reach for p in pieces))
        most = float(m.alpha[0])
        conditions = (
            has_drift(weight.rate),
            *max((x.conditions(most) for x in data), key=lambda both: -min(c.margin for c in both)),
        )
        rows = np.zeros((0, loops.ROW))
        if all(c.holds for c in conditions):
            least = max(floor(x, most) for x in data)
            rows = np.array([row(killed(x, least), shape.rate, shape.chi) for x in data])
            if before is not None:
                rows[0, -1] = float(la.eigh(weight.matrix, before.matrix, eigvals_only=True)[-1])
        ends = first + m.path.times[m.knots[1:]]
        return Stage(k, tuple(pieces), eta, turn, bend, weight, shape.chi, rows, ends, conditions)

    def _inequalities(
        self, m: Moving, twist: float, eta: float, slip: float, turn: float, bend: float, reach: float
    ) -> list[Lyapunov]:
        """Those of the linear table between each two knots of the reference, perturbed.  twist: the norm of the
        weight over that of the kernel, at most; slip: of the run's kernel from the fine one.
        """  # fmt: skip
        pop, s = m.pop, m.structure
        td = td_errors(pop, m.path.theta[m.knots])
        more = (1 + float(pop.outcomes.discount.max())) * (reach + m.away_pairs)
        sizes = np.array([math.sqrt(float(pop.expect(t**2).max())) for t in td])
        sizes, ceilings = (np.maximum(x[:-1], x[1:]) + more for x in (sizes, np.abs(td).max(axis=1)))
        knots, out = m.path.times[m.knots], []
        for i, x in enumerate(m.inequalities):
            steps = m.alpha[knots[i] : knots[i + 1] + 1]
            wrong = Disturbance(
                eta * twist, slip * twist, bend, turn * twist, float(m.turns[i]), float(sizes[i]),
                float(ceilings.max()), float(steps.min()), float(steps.max()),
            )  # fmt: skip
            out.append(perturbed(x, s, m.largest, i, wrong))
        return out

    def _facts_(self) -> list[Fact]:
        return [Fact("handoffs", int(self.times[-1])), Fact("width", getattr(self.cls.module, "width", None))]


def _table(a: Analysis, k: Kernel) -> Population:
    """The table whose preconditioner is the inverse of a kernel."""
    metric = np.linalg.inv(k.matrix)
    return population(a, tabular_features(a), (metric + metric.T) / 2)


def _joined(paths: Sequence[Path]) -> Path:
    """Paths that follow each other, as one."""
    starts = np.cumsum([0, *(p.times[-1] for p in paths)])
    times = np.concatenate([[0], *(s + p.times[1:] for s, p in zip(starts[:-1], paths, strict=True))])
    theta = np.concatenate([paths[0].theta[:1], *(p.theta[1:] for p in paths)])
    pairs = np.concatenate([*(p.pairs[:-1] for p in paths), paths[-1].pairs[-1:]])
    return Path(times, theta, pairs, np.concatenate([p.off for p in paths]))


def network_run(
    a: Analysis, cls: Network, steps: Steps, scale: Float[np.ndarray, "O A"], times: Int[np.ndarray, "n"], *,
    average: Average | None = None, iid: bool = False, safety: float = SAFETY,
) -> NetworkRun:  # fmt: skip
    """A run of networks around their path.  average: of tables, the plain mean when left out; safety: how much more
    than predicted a run may do before it is killed.

    Raises ValueError as `schedule` does, for networks without a start of their own, from which all runs begin, and
    where `scale` differs between pairs that share parameters.
    """
    if cls.start is None:
        raise ValueError("cls: networks need a start, the same one for all runs")
    agent, live = np.asarray(a.smdp.agent), a.interface.available
    for i in range(a.smdp.num_agents):
        own = scale[agent == i][live[agent == i]]
        if not np.allclose(own, own.mean(), rtol=1e-6, atol=0):
            raise ValueError("scale: pairs that share parameters must share it")
    alpha = schedule(steps, int(times[-1]) + 2)
    average = Average(np.ones(len(alpha) - 1), True) if average is None else average
    return NetworkRun(a, cls, alpha, np.asarray(scale), times, average, iid, safety)
