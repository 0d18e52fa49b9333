"""Rewards in another unit: every number is the same number in that unit, and nothing takes longer."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import garnet, instances

from bounds.core.bound import POWER
from bounds.interface import gap
from bounds.theorem import Theorem, tabular_features
from icq.exact import analyse, units
from icq.exact.fixed_point import root_sum
from icq.exact.projected import Affine, fixed_point
from icq.reason import NoNumber
from icq_bounds.commands.analyse import analysis_report
from icq_bounds.error_theorem import theorem_report


def times(m, power):
    return replace(m, reward=np.ldexp(np.asarray(m.reward), power))


FREE = {
    "gamma_bar", "kappa", "kappa_s", "slem", "spectral_gap", "mixing_time", "irreducible", "aperiodic", "period",
    "closed_classes", "problems", "bounds", "q_star",
}  # fmt: skip


@settings(max_examples=12)
@given(instances(), st.sampled_from([-900, -300, -1, 40, 900]))
def test_the_exact_analysis_scales_digit_by_digit(m, power):
    one, other = analysis_report(m)[0], analysis_report(times(m, power))[0]
    for name, value in one.items():
        if name in FREE or value is None:
            continue
        assert other[name] == np.ldexp(value, power) or (power < -800 and name.startswith("solver")), name
    for name, said in one["bounds"].items():
        assert other["bounds"][name]["verdict"] == said["verdict"], name


def test_subnormal_rewards_keep_what_they_have():
    m = garnet(0)
    one, other = analyse(m), analyse(times(m, -1060))
    step = np.finfo(float).smallest_subnormal
    exact = np.ldexp(np.ldexp(m.reward, -1060), 1060)  # what is left of the rewards
    assert np.abs(analyse(m.replace(reward=exact)).q_star - one.q_star).max() > 0
    assert np.abs(other.q_star - np.ldexp(analyse(m.replace(reward=exact)).q_star, -1060)).max() <= step
    assert other.oracle_solution.error >= step and other.oracle_solution.converged


def test_values_beyond_the_range_are_refused():
    with pytest.raises(ValueError, match="give rewards in a larger unit"):
        analyse(times(garnet(0, gamma=0.999), 1022))


def numbers(t: Theorem):
    """Every number of a theorem with its power of reward."""
    terms = {"gap": t.interface, "class": t.approximation}
    terms |= {(o, i): term for o, found in t.residual.items() for i, term in enumerate(found)}
    terms |= {(o, i, "total"): t.total(o, i) for o in t.residual for i in range(len(t.times))}
    bounds = {(where, r.bound.name): r.bound for where, term in terms.items() for r in term.rungs}
    bounds |= {(o, "loss"): t.value_loss(o) for o in t.residual}
    for where, term in terms.items():
        if term.limit is not None:
            yield (where, "limit"), term.limit.value, 1
        if term.observed is not None:
            yield (where, "observed"), term.observed.value, 1
    for where, b in bounds.items():
        yield from (((where, name), getattr(b, name), 1) for name in ("value", "trivial", "roundoff"))
        yield from (((where, name), value, POWER.get(name, 1)) for name, value in b.terms.items())


@pytest.fixture(scope="module")
def theorems():
    """By power and features: a small theorem with rewards times 2^power."""
    m = garnet(0, gamma=0.6, states=6, observations=3)

    @cache
    def made(power, features):
        return list(numbers(theorem_report(times(m, power), features=features, handoffs=200, points=2)))

    return made


@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("power", [-190, 41, -960])
def test_the_theorem_scales_digit_by_digit(theorems, power, features):
    """Within the range where nothing is rescaled, so that no absolute number is left, and beyond it."""
    for (where, value, exponent), (_, found, _) in zip(theorems(0, features), theorems(power, features), strict=True):
        if power < -900 and exponent == 2:
            continue  # squares of rewards are 0 there, their roots are not
        assert np.isclose(np.ldexp(found, -power * exponent), value, rtol=1e-9, atol=0, equal_nan=True), where


def test_a_unit_is_taken_only_where_squares_need_it():
    m = garnet(0)
    assert units.unit(m) == units.unit(times(m, 150)) == units.unit(m.replace(reward=0 * m.reward)) == 1.0
    for power in (-1060, -500, 500):
        unit = units.unit(times(m, power))
        inside = units.scaled(times(m, power), unit)
        assert 1 <= np.abs(inside.reward[np.asarray(m.prob) > 0]).max() < 2
        same = np.ldexp(inside.reward, np.frexp(unit)[1] - 1) == times(m, power).reward
        assert same[inside.reward != 0].all()


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=6), st.integers(-1000, 1000))
def test_norms_of_any_size(x, power):
    x, weight = np.array(x), np.full(len(x), 0.3)
    plain = np.sqrt((weight * x**2).sum())
    x = np.where(np.abs(x) < 1e-150, 0.0, x)
    assert root_sum(weight, np.ldexp(x, power)) == pytest.approx(float(np.ldexp(plain, power)), rel=1e-12, abs=1e-300)


@settings(max_examples=15)
@given(instances(gamma=(0.9, 0.999)), st.integers(1, 3), st.integers(0, 9), st.sampled_from([-900, 0, 900]))
def test_a_search_ends_with_a_point_or_a_reason(m, features, seed, power):
    """Pi That may expand: it ends, whatever the unit, and the answer does not depend on it."""
    a = analyse(times(m, power))
    psi = np.random.default_rng(seed).normal(size=(a.q_bar.size, features)) * tabular_features(a).any(1)[:, None]
    members = Affine(a.interface, a.d_pair.reshape(-1), psi, np.zeros(a.q_bar.size))
    scale = a.norm_d(a.q_bar)
    try:
        found = fixed_point(members, lambda _, residual: residual <= 1e-12 * scale, limit=300)
    except NoNumber as error:
        assert str(error.why.reason)
    else:
        assert np.isfinite(found.point).all() and found.iterations <= 300


def test_gap_bounds_of_tiny_rewards_are_not_zero():
    a = analyse(times(garnet(3), -1000))
    assert a.norm_d_state(a.gap) > 0 and gap.gap_value_bound_d(a).value > 0
