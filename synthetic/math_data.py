"""Recorded answers of a cheap and a strong language model to the same questions.

`load_answers` reads a table of the user's: one row per question, one column of correctness and one of responses per
model (the columns of the GSM8K table that the RouteLLM project publishes).  `made_up` writes a table of the same
columns from a random generator: it stands in where nobody gave a table, and says nothing about real models.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

QUESTION, RESPONSE = "prompt", "_response"
CHARACTERS_PER_TOKEN = 4  # a rule of thumb: the tables hold texts, not token counts
WHERE = (
    "get gsm8k_responses.csv from the public repository lm-sys/RouteLLM (routellm/evals/gsm8k), or give a .csv with "
    f"the columns {QUESTION}, MODEL and MODEL{RESPONSE} of two models"
)


@dataclass(frozen=True)
class RecordedAnswers:
    """What two models, cheap first, said to n questions, and whether it was right."""

    models: tuple[str, str]
    questions: tuple[str, ...]
    responses: tuple[tuple[str, str], ...]
    correct: Bool[np.ndarray, "n 2"]

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def tokens(self) -> Int[np.ndarray, "n 2"]:
        """Length of each response: characters / CHARACTERS_PER_TOKEN, rounded up, at least 1."""
        characters = np.array([[len(text) for text in row] for row in self.responses])
        return np.maximum(1, -(-characters // CHARACTERS_PER_TOKEN))

    def take(self, rows: Int[np.ndarray, "k"]) -> RecordedAnswers:
        """Some of the questions."""
        return RecordedAnswers(
            self.models, tuple(self.questions[i] for i in rows), tuple(self.responses[i] for i in rows),
            self.correct[rows],
        )  # fmt: skip

    def fingerprint(self) -> str:
        """A hash of everything in it, so that changed data never find an old result."""
        said = repr((self.models, self.questions, self.responses, self.correct.tolist()))
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def load_answers(path: str | os.PathLike[str], models: tuple[str, str] | None = None) -> RecordedAnswers:
    """The table in a .csv file.  models: columns of the cheap and the strong one; left out, the first two.

    Raises FileNotFoundError that says where to get such a table, ValueError naming row (the first question is row 1)
    and column of what is not as expected.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: not there; {WHERE}")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV table ({error}); {WHERE}") from None
    found = [name for name in columns if name + RESPONSE in columns]
    wanted = models or tuple(found[:2])
    if QUESTION not in columns or len(wanted) != 2 or wanted[0] == wanted[1]:
        raise ValueError(f"{path}: the columns are {', '.join(columns) or 'none'}; {WHERE}")
    for name in wanted:
        if name not in found:
            raise ValueError(f"{path}: no model {name!r}; it has {', '.join(found) or 'none'}")
    return _checked(rows, (wanted[0], wanted[1]), str(path))


def _checked(rows: Sequence[Mapping[str, str | None]], models: tuple[str, str], where: str) -> RecordedAnswers:
    if not rows:
        raise ValueError(f"{where}: no questions")
    truth = {"true": True, "1": True, "false": False, "0": False}
    correct = np.zeros((len(rows), 2), bool)
    for i, row in enumerate(rows):
        if not (row[QUESTION] or "").strip():
            raise ValueError(f"{where}: row {i + 1}, {QUESTION}: empty")
        for j, model in enumerate(models):
            said = (row[model] or "").strip().lower()
            if said not in truth:
                raise ValueError(f"{where}: row {i + 1}, {model}: {row[model]!r} is not True or False")
            if row[model + RESPONSE] is None:
                raise ValueError(f"{where}: row {i + 1}, {model + RESPONSE}: missing")
            correct[i, j] = truth[said]
    questions = tuple(row[QUESTION] or "" for row in rows)
    responses = tuple((row[models[0] + RESPONSE] or "", row[models[1] + RESPONSE] or "") for row in rows)
    return RecordedAnswers(models, questions, responses, correct)


THINGS = ("apples", "books", "coins", "stamps", "shells", "cards")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn")
STEPS = (
    ("buys {b} boxes with as many in each", "*", (2, 9)), ("finds {b} more", "+", (3, 90)),
    ("gives {b} of them away", "-", (1, 5)), ("gets twice as many again, {b} times in all", "*", (2, 3)),
)  # fmt: skip


def made_up(questions: int, seed: int = 0) -> RecordedAnswers:
    """A table drawn at random: chains of 1 to 6 sums; a model slips at each step with a chance of its own.

    A slip of the cheap model shows in its response half of the time (its arithmetic does not hold, or it stops short).
    """
    if questions < 2:
        raise ValueError(f"questions = {questions} must be at least 2")
    rng = np.random.default_rng(seed)
    rows = [_problem(rng) for _ in range(questions)]
    return RecordedAnswers(
        ("made-up cheap model", "made-up strong model"), tuple(text for text, _, _ in rows),
        tuple((cheap[0], strong[0]) for _, cheap, strong in rows),
        np.array([[cheap[1], strong[1]] for _, cheap, strong in rows]),
    )  # fmt: skip


def _problem(rng: np.random.Generator) -> tuple[str, tuple[str, bool], tuple[str, bool]]:
    who, what = NAMES[rng.integers(len(NAMES))], THINGS[rng.integers(len(THINGS))]
    start = int(rng.integers(5, 40))
    steps = []
    for _ in range(int(rng.integers(1, 7))):
        words, sign, (low, high) = STEPS[rng.integers(len(STEPS))]
        steps.append((words, sign, int(rng.integers(low, high + 1))))
    told = " ".join(f"Then {who} {words.format(b=b)}." for words, _, b in steps)
    text = f"{who} has {start} {what}. {told} How many {what} does {who} have?"
    return text, _worked(rng, start, steps, 0.09, 0.5), _worked(rng, start, steps, 0.025, 0.0)


def _worked(
    rng: np.random.Generator, start: int, steps: Sequence[tuple[str, str, int]], slip: float, shows: float
) -> tuple[str, bool]:
    """A worked answer and whether it is right; each step goes wrong with chance `slip`."""
    now, right = start, True
    lines: list[str] = []
    for _, sign, b in steps:
        true = {"*": now * b, "+": now + b, "-": now - b}[sign]
        claimed, written = true, f"{now}{sign}{b}"
        if rng.random() < slip:
            claimed, right = true + int(rng.integers(1, 10)), False
            if rng.random() >= shows:
                written = f"{now}{sign}{b}+{claimed - true}"  # a wrong sum, rightly worked out
            elif rng.random() < 0.5:
                return "\n".join([*lines, f"That makes {written}"]), False
        lines.append(f"That makes {written} = <<{written}={claimed}>>{claimed}.")
        now = claimed
    return "\n".join([*lines, f"#### {now}"]), right
