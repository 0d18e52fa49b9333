"""Workflows as PettingZoo and Gymnasium environments, for other libraries' algorithms (optional extra `bridges`).

PettingZoo's agent-environment cycle is the handoff workflow: one agent acts at a time, and a handoff is the selection
of the next agent.  Gymnasium gets the centralised problem: one learner that sees the global state.  Notation:
docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from icq import coerce
from icq.coerce import Instance, Numbers
from icq.sampled.environment import Environment, Seen, State, View, finite

try:
    import gymnasium
    from gymnasium import spaces
    from pettingzoo import AECEnv
except ImportError as error:
    raise ImportError("bridges: PettingZoo or Gymnasium missing; pip install 'icq-bounds[bridges]'") from error


def _space(view: View, codes: int | None) -> spaces.Space[Any]:
    """The space of views like this one: a code in 0..codes-1, or a vector of numbers."""
    if not hasattr(view, "dtype"):
        raise ValueError(
            "views: a tree of arrays; other libraries take one array, with a `look` or `observe` of its own"
        )
    if jnp.issubdtype(view.dtype, jnp.integer) and view.ndim == 0:
        if codes is None:
            raise ValueError("codes: views are codes, so say how many there are")
        return spaces.Discrete(coerce.count("codes", codes))
    return spaces.Box(-np.inf, np.inf, view.shape, np.float32)


_split = jax.jit(lambda key: tuple(jax.random.split(key)))


class _Player:
    """One task at a time, its randomness from a seed; compiled once."""

    def __init__(self, env: Environment, look: Callable[[State], View]) -> None:
        self.start = jax.jit(env.start)
        self.observe = jax.jit(lambda state: (env.observe(state), look(state)))
        self.act = jax.jit(env.act)
        seen, view = jax.eval_shape(lambda key: _plain(env, look, env.start(key)), jax.random.key(0))
        self.local, self.full = seen, view
        self.key = jax.random.key(0)

    def seed(self, seed: int | None, rng: np.random.Generator) -> State:
        """A fresh task; without a seed the stream goes on from `rng`."""
        seed = int(rng.integers(2**31)) if seed is None else coerce.count("seed", seed, least=0, most=2**32 - 1)
        self.key = jax.random.key(seed)
        return self.start(self.next())

    def next(self) -> Array:
        """A key that was never used."""
        self.key, key = _split(self.key)
        return key


def _option(action: Any, options: int) -> int:
    """An action as the code of an option.  Raises ValueError for anything that is none."""
    return coerce.count("action", action, least=0, most=options - 1)


def _plain(env: Environment, look: Callable[[State], View], state: State) -> tuple[View, View]:
    return env.observe(state).view, look(state)


def _numbers(view: View, space: spaces.Space[Any]) -> Any:
    return np.int64(view) if isinstance(space, spaces.Discrete) else np.asarray(view, np.float32)


class HandoffAEC(AECEnv[str, Any, Any]):
    """A workflow as an AEC environment: agents `agent_0`..., an episode is one task.

    Observations are dicts with `observation` (the agent's view; zeros for agents that hold no control, who see nothing)
    and `action_mask`.  The reward of an option goes to the agent that played it, or to all with `shared`.  The info of
    an agent holds the `duration` and the `discount` gamma^duration of its last option: values after it are worth that
    much.  A task longer than `limit` handoffs is truncated.
    """

    metadata: dict[str, Any] = {"name": "handoff_v0", "render_modes": [], "is_parallelizable": False}  # noqa: RUF012

    def __init__(self, env: Environment, *, codes: int | None = None, limit: int = 1000, shared: bool = False) -> None:
        super().__init__()
        self.env, self.limit, self.shared = env, coerce.count("limit", limit), shared
        self._player = _Player(env, lambda state: jnp.int32(0))
        self.possible_agents = [f"agent_{i}" for i in range(env.agents)]
        view = _space(self._player.local, codes)
        mask = spaces.Box(0, 1, (env.options,), np.int8)
        self._views = {name: spaces.Dict({"observation": view, "action_mask": mask}) for name in self.possible_agents}
        self._choices = {name: spaces.Discrete(env.options) for name in self.possible_agents}
        self._rng = np.random.default_rng()
        self.render_mode = None

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Of one agent; always the same object."""
        return self._views[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Of one agent; always the same object."""
        return self._choices[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin a task.  Equal seeds give equal tasks under equal actions."""
        self.agents = self.possible_agents[:]
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {name: {} for name in self.agents}
        self._handoffs = 0
        self._show(self._player.seed(seed, self._rng))

    def _show(self, state: State) -> None:
        self._state = state
        self._seen: Seen = self._player.observe(state)[0]
        self.agent_selection = self.possible_agents[int(self._seen.agent)]

    def observe(self, agent: str) -> dict[str, Any]:
        """The agent's view and options; an agent without control sees zeros and has none."""
        space = self._views[agent]["observation"]
        if agent != self.possible_agents[int(self._seen.agent)]:
            blank = np.zeros_like(self._seen.view)
            return {"observation": _numbers(blank, space), "action_mask": np.zeros(self.env.options, np.int8)}
        mask = np.asarray(self._seen.available, np.int8)
        return {"observation": _numbers(self._seen.view, space), "action_mask": mask}

    def step(self, action: Any) -> None:
        """Play an option of the selected agent.  Raises ValueError for one it does not have."""
        if not hasattr(self, "agent_selection"):
            raise ValueError("step: no task has begun; call reset() first")
        name = self.agent_selection
        if self.terminations[name] or self.truncations[name]:
            self._was_dead_step(action)
            return
        option = _option(action, self.env.options)
        if not bool(self._seen.available[option]):
            raise ValueError(f"action {action} of {name}: not available; its action_mask says which are")
        effect = self._player.act(self._state, jnp.int32(option), self._player.next())
        self._handoffs += 1
        self._cumulative_rewards[name] = 0.0
        earned = float(effect.reward)
        self.rewards = {other: earned if self.shared or other == name else 0.0 for other in self.agents}
        duration = int(effect.duration)
        self.infos[name] = {"duration": duration, "discount": float(self.env.gamma) ** duration}
        ended = bool(effect.done)
        self.terminations = dict.fromkeys(self.agents, ended)
        self.truncations = dict.fromkeys(self.agents, not ended and self._handoffs >= self.limit)
        self._accumulate_rewards()
        self._show(effect.state)

    def state(self) -> Any:
        """The global state, for centralised training."""
        return jax.tree.map(np.asarray, self._state)

    def render(self) -> None:
        """Nothing to draw."""

    def close(self) -> None:
        """Nothing to release."""


class CentralisedEnv(gymnasium.Env[Any, Any]):
    """The centralised problem: one learner sees `look(state)` and picks the active agent's option.

    info holds `action_mask`, `agent`, `duration` and `discount`.  An option the active agent does not have ends the
    episode as truncated with `info["unavailable"]`, and earns nothing; what is no option at all is refused, as is a
    step before `reset` or after the end.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, env: Environment, look: Callable[[State], View], *, codes: int | None = None, limit: int = 1000
    ) -> None:
        self.env, self.limit, self._going = env, coerce.count("limit", limit), False
        self._player = _Player(env, look)
        self.observation_space = _space(self._player.full, codes)
        self.action_space = spaces.Discrete(env.options)
        self.render_mode = None

    def _show(self, state: State) -> tuple[Any, dict[str, Any]]:
        self._state = state
        self._seen, view = self._player.observe(state)
        info = {"action_mask": np.asarray(self._seen.available, np.int8), "agent": int(self._seen.agent)}
        return _numbers(view, self.observation_space), info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a task."""
        super().reset(seed=seed)
        self._handoffs, self._going = 0, True
        return self._show(self._player.seed(seed, self.np_random))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play an option of the active agent until the next handoff.  Raises ValueError for what is no option."""
        option = _option(action, self.env.options)
        if not self._going:
            raise ValueError("step: no task is going on; call reset() first")
        if not bool(self._seen.available[option]):
            self._going = False
            view, info = self._show(self._state)
            return view, 0.0, False, True, info | {"unavailable": option}
        effect = self._player.act(self._state, jnp.int32(option), self._player.next())
        self._handoffs += 1
        view, info = self._show(effect.state)
        duration, ended = int(effect.duration), bool(effect.done)
        info |= {"duration": duration, "discount": 0.0 if ended else float(self.env.gamma) ** duration}
        cut = not ended and self._handoffs >= self.limit
        self._going = not (ended or cut)
        return view, float(effect.reward), ended, cut, info


def handoff_aec(model: Instance, starts: Numbers, **options: Any) -> HandoffAEC:
    """An IC-SMDP as an AEC environment; views are observation codes, tasks begin in the law `starts` [S]."""
    env = finite(model, starts)
    return HandoffAEC(env, codes=env.instance.num_observations, **options)


def centralised_env(model: Instance, starts: Numbers, **options: Any) -> CentralisedEnv:
    """An IC-SMDP as a Gymnasium environment; observations are global state codes."""
    env = finite(model, starts)
    return CentralisedEnv(env, lambda state: state, codes=env.instance.num_states, **options)
