"""Baselines are instances; the population update stops where theory says."""

import jax
import numpy as np
import optax
import pytest
from strategies import garnet

from bounds.approximation.class_error import class_fixed_point
from bounds.approximation.classes import linear_class
from icq import baselines
from icq.exact import analyse
from icq.learn import classes, networks, population
from icq.learn.learner import initial_params, seed_keys
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import ring

pytestmark = pytest.mark.compiles

M = garnet(5, states=12, options=3, outcomes=3, observations=6, agents=3, gamma=0.5, max_duration=6)
A = analyse(M)


def test_centralised_learners_aim_at_the_oracle():
    seen = analyse(baselines.centralised(M).validate())
    np.testing.assert_allclose(seen.q_bar, A.q_star, atol=1e-10)
    np.testing.assert_allclose(seen.transition.toarray(), A.transition.toarray(), atol=1e-15)


def test_independent_learners_lose_exactly_the_scalar():
    told = baselines.independent(M).validate()
    owner = M.agent[M.observation]
    stays = owner[M.next_state] == owner[:, None, None]
    np.testing.assert_array_equal(told.terminal, M.terminal | ~stays)
    alone = garnet(1, agents=1)
    np.testing.assert_array_equal(baselines.independent(alone).terminal, alone.terminal)


def test_the_scalar_matters_in_the_ten_agent_workflow():
    a = analyse(dials_instance(Shape(), Dials(gap=0.0)))
    best = a.d @ a.v_star
    told_less = analyse(baselines.independent(a.smdp))
    assert baselines.greedy_value(a, a.q_bar) == pytest.approx(best)
    assert baselines.greedy_value(a, told_less.q_bar) < 0.9 * best
    assert baselines.random_value(a) < 0.9 * best


def test_random_value_is_the_mean_over_behaviour():
    q = A.oracle.reward + (A.oracle.kernel @ A.oracle.evaluate_random(M.behaviour[M.observation]).v).reshape(12, 3)
    assert baselines.random_value(A) == pytest.approx((A.d_state_pair * q).sum())


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_expected_update_finds_the_certified_fixed_point(dimension):
    """Two independent routes to Q_F: gradient steps of the learner's own class, and the projected contraction."""
    cls = classes.random_features(M, dimension, seed=1)
    exact = class_fixed_point(linear_class(A, np.asarray(cls.features, np.float64)))
    params = jax.tree.map(lambda p: p[None], cls.init(jax.random.key(0)))
    found = population.expected_update(A, cls, params, step=1.0, iterations=20_000, tolerance=1e-7)
    assert found.converged
    assert A.norm_d(np.where(A.interface.available, found.q[0], 0.0) - exact.q) < 1e-5


def test_a_wide_network_reaches_qbar_and_an_unfinished_one_says_so():
    a = analyse(dials_instance(Shape(topology=ring(3), clusters=2), Dials(gap=0.5)))
    net = networks.network(a.smdp, networks.one_hot_inputs(a.smdp), width=8)
    params = initial_params(net, seed_keys(range(2)))
    transform = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, 1500)))
    done = population.expected_update(a, net, params, step=0.02, iterations=1500, optimiser=transform)
    assert done.converged and a.norm_d(done.q[0] - a.q_bar) < 1e-2 * a.norm_d(a.q_bar)
    early = population.expected_update(a, net, params, step=0.02, iterations=20, optimiser=transform)
    assert not early.converged and (early.residual > done.residual).all()


def test_networks_of_distinct_seeds_start_apart():
    net = networks.network(M, networks.one_hot_inputs(M), width=4)
    params = initial_params(net, seed_keys(range(3)))
    tables = jax.vmap(lambda p: classes.q_table(net, p))(params)
    assert len({np.asarray(t).tobytes() for t in tables}) == 3
    leaf = jax.tree.leaves(jax.tree.map(lambda p: p[0], params))[-1]
    assert len({np.asarray(agent).tobytes() for agent in leaf}) == net.num_slots


def test_class_sizes_are_checked():
    with pytest.raises(ValueError, match="width"):
        networks.network(M, networks.one_hot_inputs(M), width=0)
    with pytest.raises(ValueError, match="inputs"):
        networks.network(M, np.ones((2, 2), np.float32), width=3)
    with pytest.raises(ValueError, match="count"):
        classes.random_features(M, 0, seed=0)
    with pytest.raises(ValueError, match="features"):
        classes.linear(M, np.ones((2, 2, 2)))
