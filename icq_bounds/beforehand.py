"""What is known of the errors of a run before it is run: bounds from the instance, the class and the schedule.

Used of the theorem (docs/theory.md section 6) is what it says of linear classes, of plain updates with a constant step
along one trajectory, and of the plain mean of the iterates.  A run outside of that has no bound on its residual here,
and says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from bounds import ladder
from bounds.approximation.class_error import class_error_bound
from bounds.approximation.classes import linear_class
from bounds.core.bound import Assumption, Bound, conditional
from bounds.core.curve import Curve
from bounds.interface.gap import trivial_cap
from bounds.residual.population import Population, block_features, population, tabular_features
from icq.exact import Analysis
from icq.learn.classes import FunctionClass, Linear, Tabular
from icq.learn.learner import PLAIN, LearnerConfig
from icq.reason import NoNumber
from icq_bounds.sweep.methods import add_bounds

SECTION = "docs/theory.md section 6"


def bounds_beforehand(
    a: Analysis, cls: FunctionClass, config: LearnerConfig, times: Int[np.ndarray, "K"]
) -> dict[str, tuple[Bound, ...]]:
    """The bound on each term in the d-norm, in reward units, after each of `times` handoffs.

    Those on interface and approximation do not depend on the time; that on the total is the sum.
    """
    interface, approximation = ladder.signed_gap_bound_d(a), _class_error(a, cls)
    residual = _residual(a, cls, config, times)
    sums = (add_bounds("sum of the three bounds", interface, approximation, part) for part in residual)
    total = tuple(replace(bound, trivial=trivial_cap(a)) for bound in sums)
    constant = {"interface": (interface,) * len(times), "approximation": (approximation,) * len(times)}
    return constant | {"residual": residual, "total": total}


def scope(cls: FunctionClass, config: LearnerConfig) -> tuple[Assumption, ...]:
    """What the theorem assumes of a run, beside what it assumes of the instance."""
    power, weight = float(np.asarray(config.decay_power)), float(np.asarray(config.averaging_power))

    def needs(name: str, holds: bool, detail: str) -> Assumption:
        return Assumption(name, holds, math.inf if holds else -math.inf, detail)

    return (
        needs("linear class", isinstance(cls, Tabular | Linear), f"the class is a {type(cls).__name__}"),
        needs("plain updates", config.optimiser is PLAIN, "an optimiser scales the updates"),
        needs("constant step", power == 0, f"steps fall like handoffs^-{power:g}"),
        needs("plain mean", weight == 0, f"iterate k weighs like k^{weight:g} in the average"),
        needs("one trajectory", not bool(np.asarray(config.iid)), "handoffs are drawn independently"),
    )


def _class_error(a: Analysis, cls: FunctionClass) -> Bound:
    if isinstance(cls, Tabular):
        return Bound("a table represents every Q", 0.0, {}, (), "docs/theory.md section 4")
    if isinstance(cls, Linear):
        return class_error_bound(linear_class(a, np.asarray(cls.features, float), np.asarray(cls.offset, float)))
    linear = Assumption("linear class", False, -math.inf, "what a network cannot represent is known from its Q_F only")
    return _none("class error", linear)


def _residual(a: Analysis, cls: FunctionClass, config: LearnerConfig, times: Int[np.ndarray, "K"]) -> tuple[Bound, ...]:
    missing = [x for x in scope(cls, config) if not x.holds]
    if missing:
        return (_none("residual", *missing),) * len(times)
    try:
        pop = _population(a, cls)
    except NoNumber as error:
        return (_none("residual", Assumption("class fixed point", False, -math.inf, str(error))),) * len(times)
    step, start = float(np.asarray(config.step)), np.zeros(len(pop.theta_star))
    run = ladder.Run(step, start, times)
    last, average = ladder.last_iterate_curves(pop, run), ladder.average_curves(pop, run)
    begun = a.norm_d(pop.q_f - pop.offset.reshape(pop.q_f.shape))
    return tuple(_learned_mean(_best(average, i), _best(last, i), begun, int(t)) for i, t in enumerate(times))


def _population(a: Analysis, cls: FunctionClass) -> Population:
    """The class with plain updates (M the identity)."""
    if isinstance(cls, Linear):
        psi = block_features(a, np.asarray(cls.features, np.float64))
        return population(a, psi, offset=np.asarray(cls.offset, np.float64).reshape(-1))
    return population(a, tabular_features(a))


def _best(curves: Sequence[Curve], i: int) -> Bound:
    """The smallest number at one time; the first bound, inapplicable, when there is none."""
    found = [curve.at(i) for curve in curves]
    return min((b for b in found if b.applicable), key=lambda b: b.value, default=found[0])


def _learned_mean(average: Bound, last: Bound, begun: float, handoffs: int) -> Bound:
    """The bound on the mean of iterates 1, ..., T, which the learner keeps; the theorem speaks of 0, ..., T - 1.

    The two differ by (Q_T - Q_0)/T, whose root mean square is at most (that of Q_T - Q_F + ||Q_0 - Q_F||_d)/T.
    """

    def compute() -> tuple[float, dict[str, float]]:
        shift = (last.value + begun) / handoffs
        return average.value + shift, {average.name: average.value, "shift of the mean": shift}

    assumptions = (*average.assumptions, *last.assumptions)
    roundoff = average.roundoff + last.roundoff / handoffs
    bound = conditional(average.name, assumptions, compute, SECTION, average.trivial, roundoff=roundoff)
    return replace(bound, time=handoffs)


def _none(name: str, *missing: Assumption) -> Bound:
    return Bound(name, math.nan, {}, missing, SECTION)
