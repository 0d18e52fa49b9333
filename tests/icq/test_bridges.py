"""The bridges pass the other libraries' own tests, and what they play is the workflow."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pettingzoo")

from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, seed_test
from strategies import garnet

from icq.exact import analyse
from icq.sampled.bridges import CentralisedEnv, HandoffAEC, centralised_env, handoff_aec
from icq.sampled.environment import finite
from icq.tasks import start_law
from synthetic.cpu import CpuSizes, cpu
from synthetic.cpu_finite import SMALL, cpu_workflow
from synthetic.routing import Routing, routing

pytestmark = pytest.mark.compiles

M = garnet(5, states=6, options=3, outcomes=3, observations=4, agents=3, terminal=0.2, unavailable=0.3, gamma=0.8)
STARTS = np.ones(M.num_states)


@pytest.mark.filterwarnings("ignore")  # advice on rendering and naming
def test_pettingzoo_api():
    api_test(handoff_aec(M, STARTS), num_cycles=30)


@pytest.mark.filterwarnings("ignore")
def test_pettingzoo_seed():
    seed_test(lambda: handoff_aec(M, STARTS), num_cycles=30)


@pytest.mark.filterwarnings("ignore")
def test_gymnasium_checker():
    check_env(centralised_env(M, STARTS), skip_render_check=True)


def test_views_agents_and_masks_are_those_of_the_workflow():
    env = handoff_aec(M, STARTS)
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(100):
        if not env.agents or any(env.terminations.values()):
            env.reset()
        state = int(env.state())
        seen = env.observe(env.agent_selection)
        o = int(M.observation[state])
        assert seen["observation"] == o
        assert env.agent_selection == f"agent_{M.agent[o]}"
        assert (seen["action_mask"] == M.available[o]).all()
        others = [name for name in env.agents if name != env.agent_selection]
        assert all(env.observe(name)["action_mask"].sum() == 0 for name in others)
        env.step(rng.choice(np.flatnonzero(seen["action_mask"])))


def test_an_unavailable_option_is_refused():
    o = int(np.argmin(M.available.all(1)))
    s = int(np.flatnonzero(M.observation == o)[0])
    bad = int(np.argmin(M.available[o]))
    start = np.eye(M.num_states)[s]
    env = handoff_aec(M, start)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"action {bad} of agent_{M.agent[o]}: not available"):
        env.step(bad)
    central = centralised_env(M, start)
    central.reset(seed=0)
    _, reward, terminated, truncated, info = central.step(bad)
    assert (reward, terminated, truncated, info["unavailable"]) == (0.0, False, True, bad)


def test_the_centralised_problem_is_worth_the_exact_value():
    """Discounted returns of the optimal policy, counted with the durations in `info`."""
    a = analyse(M)
    policy = a.oracle_solution.policy
    env = centralised_env(M, np.eye(M.num_states)[0], limit=40)
    returns = []
    for seed in range(100):
        state, _ = env.reset(seed=seed)
        total, g, over = 0.0, 1.0, False
        while not over:
            state, reward, terminated, truncated, info = env.step(policy[state])
            total, g, over = total + g * reward, g * info["discount"], terminated or truncated
        returns.append(total)
    assert np.mean(returns) == pytest.approx(a.v_star[0], abs=5 * np.std(returns) / np.sqrt(len(returns)))


def test_seeds_differ():
    env = centralised_env(M, STARTS)
    assert len({int(env.reset(seed=seed)[0]) for seed in range(30)}) > 1


SAMPLED = {
    "cpu": lambda: cpu(CpuSizes(length=2, limit=6)),
    "cpu, listed": lambda: listed(cpu_workflow(cpu(replace(SMALL, own=1, limit=3, tasks=("x + y",)))).smdp),
    "routing": lambda: listed(routing(Routing(2, 2).with_view(1)).smdp),
}


def listed(m):
    return finite(m, start_law(m)), m.num_observations


def aec(name):
    made = SAMPLED[name]()
    env, codes = made if isinstance(made, tuple) else (made, None)
    return HandoffAEC(env, codes=codes, limit=20)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.filterwarnings("ignore")
def test_workflows_pass_the_pettingzoo_tests(name):
    api_test(aec(name), num_cycles=20)
    seed_test(lambda: aec(name), num_cycles=15)


@pytest.mark.filterwarnings("ignore")
def test_workflows_pass_the_gymnasium_checker():
    env = SAMPLED["cpu"]()
    check_env(CentralisedEnv(env, env.everything, limit=20), skip_render_check=True)
    m = routing(Routing(2, 2).with_view(1)).smdp
    check_env(centralised_env(m, start_law(m), limit=20), skip_render_check=True)


def test_a_bridge_with_a_broken_mask_is_caught():
    """The tests of the other library do tell: an environment that offers what it refuses fails them."""

    class Lying(HandoffAEC):
        def observe(self, agent):
            seen = super().observe(agent)
            return seen | {"action_mask": np.ones_like(seen["action_mask"])}

    with pytest.raises(ValueError, match="not available"):
        api_test(Lying(SAMPLED["cpu"](), limit=20), num_cycles=20)
