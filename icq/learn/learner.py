"""IC-Q: asynchronous, decentralised Q-learning over handoffs, one scalar per handoff.

At handoff k agent i acts on o_k, the option earns R_k at discount g_k, and the next agent j returns one number,
m_k = max_a Q_j(o_{k+1}, a).  Agent i then moves its own block:

    theta_i <- theta_i + alpha_k c(x_k) U(delta_k grad Q_i(x_k)),   delta_k = R_k + g_k m_k - Q_i(x_k)

with alpha_k = step / (1 + k/decay_offset)^decay_power, U an Optax transformation with state per block (identity is
plain SGD), and c = 1, a number given for every pair, or one over the counted visit frequency of x_k.  Arithmetic is
that of the class: single precision, or double where its arrays are float64.  Notation: docs/theory.md sections 1, 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from icq.coerce import Instance, codes, count, numbers, room, shaped, within
from icq.display import Fact, Shown, spread
from icq.learn import sampling, td
from icq.learn._runs import each
from icq.learn.classes import FunctionClass, Params, at, backward, forward, put, put_at, q_table, row, take, total
from icq.learn.sampling import Handoff, Tables
from icq.smdp import Arr

PLAIN = optax.identity()
SEEDS, MOST_RUNS = 2**32, 10**6  # seeds there are, and those that are run at once
LOOP = "icq_handoffs"  # the name of the loop in compiled programs


@struct.dataclass
class LearnerConfig(Shown):
    """How to learn.  Numbers are traced: sweeping them compiles nothing anew.

    step, decay_power, decay_offset: alpha_k = step / (1 + k/decay_offset)^decay_power, k in handoffs of the run.
    averaging_power p: iterate k weighs about (p+1) k^p in the average (0: Polyak's plain mean).
    radius: every block is projected on the ball of this radius (per block, so still decentralised); None: no ball.
    iid: draw each handoff's state from the stationary law (the control of docs/theory.md section 2).
    scale: c(x) [O, A]; one over known visit frequencies is a step per own visit.
    visit_normalised: c(x) is one over the counted visit frequency of (o, a), the step capped at a full one of 1.
    optimiser: an Optax transformation of the semi-gradient, e.g. `optax.scale_by_adam()`.
    Raises ValueError for a number outside its range, where it is one and no tracer.
    """

    step: float | Float[Array, "*batch"] = 0.1
    decay_power: float | Float[Array, "*batch"] = 0.0
    decay_offset: float | Float[Array, "*batch"] = 1.0
    averaging_power: float | Float[Array, "*batch"] = 0.0
    radius: float | Float[Array, "*batch"] | None = None
    iid: bool | Bool[Array, "*batch"] = False
    scale: Float[Arr, "*batch O A"] | None = None
    visit_normalised: bool = struct.field(pytree_node=False, default=False)
    optimiser: optax.GradientTransformation = struct.field(pytree_node=False, default=PLAIN)

    def __post_init__(self) -> None:
        for name in ("step", "decay_power", "averaging_power"):
            within(name, getattr(self, name), 0.0)
        for name in ("decay_offset", "radius"):
            within(name, getattr(self, name), np.finfo(np.float64).tiny, math.inf)

    def alpha(self, k: Int[Array, "*handoffs"]) -> Float[Array, "*handoffs"]:
        """Step sizes of handoffs k."""
        return self.step * _power(1.0 + _real(k) / self.decay_offset, -jnp.asarray(self.decay_power))


@struct.dataclass
class LearnerState(Shown):
    """Everything a run carries.  `average` lags behind: a block is brought up to date when touched (see `_share`).

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
    """Q tables at the checkpoints of a run (batch axes [seeds, checkpoints]): last iterate, average, visit counts.

    params: the parameters behind the last iterate, where they were asked for.
    """

    q: Float[Arr, "*batch O A"]
    q_average: Float[Arr, "*batch O A"]
    visits: Float[Arr, "*batch O A"]
    params: Params | None = None

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
        state=sampling.initial_state(t, start), key=run_key,
    )  # fmt: skip


def _real(k: Int[Array, "*any"]) -> Float[Array, "*any"]:
    """Integers as numbers of the precision at work."""
    return k.astype(jnp.result_type(float))


def _power(x: Float[Array, "*any"], power: Float[Array, ""]) -> Float[Array, "*any"]:
    """x^power for x >= 0, at no cost for the usual powers 0 and 1; log and exp, unlike a power, work on vectors."""
    choice = jnp.where(power == 0, 0, jnp.where(power == 1, 1, 2))
    return jax.lax.switch(choice, [jnp.ones_like, lambda x: x, lambda x: jnp.exp(power * jnp.log(x))], x)


def _share(touched: Int[Array, "*any"], k: Int[Array, "*any"], power: Any) -> Float[Array, "*any"]:
    """The weight of the iterates touched + 1, ..., k among the first k.

    Iterate j weighs j^(p+1) - (j-1)^(p+1); the sum telescopes, so idle handoffs cost nothing.  Taken from the idle
    handoffs, not as one minus what was before: after 10^7 handoffs that difference has no digit left.
    """
    idle = _real(k - touched) / _real(jnp.maximum(k, 1))
    power = jnp.asarray(power + 1.0)
    return jax.lax.cond(power == 1, lambda x: x, lambda x: -jnp.expm1(power * jnp.log1p(-x)), idle)


def _toward(average: Params, current: Params, share: Float[Array, "*slots"]) -> Params:
    """The averages of blocks that held `current` for the last `share` of the weight; as they were where it is 0."""

    def move(a: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
        weight = share.reshape(share.shape + (1,) * (a.ndim - share.ndim)).astype(a.dtype)
        return a + jnp.where(weight > 0, weight * (c - a), 0)

    return jax.tree.map(move, average, current)


def update(
    t: Tables, cls: FunctionClass, config: LearnerConfig, learner: LearnerState, handoff: Handoff, k: Int[Array, ""]
) -> LearnerState:
    """Learn from handoff k (0-based).  Reads the acting agent's block and one scalar from the next agent's."""
    plan = _plan(t, cls, config, handoff, k)
    share = _share(at(learner.touched, plan.slot), k, config.averaging_power)
    learner, heard = _read(t, cls, learner, plan, share)
    learner = replace(learner, touched=put_at(learner.touched, k, plan.slot), state=handoff.next_state)
    return _act(cls, config, learner, plan, heard, k)


@struct.dataclass
class _Plan:
    """What is known of handoffs without parameters.  chosen: 1 for the option taken, 0 for the others."""

    handoff: Handoff
    slot: Int[Array, "*handoffs"]
    chosen: Float[Array, "*handoffs A"]
    alpha: Float[Array, "*handoffs"]


def _plan(t: Tables, cls: FunctionClass, config: LearnerConfig, handoff: Handoff, k: Int[Array, "*handoffs"]) -> _Plan:
    options = t.available.shape[1]
    chosen = jax.nn.one_hot(handoff.action, options, dtype=jnp.float32)
    alpha = config.alpha(k)
    if config.scale is not None:
        alpha = alpha * sampling.pick(jnp.ravel(config.scale), handoff.observation * options + handoff.action)
    return _Plan(handoff, sampling.pick(cls.slot, handoff.observation), chosen, alpha)


@struct.dataclass
class _Heard:
    """What the acting agent needs for its update: TD error, visits to the pair, and the gradient's residual."""

    delta: Float[Array, "*batch"]
    visits: Float[Array, "*batch"]
    residual: Any


def _read(
    t: Tables, cls: FunctionClass, learner: LearnerState, plan: _Plan, share: Float[Array, ""]
) -> tuple[LearnerState, _Heard]:
    """Everything a handoff reads; the average of the block that will move is brought up to date."""
    h, slot = plan.handoff, plan.slot
    average = _toward(row(learner.average, slot), row(learner.params, slot), share)
    learner = replace(learner, average=put(learner.average, slot, average))
    q_next, _ = forward(cls, learner.params, h.next_observation)
    q, residual = forward(cls, learner.params, h.observation)
    scalar = td.scalar(q_next, at(t.available, h.next_observation))
    visits = at(learner.visits, h.observation, h.action) + 1.0
    return learner, _Heard(td.td_error(q, h.action, h.reward, h.discount, scalar), visits, residual)


def _act(
    cls: FunctionClass, config: LearnerConfig, learner: LearnerState, plan: _Plan, heard: _Heard, k: Int[Array, ""]
) -> LearnerState:
    """Move the acting agent's block."""
    o, a, slot, alpha = plan.handoff.observation, plan.handoff.action, plan.slot, plan.alpha
    if config.visit_normalised:
        seen = learner.prior_total + _real(k + 1)
        alpha = jnp.minimum(alpha * seen / heard.visits, 1.0)
    semi_gradient = backward(cls, heard.residual, heard.delta * plan.chosen.astype(heard.delta.dtype))
    with jax.numpy_dtype_promotion("standard"):  # Optax's counters rely on implicit promotion
        direction, opt_state = config.optimiser.update(
            semi_gradient, take(learner.opt_state, slot), take(learner.params, slot)
        )
    moved = jax.tree.map(lambda b, d: (b + (alpha * d)[None]).astype(b.dtype), row(learner.params, slot), direction)
    if config.radius is not None:
        norm = jnp.sqrt(sum(total(leaf**2) for leaf in jax.tree.leaves(moved)))
        inside = jnp.minimum(1.0, config.radius / jnp.maximum(norm, 1e-30))
        moved = jax.tree.map(lambda leaf: (leaf * inside).astype(leaf.dtype), moved)
    return replace(
        learner,
        params=put(learner.params, slot, moved),
        opt_state=put(learner.opt_state, slot, jax.tree.map(lambda x: x[None], opt_state)),
        visits=put_at(learner.visits, heard.visits, o, a),
    )


def run(
    t: Tables,
    cls: FunctionClass,
    config: LearnerConfig,
    learner: LearnerState,
    start: Int[Array, ""],
    checkpoints: Int[Array, "K"],
    keep: bool = False,
) -> tuple[LearnerState, Record]:
    """From handoff `start` to the last checkpoint, recording Q at each, and the parameters if asked to `keep` them.

    One compiled loop; vmap over the rest.

    `start` and `checkpoints` (increasing) stay unbatched, so that all runs of a batch move in step.  The stream is
    addressed by k: the result at a checkpoint does not depend on the other checkpoints.
    """
    words = sampling.stream_words(learner.key)

    def segment(carry: tuple[Int[Array, ""], LearnerState], stop: Int[Array, ""]) -> Any:
        k, state = carry
        state = _walk(t, cls, config, words, state, k, stop)
        share = _share(state.touched, jnp.broadcast_to(stop, state.touched.shape), config.averaging_power)
        average = _toward(state.average, state.params, share)
        kept = state.params if keep else None
        return (stop, state), Record(q_table(cls, state.params), q_table(cls, average), state.visits, kept)

    (_, learner), record = jax.lax.scan(segment, (start, learner), checkpoints)
    return learner, record


@each
def _walk(
    t: Tables, cls: FunctionClass, config: LearnerConfig, words: UInt32[Array, "2"], learner: LearnerState,
    start: Int[Array, ""], stop: Int[Array, ""],
) -> LearnerState:  # fmt: skip
    """Handoffs start, ..., stop - 1, in blocks: they are drawn, then planned all at once, then learned from.

    Each of a block's loops carries little, which is what a handoff costs.  The last one is a pipeline: a round moves
    the agent of handoff k and reads for handoff k+1, so that reading is over before the block moves, in place, and
    what was read is computed once, where the compiler would compute it anew for everything that uses it.
    """
    flat = sampling.flatten(t)

    def body(carry: tuple[Int[Array, ""], LearnerState]) -> tuple[Int[Array, ""], LearnerState]:
        first, learner = carry
        count = jnp.minimum(stop - first, sampling.BLOCK)
        k = first + jnp.arange(sampling.BLOCK, dtype=jnp.int32)
        path = sampling.walk(t, flat, words, config.iid, learner.state, first, count)
        plans = _plan(t, cls, config, sampling.handoff(t, flat, path), k)
        touched, since = _touch(learner.touched, plans.slot, first, count)
        shares = _share(since, k, config.averaging_power)

        def plan(i: Int[Array, ""]) -> _Plan:
            return jax.tree.map(lambda x: at(x, i), plans)

        def learn(i: Int[Array, ""], carry: tuple[LearnerState, _Heard]) -> tuple[LearnerState, _Heard]:
            learner = _act(cls, config, carry[0], plan(i), carry[1], first + i)
            share = jnp.where(i + 1 < count, at(shares, i + 1), 0.0)  # nothing follows the last: its average stays
            return _read(t, cls, learner, plan(i + 1), share)

        learner, _ = jax.lax.fori_loop(0, count, learn, _read(t, cls, learner, plan(jnp.int32(0)), shares[0]))
        return first + count, replace(learner, touched=touched, state=at(plans.handoff.next_state, count - 1))

    with jax.named_scope(LOOP):
        return jax.lax.while_loop(lambda carry: carry[0] < stop, body, (start, learner))[1]


def _touch(
    touched: Int[Array, "slots"], slots: Int[Array, "block"], first: Int[Array, ""], count: Int[Array, ""]
) -> tuple[Int[Array, "slots"], Int[Array, "block"]]:
    """Handoffs first, ... touch these slots: `touched` after them, and what each of them found there.

    A round marks and then looks for the next one: the other way round, it would work on a copy.
    """

    def step(i: Int[Array, ""], carry: Any) -> Any:
        touched, found, since = carry
        touched, since = put_at(touched, first + i, at(slots, i)), put_at(since, found, i)
        return touched, at(touched, at(slots, i + 1)), since

    touched, _, since = jax.lax.fori_loop(0, count, step, (touched, at(touched, slots[0]), slots))
    return touched, since


@jax.jit
def initial_params(cls: FunctionClass, keys: Key[Array, "R"]) -> Params:
    """The initial parameters of the runs with these keys, leaves [R, slots, ...]."""
    return jax.vmap(lambda key: cls.init(_split(key)[0]))(keys)


def _split(key: Key[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""], Key[Array, ""]]:
    """Keys of a run's parameters, of its first state and of its stream."""
    weights, chain = jax.random.split(key)
    start, run = jax.random.split(chain)
    return weights, start, run


@partial(jax.jit, static_argnames=("keep",))
def _learn(
    t: Tables,
    cls: FunctionClass,
    config: LearnerConfig,
    params: Params,
    keys: Key[Array, "R"],
    checkpoints: Int[Array, "K"],
    keep: bool = False,
) -> Record:
    def one(params: Params, key: Key[Array, ""]) -> Record:
        return run(t, cls, config, begin(t, cls, config, params, key), jnp.int32(0), checkpoints, keep)[1]

    return jax.vmap(one)(params, keys)


def learn(
    t: Tables | Instance,
    cls: FunctionClass,
    config: LearnerConfig,
    seeds: int | Sequence[int],
    checkpoints: int | Sequence[int] | np.ndarray,
    root: int = 0,
    *,
    keep: bool = False,
) -> Record:
    """One run per seed, all in one compiled program; leaves of the record are [seeds, K, ...].

    t: the sampling tables, or the instance, workflow or analysis that they are made of.  seeds: which, or how many.
    checkpoints: handoffs after which the tables are recorded; the last one ends the run.  Seed r uses the key
    fold_in(key(root), r).  keep: record parameters, too.  A class whose arrays are float64 (NumPy ones, say) is learned
    in double precision.
    Raises ValueError for repeated seeds, checkpoints out of order, a class of another workflow, and more runs than fit
    in memory.
    """
    several: Any = range(count("seeds", seeds, most=MOST_RUNS)) if np.ndim(seeds) == 0 else seeds
    count("number of seeds", len(several), most=MOST_RUNS)
    runs: list[int] = codes("seeds", several, None, SEEDS).tolist()
    if len(set(runs)) != len(runs):
        raise ValueError("seeds: repeated, runs would be copies of each other")
    grid = np.atleast_1d(numbers("checkpoints", checkpoints))
    if grid.ndim > 1 or len(grid) == 0 or not (np.diff(grid) > 0).all():
        raise ValueError(f"checkpoints: {grid.tolist()} must be whole, positive and increasing")
    grid = np.array([count("checkpoints", k) for k in grid.tolist()])
    with jax.enable_x64(is_double(cls) or jax.config.values["jax_enable_x64"]):
        t = t if isinstance(t, Tables) else sampling.tables(t, double=is_double(cls))
        _check(t, cls, config, len(runs), len(grid))
        keys = seed_keys(runs, root)
        return _learn(t, cls, config, initial_params(cls, keys), keys, jnp.asarray(grid, jnp.int32), keep)


def _check(t: Tables, cls: FunctionClass, config: LearnerConfig, runs: int, times: int) -> None:
    """Raise ValueError for a class or a scale of another workflow, and for more runs than memory holds."""
    pairs = t.available.shape
    params = jax.eval_shape(cls.init, jax.random.key(0))
    made = jax.eval_shape(q_table, cls, params).shape
    if made != pairs:
        raise ValueError(f"cls: values of shape {made}, expected (O, A) = {pairs}; build it on this very workflow")
    if config.scale is not None:
        scale = shaped("scale", config.scale, "OA", pairs)
        if not (np.isfinite(scale) & (scale >= 0)).all():
            raise ValueError("scale: not finite, or negative; a step is scaled by positive numbers")
    tables, weights = 3 * times * math.prod(pairs), sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    room(f"{runs} runs with {times} checkpoints", runs * (tables + 2 * weights) * 4)


def is_double(cls: FunctionClass) -> bool:
    """Whether a class computes in double precision."""
    return any(getattr(leaf, "dtype", None) == np.float64 for leaf in jax.tree.leaves(cls))


def seed_keys(seeds: Sequence[int], root: int = 0) -> Key[Array, "R"]:
    """The key of each seed's run; `init` splits it into one for the parameters and one for the chain."""
    key = jax.random.key(count("root", root, least=0, most=SEEDS - 1))
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(np.asarray(seeds, np.uint32)))
