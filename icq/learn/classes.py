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
from flax import linen, struct
from jaxtyping import Array, Float, Int, Key, Num

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
ROWS = 4  # rows of a kernel summed at once
UNIFORM = linen.initializers.lecun_uniform()  # compiles several times faster than truncated normals


class MLP(linen.Module):
    """`depth` hidden tanh layers of `width` units, then one linear output per option; `bias`: of all layers or none."""

    width: int
    depth: int
    options: int
    bias: bool = True

    @linen.compact
    def __call__(self, x: Float[Array, "F"]) -> Float[Array, "A"]:
        """Values of all options at an encoded observation."""
        for _ in range(self.depth):
            x = jnp.tanh(linen.Dense(self.width, self.bias, kernel_init=UNIFORM)(x))
        return linen.Dense(self.options, self.bias, kernel_init=UNIFORM)(x)


def total(x: Float[Array, "..."]) -> Float[Array, ""]:
    """The sum of all elements, folded until it is short enough for one kernel."""
    x = jnp.ravel(x)
    while x.shape[0] > SHORT:
        half = -(-x.shape[0] // 2)
        x = x[:half] + jnp.pad(x[half:], (0, 2 * half - x.shape[0]))
    return jnp.sum(x)


def _hidden(x: Float[Array, "n"], layer: Any, slot: Int[Array, ""]) -> Float[Array, "m"]:
    """tanh(x' kernel + bias) of one slot, a few rows of the kernel at a time and read where they lie."""
    kernel, (_, rows, columns) = layer["kernel"], layer["kernel"].shape

    def term(i: Int[Array, ""]) -> Float[Array, "1 1 m"]:
        return at(x, i) * _cut(kernel, slot, i)

    def together(first: Int[Array, ""], count: int) -> Float[Array, "1 1 m"]:
        terms = [term(first + i) for i in range(count)]
        while len(terms) > 1:
            terms = [a + b for a, b in zip(terms[::2], terms[1::2])] + terms[len(terms) - len(terms) % 2 :]
        return terms[0]

    acc = jnp.zeros((1, 1, columns), x.dtype)
    if "bias" in layer:
        acc = jax.lax.broadcast_in_dim(row(layer["bias"], slot), (1, 1, columns), (0, 2))
    acc = jax.lax.fori_loop(0, rows // ROWS, lambda j, acc: acc + together(j * ROWS, ROWS), acc)
    if rows % ROWS:
        acc = acc + together(jnp.int32(rows - rows % ROWS), rows % ROWS)
    return jnp.tanh(acc).reshape(columns)


def _pair_sum(x: Float[Array, "n m"]) -> Float[Array, "m"]:
    """The sum over the first axis in pairs, so that the additions of a level do not wait for each other."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        folded = x[:half] + x[half : 2 * half]
        x = folded if x.shape[0] % 2 == 0 else jnp.concatenate([folded, x[2 * half :]])
    return x[0]


@struct.dataclass
class Network(Shown):
    """One Flax network per agent on encoded observations: Q(o, .) = scale network(inputs[o]) + offset[o].

    inputs: [O, F]; offset: None for 0; start: the parameters every run begins with, None for random ones of its own.
    """

    slot: Int[Arr, "*batch O"]
    inputs: Float[Arr, "*batch O F"]
    module: linen.Module = struct.field(pytree_node=False)
    agents: int = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False, default=1.0)
    offset: Float[Arr, "*batch O A"] | None = None
    start: Params | None = None

    @property
    def num_slots(self) -> int:
        """One block per agent."""
        return self.agents

    def init(self, key: Key[Array, ""]) -> Params:
        """The start, or each agent's network from its own key."""
        if self.start is not None:
            return jax.tree.map(jnp.asarray, self.start)
        x = jnp.zeros_like(jnp.asarray(self.inputs)[0])
        return jax.vmap(lambda k: self.module.init(k, x)["params"])(jax.random.split(key, self.agents))

    def values(self, block: Block, observation: Int[Array, ""]) -> Float[Array, "A"]:
        """The agent's network at the encoded observation."""
        q = self.module.apply({"params": block}, jnp.asarray(self.inputs)[observation])
        return self._outward(jnp.asarray(q), observation)

    def _outward(self, q: Float[Array, "A"], observation: Int[Array, ""]) -> Float[Array, "A"]:
        q = q if self.scale == 1.0 else self.scale * q
        return q if self.offset is None else q + at(self.offset, observation)

    def forward(self, params: Params, observation: Int[Array, ""]) -> tuple[Float[Array, "A"], Any]:
        """By hand for this package's networks: sums of products, which one kernel can hold.  Else automatic."""
        slot, x = at(self.slot, observation), at(self.inputs, observation)
        if not isinstance(self.module, MLP):
            block = take(params, slot)
            return self.values(block, observation), (block, observation)
        layers, units = _layers(params), [x]
        for layer in layers[:-1]:
            units.append(_hidden(units[-1], layer, slot))
        q = _pair_sum(units[-1][:, None] * at(layers[-1]["kernel"], slot))
        q = q + at(layers[-1]["bias"], slot) if self.module.bias else q
        return self._outward(q, observation), (units, [at(layer["kernel"], slot) for layer in layers[1:]])

    def backward(self, residual: Any, c: Float[Array, "A"]) -> Block:
        """Layer by layer from the output."""
        if not isinstance(self.module, MLP):
            block, observation = residual
            return jax.vjp(lambda b: self.values(b, observation), block)[1](c)[0]
        units, kernels = residual
        gradient, c = {}, c if self.scale == 1.0 else self.scale * c
        for i in reversed(range(len(units))):
            gradient[f"Dense_{i}"] = {"kernel": units[i][:, None] * c[None, :]} | (
                {"bias": c} if self.module.bias else {}
            )
            if i > 0:
                c = jnp.sum(kernels[i - 1] * c[None, :], axis=1) * (1.0 - units[i] ** 2)
        return gradient

    def _facts_(self) -> list[Fact]:
        return [
            Fact("agents", self.agents), Fact("observations", np.shape(self.inputs)[-2]),
            Fact("inputs", np.shape(self.inputs)[-1]), Fact("width", getattr(self.module, "width", None)),
            Fact("depth", getattr(self.module, "depth", None)), Fact("module", type(self.module).__name__),
        ]  # fmt: skip


def _layers(params: Params) -> list[Any]:
    """The layers of an `MLP` from the input on."""
    return [params[f"Dense_{i}"] for i in range(len(params))]


def tabular(m: ICSMDP, initial: float = 0.0, dtype: Any = np.float32) -> Tabular:
    """The tabular class of an instance; learned in double precision with dtype np.float64."""
    shape = (m.num_observations, m.num_options)
    return Tabular(slot=jnp.arange(shape[0], dtype=jnp.int32), initial=np.full(shape, initial, dtype))


def linear(m: ICSMDP, features: Float[Arr, "O A p"], offset: Float[Arr, "O A"] | None = None) -> Linear:
    """The linear class of given features, one parameter vector per agent.  Raises ValueError on a shape mismatch."""
    shape = (m.num_observations, m.num_options)
    if np.ndim(features) != 3 or features.shape[:2] != shape:
        raise ValueError(f"features: shape {np.shape(features)}, expected {shape} + (p,): one row for every pair")
    offset = np.zeros(shape, features.dtype) if offset is None else offset
    if np.shape(offset) != shape:
        raise ValueError(f"offset: shape {np.shape(offset)}, expected (O, A) = {shape}")
    return Linear(slot=_agent_slot(m), features=features, offset=offset, agents=m.num_agents)


def random_features(m: ICSMDP, count: int, seed: int, dtype: Any = np.float32) -> Linear:
    """|Gaussian| features of an agent's local observation and option, one encoder shared by all agents.

    Scaled so that the longest vector has length 1.  Fewer features than an agent has pairs make a misspecified class,
    whose residuals have a sign per local observation for all agents alike.  Raises ValueError for count < 1.
    """
    if count < 1:
        raise ValueError(f"count = {count} must be at least 1")
    rank = local_rank(m)
    psi = np.abs(np.random.default_rng(seed).normal(size=(int(rank.max()) + 1, m.num_options, count)))[rank]
    psi /= np.linalg.norm(psi, axis=-1).max()
    return linear(m, psi.astype(dtype))


def network(m: ICSMDP, inputs: Float[Arr, "O F"], width: int, depth: int = 1) -> Network:
    """One tanh MLP per agent on encoded observations.  Raises ValueError on bad sizes."""
    if np.ndim(inputs) != 2 or len(inputs) != m.num_observations:
        raise ValueError(
            f"inputs: shape {np.shape(inputs)}, expected one row per observation ({m.num_observations}, F)"
        )
    if width < 1 or depth < 1:
        raise ValueError(f"width = {width} and depth = {depth} must be at least 1")
    return Network(slot=_agent_slot(m), inputs=jnp.asarray(inputs), module=MLP(width, depth, m.num_options),
                   agents=m.num_agents)  # fmt: skip


def centred_network(m: ICSMDP, width: int, scale: float = 1.0, seed: int = 0) -> Network:
    """Networks for which the theorem bounds a run before it is run (docs/theory.md section 5e), in double precision.

    One hidden layer without biases on one-hot observations, units of unit variance, and what the random start says is
    taken off, so that Q is 0 at first.  All runs start alike; `seed` is that of the start.  Raises ValueError for a bad
    width or scale.
    """
    if width < 1 or not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"width = {width} must be at least 1 and scale = {scale} positive")
    rng, inputs, agents = np.random.default_rng(seed), one_hot_inputs(m).astype(np.float64), m.num_agents
    hidden = rng.uniform(-1, 1, (agents, inputs.shape[1], width)) * np.sqrt(3)
    outward = rng.uniform(-1, 1, (agents, width, m.num_options)) * np.sqrt(3 / width)
    start = {"Dense_0": {"kernel": hidden}, "Dense_1": {"kernel": outward}}
    slot = np.asarray(_agent_slot(m))
    said = np.einsum("oh,oha->oa", np.tanh(np.einsum("of,ofh->oh", inputs, hidden[slot])), outward[slot])
    module = MLP(width, 1, m.num_options, bias=False)
    return Network(_agent_slot(m), inputs, module, agents, float(scale), -scale * said, start)


def neural_tangent(m: ICSMDP, net: Network, params: Params) -> Linear:
    """The linearisation of a network at `params`: features are its gradients, the offset its values there.

    With theta = (flattened parameters minus `params`) this is the network's first-order model (docs/theory.md
    section 4); features keep the network's dtype.
    """

    def of(observation: Int[Array, ""]) -> tuple[Float[Array, "A"], Float[Array, "A p"]]:
        block = take(params, net.slot[observation])
        jacobian = jax.jacrev(lambda b: net.values(b, observation))(block)
        flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(jacobian)]
        return net.values(block, observation), jnp.concatenate(flat, axis=1)

    offset, features = jax.vmap(of)(jnp.arange(m.num_observations))
    return linear(m, features, offset)


def local_rank(m: ICSMDP) -> Int[np.ndarray, "O"]:
    """Each observation's position among those of its agent."""
    agent = np.asarray(m.agent)
    order = np.argsort(agent, kind="stable")
    first = np.searchsorted(agent[order], agent[order])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(agent)) - first
    return rank


def one_hot_inputs(m: ICSMDP) -> Float[np.ndarray, "O F"]:
    """Each observation's rank within its agent, one-hot: the default encoding of a bare instance."""
    rank = local_rank(m)
    return np.eye(int(rank.max()) + 1, dtype=np.float32)[rank]


def random_inputs(m: ICSMDP, dimension: int, seed: int) -> Float[np.ndarray, "O F"]:
    """A Gaussian embedding of each observation: few numbers for many observations make the class's width matter."""
    return np.random.default_rng(seed).normal(size=(m.num_observations, dimension)).astype(np.float32)


def take(params: Params, slot: int | Int[Arr, ""]) -> Block:
    """The block of one slot."""
    return jax.tree.map(lambda leaf: at(leaf, jnp.asarray(slot, jnp.int32)), params)


def row(params: Params, slot: Int[Arr, ""]) -> Params:
    """The block of one slot, its leading axis kept: an update that only ever sees this shape happens in place."""
    return jax.tree.map(lambda x: _cut(x, slot), params)


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
    return jnp.reshape(_cut(x, *index), np.shape(x)[len(index) :])


def _cut(x: Arr, *index: Int[Arr, ""]) -> Array:
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


def _agent_slot(m: ICSMDP) -> Int[Array, "O"]:
    return jnp.asarray(m.agent, jnp.int32)
