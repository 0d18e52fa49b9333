"""docs/theory.md section 5b: every constant of the Poisson certificate, and both one-step inequalities, by brute force.

All checks use the real maximum at random Delta, from tiny to far, not the frozen greedy options.
"""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from strategies import garnet
from td import KINDS, TrueUpdate, any_weight, chain, classes, over_populations

from bounds.residual.constants import constants, correction_growth, kink_growth, response_growth, update_growth
from bounds.residual.poisson import tier_1_inequality, tier_2_inequality
from bounds.residual.population import tabular
from icq.exact import analyse

pytestmark = pytest.mark.slow

SIZES = (1e-3, 0.1, 0.3, 1.0, 30.0)


def deltas(pop, rng):
    """Delta over many scales: random directions, and one pair at a time where the class allows it."""
    p = len(pop.theta_star)
    for size in SIZES:
        yield size * rng.normal(size=p)
        yield size * np.eye(p)[rng.integers(p)] * rng.choice([-1.0, 1.0])


def below(left, right, scale=1.0):
    assert (np.asarray(left) <= np.asarray(right) + 1e-9 * (scale + np.abs(right))).all()


@over_populations()
def test_update_growth(pop, rng):
    """(w E||u delta||^2)^{1/2} <= sigma + c ||Delta||: in every state, under d, under any weights."""
    w, d = any_weight(pop, rng), pop.analysis.d
    k, true = constants(pop, weight=w), TrueUpdate(pop, weight=w)
    rows = rng.exponential(size=(3, len(d)))
    sigma, c = update_growth(true.correction, rows)
    for delta in deltas(pop, rng):
        square = true.mean((true.step(delta) ** 2).sum(1))
        x = np.linalg.norm(delta)
        below(np.sqrt(square), k.sigma + k.c * x)
        below(np.sqrt(d @ square), k.sigma_bar + k.c_bar * x)
        below(np.sqrt(rows @ square), sigma + c * x)
    assert k.sigma**2 == pytest.approx(true.mean((true.step(0 * pop.theta_star) ** 2).sum(1)).max())


@over_populations()
def test_poisson_equation(pop, rng):
    """nu - P nu = h - E_d h, and nu is L-Lipschitz with ||nu at theta*|| <= nu*."""
    w, a = any_weight(pop, rng), pop.analysis
    k, true = constants(pop, weight=w), TrueUpdate(pop, weight=w)
    below(np.linalg.norm(true.nu(0 * pop.theta_star), axis=1), k.nu_star)
    for one, two in pairwise(deltas(pop, rng)):
        nu, h = true.nu(one), true.mean(true.step(one))
        scale = 1 + np.abs(nu).max()
        assert np.allclose(nu - a.transition @ nu, h - a.d @ h, atol=1e-9 * scale)
        below(np.linalg.norm(nu - true.nu(two), axis=1), true.correction.lipschitz * np.linalg.norm(one - two), scale)


@over_populations()
def test_correction_growth(pop, rng):
    """In mean square under any weights, against nu itself and against its differences."""
    true = TrueUpdate(pop, weight=any_weight(pop, rng))
    rows = rng.exponential(size=(3, len(pop.analysis.d)))
    nu_star, lipschitz = correction_growth(true.correction, rows)
    for one, two in pairwise(deltas(pop, rng)):
        x = np.linalg.norm(one)
        below(np.sqrt(rows @ (true.nu(one) ** 2).sum(1)), nu_star + lipschitz * x)
        moved = np.sqrt(rows @ ((true.nu(one) - true.nu(two)) ** 2).sum(1))
        below(moved, lipschitz * np.linalg.norm(one - two), 1 + np.abs(true.nu(one)).max())


@over_populations()
def test_jump(pop, rng):
    """||nu(theta', s') - nu(theta, s') - alpha delta v|| <= alpha j |delta| for the updates that can happen."""
    true, k = TrueUpdate(pop, weight=any_weight(pop, rng)), pop.outcomes
    v, kink = true.correction.v, true.correction.kink
    for delta in deltas(pop, rng):
        alpha = rng.choice([1.0, 0.05]) / true.correction.norm2.max()
        before, step, td = true.nu(delta), true.step(delta), true.td(delta)
        for i in rng.choice(len(k.source), size=min(6, len(k.source)), replace=False):
            s, x = k.target[i], k.pair[i]
            moved = true.nu(delta + alpha * step[i])[s] - before[s] - alpha * td[i] * v[s, :, x]
            below(np.linalg.norm(moved), alpha * kink[s, x] * abs(td[i]), 1 + np.abs(before).max())


def test_jump_is_tight_for_a_table():
    """At a tie the maximum moves fully or not at all, as the sign of the update has it: the kink is attained."""
    a = analyse(garnet(3, states=3, observations=2, options=2, outcomes=2, agents=1, gamma=0.6, unavailable=0.0))
    pop = tabular(a)
    true, k, hit = TrueUpdate(pop), pop.outcomes, []
    v, kink = true.correction.v, true.correction.kink
    tie = pop.root.T @ (pop.q_f.max(1, keepdims=True) - pop.q_f).reshape(-1)
    before, step, td = true.nu(tie), true.step(tie), true.td(tie)
    for i, (s, x) in enumerate(zip(k.target, k.pair)):
        moved = true.nu(tie + 1e-3 * step[i])[s] - before[s] - 1e-3 * td[i] * v[s, :, x]
        hit.append(np.linalg.norm(moved) / (1e-3 * kink[s, x] * abs(td[i])))
    assert hit == pytest.approx(np.ones(len(hit)), abs=1e-6)


@over_populations()
def test_kink_growth_and_response_growth(pop, rng):
    true, k = TrueUpdate(pop, weight=any_weight(pop, rng)), pop.outcomes
    c, rows = true.correction, rng.exponential(size=(3, len(pop.analysis.d)))
    e, u = kink_growth(c, rows)
    size = response_growth(c, rows)
    n = c.norm2[k.pair]
    for delta in deltas(pop, rng):
        x = np.linalg.norm(delta)
        below(rows @ true.mean(c.follow(c.kink) * np.abs(true.td(delta))), e + u * x)
        along = (c.v[k.target, :, k.pair] @ delta) ** 2
        assert (along[n == 0] == 0).all()
        below(np.sqrt(rows @ true.mean(along / np.where(n > 0, n, 1))), size * x)


@over_populations()
def test_stationary_second_order(pop, rng):
    """E_d[G + 2 X + 2 Y + 2 ||Delta|| U] <= Sc + lam_1 ||Delta|| + lam_2 ||Delta||^2, with equality at theta*."""
    w, d = any_weight(pop, rng), pop.analysis.d
    k, true = constants(pop, weight=w), TrueUpdate(pop, weight=w)
    zero = 0 * pop.theta_star
    inverse, metric = np.linalg.inv(pop.metric), pop.metric if w is None else w.matrix
    trace = np.trace(metric @ inverse @ (pop.sigma_0 + pop.sigma_mix) @ inverse)
    assert d @ true.second(zero) == pytest.approx(k.noise, abs=1e-9 * (1 + k.sigma**2))
    assert k.noise == pytest.approx(trace, abs=1e-9 * (1 + k.sigma**2))
    for delta in deltas(pop, rng):
        x = np.linalg.norm(delta)
        below(d @ true.second(delta), k.noise + k.lam_1 * x + k.lam_2 * x**2)


@over_populations()
def test_second_correction(pop, rng):
    """|Omega| <= omega + a_0 x + a_1 x^2, |increment of Omega| <= (a_0 + a_1 (x + x')) ||Delta' - Delta||."""
    w = any_weight(pop, rng)
    k, true = constants(pop, weight=w), TrueUpdate(pop, weight=w)
    found = list(deltas(pop, rng))
    values = [true.z @ true.second(delta) for delta in found]
    for one, two, first, second in zip(found, found[1:], values, values[1:]):
        x, y = np.linalg.norm(one), np.linalg.norm(two)
        below(np.abs(first), k.omega + k.a_0 * x + k.a_1 * x**2)
        below(np.abs(first - second), (k.a_0 + k.a_1 * (x + y)) * np.linalg.norm(one - two), 1 + np.abs(first).max())


@over_populations()
def test_third_order(pop, rng):
    """sqrt E[(v'u + j sqrt n)_+ delta^2 | s] <= kick + kick_c ||Delta||."""
    w, o = any_weight(pop, rng), pop.outcomes
    k, true = constants(pop, weight=w), TrueUpdate(pop, weight=w)
    c, phi = true.correction, true.correction.push[o.pair]
    weight = (c.v[o.target, :, o.pair] * phi).sum(1) + c.follow(c.kink) * np.linalg.norm(phi, axis=1)
    for delta in deltas(pop, rng):
        left = np.sqrt(true.mean(np.maximum(weight, 0) * true.td(delta) ** 2))
        below(left, k.kick + k.kick_c * np.linalg.norm(delta))


def excess(pop, inequality, alpha, delta, tier, iid=False, weight=None):
    """E W' - W minus its bound at each state, for a known Delta (W of equal steps)."""
    true = TrueUpdate(pop, iid, weight)
    x = float(np.linalg.norm(delta))
    if iid:
        after = pop.mass @ ((delta + alpha * true.step(delta)) ** 2).sum(1)
        return np.array([after - x**2 + 2 * alpha * inequality.mu * x**2 - inequality.gain(alpha, alpha)(x)])
    before = true.corrected(delta, alpha, tier)
    after = true.after(delta, alpha, lambda moved: true.corrected(moved, alpha, tier))
    return after - before + 2 * alpha * inequality.mu * x**2 - inequality.gain(alpha, alpha)(x)


def largest(inequality):
    """A step at which both step conditions just hold."""
    alpha = 0.499 / abs(inequality.mu)
    while not all(a.holds for a in inequality.conditions(alpha)):
        alpha /= 1.5
    return alpha


@over_populations(states=(1, 4), options=(1, 2), outcomes=(1, 3))
def test_one_step_inequalities(pop, rng):
    """E[W'|theta, s] <= W - 2 alpha mu x^2 + gain(x) and |W - V| <= slack(x), for every (theta, s): no law is worse."""
    w = any_weight(pop, rng)
    k = constants(pop, weight=w)
    cases = [(1, tier_1_inequality(k), False), (2, tier_2_inequality(k), False)]
    cases.append((2, tier_2_inequality(constants(pop, iid=True, weight=w)), True))
    for tier, inequality, iid in cases:
        alpha = largest(inequality) * rng.choice([1.0, 0.1, 1e-3])
        for delta in list(deltas(pop, rng))[::2]:
            x = float(np.linalg.norm(delta))
            size = 1e-10 * (1 + x**2 + np.abs(pop.q_f).max() ** 2)
            assert (excess(pop, inequality, alpha, delta, tier, iid, w) <= size).all()
            if not iid:
                true = TrueUpdate(pop, weight=w)
                assert (np.abs(true.corrected(delta, alpha, tier) - x**2) <= inequality.slack(alpha)(x) + size).all()


@over_populations("tabular", "local clock", states=(1, 4), options=(1, 2), outcomes=(1, 3))
def test_second_order_is_tight_at_the_fixed_point(pop, rng):
    """(E W' - W) / alpha^2 -> Sc at theta*, from every state: only the stationary average is left."""
    k, true, zero = constants(pop), TrueUpdate(pop), 0 * pop.theta_star
    alpha = 1e-5 / (1 + k.a_1 + k.a_0)
    rise = true.after(zero, alpha, lambda moved: true.corrected(moved, alpha, 2)) - true.corrected(zero, alpha, 2)
    assert np.allclose(rise / alpha**2, k.noise, atol=1e-3 * (1 + k.sigma**2) + 1e-15 / alpha**2)


def family():
    """Instances on which a wrong constant shows: one pair, persistent and heteroscedastic hidden states, and random."""
    yield tabular(chain([0.5], [1.0], noise=1.0, gamma=0.3, discount_spread=3))
    yield tabular(chain([0.98, 0.98], [1.0, -1.0], gamma=0.1))
    yield tabular(chain([0.5, 0.95], [0.0, 0.0], noise=[5.0, 0.1], gamma=0.1))
    yield tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5, gamma=0.6, observation=[0, 1]))
    for seed in range(6):
        a = analyse(garnet(seed, states=4, observations=2, options=2, outcomes=2, agents=1, gamma=0.4, max_duration=2))
        pop = classes(a, KINDS[seed % 4], np.random.default_rng(seed))
        if pop is not None and pop.kappa < 0.97:
            yield pop


BROKEN = {
    "noise without the cross term 2 d.X": lambda k: replace(k, noise=k.sigma_bar**2),
    "sup update noise replaced by its average": lambda k: replace(k, sigma=k.sigma_bar, c=k.c_bar),
    "drift doubled": lambda k: replace(k, mu=2 * k.mu),
    "no linear growth of the noise": lambda k: replace(k, lam_1=0.0),
    "no quadratic growth of the noise": lambda k: replace(k, lam_2=0.0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_constant_violates_the_one_step_inequality(name):
    worst = -np.inf
    for pop in family():
        k, rng = BROKEN[name](constants(pop)), np.random.default_rng(0)
        for tier, inequality in ((1, tier_1_inequality(k)), (2, tier_2_inequality(k))):
            for alpha in (largest(inequality), 1e-3 * largest(inequality)):
                for delta in [0 * pop.theta_star, *deltas(pop, rng)]:
                    scale = alpha**2 * (k.sigma + k.c * np.linalg.norm(delta)) ** 2
                    worst = max(worst, (excess(pop, inequality, alpha, delta, tier) / scale).max())
    assert worst > 1e-3


def test_the_family_itself_is_sound():
    for pop in family():
        k, rng = constants(pop), np.random.default_rng(0)
        for tier, inequality in ((1, tier_1_inequality(k)), (2, tier_2_inequality(k))):
            for alpha in (largest(inequality), 1e-3 * largest(inequality)):
                for delta in [0 * pop.theta_star, *deltas(pop, rng)]:
                    scale = alpha**2 * (k.sigma + k.c * np.linalg.norm(delta)) ** 2
                    assert (excess(pop, inequality, alpha, delta, tier) <= 1e-6 * scale + 1e-14).all()


def test_constants_are_finite_numbers_and_the_control_has_no_corrections():
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5))
    both = constants(pop), constants(pop, iid=True)
    assert all(np.isfinite(getattr(k, f.name)) for k in both for f in fields(k))
    control = both[1]
    assert (control.lipschitz, control.nu_star, control.omega, control.a_0, control.a_1, control.kick) == (0,) * 6
    assert control.noise == pytest.approx(control.sigma_bar**2)
    assert both[0].noise > control.noise
