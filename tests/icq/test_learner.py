"""IC-Q is decentralised, asynchronous, reproducible, and converges to what the theory says."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from strategies import garnet

from bounds.approximation.class_error import class_fixed_point
from bounds.approximation.classes import linear_class
from icq.exact import analyse
from icq.learn import classes, networks, sampling, td
from icq.learn import learner as L

pytestmark = pytest.mark.compiles

M = garnet(5, states=12, options=3, outcomes=3, observations=6, agents=3, gamma=0.5, max_duration=6)
ANALYSIS = analyse(M)
TABLES = sampling.tables(ANALYSIS)
CLASSES = {
    "tabular": lambda: classes.tabular(M),
    "linear": lambda: classes.random_features(M, 2, seed=1),
    "mlp": lambda: networks.network(M, networks.one_hot_inputs(M), width=5, depth=2),
    "tangent": lambda: networks.neural_tangent(M, made("mlp"), made("mlp").init(jax.random.key(0))),
}
CONFIGS = {
    "sgd": L.LearnerConfig(step=0.1),
    "adam": L.LearnerConfig(step=0.01, optimiser=optax.scale_by_adam()),
    "visits": L.LearnerConfig(step=0.01, visit_normalised=True),
}


@cache
def made(name):
    return CLASSES[name]()


def run_for(cls, config, key, handoffs):
    state = L.init(TABLES, cls, config, jax.random.key(key))
    return L.run(TABLES, cls, config, state, jnp.int32(0), jnp.array([handoffs], jnp.int32))


@pytest.mark.parametrize("name", CLASSES)
def test_classes_obey_the_protocol(name):
    cls = made(name)
    assert isinstance(cls, classes.FunctionClass)
    params = cls.init(jax.random.key(0))
    assert all(leaf.shape[0] == cls.num_slots for leaf in jax.tree.leaves(params))
    assert classes.q_table(cls, params).shape == (M.num_observations, M.num_options)
    # A block answers for one agent only.
    owner = np.asarray(M.agent)
    for slot in np.unique(cls.slot):
        assert len(set(owner[np.asarray(cls.slot) == slot])) == 1


@pytest.mark.parametrize("optimiser", CONFIGS)
@pytest.mark.parametrize("name", CLASSES)
def test_only_the_acting_agents_block_moves(name, optimiser):
    cls, config = made(name), CONFIGS[optimiser]
    state = L.init(TABLES, cls, config, jax.random.key(1))
    handoff = sampling.draw(TABLES, jnp.int32(4), jnp.full(5, 0.3))
    after = L.update(TABLES, cls, config, state, handoff, jnp.int32(0))
    acting = int(cls.slot[handoff.observation])
    for before_leaf, after_leaf in zip(
        jax.tree.leaves((state.params, state.opt_state)), jax.tree.leaves((after.params, after.opt_state)), strict=True
    ):
        changed = np.flatnonzero([(np.asarray(b) != np.asarray(a)).any() for b, a in zip(before_leaf, after_leaf)])
        assert set(changed) <= {acting}
    assert any(
        (np.asarray(b) != np.asarray(a)).any()
        for b, a in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params))
    )


def _handoff_between_agents(cls):
    for s in range(M.num_states):
        for u in np.linspace(0.05, 0.95, 7):
            handoff = sampling.draw(TABLES, jnp.int32(s), jnp.full(5, jnp.float32(u)))
            if M.agent[handoff.observation] != M.agent[handoff.next_observation] and handoff.discount > 0:
                return handoff
    raise AssertionError("no handoff between agents")


@pytest.mark.parametrize("name", CLASSES)
def test_exactly_one_scalar_crosses_the_boundary(name):
    """Any change to other agents that keeps the scalar leaves the update bitwise the same; changing it does not."""
    cls, config = made(name), CONFIGS["sgd"]
    state = L.init(TABLES, cls, config, jax.random.key(2))
    state = replace(state, params=jax.tree.map(lambda p: p + 0.1, state.params))
    handoff = _handoff_between_agents(cls)
    acting = int(cls.slot[handoff.observation])
    scalar = td.scalar(
        classes.q_table(cls, state.params)[handoff.next_observation], TABLES.available[handoff.next_observation]
    )
    expected = classes.take(L.update(TABLES, cls, config, state, handoff, jnp.int32(0)).params, acting)

    class Forced:
        """The same class, but every other agent has other parameters and is told to answer with `reply`."""

        def __init__(self, reply):
            self.reply = reply
            self.slot, self.num_slots, self.init = cls.slot, cls.num_slots, cls.init

        def values(self, block, o):
            return self.answer(cls.values(block, o), o)

        def forward(self, params, o):
            q, residual = classes.forward(cls, params, o)
            return self.answer(q, o), residual

        def backward(self, residual, c):
            return classes.backward(cls, residual, c)

        def answer(self, q, o):
            return jnp.where(jnp.asarray(cls.slot)[o] == acting, q, self.reply)

    rng = np.random.default_rng(0)
    other = jnp.arange(cls.num_slots) != acting

    def scramble(p):
        mask = other.reshape((-1,) + (1,) * (p.ndim - 1))
        return jnp.where(mask, jnp.asarray(rng.normal(size=p.shape), p.dtype), p)

    scrambled = replace(state, params=jax.tree.map(scramble, state.params))
    same = L.update(TABLES, Forced(scalar), config, scrambled, handoff, jnp.int32(0))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(classes.take(same.params, acting)), strict=True):
        np.testing.assert_array_equal(a, b)
    different = L.update(TABLES, Forced(scalar + 1.0), config, scrambled, handoff, jnp.int32(0))
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(classes.take(different.params, acting)))
    )


@pytest.mark.parametrize("name", CLASSES)
def test_the_loop_equals_plain_python(name):
    """The compiled run with blocks, lazy averages and checkpoints against a direct transcription of the algorithm."""
    cls, handoffs, power = made(name), 40, 1.0
    config = L.LearnerConfig(step=0.2, decay_power=0.5, decay_offset=10.0, averaging_power=power)
    state = L.init(TABLES, cls, config, jax.random.key(4))
    _, record = L.run(TABLES, cls, config, state, jnp.int32(0), jnp.array([7, handoffs], jnp.int32))

    params, s, total, weight = state.params, state.state, None, 0.0
    words = sampling.stream_words(state.key)
    for k in range(handoffs):
        h = sampling.draw(TABLES, s, sampling.uniforms(words, jnp.int32(k)))
        q_next = classes.q_table(cls, params)[h.next_observation]
        m = np.max(np.where(TABLES.available[h.next_observation], q_next, -np.inf))
        alpha = 0.2 / (1 + k / 10.0) ** 0.5

        def value(p, h=h):
            return classes.q_table(cls, p)[h.observation, h.action]

        delta = h.reward + h.discount * m - value(params)
        params = jax.tree.map(lambda p, g, d=delta, a=alpha: p + a * d * g, params, jax.grad(value)(params))
        s = h.next_state
        w = (k + 1) ** (power + 1) - k ** (power + 1)
        total = (
            jax.tree.map(lambda p, w=w: w * p, params)
            if total is None
            else jax.tree.map(lambda t, p, w=w: t + w * p, total, params)
        )
        weight += w
        if k + 1 == 7:
            np.testing.assert_allclose(record.q[0], classes.q_table(cls, params), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(record.q[1], classes.q_table(cls, params), rtol=2e-4, atol=2e-5)
    average = classes.q_table(cls, jax.tree.map(lambda t: t / weight, total))
    np.testing.assert_allclose(record.q_average[1], average, rtol=2e-4, atol=2e-5)


def test_checkpoints_do_not_change_the_run_and_it_can_be_resumed():
    cls, config = made("tabular"), CONFIGS["sgd"]
    _, whole = run_for(cls, config, 5, 700)
    state = L.init(TABLES, cls, config, jax.random.key(5))
    middle, _ = L.run(TABLES, cls, config, state, jnp.int32(0), jnp.array([3, 311], jnp.int32))
    _, rest = L.run(TABLES, cls, config, middle, jnp.int32(311), jnp.array([512, 700], jnp.int32))
    np.testing.assert_array_equal(whole.q[-1], rest.q[-1])
    np.testing.assert_allclose(whole.q_average[-1], rest.q_average[-1], rtol=1e-5)


@pytest.mark.parametrize(("name", "iid"), [("tabular", False), ("tabular", True), ("mlp", False)])
def test_blocks_leave_no_trace(name, iid):
    """Checkpoints at and beside the borders of blocks, and resuming in the middle of one, against one handoff each."""
    block = sampling.BLOCK
    marks = [1, block - 1, block, block + 1, block + 45, 2 * block + 3]
    cls, config = made(name), L.LearnerConfig(step=0.3, averaging_power=1.0, decay_power=0.6, iid=iid)
    state = L.init(TABLES, cls, config, jax.random.key(5))

    @jax.jit
    def run(state, start, marks):
        return L.run(TABLES, cls, config, state, start, marks)

    end, whole = run(state, jnp.int32(0), jnp.array(marks, jnp.int32))
    middle, _ = run(state, jnp.int32(0), jnp.array([17, 300], jnp.int32))
    assert int(middle.visits.sum()) == 300
    last, rest = run(middle, jnp.int32(300), jnp.array(marks[-2:], jnp.int32))
    np.testing.assert_array_equal(whole.q[-1], rest.q[-1])
    np.testing.assert_array_equal(whole.q_average[-1], rest.q_average[-1])
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(last), strict=True):
        assert (a == b).all()

    @jax.jit
    def one(state, words, k):
        u = sampling.uniforms(words, k)
        handoff = sampling.draw(TABLES, sampling.stationary_state(TABLES, u) if iid else state.state, u)
        return L.update(TABLES, cls, config, state, handoff, k)

    words = sampling.stream_words(state.key)
    for k in range(marks[-1]):
        state = one(state, words, jnp.int32(k))
        if k + 1 in marks:
            i = marks.index(k + 1)
            np.testing.assert_allclose(whole.q[i], classes.q_table(cls, state.params), rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(whole.visits[i], state.visits)
    np.testing.assert_array_equal(end.touched, state.touched)
    np.testing.assert_array_equal(end.state, state.state)
    for a, b in zip(jax.tree.leaves(end.average), jax.tree.leaves(state.average), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_block_reads_nothing_beyond_its_last_handoff():
    """What has diverged leaves no trace in averages of blocks that did not move."""
    cls = made("tabular")
    state = L.init(TABLES, cls, CONFIGS["sgd"], jax.random.key(5))
    state = replace(state, params=jnp.full_like(state.params, jnp.inf))
    after, _ = L.run(TABLES, cls, CONFIGS["sgd"], state, jnp.int32(0), jnp.array([1], jnp.int32))
    moved = np.flatnonzero(np.asarray(after.visits).sum(1))
    assert len(moved) == 1
    idle = np.delete(np.arange(M.num_observations), moved)
    np.testing.assert_array_equal(np.asarray(after.average)[idle], np.asarray(state.average)[idle])


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_weights_of_the_average_keep_their_digits_in_long_runs(power):
    k = np.array([1, 2, 1000, 2**24 + 1, 10**8, 2**31 - 1])
    for idle in (1, 2, 7):
        touched = np.maximum(k - idle, 0)
        exact = -np.expm1((power + 1) * np.log1p(-(k - touched) / k, where=touched > 0, out=np.full(len(k), -np.inf)))
        found = L._share(jnp.asarray(touched, jnp.int32), jnp.asarray(k, jnp.int32), power)
        np.testing.assert_allclose(found, exact, rtol=2e-6)


def test_seeds_differ_and_runs_repeat():
    cls = made("mlp")
    first = L.learn(TABLES, cls, CONFIGS["sgd"], [0, 1, 2], [1, 300])
    again = L.learn(TABLES, cls, CONFIGS["sgd"], [0, 1, 2], [1, 300])
    np.testing.assert_array_equal(first.q, again.q)
    for k in range(2):  # networks differ from the first handoff, trajectories by the last
        tables = {np.asarray(first.q[r, k]).tobytes() for r in range(3)}
        assert len(tables) == 3
    assert len({np.asarray(first.visits[r, 1]).tobytes() for r in range(3)}) == 3
    with pytest.raises(ValueError, match="seeds"):
        L.learn(TABLES, cls, CONFIGS["sgd"], [1, 1], [10])
    with pytest.raises(ValueError, match="checkpoints"):
        L.learn(TABLES, cls, CONFIGS["sgd"], [1], [10, 5])


def test_the_learner_follows_the_published_trajectory():
    """A run's visit counts are those of `rollout.trajectory` with the run's own key."""
    cls, config, handoffs = made("tabular"), CONFIGS["sgd"], 600
    _, record = run_for(cls, config, 6, handoffs)
    _, chain = jax.random.split(jax.random.key(6))
    path = sampling.trajectory(TABLES, chain, handoffs)
    count = np.zeros(ANALYSIS.d_pair.shape)
    np.add.at(count, (np.asarray(path.observation), np.asarray(path.action)), 1)
    np.testing.assert_array_equal(record.visits[0], count)


@pytest.mark.parametrize("iid", [False, True])
@pytest.mark.parametrize("name", ["tabular", "linear"])
def test_averaged_iterates_approach_the_population_fixed_point(name, iid):
    cls = made(name)
    config = L.LearnerConfig(step=0.5, decay_power=0.6, decay_offset=200.0, averaging_power=2.0, iid=iid)
    record = L.learn(TABLES, cls, config, range(16), [2_000, 50_000])
    q_f = (
        ANALYSIS.q_bar
        if name == "tabular"
        else class_fixed_point(linear_class(ANALYSIS, np.asarray(cls.features, float))).q
    )
    error = np.sqrt((ANALYSIS.d_pair * (np.asarray(record.q_average, float) - q_f) ** 2).sum((-2, -1)))
    rms = np.sqrt((error**2).mean(0))
    assert rms[1] < 0.4 * rms[0]  # sqrt(1/25) = 0.2 in the limit
    assert rms[1] < 0.1 * ANALYSIS.norm_d(ANALYSIS.q_bar)


def test_projection_keeps_each_block_in_its_ball():
    cls = made("linear")
    state, _ = run_for(cls, L.LearnerConfig(step=0.5, radius=0.05), 7, 500)
    norms = np.linalg.norm(np.asarray(state.params), axis=1)
    assert norms.max() <= 0.05 * (1 + 1e-5) and norms.max() > 0.049
    free, _ = run_for(cls, L.LearnerConfig(step=0.5), 7, 500)
    vast, _ = run_for(cls, L.LearnerConfig(step=0.5, radius=np.inf), 7, 500)
    assert np.linalg.norm(np.asarray(free.params), axis=1).max() > 0.1
    np.testing.assert_allclose(free.params, vast.params, rtol=1e-5)


def test_a_large_prior_fixes_the_visit_frequency():
    """Visit-normalised steps with prior counts ~ d(x) are alpha/d(x) exactly: the local clock of the theory."""
    cls, config = made("tabular"), L.LearnerConfig(step=1e-3, visit_normalised=True)
    prior = jnp.asarray(1e9 * ANALYSIS.d_pair, jnp.float32)
    state = L.begin(TABLES, cls, config, cls.init(jax.random.key(8)), jax.random.key(9), prior)
    handoff = sampling.draw(TABLES, state.state, jnp.full(5, 0.4))
    after = L.update(TABLES, cls, config, state, handoff, jnp.int32(0))
    x = (int(handoff.observation), int(handoff.action))
    assert float(after.params[x]) == pytest.approx(1e-3 / ANALYSIS.d_pair[x] * float(handoff.reward), rel=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_gradients_by_hand_are_the_automatic_ones(depth):
    cls = networks.network(M, networks.random_inputs(M, 7, 0), width=6, depth=depth)
    params = cls.init(jax.random.key(3))
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases away from 0
    for o in range(M.num_observations):
        q, residual = classes.forward(cls, params, jnp.int32(o))
        block = classes.take(params, cls.slot[o])
        expected, pull_back = jax.vjp(lambda b, o=o: cls.values(b, jnp.int32(o)), block)
        np.testing.assert_allclose(q, expected, rtol=2e-6)
        c = jnp.asarray([0.3, -1.0, 2.0])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
            classes.backward(cls, residual, c), pull_back(c)[0],
        )  # fmt: skip


class Plain(linen.Module):
    """A network of the user's own."""

    @linen.compact
    def __call__(self, x):
        hidden = jnp.tanh(linen.Dense(4)(x))
        return linen.Dense(3)(hidden)


def test_networks_of_the_users_own_learn_the_same_way():
    """The same architecture through the automatic gradient: equal but for rounding."""
    own = networks.network(M, networks.one_hot_inputs(M), width=4)
    other = networks.Network(own.slot, own.inputs, module=Plain(), agents=own.agents)
    keys, marks = L.seed_keys(range(2)), jnp.array([200], jnp.int32)
    params = L.initial_params(own, keys)
    records = [L._learn(TABLES, cls, CONFIGS["sgd"], params, keys, marks) for cls in (own, other)]
    np.testing.assert_allclose(records[0].q, records[1].q, rtol=1e-4, atol=1e-5)


def test_a_batch_of_seeds_equals_the_runs_alone():
    cls, config = made("tabular"), CONFIGS["sgd"]
    batch = L.learn(TABLES, cls, config, [4, 9], [50, 400])
    for i, key in enumerate(L.seed_keys([4, 9])):
        state = L.init(TABLES, cls, config, key)
        _, alone = L.run(TABLES, cls, config, state, jnp.int32(0), jnp.array([50, 400], jnp.int32))
        np.testing.assert_array_equal(batch.visits[i], alone.visits)
        np.testing.assert_allclose(batch.q[i], alone.q, rtol=1e-6)


def test_a_batch_of_settings_shares_one_program():
    steps = jnp.array([0.05, 0.2], jnp.float32)
    cls, key, marks = made("tabular"), jax.random.key(1), jnp.array([300], jnp.int32)

    def run(step):
        config = L.LearnerConfig(step=step)
        return L.run(TABLES, cls, config, L.init(TABLES, cls, config, key), jnp.int32(0), marks)[1]

    batch = jax.vmap(run)(steps)
    assert (batch.visits[0] == batch.visits[1]).all()  # the behaviour policy does not learn
    for i, step in enumerate(steps):
        np.testing.assert_allclose(batch.q[i], run(step).q, rtol=1e-6)
