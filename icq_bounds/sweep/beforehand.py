"""What is known of the errors of a run before it is run: bounds from the instance, the class and the schedule.

The theorem (docs/theory.md sections 5d, 5e and 6) speaks of linear classes and of networks, of plain updates with known
steps, of any schedule, along a trajectory or drawn afresh, of the last iterate and of the learner's own average; of
linear classes in the precision they work with.  A run outside of that has no bound on its residual here, and says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from bounds import ladder
from bounds.approximation.class_error import class_error_bound, class_error_sector, trivial_error
from bounds.approximation.classes import linear_class
from bounds.core.bound import Assumption, Bound
from bounds.core.steps import Decay
from bounds.interface.bracket import bracket_bound_d
from bounds.network import theorem
from bounds.network.run import NetworkRun, network_run
from bounds.path.moving import Moving, averaged, last_iterate, learners_average, moving
from bounds.path.rounding import DOUBLE, SINGLE, arithmetic
from bounds.path.twin import predicted
from bounds.residual.population import Population, block_features, outcomes, population, sampled_range, tabular_features
from bounds.residual.weights import last_weight
from bounds.theorem import Output
from icq.display import Shown
from icq.exact import Analysis
from icq.learn.classes import FunctionClass, Linear, Tabular
from icq.learn.learner import PLAIN, LearnerConfig, is_double
from icq.learn.networks import Network
from icq.reason import NoNumber
from icq_bounds.sweep.methods import add_bounds

SECTION = "docs/theory.md section 6"
Bounds: TypeAlias = Mapping[Output, Sequence[Bound]]  # at each time


@dataclass(frozen=True)
class Beforehand(Shown):
    """Bounds by term and output in the d-norm, in reward units, at each of the times; `predicted` [times]: where the
    residual of the last iterate should lie (docs/theory.md section 5d), no bound; NaN where there is no such number.

    run: of networks, what the bound allows a run before it is killed; None where nothing can kill one.
    """  # fmt: skip

    bounds: Mapping[str, Bounds]
    predicted: Float[np.ndarray, "K"]
    run: NetworkRun | None = None

    @property
    def output(self) -> Output:
        """Which output is shown: the average, which is the better one; of networks with a bound, whose average is that
        of their parameters, the last iterate.
        """
        return Output.AVERAGE if self.run is None else Output.LAST


def beforehand(a: Analysis, cls: FunctionClass, config: LearnerConfig, times: Int[np.ndarray, "K"]) -> Beforehand:
    """The bound on each term; those on interface and approximation do not depend on time or output."""
    run = _network(a, cls, config, times)
    interface, approximation = bracket_bound_d(a), _class_error(a, cls, run)
    residual, expected = _residual(a, cls, config, times) if run is None else _network_residual(run)
    low, high = sampled_range(outcomes(a.smdp))
    cap = a.norm_d_state(np.maximum(a.q_star - low, high - a.q_star))
    stays = _stays(a, cls, config, low, high)
    residual = {o: [_capped(b) if stays else b for b in found] for o, found in residual.items()}
    total: dict[Output, list[Bound]] = {}
    for output, found in residual.items():
        sums = [add_bounds("sum of the three bounds", interface, approximation, part) for part in found]
        sums = [replace(bound, trivial=cap) for bound in sums]
        total[output] = [_capped(b) if stays else b for b in sums]
    constant = {"interface": interface, "approximation": approximation}
    same = {term: dict.fromkeys(Output, [bound] * len(times)) for term, bound in constant.items()}
    return Beforehand({**same, "residual": residual, "total": total}, expected, run)


def scope(cls: FunctionClass, config: LearnerConfig) -> tuple[Assumption, ...]:
    """What the theorem assumes of a run, beside what it assumes of the instance."""
    linear, detail = isinstance(cls, Tabular | Linear), f"the class is a {type(cls).__name__}"
    return (Assumption("linear class", linear, math.inf if linear else -math.inf, detail), *updates(config))


def updates(config: LearnerConfig) -> tuple[Assumption, ...]:
    """What the theorem assumes of the updates."""

    def needs(name: str, holds: bool, detail: str) -> Assumption:
        return Assumption(name, holds, math.inf if holds else -math.inf, detail)

    return (
        needs("plain updates", config.optimiser is PLAIN, "an optimiser scales the updates"),
        needs("known steps", not config.visit_normalised, "steps are divided by counted visits"),
        needs("no projection", config.radius is None, "blocks are projected on a ball"),
    )


def _network(a: Analysis, cls: FunctionClass, config: LearnerConfig, times: Int[np.ndarray, "K"]) -> NetworkRun | None:
    """The run of networks that all start alike and learn by plain steps in double precision."""
    if not isinstance(cls, Network) or cls.start is None or not is_double(cls):
        return None
    if not all(x.holds for x in updates(config)):
        return None
    scale = np.ones(a.q_bar.shape) if config.scale is None else np.asarray(config.scale, np.float64)
    return network_run(a, cls, decay(config), scale, times, iid=_flag(config.iid))


def _network_residual(run: NetworkRun) -> tuple[dict[Output, list[Bound]], Float[np.ndarray, "K"]]:
    curve = theorem.last_iterate(run)
    apart = Assumption("mean of tables", False, -math.inf, "networks average their parameters, not their tables")
    found = {
        Output.LAST: [curve.at(i) for i in range(len(run.times))],
        Output.AVERAGE: [_none("residual", apart)] * len(run.times),
    }
    known = all(x.holds for x in run.known)
    return found, theorem.predicted(run) if known else np.full(len(run.times), np.nan)


def _class_error(a: Analysis, cls: FunctionClass, run: NetworkRun | None) -> Bound:
    if run is not None:
        full = run.known[0]
        name = "networks whose kernel has full rank represent every Q"
        return Bound(name, 0.0 if full.holds else math.nan, {}, (full,), "docs/theory.md section 5e", trivial_error(a))
    if isinstance(cls, Tabular):
        return Bound("a table represents every Q", 0.0, {}, (), "docs/theory.md section 4", trivial_error(a))
    if isinstance(cls, Linear):
        members = linear_class(a, np.asarray(cls.features, float), np.asarray(cls.offset, float))
        both = class_error_bound(members), class_error_sector(members)
        return min((b for b in both if b.applicable), key=lambda b: b.value, default=both[0])
    linear = Assumption("linear class", False, -math.inf, "what a network cannot represent is known from its Q_F only")
    return _none("class error", linear)


def _residual(
    a: Analysis, cls: FunctionClass, config: LearnerConfig, times: Int[np.ndarray, "K"]
) -> tuple[dict[Output, list[Bound]], Float[np.ndarray, "K"]]:
    nothing = np.full(len(times), np.nan)

    def none(*missing: Assumption) -> tuple[dict[Output, list[Bound]], Float[np.ndarray, "K"]]:
        return {output: [_none("residual", *missing)] * len(times) for output in Output}, nothing

    if missing := [x for x in scope(cls, config) if not x.holds]:
        return none(*missing)
    assert isinstance(cls, Tabular | Linear)  # the first of them
    try:
        pop, start = problem(a, cls, config)
    except NoNumber as error:
        return none(Assumption("class fixed point", False, -math.inf, str(error)))
    if not (fits := ladder.arrays_fit(pop)).holds:
        return none(fits)
    m = run_around_path(pop, start, cls, config, times)
    mean = learners_average(int(times[-1]), float(np.asarray(config.averaging_power)))
    curves = {Output.LAST: last_iterate(m), Output.AVERAGE: averaged(m, mean)}
    found = {output: [curve.at(i) for i in range(len(times))] for output, curve in curves.items()}
    if not curves[Output.LAST].applicable:
        return found, nothing
    way = (m.path.at(times) - pop.theta_star) @ pop.psi.T
    return found, np.sqrt(way**2 @ pop.d + predicted(m, iid=_flag(config.iid)) ** 2)


def run_around_path(
    pop: Population, start: Float[np.ndarray, "p"], cls: FunctionClass, config: LearnerConfig,
    times: Int[np.ndarray, "K"],
) -> Moving:  # fmt: skip
    """A learner's run around its population path, with the weight for its last iterate."""
    steps = decay(config)
    precision = arithmetic(DOUBLE if is_double(cls) else SINGLE, steps, int(times[-1]))
    return moving(pop, steps, start, times, weight=last_weight(pop), iid=_flag(config.iid), arithmetic=precision)


def decay(config: LearnerConfig) -> Decay:
    """The steps of a learner, without the scale of the pairs."""
    return Decay(*(float(np.asarray(x)) for x in (config.step, config.decay_offset, config.decay_power)))


def problem(a: Analysis, cls: Tabular | Linear, config: LearnerConfig) -> tuple[Population, Float[np.ndarray, "p"]]:
    """The population problem of a learner with a linear class, and where it starts.

    M is diagonal, one over the scale c of the steps.  Raises NoNumber as `population` does.  Raises ValueError where
    c differs between pairs that share parameters, as then no M describes the updates.
    """
    shape = a.q_bar.shape
    c = np.ones(shape) if config.scale is None else np.asarray(config.scale, np.float64)
    if isinstance(cls, Linear):
        agent = np.asarray(a.smdp.agent)
        live = a.interface.available
        own = np.array([c[agent == i][live[agent == i]].mean() for i in range(a.smdp.num_agents)])
        if not np.allclose(np.where(live, c, own[agent][:, None]), own[agent][:, None], rtol=1e-6):
            raise ValueError("scale: pairs that share parameters must share it")
        psi = block_features(a, np.asarray(cls.features, np.float64))
        metric = np.diag(np.repeat(1 / own, np.shape(cls.features)[-1]))
        pop = population(a, psi, metric, np.asarray(cls.offset, np.float64).reshape(-1))
        return pop, np.zeros(len(metric))
    psi = tabular_features(a)
    at = a.interface.available.reshape(-1)
    start = np.asarray(cls.initial, np.float64).reshape(-1)[at]
    return population(a, psi, np.diag(1 / c.reshape(-1)[at])), start


def _stays(a: Analysis, cls: FunctionClass, config: LearnerConfig, low: float, high: float) -> bool:
    """Whether every entry provably stays in the range of discounted sums of rewards: a table that starts there and
    moves by a convex combination, so never by more than a full step.  In single precision rounding may lead out of it.
    """  # fmt: skip
    if not isinstance(cls, Tabular) or not is_double(cls) or not all(x.holds for x in scope(cls, config)):
        return False
    live = a.interface.available
    c = 1.0 if config.scale is None else float(np.asarray(config.scale)[live].max())
    start = np.asarray(cls.initial)[live]
    return bool(float(np.asarray(config.step)) * c <= 1 and (low <= start).all() and (start <= high).all())


def _capped(bound: Bound) -> Bound:
    """The smaller of a bound and the trivial one, where that holds of the run; then it is vacuous."""
    return replace(bound, value=min(bound.value, bound.trivial)) if bound.applicable else bound


def _flag(x: object) -> bool:
    return bool(np.asarray(x))


def _none(name: str, *missing: Assumption) -> Bound:
    return Bound(name, math.nan, {}, missing, SECTION)
