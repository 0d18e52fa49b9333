"""The certified solver against brute force over all policies."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from icq import exact, solve
from synthetic.random import garnet


def best_of_all_policies(reward, kernel, available):
    """V* and Q* as the maximum over every deterministic policy, each evaluated by a dense linear solve."""
    n, options = reward.shape
    dense = kernel.toarray().reshape(n, options, n)
    values = [
        np.linalg.solve(np.eye(n) - dense[np.arange(n), policy], reward[np.arange(n), policy])
        for policy in product(*(np.flatnonzero(row) for row in available))
    ]
    v = np.max(values, axis=0)
    return v, np.where(available, reward + dense @ v, 0.0)


def oracle(m):
    model = exact.oracle_model(m)
    return model.reward, model.kernel, model.available


small = instances(states=(1, 5))


@given(small)
def test_certificate_bounds_the_error_of_the_optimum(m):
    reward, kernel, available = oracle(m)
    v, q = best_of_all_policies(reward, kernel, available)
    out = solve.solve(reward, kernel, available)
    # The brute force itself is exact up to its conditioning.
    slack = 1e-13 * (1 + np.abs(v).max()) / (1 - solve.modulus(kernel))
    assert np.abs(out.q - q).max() <= out.error + slack
    assert np.abs(out.v - v).max() <= out.error + slack
    assert out.converged and out.result.startswith("converged after")
    assert out.error <= 1e-10 * (1 + np.abs(v).max()) / (1 - solve.modulus(kernel))


@pytest.mark.parametrize("direct_limit", [1000, 0])
@given(m=small, stop=st.integers(0, 4))
def test_early_stop_says_so_and_the_error_stays_valid(direct_limit, m, stop):
    reward, kernel, available = oracle(m)
    v, q = best_of_all_policies(reward, kernel, available)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "DIRECT_SOLVE_LIMIT", direct_limit)
        out = solve.solve(reward, kernel, available, max_iterations=stop)
    assert out.iterations <= stop
    assert out.result.startswith("converged" if out.converged else f"did not converge after {stop}")
    slack = 1e-13 * (1 + np.abs(v).max()) / (1 - solve.modulus(kernel))
    assert np.abs(out.q - q).max() <= out.error + slack
    assert np.abs(out.v - v).max() <= out.error + slack


def test_not_converged_is_reachable_in_both_branches(monkeypatch):
    reward, kernel, available = oracle(garnet(0, terminal=0.0))
    assert not solve.solve(reward, kernel, available, max_iterations=0).converged
    assert solve.solve(reward, kernel, available, max_iterations=20).converged
    monkeypatch.setattr(solve, "DIRECT_SOLVE_LIMIT", 0)
    assert not solve.solve(reward, kernel, available, max_iterations=2).converged


def test_the_certificate_is_attained():
    """One state, one option, no iteration: the error is exactly gbar |v| / (1 - gbar), so no factor can be dropped."""
    gbar = 0.8
    kernel, available = sp.csr_array([[gbar]]), np.ones((1, 1), bool)
    out = solve.solve(np.array([[3.0]]), kernel, available, max_iterations=0)
    assert not out.converged
    assert 3.0 / (1 - gbar) - out.q[0, 0] == pytest.approx(out.error, rel=1e-12)


@given(m=small)
def test_sweeps_agree_with_direct_solves(m):
    reward, kernel, available = oracle(m)
    direct = solve.solve(reward, kernel, available)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "DIRECT_SOLVE_LIMIT", 0)
        swept = solve.solve(reward, kernel, available)
    assert swept.converged
    assert np.abs(swept.q - direct.q).max() <= swept.error + direct.error


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("seed", range(3))
def test_gamma_near_one(distance, seed):
    m = garnet(seed, states=5, options=2, observations=3, gamma=1 - distance, terminal=0.0)
    reward, kernel, available = oracle(m)
    out = solve.solve(reward, kernel, available)
    v, _ = best_of_all_policies(reward, kernel, available)
    assert out.converged
    assert np.abs(v).max() > 0.01 / distance  # the values do explode
    gbar = solve.modulus(kernel)
    assert np.abs(out.v - v).max() <= out.error + 1e-13 * np.abs(v).max() / (1 - gbar)
    assert out.error <= 1e-13 * np.abs(v).max() / (1 - gbar)


@given(instances(options=(2, 4), drop=(0.5, 1.0)), st.floats(1.0, 1e6))
def test_padded_options_are_never_chosen(m, lure):
    """Whatever stands in the padding, also where every real option loses."""
    prob, reward = m.prob.copy(), m.reward.copy()
    padding = ~m.available[m.observation]
    reward -= 100.0
    reward[padding] = lure
    prob[padding] *= -lure
    luring, plain = (
        exact.oracle_model(m.replace(prob=p, reward=r)) for p, r in ((prob, reward), (m.prob, m.reward - 100.0))
    )
    one, other = luring.solve(), plain.solve()
    assert available_at(luring.available, one.policy).all()
    assert np.array_equal(one.q, other.q) and (one.q[padding] == 0).all()
    raw = np.where(luring.available, luring.reward, lure)
    assert available_at(luring.available, solve.solve(raw, luring.kernel, luring.available).policy).all()


def available_at(available, policy):
    return available[np.arange(len(policy)), policy]


def test_greedy_takes_the_first_of_ties_and_ignores_padding():
    q = np.array([[5.0, 1.0, 1.0], [2.0, 2.0, 3.0]])
    available = np.array([[False, True, True], [True, True, True]])
    policy, v = solve.greedy(q, available)
    assert policy.tolist() == [1, 2] and v.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("gbar", [1.0, 1.5])
def test_no_contraction_is_refused(gbar):
    with pytest.raises(ValueError, match=rf"the largest expected discount is {gbar}, it must be below 1"):
        solve.solve(np.ones((1, 1)), sp.csr_array([[gbar]]), np.ones((1, 1), bool))


def test_ties_and_zero_rewards_end():
    """Policies that differ only by rounding must not keep the iteration alive."""
    for seed in range(5):
        m = garnet(seed, states=30, observations=30, gamma=0.999, terminal=0.0)
        doubled = m.replace(
            **{
                n: np.concatenate([getattr(m, n)] * 2, axis=1)
                for n in ("prob", "next_state", "duration", "reward", "terminal")
            },
            available=np.concatenate([m.available] * 2, axis=1),
            behaviour=np.concatenate([m.behaviour / 2] * 2, axis=1),
        ).validate()
        for scale in (1.0, 0.0):
            out = exact.oracle_model(doubled.replace(reward=scale * doubled.reward)).solve()
            assert out.converged and out.iterations <= 20
    assert out.error == 0.0 and (out.q == 0).all()
