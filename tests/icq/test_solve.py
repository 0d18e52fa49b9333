"""The certified solver against brute force over all policies."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from strategies import garnet, instances

from icq import exact
from icq.exact import fixed_point, jit


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


def compiled_solve(reward, kernel, available, patience=None, **options):
    """The compiled loops at any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixed_point, "COMPILED_FROM", 0)
        if patience is not None:
            patch.setattr(fixed_point, "PATIENCE", patience)
        return fixed_point.solve(reward, kernel, available, **options)


@given(small)
def test_certificate_bounds_the_error_of_the_optimum(m):
    reward, kernel, available = oracle(m)
    v, q = best_of_all_policies(reward, kernel, available)
    out = fixed_point.solve(reward, kernel, available)
    # The brute force itself is exact up to its conditioning.
    slack = 1e-13 * (1 + np.abs(v).max()) / (1 - fixed_point.modulus(kernel))
    assert np.abs(out.q - q).max() <= out.error + slack
    assert np.abs(out.v - v).max() <= out.error + slack
    assert out.converged and out.result.startswith("converged after")
    assert out.error <= 1e-10 * (1 + np.abs(v).max()) / (1 - fixed_point.modulus(kernel))


@pytest.mark.parametrize("solver", [fixed_point.solve, compiled_solve])
@given(m=small, stop=st.integers(0, 4))
def test_early_stop_says_so_and_the_error_stays_valid(solver, m, stop):
    reward, kernel, available = oracle(m)
    v, q = best_of_all_policies(reward, kernel, available)
    out = solver(reward, kernel, available, max_iterations=stop)
    assert out.iterations <= stop
    assert out.result.startswith("converged" if out.converged else f"did not converge after {stop}")
    slack = 1e-13 * (1 + np.abs(v).max()) / (1 - fixed_point.modulus(kernel))
    assert np.abs(out.q - q).max() <= out.error + slack
    assert np.abs(out.v - v).max() <= out.error + slack


@pytest.mark.parametrize("solver", [fixed_point.solve, compiled_solve])
def test_not_converged_is_reachable(solver):
    reward, kernel, available = oracle(garnet(0, terminal=0.0))
    assert not solver(reward, kernel, available, max_iterations=0).converged
    assert solver(reward, kernel, available, max_iterations=20).converged


def test_the_certificate_is_attained():
    """One state, one option, no iteration: the error is exactly gbar |v| / (1 - gbar), so no factor can be dropped."""
    gbar = 0.8
    kernel, available = sp.csr_array([[gbar]]), np.ones((1, 1), bool)
    out = fixed_point.solve(np.array([[3.0]]), kernel, available, max_iterations=0)
    assert not out.converged
    assert 3.0 / (1 - gbar) - out.q[0, 0] == pytest.approx(out.error, rel=1e-12)


@given(m=small, stop=st.integers(0, 4))
def test_compiled_loops_agree_with_brute_force(m, stop):
    reward, kernel, available = oracle(m)
    v, q = best_of_all_policies(reward, kernel, available)
    slack = 1e-13 * (1 + np.abs(v).max()) / (1 - fixed_point.modulus(kernel))
    for limit in (stop, 1000):
        out = compiled_solve(reward, kernel, available, max_iterations=limit)
        assert out.converged or limit == stop
        assert np.abs(out.q - q).max() <= out.error + slack and np.abs(out.v - v).max() <= out.error + slack
        assert (out.q[~available] == 0).all() and available_at(available, out.policy).all()
    plain = fixed_point.solve(reward, kernel, available)
    assert out.error <= 4 * plain.error + slack


@pytest.mark.parametrize("terminal", [0.0, 0.3])
@pytest.mark.parametrize("gamma", [0.9, 0.999, 1 - 1e-6])
@pytest.mark.parametrize("states", [300, 1500])
def test_compiled_loops_agree_with_plain_ones(monkeypatch, states, gamma, terminal):
    reward, kernel, available = oracle(garnet(1, states=states, observations=50, gamma=gamma, terminal=terminal))
    fast = fixed_point.solve(reward, kernel, available)
    monkeypatch.setattr(fixed_point, "COMPILED_FROM", states + 1)
    plain = fixed_point.solve(reward, kernel, available)
    assert fast.converged and plain.converged and fast.iterations <= 25
    assert np.abs(fast.q - plain.q).max() <= fast.error + plain.error
    assert fast.error <= 2 * plain.error


def lines(size, gamma):
    """Kernels of one option on which sweeps are slow in some order, and one with very unequal rows."""
    rng = np.random.default_rng(0)
    ring = gamma * sp.csr_array((np.ones(size), (np.arange(size), (np.arange(size) + 1) % size)), shape=(size, size))
    walk = sp.diags_array([np.full(size - 1, 0.25), np.full(size, 0.5), np.full(size - 1, 0.25)], offsets=[-1, 0, 1])
    order = rng.permutation(size)
    half = sp.diags_array(np.where(rng.random(size) < 0.5, gamma, 0.0)) @ walk
    kernels = {"ring": ring, "back": ring.T, "shuffled": ring[order][:, order], "walk": gamma * walk, "half": half}
    return {name: sp.csr_array(kernel) for name, kernel in kernels.items()}


@pytest.mark.parametrize("limit", [1000, 0])
@pytest.mark.parametrize("gamma", [0.99, 0.9999])
def test_slow_policies_are_evaluated(monkeypatch, gamma, limit):
    """By acceleration or, should that fail, by elimination, in a band where the matrix is too large for another."""
    monkeypatch.setattr(fixed_point, "DIRECT_SOLVE_LIMIT", limit)
    reward, one = np.random.default_rng(1).random((400, 1)), np.ones((400, 1), bool)
    for name, kernel in lines(400, gamma).items():
        out = fixed_point.solve(reward, kernel, one, max_iterations=50)
        exact_v = np.linalg.solve(np.eye(400) - kernel.toarray(), reward[:, 0])
        assert out.converged, name
        assert np.abs(out.v - exact_v).max() <= out.error + 1e-13 * np.abs(exact_v).max() / (1 - gamma), name


@given(instances())
def test_options_of_a_similar_problem_shorten_the_way_and_change_nothing(m):
    reward, kernel, available = oracle(m)
    cold = fixed_point.solve(reward, kernel, available)
    warm = fixed_point.solve(reward, kernel, available, near=cold.policy)
    other = fixed_point.solve(reward, kernel, available, near=available.argmax(axis=1))
    assert warm.converged and other.converged and warm.iterations <= cold.iterations
    for found in (warm, other):
        assert np.abs(found.q - cold.q).max() <= found.error + cold.error


def test_elimination_is_declined_where_it_would_fill_in(monkeypatch):
    monkeypatch.setattr(fixed_point, "DIRECT_SOLVE_LIMIT", 0)
    monkeypatch.setattr(fixed_point, "ENVELOPE", 1000)
    ring = lines(300, 0.9)["ring"]
    assert fixed_point._factorised(ring, np.ones(300)) is None
    monkeypatch.undo()
    assert not fixed_point.affordable(10**6, 10**4) and fixed_point.affordable(10**6, 3)


class Stubborn:
    """An evaluator that answers nonsense: the safeguard must converge all the same."""

    def __init__(self, engine, answer):
        self.engine, self.answer = engine, answer

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def evaluate(self, q, v, goal):
        return self.answer(v)


@pytest.mark.parametrize("answer", [lambda v: -v, lambda v: v + 1e3, np.zeros_like])
def test_a_useless_evaluation_only_costs_time(monkeypatch, answer):
    plain = fixed_point._Plain
    monkeypatch.setattr(fixed_point, "_Plain", lambda *model: Stubborn(plain(*model), answer))
    monkeypatch.setattr(fixed_point, "PATIENCE", 3)
    reward, kernel, available = oracle(garnet(0))
    out = fixed_point.solve(reward, kernel, available)
    monkeypatch.undo()
    judge = fixed_point.solve(reward, kernel, available)
    assert out.converged and np.abs(out.q - judge.q).max() <= out.error + judge.error


def test_what_is_not_finite_never_passes_for_converged():
    """Comparisons pass over a NaN; the loops must not."""
    loops, (reward, kernel, available) = fixed_point.compiled(), oracle(garnet(0))
    engine = fixed_point.Compiled(reward, kernel, available)
    for bad in (np.nan, np.inf):
        v = np.zeros(len(reward))
        v[3] = bad
        _, _, change, size = engine.improve(v)
        assert change == np.inf and size == np.inf
    q, v, _, _ = engine.improve(np.zeros(len(reward)))
    _, mass = loops.select(*engine.model, q, v, engine.policy)
    v[5] = np.nan
    assert loops.sweep(engine.policy, engine.policy.reward, mass, v) == np.inf
    assert not loops.evaluate(engine.policy, engine.policy.reward, mass, v, 0.0, 1e-12, 50)


@given(instances(states=(2, 8)), st.integers(0, 2**32 - 1))
def test_one_sweep_as_its_definition_reads(m, seed):
    """Gauss-Seidel in order, then the constant for which the residual has sum zero."""
    loops, (reward, kernel, available) = fixed_point.compiled(), oracle(m)
    engine, rng = fixed_point.Compiled(reward, kernel, available), np.random.default_rng(seed)
    for _ in range(3):  # policies that change row by row
        q = np.where(available, rng.normal(size=reward.shape), 0.0)
        policy, best = fixed_point.greedy(q, available)
        _, mass = loops.select(*engine.model, q, best, engine.policy)
    rows = np.arange(len(reward))
    k, r = kernel.toarray()[rows * reward.shape[1] + policy], reward[rows, policy]
    assert mass == pytest.approx((np.eye(len(k)) - k).sum(), rel=1e-12)
    v = rng.normal(size=len(k))
    expected = v.copy()
    for s in rows:
        expected[s] = (r[s] + k[s] @ expected - k[s, s] * expected[s]) / (1 - k[s, s])
    step = np.abs(expected - v).max()
    expected += (r + k @ expected - expected).sum() / (np.eye(len(k)) - k).sum()
    assert loops.sweep(engine.policy, engine.policy.reward, mass, v) == pytest.approx(step, rel=1e-10, abs=1e-12)
    assert np.allclose(v, expected, rtol=1e-9, atol=1e-9)
    assert (r + k @ v - v).sum() == pytest.approx(0, abs=1e-9)


def test_small_instances_do_not_import_the_compiler():
    code = "import sys; from icq import exact; from synthetic.random import garnet; exact.analyse(garnet(0))"
    done = subprocess.run(
        [sys.executable, "-c", code + "; print('numba' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def test_an_unwritable_cache_is_no_obstacle(monkeypatch):
    """As when the package lies in a read-only place and there is no home directory."""
    real = jit.numba.njit

    def refuse(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(function, **options)

    monkeypatch.setattr(jit.numba, "njit", refuse)

    def double(x):
        return 2 * x

    assert jit.jit(double)(3.0) == 6.0


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("seed", range(3))
def test_gamma_near_one(distance, seed):
    m = garnet(seed, states=5, options=2, observations=3, gamma=1 - distance, terminal=0.0)
    reward, kernel, available = oracle(m)
    out = fixed_point.solve(reward, kernel, available)
    v, _ = best_of_all_policies(reward, kernel, available)
    assert out.converged
    assert np.abs(v).max() > 0.01 / distance  # the values do explode
    gbar = fixed_point.modulus(kernel)
    assert np.abs(out.v - v).max() <= out.error + 1e-13 * np.abs(v).max() / (1 - gbar)
    assert out.error <= 1e-13 * np.abs(v).max() / (1 - gbar)


@given(instances(options=(2, 4), unavailable=(0.5, 1.0)), st.floats(1.0, 1e6))
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
    assert available_at(luring.available, fixed_point.solve(raw, luring.kernel, luring.available).policy).all()


def available_at(available, policy):
    return available[np.arange(len(policy)), policy]


def test_greedy_takes_the_first_of_ties_and_ignores_padding():
    q = np.array([[5.0, 1.0, 1.0], [2.0, 2.0, 3.0]])
    available = np.array([[False, True, True], [True, True, True]])
    policy, v = fixed_point.greedy(q, available)
    assert policy.tolist() == [1, 2] and v.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("gbar", [1.0, 1.5])
def test_no_contraction_is_refused(gbar):
    with pytest.raises(ValueError, match=rf"the largest expected discount is {gbar}\): choose gamma further below 1"):
        fixed_point.solve(np.ones((1, 1)), sp.csr_array([[gbar]]), np.ones((1, 1), bool))


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


def test_what_has_no_solution_is_refused_and_not_searched_for():
    reward, kernel, available = oracle(garnet(3, states=12, options=2))
    lonely = available.copy()
    lonely[2] = False
    with pytest.raises(ValueError, match="state 2 has no available option"):
        fixed_point.solve(reward, kernel, lonely)
    broken = np.where(available, np.nan, reward)
    with pytest.raises(ValueError, match="not finite"):
        fixed_point.solve(broken, kernel, available)
