"""Workflows that can only be sampled: the interface of an IC-SMDP without its outcome lists.

A global state is any pytree of arrays.  At a handoff the active agent sees `observe(state)` and nothing else, picks an
option, and `act` plays it until the next handoff.  Everything is pure JAX and unbatched; batches are made by vmap.
Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from icq import coerce, laws
from icq.coerce import Instance, Numbers
from icq.display import Shown
from icq.learn import sampling
from icq.smdp import ICSMDP, Arr

State: TypeAlias = Any  # a pytree of arrays
View: TypeAlias = Any  # a pytree of arrays: a vector of numbers, or the code of an observation


@struct.dataclass
class Seen(Shown):
    """What the active agent knows at a handoff: who it is, its view, and which options it has."""

    agent: Int[Array, "*batch"]
    view: View
    available: Bool[Array, "*batch A"]


@struct.dataclass
class Effect(Shown):
    """How an option ended.  reward is already discounted inside the option; duration >= 1 primitive steps; done: the
    task ended and `state` is its last state (a new task begins with `start`).
    """  # fmt: skip

    state: State
    reward: Float[Array, "*batch"]
    duration: Int[Array, "*batch"]
    done: Bool[Array, "*batch"]


@runtime_checkable
class Environment(Protocol):
    """A workflow to sample from; every implementation is a pytree, so one compiled program serves all instances.

    agents, options: their numbers (options padded).  gamma: discount per primitive step.
    """

    @property
    def agents(self) -> int:
        """N."""
        ...

    @property
    def options(self) -> int:
        """A."""
        ...

    @property
    def gamma(self) -> float | Float[Arr, ""]:
        """Discount per primitive step."""
        ...

    def start(self, key: Key[Array, ""]) -> State:
        """The first state of a task."""
        ...

    def observe(self, state: State) -> Seen:
        """The interface: what the active agent sees."""
        ...

    def act(self, state: State, option: Int[Array, ""], key: Key[Array, ""]) -> Effect:
        """Play an option until the next handoff or the end of the task."""
        ...


@struct.dataclass
class Finite(Shown):
    """An IC-SMDP as an environment; views are observation codes.  Tasks begin in the law `starts`."""

    instance: ICSMDP
    starts: Float[Arr, "S"]
    agents: int = struct.field(pytree_node=False)

    @property
    def options(self) -> int:
        """A."""
        return self.instance.num_options

    @property
    def gamma(self) -> float | Float[Arr, ""]:
        """Discount per primitive step."""
        return self.instance.gamma

    def start(self, key: Key[Array, ""]) -> Int[Array, ""]:
        """s_0 from the law of starts."""
        return jax.random.choice(key, self.starts.shape[0], p=jnp.asarray(self.starts)).astype(jnp.int32)

    def observe(self, state: Int[Array, ""]) -> Seen:
        """phi(s), its agent and its options."""
        m, state = self.instance, _inside("state", state, self.instance.num_states)
        o = jnp.asarray(m.observation)[state]
        return Seen(jnp.asarray(m.agent)[o], o, jnp.asarray(m.available)[o])

    def act(self, state: Int[Array, ""], option: Int[Array, ""], key: Key[Array, ""]) -> Effect:
        """b ~ P(.|s,a)."""
        m, option = self.instance, _inside("option", option, self.options)
        state = _inside("state", state, m.num_states)
        b = jax.random.choice(key, m.prob.shape[-1], p=jnp.asarray(m.prob)[state, option])
        cell = (state, option, b)
        following = jnp.asarray(m.next_state)[cell]
        return Effect(following, jnp.asarray(m.reward)[cell], jnp.asarray(m.duration)[cell],
                      jnp.asarray(m.terminal)[cell])  # fmt: skip


def finite(model: Instance, starts: Numbers) -> Finite:
    """An IC-SMDP as an environment in single precision; what follows an ending is drawn from `starts` instead.

    starts: weights of the global states [S], not all 0.  Raises ValueError for other ones, naming the state, and for
    what single precision cannot hold.
    """
    m = coerce.instance(model)
    sampling.check_single(m)
    law = laws.law("starts", starts, m.num_states)
    single = replace(
        m, prob=jnp.asarray(m.prob, jnp.float32), reward=jnp.asarray(m.reward, jnp.float32),
        next_state=jnp.asarray(m.next_state, jnp.int32), duration=jnp.asarray(m.duration, jnp.int32),
        gamma=jnp.asarray(m.gamma, jnp.float32), observation=jnp.asarray(m.observation, jnp.int32),
    )  # fmt: skip
    return Finite(single, jnp.asarray(law, jnp.float32), m.num_agents)


def _inside(name: str, code: Int[Array, ""], among: int) -> Int[Array, ""]:
    """A code as it is.  Raises ValueError for one that is none of 0..among-1; inside a compiled program none is."""
    if not isinstance(code, jax.core.Tracer):
        coerce.count(name, code, least=0, most=among - 1)
    return code


@struct.dataclass
class Centralised(Shown):
    """The same workflow in which every agent sees `look(env, state)` instead of its own interface."""

    env: Any
    look: Callable[[Any, State], View] = struct.field(pytree_node=False)

    @property
    def agents(self) -> int:
        """N."""
        return int(self.env.agents)

    @property
    def options(self) -> int:
        """A."""
        return int(self.env.options)

    @property
    def gamma(self) -> float | Float[Arr, ""]:
        """Discount per primitive step."""
        return self.env.gamma

    def start(self, key: Key[Array, ""]) -> State:
        """As the workflow."""
        return self.env.start(key)

    def observe(self, state: State) -> Seen:
        """Who acts and which options it has, with the common view."""
        return replace(self.env.observe(state), view=self.look(self.env, state))

    def act(self, state: State, option: Int[Array, ""], key: Key[Array, ""]) -> Effect:
        """As the workflow."""
        return self.env.act(state, option, key)


def discount(env: Environment, effect: Effect) -> Float[Array, ""]:
    """g = gamma^tau, 0 when the task ended."""
    power = jnp.asarray(env.gamma, jnp.float32) ** effect.duration.astype(jnp.float32)
    return jnp.where(effect.done, 0.0, power)


def proceed(env: Environment, effect: Effect, key: Key[Array, ""]) -> State:
    """The state of the next handoff: where the option led, or the start of a new task."""
    fresh = env.start(key)
    return jax.tree.map(partial(jnp.where, effect.done), fresh, effect.state)
