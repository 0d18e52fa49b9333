"""What is given becomes what is expected, or is refused by name; no table is ever broadcast."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strategies import instances

from bounds.approximation import certificate
from bounds.approximation.class_error import projected_certificate
from bounds.approximation.classes import linear_class
from bounds.interface import gap
from estimators.approximation import bellman_residual
from estimators.approximation import certificate as certificate_estimate
from estimators.decomposition import decompose
from estimators.interface import local_gap
from estimators.logs import simulate
from estimators.logs.log import from_handoffs
from estimators.values import value_error
from icq import coerce
from icq.baselines import centralised, greedy_value, independent
from icq.build import Outcome, from_functions
from icq.exact import analyse
from icq.learn import classes, networks, sampling
from icq.learn.learner import LearnerConfig, learn
from icq.matrices import from_matrices
from icq.smdp import stack
from synthetic.random import garnet

pytestmark = pytest.mark.compiles

A = analyse(garnet(states=12, options=3, outcomes=2, observations=5, agents=2, seed=1))
PAIRS = A.d_pair.shape
LINEAR = linear_class(A, np.ones((*PAIRS, 1)), np.zeros(PAIRS))
HANDOFFS = sampling.trajectory(sampling.tables(A), jax.random.key(0), 8)
TABLES = {  # every public function that takes one table
    "decompose": lambda q: decompose(A, q, A.q_bar),
    "decompose, q_f": lambda q: decompose(A, A.q_bar, q),
    "certificate, sup": lambda q: certificate.certificate_sup(A, q),
    "certificate, d": lambda q: certificate.certificate_d(A, q),
    "certificate, pointwise": lambda q: certificate.certificate_pointwise(A, q),
    "certificate, loss": lambda q: certificate.policy_loss_certificate(A, q),
    "certificate, class": lambda q: projected_certificate(LINEAR, q),
    "residual": lambda q: certificate.residual(A, q),
    "local gap": lambda q: gap.local_gap(A, q),
    "signed gap": lambda q: gap.signed_gap_value(A, q),
    "bellman": lambda q: A.interface.bellman(q),
    "lift": lambda q: A.lift(q),
    "norm, d": lambda q: A.norm_d(q),
    "norm, sup": lambda q: A.norm_sup(q),
    "greedy value": lambda q: greedy_value(A, q),
    "estimated residual": lambda q: bellman_residual(A, q),
    "estimated certificate": lambda q: certificate_estimate(A, q),
    "estimated value error": lambda q: value_error(A, q),
    "estimated local gap": lambda q: local_gap(A, q),
    "simulated log": lambda q: simulate.simulate(A, 8, q=q),
    "handoffs": lambda q: from_handoffs(A.smdp, HANDOFFS, q=q),
}
BATCHED = ("decompose", "decompose, q_f")


def same(x, y):
    """Equal results, whatever they are made of."""
    if hasattr(x, "__dataclass_fields__"):
        return all(same(getattr(x, name), getattr(y, name)) for name in x.__dataclass_fields__)
    if isinstance(x, tuple | list):
        return len(x) == len(y) and all(map(same, x, y))
    if isinstance(x, np.ndarray | float):
        return np.array_equal(x, y, equal_nan=True)
    return x == y


@pytest.mark.parametrize("name", TABLES)
def test_lists_integers_and_jax_arrays_are_tables(name):
    q = np.round(10 * A.q_bar)
    expected = TABLES[name](q)
    for other in (q.tolist(), q.astype(int), tuple(map(tuple, q)), jnp.asarray(q, jnp.float32), q.astype(np.float16)):
        assert same(TABLES[name](other), expected)


@pytest.mark.parametrize("name", TABLES)
@given(shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
def test_a_table_of_another_shape_is_never_broadcast(name, shape):
    right = shape[-2:] == PAIRS and (len(shape) == 2 or name in BATCHED)
    if right:
        return
    with pytest.raises(ValueError, match=r"^q(_f)?: shape .*expected") as refused:
        TABLES[name](np.zeros(shape))
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize("name", TABLES)
def test_one_column_is_no_table(name):
    for wrong in (A.q_bar[:, :1], A.q_bar[:1], A.q_bar[0], A.q_bar[0, 0], A.q_bar.T, A.q_star):
        with pytest.raises(ValueError, match=r"^q(_f)?: shape"):
            TABLES[name](wrong)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("dtype", [object, complex, "U5", "S5", "datetime64[s]"])
def test_what_is_not_real_numbers_is_no_table(name, dtype):
    with pytest.raises(ValueError, match=r"^q(_f)?: .*, not real numbers; give"):
        TABLES[name](np.zeros(PAIRS).astype(dtype))


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_unequal_length_are_no_table(name):
    with pytest.raises(ValueError, match=r"^q(_f)?: not an array"):
        TABLES[name]([[1.0, 2.0], [3.0]])


def test_batches_of_tables_are_decomposed():
    q = np.stack([A.q_bar, A.q_bar + 1])[:, None]
    errors, _ = decompose(A, q.tolist(), A.q_bar)
    assert errors.total.shape == (2, 1)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((3, 5), "transpose it"),
        ((2, 5, 3), r"one table at a time, q\[0\]"),
        ((5, 1), "for every observation and option"),
    ],
)
def test_the_remedy_is_said(shape, says):
    with pytest.raises(ValueError, match=says):
        coerce.shaped("q", np.zeros(shape), "OA", (5, 3))


@given(m=instances())
def test_an_array_of_the_right_shape_is_the_same_array(m):
    array = np.zeros(m.prob.shape[:2])
    assert coerce.shaped("q", array, "SA", array.shape) is array


@given(value=st.one_of(st.integers(-5, 5), st.floats(), st.booleans(), st.text(), st.none(), st.lists(st.integers())))
def test_counts_are_whole_and_positive(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 1 <= value <= coerce.MOST and float(value).is_integer():
        assert coerce.count("seeds", value) == value
    else:
        with pytest.raises(ValueError, match=r"^seeds = "):
            coerce.count("seeds", value)


# --- models -----------------------------------------------------------------------------------------------------------


def workflow():
    return from_functions(
        start=[0], agent=lambda s: "a", observe=lambda s: s % 2, options=lambda s: ["x", "y"],
        outcomes=lambda s, option: [Outcome(1.0, (s + (option == "x")) % 4, reward=float(s))], gamma=0.9,
    )  # fmt: skip


def test_a_workflow_is_its_instance():
    w = workflow()
    assert np.array_equal(analyse(w).q_star, analyse(w.smdp).q_star)
    for change in (centralised, independent, sampling.tables):
        assert np.array_equal(change(w).observation, change(w.smdp).observation)
    assert analyse(A) is A


def test_learn_takes_a_model_and_numbers():
    w = workflow()
    cls, how = classes.tabular(w.smdp), LearnerConfig()
    a = learn(w, cls, how, 2, 100)
    b = learn(sampling.tables(analyse(w)), cls, how, range(2), [100])
    assert np.array_equal(a.q, b.q)
    with pytest.raises(ValueError, match="seeds = 0"):
        learn(w, cls, how, 0, 100)
    with pytest.raises((ValueError, TypeError), match="checkpoints"):
        learn(w, cls, how, 2, [1.5])


def test_a_batch_is_not_a_model():
    with pytest.raises(ValueError, match=r"model: a batch of 2, expected one instance"):
        analyse(stack([A.smdp, A.smdp]))
    with pytest.raises(ValueError, match="batch"):
        analyse(replace(workflow(), smdp=stack([A.smdp])))


REFUSALS = """
from icq.exact import analyse
for model in ("m.npz", 3, None):
    try:
        analyse(model)
    except TypeError as error:
        print(error)
"""


def test_anything_else_is_refused_with_the_remedy():
    """In a process of its own: here the argument types are checked before the function is."""
    run = [sys.executable, "-c", REFUSALS]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    path, number, nothing = said.splitlines()
    assert path == "model: a str, expected an ICSMDP or a Workflow; read the file with load()"
    assert number.startswith("model: a int, expected") and "from_functions" in nothing


def test_matrices_may_be_lists():
    p, r = np.full((2, 3, 3), 1 / 3), np.arange(6).reshape(3, 2)
    rest = {"observation": [0, 0, 1], "agent": [0, 1], "gamma": 0.9}
    plain = from_matrices(p.tolist(), r.tolist(), duration=np.ones((3, 2), int).tolist(), **rest)
    other = from_matrices(jnp.asarray(p), jnp.asarray(r), **rest)
    assert np.array_equal(plain.reward, other.reward) and np.array_equal(plain.duration, other.duration)


def test_offsets_and_inputs_of_another_shape_are_refused():
    psi = np.ones((*PAIRS, 2), np.float32)
    with pytest.raises((ValueError, TypeError), match="offset"):
        classes.linear(A.smdp, psi, np.zeros((PAIRS[0], 1), np.float32))
    with pytest.raises(ValueError, match="inputs"):
        networks.network(A.smdp, np.zeros((PAIRS[0] + 1, 2), np.float32), 4)
