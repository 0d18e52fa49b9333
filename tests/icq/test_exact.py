"""The exact analysis against plain loops over outcomes, another library's solver, and the statements it rests on."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import garnet, instances

from bounds.interface.gap import oracle_contraction
from icq import exact
from icq.exact import AnalysisError, analyse, markov
from icq.smdp import ICSMDP


def outcomes(m):
    """Every outcome of an available option, one at a time: s, a, b."""
    for s in range(m.num_states):
        for a in range(m.num_options):
            if m.available[m.observation[s], a]:
                for b in range(m.prob.shape[2]):
                    yield s, a, b


def loops(m):
    """r, K, P_beta, d, w, rhat, Khat as the definitions read, dense."""
    states, options, observed = m.num_states, m.num_options, m.num_observations
    r, k, p = np.zeros((states, options)), np.zeros((states, options, states)), np.zeros((states, states))
    for s, a, b in outcomes(m):
        there, chance = m.next_state[s, a, b], m.prob[s, a, b]
        g = 0.0 if m.terminal[s, a, b] else float(m.gamma) ** int(m.duration[s, a, b])
        r[s, a] += chance * m.reward[s, a, b]
        k[s, a, there] += chance * g
        p[s, there] += m.behaviour[m.observation[s], a] * chance
    d = np.linalg.lstsq(np.vstack([np.eye(states) - p.T, np.ones(states)]), np.eye(states + 1)[-1], rcond=None)[0]
    mass = np.zeros(observed)
    for s in range(states):
        mass[m.observation[s]] += d[s]
    w = np.array([d[s] / mass[m.observation[s]] for s in range(states)])
    rhat, khat = np.zeros((observed, options)), np.zeros((observed, options, observed))
    for s in range(states):
        rhat[m.observation[s]] += w[s] * r[s]
        for there in range(states):
            khat[m.observation[s], :, m.observation[there]] += w[s] * k[s, :, there]
    return {"r": r, "k": k, "p": p, "d": d, "d_obs": mass, "w": w, "rhat": rhat, "khat": khat}


def close(one, other):
    return np.allclose(one, other, rtol=1e-9, atol=1e-12)


def dense(model):
    n, options = model.reward.shape
    return model.kernel.toarray().reshape(n, options, n)


# --- kernels and laws -----------------------------------------------------------------------------------------------


@given(instances())
def test_kernels_and_laws_as_the_definitions_read(m):
    a, plain = analyse(m), loops(m)
    assert close(a.oracle.reward, plain["r"]) and close(dense(a.oracle), plain["k"])
    assert close(a.oracle.discount, plain["k"].sum(2)) and a.gamma_bar == pytest.approx(plain["k"].sum(2).max())
    assert close(a.transition.toarray(), plain["p"])
    assert close(a.d, plain["d"]) and close(a.d_obs, plain["d_obs"]) and close(a.w, plain["w"])
    assert close(a.interface.reward, plain["rhat"]) and close(dense(a.interface), plain["khat"])
    assert close(a.d_pair, plain["d_obs"][:, None] * m.behaviour)
    assert a.d_pair.sum() == pytest.approx(1.0) and a.d_state_pair.sum() == pytest.approx(1.0)
    assert close(a.d_state_pair, plain["d"][:, None] * m.behaviour[m.observation])


@given(instances(options=(2, 3), unavailable=(0.3, 0.8)), st.floats(-1e3, 1e3))
def test_padding_never_leaks(m, value):
    prob, reward = m.prob.copy(), m.reward.copy()
    padding = ~m.available[m.observation]
    prob[padding], reward[padding] = value, value
    one, other = analyse(m), analyse(m.replace(prob=prob, reward=reward).validate())
    for name in ("d", "w", "q_star", "q_bar", "kappa", "local_gap", "policy_loss", "slem"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@given(instances())
def test_local_gap_as_its_definition_reads(m):
    a, plain = analyse(m), loops(m)
    b = np.zeros_like(plain["r"])
    for s in range(m.num_states):
        o = m.observation[s]
        for option in np.flatnonzero(m.available[o]):
            lumped = np.bincount(m.observation, plain["k"][s, option], m.num_observations)
            b[s, option] = plain["r"][s, option] - plain["rhat"][o, option]
            b[s, option] += (lumped - plain["khat"][o, option]) @ a.v_bar
    scale = 1 + np.abs(a.q_bar).max()
    assert np.abs(a.local_gap - b).max() <= 1e-11 * scale + 2 * a.interface_solution.error
    # Its d-weighted mean over the states of an observation vanishes: that is what makes Qbar a fixed point.
    mean = np.zeros_like(a.q_bar)
    np.add.at(mean, m.observation, a.w[:, None] * a.local_gap)
    assert np.abs(mean).max() <= 1e-11 * scale + 2 * a.interface_solution.error


# --- fixed points against another library ---------------------------------------------------------------------------


def other_library(library, model):
    """The same process for a solver with one discount factor beta.

    The semi-Markov kernel K becomes beta times a stochastic matrix on one more state: K / beta, and the discount mass
    that K lacks goes to an absorbing state with reward zero.
    """
    n = len(model.reward)
    k = dense(model)
    beta = max(k.sum(2).max(), 0.1)
    rows, columns = np.nonzero(model.available)
    stochastic = np.zeros((len(rows) + 1, n + 1))
    stochastic[:-1, :n] = k[rows, columns] / beta
    stochastic[:-1, n] = np.maximum(1 - stochastic[:-1, :n].sum(1), 0)
    stochastic[-1, n] = 1.0
    reward = np.append(model.reward[rows, columns], 0.0)
    return library.markov.DiscreteDP(reward, stochastic, beta, np.append(rows, n), np.append(columns, 0))


def check_against(model, solution, theirs):
    result = theirs.solve(method="policy_iteration")
    slack = solution.error + 1e-10 * (1 + np.abs(result.v).max())
    assert result.v[-1] == 0.0
    assert np.abs(solution.v - result.v[:-1]).max() <= slack
    q = np.where(model.available, model.reward + dense(model) @ result.v[:-1], 0.0)
    assert np.abs(solution.q - q).max() <= slack


@given(instances())
def test_fixed_points_and_policy_values_agree_with_quantecon(quantecon, m):
    a = analyse(m)
    oracle, interface = other_library(quantecon, a.oracle), other_library(quantecon, a.interface)
    check_against(a.oracle, a.oracle_solution, oracle)
    check_against(a.interface, a.interface_solution, interface)
    for policy in (a.interface_solution.policy[m.observation], m.behaviour[m.observation].argmax(1)):
        value = oracle.evaluate_policy(np.append(policy, 0))[:-1]
        ours = a.oracle.evaluate(policy)
        assert np.abs(ours.v - value).max() <= ours.error + 1e-10 * (1 + np.abs(value).max())
    greedy = oracle.evaluate_policy(np.append(a.interface_solution.policy[m.observation], 0))[:-1]
    assert close(a.interface_value.v, greedy)


@given(instances())
def test_value_of_the_behaviour(m):
    a, plain = analyse(m), loops(m)
    beta = m.behaviour[m.observation]
    kernel = np.einsum("sa,sat->st", beta, plain["k"])
    value = np.linalg.solve(np.eye(m.num_states) - kernel, (beta * plain["r"]).sum(1))
    assert close(a.oracle.evaluate_random(beta).v, value)


# --- the interface solution beside the oracle -----------------------------------------------------------------------


@given(instances())
def test_greedy_interface_policy_loses_at_most_what_rounding_hides(m):
    a = analyse(m)
    slack = a.oracle_solution.error + a.interface_value.error
    assert a.policy_loss.min() >= -slack
    assert close(a.v_star - a.policy_loss, a.interface_value.v)


def test_a_loss_exists():
    assert max(analyse(garnet(seed, observations=2)).policy_loss.max() for seed in range(5)) > 0.01


@given(instances(alias=0.0))
def test_fully_observed_interface_equals_the_oracle(m):
    a = analyse(m)
    error = a.oracle_solution.error + a.interface_solution.error
    assert np.abs(a.gap).max() <= error + 1e-12
    assert np.abs(a.local_gap).max() <= 2 * error + 1e-12
    assert a.kappa == pytest.approx(oracle_contraction(a), rel=1e-12)
    assert a.w == pytest.approx(1.0)
    assert close(a.interface.reward[m.observation], a.oracle.reward)


@given(instances(), st.integers(0, 2**32 - 1))
def test_lift_preserves_the_norms(m, seed):
    a = analyse(m)
    q = np.where(m.available, np.random.default_rng(seed).normal(size=m.available.shape), 0.0)
    assert a.norm_d_state(a.lift(q)) == pytest.approx(a.norm_d(q), rel=1e-12)
    assert a.norm_sup_state(a.lift(q)) == a.norm_sup(q)
    by_hand = sum(a.d_obs[o] * m.behaviour[o, x] * q[o, x] ** 2 for o, x in np.argwhere(m.available))
    assert a.norm_d(q) == pytest.approx(np.sqrt(by_hand), rel=1e-12)
    assert (a.lift(np.ones_like(q))[~m.available[m.observation]] == 0).all()


def test_norms_refuse_the_other_space():
    a = analyse(garnet(0))
    for norm in (a.norm_d, a.norm_sup):
        with pytest.raises(ValueError, match=r"shape \(12, 3\), expected \(6, 3\)"):
            norm(a.q_star)
    for norm in (a.norm_d_state, a.norm_sup_state):
        with pytest.raises(ValueError, match=r"shape \(6, 3\), expected \(12, 3\)"):
            norm(a.q_bar)


@given(instances())
def test_action_gap(m):
    a = analyse(m)
    margins = [
        row[0] - row[1] for o in range(m.num_observations) if len(row := np.sort(a.q_bar[o, m.available[o]])[::-1]) > 1
    ]
    assert a.action_gap == min(margins, default=float("inf"))


# --- kappa ----------------------------------------------------------------------------------------------------------


def contraction_by_definition(model, mass):
    smallest = np.array([row[ok].min() for row, ok in zip(mass, model.available)])
    matrix = np.sqrt(np.where(model.available, mass, 0.0))[:, :, None] * dense(model) / np.sqrt(smallest)
    return np.linalg.svd(matrix.reshape(-1, len(smallest)))


@given(instances(), st.integers(0, 2**32 - 1))
def test_kappa_bounds_the_contraction_of_random_pairs(m, seed):
    a, rng = analyse(m), np.random.default_rng(seed)
    for model, norm, kappa in ((a.interface, a.norm_d, a.kappa), (a.oracle, a.norm_d_state, oracle_contraction(a))):
        for scale in (0.01, 1.0, 100.0):
            q = rng.normal(size=(2, *model.reward.shape)) * np.array([1.0, scale])[:, None, None]
            q = np.where(model.available, q, 0.0)
            q[1] += rng.integers(2) * q[0]
            assert norm(model.bellman(q[0]) - model.bellman(q[1])) <= kappa * norm(q[0] - q[1]) * (1 + 1e-12)


@given(instances())
def test_kappa_is_attained(m):
    """The pair built from the top right singular vector reaches the factor, so no smaller one holds."""
    a = analyse(m)
    for model, mass, norm, kappa in (
        (a.interface, a.d_pair, a.norm_d, a.kappa),
        (a.oracle, a.d_state_pair, a.norm_d_state, oracle_contraction(a)),
    ):
        _, singular, right = contraction_by_definition(model, mass)
        assert kappa == pytest.approx(singular[0], rel=1e-12, abs=1e-15)
        rows, weight = np.arange(len(mass)), np.where(model.available, mass, np.inf)
        rarest = weight.argmin(1)
        v = np.abs(right[0]) / np.sqrt(weight.min(1))
        low = np.where(model.available, -1.0, 0.0)
        low[rows, rarest] = 0.0
        high = low.copy()
        high[rows, rarest] = v
        moved = norm(model.bellman(high) - model.bellman(low))
        assert moved == pytest.approx(kappa * norm(high - low), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("iterations", [1, 3, 20_000])
@given(m=instances())
def test_collatz_wielandt_is_an_upper_bound_and_agrees_when_it_converges(iterations, m):
    a = analyse(m)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "DENSE_ENTRIES", 0)
        args = (a.interface.kernel, a.d_pair, a.interface.available)
        upper = exact.contraction(*args, max_iterations=iterations, tolerance=1e-14)
    assert upper >= a.kappa * (1 - 1e-13)
    if iterations > 3:
        assert upper == pytest.approx(a.kappa, rel=1e-6)


def test_kappa_needs_mass():
    m = garnet(0)
    a = analyse(m)
    mass = a.d_pair.copy()
    mass[4] = 0.0
    with pytest.raises(ValueError, match="observation 4 has no stationary mass"):
        exact.contraction(a.interface.kernel, mass, a.interface.available)


# --- what cannot be analysed, and what can ----------------------------------------------------------------------------


def walk(next_state, observation=None, **changes):
    """One option, sure moves: state s goes to each of next_state[s] with equal probability."""
    there = np.array(next_state)
    n, b = there.shape
    observation = np.arange(n) if observation is None else observation
    fields = {"prob": np.full((n, 1, b), 1 / b), "next_state": there[:, None], "duration": np.full((n, 1, b), 2)}
    fields |= {"reward": np.arange(float(n * b)).reshape(n, 1, b), "observation": observation}
    return ICSMDP.create(**fields, agent=np.zeros(max(observation) + 1, int), gamma=0.9, **changes)


def test_two_closed_classes_are_named():
    with pytest.raises(AnalysisError, match=r"2 closed classes \{1, 2\}; \{3\}.*transient states \{0\}"):
        analyse(walk([[1, 3], [2, 2], [1, 1], [3, 3]]))


def test_observations_without_mass_are_named():
    with pytest.raises(AnalysisError, match=r"observations without stationary mass \(0, 3\)"):
        analyse(walk([[1, 3], [2, 2], [1, 2], [0, 3], [1, 1]], observation=[0, 1, 2, 0, 3]))
    with pytest.raises(AnalysisError, match=r"\(0, 1, 2, 3, 4, 5, \.\.\.\)"):
        analyse(walk([[s + 1] for s in range(9)] + [[9]]))


def test_a_transient_state_behind_a_busy_observation_is_analysed():
    a = analyse(walk([[1, 2], [2, 2], [1, 2]], observation=[0, 0, 1]))
    assert a.d[0] == 0 and a.w[0] == 0 and a.w[1] == 1
    assert np.isfinite(a.kappa) and np.isfinite(oracle_contraction(a))
    assert "transient" in "; ".join(a.chain.problems())


def test_a_periodic_chain_is_analysed_and_reported():
    a = analyse(walk([[1], [2], [0]]))
    assert a.chain.period == (3,) and "period 3" in "; ".join(a.chain.problems())
    assert np.allclose(a.d, 1 / 3) and a.mixing_time() == float("inf") and a.spectral_gap == pytest.approx(0, abs=1e-12)
    # V = r + gamma^2 V(next) around the circle of rewards 0, 1, 2.
    g = 0.9**2
    assert a.v_star[0] == pytest.approx((g * 1 + g**2 * 2) / (1 - g**3), rel=1e-12)


def test_a_law_that_did_not_converge_is_no_law(monkeypatch):
    monkeypatch.setattr(markov, "DENSE_LIMIT", 0)
    failed = markov._Law(markov._mass(np.full(2, np.nan)), float("nan"), False)
    monkeypatch.setattr(markov, "_swept", lambda p, limit: failed)
    monkeypatch.setattr(markov, "affordable", lambda size, width: False)
    slow = walk([[0, 1], [0, 1]])
    prob = np.array([[[1 - 1e-9, 1e-9]], [[2e-9, 1 - 2e-9]]])
    with pytest.raises(AnalysisError, match="stationary law did not converge"):
        analyse(slow.replace(prob=prob).validate())


def test_terminal_outcomes_carry_no_value_but_keep_the_chain():
    m = garnet(2, terminal=1.0)
    a = analyse(m)
    assert a.gamma_bar == 0 and np.allclose(a.q_star, a.oracle.reward) and a.kappa == 0
    assert np.allclose(a.d, analyse(garnet(2, terminal=0.0)).d)


@given(instances(states=(2, 8)))
def test_mixing_of_the_analysis_is_that_of_the_chain(m):
    a = analyse(m)
    moduli = np.sort(np.abs(np.linalg.eigvals(loops(m)["p"])))
    assert a.slem == pytest.approx(moduli[-2], abs=1e-7) and a.spectral_gap == 1 - a.slem
    assume(a.slem < 0.999)
    t = int(a.mixing_time(0.1))
    worst = markov.tv_curve(a.transition, a.d, np.array([max(t - 1, 0), t]))
    assert worst[1] <= 0.1 + 1e-9 and (t == 0 or worst[0] > 0.1 - 1e-9)


# The peak counts making the instance too.
LARGE = """
import json, re, resource
from pathlib import Path
from icq.exact import analyse
from synthetic.random import garnet
a = analyse(garnet(0, states=100_000, options=4, outcomes=8, observations=20_000, agents=50, max_duration=8))
status = Path("/proc/self/status")  # of this program alone; rusage remembers the process that started it
peak = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) if status.exists() else 0
print(json.dumps({
    "oracle": a.oracle_solution.converged, "interface": a.interface_solution.converged,
    "error": a.oracle_solution.error, "residual": a.law.residual, "kappa": a.kappa, "mass": a.d.sum(),
    "peak": 1024 * peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}))
"""


@pytest.mark.slow
def test_a_hundred_thousand_states_fit_in_two_gibibytes():
    run = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    out = json.loads(run.stdout)
    assert out["oracle"] and out["interface"] and out["error"] < 1e-8
    assert out["residual"] < 1e-12 and out["mass"] == pytest.approx(1.0)
    assert 0 < out["kappa"] < 10
    assert out["peak"] < 2 * 2**30
