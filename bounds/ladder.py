"""Every rung of every term of the theorem, on one instance.

The theorem (docs/theory.md section 6) adds three errors in ||.||_d.  The weights d(x) sum to 1, so a bound in the sup
norm is one in ||.||_d too, and both kinds stand in one ladder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from bounds.approximation.certificate import certificate_d, certificate_pointwise, certificate_sup
from bounds.approximation.class_error import class_error_bound, class_error_sector, projected_certificate
from bounds.approximation.classes import LinearClass, linear_class
from bounds.core.bound import Assumption, Bound, below
from bounds.core.curve import Curve, curve
from bounds.core.steps import Steps, schedule
from bounds.core.term import Asymptotic, Rung
from bounds.interface import information
from bounds.interface.agents import agent_gap_bound, linear_agent_bound
from bounds.interface.bracket import bracket_bound_d
from bounds.interface.gap import (
    SECTION,
    gap_value_bound,
    gap_value_bound_d,
    observed_error,
    rounding,
    scalar_gap_bound,
    scalar_gap_bound_d,
    signed_gap,
    sup_bound,
)
from bounds.path import moving
from bounds.residual import closed, poisson, textbook
from bounds.residual.constants import DENSE_LIMIT
from bounds.residual.population import Population
from bounds.residual.sharp import Sharp, averaged_limit, constant_step
from bounds.residual.weights import last_weight, sharp_weight
from icq.display import Shown
from icq.exact import Analysis

CurveMaker: TypeAlias = Callable[..., Curve]  # (pop, steps, theta_0, times), and weight=W where it has one


@dataclass(frozen=True, eq=False)
class Run(Shown):
    """How a class is trained: steps alpha_k, the start theta_0 [p], and the times T (updates done) to speak about."""

    steps: Steps
    start: Float[np.ndarray, "p"]
    times: Int[np.ndarray, "n"]


def signed_gap_bound_d(a: Analysis) -> Bound:
    """Lemma: ||Q* - Qbar o phi||_d <= ||max(U, L)||_d <= ||E||_d, U and L of `signed_gap_value`.

    -L <= Q* - Qbar o phi <= U gives |Q* - Qbar o phi| <= max(U, L).  Unconditional.
    """
    upper, lower, error = signed_gap(a)

    def compute() -> tuple[float, dict[str, float]]:
        parts = {"above": a.norm_d_state(upper), "below": a.norm_d_state(lower)}
        return a.norm_d_state(np.maximum(upper, lower)), parts

    grown = rounding(a.oracle, a.q_bar, a.q_bar) / (1 - a.gamma_bar)
    return sup_bound(a, "signed gap value, d-norm", compute, f"{SECTION}, rung 2", error + grown + observed_error(a))


def interface_rungs(a: Analysis) -> tuple[Rung, ...]:
    """Section 3: bounds on ||Q* - Qbar o phi||_d."""

    def compute() -> tuple[float, dict[str, float]]:
        return a.norm_d_state(a.gap), {}

    exact = sup_bound(a, "exact gap, d-norm", compute, f"{SECTION}, rung 1", observed_error(a))
    bounds = (
        bracket_bound_d(a), signed_gap_bound_d(a), gap_value_bound_d(a), scalar_gap_bound_d(a),
        gap_value_bound(a), agent_gap_bound(a),
        linear_agent_bound(a), scalar_gap_bound(a),
        information.information_state_bound(a, information.centred_total_variation(a)),
        information.information_state_bound(a, information.total_variation(a)),
    )  # fmt: skip
    return (Rung(exact, exact=True), *map(Rung, bounds))


def class_of(pop: Population) -> LinearClass:
    """The linear class of a population problem, with its projection."""
    shape = pop.q_f.shape
    together = np.zeros(shape[0], int)
    return linear_class(pop.analysis, pop.psi.reshape(*shape, -1), pop.offset.reshape(shape), together)


def table_error(pop: Population, members: LinearClass) -> float:
    """How far the computed table Q_F may be from the fixed point, in the d-norm; infinite without a contraction."""
    found = projected_certificate(members, pop.q_f)
    return found.value + found.roundoff if found.applicable else math.inf


def approximation_rungs(pop: Population, members: LinearClass) -> tuple[Rung, ...]:
    """Section 4: bounds on ||Q_F - Qbar||_d.  The certificates speak of the computed table (see `table_error`)."""
    a, distance = pop.analysis, class_error_bound(members)

    def compute() -> tuple[float, dict[str, float]]:
        return a.norm_d(pop.q_f - a.q_bar), {}

    exact = sup_bound(a, "exact class error", compute, distance.reference, a.interface_solution.error)
    certificates = (certificate_pointwise(a, pop.q_f)[0], certificate_d(a, pop.q_f), certificate_sup(a, pop.q_f))
    rungs = (Rung(exact, exact=True), Rung(distance), Rung(class_error_sector(members)), *map(Rung, certificates))
    return tuple(replace(rung, bound=replace(rung.bound, trivial=distance.trivial)) for rung in rungs)


def last_iterate_curves(pop: Population, run: Run) -> tuple[Curve, ...]:
    """Section 5: bounds on (E||Q_T - Q_F||_d^2)^{1/2}."""
    rungs: list[CurveMaker] = [poisson.tier_2, *_closed(run, closed.last_iterate)]
    own = _certificates(pop, run, [poisson.tier_1, textbook.sup_norm], own=True)
    return (*_certificates(pop, run, rungs), *_along_path(pop, run, average=False), *own)


def average_curves(pop: Population, run: Run) -> tuple[Curve, ...]:
    """Section 5: bounds on (E||Qavg - Q_F||_d^2)^{1/2} of the step-weighted average of Q_0, ..., Q_{T-1}."""
    rungs: list[CurveMaker] = [poisson.averaged, *_closed(run, closed.averaged)]
    others = textbook.textbook(pop, run.steps, run.start, run.times)
    return (*_certificates(pop, run, rungs), *_along_path(pop, run, average=True), others)


@lru_cache(maxsize=2)
def _around(pop: Population, run: Run) -> moving.Moving:
    """The run around its path, with the weight for its last iterate."""
    return moving.moving(pop, run.steps, run.start, run.times, weight=last_weight(pop))


def _along_path(pop: Population, run: Run, *, average: bool) -> tuple[Curve, ...]:
    """Section 5d in exact arithmetic; the average is the step-weighted one of Q_0, ..., Q_{T-1}."""
    if not arrays_fit(pop).holds:
        return ()
    m = _around(pop, run)
    return (moving.averaged(m, moving.Average(m.alpha[:-1], False)) if average else moving.last_iterate(m),)


def _closed(run: Run, form: CurveMaker) -> list[CurveMaker]:
    """The closed form, where the step is constant."""
    return [form] if isinstance(run.steps, float) else []


def arrays_fit(pop: Population) -> Assumption:
    """Whether the constants of section 5b fit in memory and the deviation matrix they are made of has digits."""
    states, p = pop.analysis.smdp.num_states, len(pop.theta_star)
    size = float(states * p * max(p, len(pop.psi)))
    if size < DENSE_LIMIT and (slow := pop.too_slow) is not None:
        return Assumption("deviation matrix", False, -math.inf, str(slow))
    return below("arrays fit", size, float(DENSE_LIMIT), f"S p max(p, X) = {size:.3g} entries of the largest array")


def _certificates(pop: Population, run: Run, rungs: Sequence[CurveMaker], *, own: bool = False) -> tuple[Curve, ...]:
    """Each certificate with the weight M and, unless `own`, with the sharp weight where that is another.

    One inapplicable curve where the arrays would be too large.
    """
    fits = arrays_fit(pop)
    arguments = (pop, run.steps, run.start, run.times)
    if not fits.holds:
        # `curve` computes nothing when an assumption fails.
        section = poisson.SECTION
        return (curve("certificate", run.times, (fits,), lambda: (np.zeros(0), {}), section, pop.range_cap),)
    found = [make(*arguments) for make in rungs]
    weight = None if own else sharp_weight(pop)
    if weight is not None and weight.matrix is not pop.metric:
        other = [make(*arguments, weight=weight) for make in rungs]
        found += [replace(c, name=f"{c.name}, Riccati weight") for c in other]
    return tuple(found)


def last_iterate_limit(pop: Population, run: Run) -> Asymptotic:
    """The stationary error sqrt(alpha tr(Psi'D Psi C)) of a constant step; needs one."""
    constant = isinstance(run.steps, float)
    steady = below("constant step", float(not constant), 1.0, "the stationary error of a constant step")
    if not constant:
        return Asymptotic("stationary error, constant step", math.nan, (steady,))
    alpha = float(schedule(run.steps, 1)[0])
    found = constant_step(pop, alpha)
    return _asymptotic("stationary error, constant step", found, alpha, (steady,))


def average_limits(pop: Population, run: Run) -> tuple[Asymptotic, ...]:
    """sqrt(tr(Psi'D Psi J^{-1}(Sigma_0 + Sigma_mix)J^{-T})/T) of averaged iterates at each T.

    Steps must fall like k^{-a}, 1/2 < a < 1; a is measured between T/2 and T.
    """
    found, out = averaged_limit(pop), []
    for time in run.times.tolist():
        power = 0.0
        if not isinstance(run.steps, float) and time > 1:
            alpha, half = schedule(run.steps, time), time // 2
            power = float(np.log(alpha[half - 1] / alpha[-1]) / np.log(time / half))
        off = abs(power - 0.75)
        decreasing = below("steps fall like k^-a", off, 0.25, f"a = {power:.3g} must be between 1/2 and 1")
        out.append(_asymptotic("central limit of the average", found, 1 / time, (decreasing,)))
    return tuple(out)


def _asymptotic(name: str, found: Sharp, scale: float, more: tuple[Assumption, ...]) -> Asymptotic:
    """The root of scale * found.value; a variance below rounding counts as 0."""
    assumptions = (*more, *found.assumptions)
    if not all(a.holds for a in assumptions):
        return Asymptotic(name, math.nan, assumptions)
    return Asymptotic(name, math.sqrt(max(scale * found.value, 0.0)), assumptions)
