"""docs/theory.md section 5c: the two certificates kept for comparison."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import garnet
from td import TrueUpdate, chain, classes, over_populations, simulate

from bounds.core.bound import Verdict, verdict
from bounds.residual.moments import second_moments
from bounds.residual.poisson import averaged
from bounds.residual.population import block_features, population, tabular
from bounds.residual.recursion import iterate
from bounds.residual.textbook import agent_norms, lag_penalty, lags, sup_norm, sup_norm_inequality, textbook
from icq.exact import analyse

TIMES = np.array([1, 10, 50])


def projection(pop, radii):
    """Every agent's block of theta onto its ball around 0, in the metric of M; acts on rows of Delta."""
    agent = np.repeat(np.asarray(pop.analysis.smdp.agent), pop.q_f.shape[1])
    star = pop.root.T @ pop.theta_star

    def project(delta):
        out = delta + star
        for i, radius in enumerate(radii):
            mine = np.abs(pop.psi[agent == i]).sum(0) > 0
            length = np.linalg.norm(out[:, mine], axis=1, keepdims=True)
            out[:, mine] *= np.minimum(1, radius / np.maximum(length, 1e-300))
        return out - star

    return project


@pytest.mark.parametrize("seed", range(4))
def test_textbook(seed):
    """Projected learners with the maximum, Qavg bounded by the mean of the errors; always above, by a wide margin."""
    a = analyse(garnet(seed, states=5, observations=3, options=2, outcomes=2, agents=3, gamma=0.3, max_duration=2))
    if seed % 2:
        features = np.random.default_rng(seed).normal(size=(3, 2, 1))
        pop = population(a, block_features(a, features))
    else:
        pop = population(a, tabular(a).psi)
    radii = agent_norms(pop, pop.theta_star)[0] * 1.2 + 0.1
    theta_0, times = 0 * pop.theta_star, np.array([200])
    for steps in (0.05, 0.2 / np.sqrt(1 + np.arange(202))):
        curve = textbook(pop, steps, theta_0, times, radii)
        assert curve.applicable
        alpha = np.full(200, steps) if isinstance(steps, float) else steps[:200]
        every = np.arange(200)
        _, error, _ = simulate(pop, steps, theta_0, every, 200, seed, project=projection(pop, radii))
        path = alpha @ error / alpha.sum()
        assert path.mean() - 4 * path.std() / np.sqrt(200) <= curve.value[0] ** 2
        assert verdict(curve.at(0), 0.0, 0.0) is Verdict.VACUOUS


def test_lag_penalty():
    """Against the definition, constant and decreasing steps."""
    rho = np.array([0.9, 0.5, 0.2, 0.05])
    for alpha in (np.full(12, 0.1), 0.3 / np.sqrt(1 + np.arange(12))):
        found = lag_penalty(alpha, rho, 2.0, 3.0)
        for k in range(12):
            each = [2.0 * alpha[k - t : k].sum() + 3.0 * rho[t] for t in range(min(k, 3) + 1)]
            assert found[k] == pytest.approx(min(each))


@over_populations(states=(2, 5))
def test_lags(pop, rng):
    count, rho = lags(pop, 40)
    p, power = pop.analysis.transition.toarray(), np.eye(len(pop.analysis.d))
    for t in count[:20]:
        assert rho[t] == pytest.approx(0.5 * np.abs(power - pop.analysis.d).sum(1).max(), abs=1e-12)
        power = power @ p


def test_a_long_constant_run_is_extrapolated_from_the_longest_lag():
    a = analyse(garnet(0, states=5, observations=3, options=2, outcomes=2, agents=3, gamma=0.3))
    pop = population(a, tabular(a).psi)
    theta_0, times = 0 * pop.theta_star, np.array([1, 50, 3000])
    short = textbook(pop, 0.01, theta_0, times)
    written_out = textbook(pop, np.full(3000, 0.01), theta_0, times)
    assert short.value == pytest.approx(written_out.value)


def test_textbook_assumptions():
    a = analyse(garnet(0, states=5, observations=3, options=2, outcomes=2, agents=3, gamma=0.3, unavailable=0.0))
    pop = population(a, tabular(a).psi)
    small = 0.5 * agent_norms(pop, pop.theta_star)[0]
    failed = [x.name for x in textbook(pop, 0.1, 0 * pop.theta_star, TIMES, small).assumptions if not x.holds]
    assert failed == ["theta* inside"]
    failed = [x.name for x in textbook(pop, 0.1, 9 + pop.theta_star, TIMES).assumptions if not x.holds]
    assert failed == ["start inside"]
    nothing = tabular(analyse(replace(a.smdp, reward=np.zeros_like(a.smdp.reward))))
    for start, missing in ((0 * nothing.theta_star, []), (0.5 + nothing.theta_star, ["start inside"])):
        found = textbook(nothing, 0.1, start, TIMES).assumptions
        assert [x.name for x in found if not x.holds] == missing, "in a ball of radius 0 is 0 alone"
    shared = population(a, np.random.default_rng(0).normal(size=(6, 2)))
    failed = [x.name for x in textbook(shared, 0.1, 0 * shared.theta_star, TIMES).assumptions if not x.holds]
    assert "one block per agent" in failed
    periodic = tabular(chain([0.0, 0.0], [1.0, -1.0], observation=[0, 1]))
    failed = [x.name for x in textbook(periodic, 0.1, 0 * periodic.theta_star, TIMES).assumptions if not x.holds]
    assert failed == ["aperiodic"]
    with pytest.raises(ValueError, match="at least one update"):
        textbook(pop, 0.1, 0 * pop.theta_star, np.array([0, 5]))


def test_what_the_poisson_certificate_buys():
    """Same run, same quantity, of the order of 1e3 apart in the mean square at small steps."""
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], noise=0.5, gamma=0.6, observation=[0, 1]))
    times = np.array([200_000])
    old, new = (f(pop, 1e-3, pop.theta_star, times).value[0] ** 2 for f in (textbook, averaged))
    assert old > 300 * new


@over_populations("tabular", "plain table", states=(1, 4), options=(1, 2), outcomes=(1, 3))
def test_sup_norm_inequality(pop, rng):
    """E W' <= W - 2 alpha mu ||.||_p^2 + gain and |W - V| <= slack at every (theta, s), with the maximum."""
    true, scale = TrueUpdate(pop), np.sqrt(np.diag(pop.metric))
    for power in (2.0, 3.7, 12.0):
        inequality = sup_norm_inequality(pop, power)
        alpha = 0.4 / max(inequality.slack_1.c2, abs(inequality.mu)) * rng.choice([1.0, 0.01])

        def corrected(delta, p=power, alpha=alpha):
            table = delta / scale
            v = np.linalg.norm(table, p)
            slope = v ** (2 - p) * np.sign(table) * np.abs(table) ** (p - 1) if v > 0 else 0 * table
            return v**2 + 2 * alpha * (true.nu(delta) / scale) @ slope

        for size in (1e-2, 1.0, 20.0):
            delta = size * rng.normal(size=len(scale))
            x = float(np.linalg.norm(delta / scale, power))
            rise = true.after(delta, alpha, corrected) - corrected(delta)
            slip = 1e-9 * (1 + x**2)
            assert (rise <= -2 * alpha * inequality.mu * x**2 + inequality.gain(alpha, alpha)(x) + slip).all()
            assert (np.abs(corrected(delta) - x**2) <= inequality.slack(alpha)(x) + slip).all()


@over_populations("tabular", "plain table", states=(1, 4), outcomes=(1, 3))
def test_sup_norm(pop, rng):
    """No pair's exact mean-square error exceeds it; kappa plays no part."""
    theta_0 = pop.theta_star + rng.choice([0.0, 1.0]) * rng.normal(size=len(pop.theta_star))
    probe = sup_norm(pop, 1e-9, theta_0, TIMES)
    assert probe.applicable
    p = probe.terms["power"]
    inequality = sup_norm_inequality(pop, p)
    alpha = 0.2 / max(inequality.slack_1.c2, inequality.mu, pop.norm2.max()) * rng.choice([1.0, 0.05])
    curve = sup_norm(pop, float(alpha), theta_0, TIMES)
    moments = second_moments(pop, float(alpha), theta_0, TIMES)
    assert curve.applicable
    assert (curve.value**2 >= moments.error * (1 - 1e-9) - 1e-20).all()


def test_sup_norm_of_simulated_runs():
    a = analyse(
        garnet(1, states=6, observations=4, options=2, gamma=0.8, max_duration=2, terminal=0.0, unavailable=0.0)
    )
    pop = tabular(a)
    assert pop.kappa > 1
    times, theta_0 = np.array([20, 300, 3000]), 0 * pop.theta_star
    for alpha in (1e-4, 1e-3):
        curve = sup_norm(pop, alpha, theta_0, times)
        _, _, reach = simulate(pop, alpha, theta_0, times, 300, 0)
        square = reach**2
        assert curve.applicable
        assert (square.mean(1) - 4 * square.std(1) / np.sqrt(300) <= curve.value**2).all()
    assert verdict(sup_norm(pop, 1e-6, theta_0, np.array([30_000_000])).at(0), 0.0, 0.0) is Verdict.HOLDS


def test_a_broken_sup_norm_certificate_is_caught():
    """Suprema over hidden states replaced by averages, in front of a rare noisy state."""
    pop = tabular(chain([0.5, 0.99], [0.0, 0.0], noise=[5.0, 0.1], gamma=0.1))
    good = sup_norm_inequality(pop, 2.0)
    quiet = np.sqrt(pop.analysis.d @ pop.expect(pop.td_error**2))
    wrong = replace(good, gain_2=good.gain_2._replace(c0=quiet**2), growth=(quiet, good.growth[1]))
    times = np.array([1])
    exact = second_moments(pop, 0.1, pop.theta_star, times, np.array([1.0, 0.0])).norm
    assert iterate(good, 0.1, 0.0, times) == pytest.approx(exact)
    assert iterate(wrong, 0.1, 0.0, times) < 0.9 * exact


def test_sup_norm_is_for_tables():
    a = analyse(garnet(0, states=5, observations=3, options=2, gamma=0.3))
    pop = classes(a, "local clock", np.random.default_rng(0))
    curve = sup_norm(pop, 1e-4, pop.theta_star, TIMES)
    assert [x.name for x in curve.assumptions if not x.holds] == ["table"]
    assert np.isnan(curve.value).all()
