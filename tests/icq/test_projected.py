"""icq.exact.projected: the fixed point of Pi That, and the one failure where there is none."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from strategies import garnet

from bounds.residual.population import block_features, population
from icq.exact import Model, analyse
from icq.exact.projected import Affine, Convex, fixed_point, search
from icq.learn.classes import random_features
from icq.reason import NoNumber, Reason
from icq.smdp import ICSMDP

DATA = Path(__file__).parents[1] / "data"


def close(_, residual):
    return residual < 1e-12


def one_pair(discount, option=0.0):
    """One observation that follows itself, reward 1, with a second option that pays `option` and ends."""
    kernel = sp.csr_array(np.array([[discount], [0.0]]))
    return Model(np.array([[1.0, option]]), kernel, np.ones((1, 2), bool))


def test_an_affine_class_is_solved_for_one_policy_after_another():
    """Every pair its own feature: Q_F = Qbar, dense or sparse, from whatever options one starts."""
    a = analyse(garnet(3, states=6, observations=4, options=3, unavailable=0.0))
    for basis in (np.eye(12), sp.csr_array(np.eye(12))):
        members = Affine(a.interface, a.d_pair.reshape(-1), basis, np.zeros(12))
        for policy in (None, np.zeros(4, int), a.interface_solution.policy):
            found = fixed_point(members, close, policy=policy, trust=True)
            np.testing.assert_allclose(members.table(found.point), a.q_bar, atol=1e-11)
            np.testing.assert_array_equal(found.policy, a.interface_solution.policy)
        assert found.iterations == 1, "options that stay greedy need one solve"


def test_sweeps_alone_reach_the_same_fixed_point():
    a = analyse(garnet(3, states=6, observations=4, options=3, unavailable=0.0))
    found = fixed_point(Convex(a.interface, a.d_pair, lambda q: q), close)
    np.testing.assert_allclose(found.point, a.q_bar, atol=1e-9)


class Misled(Affine):
    def evaluate(self, policy):
        return super().evaluate(policy) + 1e3 * (1 + policy.sum())


def test_policies_that_lead_astray_cost_sweeps_and_nothing_else():
    a = analyse(garnet(3, states=6, observations=4, options=3, unavailable=0.0))
    members = Misled(a.interface, a.d_pair.reshape(-1), np.eye(12), np.zeros(12))
    found = fixed_point(members, close)
    np.testing.assert_allclose(members.table(found.point), a.q_bar, atol=1e-9)
    assert found.iterations > 20


def test_without_a_fixed_point_there_is_one_documented_failure():
    runs_away = Affine(one_pair(2.0), np.array([1.0, 0.0]), np.array([[1.0], [0.0]]), np.zeros(2))
    with pytest.raises(NoNumber) as failure:
        fixed_point(runs_away, close)
    assert failure.value.why.reason is Reason.NO_FIXED_POINT and "kappa_F" in failure.value.why.need
    assert not search(runs_away, close).converged
    singular = Affine(one_pair(1.0), np.array([1.0, 0.0]), np.array([[1.0], [0.0]]), np.zeros(2))
    with pytest.raises(NoNumber) as failure:
        fixed_point(singular, close, limit=50)
    assert failure.value.why.reason is Reason.SINGULAR
    dependent = Affine(one_pair(0.5), np.array([1.0, 0.0]), np.ones((2, 2)), np.zeros(2))
    with pytest.raises(NoNumber) as failure:
        fixed_point(dependent, close)
    assert failure.value.why.reason is Reason.DEPENDENT


@pytest.mark.parametrize("seed", [2, 3, 13])
def test_values_that_run_away_are_no_error_of_the_linear_algebra(seed):
    """34 states behind 5 observations at gamma .99: sweeps of these two features grow until they overflow."""
    a = analyse(ICSMDP.load(DATA / "no_class_fixed_point.npz"))
    features = np.asarray(random_features(a.smdp, 2, seed).features, np.float64)
    with pytest.raises(NoNumber) as failure:
        population(a, block_features(a, features))
    assert failure.value.why.reason is Reason.NO_FIXED_POINT
