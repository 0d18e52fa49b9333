"""docs/theory.md section 5b: the certificates over time against exact moments and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import garnet
from td import chain, classes, over_populations, simulate

from bounds.core.bound import Verdict, verdict
from bounds.residual.constants import constants
from bounds.residual.moments import second_moments
from bounds.residual.poisson import averaged, iid_control, tier_1, tier_1_inequality, tier_2, tier_2_inequality
from bounds.residual.population import population, tabular, tabular_features
from bounds.residual.recursion import iterate
from bounds.residual.sharp import constant_step
from icq.exact import analyse
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import ring

pytestmark = pytest.mark.compiles

TIMES = np.array([1, 2, 5, 20, 50])


def step_for(inequality, share):
    """This share of the largest step that meets both conditions."""
    alpha = 0.499 / abs(inequality.mu)
    while not all(a.holds for a in inequality.conditions(alpha)):
        alpha /= 1.5
    return float(share * alpha)


def exceeds(certified, exact):
    return certified > exact * (1 - 1e-9) - 1e-24


@over_populations("tabular", "local clock", "plain", states=(1, 4), outcomes=(1, 3))
def test_tier_1_and_tier_2_and_iid_control(pop, rng):
    """E||Q_T - Q_F||_d^2 is exact with the greedy options frozen; every certificate is above it at every time."""
    theta_0 = pop.theta_star + rng.choice([0.0, 0.1, 3.0]) * rng.normal(size=len(pop.theta_star))
    start = np.eye(len(pop.analysis.d))[rng.integers(len(pop.analysis.d))]
    for certificate, inequality, iid in (
        (tier_1, tier_1_inequality(constants(pop)), False),
        (tier_2, tier_2_inequality(constants(pop)), False),
        (iid_control, tier_2_inequality(constants(pop, iid=True)), True),
    ):
        alpha = min(step_for(inequality, rng.choice([0.9, 0.1, 0.01])), 0.5 / pop.norm2.max())
        decreasing = alpha / (1 + 0.1 * np.arange(TIMES[-1] + 2)) ** rng.choice([0.5, 1.0])
        steps = alpha if rng.random() < 0.5 else decreasing
        exact = second_moments(pop, steps, theta_0, TIMES, start, iid=iid)
        curve = certificate(pop, steps, theta_0, TIMES)
        assert curve.applicable
        assert exceeds(curve.value**2, exact.error).all()
        if certificate is not tier_1:
            means = averaged(pop, steps, theta_0, TIMES, iid=iid)
            assert exceeds(means.value**2, exact.path).all()
            assert exceeds(means.value**2, exact.averaged).all()


def long_run(pop, inequality, alpha, theta_0, times, start=None):
    """Certified over exact V, from the same V_0."""
    exact = second_moments(pop, alpha, theta_0, times, start)
    v_0 = float(pop.error(theta_0) @ pop.error(theta_0))
    return iterate(inequality, alpha, v_0, times) / exact.norm


PERSISTENT = chain([0.9, 0.9], [1.0, -1.0], gamma=0.1)
UNEVEN = chain([0.5, 0.99], [0.0, 0.0], noise=[5.0, 0.1], gamma=0.1)
RARE = chain([0.98, 0.9999], [1.0, 0.0], gamma=0.1)
SKEWED = chain([0.5], [1.0], noise=1.0, gamma=0.3, discount_spread=3)
NOTHING = dict(nu_star=0.0, lipschitz=0.0, omega=0.0, a_0=0.0, a_1=0.0)
BROKEN = {  # instance, what is broken, theta_0 - theta*, share of the largest step, last time, first state
    "noise without the cross term 2 d.X": (PERSISTENT, dict(noise=None), 0.0, 0.02, 1500, None),
    "no allowance for the noise of the first states": (UNEVEN, dict(omega=0.0, a_0=0.0), 0.0, 0.5, 1, 0),
    "no corrections for the first states": (RARE, NOTHING, 0.0, 0.5, 60, 0),
    "no quadratic growth of the noise": (SKEWED, dict(lam_2=0.0), 3.0, 0.5, 1, None),
    "drift doubled": (SKEWED, dict(mu=None), 3.0, 0.5, 20, None),
}


def breaking(k, change):
    """The constants with this change; None is the tempting wrong value."""
    tempting = {"noise": k.sigma_bar**2, "mu": 2 * k.mu}
    return replace(k, **{name: tempting[name] if value is None else value for name, value in change.items()})


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_certificate_is_caught(name):
    a, change, offset, share, last, state = BROKEN[name]
    pop = tabular(a)
    k = constants(pop)
    start = None if state is None else np.eye(len(a.d))[state]
    theta_0, times = pop.theta_star + offset, np.unique(np.geomspace(1, last, 12).astype(int))
    sound, wrong = tier_2_inequality(k), tier_2_inequality(breaking(k, change))
    alpha = step_for(sound, share)
    assert long_run(pop, sound, alpha, theta_0, times, start).min() >= 1 - 1e-12
    assert long_run(pop, wrong, alpha, theta_0, times, start).min() < 0.99


def test_first_order_with_averages_for_suprema_is_caught():
    """A rare noisy state in front: its noise is not the average one."""
    pop = tabular(UNEVEN)
    k = constants(pop)
    times, start = np.array([1, 2, 3]), np.array([1.0, 0.0])
    wrong = tier_1_inequality(replace(k, sigma=k.sigma_bar, c=k.c_bar))
    alpha = step_for(wrong, 0.5)
    assert long_run(pop, tier_1_inequality(k), alpha, pop.theta_star, times, start).min() >= 1
    assert long_run(pop, wrong, alpha, pop.theta_star, times, start).min() < 0.9


@pytest.mark.parametrize("seed", range(3))
def test_simulation_with_the_maximum(seed):
    """Near ties and real maxima; the bound holds within four standard errors of 1000 runs."""
    a = analyse(garnet(seed, states=4, observations=2, options=3, outcomes=2, agents=1, gamma=0.3, max_duration=2))
    pop = classes(a, ["tabular", "local clock", "tabular"][seed], np.random.default_rng(seed))
    times = np.array([10, 100, 400])
    alpha = step_for(tier_2_inequality(constants(pop)), 0.3)
    theta_0 = pop.theta_star + 0.5
    _, error, _ = simulate(pop, alpha, theta_0, times, 1000, seed)
    stderr = error.std(axis=1) / np.sqrt(error.shape[1])
    curve = tier_2(pop, alpha, theta_0, times)
    assert curve.applicable
    assert (error.mean(axis=1) - 4 * stderr <= curve.value**2).all()


def test_projected_steps_keep_the_first_order():
    """A ball around theta*, in the metric of M: the projected learner stays below the capped certificate."""
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5, gamma=0.6, observation=[0, 1]))
    times, radius = np.array([5, 50, 300]), 0.3

    def project(delta):
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        return delta * np.minimum(1, radius / np.maximum(length, 1e-300))

    alpha = step_for(tier_1_inequality(constants(pop)), 0.5)
    theta_0 = pop.theta_star + 0.2
    capped = tier_1(pop, alpha, theta_0, times, cap=radius)
    _, error, _ = simulate(pop, alpha, theta_0, times, 1000, 0, project=project)
    assert (capped.value <= radius).all()
    assert (capped.value <= tier_1(pop, alpha, theta_0, times).value).all()
    assert (error.mean(axis=1) - 4 * error.std(axis=1) / np.sqrt(1000) <= capped.value**2).all()


def test_leading_order_of_small_steps():
    """As alpha -> 0 the long-run certificate is chi sqrt(alpha Sc / (2 mu)), which is exact for one pair."""
    pop = tabular(chain([0.9, 0.9], [1.0, -1.0], gamma=0.3))
    alpha = 1e-6
    curve = tier_2(pop, alpha, pop.theta_star, np.array([20_000_000]))
    assert curve.value[0] == pytest.approx(curve.terms["leading"], rel=0.02)
    assert curve.terms["leading"] ** 2 == pytest.approx(alpha * 9 / 1.4)
    assert tier_1(pop, alpha, pop.theta_star, np.array([20_000_000])).value[0] > 1.05 * curve.value[0]


def test_a_failed_assumption_gives_no_number():
    a = analyse(
        garnet(1, states=6, observations=4, options=2, gamma=0.8, max_duration=2, terminal=0.0, unavailable=0.0)
    )
    pop = tabular(a)
    curve = tier_2(pop, 1e-6, pop.theta_star, TIMES)
    assert np.isnan(curve.value).all()
    assert [x.name for x in curve.assumptions if not x.holds] == ["drift"]
    assert verdict(curve.at(0), 0.0, 1.0) is Verdict.INAPPLICABLE
    good = tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5))
    slow = tabular(chain([0.99, 0.99], [1.0, -1.0], observation=[0, 1]))
    large = tier_1(slow, 0.1, slow.theta_star, TIMES)
    assert [x.name for x in large.assumptions if not x.holds] == ["small corrections"]
    fine = tier_2(good, 1e-4, good.theta_star, TIMES).at(0)
    assert verdict(fine, 0.0, 0.0) is Verdict.HOLDS
    assert verdict(fine, 1.0, 1.0) is Verdict.VIOLATED


def test_times_must_increase():
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0]))
    with pytest.raises(ValueError, match="non-negative and increasing"):
        tier_2(pop, 1e-4, pop.theta_star, np.array([5, 5]))


@pytest.fixture(scope="module")
def workflow():
    """Ten agents on a ring, 160 pairs."""
    return analyse(dials_instance(Shape(topology=ring(10)), Dials(), seed=0))


def test_ten_agents_within_a_factor_of_three(workflow):
    """Local step 1e-3 from the fixed point: tier 2 within 3x of the exact spread, tier 1 far off, always above."""
    pop = tabular(workflow)
    pairs = len(pop.theta_star)
    times = np.array([100, 2_000_000])
    alpha = 1e-3 / pairs
    curve = tier_2(pop, alpha, pop.theta_star, times)
    sharp = constant_step(pop, alpha)
    assert curve.applicable
    assert sharp.applicable
    observed = np.sqrt(alpha * sharp.value)
    assert observed <= curve.value[1] <= 3 * observed
    assert tier_1(pop, alpha, pop.theta_star, times).value[1] > 2 * curve.value[1]


def test_ten_agents_averaged_with_few_features(workflow):
    """Twelve random features, plain steps: the averaged form within 3x in V of the exact spread."""
    rng = np.random.default_rng(0)
    psi = tabular_features(workflow) @ rng.normal(size=(160, 12)) / np.sqrt(12)
    pop = population(workflow, psi)
    for alpha in (1e-4, 3e-4):
        curve = averaged(pop, alpha, pop.theta_star, np.array([3_000_000]), burn_in=1_000_000)
        assert curve.applicable
        observed = alpha * constant_step(pop, 1e-12).value
        assert observed <= curve.value[0] ** 2 <= 3 * observed
