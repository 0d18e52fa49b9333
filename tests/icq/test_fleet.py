"""IC-Q on sampled environments, held against the tabular learner and the exact fixed points."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from strategies import garnet

from icq.build import Outcome, from_functions
from icq.exact import analyse
from icq.learn import classes, learner, sampling
from icq.learn.sampling import Handoff
from icq.sampled import fleet
from icq.sampled.environment import Environment, Finite, finite
from icq.sampled.fleet import CodeTable, FleetConfig, ViewClass, view_network

pytestmark = pytest.mark.compiles

M = garnet(3, states=8, options=2, outcomes=3, observations=5, agents=2, terminal=0.2, gamma=0.8)
A = analyse(M)
ENV = finite(M, A.d)
TABLE = CodeTable(M.num_agents, M.num_observations, M.num_options)


def own_rows(params):
    """The table over observations from the agents' tables."""
    return np.asarray(params)[np.asarray(M.agent), np.arange(M.num_observations)]


def test_protocols():
    assert isinstance(ENV, Environment)
    assert isinstance(TABLE, ViewClass)


def test_one_copy_is_the_tabular_learner():
    """The same handoffs through icq.learn.learner.update give the same table."""
    config = FleetConfig(copies=1, optimiser=optax.sgd(0.1), epsilon=(1.0, 1.0))
    f = fleet.init(ENV, TABLE, config, jax.random.key(0))
    t, cls, plain = sampling.tables(A), classes.tabular(M), learner.LearnerConfig(step=0.1)
    other = learner.init(t, cls, plain, jax.random.key(1))
    one = jax.jit(lambda f, key: fleet.update(ENV, TABLE, config, f, key))
    follow = jax.jit(lambda state, h, k: learner.update(t, cls, plain, state, h, k))
    for k in range(60):
        f, steps = one(f, jax.random.key(100 + k))
        s = jax.tree.map(lambda x: x[0], steps)
        zero = jnp.int32(0)
        h = Handoff(
            state=zero, observation=s.seen.view, action=s.option, outcome=zero, reward=s.reward, discount=s.discount,
            next_state=zero, next_observation=s.following.view,
        )  # fmt: skip
        other = follow(other, h, jnp.int32(k))
    assert own_rows(f.params) == pytest.approx(np.asarray(other.params), abs=1e-5)


def test_a_fleet_runs_into_the_interface_fixed_point():
    """Uniform exploration is the behaviour of the instance, so the limit is Qbar."""
    raw = garnet(4, states=8, options=2, outcomes=3, observations=5, agents=2, terminal=0.2, gamma=0.8)

    def outcomes(s, a):
        following = [None if end else int(n) for n, end in zip(raw.next_state[s, a], raw.terminal[s, a])]
        return [Outcome(*row) for row in zip(raw.prob[s, a], following, raw.reward[s, a], raw.duration[s, a].tolist())]

    m = from_functions(
        start=range(8), agent=lambda s: raw.agent[raw.observation[s]], observe=lambda s: raw.observation[s],
        options=lambda s: np.flatnonzero(raw.available[raw.observation[s]]).tolist(), outcomes=outcomes,
        gamma=float(raw.gamma),
    ).smdp  # fmt: skip
    a = analyse(m)
    env = finite(m, np.ones(8))
    cls = CodeTable(m.num_agents, m.num_observations, m.num_options)
    rate = optax.exponential_decay(0.5, 300, 0.5)
    config = FleetConfig(copies=256, optimiser=optax.sgd(rate), epsilon=(1.0, 1.0))
    f, _ = fleet.train(env, cls, config, fleet.init(env, cls, config, jax.random.key(0)), jax.random.key(1), 3000)
    table = np.asarray(f.params, np.float64)[np.asarray(m.agent), np.arange(m.num_observations)]
    scale = a.norm_d(a.q_bar)
    assert a.norm_d(table - a.q_bar) < 0.02 * scale
    assert a.norm_d(table + 0.1 * scale - a.q_bar) > 0.02 * scale  # the tolerance tells tables apart


def test_cut_scalars_are_independent_learners():
    config = FleetConfig(copies=32, scalars=False)
    f = fleet.init(ENV, TABLE, config, jax.random.key(0))
    _, steps = jax.jit(lambda f, key: fleet.update(ENV, TABLE, config, f, key))(f, jax.random.key(1))
    crosses = np.asarray(steps.seen.agent != steps.following.agent)
    assert crosses.any()
    assert (np.asarray(steps.discount)[crosses] == 0).all()
    assert (np.asarray(steps.discount)[~crosses & ~np.asarray(steps.done)] > 0).all()


def test_an_idle_agent_does_not_move():
    """With momentum, a zero gradient would still move it."""
    config = FleetConfig(copies=1, optimiser=optax.adam(0.1))
    f = fleet.init(ENV, TABLE, config, jax.random.key(0))
    one = jax.jit(lambda f, key: fleet.update(ENV, TABLE, config, f, key))
    moved = []
    for k in range(20):
        after, steps = one(f, jax.random.key(k))
        idle = 1 - int(steps.seen.agent[0])
        assert (np.asarray(after.params[idle]) == np.asarray(f.params[idle])).all()
        moved.append(np.abs(np.asarray(after.params) - np.asarray(f.params)).max())
        f = after
    assert max(moved) > 0


def test_a_run_in_pieces_is_the_run_and_seeds_differ():
    cls = CodeTable(M.num_agents, M.num_observations, M.num_options)
    config = FleetConfig(copies=8, anneal=10.0)
    start = fleet.init(ENV, cls, config, jax.random.key(0))
    whole, rewards = fleet.train(ENV, cls, config, start, jax.random.key(1), 20)
    half, first = fleet.train(ENV, cls, config, start, jax.random.key(1), 10)
    again, second = fleet.train(ENV, cls, config, half, jax.random.key(1), 10)
    assert (np.asarray(whole.params) == np.asarray(again.params)).all()
    assert (np.asarray(rewards) == np.concatenate([first, second])).all()
    other, _ = fleet.train(ENV, cls, config, start, jax.random.key(2), 20)
    assert (np.asarray(whole.params) != np.asarray(other.params)).any()


def test_picked_options_follow_their_stated_law():
    q, available, epsilon = jnp.array([0.0, 2.0, 1.0, 9.0]), jnp.array([True, True, True, False]), jnp.float32(0.3)
    option, probability = jax.vmap(lambda k: fleet.pick(q, available, epsilon, k))(
        jax.random.split(jax.random.key(0), 20000)
    )
    share = np.bincount(option, minlength=4) / 20000
    expected = np.array([0.1, 0.8, 0.1, 0.0])
    assert share == pytest.approx(expected, abs=5 * np.sqrt(0.25 / 20000))
    assert np.asarray(probability) == pytest.approx(expected[np.asarray(option)], abs=1e-6)


def test_played_tasks_earn_the_value_of_the_policy():
    """The mean discounted return of greedy play is the exact value of that policy where endings stop the sum."""
    q = np.where(M.available, A.q_bar, 0.0).astype(np.float32)
    params = jnp.broadcast_to(jnp.asarray(q), (M.num_agents, *q.shape))
    value = A.oracle.evaluate(A.interface_solution.policy[M.observation]).v
    n = 20000
    begin = jnp.zeros(n, jnp.int32)
    run = jax.jit(jax.vmap(lambda s, k: fleet.play(ENV, TABLE, params, s, k, 60)))
    episodes = run(begin, jax.random.split(jax.random.key(0), n))
    earned = np.asarray(episodes.value, np.float64)
    assert earned.mean() == pytest.approx(value[0], abs=5 * earned.std() / np.sqrt(n) + 1e-4)
    assert np.asarray(episodes.done).any()


def test_networks_of_agents_differ_and_learn():
    @jax.jit
    def train(key):
        cls = view_network(vectors, 8)
        config = FleetConfig(copies=32, optimiser=optax.adam(1e-2), anneal=50.0)
        weights, run = jax.random.split(key)
        return fleet.train(vectors, cls, config, fleet.init(vectors, cls, config, weights), run, 50)[0]

    vectors = OneHot(ENV)
    f = train(jax.random.key(0))
    kernel = np.asarray(f.params["Dense_0"]["kernel"])
    assert not np.allclose(kernel[0], kernel[1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(f.params))


@struct.dataclass
class OneHot:
    """The finite environment with one-hot views."""

    env: Finite

    @property
    def agents(self):
        return self.env.agents

    @property
    def options(self):
        return self.env.options

    @property
    def gamma(self):
        return self.env.gamma

    def start(self, key):
        return self.env.start(key)

    def observe(self, state):
        seen = self.env.observe(state)
        return replace(seen, view=jax.nn.one_hot(seen.view, M.num_observations, dtype=jnp.float32))

    def act(self, state, option, key):
        return self.env.act(state, option, key)
