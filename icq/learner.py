"""IC-Q: asynchronous, decentralised Q-learning over handoffs, one scalar per handoff.

At handoff k agent i acts on o_k, the option earns R_k at discount g_k, and the next agent j returns one number,
m_k = max_a Q_j(o_{k+1}, a).  Agent i then moves its own block:

    theta_i <- theta_i + alpha_k c(x_k) U(delta_k grad Q_i(x_k)),   delta_k = R_k + g_k m_k - Q_i(x_k)

with alpha_k = step / (1 + k/decay_offset)^decay_power, U an Optax transformation with state per block (identity is
plain SGD), and c = 1, or one over the visit frequency of x_k.  Notation: docs/theory.md sections 1 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from icq import rollout, td
from icq.networks import FunctionClass, Params, put, q_table, take
from icq.rollout import Handoff, Tables
from icq.smdp import Arr

PLAIN = optax.identity()


@struct.dataclass
class LearnerConfig:
    """How to learn.  Numbers are traced: sweeping them compiles nothing anew.

    step, decay_power, decay_offset: alpha_k = step / (1 + k/decay_offset)^decay_power, k in handoffs of the run.
    averaging_power p: iterate k weighs about (p+1) k^p in the average (0: Polyak's plain mean).
    radius: every block is projected on the ball of this radius (per block, so still decentralised).
    iid: draw each handoff's state from the stationary law (the control of docs/theory.md section 2).
    visit_normalised: divide the step by the visit frequency of (o, a), capped at a full step of 1.
    optimiser: an Optax transformation of the semi-gradient, e.g. `optax.scale_by_adam()`.
    """

    step: float | Float[Array, "*batch"] = 0.1
    decay_power: float | Float[Array, "*batch"] = 0.0
    decay_offset: float | Float[Array, "*batch"] = 1.0
    averaging_power: float | Float[Array, "*batch"] = 0.0
    radius: float | Float[Array, "*batch"] = np.inf
    iid: bool | Bool[Array, "*batch"] = False
    visit_normalised: bool = struct.field(pytree_node=False, default=False)
    optimiser: optax.GradientTransformation = struct.field(pytree_node=False, default=PLAIN)

    def alpha(self, k: Int[Array, ""]) -> Float[Array, ""]:
        """Step size of handoff k."""
        return self.step * (1.0 + k.astype(jnp.float32) / self.decay_offset) ** -self.decay_power


@struct.dataclass
class LearnerState:
    """Everything a run carries.  `average` lags behind: a block is brought up to date when touched (see `_catch_up`).

    params, average: the class's pytree [slots, ...]; opt_state: Optax state per block; touched [slots]: handoffs done
    when the block last changed; visits [O, A]; state: global state of the chain; key: of the run's stream.
    """

    params: Params
    average: Params
    opt_state: Any
    touched: Int[Array, "*batch slots"]
    visits: Float[Array, "*batch O A"]
    state: Int[Array, "*batch"]
    key: Key[Array, "*batch"]


@struct.dataclass
class Record:
    """Q tables at the checkpoints of a run (batch axes [seeds, checkpoints]): last iterate, average, visit counts."""

    q: Float[Arr, "*batch O A"]
    q_average: Float[Arr, "*batch O A"]
    visits: Float[Arr, "*batch O A"]


def init(t: Tables, cls: FunctionClass, config: LearnerConfig, key: Key[Array, ""]) -> LearnerState:
    """A fresh run: parameters from the class, chain in its stationary law."""
    return begin(t, cls, config, cls.init(_split(key)[0]), key)


def begin(
    t: Tables,
    cls: FunctionClass,
    config: LearnerConfig,
    params: Params,
    key: Key[Array, ""],
    prior_visits: Float[Array, "O A"] | None = None,
) -> LearnerState:
    """A run from given parameters (a table at Qbar, say).

    prior_visits seeds the visit counts; proportional to d(x) and large it fixes the frequency at its exact value.
    """
    _, start, run_key = _split(key)
    return LearnerState(
        params=params, average=params, opt_state=jax.vmap(config.optimiser.init)(params),
        touched=jnp.zeros(cls.num_slots, jnp.int32),
        visits=jnp.zeros(t.available.shape, jnp.float32) if prior_visits is None else prior_visits,
        state=rollout.initial_state(t, start), key=run_key,
    )  # fmt: skip


def _catch_up(average: Params, current: Params, touched: Int[Array, "*slots"], k: Int[Array, ""], power: Any) -> Params:
    """The weighted mean of iterates 1..k of a block that held `current` since handoff `touched`.

    Iterate j weighs j^(p+1) - (j-1)^(p+1); the sum telescopes, so idle handoffs cost nothing.
    """
    share = 1.0 - (touched.astype(jnp.float32) / jnp.maximum(k, 1).astype(jnp.float32)) ** (power + 1.0)

    def move(a: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
        weight = share.reshape(share.shape + (1,) * (a.ndim - share.ndim)).astype(a.dtype)
        return a + weight * (c - a)

    return jax.tree.map(move, average, current)


def update(
    t: Tables, cls: FunctionClass, config: LearnerConfig, learner: LearnerState, handoff: Handoff, k: Int[Array, ""]
) -> LearnerState:
    """Learn from handoff k (0-based).  Reads the acting agent's block and one scalar from the next agent's."""
    o, a = handoff.observation, handoff.action
    slot_next = jnp.asarray(cls.slot)[handoff.next_observation]
    m = td.scalar(
        cls.values(take(learner.params, slot_next), handoff.next_observation), t.available[handoff.next_observation]
    )

    slot = jnp.asarray(cls.slot)[o]
    block = take(learner.params, slot)
    q, pull_back = jax.vjp(lambda b: cls.values(b, o), block)
    delta = td.td_error(q, a, handoff.reward, handoff.discount, m)
    (semi_gradient,) = pull_back(delta * jax.nn.one_hot(a, q.shape[0], dtype=q.dtype))
    with jax.numpy_dtype_promotion("standard"):  # Optax's counters rely on implicit promotion
        direction, opt_block = config.optimiser.update(semi_gradient, take(learner.opt_state, slot), block)

    visits = learner.visits.at[o, a].add(1.0)
    alpha = config.alpha(k)
    if config.visit_normalised:
        alpha = jnp.minimum(alpha * jnp.sum(visits) / visits[o, a], 1.0)
    moved = jax.tree.map(lambda b, d: b + (alpha * d).astype(b.dtype), block, direction)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(moved)))
    moved = jax.tree.map(
        lambda b: b * jnp.minimum(1.0, config.radius / jnp.maximum(norm, 1e-30)).astype(b.dtype), moved
    )

    average = _catch_up(take(learner.average, slot), block, learner.touched[slot], k, config.averaging_power)
    return replace(
        learner,
        params=put(learner.params, slot, moved), average=put(learner.average, slot, average),
        opt_state=put(learner.opt_state, slot, opt_block), touched=learner.touched.at[slot].set(k), visits=visits,
    )  # fmt: skip


def step(
    t: Tables, cls: FunctionClass, config: LearnerConfig, learner: LearnerState, u: Float[Array, "5"], k: Int[Array, ""]
) -> LearnerState:
    """Draw handoff k from its five uniforms and learn from it."""
    s = jnp.where(config.iid, rollout.stationary_state(t, u), learner.state)
    handoff = rollout.draw(t, s, u)
    return replace(update(t, cls, config, learner, handoff, k), state=handoff.next_state)


def run(
    t: Tables,
    cls: FunctionClass,
    config: LearnerConfig,
    learner: LearnerState,
    start: Int[Array, ""],
    checkpoints: Int[Array, "K"],
) -> tuple[LearnerState, Record]:
    """From handoff `start` to the last checkpoint, recording Q at each.  One compiled loop; vmap over the rest.

    `start` and `checkpoints` (increasing) stay unbatched, so that all runs of a batch move in step.  The stream is
    addressed by k: the result at a checkpoint does not depend on the other checkpoints.
    """

    def block(carry: tuple[Int[Array, ""], LearnerState], stop: Int[Array, ""]) -> tuple[Int[Array, ""], LearnerState]:
        k, state = carry
        first = (k // rollout.BLOCK) * rollout.BLOCK
        u = rollout.stream(state.key, k // rollout.BLOCK)
        end = jnp.minimum(first + rollout.BLOCK, stop)
        body = lambda j, st: step(t, cls, config, st, u[j - first], j)  # noqa: E731
        return end, jax.lax.fori_loop(k, end, body, state)

    def segment(carry: tuple[Int[Array, ""], LearnerState], stop: Int[Array, ""]) -> Any:
        carry = jax.lax.while_loop(lambda c: c[0] < stop, partial(block, stop=stop), carry)
        k, state = carry
        average = _catch_up(state.average, state.params, state.touched, k, config.averaging_power)
        return carry, Record(q_table(cls, state.params), q_table(cls, average), state.visits)

    (_, learner), record = jax.lax.scan(segment, (start, learner), checkpoints)
    return learner, record


@jax.jit
def initial_params(cls: FunctionClass, keys: Key[Array, "R"]) -> Params:
    """The initial parameters of the runs with these keys, leaves [R, slots, ...]."""
    return jax.vmap(lambda key: cls.init(_split(key)[0]))(keys)


def _split(key: Key[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""], Key[Array, ""]]:
    """Keys of a run's parameters, of its first state and of its stream."""
    weights, chain = jax.random.split(key)
    start, run = jax.random.split(chain)
    return weights, start, run


@jax.jit
def _learn(
    t: Tables,
    cls: FunctionClass,
    config: LearnerConfig,
    params: Params,
    keys: Key[Array, "R"],
    checkpoints: Int[Array, "K"],
) -> Record:
    def one(params: Params, key: Key[Array, ""]) -> Record:
        return run(t, cls, config, begin(t, cls, config, params, key), jnp.int32(0), checkpoints)[1]

    return jax.vmap(one)(params, keys)


def learn(
    t: Tables,
    cls: FunctionClass,
    config: LearnerConfig,
    seeds: Sequence[int],
    checkpoints: Sequence[int],
    root: int = 0,
) -> Record:
    """One run per seed, all in one compiled program; leaves of the record are [seeds, K, ...].

    Seed r uses the key fold_in(key(root), r).  Raises ValueError for repeated seeds or checkpoints out of order.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError("seeds: repeated, runs would be copies of each other")
    grid = np.asarray(checkpoints)
    if len(grid) == 0 or grid[0] < 1 or (np.diff(grid) <= 0).any():
        raise ValueError(f"checkpoints: {list(checkpoints)} must be positive and increasing")
    keys = seed_keys(seeds, root)
    return _learn(t, cls, config, initial_params(cls, keys), keys, jnp.asarray(grid, jnp.int32))


def seed_keys(seeds: Sequence[int], root: int = 0) -> Key[Array, "R"]:
    """The key of each seed's run; `init` splits it into one for the parameters and one for the chain."""
    return jax.vmap(partial(jax.random.fold_in, jax.random.key(root)))(jnp.asarray(seeds, jnp.uint32))
