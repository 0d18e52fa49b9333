"""docs/theory.md section 5b: from a Lyapunov inequality to a curve over time."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bounds.core.steps import schedule
from bounds.residual.recursion import ZERO, Lyapunov, Quadratic, advance, average, iterate, leap, product, spread, walk

size = st.sampled_from([0.0, 1e-3, 0.1, 1.0, 3.0])
quadratic = st.builds(Quadratic, size, size, size)
slacks = st.builds(Quadratic, size, size, st.sampled_from([0.0, 0.1, 0.6]))
drifts = st.sampled_from([1e-3, 0.1, 0.5, 1.0])
levels = st.sampled_from([0.0, 1e-4, 0.1, 1.0, 20.0])


def scaled(q, factor):
    return ZERO.plus(q, factor)


@given(levels, drifts, slacks, quadratic)
def test_worst_x(w, drift, slack, gain):
    """Against a grid over every pair (x, W) that W <= w and |W - x^2| <= slack(x) allow."""
    _, high = spread(slack, w)
    x = np.linspace(0, high, 20_001)
    between, more = (q.c0 + q.c1 * x + q.c2 * x**2 for q in (slack, gain))
    largest = np.minimum(w, x**2 + between)
    allowed = x**2 - between <= largest + 1e-12
    values = np.where(allowed, largest - drift * x**2 + more, -np.inf)
    best = advance(w, drift, slack, gain)
    assert values.max() <= best + 1e-9 * (1 + abs(best))
    assert values.max() == pytest.approx(best, abs=1e-3 * (1 + high**2))


@given(levels, slacks)
def test_spread_solves_both_equations(w, slack):
    low, high = spread(slack, w)
    assert high**2 - slack(high) == pytest.approx(w, abs=1e-9)
    assert low == 0 or low**2 + slack(low) == pytest.approx(w, abs=1e-9)
    assert (low == 0) == (w <= slack.c0)


@given(levels, drifts, slacks, quadratic, st.sampled_from([2, 7, 60]), st.sampled_from([1.0, 1e-2]))
def test_leap(w, drift, slack, gain, count, shrink):
    """Many steps at once are never below many single steps, and little above where the map hardly bends."""
    drift, slack, gain = drift * shrink, scaled(slack, shrink), scaled(gain, shrink**2)
    exact = [w]
    for _ in range(count):
        exact.append(advance(exact[-1], drift, slack, gain))
    assume(exact[-1] < 1e6)
    end, top = leap(w, count, drift, slack, gain)
    assert end >= exact[-1] * (1 - 1e-10) - 1e-14
    assert top >= max(exact) * (1 - 1e-10) - 1e-14


def example(mu=0.3):
    return Lyapunov(
        mu=mu, gain_2=Quadratic(2.0, 1.0, 3.0), gain_3=Quadratic(1.0, 0.5, 2.0), gain_4=Quadratic(0.2, 0.1, 1.0),
        slack_1=Quadratic(0.0, 2.0, 1.5), slack_2=Quadratic(1.0, 0.5, 2.0), growth=(1.0, 2.0),
    )  # fmt: skip


def plain(lyapunov, alpha, v_0, last):
    """Single steps with the definition written out: W bounds and x bounds at times 0..last."""
    w = v_0 + lyapunov.slack(alpha[0])(math.sqrt(v_0))
    levels, xs = [w], [math.sqrt(v_0)]
    for k in range(last):
        a, b = alpha[k], alpha[k + 1]
        w = advance(w, 2 * a * lyapunov.mu, lyapunov.slack(a), lyapunov.gain(a, b))
        levels.append(w)
        xs.append(spread(lyapunov.slack(b), w)[1])
    return np.array(levels), np.array(xs)


@pytest.mark.parametrize("v_0", [0.0, 0.01, 5.0])
@pytest.mark.parametrize("alpha", [0.02, 0.002])
def test_constant_steps_in_leaps_agree_with_single_steps(alpha, v_0):
    last = 3000
    levels, xs = plain(example(), np.full(last + 2, alpha), v_0, last)
    times = np.array([0, 1, 50, 400, last])
    curve = iterate(example(), alpha, v_0, times)
    assert (curve >= xs[times] ** 2 * (1 - 1e-12)).all()
    assert curve == pytest.approx(xs[times] ** 2, rel=0.01)
    s0, s1, s2 = example().slack(alpha)
    gains = np.cumsum([example().gain(alpha, alpha)(x) for x in xs[:-1]])
    exact = (levels[0] + gains[times[1:] - 1] + s0 + s1**2 / (4 * (1 - s2))) / (2 * 0.7 * alpha * times[1:])
    means = average(example(), 0.7, alpha, v_0, times[1:])
    assert (means >= exact * (1 - 1e-12)).all()
    assert means == pytest.approx(exact, rel=0.01)


def test_schedules_step_by_step():
    times = np.array([0, 3, 200])
    alpha = 0.05 / np.sqrt(1 + np.arange(210))
    _, xs = plain(example(), alpha, 2.0, 200)
    expected = pytest.approx(xs[times] ** 2, rel=1e-12)
    assert iterate(example(), alpha, 2.0, times) == expected
    assert iterate(example(), lambda k: 0.05 / math.sqrt(1 + k), 2.0, times) == expected


def test_a_change_of_step_costs_the_change_of_the_slack():
    l, a, b = example(), 0.1, 0.07
    for x in (0.0, 0.5, 2.0):
        grown = x + a * (l.growth[0] + l.growth[1] * x)
        cost = (a - b) * l.slack_1(grown) + (a**2 - b**2) * l.slack_2(grown)
        assert l.gain(a, b)(x) - l.gain(a, a)(x) == pytest.approx(cost)
        assert l.gain(b, a)(x) - l.gain(b, b)(x) > 0


def test_average_after_a_burn_in_forgets_the_start():
    times = np.array([20_000])
    late = average(example(), 0.7, 0.005, 100.0, times, burn_in=5_000)
    assert late < 0.5 * average(example(), 0.7, 0.005, 100.0, times)
    with pytest.raises(ValueError, match="must exceed burn_in"):
        average(example(), 0.7, 0.005, 100.0, np.array([5]), burn_in=5)


def test_a_cap_binds_only_where_it_is_smaller():
    times = np.array([1, 100, 1000])
    free = iterate(example(mu=-1.0), 0.05, 1.0, times)
    held = iterate(example(mu=-1.0), 0.05, 1.0, times, cap=2.0)
    assert free[-1] > 1e6
    assert (held <= np.minimum(free, 4.0)).all()
    assert held[-1] == 4.0
    assert iterate(example(), 0.01, 1.0, times, cap=100.0) == pytest.approx(iterate(example(), 0.01, 1.0, times))


def test_divergence_ends_in_infinity_and_not_in_an_error():
    assert np.isinf(iterate(example(mu=-50.0), 0.1, 1.0, np.array([5_000]))[0])


def test_stretches_begin_at_every_stop():
    begun = [s.time for s in walk(example(), 0.01, 1.0, [7, 1000, 333])]
    assert {0, 7, 333, 1000} <= set(begun)
    assert begun == sorted(begun)


def test_conditions_state_their_margin():
    small, overshoot = example().conditions(0.1)
    assert small.margin == pytest.approx(1 - 0.15 - 0.02)
    assert overshoot.margin == pytest.approx(1 - 0.06)
    assert not example().conditions(0.6)[0].holds


def test_steps():
    assert schedule(0.5, 3).tolist() == [0.5] * 3
    assert schedule(lambda k: 1 / (k + 1), 3) == pytest.approx([1, 1 / 2, 1 / 3])
    assert schedule(np.array([3.0, 2.0, 1.0]), 2).tolist() == [3, 2]
    with pytest.raises(ValueError, match=r"steps\[1\] = 0.0 is not a positive number"):
        schedule(np.array([1.0, 0.0]), 2)
    with pytest.raises(ValueError, match="at least 3 steps are needed"):
        schedule(np.array([1.0, 0.5]), 3)


def test_product_multiplies_polynomials():
    assert product((1.0, 2.0), (3.0, 4.0))(0.5) == pytest.approx((1 + 1) * (3 + 2))
