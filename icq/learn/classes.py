"""Function classes behind one protocol: parameters come in blocks, and each block belongs to one agent.

A class maps (block, observation) to the values of the acting agent's options.  `slot[o]` names the block that answers
observation o: the agent's index for a network or linear features, the observation itself for a table (a row belongs
to the agent that sees it).  The learner touches one block per handoff, so its cost does not grow with the number of
agents.  Notation: docs/theory.md sections 1 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key, Num

from icq.coerce import MAX, real, room, within
from icq.coerce import count as whole
from icq.display import Fact, Shown
from icq.smdp import ICSMDP, Arr

Block: TypeAlias = Any  # a pytree of arrays
Params: TypeAlias = Any  # the same pytree with a leading slot axis


@runtime_checkable
class FunctionClass(Protocol):
    """What a learner needs of a class of Q-functions; every implementation is a pytree."""

    slot: Int[Arr, "*batch O"]

    @property
    def num_slots(self) -> int:
        """Number of parameter blocks."""
        ...

    def init(self, key: Key[Array, ""]) -> Params:
        """Initial parameters: every leaf [num_slots, ...]."""
        ...

    def values(self, block: Block, observation: Int[Array, ""]) -> Float[Array, "A"]:
        """Q(o, .) of all options, from the block slot[o] alone."""
        ...


@runtime_checkable
class HasGradient(Protocol):
    """A class that knows its own gradient: optional, for classes whose automatic one is slow in a loop."""

    def forward(self, params: Params, observation: Int[Array, ""]) -> tuple[Float[Array, "A"], Any]:
        """Q(o, .) from the block slot[o] of all parameters, and what `backward` needs (a pytree)."""
        ...

    def backward(self, residual: Any, c: Float[Array, "A"]) -> Block:
        """The gradient of c' Q(o, .) in the block."""
        ...


def forward(cls: FunctionClass, params: Params, observation: Int[Array, ""]) -> tuple[Float[Array, "A"], Any]:
    """Q(o, .) from all parameters, and what `backward` needs: the class's own way, or the automatic one."""
    if isinstance(cls, HasGradient):
        return cls.forward(params, observation)
    block = take(params, at(cls.slot, observation))
    return cls.values(block, observation), (block, observation)


def backward(cls: FunctionClass, residual: Any, c: Float[Array, "A"]) -> Block:
    """The gradient of c' Q(o, .) in the block that answered."""
    if isinstance(cls, HasGradient):
        return cls.backward(residual, c)
    block, observation = residual
    return jax.vjp(lambda b: cls.values(b, observation), block)[1](c)[0]


@struct.dataclass
class Tabular(Shown):
    """One number per (observation, option), all `initial` at the start."""

    slot: Int[Arr, "*batch O"]
    initial: Float[Arr, "*batch O A"]

    @property
    def num_slots(self) -> int:
        """One block per observation."""
        return self.slot.shape[-1]

    def init(self, key: Key[Array, ""]) -> Params:
        """The initial table; needs no randomness."""
        return jnp.asarray(self.initial)

    def values(self, block: Block, observation: Int[Array, ""]) -> Float[Array, "A"]:
        """The row itself."""
        return block


@struct.dataclass
class Linear(Shown):
    """Q(o,a) = offset(o,a) + psi(o,a)' theta_i with one theta per agent, 0 at the start.

    features psi: [O, A, p]; offset: [O, A] (the network at initialisation, for tangent features).
    """

    slot: Int[Arr, "*batch O"]
    features: Float[Arr, "*batch O A p"]
    offset: Float[Arr, "*batch O A"]
    agents: int = struct.field(pytree_node=False)

    @property
    def num_slots(self) -> int:
        """One block per agent."""
        return self.agents

    def init(self, key: Key[Array, ""]) -> Params:
        """Zero parameters; needs no randomness."""
        return jnp.zeros((self.agents, self.features.shape[-1]), self.features.dtype)

    def values(self, block: Block, observation: Int[Array, ""]) -> Float[Array, "A"]:
        """offset + psi theta."""
        features = jnp.asarray(self.features)[observation]
        return jnp.asarray(self.offset)[observation] + jnp.sum(features * block[None, :], axis=-1)

    def _facts_(self) -> list[Fact]:
        *_, observations, options, count = np.shape(self.features)
        return [Fact("agents", self.agents), Fact("observations", observations), Fact("options", options),
                Fact("features", count)]  # fmt: skip


SHORT = 1024  # sums of 4096 and more are handed to a library, which keeps a loop from becoming one kernel


def total(x: Float[Array, "..."]) -> Float[Array, ""]:
    """The sum of all elements, folded until it is short enough for one kernel."""
    x = jnp.ravel(x)
    while x.shape[0] > SHORT:
        half = -(-x.shape[0] // 2)
        x = x[:half] + jnp.pad(x[half:], (0, 2 * half - x.shape[0]))
    return jnp.sum(x)


def tabular(m: ICSMDP, initial: float = 0.0, dtype: Any = np.float32) -> Tabular:
    """The tabular class of an instance; learned in double precision with dtype np.float64."""
    shape, initial = (m.num_observations, m.num_options), real("initial", initial)
    return Tabular(slot=jnp.arange(shape[0], dtype=jnp.int32), initial=np.full(shape, initial, dtype))


def linear(m: ICSMDP, features: Float[Arr, "O A p"], offset: Float[Arr, "O A"] | None = None) -> Linear:
    """The linear class of given features, one parameter vector per agent.  Raises ValueError on a shape mismatch."""
    shape = (m.num_observations, m.num_options)
    if np.ndim(features) != 3 or features.shape[:2] != shape:
        raise ValueError(f"features: shape {np.shape(features)}, expected {shape} + (p,): one row for every pair")
    offset = np.zeros(shape, features.dtype) if offset is None else offset
    if np.shape(offset) != shape:
        raise ValueError(f"offset: shape {np.shape(offset)}, expected (O, A) = {shape}")
    for name, table in (("features", features), ("offset", offset)):
        within(name, table, -MAX)
    return Linear(slot=agent_slot(m), features=features, offset=offset, agents=m.num_agents)


def random_features(m: ICSMDP, count: int, seed: int, dtype: Any = np.float32) -> Linear:
    """|Gaussian| features of an agent's local observation and option, one encoder shared by all agents.

    Scaled so that the longest vector has length 1.  Fewer features than an agent has pairs make a misspecified class,
    whose residuals have a sign per local observation for all agents alike.  Raises ValueError for count < 1.
    """
    count, seed = whole("count", count), whole("seed", seed, least=0, most=2**32 - 1)
    rank = local_rank(m)
    room(f"count = {count}: the table of features", 8 * count * m.num_options * (len(rank) + int(rank.max()) + 1))
    psi = np.abs(np.random.default_rng(seed).normal(size=(int(rank.max()) + 1, m.num_options, count)))[rank]
    psi /= np.linalg.norm(psi, axis=-1).max()
    return linear(m, psi.astype(dtype))


def local_rank(m: ICSMDP) -> Int[np.ndarray, "O"]:
    """Each observation's position among those of its agent."""
    agent = np.asarray(m.agent)
    order = np.argsort(agent, kind="stable")
    first = np.searchsorted(agent[order], agent[order])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(agent)) - first
    return rank


def take(params: Params, slot: int | Int[Arr, ""]) -> Block:
    """The block of one slot."""
    return jax.tree.map(lambda leaf: at(leaf, jnp.asarray(slot, jnp.int32)), params)


def row(params: Params, slot: Int[Arr, ""]) -> Params:
    """The block of one slot, its leading axis kept: an update that only ever sees this shape happens in place."""
    return jax.tree.map(lambda x: cut(x, slot), params)


def put(params: Params, slot: Int[Arr, ""], block: Block) -> Params:
    """Parameters with one block, its leading axis kept, replaced."""
    return jax.tree.map(
        lambda x, b: jax.lax.dynamic_update_slice(x, b, _start(x, slot), allow_negative_indices=False), params, block
    )


def put_at(x: Arr, value: Num[Array, ""], *index: Int[Arr, ""]) -> Array:
    """x with one entry replaced."""
    block = jnp.reshape(value, (1,) * np.ndim(x))
    return jax.lax.dynamic_update_slice(jnp.asarray(x), block, _start(x, *index), allow_negative_indices=False)


def at(x: Arr, *index: Int[Arr, ""]) -> Array:
    """x[index] along the leading axes, as a slice: indices are known to be inside, and none is negative."""
    return jnp.reshape(cut(x, *index), np.shape(x)[len(index) :])


def cut(x: Arr, *index: Int[Arr, ""]) -> Array:
    """x[index] with its leading axes kept."""
    sizes = (1,) * len(index) + np.shape(x)[len(index) :]
    return jax.lax.dynamic_slice(jnp.asarray(x), _start(x, *index), sizes, allow_negative_indices=False)


def _start(x: Arr, *index: Int[Arr, ""]) -> list[Array]:
    """Unsigned, because they are clamped with fewer instructions."""
    return [jnp.asarray(i, jnp.uint32) for i in (*index, *(0,) * (np.ndim(x) - len(index)))]


def q_table(cls: FunctionClass, params: Params) -> Float[Array, "O A"]:
    """Q(o, a) for every observation and option (0-masked nowhere: unavailable options hold arbitrary numbers)."""
    slot = jnp.asarray(cls.slot)
    evaluate: Callable[..., Any] = lambda o: cls.values(take(params, slot[o]), o)  # noqa: E731
    return jax.vmap(evaluate)(jnp.arange(slot.shape[0]))


def agent_slot(m: ICSMDP) -> Int[Array, "O"]:
    """One block per agent."""
    return jnp.asarray(m.agent, jnp.int32)
