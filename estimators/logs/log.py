"""The handoff log in memory: what an estimator may see of a workflow, and nothing of its model.

One row per handoff, ordered by task and by position in the task.  Names are replaced by codes 0..n-1; `Vocabulary`
keeps the names.  Notation: docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from icq import coerce
from icq.coerce import Numbers
from icq.display import LIGHT, Fact, Shown, word
from icq.exact.fixed_point import unit_of
from icq.learn.sampling import Handoff
from icq.reason import NoNumber, Why
from icq.smdp import ICSMDP

T = TypeVar("T")
SAFE = 64  # binary orders of a reward whose powers are far from the limits of float64


class Missed(NamedTuple):
    """What a `NoNumber` said."""

    why: Why
    n_eff: float


def power_of(rewards: Float[np.ndarray, "*n"], safe: int = 0) -> int:
    """The exponent of the power of two just below the largest |reward|; 0 where it is below `safe` either way."""
    power = unit_of(float(np.abs(rewards).max(initial=0.0)))
    return 0 if abs(power) < safe else power


def in_units(x: Float[np.ndarray, "*n"], power: int) -> Float[np.ndarray, "*n"]:
    """x / 2^power, exact unless it leaves the range of float64."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(x, -power)


@dataclass(frozen=True)
class Vocabulary(Shown):
    """What the codes of a log stand for; an empty tuple means that the codes are the names."""

    agent: tuple[str, ...] = ()
    observation: tuple[str, ...] = ()
    option: tuple[str, ...] = ()
    context: tuple[str, ...] = ()

    def _facts_(self) -> list[Fact]:
        names = {"agents": self.agent, "observations": self.observation, "options": self.option,
                 "contexts": self.context}  # fmt: skip
        return [Fact(name, word(known) if known else "codes") for name, known in names.items()]


@dataclass(frozen=True)
class Log(Shown):
    """n handoffs of one workflow, in the order they were decided.

    gamma: discount per primitive step.  task, k: which task, which handoff of it (0-based).  agent acted on
    `observation` with `option`; the option lasted `duration` primitive steps and earned `reward`, already discounted
    inside.  done: the task ended, and next_agent, next_observation are -1 unless the log names the next task's first.
    scalar: the number the next agent sent back (NaN where not logged).  context: whatever richer view the log has of
    the state the agent acted in.  probability: of the chosen option under the behaviour (NaN where not logged).
    features [O, F]: the vector behind each observation code, when observations are vectors.
    follows: row i continues where row i-1 ended (the next handoff of the same chain), so i's context is i-1's next.
    """

    gamma: float
    task: Int[np.ndarray, "n"]
    k: Int[np.ndarray, "n"]
    agent: Int[np.ndarray, "n"]
    observation: Int[np.ndarray, "n"]
    option: Int[np.ndarray, "n"]
    reward: Float[np.ndarray, "n"]
    duration: Int[np.ndarray, "n"]
    done: Bool[np.ndarray, "n"]
    next_agent: Int[np.ndarray, "n"]
    next_observation: Int[np.ndarray, "n"]
    scalar: Float[np.ndarray, "n"]
    follows: Bool[np.ndarray, "n"]
    context: Int[np.ndarray, "n"] | None = None
    probability: Float[np.ndarray, "n"] | None = None
    features: Float[np.ndarray, "O F"] | None = None
    names: Vocabulary = field(default_factory=Vocabulary)
    _memo: dict[Hashable, tuple[Any, object]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, name: str, make: Callable[[], T], *about: object) -> T:
        """make(), computed once per log, name and `about` (compared by identity): what several estimators share.

        A NoNumber that it raises is raised every time.
        """
        key = (name, *(id(part) for part in about))
        if key not in self._memo:
            try:
                made: T | Missed = make()
            except NoNumber as none:
                made = Missed(none.why, none.n_eff)
            self._memo[key] = (made, about)  # holding `about` keeps its identity from being used again
        made = self._memo[key][0]
        if isinstance(made, Missed):
            raise NoNumber(made.why, n_eff=made.n_eff)
        return made

    def in_unit(self) -> tuple[Log, int]:
        """The same log in units of 2^power of reward; this log and 0 where powers of rewards are far from overflow.

        Exact, so what is estimated does not depend on the unit of reward.
        """
        return self.once("in unit", lambda: self.in_units_of(power_of(self.reward, SAFE)))

    def in_units_of(self, power: int) -> tuple[Log, int]:
        """Rewards and scalars in units of 2^power."""
        if power == 0:
            return self, 0
        return replace(self, reward=in_units(self.reward, power), scalar=in_units(self.scalar, power)), power

    def __len__(self) -> int:
        return len(self.reward)

    @cached_property
    def discount(self) -> Float[np.ndarray, "n"]:
        """g = gamma^tau, 0 where the task ended: what the next value is worth."""
        return np.where(self.done, 0.0, self.gamma**self.duration)

    @cached_property
    def num_observations(self) -> int:
        """Observations named anywhere, as acting or as next."""
        return int(max(self.observation.max(initial=-1), self.next_observation.max(initial=-1))) + 1

    @cached_property
    def num_options(self) -> int:
        """Largest number of options of any agent."""
        return int(self.option.max(initial=-1)) + 1

    @cached_property
    def num_agents(self) -> int:
        """Agents named anywhere."""
        return int(max(self.agent.max(initial=-1), self.next_agent.max(initial=-1))) + 1

    @cached_property
    def available(self) -> Bool[np.ndarray, "O A"]:
        """Options seen at least once on an observation: all that a log can tell about what was available."""
        seen = np.zeros((self.num_observations, self.num_options), bool)
        seen[self.observation, self.option] = True
        return seen

    @cached_property
    def owner(self) -> Int[np.ndarray, "O"]:
        """The agent of each observation (-1 where it never acted)."""
        owner = np.full(self.num_observations, -1)
        known = self.next_observation >= 0
        owner[self.next_observation[known]] = self.next_agent[known]
        owner[self.observation] = self.agent
        return owner

    def _facts_(self) -> list[Fact]:
        few, n = len(self) <= LIGHT, len(self)
        return [
            Fact("handoffs", n), Fact("tasks", int(self.task[-1]) + 1 if n else 0),
            Fact("agents", len(self.names.agent) or (self.num_agents if few else None)),
            Fact("observations", len(self.names.observation) or (self.num_observations if few else None)),
            Fact("options", len(self.names.option) or (self.num_options if few else None)),
            Fact("gamma", self.gamma, "per primitive step"),
            Fact("mean reward", float(self.reward.mean()) if n and few else None, "per handoff"),
            Fact("context", self.context is not None), Fact("features", self.features),
        ]  # fmt: skip


def from_handoffs(m: ICSMDP, handoff: Handoff, *, context: bool = True, q: Numbers | None = None) -> Log:
    """The log that one sampled trajectory [n] of an instance leaves (`icq.learn.sampling.trajectory`).

    context: log the global state as context (the richest, hence Markov).  q [O, A]: table whose maximum
    over the available options is the scalar sent back; None logs no scalar.
    """
    state, option, outcome = (np.asarray(part) for part in (handoff.state, handoff.action, handoff.outcome))
    cell = (state, option, outcome)
    done = np.asarray(m.terminal)[cell]
    task = np.concatenate(([0], np.cumsum(done[:-1])))
    first = np.concatenate(([0], np.flatnonzero(done[:-1]) + 1))
    agent, observation = np.asarray(m.agent), np.asarray(m.observation)
    following = observation[np.asarray(m.next_state)[cell]]
    follows = np.ones(len(state), bool)
    follows[0] = False
    probability = np.asarray(m.behaviour)[observation[state], option]
    sent = np.full(len(state), np.nan)
    if q is not None:
        sent_by = coerce.shaped("q", q, "OA", np.shape(m.available))
        best = np.where(np.asarray(m.available), sent_by, -np.inf).max(1)
        sent = np.where(done, np.nan, best[following])
    return Log(
        gamma=float(m.gamma), task=task, k=np.arange(len(state)) - first[task], agent=agent[observation[state]],
        observation=observation[state], option=option, reward=np.asarray(m.reward)[cell],
        duration=np.asarray(m.duration)[cell], done=done, next_agent=agent[following], next_observation=following,
        scalar=sent, follows=follows, context=state if context else None, probability=probability,
    )  # fmt: skip
