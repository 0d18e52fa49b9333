"""Routing of real requests: a gateway sees the first words of a text and forwards it to a domain's specialist.

Agent 0 is the gateway, agents 1..D are specialists, one per domain.  A request is a text with a domain; an agent sees
the embedding of its first `words` words and who returned it before.  The gateway forwards or gives up; a specialist
answers or bounces the request back.  Embeddings come from a static word embedding that ships inside a package, so
nothing is downloaded (optional extra `text`).  Texts come from files of the user's: `load_clinc150` reads the CLINC150
intent data.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from icq.sampled.environment import Effect, Seen
from icq.smdp import Arr

ANSWER, BOUNCE = range(2)  # options of a specialist
DURATION = 3  # the longest option, primitive steps
DATA, DOMAINS = "data_full.json", "domains.json"


@dataclass(frozen=True)
class Texts:
    """Requests with their domains (codes into `domains`), for learning and for judging."""

    domains: tuple[str, ...]
    train: tuple[str, ...]
    train_domain: Int[np.ndarray, "n"]
    test: tuple[str, ...]
    test_domain: Int[np.ndarray, "m"]


def load_clinc150(folder: str | os.PathLike[str]) -> Texts:
    """The CLINC150 requests: `data_full.json` and `domains.json` of the repository clinc/oos-eval, in one folder.

    Raises FileNotFoundError that says where to get them, ValueError naming what is not as expected.
    """
    parts: dict[str, Any] = {}
    for name in (DATA, DOMAINS):
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: not there; put {DATA} and {DOMAINS} of the public repository clinc/oos-eval into one folder"
            )
        try:
            parts[name] = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise ValueError(f"{path}: not JSON in UTF-8") from None
    names = tuple(parts[DOMAINS])
    code = {intent: d for d, name in enumerate(names) for intent in parts[DOMAINS][name]}

    def split(key: str) -> tuple[tuple[str, ...], np.ndarray]:
        if key not in parts[DATA]:
            raise ValueError(f"{Path(folder) / DATA}: no {key!r}; it has {', '.join(parts[DATA])}")
        for i, row in enumerate(parts[DATA][key]):
            if len(row) != 2 or row[1] not in code:
                raise ValueError(f"{Path(folder) / DATA}: {key}[{i}] = {row!r} is not [text, known intent]")
        return tuple(text for text, _ in parts[DATA][key]), np.array([code[intent] for _, intent in parts[DATA][key]])

    return Texts(names, *split("train"), *split("test"))


@cache
def _embedding() -> Any:
    try:
        import wordllama
    except ImportError:
        raise ValueError("text: no embedding installed; pip install 'icq-bounds[text]'") from None
    home = Path(wordllama.__file__).parent  # weights and tokens lie in the package; nothing is downloaded
    return wordllama.WordLlama.load(cache_dir=home, disable_download=True)


def embed(texts: tuple[str, ...], words: int | None = None) -> Float[np.ndarray, "n F"]:
    """Unit-length embeddings of the first `words` words of each text (None: all)."""
    seen = [" ".join(text.split()[:words]) for text in texts]
    return np.asarray(_embedding().embed(seen, norm=True), np.float32)


@struct.dataclass
class Letter:
    """Global state at a handoff: which request, who holds it, who returned it [D]."""

    request: Int[Array, "*batch"]
    holder: Int[Array, "*batch"]
    returned: Bool[Array, "*batch D"]


@struct.dataclass
class TextRouting:
    """The environment.  embeddings [n, F] and domain [n] of the requests."""

    embeddings: Float[Arr, "n F"]
    domain: Int[Arr, "n"]
    domains: int = struct.field(pytree_node=False)
    gamma: float = struct.field(pytree_node=False, default=0.98)
    right: float = struct.field(pytree_node=False, default=1.0)
    wrong: float = struct.field(pytree_node=False, default=0.0)

    @property
    def agents(self) -> int:
        """Gateway and specialists."""
        return self.domains + 1

    @property
    def options(self) -> int:
        """Forward to each domain, or give up; specialists use the first two."""
        return self.domains + 1

    def begin(self, request: Int[Array, ""]) -> Letter:
        """A request as it arrives."""
        return Letter(request, jnp.int32(0), jnp.zeros(self.domains, bool))

    def start(self, key: Key[Array, ""]) -> Letter:
        """A random request."""
        return self.begin(jax.random.randint(key, (), 0, self.domain.shape[0], jnp.int32))

    def observe(self, state: Letter) -> Seen:
        """The embedding and who returned the request."""
        view = jnp.concatenate([jnp.asarray(self.embeddings)[state.request], state.returned.astype(jnp.float32)])
        forward = jnp.concatenate([~state.returned, jnp.ones(1, bool)])
        available = jnp.where(state.holder == 0, forward, jnp.arange(self.options) <= BOUNCE)
        return Seen(state.holder, view, available)

    def act(self, state: Letter, option: Int[Array, ""], key: Key[Array, ""]) -> Effect:
        """Forward, give up, answer or bounce; each takes 1..DURATION primitive steps."""
        gateway = state.holder == 0
        ends = jnp.where(gateway, option == self.domains, option == ANSWER)
        correct = ~gateway & (option == ANSWER) & (jnp.asarray(self.domain)[state.request] == state.holder - 1)
        answered = ~gateway & (option == ANSWER)
        back = state.returned | (~gateway & (jnp.arange(self.domains) == state.holder - 1))
        after = Letter(
            state.request,
            jnp.where(ends, state.holder, jnp.where(gateway, option + 1, 0)),  # the last holder is who answered
            jnp.where(ends, state.returned, back),
        )
        reward = jnp.where(correct, self.right, jnp.where(answered, self.wrong, 0.0))
        duration = jax.random.randint(key, (), 1, DURATION + 1, jnp.int32)
        return Effect(after, reward.astype(jnp.float32), duration, ends)

    def answered_right(self, state: Letter) -> Bool[Array, ""]:
        """Whether a finished request ended with the specialist of its domain."""
        return (state.holder > 0) & (jnp.asarray(self.domain)[state.request] == state.holder - 1)


def text_routing(texts: Texts, words: int | None = None, *, test: bool = False) -> TextRouting:
    """The environment on the learning requests, or on those kept for judging."""
    part, domain = (texts.test, texts.test_domain) if test else (texts.train, texts.train_domain)
    return TextRouting(jnp.asarray(embed(part, words)), jnp.asarray(domain, jnp.int32), len(texts.domains))
