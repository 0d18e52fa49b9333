"""IC-SMDPs from what people have: Python functions, a table of outcomes, or transition matrices.

`from_functions` walks the states reachable from the start states, so a workflow is described by what happens in one
state, not by arrays.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from icq import coerce
from icq.coerce import Numbers
from icq.display import Fact, Shown, spread
from icq.smdp import ICSMDP

State: TypeAlias = Hashable
Name: TypeAlias = Hashable
TOLERANCE = 1e-9


class BuildError(ValueError):
    """A description that is not a workflow; the message names the state and option, and says what to change."""


@dataclass(frozen=True)
class Outcome:
    """What an option may lead to.

    prob: its probability.  next_state: where the next agent takes over, None when the task ends.  reward: of the whole
    option, already discounted inside it (`discounted_sum`).  duration: primitive steps, at least 1.
    """

    prob: float
    next_state: State | None
    reward: float = 0.0
    duration: int = 1


@dataclass(frozen=True)
class Workflow(Shown):
    """An IC-SMDP with the names behind its codes; options[agent] lists that agent's options in code order."""

    smdp: ICSMDP
    states: tuple[State, ...]
    observations: tuple[Name, ...]
    agents: tuple[Name, ...]
    options: tuple[tuple[Name, ...], ...]

    def _facts_(self) -> list[Fact]:
        return [Fact("agents", ", ".join(map(str, self.agents))), Fact("states", len(self.states)),
                Fact("observations", len(self.observations)), Fact("options", self.smdp.num_options),
                Fact("gamma", spread(self.smdp.gamma), "per primitive step")]  # fmt: skip


def discounted_sum(rewards: Sequence[float], gamma: float) -> float:
    """sum_t gamma^t r_t: the reward of an option from the rewards of its primitive steps."""
    return float(sum(gamma**t * r for t, r in enumerate(rewards)))


def from_functions(
    *,
    start: Mapping[State, float] | Iterable[State],
    agent: Callable[[Any], Name],
    observe: Callable[[Any], Name],
    options: Callable[[Any], Sequence[Name]],
    outcomes: Callable[[Any, Any], Iterable[Outcome]],
    gamma: float,
    behaviour: Callable[[Any, Any], float] | None = None,
    agents: Sequence[Name] | None = None,
    limit: int = 1_000_000,
) -> Workflow:
    """The workflow of these functions of a (hashable) global state, over the states reachable from `start`.

    start: states a task begins in, equally likely or with weights.  agent(s): who acts.  observe(s): what that agent
    sees; agents never share an observation, so equal views of two agents are told apart by the agent's name.
    options(s): what it may do, the same wherever it sees the same.  outcomes(s, option): what may happen; probabilities
    sum to 1.  behaviour(s, option): weight of an option while learning, uniform when left out.  agents: names to
    expect; one that never acts is an error.  Raises BuildError; the states are discovered breadth first.
    """
    law = dict(start) if isinstance(start, Mapping) else {}
    if not isinstance(start, Mapping):
        for s in start:
            law[s] = law.get(s, 0.0) + 1.0
    total = sum(law.values())
    if not law or not all(w >= 0 and math.isfinite(w) for w in law.values()) or total <= 0:
        raise BuildError("start: name at least one state, with weights that are not negative")
    law = {s: w / total for s, w in law.items() if w > 0}

    states: dict[State, int] = {s: i for i, s in enumerate(law)}
    seen: dict[tuple[Name, Name], int] = {}
    owners: dict[Name, int] = {}
    menu: list[tuple[Name, ...]] = []  # options by observation
    first: list[State] = []
    spoken: dict[tuple[int, Name], tuple[State, float]] = {}  # behaviour weight of (observation, option), and where
    found: list[list[list[_Branch]]] = []
    observation: list[int] = []
    queue = list(law)
    for s in queue:  # grows while it is walked
        view = (agent(s), observe(s))
        o = seen.setdefault(view, len(seen))
        owners.setdefault(view[0], len(owners))
        offered = tuple(options(s))
        if o == len(menu):
            menu.append(offered)
            first.append(s)
        _same_menu(offered, menu[o], s, first[o], view)
        rows = []
        for option in offered:
            weight = 1.0 if behaviour is None else float(behaviour(s, option))
            where, before = spoken.setdefault((o, option), (s, weight))
            if not math.isclose(weight, before) or not weight > 0:
                raise BuildError(
                    f"behaviour({s!r}, {option!r}) = {weight}: must be positive and a function of what the agent sees"
                    + ("" if where == s else f"; it was {before} in {where!r}, which looks the same")
                )
            row = _spread(_checked(outcomes(s, option), s, option), law)
            for branch in row:
                if branch.next_state not in states:
                    states[branch.next_state] = len(states)
                    queue.append(branch.next_state)
            rows.append(row)
        found.append(rows)
        observation.append(o)
        if len(states) > limit:
            raise BuildError(f"more than {limit} states are reachable; raise `limit` or make states coarser")
    if agents is not None and (idle := [name for name in agents if name not in owners]):
        raise BuildError(f"agents: {idle[0]!r} never acts; no outcome reachable from the start states hands over to it")
    return _assemble(states, found, observation, list(seen), menu, list(owners), spoken, gamma)


def _same_menu(
    offered: tuple[Name, ...], known: tuple[Name, ...], s: State, other: State, view: tuple[Name, Name]
) -> None:
    if not offered:
        raise BuildError(f"options({s!r}) is empty; end a task with next_state=None, not with such a state")
    if len(set(offered)) != len(offered):
        raise BuildError(f"options({s!r}) = {list(offered)} names an option twice")
    if offered != known:
        raise BuildError(
            f"options({s!r}) = {list(offered)}, but in {other!r} it is {list(known)}, and {view[0]!r} sees "
            f"{view[1]!r} in both; show the difference in observe() or offer the same options"
        )


def _checked(outcomes: Iterable[Outcome], s: State, option: Name) -> list[Outcome]:
    row = [branch for branch in outcomes if branch.prob != 0]
    where = f"outcomes({s!r}, {option!r})"
    for i, branch in enumerate(row):
        if not (math.isfinite(branch.prob) and branch.prob > 0):
            raise BuildError(f"{where}[{i}]: prob = {branch.prob} is not a probability")
        if not math.isfinite(branch.reward):
            raise BuildError(f"{where}[{i}]: reward = {branch.reward} is not finite")
        if branch.duration != int(branch.duration) or branch.duration < 1:
            raise BuildError(f"{where}[{i}]: duration = {branch.duration}; an option takes at least one primitive step")
    if abs(sum(branch.prob for branch in row) - 1) > TOLERANCE:
        raise BuildError(f"{where}: the probabilities sum to {sum(branch.prob for branch in row):.6g}, not to 1")
    return row


@dataclass(frozen=True)
class _Branch:
    prob: float
    next_state: State
    reward: float
    duration: int
    terminal: bool


def _spread(row: list[Outcome], law: dict[State, float]) -> list[_Branch]:
    """An ending is followed by the start of a new task, one outcome per start state."""
    out = []
    for branch in row:
        ends = branch.next_state is None
        for s, weight in law.items() if ends else ((branch.next_state, 1.0),):
            out.append(_Branch(branch.prob * weight, s, branch.reward, int(branch.duration), ends))
    return out


def _assemble(
    states: dict[State, int],
    found: list[list[list[_Branch]]],
    observation: list[int],
    seen: list[tuple[Name, Name]],
    menu: list[tuple[Name, ...]],
    owners: list[Name],
    weights: dict[tuple[int, Name], tuple[State, float]],
    gamma: float,
) -> Workflow:
    names: list[dict[Name, int]] = [{} for _ in owners]  # option codes of each agent
    agent = [owners.index(name) for name, _ in seen]
    for i, offered in zip(agent, menu):
        for option in offered:
            names[i].setdefault(option, len(names[i]))
    width = max(len(codes) for codes in names)
    shape = (len(states), width, max(len(row) for rows in found for row in rows))
    prob, reward = np.zeros(shape), np.zeros(shape)
    following, duration, terminal = np.zeros(shape, int), np.ones(shape, int), np.zeros(shape, bool)
    prob[..., 0] = 1.0  # padding of what is never chosen
    available, behaviour = np.zeros((len(seen), width), bool), np.zeros((len(seen), width))
    for s, rows in enumerate(found):
        o = observation[s]
        for option, row in zip(menu[o], rows):
            a = names[agent[o]][option]
            available[o, a], behaviour[o, a] = True, weights[o, option][1]
            b = len(row)
            prob[s, a] = 0.0
            prob[s, a, :b] = [branch.prob for branch in row]
            following[s, a, :b] = [states[branch.next_state] for branch in row]
            reward[s, a, :b] = [branch.reward for branch in row]
            duration[s, a, :b] = [branch.duration for branch in row]
            terminal[s, a, :b] = [branch.terminal for branch in row]
    m = ICSMDP.create(
        prob=prob / prob.sum(-1, keepdims=True), next_state=following, duration=duration, reward=reward,
        terminal=terminal, observation=np.array(observation), agent=np.array(agent), available=available,
        gamma=gamma, behaviour=behaviour / behaviour.sum(1, keepdims=True),
    )  # fmt: skip
    return Workflow(m, tuple(states), tuple(view for _, view in seen), tuple(owners), tuple(tuple(c) for c in names))


ROW = ("state", "option", "prob", "next_state", "reward", "duration")


def from_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    start: Mapping[State, float] | Iterable[State],
    agent: Mapping[State, Name],
    observation: Mapping[State, Name],
    gamma: float,
) -> Workflow:
    """The workflow of a table with one row per outcome: state, option, prob, next_state (None ends the task), reward,
    and optionally duration (1).  agent, observation: of each state.  Raises BuildError naming row and column.
    """  # fmt: skip
    outcomes: dict[State, dict[Name, list[Outcome]]] = {}
    for i, row in enumerate(rows):
        if missing := [name for name in ROW[:5] if name not in row]:
            raise BuildError(f"row {i}: no {missing[0]!r}; the columns are {', '.join(ROW)}")
        if unknown := [name for name in row if name not in ROW]:
            raise BuildError(f"row {i}: unknown column {unknown[0]!r}; the columns are {', '.join(ROW)}")
        outcome = Outcome(row["prob"], row["next_state"], row["reward"], row.get("duration", 1))
        outcomes.setdefault(row["state"], {}).setdefault(row["option"], []).append(outcome)

    def look(table: Mapping[State, Any], what: str) -> Callable[[State], Any]:
        def of(s: State) -> Any:
            if s not in table:
                raise BuildError(f"{what}: state {s!r} is reachable but {what} does not name it")
            return table[s]

        return of

    of_state = look(outcomes, "rows")
    return from_functions(
        start=start, agent=look(agent, "agent"), observe=look(observation, "observation"),
        options=lambda s: list(of_state(s)), outcomes=lambda s, option: of_state(s)[option], gamma=gamma,
    )  # fmt: skip


def from_matrices(
    transition: Numbers,
    reward: Numbers,
    *,
    observation: Numbers,
    agent: Numbers,
    gamma: float,
    duration: Numbers | None = None,
) -> ICSMDP:
    """An endless workflow from transition[a, s, s'], expected rewards [S, A] and durations [S, A] (1 when left out).

    observation [S] of each state, agent [O] that acts on each observation.  Every option is available everywhere.
    Raises BuildError on shapes, ICSMDPError on values.
    """
    try:
        steps = coerce.numbers("transition", transition)
        if steps.ndim != 3 or steps.shape[1] != steps.shape[2]:
            raise BuildError(f"transition: shape {steps.shape}, expected (A, S, S): one matrix for every option")
        pairs = (steps.shape[1], steps.shape[0])
        earned = coerce.shaped("reward", reward, "SA", pairs)
        lasts = np.ones(earned.shape) if duration is None else coerce.shaped("duration", duration, "SA", pairs)
    except ValueError as error:
        raise BuildError(str(error)) from None
    law = np.moveaxis(np.asarray(transition), 0, 1)  # in the precision it came in
    width = int((law != 0).sum(-1).max())
    following = np.argsort(law == 0, axis=-1, kind="stable")[..., :width]
    shape = following.shape
    return ICSMDP.create(
        prob=np.take_along_axis(law, following, -1), next_state=following,
        duration=np.broadcast_to(lasts[..., None], shape), reward=np.broadcast_to(earned[..., None], shape),
        observation=observation, agent=agent, gamma=gamma,
    )  # fmt: skip
