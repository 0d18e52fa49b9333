"""docs/theory.md section 5: the population fixed point of a linear class and the noise of its TD error."""

import numpy as np
import pytest
from strategies import garnet
from td import TrueUpdate, chain, over_populations

from bounds.residual.population import (
    block_features,
    local_clock,
    population,
    tabular,
    tabular_features,
)
from icq.exact import analyse
from icq.reason import NoNumber


@over_populations()
def test_fixed_point_of_the_projected_operator(pop, rng):
    a, d = pop.analysis, pop.d
    image = a.interface.bellman(pop.q_f).reshape(-1)
    root = np.sqrt(d)
    theta = np.linalg.lstsq(root[:, None] * pop.psi, root * (image - pop.offset), rcond=None)[0]
    scale = 1 + np.abs(pop.q_f).max()
    live = d > 0
    assert np.allclose((pop.offset + pop.psi @ theta)[live], pop.q_f.reshape(-1)[live], atol=1e-8 * scale)
    assert pop.residual <= 1e-10 * scale


@over_populations()
def test_noise_has_mean_zero_and_second_moment_sigma_0(pop, rng):
    k = pop.outcomes
    z = pop.psi[k.pair] * pop.td_error[:, None]
    scale = 1 + np.abs(z).max() ** 2
    assert np.allclose(pop.mass @ z, 0, atol=1e-10 * scale)
    assert np.allclose(np.einsum("n,np,nq->pq", pop.mass, z, z), pop.sigma_0, atol=1e-12 * scale)
    assert pop.mass.sum() == pytest.approx(1)


@over_populations()
def test_sigma_mix(pop, rng):
    """Against the truncated sum of autocovariances along the chain, Abel-summed so that slow chains converge."""
    k, p = pop.outcomes, pop.analysis.transition.toarray()
    z = pop.psi[k.pair] * pop.td_error[:, None]
    mean = TrueUpdate(pop).mean(z)
    first = np.zeros_like(mean)
    np.add.at(first, k.target, pop.mass[:, None] * z)
    resolvent = np.linalg.solve(np.eye(len(p)) - (1 - 1e-9) * p, mean - pop.analysis.d @ mean)
    total = first.T @ resolvent
    assert np.allclose(total + total.T, pop.sigma_mix, atol=1e-5 * (1 + np.abs(total).max()))


def test_sigma_mix_of_a_known_chain():
    """One pair, reward +-1 kept with probability .9: delta* is the reward, its autocovariance .8^k."""
    pop = tabular(chain([0.9, 0.9], [1.0, -1.0]))
    assert pop.sigma_0 == pytest.approx(1)
    assert pop.sigma_mix == pytest.approx(2 * 0.8 / (1 - 0.8))


@over_populations()
def test_jacobian_is_the_derivative_of_the_mean_update(pop, rng):
    true, d = TrueUpdate(pop), pop.analysis.d
    gap = np.sort(np.where(pop.analysis.interface.available, pop.q_f, -np.inf), axis=1)
    h = 1e-6
    if gap.shape[1] > 1 and (gap[:, -1] - gap[:, -2]).min() < 100 * h * (1 + np.abs(pop.phi).max()):
        return
    slope = np.array([d @ (true.mean(true.step(h * e)) - true.mean(true.step(-h * e))) for e in np.eye(len(pop.root))])
    whitened = np.linalg.solve(pop.root, np.linalg.solve(pop.root, pop.jacobian.T).T)
    assert np.allclose(-slope.T / (2 * h), whitened, atol=1e-5 * (1 + np.abs(whitened).max()))


@over_populations()
def test_drift(pop, rng):
    """<mean update, Delta> <= -(1 - kappa_F) ||Q - Q_F||_d^2 <= -mu ||Delta||^2, with the maximum, for any Delta."""
    true = TrueUpdate(pop)
    for scale in (0.01, 1.0, 100.0):
        delta = scale * rng.normal(size=len(pop.theta_star))
        mean = pop.analysis.d @ true.mean(true.step(delta))
        error = pop.d @ (pop.phi @ delta) ** 2
        slack = 1e-9 * (1 + scale**2) * (1 + np.abs(pop.q_f).max())
        assert mean @ delta <= -(1 - pop.kappa) * error + slack
        assert (1 - pop.kappa) * error >= pop.drift * delta @ delta - slack
        assert error <= pop.chi**2 * (delta @ delta) * (1 + 1e-9)


def test_drift_is_tight_for_one_pair():
    pop = tabular(chain([0.5], [1.0], gamma=0.3))
    true, delta = TrueUpdate(pop), np.array([2.0])
    mean = pop.analysis.d @ true.mean(true.step(delta))
    assert mean @ delta == pytest.approx(-(1 - 0.3) * 4)
    assert pop.drift == pytest.approx(0.7)


def test_few_features_contract_where_the_table_does_not():
    a = analyse(
        garnet(1, states=6, observations=4, options=2, gamma=0.8, max_duration=2, terminal=0.0, unavailable=0.0)
    )
    pop = population(a, np.random.default_rng(1).normal(size=(8, 1)))
    assert a.kappa > 1.5
    assert pop.kappa < 0.9


def test_block_features_keep_agents_apart():
    a = analyse(garnet(1, states=6, observations=4, options=2, agents=2, unavailable=0.0))
    features = np.random.default_rng(0).normal(size=(4, 2, 3))
    psi = block_features(a, features)
    assert psi.shape == (8, 6)
    for row, (o, option) in zip(psi, np.ndindex(4, 2)):
        block = row.reshape(2, 3)
        assert np.array_equal(block[a.smdp.agent[o]], features[o, option])
        assert not block[1 - a.smdp.agent[o]].any()


def test_bad_classes_are_refused():
    a = analyse(garnet(1, states=4, observations=3, options=2, agents=1, unavailable=0.0))
    psi = tabular_features(a)
    with pytest.raises(NoNumber, match="linearly dependent"):
        population(a, np.repeat(psi[:, :1], 2, axis=1))
    with pytest.raises(NoNumber, match="smallest eigenvalue is -1"):
        population(a, psi, -np.eye(psi.shape[1]))
    with pytest.raises(NoNumber, match="not symmetric"):
        population(a, psi, np.triu(np.ones((psi.shape[1],) * 2)))
    assert np.allclose(np.diag(local_clock(a, psi)), a.d_pair.reshape(-1))


@over_populations("tabular")
def test_range_cap(pop, rng):
    """No table that stays in the range of discounted sums is further from Q_F."""
    k = pop.outcomes
    ends = np.array([min(k.reward.min(), 0), max(k.reward.max(), 0)]) / (1 - k.discount.max())
    assert (pop.q_f.reshape(-1)[pop.d > 0] >= ends[0] - 1e-9).all()
    assert (pop.q_f.reshape(-1)[pop.d > 0] <= ends[1] + 1e-9).all()
    for _ in range(20):
        error = rng.choice(ends, size=len(pop.d)) - pop.q_f.reshape(-1)
        assert np.sqrt(pop.d @ error**2) <= pop.range_cap + 1e-9
        assert np.abs(error[pop.d > 0]).max() <= pop.range_error.max() + 1e-9
