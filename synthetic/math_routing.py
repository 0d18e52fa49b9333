"""Mathematical reasoning by two language models, replayed from recorded outcomes: cheap, verify, strong.

A question arrives; the dispatcher sends it to the cheap or the strong model; the cheap model answers or passes it on;
the verifier looks at the cheap response and accepts it or escalates; the strong model answers.  What a model says, how
long it is and whether it is right are those of a table (synthetic.math_data), so the global state is (stage, question).
An agent sees the first `bits` bits of the question, the verifier also of the response (synthetic.math_features); with
bits = None it sees which question it is, nothing is hidden, and the optimum is the per-question oracle.

A primitive step is `step_tokens` tokens of a response.  A right answer earns gamma^(tau-1) when it is delivered; tokens
are paid when they are asked for, in units of what a right answer is worth.  Questions arrive through an `inbox` that
draws a group and then a question of it, which keeps the lists of outcomes short.  The workflow is this project's own;
no number measured on it is a number of the paper.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from icq.build import Outcome, Workflow, from_functions
from synthetic.math_data import RecordedAnswers
from synthetic.math_features import BITS, question_bits, response_bits

CHEAP, STRONG = range(2)  # columns of a table of outcomes
OPTIONS = {
    "inbox": ("draw",), "dispatcher": ("cheap", "strong"), "cheap": ("answer", "pass"),
    "verifier": ("accept", "escalate"), "strong": ("answer",),
}  # fmt: skip
ALWAYS_CHEAP = {"inbox": "draw", "dispatcher": "cheap", "cheap": "answer", "verifier": "accept", "strong": "answer"}
ALWAYS_STRONG = {"inbox": "draw", "dispatcher": "strong", "cheap": "pass", "verifier": "escalate", "strong": "answer"}


class Item(NamedTuple):
    """Global state at a handoff: who acts, on which question (the inbox: on which group)."""

    agent: str
    question: int


@dataclass(frozen=True)
class Prices:
    """cheap, strong: dollars per million tokens of a response; worth: dollars that a right answer is worth; gamma:
    discount per primitive step of step_tokens tokens.
    """  # fmt: skip

    cheap: float = 0.6
    strong: float = 30.0
    worth: float = 0.02
    gamma: float = 0.99
    step_tokens: int = 32

    def __post_init__(self) -> None:
        for name in ("cheap", "strong"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be a price, at least 0")
        if not 0 < self.worth < np.inf:
            raise ValueError(f"worth = {self.worth} must be positive: what a right answer is worth, in dollars")
        if self.step_tokens < 1:
            raise ValueError(f"step_tokens = {self.step_tokens} must be at least 1")

    def dollars(self, model: int, tokens: int) -> float:
        """What a response costs."""
        return (self.cheap, self.strong)[model] * tokens / 1e6

    def steps(self, tokens: int) -> int:
        """Primitive steps that a response takes."""
        return max(1, -(-tokens // self.step_tokens))


def check_view(bits: int | None) -> None:
    """Raise ValueError on a view that is not 0..BITS or None."""
    if bits is not None and not 0 <= bits <= BITS:
        raise ValueError(f"bits = {bits} must be between 0 and {BITS}, or None for the question itself")


def math_routing(table: RecordedAnswers, bits: int | None = None, prices: Prices | None = None) -> Workflow:
    """The workflow with all its reachable states.  bits: seen of each list of features, None for the question itself.

    Raises ValueError on a view that is not 0..BITS.
    """
    check_view(bits)
    prices = prices or Prices()
    tokens, asked = table.tokens, [question_bits(text) for text in table.questions]
    said = [response_bits(cheap) for cheap, _ in table.responses]
    groups = np.array_split(np.arange(len(table)), int(np.ceil(np.sqrt(len(table)))))

    def seen(s: Item) -> object:
        if bits is None or s.agent == "inbox":
            return s.question
        return asked[s.question][:bits] + (said[s.question][:bits] if s.agent == "verifier" else ())

    def delivered(s: Item, model: int) -> float:
        return float(table.correct[s.question, model])

    def outcomes(s: Item, option: str) -> list[Outcome]:
        q = s.question
        if s.agent == "inbox":
            return [Outcome(1 / len(groups[q]), Item("dispatcher", int(i))) for i in groups[q]]
        if option in ("strong", "pass", "escalate"):
            return [Outcome(1.0, Item("strong", q))]
        if option == "cheap":
            return [Outcome(1.0, Item("cheap", q))]
        if option == "accept":
            return [Outcome(1.0, None, delivered(s, CHEAP))]
        model = CHEAP if s.agent == "cheap" else STRONG
        length = int(tokens[q, model])
        steps, paid = prices.steps(length), prices.dollars(model, length) / prices.worth
        if model == CHEAP:
            return [Outcome(1.0, Item("verifier", q), -paid, steps)]
        return [Outcome(1.0, None, prices.gamma ** (steps - 1) * delivered(s, STRONG) - paid, steps)]

    return from_functions(
        start={Item("inbox", g): len(rows) / len(table) for g, rows in enumerate(groups)},
        agent=lambda s: s.agent, observe=seen, options=lambda s: OPTIONS[s.agent], outcomes=outcomes,
        gamma=prices.gamma,
    )  # fmt: skip


def policy_of(workflow: Workflow, choice: dict[str, str]) -> Int[np.ndarray, "S"]:
    """The policy in which every agent always does the same, as option codes of the states."""
    agent = np.asarray(workflow.smdp.agent)[workflow.smdp.observation]
    codes = [workflow.options[i].index(choice[str(name)]) for i, name in enumerate(workflow.agents)]
    return np.array(codes)[agent]


@dataclass(frozen=True)
class Amounts:
    """What each outcome adds to the totals of a task: right answers, dollars, responses of the strong model."""

    right: Float[np.ndarray, "S A B"]
    dollars: Float[np.ndarray, "S A B"]
    strong: Bool[np.ndarray, "S A B"]


def amounts(workflow: Workflow, table: RecordedAnswers, prices: Prices) -> Amounts:
    """Accuracy and cost are expected totals of these per task (icq.tasks.task_total)."""
    shape = workflow.smdp.prob.shape
    right, dollars, strong = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    code = {name: workflow.options[i].index for i, name in enumerate(workflow.agents)}
    for s, state in enumerate(workflow.states):
        if not isinstance(state, Item) or state.agent in ("inbox", "dispatcher"):
            continue
        if state.agent == "verifier":
            right[s, code["verifier"]("accept")] = table.correct[state.question, CHEAP]
            continue
        model = CHEAP if state.agent == "cheap" else STRONG
        answer = code[state.agent]("answer")
        dollars[s, answer] = prices.dollars(model, int(table.tokens[state.question, model]))
        if model == STRONG:
            right[s, answer], strong[s, answer] = table.correct[state.question, STRONG], True
    return Amounts(right, dollars, strong)
