"""docs/theory.md section 5e, Lemma 5.35: maxima in their sector and preconditioners known up to a share."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg as la
from hypothesis import assume
from td import chain, over_populations

from bounds.core.sector import riccati
from bounds.path.population_path import mean_step
from bounds.residual.population import tabular
from bounds.residual.weights import Weight, sector_weight


def excess(pop, weight, eta, theta, other, rate):
    """<W e, M^{-1/2}(I + E)M^{-1/2} y> + rate ||e||_d^2 for the worst E with ||E|| <= eta, real maximum."""
    e = theta - other
    y = pop.metric @ (mean_step(pop, theta)[0] - mean_step(pop, other)[0])
    inverse = np.linalg.inv(pop.metric)
    root = la.sqrtm(inverse).real
    left = root @ weight.matrix @ e
    worst = weight.matrix @ e @ inverse @ y + eta * np.linalg.norm(left) * np.linalg.norm(root @ y)
    return worst + rate * float((pop.psi @ e) ** 2 @ pop.d)


@over_populations(states=(1, 5))
def test_the_drift_of_a_sector_weight(pop, rng):
    """For any two parameters and the worst preconditioner within the share."""
    eta = float(rng.choice([0.0, 0.03, 0.1]))
    weight = sector_weight(pop, eta)
    assume(weight is not None)
    for _ in range(20):
        theta, step = rng.choice([0.1, 1.0, 10.0]) * rng.normal(size=(2, len(pop.theta_star)))
        size = (1 + np.abs(step).max()) ** 2 * np.linalg.norm(weight.matrix, 2)
        assert excess(pop, weight, eta, theta, theta + step, weight.rate) <= 1e-9 * size


def test_a_rate_a_little_larger_is_caught():
    """With one option the drift is linear and the rate exact."""
    pop = tabular(chain([0.9, 0.6, 0.3], [1.0, -1.0, 0.5], gamma=0.6, observation=[0, 1, 2]))
    weight = sector_weight(pop)
    rate = weight.rate
    inverse, kernel = np.linalg.inv(pop.metric), pop.analysis.interface.kernel.toarray()
    y = weight.matrix @ inverse @ (pop.psi.T * pop.d) @ (np.eye(3) - kernel)
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    vector = la.eigh((y + y.T) / 2, gram)[1][:, 0]
    found = excess(pop, weight, 0.0, pop.theta_star, pop.theta_star + vector, 1.001 * rate)
    assert found > 0
    assert excess(pop, weight, 0.0, pop.theta_star, pop.theta_star + vector, rate) <= 1e-9
    assert excess(pop, weight, 0.01, pop.theta_star, pop.theta_star + vector, rate) > 0, (
        "one per cent of share forgotten"
    )


@over_populations("tabular", "plain table", states=(2, 4), options=(2, 2))
def test_the_rate_falls_with_the_share(pop, rng):
    """The more a weight must cover, the less it certifies."""
    weight, eta = sector_weight(pop), 0.2
    assume(weight is not None)
    multipliers = pop.least_mass
    rates = [pop.sector.rate(weight.matrix, multipliers, eta=e, epsilon=0.1) for e in (0.0, eta / 2, eta)]
    assert rates[0] > rates[1] > rates[2]


def test_the_solver_finds_what_scipy_finds():
    """X A + A'X = X S X + Q by its definition and by another solver; none where there is none."""
    rng = np.random.default_rng(0)
    a, b = 3 * np.eye(4) + 0.3 * rng.normal(size=(4, 4)), rng.normal(size=(4, 2))
    q = np.eye(4)
    found = riccati(a, 0.1 * b @ b.T, q)
    assert found == pytest.approx(la.solve_continuous_are(-a, np.sqrt(0.1) * b, q, -np.eye(2)), rel=1e-8)
    assert riccati(a, 100 * b @ b.T, q) is None
    assert riccati(-a, 0.1 * b @ b.T, q) is None


def test_half_a_weight_has_half_the_rate():
    """With multipliers to match."""
    pop = tabular(chain([0.9, 0.6], [1.0, -1.0], gamma=0.6, observation=[0, 1]))
    weight = sector_weight(pop)
    half = replace(weight, matrix=weight.matrix / 2)
    assert isinstance(half, Weight)
    assert pop.sector.rate(half.matrix, pop.least_mass) == pytest.approx(
        pop.sector.rate(weight.matrix, 2 * pop.least_mass) / 2, rel=1e-6
    )
