"""Chains whose laws leave the range of a double, and chains behind walls: right, or said not to be known."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from test_chain import blocks, clusters, law_of

from bounds.interface.gap import oracle_contraction
from icq.exact import analyse, elimination, markov
from icq.reason import NoNumber, Reason
from icq.smdp import ICSMDP


def walk(up, down, order=None):
    """A birth-death chain with these probabilities at every state, and the logarithm of its law."""
    up, down = np.asarray(up, float), np.asarray(down, float)
    p = np.diag(up[:-1], 1) + np.diag(down[1:], -1)
    p += np.diag(1 - p.sum(1))
    log = np.concatenate([[0.0], np.cumsum(np.log(up[:-1] / down[1:]))])
    log -= log.max() + np.log(np.exp(log - log.max()).sum())
    order = np.arange(len(up)) if order is None else order
    return sp.csr_array(p[order][:, order]), log[order]


def well(size, pull):
    """Two ends that pull, with a wall between them."""
    left = np.arange(size) < size // 3
    return np.where(left, 0.5 - pull, 0.5 + pull), np.where(left, 0.5 + pull, 0.5 - pull)


CASES = {
    "323 states": (np.full(323, 0.9), np.full(323, 0.1)),
    "324 states": (np.full(324, 0.9), np.full(324, 0.1)),
    "500 states, other way": (np.full(500, 0.1), np.full(500, 0.9)),
    "120 stages": (np.full(120, 0.999), np.full(120, 0.001)),
    "two modes": well(500, 0.49),
    "two modes behind 1e-99": well(180, 0.45),
}


@pytest.mark.parametrize("numbered", ["up", "down", "shuffled"])
@pytest.mark.parametrize("case", CASES)
def test_laws_beyond_the_range_of_a_double(case, numbered):
    up, down = CASES[case]
    shuffled = np.random.default_rng(0).permutation(len(up))
    order = {"up": np.arange(len(up)), "down": np.arange(len(up))[::-1], "shuffled": shuffled}[numbered]
    p, log = walk(up, down, order)
    out = law_of(p)
    assert out.converged and out.error <= 1e-11 and out.residual <= 1e-14
    assert np.abs(out.d - np.exp(log)).sum() <= 1e-12 and np.abs(out.log_d - log).max() <= 1e-9


@pytest.mark.parametrize("method", ["sweeps", "band", "power"])
@pytest.mark.parametrize("leave", [1e-2, 1e-9, 1e-30, 1e-100])
def test_blocks_behind_walls_are_right_or_not_converged(monkeypatch, method, leave):
    """A residual below rounding says nothing about how blocks share the mass, whichever method finds it."""
    p = blocks(120, 2, leave)
    judge = law_of(p).d
    monkeypatch.setattr(markov, "DENSE_LIMIT", 10)
    if method != "sweeps":
        failed = markov._Law(markov._mass(np.ones(120)), float("nan"), False)
        monkeypatch.setattr(markov, "_swept", lambda p, limit: failed)
    if method != "band":
        monkeypatch.setattr(markov, "affordable", lambda size, width: False)
    out = law_of(p)
    assert out.converged or (method != "band" and leave < 1e-2)
    if out.converged:
        assert np.abs(out.d - judge).sum() <= 10 * out.error + 1e-12


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.floats(1.0, 120.0))
def test_the_law_does_not_depend_on_the_numbering(seed, size, spread):
    """Random chains whose probabilities spread over hundreds of orders of magnitude, entry by entry."""
    rng = np.random.default_rng(seed)
    p = 10.0 ** -(spread * rng.random((size, size)))
    p = sp.csr_array(p / p.sum(1, keepdims=True))
    order = rng.permutation(size)
    one, other = law_of(p), law_of(sp.csr_array(p[order][:, order]))
    assert one.converged and other.converged
    assert np.allclose(one.log_d[order], other.log_d, rtol=1e-12, atol=1e-10)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_wide_numbers_are_numbers(seed, size):
    p = np.random.default_rng(seed).random((size, size)) + 1e-3
    p = sp.csr_array(p / p.sum(1, keepdims=True))
    plain = elimination.dense(p.toarray())
    found = elimination.wide(p, size)
    assert np.allclose(found.d, plain, rtol=1e-13, atol=0) and np.allclose(found.log_d, np.log(plain), atol=1e-12)


def test_a_compiled_elimination_says_what_it_lost():
    p, log = walk(*CASES["two modes"])
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        elimination.dense(p.toarray())
    assert law_of(p).d[-1] == pytest.approx(np.exp(log[-1]), rel=1e-9)


def stages(size, observed):
    """A chain of stages, forward .999 and back .001, two options that earn 1 and 2."""
    here = np.arange(size)
    following = np.stack([np.minimum(here + 1, size - 1), np.maximum(here - 1, 0)], axis=1)
    shape = (size, 2, 2)
    prob = np.broadcast_to([0.999, 0.001], shape)
    return ICSMDP.create(
        prob=prob, next_state=np.broadcast_to(following[:, None], shape), duration=np.ones(shape, int),
        reward=np.broadcast_to(np.array([1.0, 2.0])[:, None], shape), observation=observed,
        agent=np.zeros(max(observed) + 1, int), gamma=0.9,
    )  # fmt: skip


def test_values_without_mass_in_double_precision_are_values():
    """Qbar is an average within an observation, also where its whole mass is below 1e-308."""
    a = analyse(stages(120, [s // 2 for s in range(120)]))
    assert a.d_obs.min() == 0 and np.isfinite(a.w).all()
    assert np.allclose(np.bincount(a.smdp.observation, a.w), 1)
    assert np.allclose(a.q_bar, [19.0, 20.0]) and a.norm_sup_state(a.gap) <= 1e-12
    assert a.kappa == oracle_contraction(a) == np.inf
    weight = 0.001 / 0.999  # within an observation the first state weighs so much of the second
    assert a.w[0] == pytest.approx(weight / (1 + weight), rel=1e-9)


def test_the_second_eigenvalue_of_a_drift():
    """2 (up down)^{1/2} cos(pi / n), of a matrix that is far from normal."""
    p, log = walk(np.full(200, 0.9), np.full(200, 0.1))
    assert markov.slem(p, log) == pytest.approx(0.6 * np.cos(np.pi / 200), rel=1e-12)
    assert markov.slem(p) > 0.602


def test_a_deviation_matrix_without_digits_is_none():
    p = clusters((4, 3), 1e-13)
    with pytest.raises(NoNumber) as caught:
        markov.deviation(p, law_of(p).d)
    assert caught.value.why.reason is Reason.TOO_SLOW
