"""docs/theory.md sections 2 and 9: what weights cost, what no average removes, and how far iterates reach."""

import numpy as np
import pytest
from scipy.signal import lfilter

from bounds.residual.moments import second_moments
from bounds.residual.population import population
from icq.exact import analyse
from icq.learn.classes import tabular
from icq.learn.learner import LearnerConfig, learn
from icq.learn.sampling import tables
from icq.smdp import ICSMDP

pytestmark = pytest.mark.compiles


def weights(power, last):
    """Those of iterates 1..last in the learner's average."""
    j = np.arange(last + 1.0)
    return np.diff(j ** (power + 1)) / last ** (power + 1)


def influence(power, last):
    """c with average error sum_k c(k) z_k, for Delta_{k+1} = Delta_k + a_k (z_k - Delta_k), a_k = (1 + k)^-.6."""
    alpha, w = (1 + np.arange(last)) ** -0.6, weights(power, last)
    c, later = np.zeros(last), 0.0
    for k in reversed(range(last)):
        later += w[k]
        c[k] = alpha[k] * later
        later *= 1 - alpha[k]
    return c


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_weighted_average_costs_its_factor(power):
    """Exact variance of the average for J = 1, noise independent or with autocovariance .8^h (long-run variance 9)."""
    factor, miss = (power + 1) ** 2 / (2 * power + 1), []
    for last in (2**13, 2**16):
        assert last * (weights(power, last) ** 2).sum() == pytest.approx(factor, rel=1e-6)
        c = influence(power, last)
        later = lfilter([1.0], [1.0, -0.8], c[::-1])
        found = last * np.array([c @ c, (2 * c[::-1] @ later - c @ c) / 9])
        miss.append(np.abs(found / factor - 1).max())
    assert miss[1] < miss[0] < 0.06
    assert miss[1] < 0.03


def test_correlated_handoffs_leave_a_bias_of_the_order_of_the_step():
    """It stays in the average, halves with the step and vanishes when handoffs are independent.

    Stationary mean error of the linear recursion, exact.
    """
    m = ICSMDP.create(
        prob=[[[0.9, 0.1]], [[0.6, 0.4]]], next_state=[[[0, 1]], [[1, 0]]], duration=np.ones((2, 1, 2), int),
        reward=[[[1.0, 1.0]], [[-1.0, -1.0]]], observation=[0, 1], agent=[0, 0], gamma=0.5,
    )  # fmt: skip
    pop = population(analyse(m), np.array([[1.0], [2.0]]))
    last, average = [], []
    for alpha in (0.04, 0.02):
        time = np.array([int(12 / alpha)])
        found, control = (second_moments(pop, alpha, pop.theta_star, time, iid=iid) for iid in (False, True))
        last.append(np.sqrt(found.bias[0]))
        average.append(np.sqrt(found.averaged_bias[0]))
        assert np.sqrt(control.bias[0]) < 1e-12
    assert last[0] > 0.05
    assert last[0] == pytest.approx(2 * last[1], rel=0.05)
    assert average == pytest.approx(last, rel=0.2)


def test_a_tie_leaves_a_bias_of_the_order_of_the_root_of_the_step():
    """Two equal options: the maximum of two noisy values is high, and a quarter of the step halves the excess."""
    m = ICSMDP.create(
        prob=np.full((1, 2, 2), 0.5), next_state=np.zeros((1, 2, 2), int), duration=np.ones((1, 2, 2), int),
        reward=[[[2.0, 0.0], [2.0, 0.0]]], observation=[0], agent=[0], gamma=0.8,
    )  # fmt: skip
    t, cls = tables(analyse(m)), tabular(m, initial=5.0)
    means = []
    for step, last in ((0.04, 400), (0.01, 1600)):
        q = np.asarray(learn(t, cls, LearnerConfig(step=step), range(1000), [last]).q, np.float64)[:, 0, 0]
        excess = q.mean(1) - 5.0
        means.append((excess.mean(), excess.std() / np.sqrt(len(excess))))
    (large, large_error), (small, small_error) = means
    assert small > 10 * small_error
    assert large == pytest.approx(2 * small, abs=4 * np.hypot(large_error, 2 * small_error) + 0.1 * small)


def test_iterates_leave_the_range_of_the_mean_discount():
    """Reward 1, 1 or 50 steps: a streak of short options takes Q beyond 1/(1 - gbar), never beyond 1/(1 - max g)."""
    m = ICSMDP.create(
        prob=[[[0.5, 0.5]]], next_state=np.zeros((1, 1, 2), int), duration=[[[1, 50]]], reward=np.ones((1, 1, 2)),
        observation=[0], agent=[0], gamma=0.9,
    )  # fmt: skip
    a = analyse(m)
    q = np.asarray(learn(tables(a), tabular(m), LearnerConfig(step=1.0), range(50), [20, 40, 60]).q)
    assert q.max() > 1.5 / (1 - a.gamma_bar)
    assert q.max() <= 1 / (1 - 0.9)
