"""One interface to whoever answers mathematical questions: a table, a small local model, or an endpoint.

    backend.answer(problem, strategy) -> Answer

A backend never raises because a question went wrong: a failed call is an answer that is not correct and says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from synthetic.math_data import CHARACTERS_PER_TOKEN, RecordedAnswers
from synthetic.math_features import final_number
from synthetic.math_routing import CHEAP, STRONG


@dataclass(frozen=True)
class Problem:
    """A question.  number: its place in its collection; right: whether a response answers it."""

    number: int
    text: str
    right: Callable[[str], bool]


@dataclass(frozen=True)
class Answer:
    """A response.  seconds: how long it took (0 where nobody knows); failure: why there is none, empty otherwise."""

    text: str
    correct: bool
    tokens: int
    seconds: float = 0.0
    failure: str = ""


@runtime_checkable
class Backend(Protocol):
    """Who answers.  strategies: the ones it knows, in order."""

    @property
    def strategies(self) -> Sequence[str]:
        """Names that `answer` accepts."""
        ...

    def answer(self, problem: Problem, strategy: str) -> Answer:
        """The response of one strategy.  Raises KeyError for an unknown strategy, and nothing else."""
        ...


def estimated_tokens(text: str) -> int:
    """Tokens of a text whose count nobody told."""
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))


def equals(number: float) -> Callable[[str], bool]:
    """Whether the final number of a response is this one."""

    def right(response: str) -> bool:
        said = final_number(response)
        return said is not None and math.isclose(said, number, rel_tol=1e-6, abs_tol=1e-9)

    return right


def problems_of(table: RecordedAnswers) -> list[Problem]:
    """The questions of a table that can be asked anew: those with a response known to be right, whose final number is
    then the answer.  The others are left out; `number` is the row.
    """  # fmt: skip
    out = []
    for i, (text, said) in enumerate(zip(table.questions, table.responses, strict=True)):
        known = [final_number(said[model]) for model in (CHEAP, STRONG) if table.correct[i, model]]
        if known and known[0] is not None:
            out.append(Problem(i, text, equals(known[0])))
    return out


class Recorded:
    """The responses of a table, replayed; its strategies are `cheap` and `strong`."""

    strategies = ("cheap", "strong")

    def __init__(self, table: RecordedAnswers) -> None:
        self.table, self._tokens = table, table.tokens

    def problems(self) -> list[Problem]:
        """Every question of the table; whether a recorded response was right is recorded too."""
        return [Problem(i, text, self._judge(i)) for i, text in enumerate(self.table.questions)]

    def _judge(self, row: int) -> Callable[[str], bool]:
        said, correct = self.table.responses[row], self.table.correct[row]
        return lambda response: response in said and bool(correct[said.index(response)])

    def answer(self, problem: Problem, strategy: str) -> Answer:
        """What the model said."""
        model = {"cheap": CHEAP, "strong": STRONG}[strategy]
        row = problem.number
        return Answer(
            self.table.responses[row][model], bool(self.table.correct[row, model]), int(self._tokens[row, model])
        )


class Remembered:
    """A backend that is asked once for every question and strategy, and says the same ever after.

    For backends that always say the same: playing a question often then costs what playing it once costs.  Failures are
    not remembered.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.known: dict[tuple[int, str], Answer] = {}

    @property
    def strategies(self) -> Sequence[str]:
        """Those of the backend."""
        return self.backend.strategies

    def answer(self, problem: Problem, strategy: str) -> Answer:
        """What the backend said first."""
        found = self.known.get((problem.number, strategy))
        if found is None:
            found = self.backend.answer(problem, strategy)
            if not found.failure:
                self.known[problem.number, strategy] = found
        return found
