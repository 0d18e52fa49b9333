"""docs/theory.md section 5d: the population path, constants along it, and certificates from zero, by brute force."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume
from td import TrueUpdate, any_weight, chain, over_populations

from bounds.core.steps import Decay, schedule
from bounds.path.moving import Average, averaged, last_iterate, learners_average, mean_path, moving
from bounds.path.population_path import mean_step, population_path
from bounds.path.reference import References, inequality, references, structure, worst
from bounds.path.twin import covariance, predicted
from bounds.residual import recursion
from bounds.residual.constants import constants
from bounds.residual.poisson import tier_2_inequality
from bounds.residual.population import tabular
from icq.exact import analyse

NAMES = tuple(References.__dataclass_fields__)


def both(one, other):
    return References(*(np.concatenate([getattr(one, n), getattr(other, n)]) for n in NAMES))


def far(pop, rng):
    """A parameter away from the fixed point."""
    return pop.theta_star + rng.choice([0.1, 1.0, 5.0]) * rng.normal(size=len(pop.theta_star))


@over_populations(states=(1, 5))
def test_the_path_is_the_loop(pop, rng):
    """Stretches are exact: every knot is where single steps lead, through changes of greedy options."""
    size = np.linalg.norm(np.linalg.solve(pop.metric, pop.psi.T @ (pop.d[:, None] * pop.psi)), 2)
    alpha = rng.choice([0.02, 0.3, 0.9]) / size / (1 + np.arange(200) / 20) ** rng.choice([0.0, 0.6, 1.0])
    theta_0 = far(pop, rng)
    path = population_path(pop, alpha, theta_0, [1, 7, 50])
    theta, inside = theta_0, 0
    for k, step in enumerate(alpha):
        if k in path.times:
            inside = int(np.searchsorted(path.times, k))
            assert np.allclose(theta, path.theta[inside], rtol=0, atol=1e-11 * (1 + np.abs(theta_0).max()))
        start, end = path.theta[inside], path.theta[inside + 1]
        away = theta - start
        first, stop = path.times[inside : inside + 2]
        share = alpha[first:k].sum() / alpha[first:stop].sum()
        assert (np.abs(away - share * (end - start)) <= path.off[inside] + 1e-10 * (1 + np.abs(theta_0).max())).all()
        theta = theta + step * mean_step(pop, theta)[0]
    assert np.allclose(theta, path.theta[-1], rtol=0, atol=1e-11 * (1 + np.abs(theta_0).max()))
    assert {1, 7, 50, 200} <= set(path.times.tolist())


@over_populations()
def test_constants_at_the_fixed_point_are_those_of_section_5b(pop, rng):
    """Two derivations of every constant agree where the reference stands still."""
    w = any_weight(pop, rng)
    k, r = constants(pop, weight=w), references(structure(pop, w), pop.theta_star[None])
    for new, old in (
        (r.noise, k.noise), (r.lam_1, k.lam_1), (r.sigma, k.sigma), (r.centred, k.sigma), (r.nu, k.nu_star),
        (r.kick, k.kick), (r.a_0, k.a_0),
    ):  # fmt: skip
        assert new[0] == pytest.approx(old, rel=1e-6, abs=1e-9 * (1 + k.sigma**2))
    assert r.drift[0] <= 1e-9 * (1 + k.sigma)
    assert r.centred_z[0] ** 2 + 2 * r.nu_z[0] * r.centred_z[0] >= k.omega * (1 - 1e-9)


@dataclass(frozen=True)
class Around:
    """The corrected functional around any reference, outcome by outcome, with the real maximum."""

    true: TrueUpdate
    theta: np.ndarray

    def delta(self, moved):
        """Coordinates of TrueUpdate (distance from theta*) of reference + moved."""
        return self.true.correction.root.T @ (self.theta - self.true.pop.theta_star) + moved

    @property
    def mean(self):
        """ubar."""
        return self.true.pop.analysis.d @ self.true.mean(self.true.step(self.delta(0.0)))

    def second(self, moved):
        true, c, k = self.true, self.true.correction, self.true.pop.outcomes
        at = self.delta(moved)
        td, gamma = true.td(at), true.step(at) - self.mean
        following = (true.nu(at)[k.target] * gamma).sum(1)
        response = td * (c.v[k.target, :, k.pair] @ moved)
        kink = np.linalg.norm(moved) * c.kink[k.target, k.pair] * np.abs(td)
        return true.mean((gamma**2).sum(1) + 2 * (following + response + kink))

    def corrected(self, moved, alpha):
        nu = self.true.nu(self.delta(moved))
        return moved @ moved + 2 * alpha * nu @ moved + alpha**2 * self.true.z @ self.second(moved)

    def after(self, moved, alpha, following, next_alpha):
        """E[W'|s] around the next reference."""
        true, k = self.true, self.true.pop.outcomes
        steps = true.step(self.delta(moved)) - self.mean
        ends = [following.corrected(moved + alpha * g, next_alpha)[s] for g, s in zip(steps, k.target, strict=True)]
        return true.mean(np.array(ends))


def one_step(pop, weight, rng, break_it=lambda x: x, tiny=None):
    """How far one step exceeds its inequality [S], and how far W - V exceeds the slack, at random places."""
    s, true = structure(pop, weight), TrueUpdate(pop, weight=weight)
    theta = far(pop, rng)
    largest = 1.0
    while not all(a.holds for a in tier_2_inequality(constants(pop, weight=weight)).conditions(largest)):
        largest /= 1.5
    alpha = tiny or largest * rng.choice([1.0, 0.1, 1e-3])
    next_alpha = alpha * (rng.choice([1.0, 0.9]) if tiny is None else 1.0)
    here = Around(true, theta)
    there = Around(true, theta + alpha * mean_step(pop, theta)[0])
    ends = both(references(s, here.theta[None]), references(s, there.theta[None]))
    turn = np.linalg.norm(there.mean - here.mean) / alpha
    data = break_it(inequality(s, worst(s, ends, np.zeros(1)), 0, float(turn)))
    moved = rng.choice([0.0, 0.01, 1.0, 10.0]) * rng.normal(size=len(theta)) if tiny is None else 0 * theta
    x = float(np.linalg.norm(moved))
    w, after = here.corrected(moved, alpha), here.after(moved, alpha, there, next_alpha)
    allowed = w - 2 * alpha * data.mu * x**2 + data.gain(alpha, next_alpha)(x)
    size = 1e-10 * (1 + x**2 + np.abs(true.td(here.delta(0.0))).max() ** 2 * (1 + s.z) ** 2)
    return after - allowed, np.abs(w - x**2) - data.slack(alpha)(x), size, (alpha, data)


@over_populations("tabular", "local clock", "plain", states=(1, 4), outcomes=(1, 3))
def test_one_step_around_a_moving_reference(pop, rng):
    """E[W'|theta, s] <= W - 2 alpha mu x^2 + gain(x), |W - V| <= slack(x), for every reference, theta and state."""
    for _ in range(3):
        over, beyond, size, _ = one_step(pop, any_weight(pop, rng), rng)
        assert (over <= size).all() and (beyond <= size).all()


@over_populations("tabular", "local clock", states=(2, 4), options=(1, 2), outcomes=(2, 3))
def test_three_per_cent_less_noise_is_caught_at_any_reference(pop, rng):
    """At e = 0 one step adds alpha^2 Sc(thbar) + O(alpha^3), from every state."""
    seed = int(rng.integers(2**32))

    def less(x):
        return replace(x, gain_2=x.gain_2._replace(c0=0.97 * x.gain_2.c0))

    over, _, _, (alpha, data) = one_step(pop, None, np.random.default_rng(seed), less, 1e-9)
    third = (data.gain_3.c0 + data.slack_2.c0) * alpha / max(data.gain_2.c0, 1e-300)
    assume(third < 1e-3)
    assert (over > 0.02 * data.gain_2.c0 * alpha**2).all()
    assert (one_step(pop, None, np.random.default_rng(seed), tiny=1e-9)[0] <= 1e-3 * data.gain_2.c0 * alpha**2).all()


@over_populations(states=(1, 5))
def test_constants_on_a_chord_are_largest_at_its_ends(pop, rng):
    """Convexity with fixed greedy options, and growth off the chord."""
    w = any_weight(pop, rng)
    s, one = structure(pop, w), far(pop, rng)
    choice = mean_step(pop, one)[1]
    other = one + rng.choice([1e-3, 0.1]) * rng.normal(size=len(one))
    off = rng.choice([0.0, 1e-3, 0.05]) * rng.normal(size=len(one))
    shares = rng.random(4)
    inside = one + shares[:, None] * (other - one) + rng.choice([-1.0, 1.0], size=(4, 1)) * off
    assume(all((mean_step(pop, theta)[1] == choice).all() for theta in (one, other, *inside)))
    ends = both(references(s, one[None]), references(s, other[None]))
    reach = np.array([np.linalg.norm(s.correction.root.T @ off)])
    top, found = worst(s, ends, reach), references(s, inside)
    for name in NAMES:
        assert (getattr(found, name) <= getattr(top, name)[0] * (1 + 1e-9) + 1e-9).all(), name


def enumerated(pop, alpha, theta_0, start, last, average):
    """E||Q_T - Q_F||_d^2 and that of the weighted average at T = 0..last, over all trajectories, real maximum."""
    k, true = pop.outcomes, TrueUpdate(pop)
    error = pop.error(theta_0)
    runs = [(p, s, error, 0 * error) for s, p in enumerate(start) if p > 0]
    out, means = [], []

    def square(delta):
        return float((pop.phi @ delta) ** 2 @ pop.d)

    for time in range(last + 1):
        out.append(sum(p * square(e) for p, _, e, _ in runs))
        if average.inclusive:
            runs = [(p, s, e, total + average.weights[time] * e) for p, s, e, total in runs]
        mass = average.weights[: time + average.inclusive].sum()
        means.append(sum(p * square(t / mass) for p, _, _, t in runs) if mass > 0 else np.nan)
        if not average.inclusive:
            runs = [(p, s, e, total + average.weights[time] * e) for p, s, e, total in runs]
        after = []
        for p, s, e, total in runs:
            step = true.step(e)
            after += [(p * k.weight[j], k.target[j], e + alpha[time] * step[j], total)
                      for j in np.flatnonzero(k.source == s)]  # fmt: skip
        runs = after
    return np.array(out), np.array(means)


@over_populations("tabular", "plain", states=(1, 2), options=(1, 2), outcomes=(1, 2))
def test_certificates_hold_on_every_trajectory_together(pop, rng):
    """Both bounds are above the exact errors of the real learner, any start, any schedule; and not by 5 % less path."""
    last = 4
    largest = 1.0
    while not all(a.holds for a in tier_2_inequality(constants(pop)).conditions(largest)):
        largest /= 1.5
    alpha = largest * rng.choice([0.9, 0.05]) / (1 + np.arange(last + 2)) ** rng.choice([0.0, 0.6])
    theta_0 = far(pop, rng)
    start = np.eye(len(pop.analysis.d))[rng.integers(len(pop.analysis.d))]
    average = learners_average(last, float(rng.choice([0.0, 2.0])))
    if rng.random() < 0.3:
        average = Average(alpha[:-1], False)  # the step-weighted one
    exact, mean = enumerated(pop, alpha, theta_0, start, last, average)
    m = moving(pop, alpha, theta_0, np.arange(1, last + 1))
    certified = last_iterate(m)
    assert certified.applicable
    assert (certified.value >= np.sqrt(exact[1:]) * (1 - 1e-9) - 1e-12).all()
    assert (averaged(m, average).value >= np.sqrt(mean[1:]) * (1 - 1e-9) - 1e-12).all()


@over_populations("tabular", states=(1, 3))
def test_the_mean_of_the_path_is_the_mean_of_the_loop(pop, rng):
    """Weighted means over chords agree with single steps, and what they may miss is allowed for."""
    last, power = 40, float(rng.choice([0.0, 2.0]))
    alpha = 0.05 / (1 + np.arange(last + 2) / 10) ** 0.6 * pop.d[pop.d > 0].min()
    theta_0, average = far(pop, rng), learners_average(last, power)
    weights, m = average.weights, moving(pop, alpha, theta_0, np.array([last]))
    theta, total = theta_0, weights[0] * theta_0
    for k in range(last):
        theta = theta + alpha[k] * mean_step(pop, theta)[0]
        total = total + weights[k + 1] * theta
    exact = float(np.sqrt((pop.psi @ (total / weights.sum() - pop.theta_star)) ** 2 @ pop.d))
    found = mean_path(m, average)[0]
    assert exact * (1 - 1e-9) - 1e-12 <= found <= exact * 1.1 + 1e-9


@over_populations("tabular", "plain")
def test_the_compiled_recursion_is_the_stepwise_one(pop, rng):
    """Any schedule: the last iterate and the averages of `walk`, which takes Python steps, to rounding."""
    x, rate = tier_2_inequality(constants(pop)), 1 - pop.kappa
    largest = 1.0
    while not all(a.holds for a in x.conditions(largest)):
        largest /= 1.5
    alpha = largest / (1 + np.arange(102) / 10) ** rng.choice([0.0, 0.6])
    times, v_0, burn_in = np.array([2, 5, 100]), float(rng.exponential()), int(rng.integers(2))
    steps = list(recursion.walk(x, alpha, v_0, range(101)))
    assert np.allclose(recursion.iterate(x, alpha, v_0, times), [steps[t].x ** 2 for t in times], rtol=1e-9, atol=0)
    means = []
    for t in times:
        s0, s1, s2 = steps[t].slack
        total = steps[burn_in].w + sum(now.gain(now.top) for now in steps[burn_in:t]) + s0 + s1**2 / (4 * (1 - s2))
        means.append(total / (2 * rate * alpha[burn_in:t].sum()))
    found = recursion.average(x, rate, alpha, v_0, times, burn_in=burn_in)
    assert np.allclose(found, means, rtol=1e-9, atol=0)


def test_the_twin_is_exact_at_small_steps():
    """Against exact second moments of a chain whose options cannot change, along a path that starts far away."""
    from bounds.residual.moments import second_moments

    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5, gamma=0.6, observation=[0, 1]))
    theta_0, times = pop.theta_star + 3.0, np.array([50, 500, 3000])
    alpha = schedule(Decay(2e-3, 500.0, 0.6), 3002)
    m = moving(pop, alpha, theta_0, times)
    exact = second_moments(pop, alpha, theta_0, times, pop.analysis.d)
    assert np.allclose(np.sqrt(exact.error - exact.bias), predicted(m), rtol=0.02)
    noise = covariance(pop, pop.theta_star)
    assert np.allclose(noise, pop.sigma_0 + pop.sigma_mix, atol=1e-9)


def test_the_twin_of_a_path_that_has_arrived_is_the_recursion_of_single_steps():
    """From the fixed point the whole run is one stretch, over which the step falls by a factor of twenty."""
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5, gamma=0.6, observation=[0, 1]))
    last = 200_000
    alpha = schedule(Decay(5e-3, 2000.0, 0.6), last + 2)
    m = moving(pop, alpha, pop.theta_star, np.array([last]))
    assert len(m.path.off) <= 2 and alpha[0] > 15 * alpha[-1]
    inverse = np.linalg.inv(pop.metric)
    noise, step = inverse @ covariance(pop, pop.theta_star) @ inverse, m.path.field(pop, 0)
    cov, one = np.zeros_like(noise), np.eye(len(noise))
    for x in alpha[:last]:
        cov = (one - x * step) @ cov @ (one - x * step).T + x**2 * noise
    single = np.sqrt(np.sum((pop.psi.T @ (pop.d[:, None] * pop.psi)) * cov))
    assert predicted(m)[0] == pytest.approx(single, rel=0.01)


def test_options_that_are_alike_do_not_make_single_steps():
    """Every option twice, taken with other probabilities: tied for ever, up to rounding."""
    m = chain([0.9, 0.6, 0.3], [1.0, -1.0, 0.3], noise=0.5, gamma=0.6, observation=[0, 1, 2]).smdp
    names = ("prob", "next_state", "duration", "reward", "terminal")
    twice = {name: np.concatenate([getattr(m, name)] * 2, axis=1) for name in names}
    live, shares = np.ones((3, 2), bool), np.tile([0.3, 0.7], (3, 1))
    pop = tabular(analyse(replace(m, **twice, available=live, behaviour=shares)))
    rng = np.random.default_rng(0)
    start = np.repeat(rng.normal(size=3), 2)
    path = population_path(pop, np.full(20_000, 1e-3), start)
    assert len(path.off) < 1000


def test_decays_are_the_learners_schedule():
    steps = Decay(0.5, 100.0, 0.6)
    assert np.array_equal(schedule(steps, 5), [steps(k) for k in range(5)])
    assert steps(0) == 0.5
