"""Sampling handoffs: one Markov trajectory per key, or the i.i.d. control with the same law per handoff.

The Markov chain starts a handoff where the last one ended; the i.i.d. control draws s afresh from the stationary law,
so both see (s, a, b) ~ d x beta x P in the long run (docs/theory.md section 2).  All randomness of a handoff is five
uniforms, addressed by position in the run: handoff k has its own, whatever the checkpoints.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from icq.display import LIGHT, Fact, Shown, fields
from icq.exact import Analysis, outcome_discount
from icq.networks import at

BLOCK = 256  # handoffs whose uniforms `stream` gives at once
UNIFORMS = 5  # state cell, state accept, option, outcome cell, outcome accept
LANES = 8  # uniforms computed at once, the width of a vector register
ROUNDS = 20
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)  # of Threefry-2x32


@struct.dataclass
class Tables(Shown):
    """An instance as float32 sampling tables; an argument of the compiled loop, so one program serves all instances.

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


def tables(analysis: Analysis) -> Tables:
    """Sampling tables of an analysed instance (its stationary law drives the i.i.d. control)."""
    m = analysis.smdp
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
    return Tables(
        accept=f32(accept.reshape(shape)), alias=i32(alias.reshape(shape)), next_state=i32(m.next_state),
        reward=f32(m.reward), discount=f32(outcome_discount(m)), cumulative_behaviour=f32(cumulative),
        observation=i32(m.observation), available=jnp.asarray(m.available), law_accept=f32(law_accept),
        law_alias=i32(law_alias),
    )  # fmt: skip


def stream_words(key: Key[Array, ""]) -> UInt32[Array, "2"]:
    """The two words that name a run's stream, from the key by a full-strength hash; the key is used up."""
    return jax.random.bits(key, (2,), jnp.uint32)


def uniforms(words: UInt32[Array, "2"], k: Int[Array, ""]) -> Float[Array, "5"]:
    """The uniforms of handoff k in [0, 1), multiples of 2^-24: a counter-based generator, so no state is carried.

    Threefry-2x32 with 20 rounds, the generator of `jax.random`, with key `words` and counter (k, lane).  Written out
    here because a kernel of one loop can hold it, as one vector per handoff.
    """
    k0, k1 = words[0], words[1]
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(0x1BD11BDA))
    x = jnp.full(LANES, k.astype(jnp.uint32) + k0)
    y = jnp.arange(LANES, dtype=jnp.uint32) + k1
    for r in range(ROUNDS):
        x = x + y
        turn = ROTATIONS[r % 8]
        y = ((y << turn) | (y >> (32 - turn))) ^ x
        if r % 4 == 3:
            i = r // 4 + 1
            x, y = x + keys[i % 3], y + (keys[(i + 1) % 3] + jnp.uint32(i))
    return (x[:UNIFORMS] >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def stream(key: Key[Array, ""], block: int | Int[Array, ""]) -> Float[Array, "K 5"]:
    """Uniforms of handoffs [block*BLOCK, (block+1)*BLOCK) of a run with this key."""
    first = jnp.asarray(block, jnp.int32) * BLOCK
    return jax.vmap(partial(uniforms, stream_words(key)))(first + jnp.arange(BLOCK, dtype=jnp.int32))


def stationary_state(t: Tables, u: Float[Array, "5"]) -> Int[Array, ""]:
    """s ~ d."""
    return _alias_draw(t.law_accept, t.law_alias, u[0], u[1])


def draw(t: Tables, s: Int[Array, ""], u: Float[Array, "5"]) -> Handoff:
    """One handoff from global state s: a ~ beta(.|phi(s)), b ~ P(.|s,a)."""
    o = at(t.observation, s)
    a = jnp.sum((u[2] >= at(t.cumulative_behaviour, o)).astype(jnp.int32))
    b = _alias_draw(at(t.accept, s, a), at(t.alias, s, a), u[3], u[4])
    s_next = at(t.next_state, s, a, b)
    return Handoff(
        state=s, observation=o, action=a, outcome=b, reward=at(t.reward, s, a, b), discount=at(t.discount, s, a, b),
        next_state=s_next, next_observation=at(t.observation, s_next),
    )  # fmt: skip


def _alias_draw(
    accept: Float[Array, "n"], alias: Int[Array, "n"], u: Float[Array, ""], v: Float[Array, ""]
) -> Int[Array, ""]:
    size = accept.shape[0]
    cell = jnp.minimum((u * size).astype(jnp.int32), size - 1)
    return jnp.where(v < at(accept, cell), cell, at(alias, cell))


@partial(jax.jit, static_argnames=("handoffs",))
def trajectory(t: Tables, key: Key[Array, ""], handoffs: int, iid: bool | Bool[Array, ""] = False) -> Handoff:
    """`handoffs` consecutive handoffs [handoffs] of one run, started from the stationary law.

    The trajectory a learner with the same key learns from.
    """
    start, run = jax.random.split(key)
    words = stream_words(run)

    def step(s: Int[Array, ""], k: Int[Array, ""]) -> tuple[Int[Array, ""], Handoff]:
        u = uniforms(words, k)
        handoff = draw(t, jnp.where(iid, stationary_state(t, u), s), u)
        return handoff.next_state, handoff

    return jax.lax.scan(step, initial_state(t, start), jnp.arange(handoffs, dtype=jnp.int32))[1]


def initial_state(t: Tables, key: Key[Array, ""]) -> Int[Array, ""]:
    """s_0 ~ d."""
    return stationary_state(t, jax.random.uniform(key, (UNIFORMS,), jnp.float32))
