"""docs/theory.md section 6 in symbols: agreement with the numeric forms, derivatives, inversion, and the planner."""

import itertools
import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from strategies import instances

from audits.counterexamples import random_instance
from bounds import planner
from bounds import symbolic as sym
from bounds.adversary.approximation import random_class
from bounds.adversary.residual import trial
from bounds.adversary.search import Sample
from bounds.approximation.class_error import class_error_bound
from bounds.interface.gap import scalar_gap_bound, scalar_gap_bound_d
from bounds.planner import (
    BitLaw,
    CertifiedResidual,
    Costs,
    Infeasible,
    PowerLaw,
    SharpResidual,
    fit_power,
    needed,
    plan,
)
from bounds.residual import closed, sharp
from bounds.residual.closed import Level
from bounds.residual.recursion import Quadratic
from icq.exact import analyse

pytestmark = pytest.mark.slow

TIGHT = dict(rel=1e-10, abs=1e-300)


@given(instances(), st.integers(0, 2**32 - 1))
def test_interface_and_approximation_agree_with_the_numeric_forms(m, seed):
    a = analyse(m)
    values = sym.interface_values(a)
    assert sym.evaluate(sym.INTERFACE, values) == pytest.approx(scalar_gap_bound(a).value, **TIGHT)
    if values[sym.KAPPA_S] < 1:
        assert sym.evaluate(sym.INTERFACE_D, values) == pytest.approx(scalar_gap_bound_d(a).value, **TIGHT)
    members = random_class(a, np.random.default_rng(seed))
    bound = class_error_bound(members)
    if bound.applicable:
        numbers = sym.approximation_values(members)
        assert sym.evaluate(sym.APPROXIMATION, numbers) == pytest.approx(bound.value, **TIGHT)
    else:
        with pytest.raises(ValueError, match="kappa_F"):
            sym.approximation_values(members)


def trials(count=30):
    """Random runs on which the closed forms are applicable."""
    found = (trial(Sample(seed, random_instance(seed))) for seed in range(count))
    for t in found:
        if t is not None and closed.last_iterate(t.pop, t.alpha, t.theta_0, np.array([1])).applicable:
            yield t


def test_the_residual_agrees_with_the_numeric_forms():
    times, tried = np.array([1, 10**4]), 0
    for t in trials():
        last = closed.last_iterate(t.pop, t.alpha, t.theta_0, times)
        average = closed.averaged(t.pop, t.alpha, t.theta_0, times)
        values = sym.residual_values(t.pop, t.alpha, t.theta_0)
        assert sym.evaluate(sym.STATIONARY, values) == pytest.approx(last.terms["stationary"], **TIGHT)
        for i, time in enumerate(times):
            here = values | {sym.T: float(time)}
            assert sym.evaluate(sym.LAST, here) == pytest.approx(last.value[i], rel=1e-10, abs=1e-100)
            assert sym.evaluate(sym.AVERAGE, here) == pytest.approx(average.value[i], **TIGHT)
        tried += 1
    assert tried > 6


def test_the_sharp_values_agree():
    tried = 0
    for t in trials():
        average, step = sharp.averaged_limit(t.pop), sharp.constant_step(t.pop, 1e-12)
        if average.applicable and step.applicable and min(average.value, step.value) > 0:
            values = {sym.TRACE: average.value, sym.TRACE_STEP: step.value, sym.ALPHA: 1e-12, sym.T: 777.0}
            assert sym.evaluate(sym.SHARP_AVERAGE, values) == pytest.approx(math.sqrt(average.value / 777), **TIGHT)
            assert sym.evaluate(sym.SHARP_STEP, values) == pytest.approx(math.sqrt(1e-12 * step.value), **TIGHT)
            tried += 1
    assert tried > 4


def test_the_stationary_bound_has_its_leading_order():
    """Halving a small step brings STATIONARY / LEADING closer to 1."""
    t = next(t for t in trials() if sym.residual_values(t.pop, t.alpha, t.theta_0)[sym.NOISE] > 1e-6)
    values = sym.residual_values(t.pop, t.alpha, t.theta_0)
    ratio = [
        sym.evaluate(sym.STATIONARY / sym.LEADING, values | {sym.ALPHA: t.alpha * factor}) for factor in (1e-4, 1e-6)
    ]
    assert ratio[1] == pytest.approx(1, abs=0.01) and abs(ratio[1] - 1) < abs(ratio[0] - 1)


def test_every_symbol_is_documented_and_missing_values_are_named():
    for expression, _ in sym.FORMULAS.values():
        assert set(sym.legend(expression)) == {str(s) for s in expression.free_symbols}
    for expression in (planner.TOTAL_MODEL, planner.DIAL_MODEL, planner.HANDOFFS_MODEL):
        assert sym.legend(expression)
    with pytest.raises(ValueError, match="no value for b_sup, gbar"):
        sym.evaluate(sym.INTERFACE, {})


def test_the_statement_is_balanced_latex():
    tex = sym.statement()
    assert tex.count("{") == tex.count("}") and tex.count(r"\begin") == tex.count(r"\end") == 1
    for part in (r"\bar", "E_{\\mathrm{int}}", "E_{\\mathrm{app}}", "E_{\\mathrm{mix}}", "kappa"):
        assert part in tex or part == r"\bar"


MODEL = {
    sym.B_0: 2.0, sym.GBAR: 0.5, sym.BITS: 3.0, sym.C_APP: 1.5, sym.P_APP: 0.8, sym.WIDTH: 16.0, sym.TRACE: 50.0,
    sym.T: 2000.0,
}  # fmt: skip


def test_derivatives_are_those_of_the_total():
    """Against central differences."""
    for name, slope in planner.derivatives().items():
        symbol = planner.RESOURCES[name]
        step = 1e-5 * MODEL[symbol]
        above, below = (
            sym.evaluate(planner.TOTAL_MODEL, MODEL | {symbol: MODEL[symbol] + sign * step}) for sign in (1, -1)
        )
        assert sym.evaluate(slope, MODEL) == pytest.approx((above - below) / (2 * step), rel=1e-6)
        assert sym.evaluate(slope, MODEL) < 0, "more of any resource helps"


def test_the_fastest_falling_term_depends_on_prices():
    plain = planner.falls_fastest(MODEL)
    assert [name for name, _ in plain] == ["bits", "width", "handoffs"]
    assert [value for _, value in plain] == sorted(value for _, value in plain)
    dear = planner.falls_fastest(MODEL, Costs(width=1.0, bits=1e6, handoffs=1e-6))
    assert dear[0][0] == "handoffs" and dear[-1][0] == "bits"


def test_the_gap_dial_is_linear():
    values = {sym.B_0: 2.0, sym.GBAR: 0.5}
    assert sym.evaluate(sp.diff(planner.DIAL_MODEL, sym.DIAL), values) == pytest.approx(4.0)


def test_handoffs_needed_invert_the_total():
    values = {k: v for k, v in MODEL.items() if k is not sym.T} | {sym.EPSILON: 1.0}
    count = sym.evaluate(planner.HANDOFFS_MODEL, values)
    assert sym.evaluate(planner.TOTAL_MODEL, values | {sym.T: count}) == pytest.approx(1.0)
    interface, approximation = (sym.evaluate(e, values) for e in (planner.INTERFACE_MODEL, planner.APPROXIMATION_MODEL))
    assert needed(1.0, interface, approximation, SharpResidual(50.0)) == math.ceil(count)
    with pytest.raises(Infeasible, match=r"target 0\.1 is not above .* interface 0\.5"):
        needed(0.1, interface, approximation, SharpResidual(50.0))


def test_the_certificate_is_inverted_exactly():
    """The first number of handoffs after which the closed form is at most the error, and not one earlier."""
    tried = 0
    for t in trials():
        residual = planner.certified_residual(t.pop, t.alpha, t.theta_0)
        stationary = closed.last_iterate(t.pop, t.alpha, t.theta_0, np.array([1])).terms["stationary"]
        assert residual.certified and residual.floor == pytest.approx(stationary)
        if residual.excess <= 0 or residual.floor < 1e-9:
            continue
        for factor in (1.02, 1.5):
            error = factor * residual.floor
            count = math.ceil(residual.handoffs(error))
            value = closed.last_iterate(t.pop, t.alpha, t.theta_0, np.array([max(count - 1, 0), max(count, 1)])).value
            assert value[1] <= error * (1 + 1e-9)
            assert count == 1 or value[0] > error * (1 - 1e-9)
        assert math.isinf(residual.handoffs(residual.floor)) and math.isinf(residual.handoffs(0.0))
        tried += 1
    assert tried > 3


def test_a_certificate_without_its_assumption_is_refused():
    t = next(trials())
    with pytest.raises(ValueError, match=r"no certified residual: .* fails"):
        planner.certified_residual(t.pop, 1e9, t.theta_0)


FAR = Level(1.0, 1.0, 0.1, Quadratic(0.0, 0.0, 0.0))
LEVEL = Level(r=0.1, level=0.012, pull=1e-3, slack=Quadratic(1e-4, 1e-3, 0.1))


def problems(seed, count):
    """Random models, prices and a reachable target."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        width = PowerLaw(rng.exponential(), rng.uniform(0.6, 2), float(rng.choice([0, 0.01])))
        interface = BitLaw(rng.exponential(), float(rng.choice([0, 0.01])))
        residual = CertifiedResidual(LEVEL, 1.0, 5.0) if i % 3 == 0 else SharpResidual(10 * rng.exponential())
        yield rng.uniform(0.5, 0.9), width, interface, residual, Costs(*(10 ** rng.uniform(-2, 2, size=3)))


def test_no_purchase_is_cheaper():
    """Against every purchase in a box: the price of one handoff is the only slack."""
    for target, width, interface, residual, costs in problems(0, 24):
        found = plan(target, width, interface, residual, costs)
        best = min(
            costs.width * w + costs.bits * b + costs.handoffs * math.ceil(count)
            for w, b in itertools.product(range(1, 150), range(15))
            if math.isfinite(count := residual.handoffs(target - width(w) - interface(b)))
        )
        assert found.lower <= best * (1 + 1e-12) and found.cost <= best + costs.handoffs
        assert found.lower <= found.cost <= found.lower + costs.handoffs
        assert found.error <= target * (1 + 1e-9) and found.certified == residual.certified


def test_a_plan_is_at_the_continuous_optimum_of_its_width():
    """scipy's minimum over real widths, for the bits of the plan, is at most one width away."""
    for target, width, interface, residual, costs in problems(1, 30):
        found = plan(target, width, interface, residual, costs)
        rest = target - interface(found.bits)
        least = (width.scale / (rest - width.floor - residual.floor)) ** (1 / width.power)

        def cost(w, width=width, residual=residual, costs=costs, rest=rest):
            return costs.width * w + costs.handoffs * min(residual.handoffs(rest - width(w)), 1e12)

        free = minimize_scalar(cost, bounds=(max(least, 1e-3), 4 * found.width + 10), method="bounded")
        assert found.width - 1.01 <= max(free.x, 1) <= found.width + 1.01


def test_a_broken_planner_would_be_caught():
    """One bit or one width less than planned is infeasible or dearer than the plan's lower bound."""
    for target, width, interface, residual, costs in problems(2, 20):
        found = plan(target, width, interface, residual, costs)
        for w, b in ((found.width - 1, found.bits), (found.width, found.bits - 1), (found.width + 1, found.bits)):
            if w >= 1 and b >= 0:
                count = residual.handoffs(target - width(w) - interface(b))
                other = costs.width * w + costs.bits * b + costs.handoffs * count
                assert other >= found.lower * (1 - 1e-12)


@pytest.mark.parametrize(
    ("width", "interface", "residual", "why"),
    [
        (PowerLaw(1.0, 1.0, 0.6), BitLaw(1.0), SharpResidual(1.0), "approximation"),
        (PowerLaw(1.0, 1.0), BitLaw(1.0, 0.6), SharpResidual(1.0), "interface"),
        (PowerLaw(1.0, 1.0), BitLaw(1.0), CertifiedResidual(FAR, 1.0, 5.0), "residual"),
    ],
)
def test_an_infeasible_target_names_its_floor(width, interface, residual, why):
    with pytest.raises(Infeasible, match=f"the largest is that of the {why} term"):
        plan(0.5, width, interface, residual, Costs(1.0, 1.0, 1.0))


def test_more_of_a_dear_resource_is_not_bought():
    width, interface, residual = PowerLaw(1.0, 1.0), BitLaw(1.0), SharpResidual(10.0)
    cheap, dear = (plan(0.5, width, interface, residual, Costs(price, 1.0, 1e-3)) for price in (0.01, 100.0))
    assert cheap.width > dear.width and cheap.handoffs < dear.handoffs
    gains = planner.marginal(cheap, width, interface, residual)
    assert (gains > 0).all() and gains[2] == pytest.approx(
        sym.evaluate(sym.SHARP_AVERAGE, {sym.TRACE: 10.0, sym.T: float(cheap.handoffs)})
        - sym.evaluate(sym.SHARP_AVERAGE, {sym.TRACE: 10.0, sym.T: cheap.handoffs + 1.0}),
        rel=1e-3,
    )


def test_fitting_a_power_law():
    widths = [2, 4, 8, 16]
    found = fit_power(widths, [3 * w**-0.5 for w in widths])
    assert found.scale == pytest.approx(3) and found.power == pytest.approx(0.5) and found.misfit < 1e-12
    assert fit_power(widths, [1.0, 0.4, 0.3, 0.1]).misfit > 0.05
    for errors, why in (
        ([1.0], "at least two"),
        ([1.0, 2.0, 3.0, 4.0], "do not fall"),
        ([1.0, 1.0, 0.0, 1.0], "positive"),
    ):
        with pytest.raises(ValueError, match=why):
            fit_power(widths, errors)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PowerLaw(-1.0, 1.0),
        lambda: PowerLaw(1.0, 0.0),
        lambda: BitLaw(1.0, -1.0),
        lambda: Costs(0.0, 1.0, 1.0),
    ],
)
def test_models_refuse_what_they_cannot_mean(make):
    with pytest.raises(ValueError, match=r"law:|cost of width = 0"):
        make()
