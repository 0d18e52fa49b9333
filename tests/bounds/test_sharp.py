"""docs/theory.md section 5a: the asymptotic variances against exact long-run moments."""

from dataclasses import fields

import numpy as np
import pytest
from strategies import garnet
from td import chain, classes, over_populations, simulate

from bounds.residual.moments import FrozenUpdate, Triple
from bounds.residual.population import population, tabular
from bounds.residual.sharp import action_gap, averaged_limit, constant_step, greedy_margins, stationary_covariance
from icq.exact import analyse
from icq.smdp import ICSMDP

pytestmark = pytest.mark.slow


class LongRun:
    """The moment recursion as one matrix, so that a billion steps are thirty multiplications."""

    def __init__(self, pop, alpha, iid):
        self.pop, self.alpha, self.update = pop, alpha, FrozenUpdate(pop, iid)
        self.shape = self.update.start(pop.analysis.d, 0 * pop.theta_star)
        size = len(self.flat(self.shape))
        self.matrix = np.stack([self.flat(self.update.push(self.triple(e), alpha)) for e in np.eye(size)], axis=1)

    @staticmethod
    def flat(triple):
        return np.concatenate([getattr(triple, f.name).reshape(-1) for f in fields(Triple)])

    def triple(self, vector):
        parts, at = [], 0
        for f in fields(Triple):
            shape = getattr(self.shape, f.name).shape
            parts.append(vector[at : at + np.prod(shape, dtype=int)].reshape(shape))
            at += parts[-1].size
        return Triple(*parts)

    def after(self, doublings):
        """E||Q - Q_F||_d^2 now, and T Var(Qavg) in the d-norm, at T = 2**doublings from theta*."""
        matrix = np.linalg.matrix_power(self.matrix, 2**doublings)
        triple = self.triple(matrix @ self.flat(self.shape))
        gram, time = self.pop.phi.T @ (self.pop.d[:, None] * self.pop.phi), 2**doublings
        mean = triple.sum_first.sum(0)
        spread = (triple.sum_second - np.outer(mean, mean)) / (self.alpha**2 * time)
        return np.array([np.sum(gram * triple.second.sum(0)), np.sum(gram * spread)])


def limits(pop, alpha, iid=False):
    """(error / alpha, T Var(Qavg)) extrapolated to alpha -> 0: exact up to alpha^2."""
    full, half = (LongRun(pop, a, iid).after(30) / (a, 1) for a in (alpha, alpha / 2))
    return 2 * half - full


def small_populations():
    for seed, kind in enumerate(["tabular", "plain table", "local clock", "plain"] * 2):
        a = analyse(garnet(seed, states=3, observations=2, options=2, outcomes=2, agents=1, gamma=0.5, unavailable=0.5))
        pop = classes(a, kind, np.random.default_rng(seed))
        if pop is not None and len(pop.theta_star) <= 3 and a.action_gap > 0.01:
            yield pop


def test_averaged_limit_and_constant_step():
    tried = 0
    for pop in small_populations():
        rates = np.linalg.eigvals(np.linalg.solve(pop.metric, pop.jacobian)).real
        step = 0.03 * rates.min() / max(rates.max() ** 2, rates.max() * pop.norm2.max())
        for iid in (False, True):
            last, average = limits(pop, step, iid)
            for sharp, exact in ((constant_step(pop, 1e-9), last), (averaged_limit(pop), average)):
                value = sharp.iid if iid else sharp.value
                assert exact == pytest.approx(value, rel=2e-3)
                assert sharp.value == pytest.approx(sharp.iid + sharp.markov)
        tried += 1
    assert tried >= 5


def test_one_pair_in_closed_form():
    """Reward +-1 kept with probability .9, discount .3: Sigma_0 = 1, Sigma_mix = 8, J = .7."""
    pop = tabular(chain([0.9, 0.9], [1.0, -1.0], gamma=0.3))
    limit, step = averaged_limit(pop), constant_step(pop, 1e-3)
    assert [limit.iid, limit.markov] == pytest.approx([1 / 0.49, 8 / 0.49])
    assert [step.iid, step.markov] == pytest.approx([1 / 1.4, 8 / 1.4])


@over_populations()
def test_lyapunov_equation(pop, rng):
    jt = np.linalg.solve(pop.metric, pop.jacobian)
    if np.linalg.eigvals(jt).real.min() < 1e-6:
        return
    sigma = pop.sigma_0 + pop.sigma_mix
    c = stationary_covariance(pop, sigma)
    inverse = np.linalg.inv(pop.metric)
    scale = 1 + np.abs(jt).max() * np.abs(c).max()
    assert np.allclose(jt @ c + c @ jt.T, inverse @ sigma @ inverse.T, atol=1e-9 * scale)


@over_populations("tabular")
def test_tables_without_gap_have_no_markov_part(pop, rng):
    """h* = 0 when observation and state are one thing: correlation along the path costs nothing at leading order."""
    a = analyse(ICSMDP.create(
        prob=pop.analysis.smdp.prob, next_state=pop.analysis.smdp.next_state, duration=pop.analysis.smdp.duration,
        reward=pop.analysis.smdp.reward, observation=np.arange(len(pop.analysis.d)),
        agent=np.zeros(len(pop.analysis.d), int), gamma=0.2,
    ))  # fmt: skip
    limit = averaged_limit(tabular(a))
    if limit.applicable:
        assert limit.markov == pytest.approx(0, abs=1e-10 * (1 + limit.iid))


def two_options(gap, noise=1.0, gamma=0.5):
    """One state, two options with mean rewards 1 and 1 - gap, noise +-1."""
    return analyse(ICSMDP.create(
        prob=np.full((1, 2, 2), 0.5), next_state=np.zeros((1, 2, 2), int), duration=np.ones((1, 2, 2), int),
        reward=[[[1 + noise, 1 - noise], [1 - gap + noise, 1 - gap - noise]]], observation=[0], agent=[0], gamma=gamma,
    ))  # fmt: skip


def test_a_tie_is_inapplicable():
    pop = tabular(two_options(0.0))
    for sharp in (averaged_limit(pop), constant_step(pop, 0.01)):
        assert not sharp.applicable
        assert np.isnan(sharp.value)
        assert [a.name for a in sharp.assumptions if not a.holds] == ["unique greedy options"]


def test_action_gap_counts_standard_deviations():
    pop = tabular(two_options(0.3))
    gap, feature = greedy_margins(pop)
    assert gap == pytest.approx([0.3])
    assert feature.tolist() == [[1.0, -1.0]]
    found = action_gap(pop, 0.01, np.eye(2))
    assert found.margin == pytest.approx(0.3 / np.sqrt(0.02) - 3)
    assert not found.holds
    assert action_gap(pop, 1e-4, np.eye(2)).holds
    assert constant_step(pop, 1e-4).applicable
    assert not constant_step(pop, 0.05).applicable


def test_the_action_gap_assumption_matters():
    """With gaps of many standard deviations simulation gives the formula, with a near tie it does not."""
    times = np.array([1500])
    for gap, agrees in ((3.0, True), (0.01, False)):
        pop = tabular(two_options(gap, gamma=0.8))
        sharp = constant_step(pop, 0.01)
        assert sharp.applicable == agrees
        _, error, _ = simulate(pop, 0.01, pop.theta_star, times, 2000, 0)
        formula = 0.01 * constant_step(pop, 1e-12).value
        stderr = error.std() / np.sqrt(error.size)
        assert (abs(error.mean() - formula) <= 4 * stderr + 0.02 * formula) == agrees


def test_an_unstable_jacobian_is_inapplicable():
    """Two states with feature 1 and 2 on the option that leads to the second; behaviour mostly returns to the first."""
    m = ICSMDP.create(
        prob=np.ones((2, 2, 1)), next_state=[[[1], [0]], [[1], [0]]], duration=np.ones((2, 2, 1), int),
        reward=[[[-1.0], [0.0]], [[0.0], [0.0]]], observation=[0, 1], agent=[0, 0], gamma=0.95,
        behaviour=[[0.1, 0.9], [0.1, 0.9]],
    )  # fmt: skip
    pop = population(analyse(m), np.array([[1.0], [0.0], [2.0], [0.0]]))
    assert pop.theta_star > 1
    for sharp in (averaged_limit(pop), constant_step(pop, 1e-6)):
        assert [x.name for x in sharp.assumptions if not x.holds] == ["stable Jacobian"]
        assert np.isnan(sharp.value)
