"""IC-Q: asynchronous, decentralised Q-learning over handoffs, one scalar per handoff.

At handoff k agent i acts on o_k, the option earns R_k at discount g_k, and the next agent j returns one number,
m_k = max_a Q_j(o_{k+1}, a).  Agent i then moves its own block:

    theta_i <- theta_i + alpha_k c(x_k) U(delta_k grad Q_i(x_k)),   delta_k = R_k + g_k m_k - Q_i(x_k)

with alpha_k = step / (1 + k/decay_offset)^decay_power, U an Optax transformation with state per block (identity is
plain SGD), and c = 1, or one over the visit frequency of x_k.  Notation: docs/theory.md sections 1 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from icq import rollout, td
from icq.display import Fact, Shown, spread
from icq.networks import FunctionClass, Params, at, backward, forward, put, put_at, q_table, row, take, total
from icq.rollout import Handoff, Tables
from icq.smdp import Arr

T = TypeVar("T")
PLAIN = optax.identity()
LOOP = "icq_handoffs"  # the name of the loop in compiled programs


@struct.dataclass
class LearnerConfig(Shown):
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
        return self.step * _power(1.0 + k.astype(jnp.float32) / self.decay_offset, -jnp.asarray(self.decay_power))


@struct.dataclass
class LearnerState(Shown):
    """Everything a run carries.  `average` lags behind: a block is brought up to date when touched (see `_catch_up`).

    params, average: the class's pytree [slots, ...]; opt_state: Optax state per block; touched [slots]: handoffs done
    when the block last changed; visits [O, A], of which prior_total before the run; state: global state of the chain;
    key: of the run's stream.
    """

    params: Params
    average: Params
    opt_state: Any
    touched: Int[Array, "*batch slots"]
    visits: Float[Array, "*batch O A"]
    prior_total: Float[Array, "*batch"]
    state: Int[Array, "*batch"]
    key: Key[Array, "*batch"]

    def _facts_(self) -> list[Fact]:
        return [
            Fact("batch", np.shape(self.state) or None), Fact("parameters", self.params),
            Fact("handoffs", spread(np.asarray(self.visits).sum((-2, -1)) - np.asarray(self.prior_total))),
        ]  # fmt: skip


@struct.dataclass
class Record(Shown):
    """Q tables at the checkpoints of a run (batch axes [seeds, checkpoints]): last iterate, average, visit counts."""

    q: Float[Arr, "*batch O A"]
    q_average: Float[Arr, "*batch O A"]
    visits: Float[Arr, "*batch O A"]

    def _facts_(self) -> list[Fact]:
        *batch, observations, options = np.shape(self.q)
        last = np.asarray(self.q_average)[..., -1:, :, :] if batch else np.asarray(self.q_average)
        finite = np.isfinite(last).all((-2, -1))
        return [
            Fact("runs x checkpoints", " x ".join(map(str, batch)) or None), Fact("observations", observations),
            Fact("options", options), Fact("handoffs", spread(np.asarray(self.visits).sum((-2, -1)))),
            Fact("diverged", None if finite.all() else int((~finite).sum()), "runs"),
            Fact("average in the end", spread(last[finite]), "reward"),
        ]  # fmt: skip


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
    visits = jnp.zeros(t.available.shape, jnp.float32) if prior_visits is None else prior_visits
    return LearnerState(
        params=params, average=params, opt_state=jax.vmap(config.optimiser.init)(params),
        touched=jnp.zeros(cls.num_slots, jnp.int32), visits=visits, prior_total=jnp.sum(visits),
        state=rollout.initial_state(t, start), key=run_key,
    )  # fmt: skip


def _power(x: Float[Array, "*any"], power: Float[Array, ""]) -> Float[Array, "*any"]:
    """x^power, at no cost for the usual powers 0 and 1."""
    choice = jnp.where(power == 0, 0, jnp.where(power == 1, 1, 2))
    return jax.lax.switch(choice, [jnp.ones_like, lambda x: x, lambda x: x**power], x)


def _catch_up(average: Params, current: Params, touched: Int[Array, "*slots"], k: Int[Array, ""], power: Any) -> Params:
    """The weighted mean of iterates 1..k of a block that held `current` since handoff `touched`.

    Iterate j weighs j^(p+1) - (j-1)^(p+1); the sum telescopes, so idle handoffs cost nothing.
    """
    past = touched.astype(jnp.float32) / jnp.maximum(k, 1).astype(jnp.float32)
    share = 1.0 - _power(past, jnp.asarray(power + 1.0))

    def move(a: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
        weight = share.reshape(share.shape + (1,) * (a.ndim - share.ndim)).astype(a.dtype)
        return a + weight * (c - a)

    return jax.tree.map(move, average, current)


def update(
    t: Tables, cls: FunctionClass, config: LearnerConfig, learner: LearnerState, handoff: Handoff, k: Int[Array, ""]
) -> LearnerState:
    """Learn from handoff k (0-based).  Reads the acting agent's block and one scalar from the next agent's."""
    return _act(cls, config, *_read(t, cls, config, learner, handoff, k), k)


@struct.dataclass
class _Turn:
    """What the acting agent needs for its update.

    values: Q_i(o, .), with the residual of its gradient; scalar: m, the next agent's answer.
    """

    handoff: Handoff
    slot: Int[Array, "*batch"]
    values: Float[Array, "*batch A"]
    residual: Any
    scalar: Float[Array, "*batch"]


def _read(
    t: Tables, cls: FunctionClass, config: LearnerConfig, learner: LearnerState, handoff: Handoff, k: Int[Array, ""]
) -> tuple[LearnerState, _Turn]:
    """Everything handoff k reads; the average of the block that will move is brought up to date."""
    o, o_next = handoff.observation, handoff.next_observation
    slot = at(cls.slot, o)
    current = row(learner.params, slot)
    average = _catch_up(row(learner.average, slot), current, row(learner.touched, slot), k, config.averaging_power)
    learner = replace(learner, average=put(learner.average, slot, average))
    q_next, _ = forward(cls, learner.params, o_next)
    q, residual = forward(cls, learner.params, o)
    return learner, _Turn(handoff, slot, q, residual, td.scalar(q_next, at(t.available, o_next)))


def _act(
    cls: FunctionClass, config: LearnerConfig, learner: LearnerState, turn: _Turn, k: Int[Array, ""]
) -> LearnerState:
    """Move the acting agent's block."""
    handoff, slot, a = turn.handoff, turn.slot, turn.handoff.action
    delta = td.td_error(turn.values, a, handoff.reward, handoff.discount, turn.scalar)
    chosen = (jnp.arange(len(turn.values), dtype=jnp.int32) == a).astype(turn.values.dtype)
    visits = at(learner.visits, handoff.observation, a) + 1.0
    alpha = config.alpha(k)
    if config.visit_normalised:
        seen = learner.prior_total + (k + 1).astype(jnp.float32)
        alpha = jnp.minimum(alpha * seen / visits, 1.0)

    def push() -> tuple[Params, Any]:
        semi_gradient = backward(cls, turn.residual, delta * chosen)
        with jax.numpy_dtype_promotion("standard"):  # Optax's counters rely on implicit promotion
            direction, opt_state = config.optimiser.update(
                semi_gradient, take(learner.opt_state, slot), take(learner.params, slot)
            )
        return jax.tree.map(lambda d: (alpha * d)[None], direction), opt_state

    def shrink() -> Float[Array, ""]:
        moved = jax.tree.map(jnp.add, row(learner.params, slot), push()[0])
        norm = jnp.sqrt(sum(total(leaf**2) for leaf in jax.tree.leaves(moved)))
        return jnp.minimum(1.0, config.radius / jnp.maximum(norm, 1e-30))

    inside = jax.lax.cond(jnp.isfinite(config.radius), shrink, lambda: jnp.ones((), jnp.float32))
    by, opt_block = push()
    moved = jax.tree.map(lambda b, d: ((b + d) * inside).astype(b.dtype), row(learner.params, slot), by)
    return replace(
        learner,
        params=put(learner.params, slot, moved),
        opt_state=put(learner.opt_state, slot, jax.tree.map(lambda x: x[None], opt_block)),
        touched=put(learner.touched, slot, k[None]), visits=put_at(learner.visits, visits, handoff.observation, a),
        state=handoff.next_state,
    )  # fmt: skip


def step(
    t: Tables, cls: FunctionClass, config: LearnerConfig, learner: LearnerState, u: Float[Array, "5"], k: Int[Array, ""]
) -> LearnerState:
    """Draw handoff k from its five uniforms and learn from it."""
    return update(t, cls, config, learner, _draw(t, config, learner.state, u), k)


def _draw(t: Tables, config: LearnerConfig, s: Int[Array, ""], u: Float[Array, "5"]) -> Handoff:
    """The handoff that starts in s, or in a fresh stationary state."""
    s = jax.lax.cond(jnp.asarray(config.iid), lambda: rollout.stationary_state(t, u), lambda: s)
    return rollout.draw(t, s, u)


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
    words = rollout.stream_words(learner.key)

    def segment(carry: tuple[Int[Array, ""], LearnerState], stop: Int[Array, ""]) -> Any:
        k, state = carry
        state = _walk(t, cls, config, words, state, k, stop)
        average = _catch_up(state.average, state.params, state.touched, stop, config.averaging_power)
        return (stop, state), Record(q_table(cls, state.params), q_table(cls, average), state.visits)

    (_, learner), record = jax.lax.scan(segment, (start, learner), checkpoints)
    return learner, record


def _each(loop: Callable[..., T]) -> Callable[..., T]:
    """`loop`, whose vmap runs the chains one after another on CPU and side by side elsewhere.

    On CPU a chain is one kernel that way; batched, its updates in place would turn into scatters.  Arguments are
    pytrees of arrays; nothing traced may be closed over.
    """

    def call(*args: Any) -> T:
        leaves, tree = jax.tree.flatten(args)
        result: list[Any] = []

        def flat(*leaves: Any) -> list[Any]:
            out, structure = jax.tree.flatten(loop(*jax.tree.unflatten(tree, leaves)))
            result.append(structure)
            return out

        chain = custom_vmap(flat)

        @chain.def_vmap
        def chains(size: int, batched: list[bool], *leaves: Any) -> tuple[list[Any], list[bool]]:
            def one(run: Callable[..., list[Any]], moving: Sequence[Any]) -> list[Any]:
                rest = iter(moving)
                return run(*[next(rest) if b else x for x, b in zip(leaves, batched)])

            moving = [x for x, b in zip(leaves, batched) if b]
            one_by_one, side_by_side = partial(jax.lax.map, partial(one, chain)), jax.vmap(partial(one, flat))
            out = jax.lax.platform_dependent(moving, cpu=one_by_one, default=side_by_side)
            return out, [True] * len(out)

        out = chain(*leaves)
        return jax.tree.unflatten(result[0], out)

    return call


@_each
def _walk(
    t: Tables, cls: FunctionClass, config: LearnerConfig, words: UInt32[Array, "2"], learner: LearnerState,
    start: Int[Array, ""], stop: Int[Array, ""],
) -> LearnerState:  # fmt: skip
    """Handoffs start, ..., stop - 1.

    A pipeline: a round moves the agent of handoff k, reads for handoff k+1, and draws handoff k+2.  What crosses a
    round is computed once, where the compiler would compute it anew for everything that uses it.
    """

    def body(k: Int[Array, ""], carry: Any) -> Any:
        learner, turn, coming, u = carry
        learner, turn = _read(t, cls, config, _act(cls, config, learner, turn, k), coming, k + 1)
        return learner, turn, _draw(t, config, coming.next_state, u), rollout.uniforms(words, k + 3)

    u = [rollout.uniforms(words, start + i) for i in range(3)]
    handoff = _draw(t, config, learner.state, u[0])
    learner, turn = _read(t, cls, config, learner, handoff, start)
    with jax.named_scope(LOOP):
        carry = (learner, turn, _draw(t, config, handoff.next_state, u[1]), u[2])
        learner, turn, *_ = jax.lax.fori_loop(start, stop, body, carry)
    return replace(learner, touched=put(learner.touched, turn.slot, stop[None]))  # `_read` has averaged it


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
