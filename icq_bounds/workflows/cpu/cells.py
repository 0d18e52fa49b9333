"""One cell of the CPU-programming experiment: what share of (task, start) pairs the agents solve at one summary size.

Running a cell is a pure function of its fields.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from icq.learn.classes import Params
from icq.sampled import fleet
from icq.sampled.environment import Centralised, Environment
from icq.sampled.fleet import FleetConfig, ViewClass
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.store import Arrays
from synthetic.cpu import AGENTS, Cpu, CpuSizes, cpu


@dataclass(frozen=True)
class CpuCell:
    """What to run.  shown: vectors in the summary; updates of `copies` handoffs each; marks: evaluations."""

    shown: int
    who: Who
    updates: int
    seed: int = 0
    copies: int = 256
    width: int = 64
    depth: int = 2
    marks: int = 10

    def label(self) -> str:
        """A short name for progress lines."""
        return f"{self.who.value}, {self.shown} vectors shown, seed {self.seed}"

    def program(self) -> Hashable:
        """Cells that agree in this run the same compiled program."""
        return (self.who is Who.CENTRALISED, self.updates, self.copies, self.width, self.depth, self.marks)

    def run(self) -> Arrays:
        """Train, and play every task from every start and first agent: `solved`, `held_out` (right on the vectors that
        nobody sees), `value` (verdict alone, no shaping) and `handoffs`, each [tasks, starts, 4]; `curve` [marks] of
        the share of (task, start) pairs solved from every first agent.
        """  # fmt: skip
        game = cpu(CpuSizes(shown=self.shown))
        env: Environment = Centralised(game, Cpu.everything) if self.who is Who.CENTRALISED else game
        cls = fleet.view_network(env, self.width, self.depth)
        rate = optax.cosine_decay_schedule(2e-3, self.updates)
        config = FleetConfig(
            copies=self.copies, optimiser=optax.adam(rate), epsilon=(1.0, 0.1), anneal=0.5 * self.updates, lag=0.01,
            scalars=self.who is not Who.INDEPENDENT,
        )  # fmt: skip
        weights, handoffs, games = jax.random.split(jax.random.fold_in(jax.random.key(0), self.seed), 3)
        run = fleet.init(env, cls, config, weights)
        curve = []
        for mark, part in enumerate(np.diff(np.linspace(0, self.updates, self.marks + 1).astype(int))):
            run, _ = fleet.train(env, cls, config, run, handoffs, int(part))
            played = _play_all(game, env, cls, run.params, jax.random.fold_in(games, mark))
            curve.append(float(np.asarray(played[0]).all(-1).mean()))
        names = ("solved", "held_out", "value", "handoffs")
        return {name: np.asarray(x) for name, x in zip(names, played, strict=True)} | {"curve": np.array(curve)}


@jax.jit
def _play_all(
    game: Cpu, env: Environment, cls: ViewClass, params: Params, key: Array
) -> tuple[Bool[Array, "T S 4"], Bool[Array, "T S 4"], Float[Array, "T S 4"], Int[Array, "T S 4"]]:
    """Every task, start and first agent, played greedily once."""
    shape = (game.targets.shape[0], game.starts.shape[0], len(AGENTS))
    task, start, holder = (jnp.asarray(i.ravel(), jnp.int32) for i in np.indices(shape))
    begin = jax.vmap(game.begin)(task, start, holder)
    keys = jax.random.split(key, len(task))
    episode = jax.vmap(lambda s, k: fleet.play(env, cls, params, s, k, game.limit))(begin, keys)
    accepted = episode.done & (episode.state.handoffs < game.limit)
    right, held_out = jax.vmap(game.correct)(episode.state)
    # Shaping telescopes to minus the potential at the start.
    value = episode.value + game.shaping * jax.vmap(game.matches)(begin)[:, 0]
    found = (right & accepted, right & held_out & accepted, value, episode.handoffs)
    solved, kept, worth, count = (x.reshape(shape) for x in found)
    return solved, kept, worth, count
