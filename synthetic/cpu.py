"""CPU programming: four agents extend one program of a small register machine until a verifier accepts it.

The machine has three registers a, b, c of four bits.  The artifact is the program so far and the registers it leaves on
every test vector (x, y).  A task asks for a = f(x, y); a start says in which registers x, y and 0 lie.  The mover owns
moves, the arithmetic and the logic agent their instructions; each may also pass.  The verifier accepts (the task ends:
right if a = f(x, y) on every visible vector), clears the program, or passes.  Every option names the agent that gets
control next and takes a random time.  Held-out vectors are executed too, but nobody sees them and nothing rewards them.

The interface is a summary: the registers and the target on the first `shown` visible vectors, and for each register the
share of visible vectors on which it equals the target.  A small machine has few enough states to be listed
(synthetic.cpu_finite).  The environment is this project's own; no number measured on it is a number of the paper.
Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from icq.sampled.environment import Effect, Seen
from icq.smdp import Arr

BITS = 4
WORD = 2**BITS - 1
REGISTERS = 3
Registers: TypeAlias = Int[Arr, "*batch 3"]
Instruction: TypeAlias = Callable[[Arr, Arr, Arr], tuple[Arr, Arr, Arr]]


def less(a: Arr, b: Arr) -> Arr:
    """1 where a < b, for words: the sign of the difference."""
    return (a - b) >> BITS & 1


MOVER, ARITHMETIC, LOGIC, VERIFIER = range(4)
AGENTS = ("mover", "arithmetic", "logic", "verifier")
INSTRUCTIONS: tuple[tuple[tuple[str, Instruction], ...], ...] = (
    (
        ("mov a b", lambda a, b, c: (b, b, c)),
        ("mov a c", lambda a, b, c: (c, b, c)),
        ("mov b a", lambda a, b, c: (a, a, c)),
        ("mov c a", lambda a, b, c: (a, b, a)),
        ("swap a b", lambda a, b, c: (b, a, c)),
        ("swap a c", lambda a, b, c: (c, b, a)),
    ),
    (
        ("add a b", lambda a, b, c: (a + b, b, c)),
        ("sub a b", lambda a, b, c: (a - b, b, c)),
        ("inc a", lambda a, b, c: (a + 1, b, c)),
        ("neg a", lambda a, b, c: (-a, b, c)),
        ("dbl a", lambda a, b, c: (a + a, b, c)),
        ("add a c", lambda a, b, c: (a + c, b, c)),
    ),
    (
        ("and a b", lambda a, b, c: (a & b, b, c)),
        ("or a b", lambda a, b, c: (a | b, b, c)),
        ("xor a b", lambda a, b, c: (a ^ b, b, c)),
        ("not a", lambda a, b, c: (~a, b, c)),
        ("shr a", lambda a, b, c: (a >> 1, b, c)),
        ("lt a b", lambda a, b, c: (less(a, b), b, c)),
    ),
)
FLAT: tuple[tuple[str, Instruction], ...] = tuple(one for owned in INSTRUCTIONS for one in owned)
OWN = len(INSTRUCTIONS[0])  # instructions of each programming agent
ACCEPT, CLEAR = range(2)  # operations of the verifier
PASS = OWN  # of everybody
OPERATIONS = OWN + 1
SLOWEST = np.array([2, 3, 3, 5])  # longest option of each agent, primitive steps; a pass takes one

TASKS: tuple[tuple[str, Callable[[Arr, Arr], Arr]], ...] = (
    ("x", lambda x, y: x),
    ("y", lambda x, y: y),
    ("x + y", lambda x, y: x + y),
    ("x - y", lambda x, y: x - y),
    ("y - x", lambda x, y: y - x),
    ("2 x", lambda x, y: 2 * x),
    ("2 y", lambda x, y: 2 * y),
    ("x + 1", lambda x, y: x + 1),
    ("y + 1", lambda x, y: y + 1),
    ("-x", lambda x, y: -x),
    ("x and y", lambda x, y: x & y),
    ("x or y", lambda x, y: x | y),
    ("x xor y", lambda x, y: x ^ y),
    ("not x", lambda x, y: ~x),
    ("not y", lambda x, y: ~y),
    ("x >> 1", lambda x, y: x >> 1),
    ("x < y", less),
    ("y < x", lambda x, y: less(y, x)),
    ("x + y + 1", lambda x, y: x + y + 1),
    ("2 x + y", lambda x, y: 2 * x + y),
    ("not (x and y)", lambda x, y: ~(x & y)),
    ("not (x or y)", lambda x, y: ~(x | y)),
    ("x and not y", lambda x, y: x & ~y),
    ("2 (x + y)", lambda x, y: 2 * (x + y)),
)


@struct.dataclass
class Machine:
    """Global state at a handoff.  program [L]: codes in FLAT, -1 behind its end; registers [V + H, 3]."""

    task: Int[Array, "*batch"]
    start: Int[Array, "*batch"]
    holder: Int[Array, "*batch"]
    program: Int[Array, "*batch L"]
    length: Int[Array, "*batch"]
    registers: Int[Array, "*batch V 3"]
    handoffs: Int[Array, "*batch"]


@struct.dataclass
class Cpu:
    """The environment.  vectors [V + H, 2]: x and y, visible ones first; targets [tasks, V + H]; starts [n, 3]: which
    of (x, y, 0) each register holds.  shown: vectors in the summary, 0..V (traced: sweeping it compiles nothing anew).
    own: instructions of each programming agent, the first so many of its class.
    """  # fmt: skip

    vectors: Int[Arr, "V 2"]
    targets: Int[Arr, "tasks V"]
    starts: Int[Arr, "n 3"]
    shown: Int[Arr, ""]
    visible: int = struct.field(pytree_node=False)
    length: int = struct.field(pytree_node=False)
    limit: int = struct.field(pytree_node=False)
    own: int = struct.field(pytree_node=False)
    gamma: float = struct.field(pytree_node=False)
    wrong: float = struct.field(pytree_node=False)
    shaping: float = struct.field(pytree_node=False)

    @property
    def agents(self) -> int:
        """Mover, arithmetic, logic, verifier."""
        return len(AGENTS)

    @property
    def options(self) -> int:
        """Operation times next agent."""
        return OPERATIONS * len(AGENTS)

    def begin(self, task: Int[Array, ""], start: Int[Array, ""], holder: Int[Array, ""]) -> Machine:
        """An empty program."""
        values = jnp.concatenate([jnp.asarray(self.vectors), jnp.zeros((len(self.vectors), 1), jnp.int32)], axis=1)
        return Machine(
            task=task, start=start, holder=holder, program=jnp.full(self.length, -1, jnp.int32),
            length=jnp.int32(0), registers=values[:, jnp.asarray(self.starts)[start]], handoffs=jnp.int32(0),
        )  # fmt: skip

    def start(self, key: Key[Array, ""]) -> Machine:
        """A random task, placement and first agent."""
        high = jnp.array([len(self.targets), len(self.starts), len(AGENTS)])
        task, start, holder = jax.random.randint(key, (3,), 0, high, jnp.int32)
        return self.begin(task, start, holder)

    def matches(self, state: Machine) -> Float[Array, "3"]:
        """Share of visible vectors on which each register equals the target."""
        target = jnp.asarray(self.targets)[state.task, : self.visible]
        return jnp.mean((state.registers[: self.visible] == target[:, None]).astype(jnp.float32), axis=0)

    def correct(self, state: Machine) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        """Whether a = f(x, y) on all visible vectors, and on all held-out vectors."""
        same = state.registers[:, 0] == jnp.asarray(self.targets)[state.task]
        return jnp.all(same[: self.visible]), jnp.all(same[self.visible :])

    def observe(self, state: Machine) -> Seen:
        """The summary of the holder."""
        target = jnp.asarray(self.targets)[state.task, : self.visible]
        words = jnp.concatenate([state.registers[: self.visible], target[:, None]], axis=1)
        digits = (words[..., None] >> jnp.arange(BITS)[None, None, :]) & 1
        known = (jnp.arange(self.visible) < self.shown)[:, None, None]
        summary = jnp.where(known, 2 * digits - 1, 0).astype(jnp.float32).reshape(-1)
        left = 1.0 - state.handoffs.astype(jnp.float32) / self.limit
        size = jax.nn.one_hot(state.length, self.length + 1, dtype=jnp.float32)
        view = jnp.concatenate([summary, self.matches(state), size, left[None]])
        return Seen(state.holder, view, self._available(state))

    def everything(self, state: Machine) -> Float[Array, "F"]:
        """The summary on all visible vectors, with the names of task and start: the view of a centralised learner."""
        summary = self.replace(shown=jnp.int32(self.visible)).observe(state).view  # type: ignore[attr-defined]
        task = jax.nn.one_hot(state.task, len(self.targets), dtype=jnp.float32)
        return jnp.concatenate([summary, task, jax.nn.one_hot(state.start, len(self.starts), dtype=jnp.float32)])

    def _available(self, state: Machine) -> Bool[Array, "A"]:
        operation = jnp.arange(self.options) // len(AGENTS)
        following = jnp.arange(self.options) % len(AGENTS)
        writes = (operation < self.own) & (state.length < self.length)
        passes = (operation == PASS) & (following != state.holder)
        verdict = (operation == ACCEPT) & (following == 0)  # after the end nobody is next, so one accept is enough
        checks = verdict | ((operation == CLEAR) & (state.length > 0))
        return jnp.where(state.holder == VERIFIER, checks, writes) | passes

    def act(self, state: Machine, option: Int[Array, ""], key: Key[Array, ""]) -> Effect:
        """Write an instruction, judge, clear or pass; then the named agent holds the program.  The time is random."""
        return self.play(state, option, jax.random.randint(key, (), 1, self.slowest(state, option) + 1))

    def slowest(self, state: Machine, option: Int[Array, ""]) -> Int[Array, ""]:
        """The longest time that an option takes, primitive steps; every time from 1 on is equally likely."""
        return jnp.where(option // len(AGENTS) == PASS, 1, jnp.asarray(SLOWEST)[state.holder])

    def play(self, state: Machine, option: Int[Array, ""], duration: Int[Array, ""]) -> Effect:
        """What an option that takes this time does."""
        operation, following = option // len(AGENTS), option % len(AGENTS)
        judging = (state.holder == VERIFIER) & (operation < PASS)
        clears, accepts = judging & (operation == CLEAR), judging & (operation == ACCEPT)
        writes = (state.holder != VERIFIER) & (operation < PASS)
        code = jnp.where(writes, state.holder * OWN + operation, 0)
        written = state.replace(  # type: ignore[attr-defined]  # flax adds replace
            program=jnp.where(writes, state.program.at[state.length].set(code, mode="drop"), state.program),
            length=state.length + writes.astype(jnp.int32),
            registers=jnp.where(writes, execute(state.registers, code), state.registers),
        )  # fmt: skip
        fresh = self.begin(state.task, state.start, state.holder)
        after: Machine = jax.tree.map(lambda new, old: jnp.where(clears, new, old), fresh, written)
        after = after.replace(holder=following, handoffs=state.handoffs + 1)  # type: ignore[attr-defined]
        done = accepts | (after.handoffs >= self.limit)
        right = self.correct(state)[0]
        verdict = jnp.where(accepts, jnp.where(right, 1.0, self.wrong), 0.0)
        power = jnp.float32(self.gamma) ** duration.astype(jnp.float32)
        promise = jnp.where(done, 0.0, power * self.matches(after)[0]) - self.matches(state)[0]
        return Effect(after, verdict + self.shaping * promise, duration, done)


def execute(registers: Int[Array, "V 3"], code: Int[Array, ""]) -> Int[Array, "V 3"]:
    """One instruction on every vector."""
    before = tuple(registers[:, i] for i in range(REGISTERS))
    after = before
    for i, (_, step) in enumerate(FLAT):  # a chain of selections stays one fused loop; a table of results would not
        after = tuple(jnp.where(code == i, new, old) for new, old in zip(step(*before), after))
    return jnp.stack(after, axis=1) & WORD


@dataclass(frozen=True)
class CpuSizes:
    """visible, held_out: test vectors; shown: how many of the visible ones the summary shows; length: longest program;
    limit: handoffs until a task is given up; wrong: reward of accepting a wrong program; shaping: weight of the
    potential `share of vectors solved`, which changes no policy's rank (it telescopes along a task).  own:
    instructions of each programming agent; tasks: names in TASKS; starts: placements of x, y and 0 in the registers;
    vectors: x and y of the test vectors, visible ones first (left out: random ones).
    """  # fmt: skip

    visible: int = 4
    held_out: int = 8
    shown: int = 4
    length: int = 5
    limit: int = 16
    gamma: float = 0.97
    wrong: float = -0.5
    shaping: float = 0.5
    seed: int = 0
    own: int = OWN
    tasks: tuple[str, ...] = tuple(name for name, _ in TASKS)
    starts: int = 4
    vectors: tuple[tuple[int, int], ...] = ()


def cpu(sizes: CpuSizes | None = None) -> Cpu:
    """The environment of these sizes.  Raises ValueError naming the one that has none."""
    s = sizes or CpuSizes()
    ranges = {"visible": (1, 16), "held_out": (0, 64), "length": (1, 8), "limit": (2, 1000), "own": (1, OWN),
              "starts": (1, 6)}  # fmt: skip
    for name, (low, high) in ranges.items():
        if not low <= getattr(s, name) <= high:
            raise ValueError(f"{name} = {getattr(s, name)} must be between {low} and {high}")
    if not 0 <= s.shown <= s.visible:
        raise ValueError(f"shown = {s.shown} must be between 0 and visible = {s.visible}")
    if not 0 < s.gamma < 1:
        raise ValueError(f"gamma = {s.gamma} must lie inside (0, 1)")
    functions = dict(TASKS)
    if not s.tasks or (unknown := [name for name in s.tasks if name not in functions]):
        raise ValueError(f"tasks = {s.tasks}: {unknown[0]!r} is none" if s.tasks else "tasks: name at least one")
    if s.vectors and len(s.vectors) != s.visible + s.held_out:
        raise ValueError(f"vectors: {len(s.vectors)}, expected visible + held_out = {s.visible + s.held_out}")
    if outside := [v for v in s.vectors if not 0 <= min(v) <= max(v) <= WORD]:
        raise ValueError(f"vectors: {outside[0]} has a word outside 0..{WORD}")
    every = np.random.default_rng(s.seed).permutation((WORD + 1) ** 2)[: s.visible + s.held_out]
    drawn = np.stack([every // (WORD + 1), every % (WORD + 1)], axis=1)
    vectors = np.array(s.vectors or drawn, np.int32)
    x, y = vectors.T
    targets = np.stack([np.asarray(functions[name](x, y)) & WORD for name in s.tasks]).astype(np.int32)
    starts = np.array(list(permutations(range(REGISTERS)))[: s.starts], np.int32)
    return Cpu(
        jnp.asarray(vectors), jnp.asarray(targets), jnp.asarray(starts), jnp.int32(s.shown), visible=s.visible,
        length=s.length, limit=s.limit, own=s.own, gamma=s.gamma, wrong=s.wrong, shaping=s.shaping,
    )  # fmt: skip


def search(env: Cpu) -> tuple[Int[np.ndarray, "tasks starts"], Float[np.ndarray, "tasks starts 4"]]:
    """The shortest right program of every task and start, and the exact optimal value from every first agent.

    Instructions needed: -1 where `length` are not enough.  The value counts the verdict alone (no shaping): the best
    program's product of expected discounts, one more pass when its first instruction belongs to somebody else; 0 where
    nothing right exists.  Breadth-first over machine states (registers on the visible vectors); a state is expanded
    again only when a longer way to it is faster.
    """
    pace = np.array([np.mean(env.gamma ** np.arange(1, n + 1)) for n in SLOWEST])
    known = [c for c in range(len(FLAT)) if c % OWN < env.own]
    targets = np.asarray(env.targets)[:, : env.visible]
    values = np.concatenate([np.asarray(env.vectors)[: env.visible], np.zeros((env.visible, 1), int)], axis=1)
    size = np.full((len(targets), len(env.starts)), -1)
    best = np.zeros((*size.shape, len(AGENTS)))  # by the agent of the first operation
    for start, placement in enumerate(np.asarray(env.starts)):
        layer, speed = values[:, placement][None], np.eye(len(AGENTS))[VERIFIER][None]
        seen, fastest = _pack(layer), speed
        for depth in range(env.length + 1):
            solves = (layer[None, :, :, 0] == targets[:, None]).all(-1)  # [tasks, n]
            size[solves.any(1) & (size[:, start] < 0), start] = depth
            best[:, start] = np.maximum(best[:, start], (solves[..., None] * speed).max(1))
            if depth < env.length:
                layer, speed, seen, fastest = _extend(layer, speed, seen, fastest, pace, known, depth == 0)
    passing = env.gamma * best.max(-1, keepdims=True)
    return size, np.maximum(best, passing)


def _extend(
    layer: Int[np.ndarray, "n V 3"],
    speed: Float[np.ndarray, "n 4"],
    seen: np.ndarray,
    fastest: Float[np.ndarray, "m 4"],
    pace: Float[np.ndarray, "4"],
    codes: list[int],
    first: bool,
) -> tuple[Int[np.ndarray, "k V 3"], Float[np.ndarray, "k 4"], np.ndarray, Float[np.ndarray, "l 4"]]:
    """All states one instruction further that are new, or reached faster than before by some first agent."""
    a, b, c = (layer[..., i] for i in range(REGISTERS))
    following = np.concatenate([np.stack(step(a, b, c), axis=-1) & WORD for _, step in map(FLAT.__getitem__, codes)])
    owner = np.repeat(np.array(codes) // OWN, len(layer))
    begun = np.eye(len(AGENTS))[owner] if first else np.tile(speed, (len(codes), 1))
    packed, place, inverse = np.unique(_pack(following), return_index=True, return_inverse=True)
    reached = np.zeros((len(packed), len(AGENTS)))
    np.maximum.at(reached, inverse.reshape(-1), begun * pace[owner][:, None])
    every = np.union1d(seen, packed)
    known = np.zeros((len(every), len(AGENTS)))
    known[np.searchsorted(every, seen)] = fastest
    at = np.searchsorted(every, packed)
    better = (reached > known[at]).any(1)
    known[at] = np.maximum(known[at], reached)
    return following[place[better]], reached[better], every, known


def _pack(states: Int[np.ndarray, "n V 3"]) -> np.ndarray:
    """One opaque value per machine state, for comparison."""
    flat = np.ascontiguousarray(states.reshape(len(states), -1).astype(np.uint8))
    return flat.view(np.dtype((np.void, flat.shape[1]))).reshape(-1)
