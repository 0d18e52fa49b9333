"""Sampling handoffs: one Markov trajectory per key, or the i.i.d. control with the same law per handoff.

The Markov chain starts a handoff where the last one ended; the i.i.d. control draws s afresh from the stationary law,
so both see (s, a, b) ~ d x beta x P in the long run (docs/theory.md section 2).  All randomness of a handoff is five
uniforms, addressed by position in the run: handoff k has its own, whatever the checkpoints.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from icq.coerce import Instance, count
from icq.display import LIGHT, Fact, Shown, fields
from icq.exact import analyse, outcome_discount
from icq.learn.classes import at, put_at
from icq.smdp import ICSMDP, Arr

BLOCK = 256  # handoffs drawn at once
UNIFORMS = 5  # state cell, state accept, option, outcome cell, outcome accept
SINGLE = (1e-30, 1e18)  # largest reward of an instance in single precision: its square must not overflow
ROUNDS = 20
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)  # of Threefry-2x32


@struct.dataclass
class Tables(Shown):
    """An instance as sampling tables; an argument of the compiled loop, so one program serves all instances.

    float32, reward and discount float64 where learning is to be in double precision.

    Outcomes and stationary states use Walker's alias method: a uniform picks a cell, a second one accepts it or takes
    its alias.
    """

    accept: Float[Array, "*batch S A B"]
    alias: Int[Array, "*batch S A B"]
    next_state: Int[Array, "*batch S A B"]
    reward: Float[Array, "*batch S A B"]
    discount: Float[Array, "*batch S A B"]
    cumulative_behaviour: Float[Array, "*batch O A"]
    observation: Int[Array, "*batch S"]
    available: Bool[Array, "*batch O A"]
    law_accept: Float[Array, "*batch S"]
    law_alias: Int[Array, "*batch S"]

    def _facts_(self) -> list[Fact]:
        *batch, states, options, outcomes = np.shape(self.accept)
        return [Fact("batch", tuple(batch) or None), Fact("states", states), Fact("options", options),
                Fact("outcomes", outcomes), Fact("observations", np.shape(self.available)[-2])]  # fmt: skip


@struct.dataclass
class Handoff(Shown):
    """One step of the embedded chain.  `state` and `outcome` are hidden from the agents, kept for analysis and logs."""

    state: Int[Array, "*batch"]
    observation: Int[Array, "*batch"]
    action: Int[Array, "*batch"]
    outcome: Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    next_state: Int[Array, "*batch"]
    next_observation: Int[Array, "*batch"]

    def _facts_(self) -> list[Fact]:
        if np.ndim(self.reward) == 0:
            return fields(self)
        some = 0 < np.size(self.reward) <= LIGHT
        return [
            Fact("handoffs", " x ".join(map(str, np.shape(self.reward)))),
            Fact("mean reward", float(np.asarray(self.reward).mean()) if some else None),
            Fact("mean discount", float(np.asarray(self.discount).mean()) if some else None),
        ]  # fmt: skip


def alias_tables(prob: Float[np.ndarray, "n B"]) -> tuple[Float[np.ndarray, "n B"], Int[np.ndarray, "n B"]]:
    """Walker's alias tables of n probability rows: P(b) = (accept[b] + sum_{c: alias[c]=b} (1 - accept[c])) / B.

    Robin Hood construction, vectorised over rows: B - 1 rounds, each closes the poorest open cell with the richest.
    """
    rows, width = prob.shape
    mass = prob * (width / prob.sum(1, keepdims=True))
    accept, alias = np.ones((rows, width)), np.tile(np.arange(width), (rows, 1))
    open_ = np.ones((rows, width), bool)
    r = np.arange(rows)
    for _ in range(width - 1):
        poor = np.where(open_, mass, np.inf).argmin(1)
        rich = np.where(open_, mass, -np.inf).argmax(1)
        accept[r, poor] = np.clip(mass[r, poor], 0.0, 1.0)
        alias[r, poor] = rich
        open_[r, poor] = False
        mass[r, rich] -= np.where(poor != rich, 1.0 - accept[r, poor], 0.0)
    return accept, alias


def _alias_law(d: Float[np.ndarray, "S"]) -> tuple[Float[np.ndarray, "S"], Int[np.ndarray, "S"]]:
    """The same tables for one long row, in O(S)."""
    size = len(d)
    mass = d * size / d.sum()
    accept, alias = np.ones(size), np.arange(size)
    poor, rich = list(np.flatnonzero(mass < 1)), list(np.flatnonzero(mass >= 1))
    while poor and rich:
        p, q = poor.pop(), rich[-1]
        accept[p], alias[p] = mass[p], q
        mass[q] -= 1.0 - mass[p]
        if mass[q] < 1:
            poor.append(rich.pop())
    return accept, alias


def tables(model: Instance, *, double: bool = False) -> Tables:
    """Sampling tables of an instance, which is analysed if it is not (its stationary law drives the i.i.d. control).

    double: rewards and discounts in float64, for which JAX must have it switched on where this is called.
    """
    analysis = analyse(model)
    m = analysis.smdp
    if not double:
        check_single(m)
    _, options, outcomes = m.prob.shape
    used = analysis.oracle.available[..., None]
    prob = np.where(used, m.prob, 1.0 / outcomes).reshape(-1, outcomes)
    accept, alias = alias_tables(prob)
    law_accept, law_alias = _alias_law(analysis.d)
    cumulative = np.cumsum(m.behaviour, axis=1)
    last = options - 1 - np.argmax(np.asarray(m.available)[:, ::-1], axis=1)
    cumulative[np.arange(options)[None, :] >= last[:, None]] = np.inf  # rounding never selects beyond the last option
    shape = m.prob.shape
    f32, i32 = partial(jnp.asarray, dtype=jnp.float32), partial(jnp.asarray, dtype=jnp.int32)
    real = partial(jnp.asarray, dtype=jnp.float64) if double else f32
    return Tables(
        accept=f32(accept.reshape(shape)), alias=i32(alias.reshape(shape)), next_state=i32(m.next_state),
        reward=real(m.reward), discount=real(outcome_discount(m)), cumulative_behaviour=f32(cumulative),
        observation=i32(m.observation), available=jnp.asarray(m.available), law_accept=f32(law_accept),
        law_alias=i32(law_alias),
    )  # fmt: skip


def check_single(m: ICSMDP) -> None:
    """Raise ValueError for an instance that single precision cannot hold: its rewards, and that it discounts."""
    used = np.asarray(m.available)[m.observation]
    size = float(np.abs(m.reward)[used].max())
    if size and not SINGLE[0] <= size <= SINGLE[1]:
        raise ValueError(
            f"reward: the largest is {size:.3g}, and single precision works from {SINGLE[0]:g} to {SINGLE[1]:g}; "
            "choose another unit of reward, or learn in double precision"
        )
    if np.float32(m.gamma) == 1:
        raise ValueError(f"gamma = {float(m.gamma)!r} is 1 in single precision; learn in double precision")


def stream_words(key: Key[Array, ""]) -> UInt32[Array, "2"]:
    """The two words that name a run's stream, from the key by a full-strength hash; the key is used up."""
    return jax.random.bits(key, (2,), jnp.uint32)


def uniforms(
    words: UInt32[Array, "2"], k: Int[Array, "*handoffs"], first: int = 0, stop: int = UNIFORMS
) -> Float[Array, "n *handoffs"]:
    """Uniforms first, ..., stop - 1 of handoffs k in [0, 1), multiples of 2^-24: no state is carried.

    Threefry-2x32 with 20 rounds, the generator of `jax.random`, with key `words` and counter (k, number of the
    uniform).  Written out here because a kernel of one loop can hold it, vectorised along the handoffs.
    """
    k0, k1 = words[0], words[1]
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(0x1BD11BDA))
    shape = (stop - first, *k.shape)
    x = jnp.broadcast_to(k.astype(jnp.uint32) + k0, shape)
    y = jax.lax.broadcasted_iota(jnp.uint32, shape, 0) + (jnp.uint32(first) + k1)
    for r in range(ROUNDS):
        x = x + y
        turn = ROTATIONS[r % 8]
        y = ((y << turn) | (y >> (32 - turn))) ^ x
        if r % 4 == 3:
            i = r // 4 + 1
            x, y = x + keys[i % 3], y + (keys[(i + 1) % 3] + jnp.uint32(i))
    return (x >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def stationary_state(t: Tables, u: Float[Array, "u *handoffs"]) -> Int[Array, "*handoffs"]:
    """s ~ d, from the first two uniforms."""
    cell = _cell(u[0], t.law_accept.shape[0])
    return jnp.where(u[1] < pick(t.law_accept, cell), cell, pick(t.law_alias, cell))


def draw(t: Tables, s: Int[Array, ""], u: Float[Array, "5"]) -> Handoff:
    """One handoff from global state s: a ~ beta(.|phi(s)), b ~ P(.|s,a)."""
    flat = flatten(t)
    return handoff(t, flat, _position(t, flat, s, u[2], u[3], u[4]))


@struct.dataclass
class Flat(Shown):
    """The outcomes of an instance on one axis [S A B], for a loop to carry: three axes cost more at every access."""

    accept: Float[Array, "SAB"]
    alias: Int[Array, "SAB"]
    next_state: Int[Array, "SAB"]
    reward: Float[Array, "SAB"]
    discount: Float[Array, "SAB"]


def flatten(t: Tables) -> Flat:
    """The outcome tables on one axis."""
    return Flat(*(jnp.ravel(x) for x in (t.accept, t.alias, t.next_state, t.reward, t.discount)))


def walk(
    t: Tables, flat: Flat, words: UInt32[Array, "2"], iid: bool | Bool[Arr, ""], s: Int[Array, ""],
    first: Int[Array, ""], count: int | Int[Array, ""],
) -> Int[Array, "block"]:  # fmt: skip
    """The positions [S A B] of handoffs first, ..., first + count - 1 (at most BLOCK); the first starts in s.

    Only what a handoff needs of the one before is done one at a time, in a loop that carries little: `handoff` does
    the rest for all of them at once.
    """
    k = first + jnp.arange(BLOCK, dtype=jnp.int32)
    # Where each handoff starts; -1: where the one before it ended.
    start = jax.lax.cond(
        jnp.asarray(iid), lambda: stationary_state(t, uniforms(words, k, 0, 2)), lambda: jnp.where(k == first, s, -1)
    )
    u = uniforms(words, k, 2)

    def step(i: Int[Array, ""], carry: tuple[Int[Array, ""], Int[Array, "block"]]) -> Any:
        last, drawn = carry
        s = jnp.where(at(start, i) < 0, at(flat.next_state, last), at(start, i))
        position = _position(t, flat, s, *(at(u, jnp.int32(j), i) for j in range(3)))
        return position, put_at(drawn, position, i)

    return jax.lax.fori_loop(0, count, step, (jnp.int32(0), jnp.zeros(BLOCK, jnp.int32)))[1]


def _position(
    t: Tables, flat: Flat, s: Int[Array, ""], u: Float[Array, ""], v: Float[Array, ""], w: Float[Array, ""]
) -> Int[Array, ""]:
    """The position of a handoff from s: u draws the option, v the outcome's cell, w accepts it or takes its alias."""
    _, options, outcomes = t.accept.shape
    a = jnp.sum(u >= at(t.cumulative_behaviour, at(t.observation, s)), dtype=jnp.int32)
    row, cell = (s * options + a) * outcomes, _cell(v, outcomes)
    return row + jnp.where(w < at(flat.accept, row + cell), cell, at(flat.alias, row + cell))


def _cell(u: Float[Array, "*handoffs"], cells: int) -> Int[Array, "*handoffs"]:
    return jnp.minimum((u * cells).astype(jnp.int32), cells - 1)


def handoff(t: Tables, flat: Flat, position: Int[Array, "*handoffs"]) -> Handoff:
    """The handoffs at some positions."""
    _, options, outcomes = t.accept.shape
    pair, b = jnp.divmod(position.astype(jnp.uint32), jnp.uint32(outcomes))
    s, a = (x.astype(jnp.int32) for x in jnp.divmod(pair, jnp.uint32(options)))
    next_state = pick(flat.next_state, position)
    return Handoff(
        state=s, observation=pick(t.observation, s), action=a, outcome=b.astype(jnp.int32),
        reward=pick(flat.reward, position), discount=pick(flat.discount, position),
        next_state=next_state, next_observation=pick(t.observation, next_state),
    )  # fmt: skip


def pick(x: Arr, i: Int[Array, "*handoffs"]) -> Array:
    """x[i] for indices known to be inside; unsigned, because they are clamped with fewer instructions."""
    return jnp.asarray(x).at[i.astype(jnp.uint32)].get(mode="promise_in_bounds")


@partial(jax.jit, static_argnames=("blocks",))
def onward(
    t: Tables, words: UInt32[Array, "2"], iid: bool | Bool[Arr, ""], s: Int[Array, ""], first: Int[Array, ""],
    blocks: int,
) -> tuple[Int[Array, ""], Handoff]:  # fmt: skip
    """The handoffs [blocks BLOCK] from `first` on, which starts in s, and the state after them."""
    flat = flatten(t)

    def step(s: Int[Array, ""], first: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, "block"]]:
        path = walk(t, flat, words, iid, s, first, BLOCK)
        return at(flat.next_state, path[-1]), path

    s, path = jax.lax.scan(step, s, first + BLOCK * jnp.arange(blocks, dtype=jnp.int32))
    return s, handoff(t, flat, jnp.ravel(path))


@partial(jax.jit, static_argnames=("handoffs",))
def trajectory(t: Tables, key: Key[Array, ""], handoffs: int, iid: bool | Bool[Arr, ""] = False) -> Handoff:
    """`handoffs` consecutive handoffs [handoffs] of one run, started from the stationary law.

    The trajectory a learner with the same key learns from.  Raises ValueError for fewer than one.
    """
    handoffs = count("handoffs", handoffs)
    start, run = jax.random.split(key)
    _, drawn = onward(t, stream_words(run), iid, initial_state(t, start), jnp.int32(0), -(-handoffs // BLOCK))
    return jax.tree.map(lambda x: x[:handoffs], drawn)


def initial_state(t: Tables, key: Key[Array, ""]) -> Int[Array, ""]:
    """s_0 ~ d."""
    return stationary_state(t, jax.random.uniform(key, (UNIFORMS,), jnp.float32))
