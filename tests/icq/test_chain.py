"""Chain structure, stationary law and mixing against dense linear algebra, closed forms and plain loops."""

from itertools import pairwise
from math import gcd

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import instances

from icq.exact import elimination, handoff_chain, markov


def sparse(rows):
    return sp.csr_array(np.array(rows, dtype=float))


def cycle(*lengths):
    """Cycles of the given lengths through state 0, equally likely."""
    size = 1 + sum(n - 1 for n in lengths)
    p, fresh = np.zeros((size, size)), 1
    for n in lengths:
        path = [0, *range(fresh, fresh + n - 1), 0]
        fresh += n - 1
        for here, there in pairwise(path):
            p[here, there] += 1 / len(lengths) if here == 0 else 1.0
    return sparse(p)


def clusters(sizes, leave, seed=0):
    """Clusters with random inside laws; every state leaves its cluster with probability `leave`, uniformly."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    label = np.repeat(np.arange(len(sizes)), sizes)
    same = label[:, None] == label[None, :]
    inside = np.where(same, rng.random((n, n)) + 0.1, 0.0)
    outside = np.where(same, 0.0, rng.random((n, n)) + 0.1)
    return sparse((1 - leave) * inside / inside.sum(1, keepdims=True) + leave * outside / outside.sum(1, keepdims=True))


def null_law(transition):
    """The stationary law as the left singular vector of the smallest singular value of I - P."""
    p = transition.toarray()
    vector = np.linalg.svd(np.eye(len(p)) - p.T)[2][-1]
    return vector / vector.sum()


def law_of(transition, **options):
    return markov.stationary(transition, markov.structure(transition), **options)


def ergodic(**limits):
    return instances(**limits).map(handoff_chain)


# --- structure ------------------------------------------------------------------------------------------------------


def test_closed_classes_and_transient_states_are_listed():
    p = sparse(
        [
            [0, 0.5, 0, 0.5, 0, 0],
            [0, 0, 1, 0, 0, 0],
            [0, 1, 0, 0, 0, 0],
            [0, 0, 0, 1, 0, 0],
            [0.5, 0, 0, 0, 0, 0.5],
            [0, 0, 0, 0, 1, 0],
        ]
    )
    out = markov.structure(p)
    assert [c.tolist() for c in out.closed] == [[1, 2], [3]]
    assert out.transient.tolist() == [0, 4, 5]
    assert out.period == (2, 1)
    assert not out.irreducible and not out.aperiodic
    said = "; ".join(out.problems())
    assert "2 closed classes {1, 2}; {3}" in said
    assert "3 transient states {0, 4, 5}" in said
    assert "{1, 2} has period 2" in said
    with pytest.raises(ValueError, match="2 closed classes"):
        markov.stationary(p, out)


def test_long_lists_are_shortened():
    problems = markov.structure(sp.eye_array(9).tocsr()).problems()
    assert problems == ["reducible: 9 closed classes {0}; {1}; {2}; {3}; ..., so the stationary law is not unique"]
    p = sparse(np.eye(9, k=1) + np.eye(9, k=-8))
    p = sp.block_diag([p, sp.eye_array(1)]).tocsr()
    assert "{0, 1, 2, 3, 4, 5, ... (9 states)} has period 9" in "; ".join(markov.structure(sp.csr_array(p)).problems())


def test_stored_zeros_are_no_edges():
    p = sp.csr_array((np.array([1.0, 0.0, 0.0, 1.0]), np.array([0, 1, 0, 1]), np.array([0, 2, 4])), shape=(2, 2))
    assert len(markov.structure(p).closed) == 2


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.05, 0.5))
def test_structure_against_reachability(seed, n, density):
    """Closed classes, transient states and periods from boolean matrix powers."""
    rng = np.random.default_rng(seed)
    edges = rng.random((n, n)) < density
    edges[np.arange(n), rng.integers(n, size=n)] = True
    reach, power, returns = np.eye(n, dtype=bool), np.eye(n, dtype=bool), [0] * n
    for t in range(1, 2 * n * n + 1):
        power = power @ edges
        reach |= power
        returns = [gcd(g, t) if power[s, s] else g for s, g in enumerate(returns)]
    both = reach & reach.T
    recurrent = [s for s in range(n) if (reach[s] <= reach[:, s]).all()]
    out = markov.structure(sparse(edges / edges.sum(1, keepdims=True)))
    assert sorted({tuple(np.flatnonzero(both[s])) for s in recurrent}) == [tuple(c) for c in out.closed]
    assert out.transient.tolist() == [s for s in range(n) if s not in recurrent]
    assert out.period == tuple(returns[c[0]] for c in out.closed)


@pytest.mark.parametrize(
    ("lengths", "period"), [((1,), 1), ((2,), 2), ((7,), 7), ((4, 6), 2), ((6, 10, 15), 1), ((9, 6), 3)]
)
def test_period_of_cycles(lengths, period):
    out = markov.structure(cycle(*lengths))
    assert out.irreducible and out.period == (period,)
    assert out.aperiodic == (period == 1)


@pytest.mark.parametrize("leaves", [1, 2, 10])
def test_star_has_period_two(leaves):
    p = np.zeros((leaves + 1, leaves + 1))
    p[0, 1:], p[1:, 0] = 1 / leaves, 1.0
    assert markov.structure(sparse(p)).period == (2,)
    p[1, 0], p[1, 1] = 0.5, 0.5
    assert markov.structure(sparse(p)).aperiodic


@given(ergodic())
def test_ergodic_chains_have_no_problem(transition):
    out = markov.structure(transition)
    assert out.irreducible and out.aperiodic and out.problems() == []


# --- stationary law -------------------------------------------------------------------------------------------------


@given(ergodic())
def test_stationary_law_is_the_null_vector(transition):
    out = law_of(transition)
    assert np.allclose(out.d, null_law(transition), atol=1e-12)
    assert out.converged and out.residual <= 1e-14 and out.d.sum() == pytest.approx(1.0, abs=1e-14)


def test_slow_chain_to_all_digits():
    """Spectral gap 2e-6 and 2e-12: state reduction loses nothing, the null vector is good to eps / gap."""
    for leave in (1e-6, 1e-12):
        p = clusters((4, 3), leave)
        assert np.sort(np.abs(np.linalg.eigvals(p.toarray())))[-2] == pytest.approx(1 - 2 * leave, abs=1e-14)
        out = law_of(p)
        # Every state leaves its cluster with the same probability, so both clusters weigh exactly 1/2.
        assert out.d[:4].sum() == pytest.approx(0.5, rel=1e-13)
        if leave == 1e-6:
            assert np.abs(out.d - null_law(p)).max() <= 1e-9


@given(st.integers(1, 12), st.floats(1e-9, 0.4), st.floats(1e-9, 0.4))
def test_birth_death_chain_in_closed_form(size, up, down):
    """Detailed balance: d(s) is proportional to (up/down)^s, over any number of orders of magnitude."""
    p = up * np.eye(size, k=1) + down * np.eye(size, k=-1)
    p += np.diag(1 - p.sum(1))
    law = (up / down) ** np.arange(float(size))
    assert np.allclose(law_of(sparse(p)).d, law / law.sum(), rtol=1e-10, atol=0)


def test_periodic_and_transient_chains_have_a_law():
    p = sp.block_diag([cycle(3), sp.csr_array((1, 1))]).tolil()
    p[3, 0] = 1.0
    assert np.allclose(law_of(sp.csr_array(p)).d, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-15)


def power_iteration_only(patch):
    """As where sweeps do not get there and the band is wide."""
    failed = markov._Law(markov._mass(np.full(1, np.nan)), float("nan"), False)
    patch.setattr(markov, "_swept", lambda p, limit: failed)
    patch.setattr(markov, "affordable", lambda size, width: False)


@given(ergodic(states=(2, 8)))
def test_power_iteration_agrees_with_elimination(transition):
    direct = law_of(transition)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markov, "DENSE_LIMIT", 0)
        power_iteration_only(patch)
        power = law_of(transition)
    assert power.method == "power iteration" and power.converged and power.residual <= 1e-12
    gap = 1 - markov.slem((sp.eye_array(transition.shape[0]) + transition).tocsr() / 2)
    assert np.abs(power.d - direct.d).sum() <= 1e-12 / gap


def test_power_iteration_handles_periods_and_says_when_it_is_too_slow(monkeypatch):
    monkeypatch.setattr(markov, "DENSE_LIMIT", 0)
    power_iteration_only(monkeypatch)
    assert np.allclose(law_of(cycle(4, 6)).d, null_law(cycle(4, 6)), atol=1e-12)
    slow = law_of(sparse([[1 - 1e-6, 1e-6], [2e-6, 1 - 2e-6]]), max_iterations=1000)
    assert not slow.converged and np.abs(slow.d - [2 / 3, 1 / 3]).max() > 0.1
    assert slow.result.startswith("power iteration did not converge")
    for gap, slack in ((0.3, 10), (1e-3, 10)):
        patient = law_of(sparse([[1 - gap, gap], [2 * gap, 1 - 2 * gap]]), max_iterations=100_000)
        assert patient.converged
        found = np.abs(patient.d - [2 / 3, 1 / 3]).sum()
        assert found <= slack * patient.error + 1e-13 and patient.error <= 1e-10


@given(ergodic(states=(1, 8)))
def test_elimination_in_a_band_is_elimination(transition):
    """Entry by entry, also where the band is the whole matrix, in whatever order the states come."""
    order, width = markov.band(transition)
    ordered = sp.csr_array(transition[order][:, order])
    coo = ordered.tocoo()
    assert width == np.abs(coo.row - coo.col).max(initial=0)
    for wide in (width, width + 1):
        found = elimination.banded(ordered, wide)[np.argsort(order)]
        assert np.allclose(found, law_of(transition).d, rtol=1e-13, atol=0)


def line(size, up, down, ring=False):
    """A walk that goes up or down with these probabilities and waits otherwise, also at the ends of a line."""
    stay = np.full(size, 1 - up - down)
    if not ring:
        stay[0], stay[-1] = 1 - up, 1 - down
    off = [(np.full(size - 1, down), -1), (np.full(size - 1, up), 1)]
    off += [(np.full(1, up), 1 - size), (np.full(1, down), size - 1)] if ring else []
    return sp.csr_array(sp.diags_array([stay, *(v for v, _ in off)], offsets=[0, *(k for _, k in off)]))


def blocks(size, count, leave, seed=0):
    """Random chains on `count` equal blocks; a state moves to a uniform state with probability `leave`."""
    rng, each = np.random.default_rng(seed), size // count
    start = np.arange(size) // each * each
    inside = start[:, None] + rng.integers(each, size=(size, 4))
    cycle = start + (np.arange(size) - start + 1) % each
    there = np.column_stack([inside, cycle, rng.integers(size, size=size), (np.arange(size) + each) % size])
    law = (1 - leave) * rng.dirichlet(np.ones(5), size)
    weight = np.column_stack([law, np.full(size, 0.7 * leave), np.full(size, 0.3 * leave)])
    return sp.csr_array((weight.reshape(-1), there.reshape(-1), np.arange(0, 7 * size + 1, 7)), shape=(size, size))


@pytest.mark.parametrize("compiler", [True, False])
def test_long_walks_have_their_law_whatever_the_gap(monkeypatch, compiler):
    """Gaps 1e-7 and less, beyond the dense limit; the laws are known in closed form."""
    if not compiler:
        monkeypatch.setattr(elimination, "COMPILED_FROM", 10**9)
    size = 1200
    for up, down in ((0.25, 0.25), (0.3, 0.2)):
        out = law_of(line(size, up, down, ring=True))
        assert out.converged and np.abs(out.d - 1 / size).sum() <= max(10 * out.error, 1e-13)
        assert out.error <= 1e-8 and out.residual <= 1e-14
    shuffled = np.random.default_rng(0).permutation(size)
    up, down = 0.2502, 0.25
    out = law_of(sp.csr_array(line(size, up, down)[shuffled][:, shuffled]))
    law = (up / down) ** np.arange(float(size))[shuffled]
    assert out.converged and np.abs(out.d - law / law.sum()).sum() <= max(10 * out.error, 1e-12)


@pytest.mark.parametrize("compiler", [True, False])
def test_a_drift_over_hundreds_of_orders_of_magnitude(monkeypatch, compiler):
    """Masses that no double holds become 0, those that it holds keep their digits."""
    if not compiler:
        monkeypatch.setattr(elimination, "COMPILED_FROM", 10**9)
    size, ratio = 1100, 3.0
    out = law_of(line(size, 0.6, 0.2))
    exact = (1 - 1 / ratio) * ratio ** -np.arange(600.0)
    assert out.converged and np.allclose(out.d[:-601:-1], exact, rtol=1e-10, atol=0)


@pytest.mark.parametrize("leave", [1e-2, 1e-4])
@pytest.mark.parametrize("count", [2, 10])
def test_nearly_decoupled_blocks_beyond_the_dense_limit(monkeypatch, count, leave):
    """Accelerated sweeps find the law to the digits they claim; elimination is the judge."""
    p = blocks(400, count, leave)
    judge = law_of(p)
    monkeypatch.setattr(markov, "DENSE_LIMIT", 100)
    swept = law_of(p)
    assert judge.method == "elimination" and swept.method == "accelerated sweeps"
    assert swept.converged and swept.error <= 1e-10
    assert np.abs(swept.d - judge.d).sum() <= 10 * swept.error + judge.error
    assert np.allclose(swept.d, judge.d, rtol=1e-8, atol=0)


def test_a_law_that_no_method_finds_is_not_converged(monkeypatch):
    monkeypatch.setattr(markov, "DENSE_LIMIT", 100)
    monkeypatch.setattr(markov, "affordable", lambda size, width: False)
    out = law_of(blocks(300, 3, 1e-13), max_iterations=50)
    assert not out.converged and "did not converge" in out.result


@given(ergodic(states=(1, 8)))
def test_compiled_elimination_is_elimination(transition):
    plain = law_of(transition)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elimination, "COMPILED_FROM", 0)
        assert np.allclose(law_of(transition).d, plain.d, rtol=1e-13, atol=0)


@given(ergodic(states=(2, 8)))
def test_accelerated_sweeps_agree_with_elimination(transition):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markov, "DENSE_LIMIT", 0)
        out = law_of(transition)
    assert out.converged and np.allclose(out.d, law_of(transition).d, rtol=1e-9, atol=0)


# --- mixing ---------------------------------------------------------------------------------------------------------


def worst_tv(power, d):
    return 0.5 * np.abs(power - d).sum(1).max()


@given(ergodic(), st.sampled_from([0.5, 0.25, 0.1, 0.01]))
def test_mixing_time_by_counting(transition, epsilon):
    p, d = transition.toarray(), law_of(transition).d
    power, t = np.eye(len(d)), 0
    while worst_tv(power, d) > epsilon and t < 20_000:
        power, t = power @ p, t + 1
    assume(t < 20_000)
    assume(abs(worst_tv(power, d) - epsilon) > 1e-9)  # a tie that rounding decides
    assert markov.mixing_time(transition, d, epsilon) == t
    times = np.array([0, 1, 2, 5, 11])
    loop = [worst_tv(np.linalg.matrix_power(p, k), d) for k in times]
    assert np.allclose(markov.tv_curve(transition, d, times), loop, atol=1e-12)


@pytest.mark.parametrize("rate", [0.4, 1e-2, 1e-5])
@pytest.mark.parametrize("epsilon", [0.25, 0.01])
def test_two_state_chain_in_closed_form(rate, epsilon):
    """TV from the rarer state is d_max lambda^t with lambda = 1 - a - b."""
    a, b = rate, rate / 2
    p = sparse([[1 - a, a], [b, 1 - b]])
    d = law_of(p).d
    assert np.allclose(d, [1 / 3, 2 / 3], rtol=1e-12)
    assert markov.slem(p) == pytest.approx(1 - a - b, rel=1e-12)
    expected = np.ceil(np.log(epsilon / d.max()) / np.log(1 - a - b))
    assert markov.mixing_time(p, d, epsilon) == pytest.approx(expected, rel=1e-9, abs=0)


def test_mixing_time_of_special_chains():
    assert markov.mixing_time(cycle(3), np.full(3, 1 / 3)) == float("inf")
    two = sp.eye_array(2).tocsr()
    assert markov.mixing_time(two, np.array([0.5, 0.5])) == float("inf")
    assert markov.mixing_time(sparse([[1.0]]), np.ones(1)) == 0
    assert markov.mixing_time(sparse(np.full((4, 4), 0.25)), np.full(4, 0.25)) == 1
    for epsilon in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"epsilon = {epsilon}"):
            markov.mixing_time(two, np.array([0.5, 0.5]), epsilon)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("eta", [0.3, 1e-2, 1e-6])
def test_slem_of_a_cluster_chain(count, eta):
    """A fast base chain times a cluster switching with probability eta: slem is 1 - eta C / (C - 1)."""
    base = np.full((3, 3), 1 / 3)
    switch = (1 - eta) * np.eye(count) + eta * (1 - np.eye(count)) / (count - 1)
    assert markov.slem(sparse(np.kron(switch, base))) == pytest.approx(1 - eta * count / (count - 1), rel=1e-10)


@pytest.mark.parametrize("dense_limit", [1000, 0])
def test_slem_of_a_walk_on_a_circle(monkeypatch, dense_limit):
    """Lazy walk on n points: the second eigenvalue is (1 + cos(2 pi / n)) / 2, twice."""
    n = 60
    p = 0.5 * np.eye(n) + 0.25 * (np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0))
    monkeypatch.setattr(markov, "DENSE_LIMIT", dense_limit)
    assert markov.slem(sparse(p)) == pytest.approx((1 + np.cos(2 * np.pi / n)) / 2, rel=1e-7)


def test_slem_of_chains_that_never_mix():
    assert markov.slem(cycle(4)) == pytest.approx(1.0, abs=1e-12)
    assert markov.slem(sp.eye_array(3).tocsr()) == 1.0
    assert markov.slem(sparse([[1.0]])) == 0.0
    assert markov.slem(sparse(np.full((4, 4), 0.25))) == pytest.approx(0.0, abs=1e-12)


def test_slem_says_when_arpack_gives_up(monkeypatch):
    def gives_up(*_, **__):
        raise markov.ArpackNoConvergence("too slow", np.array([]), np.array([]))

    monkeypatch.setattr(markov, "DENSE_LIMIT", 0)
    monkeypatch.setattr(markov, "eigs", gives_up)
    assert np.isnan(markov.slem(clusters((30, 30), 0.1)))
    assert markov.slem(sp.csr_array(sp.block_diag([clusters((5, 5), 0.1)] * 2))) == 1.0
    assert markov.slem(cycle(4, 6)) == 1.0


@pytest.mark.parametrize("leave", [0.5, 1e-2, 1e-5])
def test_slem_beyond_the_dense_limit(monkeypatch, leave):
    """The subspace of vectors of sum zero has all eigenvalues but the trivial one."""
    p = clusters((40, 30, 20), leave)
    dense = markov.slem(p)
    monkeypatch.setattr(markov, "DENSE_LIMIT", 0)
    assert markov.slem(p) == pytest.approx(dense, rel=1e-7)


@given(ergodic())
def test_deviation_matrix_identities(transition):
    """(I - P) Z = Z (I - P) = I - 1d', Z 1 = 0, d Z = 0, and Z h solves the Poisson equation."""
    p, d = transition.toarray(), law_of(transition).d
    z, size = markov.deviation(transition, d), len(d)
    scale = 1e-12 * np.abs(z).max() + 1e-12
    centre = np.eye(size) - np.ones((size, 1)) * d
    assert np.abs((np.eye(size) - p) @ z - centre).max() <= scale
    assert np.abs(z @ (np.eye(size) - p) - centre).max() <= scale
    assert np.abs(z.sum(1)).max() <= scale * size
    assert np.abs(d @ z).max() <= scale * size


@given(ergodic(states=(2, 6)))
def test_deviation_matrix_is_the_sum_of_deviations(transition):
    p, d = transition.toarray(), law_of(transition).d
    total, term, count = np.zeros_like(p), np.eye(len(d)) - d, 0
    while np.abs(term).max() > 1e-15 and count < 20_000:
        total, term, count = total + term, term @ p, count + 1
    assume(count < 20_000)
    assert np.allclose(markov.deviation(transition, d), total, atol=1e-8 * np.abs(total).max())


def test_deviation_matrix_of_two_states():
    """Z = (I - 1d') / (a + b)."""
    a, b = 0.3, 0.2
    p, d = sparse([[1 - a, a], [b, 1 - b]]), np.array([0.4, 0.6])
    assert np.allclose(markov.deviation(p, d), (np.eye(2) - d) / (a + b), atol=1e-14)
