"""A small machine with all its states: CPU programming as an IC-SMDP, so that every error has an exact value.

The states are those that tasks of `synthetic.cpu` can reach, by any options.  What an agent sees, does and earns is
asked of the sampled environment itself.  Two programs that leave the same registers are one state, because nothing
depends on how the registers came about.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from icq.build import Outcome, Workflow, from_functions
from icq.smdp import Arr
from synthetic.cpu import AGENTS, CLEAR, FLAT, OWN, PASS, SLOWEST, VERIFIER, Cpu, CpuSizes, Machine, cpu

SMALL = CpuSizes(
    own=2, tasks=("x + y", "x - y", "x or y", "2 y"), starts=1, length=2, limit=3, visible=2, shown=2, held_out=0,
    vectors=((9, 2), (13, 6)),  # on the first one x + y is x or y: one vector shown tells fewer tasks apart than two
)  # fmt: skip


class Held(NamedTuple):
    """Global state at a handoff: what `Machine` holds, without the program's text; registers vector by vector."""

    task: int
    start: int
    holder: int
    length: int
    handoffs: int
    registers: tuple[int, ...]


class Told(NamedTuple):
    """What the environment says about one state: the holder's view [F] and options [A], the longest duration of each
    option [A], and for each option and duration [A, D] the numbers of the state after it (`flat`), the reward, and
    whether the task ended.
    """  # fmt: skip

    view: Arr
    available: Arr
    slowest: Arr
    after: Arr
    reward: Arr
    done: Arr


@jax.jit
def ask(env: Cpu, state: Machine) -> Told:
    """Every option of a state at every duration."""
    seen, durations = env.observe(state), jnp.arange(1, int(SLOWEST.max()) + 1)

    def of(option: Int[Array, ""]) -> tuple[Array, ...]:
        effect = jax.vmap(lambda tau: env.play(state, option, tau))(durations)
        return env.slowest(state, option), jax.vmap(flat)(effect.state), effect.reward, effect.done

    return Told(seen.view, seen.available, *jax.vmap(of)(jnp.arange(env.options)))


def flat(m: Machine) -> Int[Array, "n"]:
    """The numbers of `Held` in a row."""
    return jnp.concatenate([jnp.stack([m.task, m.start, m.holder, m.length, m.handoffs]), m.registers.reshape(-1)])


def held(row: Int[Arr, "n"]) -> Held:
    """A state from its numbers."""
    task, start, holder, length, handoffs, *registers = row.tolist()
    return Held(task, start, holder, length, handoffs, tuple(registers))


def machine(env: Cpu, s: Held) -> Machine:
    """The state as the sampled environment has it, its program forgotten."""
    task, start, holder, length, handoffs = (jnp.int32(x) for x in s[:5])
    registers = jnp.asarray(np.array(s.registers, np.int32).reshape(len(env.vectors), -1))
    return Machine(task, start, holder, jnp.full(env.length, -1, jnp.int32), length, registers, handoffs)


def cpu_workflow(env: Cpu, limit: int = 20_000) -> Workflow:
    """All reachable states of a small machine; the observations of the workflow are the views, as tuples.

    Raises BuildError when more than `limit` states are reachable: use fewer tasks, instructions or handoffs.
    """

    @cache
    def told(s: Held) -> Told:
        return Told(*map(np.asarray, ask(env, machine(env, s))))

    def outcomes(s: Held, name: str) -> list[Outcome]:
        found, a = told(s), _codes(s.holder)[name]
        n = int(found.slowest[a])
        after = [None if end else held(row) for end, row in zip(found.done[a, :n], found.after[a, :n], strict=True)]
        rewards = found.reward[a, :n].tolist()
        return [Outcome(1 / n, x, r, t) for t, (x, r) in enumerate(zip(after, rewards, strict=True), 1)]

    sizes = (env.targets.shape[0], env.starts.shape[0], env.agents)
    start = [held(np.asarray(flat(env.begin(*map(jnp.int32, one))))) for one in product(*map(range, sizes))]
    return from_functions(
        start=start, agent=lambda s: AGENTS[s.holder], observe=lambda s: tuple(told(s).view.tolist()),
        options=lambda s: [option_name(s.holder, int(a)) for a in np.flatnonzero(told(s).available)],
        outcomes=outcomes, gamma=env.gamma, agents=AGENTS, limit=limit,
    )  # fmt: skip


def option_name(holder: int, option: int) -> str:
    """What an option does and who is next, in words."""
    operation, following = divmod(option, len(AGENTS))
    if operation == PASS:
        return f"pass > {AGENTS[following]}"
    if holder == VERIFIER:
        return f"clear > {AGENTS[following]}" if operation == CLEAR else "accept"
    return f"{FLAT[holder * OWN + operation][0]} > {AGENTS[following]}"


@cache
def _codes(holder: int) -> dict[str, int]:
    """The environment's code of each option by name; of equal names the first."""
    return {option_name(holder, a): a for a in reversed(range((PASS + 1) * len(AGENTS)))}


def small_machine(shown: int, sizes: CpuSizes = SMALL) -> Workflow:
    """The small machine with this summary."""
    return cpu_workflow(cpu(replace(sizes, shown=shown)))
