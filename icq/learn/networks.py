"""Networks: one per agent on encoded observations, as a function class (`icq.learn.classes`).

Notation: docs/theory.md sections 1, 4 and 5e.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, struct
from jaxtyping import Array, Float, Int, Key

from icq.coerce import MAX, count, real, room, within
from icq.display import Fact, Shown
from icq.learn.classes import Block, Linear, Params, agent_slot, at, cut, linear, local_rank, row, take
from icq.smdp import ICSMDP, Arr

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


def _hidden(x: Float[Array, "n"], layer: Any, slot: Int[Array, ""]) -> Float[Array, "m"]:
    """tanh(x' kernel + bias) of one slot, a few rows of the kernel at a time and read where they lie."""
    kernel, (_, rows, columns) = layer["kernel"], layer["kernel"].shape

    def term(i: Int[Array, ""]) -> Float[Array, "1 1 m"]:
        return at(x, i) * cut(kernel, slot, i)

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


def network(m: ICSMDP, inputs: Float[Arr, "O F"], width: int, depth: int = 1) -> Network:
    """One tanh MLP per agent on encoded observations.  Raises ValueError on bad sizes."""
    if np.ndim(inputs) != 2 or len(inputs) != m.num_observations:
        raise ValueError(
            f"inputs: shape {np.shape(inputs)}, expected one row per observation ({m.num_observations}, F)"
        )
    width, depth = _sizes(m, np.shape(inputs)[1], width, depth)
    within("inputs", inputs, -MAX)
    return Network(slot=agent_slot(m), inputs=jnp.asarray(inputs), module=MLP(width, depth, m.num_options),
                   agents=m.num_agents)  # fmt: skip


def centred_network(m: ICSMDP, width: int, scale: float = 1.0, seed: int = 0) -> Network:
    """Networks for which the theorem bounds a run before it is run (docs/theory.md section 5e), in double precision.

    One hidden layer without biases on one-hot observations, units of unit variance, and what the random start says is
    taken off, so that Q is 0 at first.  All runs start alike; `seed` is that of the start.  Raises ValueError for a bad
    width or scale.
    """
    scale = real("scale", scale, low=float(np.finfo(np.float64).tiny))
    width, _ = _sizes(m, int(local_rank(m).max()) + 1, width, 1)
    rng, inputs, agents = np.random.default_rng(seed), one_hot_inputs(m).astype(np.float64), m.num_agents
    hidden = rng.uniform(-1, 1, (agents, inputs.shape[1], width)) * np.sqrt(3)
    outward = rng.uniform(-1, 1, (agents, width, m.num_options)) * np.sqrt(3 / width)
    start = {"Dense_0": {"kernel": hidden}, "Dense_1": {"kernel": outward}}
    slot = np.asarray(agent_slot(m))
    said = np.einsum("oh,oha->oa", np.tanh(np.einsum("of,ofh->oh", inputs, hidden[slot])), outward[slot])
    module = MLP(width, 1, m.num_options, bias=False)
    return Network(agent_slot(m), inputs, module, agents, float(scale), -scale * said, start)


def _sizes(m: ICSMDP, inputs: int, width: int, depth: int) -> tuple[int, int]:
    """The sizes as whole numbers.  Raises ValueError for others, and for networks that no memory holds."""
    width, depth = count("width", width), count("depth", depth, most=1000)
    weights = m.num_agents * width * (inputs + m.num_options + (depth - 1) * width)
    room(f"width = {width}, depth = {depth}: the weights of {m.num_agents} networks", 8 * weights)
    return width, depth


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


def one_hot_inputs(m: ICSMDP) -> Float[np.ndarray, "O F"]:
    """Each observation's rank within its agent, one-hot: the default encoding of a bare instance."""
    rank = local_rank(m)
    return np.eye(int(rank.max()) + 1, dtype=np.float32)[rank]


def random_inputs(m: ICSMDP, dimension: int, seed: int) -> Float[np.ndarray, "O F"]:
    """A Gaussian embedding of each observation: few numbers for many observations make the class's width matter."""
    return np.random.default_rng(seed).normal(size=(m.num_observations, dimension)).astype(np.float32)
