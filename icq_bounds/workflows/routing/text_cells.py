"""One cell of the text-routing experiment: IC-Q and a supervised classifier that see the same words.

The classifier is told the domain of every learning request; IC-Q only what its own forwards earned.  Both are one tanh
network of the same width on the same view, and both are judged on requests neither has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from icq.learn.networks import MLP
from icq.sampled import fleet
from icq.sampled.fleet import FleetConfig
from icq_bounds.sweep.store import Arrays
from synthetic.text_routing import DATA, DOMAINS, TextRouting, load_clinc150, text_routing


def fingerprint(folder: Path) -> str:
    """What the data are, so that changed files never find an old result."""
    texts = load_clinc150(folder)  # a clear error before anything is hashed
    digest = hashlib.sha256(repr(len(texts.train)).encode())
    for name in (DATA, DOMAINS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TextCell:
    """What to run.  words: seen of every request (None: all); updates: of `copies` handoffs each, and of as many
    requests for the classifier; data: fingerprint of the files in `folder`, whose own name is no part of the question.
    """  # fmt: skip

    words: int | None
    updates: int
    data: str
    folder: Path = field(repr=False, compare=False)
    seed: int = 0
    copies: int = 256
    width: int = 64

    def label(self) -> str:
        """A short name for progress lines."""
        return f"text, {'all' if self.words is None else self.words} words, seed {self.seed}"

    def program(self) -> Hashable:
        """Cells that agree in this run the same compiled program."""
        return ("text", self.updates, self.copies, self.width)

    def run(self) -> Arrays:
        """`right`: share of unseen requests answered by the right specialist; `supervised`: of those the classifier
        names rightly; `handoffs` per request.
        """  # fmt: skip
        texts = load_clinc150(self.folder)
        env, unseen = text_routing(texts, self.words), text_routing(texts, self.words, test=True)
        weights, run, games, fit = jax.random.split(jax.random.fold_in(jax.random.key(1), self.seed), 4)
        cls = fleet.view_network(env, self.width)
        rate = optax.cosine_decay_schedule(3e-3, self.updates)
        config = FleetConfig(copies=self.copies, optimiser=optax.adam(rate), epsilon=(1.0, 0.1), lag=0.05,
                             anneal=0.5 * self.updates)  # fmt: skip
        state, _ = fleet.train(env, cls, config, fleet.init(env, cls, config, weights), run, self.updates)
        begin = jax.vmap(unseen.begin)(jnp.arange(len(texts.test), dtype=jnp.int32))
        keys = jax.random.split(games, len(texts.test))
        play = jax.jit(jax.vmap(lambda s, k: fleet.play(unseen, cls, state.params, s, k, 8)))
        episode = play(begin, keys)
        right = np.asarray(jax.vmap(unseen.answered_right)(episode.state) & episode.done)
        named = _supervised(env, unseen, self.width, self.copies, self.updates, fit)
        return {"right": np.array(right.mean()), "supervised": np.array(named),
                "handoffs": np.array(np.asarray(episode.handoffs).mean())}  # fmt: skip


def _supervised(
    env: TextRouting, unseen: TextRouting, width: int, batch: int, updates: int, key: Key[Array, ""]
) -> float:
    """Accuracy on unseen requests of the same network trained on the true domains by cross-entropy."""
    net = MLP(width, 1, env.domains)
    weights, order = jax.random.split(key)
    params = net.init(weights, env.embeddings[0])
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, updates))

    def loss(params: Any, x: Float[Array, "n F"], y: Int[Array, "n"]) -> Float[Array, ""]:
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(partial(net.apply, params))(x), y).mean()

    @jax.jit
    def fit(params: Any) -> Any:
        def body(carry: tuple, key: Key[Array, ""]) -> tuple[tuple, None]:
            params, state = carry
            rows = jax.random.randint(key, (batch,), 0, env.domain.shape[0], jnp.int32)
            gradient = jax.grad(loss)(params, jnp.asarray(env.embeddings)[rows], jnp.asarray(env.domain)[rows])
            with jax.numpy_dtype_promotion("standard"):
                move, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, move), state), None

        return jax.lax.scan(body, (params, optimiser.init(params)), jax.random.split(order, updates))[0][0]

    found = fit(params)
    said = jax.jit(lambda x: jnp.argmax(jnp.asarray(jax.vmap(partial(net.apply, found))(x)), axis=1))(unseen.embeddings)
    return float(np.mean(np.asarray(said) == np.asarray(unseen.domain)))
