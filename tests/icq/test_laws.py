"""Rows of probabilities in the precision they are stored in: normalised and said, or refused with the remedy."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from icq import laws
from icq.build import BuildError
from icq.matrices import from_matrices
from icq.smdp import ICSMDP, ICSMDPError

REST = {"observation": [0, 0, 0], "agent": [0], "gamma": 0.9}
THIRDS = np.full((2, 3, 3), 1 / 3)


def instance(prob, **change):
    shape = np.shape(prob)
    rest = {"next_state": np.zeros(shape, int), "duration": np.ones(shape, int), "reward": np.zeros(shape)}
    fields = {"prob": prob, "observation": np.zeros(shape[0], int), "agent": [0], "gamma": 0.9} | rest
    return ICSMDP.create(**(fields | change))


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32]), st.integers(1, 300))
def test_laws_rounded_to_their_type_are_taken_and_normalised(seed, dtype, width):
    rows = np.random.default_rng(seed).dirichlet(np.ones(width), size=(2, 1)).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", laws.Normalised)
        m = instance(rows)
    assert m.prob.dtype == np.float64 and abs(m.prob.sum(-1) - 1).max() < 1e-12
    assert np.allclose(m.prob, rows.astype(float), rtol=1e-2, atol=1e-3)


def test_it_is_said_and_only_where_something_was_done():
    with pytest.warns(laws.Normalised, match="prob: rows summed to 1 within .* as float32 does"):
        instance(np.full((1, 1, 3), 0.3333333, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        instance(np.full((1, 1, 2), 0.5, np.float32))
        instance(np.full((1, 1, 3), 1 / 3))


def test_beyond_the_precision_row_deviation_tolerance_and_remedy_are_named():
    for prob, tolerance in ((np.array([[[0.25, 0.7]]], np.float32), "1e-06"), (np.array([[[0.25, 0.7]]]), "1e-09")):
        with pytest.raises(
            ICSMDPError, match=rf"prob\[0, 0\] = 0.9.* within {tolerance} .* off by 0.05; divide each row"
        ):
            instance(prob)
    wide = np.full((1, 1, 3), 0.3333333, np.float32).astype(float)
    with pytest.raises(ICSMDPError, match="divide each row by its sum"):
        instance(wide)
    instance(wide / wide.sum(-1, keepdims=True))  # the remedy


BAD_FIELDS = {
    "agent with a hole": ({"agent": [0, 2]}, r"agent\[1\] = 2, but no observation belongs to agent 1: .* renumbers"),
    "agent huge": ({"agent": [0, 10**6]}, r"agent\[1\] = 1000000, but"),
    "agent unsigned": ({"agent": np.array([0, 2**64 - 1], np.uint64)}, r"agent\[1\] = 18446744073709551615 is above"),
    "reward": ({"reward": np.full((2, 1, 1), 1e160)}, r"reward\[0, 0, 0\] = 1e\+160 is outside -1e\+100..1e\+100"),
    "duration": ({"duration": np.full((2, 1, 1), 2**31)}, r"duration\[0, 0, 0\] = 2147483648 is above 2147483647"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_extremes_are_refused_by_field_index_and_range(name):
    change, says = BAD_FIELDS[name]
    with pytest.raises(ICSMDPError, match=says):
        instance(np.ones((2, 1, 1)), **({"observation": [0, 1], "agent": [0, 1]} | change))


def test_the_remedy_for_agents_works():
    agent = np.unique([5, 1000000, 5], return_inverse=True)[1]
    m = instance(np.ones((3, 1, 1)), observation=[0, 1, 2], agent=agent)
    assert m.num_agents == 2


def test_rewards_of_padding_are_free():
    instance(np.ones((1, 2, 1)), reward=[[[0.0], [1e300]]], available=[[True, False]])


def same(a, b):
    dense = np.zeros((2, a.num_states, a.num_options, a.num_states))
    for k, m in enumerate((a, b)):
        for (s, o, i), p in np.ndenumerate(m.prob):
            dense[k, s, o, m.next_state[s, o, i]] += p
    return np.allclose(dense[0], dense[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csc_matrix, sp.coo_matrix, sp.lil_array])
def test_sparse_matrices_are_the_dense_ones(kind):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(4, 0.3), size=(2, 4)) * (rng.random((2, 4, 4)) < 0.6)
    p[:, :, 0] += 1 - p.sum(-1)
    rest = {"observation": [0, 1, 1, 0], "agent": [0, 1], "gamma": 0.9}
    reward = rng.normal(size=(4, 2))
    assert same(from_matrices([kind(part) for part in p], reward, **rest), from_matrices(p, reward, **rest))


def test_single_precision_matrices_are_normalised():
    p = THIRDS.astype(np.float32)
    p[:, :, 0] += np.float32(6e-8)
    with pytest.warns(laws.Normalised, match="transition"):
        assert abs(from_matrices(p, np.zeros((3, 2)), **REST).prob.sum(-1) - 1).max() < 1e-15
    with pytest.warns(laws.Normalised):
        from_matrices([sp.csr_array(part) for part in p], np.zeros((3, 2)), **REST)


def but(place, value):
    out = THIRDS.copy()
    out[place] = value
    return out


BAD_MATRICES = {
    "nan": (but((1, 2, 0), np.nan), r"transition\[1, 2, 0\] = nan is not a probability"),
    "negative": (but((0, 1), [-0.5, 0.5, 1.0]), r"transition\[0, 1, 0\] = -0.5 is not a probability"),
    "empty row": (but((1, 1), 0.0), r"transition\[1, 1\] sums to 0; .* divide each row by its sum"),
    "three digits": (np.round(THIRDS, 3).tolist(), r"transition\[0, 0\] sums to 0.999; .*within 1e-09 .* off by 0.001"),
    "unequal sparse": ([sp.eye_array(3), sp.eye_array(2)], r"transition\[1\]: shape \(2, 2\), expected"),
    "none": (np.zeros((0, 3, 3)), r"expected \(A, S, S\)"),
}


@pytest.mark.parametrize("name", BAD_MATRICES)
def test_bad_matrices_name_option_and_state(name):
    transition, says = BAD_MATRICES[name]
    with pytest.raises(BuildError, match=says):
        from_matrices(transition, np.zeros((3, 2)), **REST)


def test_bad_tables_beside_matrices_name_state_and_option():
    for value in (np.nan, np.inf, 1e200):
        reward = np.zeros((3, 2))
        reward[2, 1] = value
        with pytest.raises(BuildError, match=r"reward\[2, 1\] = "):
            from_matrices(THIRDS, reward, **REST)
    for value in (0, 1.5, np.nan, 1e30):
        duration = np.ones((3, 2))
        duration[1, 0] = value
        with pytest.raises(BuildError, match=r"duration\[1, 0\] = "):
            from_matrices(THIRDS, np.zeros((3, 2)), duration=duration, **REST)
