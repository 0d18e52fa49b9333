"""Logs of sampled trajectories, many at a time: an independent sampler in NumPy."""

import jax.numpy as jnp
import numpy as np

from estimators.logs.log import from_handoffs
from icq.exact import outcome_discount
from icq.learn.sampling import Handoff


def logs(a, n, count, seed=0):
    """`count` logs of n handoffs of an analysed instance, each started from its stationary law."""
    m = a.smdp
    rng = np.random.default_rng(seed)
    states, options, outcomes = m.prob.shape
    law = (np.asarray(m.behaviour)[m.observation][..., None] * m.prob).reshape(states, -1)
    rise = np.cumsum(law, axis=1)
    rise = (rise / rise[:, -1:] + np.arange(states)[:, None]).reshape(-1)
    following = np.asarray(m.next_state).reshape(-1)
    last = (np.arange(states) + 1) * options * outcomes - 1
    now = rng.choice(states, size=count, p=a.d / a.d.sum())
    path = np.empty((2, n, count), np.int64)
    for k in range(n):
        drawn = np.minimum(np.searchsorted(rise, now + rng.random(count), side="right"), last[now])
        path[:, k] = now, drawn
        now = following[drawn]
    return [_log(m, *path[:, :, r]) for r in range(count)]


def _log(m, state, cell):
    options, outcomes = m.prob.shape[1:]
    action, outcome = cell // outcomes % options, cell % outcomes
    onward = np.asarray(m.next_state).reshape(-1)[cell]
    obs = np.asarray(m.observation)
    whole = [jnp.asarray(x, jnp.int32) for x in (state, obs[state], action, outcome, onward, obs[onward])]
    real = [jnp.asarray(x.reshape(-1)[cell], jnp.float32) for x in (np.asarray(m.reward), outcome_discount(m))]
    handoff = Handoff(
        state=whole[0], observation=whole[1], action=whole[2], outcome=whole[3], reward=real[0], discount=real[1],
        next_state=whole[4], next_observation=whole[5],
    )  # fmt: skip
    return from_handoffs(m, handoff)
