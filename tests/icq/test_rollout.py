"""The sampler draws from the laws it claims, and every random number once."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats
from strategies import garnet

from icq.exact import analyse, outcome_discount
from icq.learn import sampling

pytestmark = pytest.mark.compiles

ANALYSIS = analyse(garnet(3, states=8, options=3, outcomes=3, observations=5))
TABLES = sampling.tables(ANALYSIS)


@pytest.mark.parametrize("seed", range(5))
def test_alias_tables_represent_the_law_exactly(seed):
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.full(7, 0.3), size=11)
    prob[0] = np.eye(7)[2]
    accept, alias = sampling.alias_tables(prob)
    rebuilt = accept.copy()
    for row in range(11):
        np.add.at(rebuilt[row], alias[row], 1 - accept[row])
    np.testing.assert_allclose(rebuilt / 7, prob, atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_alias_law_represents_the_law_exactly(seed):
    d = np.random.default_rng(seed).dirichlet(np.full(50, 0.2))
    accept, alias = sampling._alias_law(d)
    rebuilt = accept.copy()
    np.add.at(rebuilt, alias, 1 - accept)
    np.testing.assert_allclose(rebuilt / 50, d, atol=1e-14)


def _joint(path):
    m = ANALYSIS.smdp
    return np.asarray(path.state) * m.num_options + np.asarray(path.action)


@pytest.mark.parametrize("iid", [False, True])
def test_pair_frequencies_match_the_stationary_law(iid):
    path = sampling.trajectory(TABLES, jax.random.key(1), 200_000, iid)
    count = np.bincount(_joint(path), minlength=ANALYSIS.d_state_pair.size).reshape(ANALYSIS.d_state_pair.shape)
    share = count / count.sum()
    # A Markov path has fewer independent samples: its variance is inflated by at most (1 + slem) / (1 - slem) here.
    inflate = 1.0 if iid else (1 + ANALYSIS.slem) / (1 - ANALYSIS.slem)
    stderr = np.sqrt(inflate * ANALYSIS.d_state_pair / count.sum()) + 1e-9
    assert (np.abs(share - ANALYSIS.d_state_pair) < 5 * stderr).all()
    assert (count[~ANALYSIS.oracle.available] == 0).all()


def test_outcomes_given_the_pair_match_prob_reward_and_discount():
    m = ANALYSIS.smdp
    drawn = sampling.trajectory(TABLES, jax.random.key(2), 100_000, True)
    path = SimpleNamespace(**{name: np.asarray(value) for name, value in vars(drawn).items()})
    s, a = np.unravel_index(np.bincount(_joint(path)).argmax(), ANALYSIS.d_state_pair.shape)
    here = (path.state == s) & (path.action == a)
    outcome = [
        int(
            np.argmin(
                np.abs(m.reward[s, a] - r) + np.abs(outcome_discount(m)[s, a] - g) + 10 * (m.next_state[s, a] != t)
            )
        )
        for r, g, t in zip(path.reward[here], path.discount[here], path.next_state[here])
    ]
    observed = np.bincount(outcome, minlength=m.prob.shape[2])
    assert stats.chisquare(observed, m.prob[s, a] * observed.sum()).pvalue > 1e-4
    np.testing.assert_allclose(path.reward[here], m.reward[s, a][outcome], rtol=1e-6)
    np.testing.assert_allclose(path.discount[here], outcome_discount(m)[s, a][outcome], rtol=1e-6)


def test_a_markov_path_is_connected_and_the_control_is_not():
    markov = sampling.trajectory(TABLES, jax.random.key(3), 2000)
    assert (markov.next_state[:-1] == markov.state[1:]).all()
    control = sampling.trajectory(TABLES, jax.random.key(3), 2000, True)
    assert (control.next_state[:-1] != control.state[1:]).any()
    # Common random numbers: both runs read the same option and outcome uniforms.
    assert (markov.observation == np.asarray(TABLES.observation)[markov.state]).all()


def test_distinct_keys_give_distinct_trajectories_and_equal_keys_equal_ones():
    paths = [np.asarray(sampling.trajectory(TABLES, jax.random.key(k), 500).state) for k in (0, 0, 1, 2)]
    assert (paths[0] == paths[1]).all()
    assert (paths[0] != paths[2]).any() and (paths[2] != paths[3]).any() and (paths[0] != paths[3]).any()


def test_the_uniforms_of_many_handoffs_are_those_of_each_and_never_repeat():
    words, k = sampling.stream_words(jax.random.key(9)), np.arange(1000, 6120, dtype=np.int32)
    u = np.asarray(sampling.uniforms(words, jax.numpy.asarray(k)))
    assert u.shape == (sampling.UNIFORMS, len(k))
    for i in (0, 255, 256, len(k) - 1):
        np.testing.assert_array_equal(u[:, i], sampling.uniforms(words, jax.numpy.int32(k[i])))
    np.testing.assert_array_equal(u[2:4], sampling.uniforms(words, jax.numpy.asarray(k), 2, 4))
    assert len(np.unique(u)) > 0.99 * u.size
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("iid", [False, True])
def test_a_walk_draws_one_handoff_after_another(iid):
    """Blocks at once against `draw`, one at a time; only as many as asked for."""
    words, flat, s, first = sampling.stream_words(jax.random.key(4)), sampling.flatten(TABLES), jax.numpy.int32(3), 1000
    path = sampling.walk(TABLES, flat, words, iid, s, jax.numpy.int32(first), jax.numpy.int32(100))
    drawn = sampling.handoff(TABLES, flat, path)
    one = jax.jit(sampling.draw)
    for i in range(100):
        u = sampling.uniforms(words, jax.numpy.int32(first + i))
        h = one(TABLES, sampling.stationary_state(TABLES, u) if iid else s, u)
        for x, y in zip(jax.tree.leaves(drawn), jax.tree.leaves(h), strict=True):
            assert x[i] == y
        s = h.next_state
    assert (np.asarray(path)[100:] == 0).all()
    assert len(path) == sampling.BLOCK


def test_a_handoff_is_an_outcome_of_its_pair():
    m, flat = ANALYSIS.smdp, sampling.flatten(TABLES)
    h = sampling.handoff(TABLES, flat, jax.numpy.arange(m.prob.size, dtype="int32"))
    s, a, b = np.indices(m.prob.shape).reshape(3, -1)
    for name, expected in {
        "state": s, "action": a, "outcome": b, "observation": np.asarray(m.observation)[s],
        "reward": np.ravel(TABLES.reward), "discount": np.ravel(TABLES.discount),
        "next_state": np.ravel(m.next_state), "next_observation": np.asarray(m.observation)[np.ravel(m.next_state)],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(getattr(h, name), expected, err_msg=name)


def uniforms(seeds, handoffs):
    """The uniforms [seeds, handoffs, 5] of the runs of some seeds."""
    words = jax.vmap(lambda seed: sampling.stream_words(jax.random.fold_in(jax.random.key(0), seed)))(seeds)
    k = jax.numpy.arange(handoffs, dtype="int32")
    return np.asarray(jax.vmap(lambda w: jax.vmap(lambda i: sampling.uniforms(w, i))(k))(words))


def test_the_stream_is_the_generator_of_jax():
    words, k = sampling.stream_words(jax.random.key(3)), 12345
    lanes = jax.numpy.arange(8)  # an even number of counters: the library hashes an odd one differently
    counter = jax.numpy.stack([jax.numpy.full(8, k), lanes]).astype("uint32")
    bits = threefry_2x32((words[0], words[1]), counter.ravel())
    expected = np.asarray(bits)[: sampling.UNIFORMS] >> 8
    np.testing.assert_array_equal(np.asarray(sampling.uniforms(words, jax.numpy.int32(k))) * 2.0**24, expected)


def test_the_stream_is_uniform_and_its_five_numbers_are_independent():
    u = uniforms(np.arange(4), 50_000).reshape(-1, sampling.UNIFORMS)
    assert u.min() >= 0 and u.max() < 1
    for i in range(sampling.UNIFORMS):
        assert stats.kstest(u[:, i], "uniform").pvalue > 1e-4
        assert stats.chisquare(np.bincount((u[:, i] * 256).astype(int), minlength=256)).pvalue > 1e-4
        low = (u[:, i] * 2**24).astype(int) % 256  # the lowest of the 24 bits too
        assert stats.chisquare(np.bincount(low, minlength=256)).pvalue > 1e-4
        for j in range(i):
            assert _independent(u[:, i], u[:, j])


def test_streams_of_neighbouring_seeds_and_handoffs_are_independent():
    u = uniforms(np.arange(6), 40_000)
    for r in range(6):
        assert _independent(u[r, 1:, 2], u[r, :-1, 2])  # along the run
        assert _independent(u[r, 1:, 3], u[r, :-1, 4])
        for other in range(r):
            assert _independent(u[r, :, 2], u[other, :, 2])
            assert _independent(u[r, 1:, 3], u[other, :-1, 3])
    words = jax.vmap(lambda seed: sampling.stream_words(jax.random.fold_in(jax.random.key(0), seed)))(np.arange(10_000))
    assert len(np.unique(np.asarray(words), axis=0)) == 10_000


def test_the_check_sees_dependence():
    u = uniforms(np.arange(1), 40_000)[0]
    assert not _independent(u[:, 0], np.where(np.arange(len(u)) % 20 == 0, u[:, 0], u[:, 1]))  # 5% copied
    assert not _independent(u[1:, 0], (u[:-1, 0] + u[1:, 0]) % 1 * 0.5 + 0.5 * u[1:, 0])


def _independent(x, y):
    """Whether a 16 x 16 contingency table of pairs in [0,1)^2 is flat."""
    count = np.bincount((x * 16).astype(int) * 16 + (y * 16).astype(int), minlength=256)
    return stats.chisquare(count).pvalue > 1e-5
