"""docs/theory.md section 5b: weights of the Lyapunov function other than the preconditioner."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import garnet
from td import TrueUpdate, chain, over_populations, rare, simulate

from bounds.core.sector import Sector
from bounds.residual.constants import constants
from bounds.residual.moments import second_moments
from bounds.residual.poisson import averaged, tier_2
from bounds.residual.population import tabular
from bounds.residual.sharp import constant_step
from bounds.residual.weights import Weight, own_weight, sharp_weight, stationary
from icq.exact import analyse
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import ring

pytestmark = pytest.mark.compiles


def drift_of(pop, matrix, theta):
    """(theta - theta*)'W M^{-1} E_d[psi delta] and ||Q - Q_F||_d^2, with the maximum."""
    true = TrueUpdate(pop)
    delta = pop.error(theta)
    mean = np.linalg.solve(pop.metric, pop.psi.T @ np.bincount(
        pop.outcomes.pair, weights=pop.mass * true.td(delta), minlength=len(pop.d)
    ))  # fmt: skip
    error = theta - pop.theta_star
    return error @ matrix @ mean, pop.d @ (pop.psi @ error) ** 2


def directions(pop, rng, count=30):
    p = len(pop.theta_star)
    for _ in range(count):
        yield rng.normal(size=p) * 10.0 ** rng.uniform(-2, 2)
        yield np.eye(p)[rng.integers(p)] * rng.choice([-1, 1]) * 10.0 ** rng.uniform(-2, 2)


@over_populations()
def test_the_rate_of_any_weight(pop, rng):
    p = len(pop.theta_star)
    matrix = np.cov(rng.normal(size=(p, 3 * p + 3))).reshape(p, p)
    multipliers = rng.exponential(size=len(pop.least_mass)) * pop.least_mass
    rate = pop.sector.rate(matrix, multipliers)
    for error in directions(pop, rng):
        found, size = drift_of(pop, matrix, pop.theta_star + error)
        assert found <= -rate * size + 1e-9 * (1 + error @ error) * (1 + np.abs(matrix).max())


@over_populations()
def test_own_weight(pop, rng):
    """What it certifies holds, and is never less than 1 - kappa_F."""
    own = own_weight(pop)
    assert own.matrix is pop.metric and own.rate >= 1 - pop.kappa
    for error in directions(pop, rng):
        found, size = drift_of(pop, own.matrix, pop.theta_star + error)
        assert found <= -own.rate * size + 1e-9 * (1 + error @ error) * (1 + np.abs(own.matrix).max())


@over_populations()
def test_riccati_weight(pop, rng):
    """The equation by its definition, written out."""
    multipliers = rng.choice([0.5, 1.0, 2.0]) * pop.least_mass
    matrix = pop.sector.solution(multipliers)
    if matrix is None:
        return
    live = pop.analysis.interface.available
    n, mean = live.sum(axis=1), live / live.sum(axis=1)[:, None]
    means = np.einsum("oa,oap->op", mean, pop.psi.reshape(*live.shape, -1))
    onward = pop.psi.T @ (pop.d[:, None] * pop.analysis.interface.kernel.toarray())
    drift = np.linalg.solve(pop.metric, pop.psi.T @ (pop.d[:, None] * pop.psi) - onward @ means)
    cover = np.zeros_like(matrix)
    for o, a in np.argwhere(live):
        away = pop.psi[o * live.shape[1] + a] - means[o]
        cover += multipliers[o] * (1 - 1 / n[o]) * np.outer(away, away)
    inner = (matrix @ np.linalg.solve(pop.metric, onward) / np.sqrt(multipliers))[:, n > 1]
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    left, right = matrix @ drift + drift.T @ matrix, inner @ inner.T + cover + gram
    assert np.allclose(left, right, atol=1e-7 * np.abs(left).max())
    assert np.linalg.eigvalsh(matrix)[0] > 0
    assert pop.sector.rate(matrix, multipliers) == pytest.approx(0.5, abs=1e-5)


@over_populations()
def test_sharp_weight_is_never_worse_at_leading_order(pop, rng):
    weights = own_weight(pop), sharp_weight(pop)
    values = [k.noise / k.rate for k in (constants(pop, weight=w) for w in weights)]
    assert values[1] <= values[0] * (1 + 1e-9) + 1e-12


@over_populations(states=(1, 3), options=(1, 2), outcomes=(1, 3))
def test_averaged_with_the_sharp_weight(pop, rng):
    """Above exact moments, and tier 2 with that weight too."""
    weight = sharp_weight(pop)
    theta_0 = pop.theta_star + rng.choice([0.0, 1.0]) * rng.normal(size=len(pop.theta_star))
    start = np.eye(len(pop.analysis.d))[rng.integers(len(pop.analysis.d))]
    times, alpha = np.array([1, 5, 20]), 0.3
    while not averaged(pop, alpha, theta_0, times, weight=weight).applicable:
        alpha /= 2
    alpha = min(alpha * rng.choice([1.0, 0.1]), 0.5 / pop.norm2.max())
    for iid in (False, True):
        exact = second_moments(pop, alpha, theta_0, times, start, iid=iid)
        means = averaged(pop, alpha, theta_0, times, weight=weight, iid=iid)
        assert (means.value**2 >= exact.path * (1 - 1e-9) - 1e-24).all()
        if not iid:
            last = tier_2(pop, alpha, theta_0, times, weight=weight)
            assert (last.value**2 >= exact.error * (1 - 1e-9) - 1e-24).all()


def beyond():
    """A table whose operator is not known to contract, kappa > 1, but which a weight certifies."""
    return tabular(analyse(garnet(6, states=12, observations=6, options=3, gamma=0.8, max_duration=4)))


def test_a_weight_certifies_where_kappa_does_not():
    pop = beyond()
    assert pop.kappa > 1.02
    weight = sharp_weight(pop)
    assert weight.rate > 0.4
    alpha, times = 1e-4, np.array([1000, 6000])
    curve = averaged(pop, alpha, pop.theta_star, times, weight=weight)
    assert curve.applicable
    _, error, _ = simulate(pop, alpha, pop.theta_star, np.arange(0, 6000, 50), 200, 0)
    path = error.mean(0)
    assert path.mean() - 4 * path.std() / np.sqrt(200) <= curve.value[1] ** 2
    rng = np.random.default_rng(0)
    for shift in directions(pop, rng, 200):
        found, size = drift_of(pop, weight.matrix, pop.theta_star + shift)
        assert found <= -weight.rate * size + 1e-9 * (1 + shift @ shift)


class Alike(Sector):
    """As if all options of an observation always moved alike."""

    def spread(self, table):
        return 0 * table


def test_a_rate_without_the_cover_of_the_maximum_is_caught():
    """Without the squared deviations large multipliers would give the drift of the mean over options."""
    pop = tabular(analyse(rare(0.1, gamma=0.6)))
    claimed = Alike(pop.analysis, pop.psi, pop.metric).rate(pop.metric, 1e6 * pop.least_mass)
    own, rng, worst = own_weight(pop), np.random.default_rng(0), -np.inf
    for shift in directions(pop, rng, 500):
        found, size = drift_of(pop, pop.metric, pop.theta_star + shift)
        worst = max(worst, found / size)
    assert -claimed < worst <= -own.rate


@over_populations("tabular", "plain table", states=(2, 5), options=(2, 3))
def test_refined_multipliers_are_stationary(pop, rng):
    """The derivative of tr(W noise) by each multiplier, against differences."""
    multipliers = 8 * pop.least_mass
    matrix = pop.sector.solution(multipliers)
    if matrix is None:
        return
    wanted = stationary(pop, matrix, multipliers)
    for o in np.flatnonzero(pop.sector.choice):
        values = []
        for change in (1e-4, -1e-4):
            moved = multipliers.copy()
            moved[o] *= 1 + change
            values.append(np.sum(pop.sector.solution(moved) * pop.noise))
        slope = values[0] - values[1]
        if abs(slope) > 1e-6 * abs(values[0]):
            assert (slope > 0) == (multipliers[o] > wanted[o])


def test_an_average_with_an_inflated_rate_is_caught():
    pop = tabular(chain([0.9, 0.9], [1.0, -1.0], gamma=0.3))
    weight = sharp_weight(pop)
    times, alpha = np.array([3000]), 5e-3
    exact = second_moments(pop, alpha, pop.theta_star, times).path
    good = averaged(pop, alpha, pop.theta_star, times, weight=weight)
    wrong = averaged(pop, alpha, pop.theta_star, times, weight=replace(weight, rate=2 * weight.rate))
    assert good.value**2 >= exact
    assert wrong.value**2 < 0.9 * exact


def test_a_weight_without_a_drift_is_inapplicable():
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], observation=[0, 1], gamma=0.9))
    lopsided = Weight(np.array([[1.0, 0.0], [0.0, 1e4]]), 0.0)
    rate = pop.sector.rate(lopsided.matrix, pop.least_mass)
    assert rate < 0
    curve = averaged(pop, 1e-5, pop.theta_star, np.array([10]), weight=replace(lopsided, rate=rate))
    assert [x.name for x in curve.assumptions if not x.holds] == ["drift"]
    assert np.isnan(curve.value).all()


def test_ten_agents_within_a_factor_of_two():
    """Local step 1e-4, a late window: the weighted average is within 2x of the spread, the unweighted one is not."""
    a = analyse(dials_instance(Shape(topology=ring(10)), Dials(), seed=0))
    pop = tabular(a)
    alpha = 1e-4 / len(pop.theta_star)
    times, burn_in = np.array([int(40 / alpha)]), int(20 / alpha)
    observed = np.sqrt(alpha * constant_step(pop, alpha).value)
    plain = averaged(pop, alpha, pop.theta_star, times, burn_in=burn_in)
    sharp = averaged(pop, alpha, pop.theta_star, times, burn_in=burn_in, weight=sharp_weight(pop))
    assert observed <= sharp.value[0] <= 2 * observed
    assert sharp.value[0] < 0.8 * plain.value[0]
