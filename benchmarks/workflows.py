"""How fast sampled workflows step, over a batch of copies and on both cores: python -m benchmarks.workflows.

A step is a handoff: the active agent's view is made, a random one of its options is played, and a finished task is
followed by a new one.  Two processes, each on a core of its own, step at the same time; their batches count together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from benchmarks.harness import Contender, Section, Timing, measure, number, publish, times
from icq.sampled.environment import Environment, State, finite, proceed
from icq.tasks import start_law
from synthetic.cpu import cpu
from synthetic.routing import Routing, routing

STEPS = 400  # of every copy in one call
ONE, TWO = "one process", "two processes"


@partial(jax.jit, static_argnames=("copies", "steps"))
def roam(env: Environment, key: Key[Array, ""], copies: int, steps: int) -> Float[Array, ""]:
    """The sum of all rewards and views of `copies` workflows in which agents act at random."""
    begin, run = jax.random.split(key)

    def one(state: State, u: Float[Array, ""], key: Key[Array, ""]) -> tuple[State, Float[Array, ""]]:
        acting, starting = jax.random.split(key)
        seen = env.observe(state)
        rank = jnp.cumsum(seen.available.astype(jnp.int32))
        option = jnp.argmax(rank > jnp.int32(u * rank[-1].astype(jnp.float32))).astype(jnp.int32)
        effect = env.act(state, option, acting)
        return proceed(env, effect, starting), effect.reward + jnp.sum(seen.view.astype(jnp.float32))

    def body(carry: tuple[State, Float[Array, ""]], k: Int[Array, ""]) -> tuple[tuple[State, Float[Array, ""]], None]:
        states, total = carry
        choosing, rest = jax.random.split(jax.random.fold_in(run, k))
        u, keys = jax.random.uniform(choosing, (copies,)), jax.random.split(rest, copies)
        states, earned = jax.vmap(one)(states, u, keys)
        return (states, total + jnp.sum(earned)), None

    states = jax.vmap(env.start)(jax.random.split(begin, copies))
    return jax.lax.scan(body, (states, jnp.float32(0)), jnp.arange(steps, dtype=jnp.int32))[0][1]


def cpu_environment() -> Environment:
    """CPU programming at full size and full summary."""
    return cpu()


def routing_environment() -> Environment:
    """Routing with four specialists and a view of two bits, as a sampled environment."""
    m = routing(Routing().with_view(2)).smdp
    return finite(m, start_law(m))


WORKFLOWS: dict[str, tuple[Callable[[], Environment], int]] = {
    "CPU programming": (cpu_environment, 4096), "routing": (routing_environment, 4096),
}  # fmt: skip


def serve(name: str, core: int, line: Connection) -> None:
    """A process of its own core that steps whenever it is asked to."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    call = caller(name, core)
    while line.recv():
        call()
        line.send(True)


def caller(name: str, seed: int) -> Callable[[], Any]:
    """One call: STEPS steps of every copy, until they are done."""
    make, copies = WORKFLOWS[name]
    env, key = make(), jax.random.key(seed)
    return lambda: jax.block_until_ready(roam(env, key, copies, STEPS))


class Pair:
    """Two processes that work at once."""

    def __init__(self, name: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else [0, 1]
        self.lines, self.processes = [], []
        for core in cores:
            here, there = spawn.Pipe()
            self.lines.append(here)
            self.processes.append(spawn.Process(target=serve, args=(name, core, there), daemon=True))
            self.processes[-1].start()

    def __call__(self) -> None:
        """Both step; returns when both are done."""
        for line in self.lines:
            line.send(True)
        for line in self.lines:
            line.recv()

    def close(self) -> None:
        """End both."""
        for line, process in zip(self.lines, self.processes, strict=True):
            line.send(False)
            process.join()


def contest(name: str, rounds: int) -> Timing:
    """One process beside two."""
    pair, work = Pair(name), WORKFLOWS[name][1] * STEPS
    try:
        return measure(
            [Contender(ONE, caller(name, 0), work), Contender(TWO, pair, len(pair.lines) * work)],
            rounds=rounds, label=name,
        )  # fmt: skip
    finally:
        pair.close()


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the interleaved comparison")
    rounds = parser.parse_args().rounds
    found = {name: contest(name, rounds) for name in WORKFLOWS}
    rows = tuple(
        (name, str(WORKFLOWS[name][1]), number(t.rate(ONE)), number(t.rate(TWO)), times(t.ratio(TWO, ONE)))
        for name, t in found.items()
    )
    header = ("workflow", "copies", "steps/s, one process", "steps/s, two processes", "two over one (quartiles)")
    note = (
        "A step makes the view of the active agent, plays a random one of its options and begins a new task where one "
        "ended. Wall clock; the processes of a pair have a core each."
    )
    data: dict[str, object] = {
        name: {"copies": WORKFLOWS[name][1], "seconds": t.seconds.tolist()} for name, t in found.items()
    }
    section = Section("Steps per second over a batch", note, header, rows, data=data)
    publish("workflows", "Sampled workflows", "python -m benchmarks.workflows", [section], ("jax", "jaxlib"))


if __name__ == "__main__":
    main()
