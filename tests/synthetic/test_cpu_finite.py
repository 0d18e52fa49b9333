"""The small machine with all its states is the sampled one, and its exact optimum is what search finds."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icq.build import BuildError
from icq.exact import analyse
from synthetic.cpu import AGENTS, OWN, CpuSizes, cpu, search
from synthetic.cpu_finite import SMALL, cpu_workflow, flat, held, machine, option_name

pytestmark = pytest.mark.compiles

SIZES = replace(SMALL, tasks=("x + y", "x - y", "2 y"), limit=4)  # enough for the longest program after a pass
ENV = cpu(SIZES)


@pytest.fixture(scope="module")
def workflow():
    return cpu_workflow(ENV)


@pytest.fixture(scope="module")
def a(workflow):
    return analyse(workflow.smdp)


def test_what_is_played_is_what_was_listed(workflow):
    """State, reward, duration and end of a sampled option are those of one listed outcome, in every state."""
    m, index = workflow.smdp, {s: i for i, s in enumerate(workflow.states)}
    rng = np.random.default_rng(0)
    act, observe = jax.jit(ENV.act), jax.jit(ENV.observe)
    seen = set()
    for i in rng.choice(len(workflow.states), 100, replace=False):
        state = machine(ENV, workflow.states[i])
        view = observe(state)
        o = int(m.observation[i])
        agent = int(m.agent[o])
        assert workflow.agents[agent] == AGENTS[int(view.agent)]
        assert workflow.observations[o] == tuple(np.asarray(view.view).tolist())
        option = int(rng.choice(np.flatnonzero(view.available)))
        a = workflow.options[agent].index(option_name(int(view.agent), option))
        effect = act(state, jnp.int32(option), jax.random.key(int(i)))
        after = index.get(held(np.asarray(flat(effect.state))))
        same = (m.prob[i, a] > 0) & (m.duration[i, a] == int(effect.duration)) & (m.terminal[i, a] == bool(effect.done))
        same &= np.abs(m.reward[i, a] - float(effect.reward)) < 1e-6
        if not effect.done:
            same &= m.next_state[i, a] == after
        starts = ENV.targets.shape[0] * ENV.starts.shape[0] * ENV.agents
        assert same.sum() == (starts if effect.done else 1)
        seen.add(bool(effect.done))
    assert seen == {False, True}


def test_the_exact_optimum_is_what_search_finds(workflow, a):
    """Shaping adds minus the potential at the start; where nothing right exists, waiting for the end earns nothing."""
    size, best = search(ENV)
    assert set(size.ravel().tolist()) == {1, 2}
    matches = jax.jit(ENV.matches)
    for i, s in enumerate(workflow.states):
        if s.handoffs == 0:
            potential = ENV.shaping * float(matches(machine(ENV, s))[0])
            assert a.v_star[i] == pytest.approx(best[s.task, s.start, s.holder] - potential, abs=1e-5)


def test_a_full_summary_hides_nothing_and_none_hides_much(a):
    gaps = [a.norm_d_state(a.gap)] + [
        (b := analyse(cpu_workflow(cpu(replace(SIZES, shown=shown))).smdp)).norm_d_state(b.gap) for shown in (1, 0)
    ]
    assert gaps[0] == pytest.approx(0.0, abs=1e-9)
    assert gaps[0] < gaps[1] < gaps[2]


def test_fewer_instructions_and_tasks():
    options = np.asarray(ENV.observe(ENV.begin(*map(jnp.int32, (0, 0, 1)))).available).reshape(-1, 4)
    assert options[: SIZES.own].all() and not options[SIZES.own : OWN].any()
    assert ENV.targets.shape[0] == len(SIZES.tasks)
    assert search(cpu(CpuSizes(length=1, own=3, tasks=("x xor y",))))[0].max() == 1  # the third instruction of logic
    assert search(cpu(CpuSizes(length=1, own=2, tasks=("x xor y",))))[0].max() == -1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"tasks": ("x + z",)}, r"x \+ z"),
        ({"tasks": ()}, "tasks"),
        ({"own": 0}, "own = 0"),
        ({"starts": 7}, "starts = 7"),
        ({"vectors": ((1, 2),)}, "1, expected"),
        ({"visible": 1, "shown": 1, "held_out": 0, "vectors": ((1, 99),)}, r"\(1, 99\)"),
    ],
)
def test_bad_sizes_are_named(bad, says):
    with pytest.raises(ValueError, match=says):
        cpu(CpuSizes(**bad))


def test_a_machine_too_large_to_list_is_refused():
    with pytest.raises(BuildError, match="more than 100 states"):
        cpu_workflow(ENV, limit=100)
