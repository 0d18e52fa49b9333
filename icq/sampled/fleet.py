"""IC-Q on sampled environments: many copies of a workflow, one Q-network per agent, one scalar per handoff.

E copies of the workflow move in step.  In every copy the active agent picks an option, the next agent returns
m = max_a Q_j(view', a), and each agent moves its own parameters by the mean semi-gradient of its own handoffs among
the E:

    theta_i <- theta_i + U( mean_{e: agent = i} delta_e grad Q_i(view_e, a_e) ),   delta = R + g m - Q_i(view, a)

with U an Optax transformation with state per agent.  An agent that did not act in any copy does not move.  Notation:
docs/theory.md section 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, struct
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from icq.coerce import count, within
from icq.display import Fact, Shown, spread
from icq.learn import td
from icq.learn.classes import Block, Params, take
from icq.learn.networks import MLP
from icq.sampled.environment import Effect, Environment, Finite, Seen, State, View, discount, proceed

Number: TypeAlias = float | Float[Array, ""]


@runtime_checkable
class ViewClass(Protocol):
    """A class of Q-functions of views: one block of parameters per agent."""

    def init(self, key: Key[Array, ""]) -> Params:
        """Initial parameters, leaves [N, ...]."""
        ...

    def values(self, block: Block, view: View) -> Float[Array, "A"]:
        """Q_i(view, .) from agent i's block."""
        ...


@struct.dataclass
class CodeTable(Shown):
    """A table over observation codes, one per agent, `initial` at the start."""

    agents: int = struct.field(pytree_node=False)
    codes: int = struct.field(pytree_node=False)
    options: int = struct.field(pytree_node=False)
    initial: Number = 0.0

    def init(self, key: Key[Array, ""]) -> Params:
        """Constant tables; needs no randomness."""
        return jnp.full((self.agents, self.codes, self.options), self.initial, jnp.float32)

    def values(self, block: Block, view: Int[Array, ""]) -> Float[Array, "A"]:
        """The row of the code."""
        return block[view]


@struct.dataclass
class ViewNetwork(Shown):
    """One Flax network per agent on views that are vectors of length `size`."""

    module: linen.Module = struct.field(pytree_node=False)
    agents: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)

    def init(self, key: Key[Array, ""]) -> Params:
        """Each agent's network from its own key."""
        zero = jnp.zeros(self.size, jnp.float32)
        return jax.vmap(lambda k: self.module.init(k, zero)["params"])(jax.random.split(key, self.agents))

    def values(self, block: Block, view: Float[Array, "F"]) -> Float[Array, "A"]:
        """The agent's network at the view."""
        return jnp.asarray(self.module.apply({"params": block}, view))


def view_network(env: Environment, width: int, depth: int = 1) -> ViewNetwork:
    """One tanh MLP per agent for an environment whose views are vectors.  Raises ValueError for others."""
    width, depth = count("width", width), count("depth", depth, most=1000)
    view = jax.eval_shape(lambda key: env.observe(env.start(key)).view, jax.random.key(0))
    if np.ndim(view) != 1:
        raise ValueError(f"views: shape {np.shape(view)}, expected vectors; a CodeTable learns from codes")
    return ViewNetwork(MLP(width, depth, env.options), env.agents, int(view.shape[0]))


@struct.dataclass
class FleetConfig(Shown):
    """How a fleet learns.

    copies: E.  optimiser: U with its step size and sign inside, e.g. `optax.adam(1e-3)`; it is given the gradient of
    half the squared error.  epsilon: exploration falls linearly from the first to the second number over the first
    `anneal` updates.  lag: scalars are answered by a copy of the parameters that follows at this rate per update (1:
    the parameters themselves).  scalars: False cuts the scalar at every change of agent (independent learners).
    Raises ValueError for a number outside its range, where it is one and no tracer.
    """

    copies: int = struct.field(pytree_node=False, default=64)
    optimiser: optax.GradientTransformation = struct.field(pytree_node=False, default_factory=lambda: optax.adam(1e-3))
    epsilon: tuple[Number, Number] = (1.0, 0.05)
    anneal: Number = 1000.0
    lag: Number = 1.0
    scalars: bool | Bool[Array, ""] = True

    def __post_init__(self) -> None:
        if isinstance(self.copies, int):
            count("copies", self.copies)
        for name, value in zip(("epsilon[0]", "epsilon[1]"), self.epsilon):
            within(name, value, 0.0, 1.0)
        within("anneal", self.anneal, np.finfo(np.float64).tiny)
        within("lag", self.lag, 0.0, 1.0)

    def explore(self, k: Int[Array, ""]) -> Float[Array, ""]:
        """Probability of a uniform option at update k."""
        first, last = self.epsilon
        return first + (last - first) * jnp.minimum(k.astype(jnp.float32) / self.anneal, 1.0)


@struct.dataclass
class Fleet(Shown):
    """Everything a run carries: parameters and their lagged copy [N, ...], Optax state [N, ...], states [E, ...]."""

    params: Params
    lagged: Params
    opt_state: Any
    states: State
    k: Int[Array, ""]

    def _facts_(self) -> list[Fact]:
        return [Fact("copies", np.shape(jax.tree.leaves(self.states)[0])[0]), Fact("updates", self.k),
                Fact("parameters", self.params)]  # fmt: skip


@struct.dataclass
class Step(Shown):
    """One handoff as the agents lived it; what a log keeps.  probability: of the option when it was picked."""

    seen: Seen
    option: Int[Array, "*batch"]
    probability: Float[Array, "*batch"]
    reward: Float[Array, "*batch"]
    duration: Int[Array, "*batch"]
    discount: Float[Array, "*batch"]
    done: Bool[Array, "*batch"]
    following: Seen
    scalar: Float[Array, "*batch"]


@jax.jit
def init(env: Environment, cls: ViewClass, config: FleetConfig, key: Key[Array, ""]) -> Fleet:
    """Fresh parameters and E fresh tasks.  Raises ValueError for a class that does not fit the environment."""
    _check(env, cls)
    weights, starts = jax.random.split(key)
    params = cls.init(weights)
    states = jax.vmap(env.start)(jax.random.split(starts, config.copies))
    return Fleet(params, params, jax.vmap(config.optimiser.init)(params), states, jnp.int32(0))


def _check(env: Environment, cls: ViewClass) -> None:
    """Raise ValueError for a class whose tables are too small: what lies outside them would be read inside."""
    params = jax.eval_shape(cls.init, jax.random.key(0))
    agents = {leaf.shape[:1] for leaf in jax.tree.leaves(params)}
    if agents != {(env.agents,)}:
        raise ValueError(f"cls: parameters of {sorted(agents)} agents, the environment has {env.agents}")

    def values(params: Params, key: Key[Array, ""]) -> Float[Array, "A"]:
        return cls.values(take(params, 0), env.observe(env.start(key)).view)

    if (made := jax.eval_shape(values, params, jax.random.key(0)).shape) != (env.options,):
        raise ValueError(f"cls: values of shape {made}, expected one for each of {env.options} options")
    if isinstance(env, Finite) and isinstance(cls, CodeTable) and cls.codes < env.instance.num_observations:
        raise ValueError(f"codes = {cls.codes}: the workflow has {env.instance.num_observations} observations")


def pick(
    q: Float[Array, "A"], available: Bool[Array, "A"], epsilon: Float[Array, ""], key: Key[Array, ""]
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """An epsilon-greedy option among the available ones, and its probability."""
    best = jnp.argmax(jnp.where(available, q, -jnp.inf))
    uniform = available.astype(q.dtype) / jnp.sum(available.astype(q.dtype))
    law = epsilon * uniform + (1.0 - epsilon) * jax.nn.one_hot(best, q.shape[0], dtype=q.dtype)
    option = jax.random.categorical(key, jnp.log(law)).astype(jnp.int32)
    return option, law[option]


def handoff(
    env: Environment, cls: ViewClass, config: FleetConfig, fleet: Fleet, state: State, key: Key[Array, ""]
) -> tuple[State, Step]:
    """One handoff of one copy: pick, play, and ask the next agent for its scalar."""
    picking, acting, starting = jax.random.split(key, 3)
    seen = env.observe(state)
    q = cls.values(take(fleet.params, seen.agent), seen.view)
    option, probability = pick(q, seen.available, config.explore(fleet.k), picking)
    effect: Effect = env.act(state, option, acting)
    state = proceed(env, effect, starting)
    following = env.observe(state)
    m = td.scalar(cls.values(take(fleet.lagged, following.agent), following.view), following.available)
    told = jnp.logical_or(config.scalars, following.agent == seen.agent)
    g = jnp.where(told, discount(env, effect), 0.0)
    return state, Step(seen, option, probability, effect.reward, effect.duration, g, effect.done, following, m)


def update(
    env: Environment, cls: ViewClass, config: FleetConfig, fleet: Fleet, key: Key[Array, ""]
) -> tuple[Fleet, Step]:
    """One handoff in every copy, then one step of every agent that acted.  Returns the handoffs [E]."""
    keys = jax.random.split(key, config.copies)
    states, steps = jax.vmap(partial(handoff, env, cls, config, fleet))(fleet.states, keys)
    agent, goal = steps.seen.agent, jax.vmap(td.target)(steps.reward, steps.discount, steps.scalar)
    acts = jnp.zeros(env.agents, jnp.float32).at[agent].add(1.0)

    def loss(params: Params) -> Float[Array, ""]:
        q = jax.vmap(lambda i, view: cls.values(take(params, i), view))(agent, steps.seen.view)
        error = goal - jnp.take_along_axis(q, steps.option[:, None], axis=1)[:, 0]
        return jnp.sum(0.5 * error**2 / acts[agent])

    acted = acts > 0
    with jax.numpy_dtype_promotion("standard"):  # Optax's counters rely on implicit promotion
        move, opt_state = jax.vmap(config.optimiser.update)(jax.grad(loss)(fleet.params), fleet.opt_state, fleet.params)
    params = jax.tree.map(lambda p, d: p + _only(acted, d, jnp.zeros_like(d)), fleet.params, move)
    opt_state = jax.tree.map(partial(_only, acted), opt_state, fleet.opt_state)
    lagged = jax.tree.map(lambda old, new: old + config.lag * (new - old), fleet.lagged, params)
    return replace(fleet, params=params, lagged=lagged, opt_state=opt_state, states=states, k=fleet.k + 1), steps


def _only(acted: Bool[Array, "N"], new: Shaped[Array, "N ..."], old: Shaped[Array, "N ..."]) -> Shaped[Array, "N ..."]:
    return jnp.where(acted.reshape(acted.shape + (1,) * (new.ndim - 1)), new, old)


@partial(jax.jit, static_argnames=("updates",))
def train(
    env: Environment, cls: ViewClass, config: FleetConfig, fleet: Fleet, key: Key[Array, ""], updates: int
) -> tuple[Fleet, Float[Array, "updates"]]:
    """`updates` updates in one compiled loop; returns the mean reward per handoff of each.

    Update k of a run uses fold_in(key, k), so a run cut in pieces equals the whole.  Raises ValueError for fewer than
    one.
    """
    updates = count("updates", updates)

    def body(fleet: Fleet, _: None) -> tuple[Fleet, Float[Array, ""]]:
        fleet, steps = update(env, cls, config, fleet, jax.random.fold_in(key, fleet.k))
        return fleet, jnp.mean(steps.reward)

    return jax.lax.scan(body, fleet, None, length=updates)


@struct.dataclass
class Episode(Shown):
    """One task played to its end (or to the limit, then not `done`): discounted return, handoffs, primitive steps."""

    value: Float[Array, "*batch"]
    handoffs: Int[Array, "*batch"]
    duration: Int[Array, "*batch"]
    done: Bool[Array, "*batch"]
    state: State

    def _facts_(self) -> list[Fact]:
        return [
            Fact("episodes", np.shape(self.value)), Fact("value", spread(self.value), "reward"),
            Fact("handoffs", spread(self.handoffs)), Fact("duration", spread(self.duration), "primitive steps"),
            Fact("finished", f"{int(np.asarray(self.done).sum())} of {np.size(self.done)}"),
        ]  # fmt: skip


def play(env: Environment, cls: ViewClass, params: Params, state: State, key: Key[Array, ""], limit: int) -> Episode:
    """A task from `state` with every agent greedy.  Unbatched: vmap over states and keys.

    Raises ValueError for a limit below one handoff.
    """
    limit = count("limit", limit)

    def body(carry: tuple[Episode, Float[Array, ""]], k: Int[Array, ""]) -> tuple[Any, None]:
        episode, g = carry
        seen = env.observe(episode.state)
        q = cls.values(take(params, seen.agent), seen.view)
        option = jnp.argmax(jnp.where(seen.available, q, -jnp.inf)).astype(jnp.int32)
        effect = env.act(episode.state, option, jax.random.fold_in(key, k))
        after = Episode(episode.value + g * effect.reward, episode.handoffs + 1,
                        episode.duration + effect.duration.astype(jnp.int32), effect.done, effect.state)  # fmt: skip
        over = episode.done
        episode = jax.tree.map(lambda old, new: jnp.where(over, old, new), episode, after)
        return (episode, jnp.where(over, g, g * discount(env, effect))), None

    first = Episode(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.asarray(False), state)
    (episode, _), _ = jax.lax.scan(body, (first, jnp.float32(1)), jnp.arange(limit))
    return episode
