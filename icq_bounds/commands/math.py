"""The command `icq math`: language models solve mathematical questions, and every handoff is written to a log."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from tyro.conf import Positional

from estimators.logs.recorder import Recorder
from icq import files
from icq_bounds.console import Lines, says
from icq_bounds.workflows.math.backends import Backend, Problem, Recorded, Remembered, problems_of
from icq_bounds.workflows.math.play import Solved, Team, at_random, play
from synthetic.math_data import QUESTION, RESPONSE, load_answers, made_up
from synthetic.math_routing import CHEAP, STRONG, Prices, check_view

MOST = 10**6  # questions, and plays of each


@dataclass(frozen=True)
class MathOptions:
    """Language models solve mathematical questions together; every handoff goes to a log that icq diagnose reads.

    A dispatcher, a cheap model, a verifier and a strong model choose at random, so that the log shows every option.
    Interrupted? Run the same command again: questions that were finished are not asked again.

    Example: icq math log.jsonl --backend recorded --questions 200
    """

    log: Positional[Path]
    """Where the handoffs go, a .jsonl file."""
    backend: Literal["recorded", "local", "endpoint"] = "recorded"
    """recorded: answers of a table; local: a small model on this CPU; endpoint: any OpenAI-compatible server."""
    gsm8k: Path | None = None
    """The table of questions and recorded answers; the recorded backend makes one up without."""
    questions: int = 100
    """How many questions."""
    plays: int = 1
    """How often each is played; answers are remembered, so playing again asks nobody."""
    bits: int | None = 1
    """Bits of a question, and of a response, that agents see (None: which question it is)."""
    compare: bool = True
    """Ask every strategy every question, to compare with always-cheap, always-strong and the per-question oracle."""
    table: Path | None = None
    """Write what everybody said as a .csv that icq reproduce math --gsm8k reads."""
    url: str | None = None
    """endpoint only: where it is, up to /v1."""
    cheap: str | None = None
    """endpoint only: name of the cheap model."""
    strong: str | None = None
    """endpoint only: name of the strong model."""
    key_variable: str = "OPENAI_API_KEY"
    """endpoint only: environment variable that holds the key."""
    cheap_price: float = 0.6
    """Dollars per million tokens of the cheap model."""
    strong_price: float = 30.0
    """Dollars per million tokens of the strong model."""
    worth: float = 0.02
    """Dollars that a right answer is worth."""
    seed: int = 0
    """Of choices, and of problems that are made."""


def _backend(options: MathOptions, stack: ExitStack) -> tuple[Backend, list[Problem], Team]:
    """Who answers, what is asked, and who plays which part."""
    if options.backend == "recorded":
        recorded = Recorded(made_up(options.questions) if options.gsm8k is None else load_answers(options.gsm8k))
        return recorded, recorded.problems(), Team(("cheap",), ("strong",))
    if options.backend == "local":
        from icq_bounds.workflows.math.local import LocalModel, gym_problems

        sizes: dict[str, Any] = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2}
        problems = gym_problems(options.questions, options.seed, **sizes)
        return LocalModel(), problems, Team(("direct",), ("steps", "calculator"))
    if options.gsm8k is None or options.url is None or options.cheap is None or options.strong is None:
        raise ValueError("endpoint: give --url, --cheap MODEL, --strong MODEL and --gsm8k FILE with the questions")
    from icq_bounds.workflows.math.endpoint import Ask, Endpoint

    models = {"cheap": Ask(options.cheap), "strong": Ask(options.strong)}
    endpoint = stack.enter_context(Endpoint(options.url, models, key_variable=options.key_variable))
    return endpoint, problems_of(load_answers(options.gsm8k)), Team(("cheap",), ("strong",))


def run(options: MathOptions, console: Console) -> None:
    """Play, record, compare.  Progress goes to stderr; a run that is repeated goes on where it stopped."""
    for name in ("questions", "plays"):
        if not 1 <= getattr(options, name) <= MOST:
            raise ValueError(f"{name} = {getattr(options, name)} must be at least 1 and at most {MOST}")
    check_view(options.bits)
    prices = Prices(options.cheap_price, options.strong_price, options.worth)
    columns = (says(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, console=Lines(stderr=True), transient=True))
        asked, problems, team = _backend(options, stack)
        backend, problems = Remembered(asked), problems[: options.questions]
        begun, ended = _earlier(options.log)
        recorder = stack.enter_context(Recorder(options.log, gamma=prices.gamma))
        progress = bar.add_task("playing", total=options.plays * len(problems))
        solved: list[Solved] = []
        for turn in range(options.plays):

            def label(problem: Problem, turn: int = turn) -> str:
                return f"{problem.number} play {turn}"

            left = [p for p in problems if not _done(label(p), ended)]
            bar.update(progress, advance=len(problems) - len(left))
            solved += play(
                backend, left, team, at_random(options.seed + turn), recorder, bits=options.bits, prices=prices,
                name=lambda p: _free(label(p), begun), tell=lambda s: bar.advance(progress),
            )  # fmt: skip
        if options.compare:
            progress = bar.add_task("comparing", total=len(problems) * len(team.cheap + team.strong))
            for problem in problems:
                for strategy in team.cheap + team.strong:
                    backend.answer(problem, strategy)
                    bar.advance(progress)
    if solved:
        console.print(_summary(solved))
    if options.compare:
        console.print(comparison(backend, problems, team, prices))
    if options.table is not None:
        save_table(backend, problems, team, options.table)
    console.print(f"{options.log}: read it with icq diagnose")


def _earlier(log: Path) -> tuple[set[str], set[str]]:
    """Tasks that an earlier run began, and those it ended."""
    begun, ended = set(), set()
    for line in log.read_bytes().split(b"\n") if log.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn by a kill
        if isinstance(row, dict) and "task" in row:
            begun.add(str(row["task"]))
            ended |= {str(row["task"])} if row.get("done") else set()
    return begun, ended


def _done(name: str, ended: set[str]) -> bool:
    return any(task == name or task.startswith(f"{name} again") for task in ended)


def _free(name: str, begun: set[str]) -> str:
    """The name, or another one where a killed run had begun a task of this name."""
    while name in begun:
        name += " again"
    return name


def _summary(solved: Sequence[Solved]) -> str:
    failed = sum(len(s.failures) for s in solved)
    right, dollars = (sum(getattr(s, key) for s in solved) / len(solved) for key in ("correct", "dollars"))
    said = f"{len(solved)} questions played at random: {100 * right:.1f} % right, {1000 * dollars:.3f} dollars per 1000"
    if not failed:
        return said
    reasons = sorted({why for s in solved for why in s.failures})
    return f"{said}; {failed} calls failed: {'; '.join(reasons)}"


def comparison(backend: Remembered, problems: Sequence[Problem], team: Team, prices: Prices) -> Table:
    """Accuracy and cost of always asking one strategy, and of the cheapest right one on every question.

    A question that some strategy failed on counts as not right there.
    """
    table = Table("who answers", "right, %", "dollars per 1000", "tokens", "seconds")
    found = {}
    for strategy in team.cheap + team.strong:
        model = CHEAP if strategy in team.cheap else STRONG
        found[strategy] = [
            (a.correct, prices.dollars(model, a.tokens), a.tokens, a.seconds)
            for a in (backend.answer(p, strategy) for p in problems)
        ]
    best = [min(rows, key=lambda a: (not a[0], a[1])) for rows in zip(*found.values(), strict=True)]
    for name, rows in [*((f"always {s}", r) for s, r in found.items()), ("per-question oracle", best)]:
        right, dollars, tokens, seconds = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        table.add_row(name, f"{100 * right:.1f}", f"{1000 * dollars:.3f}", f"{tokens:.1f}", f"{seconds:.2f}")
    return table


def save_table(backend: Remembered, problems: Sequence[Problem], team: Team, path: Path) -> None:
    """What every strategy said as a table that `icq reproduce math --gsm8k` reads; cheap strategies come first."""
    strategies = team.cheap + team.strong
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([QUESTION, *strategies, *(s + RESPONSE for s in strategies)])
    for problem in problems:
        answers = [backend.answer(problem, s) for s in strategies]
        writer.writerow([problem.text, *(a.correct for a in answers), *(a.text for a in answers)])
    files.write(path, text.getvalue().encode(errors="backslashreplace"))
