"""Routing: what the workflow says about itself, and IC-Q on it."""

import jax
import numpy as np
import pytest

from icq.exact import analyse
from icq.exact.fixed_point import greedy
from icq.learn import classes, learner, sampling
from icq.sampled import fleet
from icq.sampled.environment import finite
from icq.tasks import start_law, task_total
from synthetic.routing import Request, Routing, answered, routing

pytestmark = pytest.mark.compiles

GAME = Routing(specialists=3, intents=2)


def solved(game):
    w = routing(game)
    return w, analyse(w.smdp), start_law(w.smdp)


def test_full_view_has_no_gap_and_answers_everything():
    w, a, starts = solved(GAME)
    assert np.abs(a.gap).max() == pytest.approx(0.0, abs=1e-9)
    policy = a.interface_solution.policy[w.smdp.observation]
    assert starts @ task_total(w.smdp, policy, answered(w, GAME)) == pytest.approx(1.0)


def test_a_narrow_view_costs_value_and_accuracy():
    gaps, right = [], []
    for bits in range(GAME.bits + 1):
        game = GAME.with_view(bits)
        w, a, starts = solved(game)
        policy = a.interface_solution.policy[w.smdp.observation]
        gaps.append(float(starts @ a.policy_loss))
        right.append(float(starts @ task_total(w.smdp, policy, answered(w, game))))
    assert gaps[0] > gaps[-1] + 0.05
    assert right[0] < right[-1] - 0.05
    assert (np.diff(gaps) < 1e-9).all()  # on this workflow every further bit helps


def test_views_show_a_prefix_of_the_code_and_nothing_else():
    game = GAME.with_view(1)
    w = routing(game)
    codes = game.codes
    assert len(set(codes.tolist())) == len(codes)
    for s, o in zip(w.states, w.smdp.observation):
        assert isinstance(s, Request)
        known, prefix, returned = w.observations[o]
        assert known == max(1, s.shown)
        assert prefix == codes[s.intent] >> (game.bits - known)
        assert returned == s.returned


def test_simulated_requests_earn_what_was_computed():
    game = GAME.with_view(1)
    w, a, starts = solved(game)
    m = w.smdp
    env = finite(m, starts)
    cls = fleet.CodeTable(m.num_agents, m.num_observations, m.num_options)
    table = np.broadcast_to(a.q_bar.astype(np.float32), (m.num_agents, *a.q_bar.shape))
    n = 4000
    keys = jax.random.split(jax.random.key(0), 2 * n)

    @jax.jit
    def tasks(table, first, second):
        begin = jax.vmap(env.start)(first)
        return jax.vmap(lambda s, k: fleet.play(env, cls, table, s, k, 40))(begin, second)

    episodes = tasks(jax.numpy.asarray(table), keys[:n], keys[n:])
    assert np.asarray(episodes.done).all()
    earned = np.asarray(episodes.value, np.float64)
    assert earned.mean() == pytest.approx(starts @ a.interface_value.v, abs=5 * earned.std() / np.sqrt(n))


def test_icq_learns_to_route_at_full_view():
    w, a, starts = solved(GAME)
    config = learner.LearnerConfig(step=1.0, decay_power=0.6, decay_offset=100.0, visit_normalised=True)
    record = learner.learn(sampling.tables(a), classes.tabular(w.smdp), config, [0], [400_000])
    policy = greedy(np.asarray(record.q[0, -1], np.float64), a.interface.available)[0][w.smdp.observation]
    assert starts @ task_total(w.smdp, policy, answered(w, GAME)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"specialists": 0}, "specialists = 0"),
        ({"gateway_view": 9}, "gateway_view = 9"),
        ({"leave": 1.0}, "leave = 1.0"),
    ],
)
def test_bad_sizes_are_named(bad, says):
    with pytest.raises(ValueError, match=says):
        Routing(**bad)
