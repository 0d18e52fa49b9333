"""The workflow of synthetic.math_routing really played, against any backend, written down as a handoff log.

Agents, options, views and rewards are those of the finite workflow; what a response says, how long it is and whether it
is right comes from the backend.  A model with several strategies has one option for each.  A call that failed costs its
time, earns nothing, and is a response without text: the verifier may still escalate it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from estimators.logs.recorder import Recorder, Task
from icq.display import Shown
from icq_bounds.workflows.math.backends import Answer, Backend, Problem
from synthetic.math_features import BITS, question_bits, response_bits
from synthetic.math_routing import CHEAP, STRONG, Prices, check_view

Choice: TypeAlias = Callable[[str, str, Sequence[str]], tuple[str, float]]  # agent, what it sees, options


@dataclass(frozen=True)
class Team:
    """Strategies of the cheap and of the strong model; each needs one."""

    cheap: tuple[str, ...]
    strong: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("cheap", "strong"):
            if not getattr(self, name):
                raise ValueError(f"{name}: no strategy; name at least one")

    def options(self, agent: str) -> tuple[str, ...]:
        """What an agent may do."""
        return {
            "dispatcher": ("cheap", "strong"), "cheap": (*self.cheap, "pass"), "verifier": ("accept", "escalate"),
            "strong": self.strong,
        }[agent]  # fmt: skip


@dataclass
class Solved(Shown):
    """One question played to its end."""

    number: int
    correct: bool = False
    dollars: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    escalated: bool = False
    failures: list[str] = field(default_factory=list)


def at_random(seed: int) -> Choice:
    """Every option equally likely: what learning and diagnosing need."""
    rng = np.random.default_rng(seed)

    def choose(agent: str, seen: str, options: Sequence[str]) -> tuple[str, float]:
        return options[int(rng.integers(len(options)))], 1.0 / len(options)

    return choose


def always(choice: dict[str, str]) -> Choice:
    """Every agent does the same on everything."""
    return lambda agent, seen, options: (choice[agent], 1.0)


def play(
    backend: Backend,
    problems: Iterable[Problem],
    team: Team,
    choose: Choice,
    recorder: Recorder | None = None,
    *,
    bits: int | None = BITS,
    prices: Prices | None = None,
    name: Callable[[Problem], str] = lambda p: str(p.number),
    context: Callable[[Problem, Answer | None], str] | None = None,
    tell: Callable[[Solved], None] = lambda solved: None,
) -> list[Solved]:
    """Play every problem once and record its handoffs.

    bits: what agents see, as in the finite workflow (None: which question).  name: of the task in the log, one of its
    own for every play.  context: what the log notes of the state beside the view, given the response that the verifier
    looks at; left out, the question and whether the response is right (which nobody in the workflow knows).
    """
    missing = [s for s in (*team.cheap, *team.strong) if s not in backend.strategies]
    if missing:
        raise ValueError(f"strategy {missing[0]!r}: the backend has {', '.join(backend.strategies)}")
    check_view(bits)
    prices = prices or Prices()
    out = []
    for problem in problems:
        out.append(_one(backend, problem, team, choose, recorder, bits, prices, name(problem), context or _context))
        tell(out[-1])
    return out


def _seen(agent: str, problem: Problem, read: Answer | None, bits: int | None) -> str:
    """What an agent sees, as text: the bits, or which question it is."""
    if bits is None:
        return f"{agent} {problem.number}"
    shown = [question_bits(problem.text)[:bits], response_bits(read.text)[:bits] if read is not None else ()]
    return " ".join([agent, *("".join("01"[b] for b in part) for part in shown if part)])


def _context(problem: Problem, read: Answer | None) -> str:
    """The question and, for the verifier, whether the response is right."""
    return f"{problem.number}" if read is None else f"{problem.number} {'right' if read.correct else 'wrong'}"


def _one(
    backend: Backend, problem: Problem, team: Team, choose: Choice, recorder: Recorder | None, bits: int | None,
    prices: Prices, name: str, context: Callable[[Problem, Answer | None], str],
) -> Solved:  # fmt: skip
    done, agent = Solved(problem.number), "dispatcher"
    seen, held = _seen(agent, problem, None, bits), Answer("", False, 0)
    task: Task | None = None
    if recorder is not None:
        task = recorder.start(name, agent=agent, observation=seen, context=context(problem, None))
    while True:
        option, probability = choose(agent, seen, team.options(agent))
        reward, duration, following = 0.0, 1, None
        if agent == "dispatcher":
            following = option
        elif agent == "verifier" and option == "accept":
            reward, done.correct = float(held.correct), held.correct
        elif option in ("pass", "escalate"):
            following, done.escalated = "strong", option == "escalate"
        else:
            model = CHEAP if agent == "cheap" else STRONG
            held = backend.answer(problem, option)
            paid = prices.dollars(model, held.tokens)
            duration = prices.steps(held.tokens)
            reward = -paid / prices.worth
            done.dollars, done.tokens = done.dollars + paid, done.tokens + held.tokens
            done.seconds += held.seconds
            done.failures += [held.failure] if held.failure else []
            following = "verifier" if model == CHEAP else None
            if model == STRONG:
                reward += prices.gamma ** (duration - 1) * held.correct
                done.correct = held.correct
        read = held if following == "verifier" else None
        view = None if following is None else _seen(following, problem, read, bits)
        if task is not None:
            task.handoff(
                option, reward=reward, duration=duration, done=following is None, next_agent=following,
                next_observation=view, next_context=None if following is None else context(problem, read),
                probability=probability,
            )  # fmt: skip
        if following is None or view is None:
            return done
        agent, seen = following, view
