"""IC-SMDPs from what people have: Python functions, or a table of outcomes (`icq.matrices`: transition matrices).

`from_functions` walks the states reachable from the start states, so a workflow is described by what happens in one
state, not by arrays.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from icq import coerce
from icq.described import (
    BuildError,
    Name,
    Outcome,
    State,
    check_outcome,
    checked,
    key,
    menu_of,
    number,
    same_menu,
    start_law,
)
from icq.display import Fact, Shown, spread
from icq.smdp import ICSMDP


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
    law = start_law(start)
    limit = coerce.count("limit", limit)
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
        view = (key(f"agent({s!r})", agent(s)), key(f"observe({s!r})", observe(s)))
        o = seen.setdefault(view, len(seen))
        owners.setdefault(view[0], len(owners))
        offered = menu_of(options(s), s)
        if o == len(menu):
            menu.append(offered)
            first.append(s)
        same_menu(offered, menu[o], s, first[o], view)
        rows = []
        for option in offered:
            weight = 1.0 if behaviour is None else number(f"behaviour({s!r}, {option!r})", behaviour(s, option))
            where, before = spoken.setdefault((o, option), (s, weight))
            if not math.isclose(weight, before) or not 0 < weight < math.inf:
                raise BuildError(
                    f"behaviour({s!r}, {option!r}) = {weight}: must be positive and a function of what the agent sees"
                    + ("" if where == s else f"; it was {before} in {where!r}, which looks the same")
                )
            row = _spread(checked(outcomes(s, option), s, option), law)
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
    code = {name: i for i, name in enumerate(owners)}
    agent = [code[name] for name, _ in seen]
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
        gamma=gamma, behaviour=_shares(behaviour),
    )  # fmt: skip
    return Workflow(m, tuple(states), tuple(view for _, view in seen), tuple(owners), tuple(tuple(c) for c in names))


def _shares(weights: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
    """Weights as laws; the largest is taken out first, so that no sum overflows."""
    weights = weights / weights.max(1, keepdims=True)
    return weights / weights.sum(1, keepdims=True)


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
        if not isinstance(row, Mapping):
            raise BuildError(f"row {i} is {row!r}, not a mapping of columns; of a DataFrame give df.to_dict('records')")
        if missing := [name for name in ROW[:5] if name not in row]:
            raise BuildError(f"row {i}: no {missing[0]!r}; the columns are {', '.join(ROW)}")
        if unknown := [name for name in row if name not in ROW]:
            raise BuildError(f"row {i}: unknown column {unknown[0]!r}; the columns are {', '.join(ROW)}")
        outcome = Outcome(row["prob"], row["next_state"], row["reward"], row.get("duration", 1))
        check_outcome(f"row {i}: ", outcome)
        state, option = (key(f"row {i}: {name}", row[name]) for name in ("state", "option"))
        outcomes.setdefault(state, {}).setdefault(option, []).append(outcome)

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
