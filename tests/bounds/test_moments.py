"""docs/theory.md section 5a: the exact moment recursion with frozen greedy options."""

import numpy as np
import pytest
from td import chain, over_populations, simulate

from bounds.residual.moments import second_moments
from bounds.residual.population import tabular


def by_paths(pop, alpha, theta_0, start, last, iid):
    """E of (Delta Delta', S S', S) at time `last` by going through every path; S = sum of alpha_j Delta_j."""
    k, phi = pop.outcomes, pop.phi
    eta = k.discount[:, None] * phi[pop.greedy][k.observation] - phi[k.pair]
    nodes = [(p, s, pop.error(theta_0), 0.0 * pop.error(theta_0)) for s, p in enumerate(start) if p > 0]
    for time in range(last):
        after = []
        for p, s, delta, total in nodes:
            states = pop.analysis.d if iid else np.eye(len(start))[s]
            for i in np.flatnonzero(states[k.source] > 0):
                moved = delta + alpha[time] * phi[k.pair[i]] * (eta[i] @ delta + pop.td_error[i])
                share = p * states[k.source[i]] * k.weight[i]
                after.append((share, k.target[i], moved, total + alpha[time] * delta))
        nodes = after
    gram = phi.T @ (pop.d[:, None] * phi)
    assert sum(n[0] for n in nodes) == pytest.approx(1)
    square = sum(p * np.outer(x, x) for p, _, x, _ in nodes)
    mean = sum(p * x for p, _, x, _ in nodes)
    spread, drawn = sum(p * np.outer(x, x) for p, _, _, x in nodes), sum(p * x for p, _, _, x in nodes)
    weight = alpha[:last].sum()
    return [
        np.trace(square), np.sum(gram * square), mean @ gram @ mean,
        np.sum(gram * spread) / weight**2, drawn @ gram @ drawn / weight**2,
    ]  # fmt: skip


@over_populations(states=(1, 3), options=(1, 2), outcomes=(2, 2), unavailable=0.0)
def test_second_moments(pop, rng):
    """Every path of three handoffs, decreasing steps, a random law of the first state."""
    start = rng.dirichlet(np.ones(len(pop.analysis.d)))
    theta_0 = pop.theta_star + rng.normal(size=len(pop.theta_star))
    alpha = np.array([0.3, 0.2, 0.1, 0.05]) / pop.norm2.max()
    for iid in (False, True):
        moments = second_moments(pop, alpha, theta_0, np.array([0, 3]), start, iid=iid)
        found = [getattr(moments, n)[1] for n in ("norm", "error", "bias", "averaged", "averaged_bias")]
        assert found == pytest.approx(by_paths(pop, alpha, theta_0, start, 3, iid), rel=1e-9)


def test_path_is_the_average_error():
    pop = tabular(chain([0.9, 0.9], [1.0, -1.0]))
    times = np.arange(6)
    moments = second_moments(pop, 0.1, np.array([2.0]), times)
    assert moments.path[5] == pytest.approx(moments.error[:5].mean())
    assert moments.averaged[5] <= moments.path[5]
    assert np.isnan(moments.path[0])


@pytest.mark.parametrize("iid", [False, True])
def test_frozen_options_agree_with_the_maximum_when_gaps_are_wide(iid):
    """One option per observation: the maximum is no choice, and simulation must agree within four standard errors."""
    a = chain([0.8, 0.6, 0.9], [1.0, -1.0, 0.5], noise=0.3, observation=[0, 0, 1], gamma=0.6)
    pop, times = tabular(a), np.array([3, 40])
    start = np.array([0.0, 1.0, 0.0])
    exact = second_moments(pop, 0.05, np.array([1.0, -1.0]), times, start, iid=iid)
    norm, error, _ = simulate(pop, 0.05, np.array([1.0, -1.0]), times, 20_000, 1, start=start, iid=iid)
    for seen, value in ((norm, exact.norm), (error, exact.error)):
        stderr = seen.std(axis=1) / np.sqrt(seen.shape[1])
        assert (np.abs(seen.mean(axis=1) - value) <= 4 * stderr).all()
