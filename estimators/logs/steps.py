"""The log that agents leave while they work on a sampled environment (`icq.sampled.fleet`).

Every copy of the workflow is one chain of handoffs across tasks.  Views that are vectors are logged with the agent in
front: two agents may see equal numbers, but an observation of a log belongs to one agent.  Notation: docs/theory.md
sections 1 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from estimators.logs.log import Log
from icq.sampled.environment import Environment, State
from icq.sampled.fleet import Fleet, FleetConfig, Step, ViewClass, handoff

Context: TypeAlias = Callable[[Any, State], Array]  # of a global state: a whole number, or a vector of numbers


def watch(
    env: Environment,
    cls: ViewClass,
    config: FleetConfig,
    fleet: Fleet,
    key: Key[Array, ""],
    handoffs: int,
    context: Context | None = None,
) -> Log:
    """The log of the next `handoffs` handoffs of every copy, nobody learning meanwhile.

    config: its exploration at the fleet's update is the behaviour.  context(env, state): logged beside each view; the
    richer it is, the more of the interface gap a diagnosis finds.  Raises ValueError for fewer than one handoff.
    """
    if handoffs < 1:
        raise ValueError(f"handoffs = {handoffs} must be at least 1")
    steps, contexts = _watch(env, cls, config, fleet, key, handoffs, context)
    return from_steps(float(np.asarray(env.gamma)), steps, contexts)


@partial(jax.jit, static_argnames=("handoffs", "context"))
def _watch(
    env: Environment, cls: ViewClass, config: FleetConfig, fleet: Fleet, key: Key[Array, ""], handoffs: int,
    context: Context | None,
) -> tuple[Step, Array | None]:  # fmt: skip
    look = None if context is None else jax.vmap(partial(context, env))

    def body(states: State, k: Int[Array, ""]) -> tuple[State, tuple[Step, Array | None]]:
        keys = jax.random.split(jax.random.fold_in(key, k), config.copies)
        after, steps = jax.vmap(partial(handoff, env, cls, config, fleet))(states, keys)
        return after, (steps, None if look is None else look(states))

    return jax.lax.scan(body, fleet.states, jnp.arange(handoffs, dtype=jnp.int32))[1]


def from_steps(gamma: float, steps: Step, context: Array | None = None) -> Log:
    """The log of steps [T, E] of E copies; context [T, E] or [T, E, C].

    Handoffs of a copy stand together.  A copy that was in the midst of a task begins with k = 0 all the same.
    """

    def chains(x: Array) -> np.ndarray:
        return np.swapaxes(np.asarray(x), 0, 1).reshape(-1, *x.shape[2:])

    length = steps.done.shape[0]
    done, agent, following = chains(steps.done), chains(steps.seen.agent), chains(steps.following.agent)
    begins = np.arange(len(done)) % length == 0
    first = begins | np.append(True, done[:-1])
    task = np.cumsum(first) - 1
    seen, after = chains(steps.seen.view), chains(steps.following.view)
    if seen.ndim == 1:
        features, codes = None, np.concatenate([seen, after]).astype(np.int64)
    else:
        told = np.concatenate([np.column_stack([agent, seen]), np.column_stack([following, after])])
        features, codes = _distinct(told.astype(np.float64))
    observation, onward = np.split(codes, 2)
    return Log(
        gamma=gamma, task=task, k=np.arange(len(done)) - np.flatnonzero(first)[task], agent=agent,
        observation=observation, option=chains(steps.option), reward=chains(steps.reward).astype(np.float64),
        duration=chains(steps.duration), done=done, next_agent=following, next_observation=onward,
        scalar=np.where(done, np.nan, chains(steps.scalar).astype(np.float64)), follows=~begins,
        context=None if context is None else _coded(chains(context)),
        probability=chains(steps.probability).astype(np.float64), features=features,
    )  # fmt: skip


def _distinct(rows: Float[np.ndarray, "n F"]) -> tuple[Float[np.ndarray, "O F"], Int[np.ndarray, "n"]]:
    """The distinct rows and the code of each."""
    distinct, codes = np.unique(rows, axis=0, return_inverse=True)
    return distinct, codes.reshape(-1)


def _coded(context: np.ndarray) -> Int[np.ndarray, "n"]:
    return context.astype(np.int64) if context.ndim == 1 else _distinct(context.astype(np.float64))[1]
