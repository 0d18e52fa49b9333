"""docs/theory.md section 4.6: how far a table is from Q_F, whatever kappa_F."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import garnet, instances
from td import chain, rare

from bounds.approximation import class_error as approx
from bounds.approximation.classes import linear_class
from bounds.approximation.sector_angle import Form, forms, sector_distance
from bounds.core.sector import Sector
from icq.exact import analyse
from icq.reason import NoNumber

pytestmark = pytest.mark.compiles
seeds = st.integers(0, 2**31)


def random_members(a, rng, features=None):
    """Each agent with its own few random features and an offset."""
    count = int(rng.integers(1, 4)) if features is None else features
    return linear_class(a, rng.normal(size=(*a.q_bar.shape, count)), 0.3 * rng.normal(size=a.q_bar.shape))


def table(a, rng):
    return np.where(a.interface.available, rng.normal(size=a.q_bar.shape), 0.0)


def parts(members, q):
    """g and h of a table, by their definitions."""
    a = members.analysis
    basis, d = members.affine.basis.toarray(), a.d_pair.reshape(-1)
    return basis.T @ (d * (q - a.interface.bellman(q)).reshape(-1)), (q - members.project(q)).reshape(-1)


def damped(members):
    """Q_F by expected updates, which the theorem says converge for small steps; shares only the operator."""
    a, theta = members.analysis, np.zeros(members.rank)
    basis, d, offset = members.affine.basis.toarray(), a.d_pair.reshape(-1), members.offset.reshape(-1)
    for _ in range(3000):
        q = np.where(a.interface.available, (offset + basis @ theta).reshape(a.q_bar.shape), 0.0)
        move = basis.T @ (d * (a.interface.bellman(q) - q).reshape(-1))
        theta = theta + 0.2 * move
        if np.linalg.norm(move) < 1e-11:
            return q
    return None


@given(instances(max_duration=(1, 4)), seeds)
def test_every_form_is_a_bound(m, seed):
    """For tables near and far, with the real maximum."""
    a, rng = analyse(m), np.random.default_rng(seed)
    members = random_members(a, rng)
    found = forms(members)
    if not found:
        return
    q_f = damped(members)
    if q_f is None:
        return
    for q in (a.q_bar, table(a, rng), q_f + 0.01 * table(a, rng), members.project(10 * table(a, rng))):
        error, noise = a.norm_d(q - q_f), 1e-8 * (1 + np.abs(q).max() + np.abs(q_f).max())
        for form in found:
            assert error <= form.distance(*parts(members, q))[0] + noise
        assert sector_distance(members, q)[0] == pytest.approx(min(f.distance(*parts(members, q))[0] for f in found))


def linear_case():
    """Two observations, one option, one feature for both: no choice, so the sector has nothing to give away."""
    a = chain([0.9, 0.6], [1.0, -1.0], gamma=0.7, observation=[0, 1])
    members = linear_class(a, np.array([[[1.0]], [[0.4]]]))
    return a, members, approx.class_fixed_point(members).q


def test_one_feature_and_one_option_are_an_equality():
    """And a hundredth less is too little, as is a forgotten N C h."""
    a, members, q_f = linear_case()
    for q in (a.q_bar, np.array([[1.0], [-2.0]])):
        g, h = parts(members, q)
        error = a.norm_d(q - q_f)
        for form in forms(members):
            value = form.distance(g, h)[0]
            assert value == pytest.approx(error, rel=1e-3)
            assert 0.99 * value < error
        s = forms(members)[0].sector
        lost = float(np.sqrt(h @ (a.d_pair.reshape(-1) * h) + (g / s.drift[0, 0]) ** 2)[0])
        assert abs(lost / error - 1) > 0.01


def test_rounding_moves_it_by_no_more_than_its_growth():
    a, rng = analyse(garnet(6, states=12, observations=6, options=3, gamma=0.8)), np.random.default_rng(0)
    members = random_members(a, rng, 2)
    live = a.interface.available.reshape(-1)
    for form in forms(members):
        g, h = parts(members, a.q_bar)
        value, growth = form.distance(g, h)
        for _ in range(20):
            dg, dh = rng.normal(size=g.shape), np.where(live, rng.normal(size=h.shape), 0.0)
            size = np.linalg.norm(dg) + np.sqrt(a.d_pair.reshape(-1) @ dh**2)
            moved = form.distance(g + 1e-3 * dg, h + 1e-3 * dh)[0]
            assert moved <= value + 1e-3 * growth * size + 1e-9


def wide():
    """kappa_F above 1, and a form all the same."""
    a = analyse(garnet(3, states=12, observations=6, options=3, gamma=0.9))
    return a, random_members(a, np.random.default_rng(1), 2)


def test_a_class_beyond_the_modulus_has_its_fixed_point_and_its_bounds():
    a, members = wide()
    assert members.modulus > 1.2
    with_kappa = approx.class_error_bound(members)
    assert not with_kappa.applicable
    solution, bound = approx.class_fixed_point(members), approx.class_error_sector(members)
    assert solution.converged and solution.error < 1e-6
    error = a.norm_d(solution.q - a.q_bar)
    assert error - solution.error <= bound.value < bound.trivial
    learned = approx.projected_certificate(members, solution.q + 0.1)
    assert learned.applicable and a.norm_d(np.where(a.interface.available, 0.1, 0.0)) <= learned.value


def test_a_class_without_a_form_says_so(monkeypatch):
    a, members = wide()
    monkeypatch.setattr("bounds.approximation.class_error.sector_distance", lambda members, q: None)
    assert not approx.class_error_sector(members).applicable
    assert not approx.projected_certificate(members, a.q_bar).applicable
    with pytest.raises(NoNumber, match=r"kappa_F = .* is not below 1"):
        approx.class_fixed_point(members)


class Alike(Sector):
    """As if all options of an observation always moved alike."""

    def spread(self, table):
        return 0 * table


def test_a_class_too_large_for_its_equations_says_so(monkeypatch):
    monkeypatch.setattr("bounds.approximation.sector_angle.LARGEST", 3)
    bound = approx.class_error_sector(wide()[1])
    assert [x.name for x in bound.failures] == ["small class"] and np.isnan(bound.value)


def test_a_form_without_the_spread_is_caught():
    """Without S and s large multipliers would give the right angle of the mean over options."""
    a, rng = analyse(rare(0.1, gamma=0.6)), np.random.default_rng(0)
    members = linear_class(a, np.eye(2)[None], slot=np.zeros(1, int))
    found = forms(members)
    s = found[0].sector
    flat = Alike(a, s.psi, s.metric)
    wrong = Form(flat, 1e6 * s.least_mass, s.metric, *np.linalg.eigh(s.drift + s.drift.T))
    caught = 0
    for _ in range(200):
        q = rng.normal(size=(1, 2))  # Q_F is 0
        assert a.norm_d(q) <= sector_distance(members, q)[0] * (1 + 1e-9)
        caught += a.norm_d(q) > wrong.distance(*parts(members, q))[0] * 1.01
    assert caught > 0
