"""The CPU workflow: instructions, interface, accounting of rewards, and the search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icq.sampled.environment import Environment
from synthetic.cpu import (
    AGENTS,
    ARITHMETIC,
    FLAT,
    LOGIC,
    MOVER,
    OPERATIONS,
    OWN,
    PASS,
    TASKS,
    VERIFIER,
    WORD,
    CpuSizes,
    cpu,
    execute,
    search,
)  # fmt: skip

pytestmark = pytest.mark.compiles

ENV = cpu()
ACT = jax.jit(ENV.act)
OBSERVE = jax.jit(ENV.observe)
MATCHES = jax.jit(ENV.matches)
KEY = jax.random.key(0)


def option(operation, following):
    return jnp.int32(operation * len(AGENTS) + following)


def code(name):
    return [n for n, _ in FLAT].index(name)


def write(state, name, following):
    c = code(name)
    assert int(state.holder) == c // OWN
    return ACT(state, option(c % OWN, following), KEY)


def begin(task, start, holder):
    return jax.jit(ENV.begin)(jnp.int32(task), jnp.int32(start), jnp.int32(holder))


def test_protocol_and_sizes():
    assert isinstance(ENV, Environment)
    assert len(TASKS) >= 24
    assert ENV.options == OPERATIONS * len(AGENTS)


MEANING = {
    "mov": lambda d, s: s, "add": lambda d, s: d + s, "sub": lambda d, s: d - s, "inc": lambda d, s: d + 1,
    "neg": lambda d, s: 16 - d, "dbl": lambda d, s: 2 * d, "and": lambda d, s: d & s, "or": lambda d, s: d | s,
    "xor": lambda d, s: d ^ s, "not": lambda d, s: 15 - d, "shr": lambda d, s: d // 2, "lt": lambda d, s: int(d < s),
}  # fmt: skip


@pytest.mark.parametrize("index", range(len(FLAT)))
def test_instructions_mean_what_they_are_called(index):
    """On every pair of words, against Python integers by the instruction's name."""
    operation, first, *second = FLAT[index][0].split()
    a, b = np.divmod(np.arange((WORD + 1) ** 2), WORD + 1)
    c = (a * 7 + 3 * b + 1) % (WORD + 1)
    done = np.asarray(jax.jit(execute)(jnp.asarray(np.stack([a, b, c], 1), jnp.int32), jnp.int32(index)))
    for row, after in zip(zip(a.tolist(), b.tolist(), c.tolist()), done.tolist()):
        r = dict(zip("abc", row))
        other = r[second[0]] if second else None
        if operation == "swap":
            r[first], r[second[0]] = other, r[first]
        else:
            r[first] = MEANING[operation](r[first], other) % 16
        assert after == list(r.values())


def test_a_program_by_hand():
    """x - y with x in a, y in b: subtract, then accept."""
    task = [name for name, _ in TASKS].index("x - y")
    state = begin(task, 0, ARITHMETIC)
    effect = write(state, "sub a b", VERIFIER)
    assert not effect.done and int(effect.state.holder) == VERIFIER and int(effect.state.length) == 1
    assert tuple(map(bool, ENV.correct(effect.state))) == (True, True)
    power = ENV.gamma ** int(effect.duration)
    shaped = ENV.shaping * (power * float(ENV.matches(effect.state)[0]) - float(ENV.matches(state)[0]))
    assert float(effect.reward) == pytest.approx(shaped, abs=1e-6)
    end = ACT(effect.state, option(0, 0), KEY)
    assert bool(end.done)
    assert float(end.reward) == pytest.approx(1.0 - ENV.shaping, abs=1e-6)
    wrong = ACT(begin(task, 0, VERIFIER), option(0, 0), KEY)
    assert float(wrong.reward) == pytest.approx(-0.5 - ENV.shaping * float(ENV.matches(begin(task, 0, 0))[0]), abs=1e-6)


def test_clearing_starts_over_and_passing_changes_nothing_else():
    state = begin(0, 1, MOVER)
    once = write(state, "swap a b", VERIFIER).state
    cleared = ACT(once, option(1, LOGIC), KEY).state
    assert int(cleared.length) == 0 and int(cleared.holder) == LOGIC and int(cleared.handoffs) == 2
    assert (np.asarray(cleared.registers) == np.asarray(state.registers)).all()
    assert (np.asarray(cleared.program) == -1).all()
    passed = ACT(once, option(PASS, MOVER), KEY).state
    assert (np.asarray(passed.program) == np.asarray(once.program)).all() and int(passed.holder) == MOVER


def test_available_options():
    full = begin(0, 0, MOVER)
    for _ in range(ENV.length):
        full = write(full, "swap a b", MOVER).state
    mask = np.asarray(ENV.observe(full).available).reshape(OPERATIONS, len(AGENTS))
    assert not mask[:PASS].any()  # no room for another instruction
    assert mask[PASS].tolist() == [False, True, True, True]  # nobody passes to itself
    judge = np.asarray(ENV.observe(begin(0, 0, VERIFIER)).available).reshape(OPERATIONS, len(AGENTS))
    assert judge[0].tolist() == [True, False, False, False] and not judge[1:PASS].any()


def test_potential_shaping_telescopes():
    """Along any random task the discounted sum is the verdict's, minus the potential at the start."""
    for seed in range(5):
        keys = jax.random.split(jax.random.key(seed), 40)
        state = jax.jit(ENV.start)(keys[0])
        first, g, total, verdict, done = float(MATCHES(state)[0]), 1.0, 0.0, 0.0, False
        for key in keys[1:]:
            pick, act = jax.random.split(key)
            mask = np.asarray(OBSERVE(state).available)
            choice = jnp.int32(np.random.default_rng(int(jax.random.bits(pick))).choice(np.flatnonzero(mask)))
            judged = int(state.holder) == VERIFIER and int(choice) == 0
            verdict = g * (1.0 if bool(ENV.correct(state)[0]) else ENV.wrong) if judged else 0.0
            effect = ACT(state, choice, act)
            total += g * float(effect.reward)
            g, state, done = g * ENV.gamma ** int(effect.duration), effect.state, bool(effect.done)
            if done:
                break
        assert done
        assert total == pytest.approx(verdict - ENV.shaping * first, abs=1e-5)


def test_the_summary_hides_what_it_should():
    narrow, blind = cpu(CpuSizes(shown=1)), cpu(CpuSizes(shown=0))
    state = begin(3, 0, MOVER)
    other = state.replace(registers=state.registers.at[1:, 2].set((state.registers[1:, 2] + 1) & WORD))
    same = [np.array_equal(e.observe(state).view, e.observe(other).view) for e in (blind, narrow, ENV)]
    assert same == [True, True, False]


@pytest.mark.parametrize("length", [1, 2])
def test_search_against_all_programs(length):
    """Brute force over every program, with the discounts of its own agents multiplied out."""
    env = cpu(CpuSizes(length=length))
    size, value = search(env)
    pace = [np.mean([env.gamma**t for t in range(1, n + 1)]) for n in (2, 3, 3)]
    targets = np.asarray(env.targets)[:, : env.visible]
    for start in range(len(env.starts)):
        x = np.concatenate([np.asarray(env.vectors)[: env.visible], np.zeros((env.visible, 1), int)], 1)
        x = x[:, np.asarray(env.starts)[start]]
        shortest, worth = np.full(len(TASKS), -1), np.zeros((len(TASKS), len(AGENTS)))
        for n in range(length, -1, -1):
            for program in itertools.product(range(len(FLAT)), repeat=n):
                r = [x[:, i] for i in range(3)]
                for c in program:
                    r = [v & WORD for v in FLAT[c][1](*r)]
                right = (r[0] == targets).all(1)
                shortest[right] = n
                for holder in range(len(AGENTS)):
                    first = program[0] // OWN if program else VERIFIER
                    earned = (1.0 if first == holder else env.gamma) * np.prod([pace[c // OWN] for c in program])
                    worth[right, holder] = np.maximum(worth[right, holder], earned)
        assert (size[:, start] == shortest).all()
        assert value[:, start] == pytest.approx(worth)


def test_every_task_is_solvable_from_every_start():
    size, value = search(ENV)
    assert (size >= 0).all() and (value > 0).all()


@pytest.mark.parametrize(("bad", "says"), [({"shown": 5}, "shown = 5"), ({"limit": 1}, "limit = 1")])
def test_bad_sizes_are_named(bad, says):
    with pytest.raises(ValueError, match=says):
        cpu(CpuSizes(**bad))
