"""docs/theory.md section 4: classes, their modulus, the class fixed point, and its distance from Qbar or any table."""

from functools import cache

import numpy as np
import pytest
from broken import caught, family, never_violated, shrunk
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from bounds.approximation import certificate, classes
from bounds.approximation import class_error as approx
from bounds.core.bound import Verdict, verdict
from icq.exact import analyse
from icq.reason import NoNumber

pytestmark = pytest.mark.slow

seeds = st.integers(0, 2**32 - 1)


def random_class(a, seed):
    """A linear class of one to three features per agent, with and without offset."""
    rng = np.random.default_rng(seed)
    shape = a.q_bar.shape
    offset = rng.normal(size=shape) if rng.random() < 0.5 else None
    return classes.linear_class(a, rng.normal(size=(*shape, rng.integers(1, 4))), offset)


def random_ball(a, seed):
    return classes.Ball(random_class(a, seed), float(np.random.default_rng(seed).exponential(a.norm_d(a.q_bar) + 0.1)))


def random_box(a, seed):
    values = a.q_bar[a.interface.available]
    low, high = np.sort(np.random.default_rng(seed).uniform(values.min() - 0.2, values.max() + 0.2, size=2))
    return classes.Box(a, float(low), float(high))


KINDS = {"linear": random_class, "ball": random_ball, "box": random_box}


def slack(a):
    return 1e-9 * (1 + approx.trivial_error(a))


def table(a, rng):
    return np.where(a.interface.available, rng.normal(size=a.q_bar.shape) * 10 ** rng.uniform(-2, 1), 0.0)


@pytest.mark.parametrize("kind", KINDS)
@given(m=instances(), seed=seeds)
def test_projection_is_the_nearest_member(kind, m, seed):
    """Variational inequality <q - Pi q, z - Pi q>_d <= 0 for members z; idempotent; P orthogonal, onto F - F."""
    a, rng = analyse(m), np.random.default_rng(seed)
    members = KINDS[kind](a, seed)
    q, r = table(a, rng), table(a, rng)
    p, z = members.project(q), members.project(r)
    assert (a.d_pair * (q - p) * (z - p)).sum() <= 1e-9
    np.testing.assert_allclose(members.project(p), p, atol=1e-9)
    np.testing.assert_allclose(members.along(p - z), p - z, atol=1e-9)
    assert (a.d_pair * (q - members.along(q)) * members.along(r)).sum() == pytest.approx(0, abs=1e-9)
    assert not p[~a.interface.available].any()


@given(instances(), seeds)
def test_linear_projection_is_weighted_least_squares(m, seed):
    """Against a dense solve over all parameters at once, although the class projects agent by agent."""
    a, rng = analyse(m), np.random.default_rng(seed)
    features = rng.normal(size=(*a.q_bar.shape, 2))
    q = table(a, rng)
    design = np.zeros((*a.q_bar.shape, m.num_agents, 2))
    for o, i in enumerate(m.agent):
        design[o, :, i] = features[o]
    root = np.sqrt(a.d_pair).reshape(-1)
    flat = design.reshape(q.size, -1)
    theta = np.linalg.lstsq(root[:, None] * flat, root * q.reshape(-1), rcond=None)[0]
    expected = np.where(a.interface.available, (flat @ theta).reshape(q.shape), 0.0)
    np.testing.assert_allclose(classes.linear_class(a, features).project(q), expected, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@given(m=instances(), seed=seeds)
def test_class_modulus_bounds_every_difference(kind, m, seed):
    a, rng = analyse(m), np.random.default_rng(seed)
    members = KINDS[kind](a, seed)
    p, q = table(a, rng), table(a, rng)
    after = a.norm_d(members.along(a.interface.bellman(p) - a.interface.bellman(q)))
    assert after <= members.modulus * a.norm_d(p - q) + 1e-10
    assert members.modulus <= certificate.interface_contraction(a)


@given(instances(), seeds)
def test_class_modulus_is_exact(m, seed):
    """A change along the top right singular vector, at a table greedy on the options of least mass by a wide margin."""
    a = analyse(m)
    members = random_class(a, seed)
    mass = np.where(m.available, a.d_pair, np.inf)
    rows, least = np.arange(len(mass)), mass.argmin(axis=1)
    matrix = members.coordinates @ a.interface.kernel.toarray() / np.sqrt(mass.min(axis=1))
    base, move = np.zeros_like(a.d_pair), np.zeros_like(a.d_pair)
    move[rows, least] = np.linalg.svd(matrix, full_matrices=False)[2][0] / np.sqrt(mass.min(axis=1))
    base[rows, least] = 10 * np.abs(move).max()
    after = a.norm_d(members.along(a.interface.bellman(base + move) - a.interface.bellman(base)))
    assert after == pytest.approx(members.modulus * a.norm_d(move), abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@given(m=instances(), seed=seeds)
def test_class_fixed_point_is_certified(kind, m, seed):
    """Against many plain sweeps of Pi That, which share only the projection."""
    a = analyse(m)
    members = KINDS[kind](a, seed)
    if members.modulus >= 0.9:
        return
    solution = approx.class_fixed_point(members)
    q = np.zeros_like(a.q_bar)
    for _ in range(250):  # 0.9^250 < 1e-11
        q = members.project(a.interface.bellman(q))
    assert solution.converged and solution.error <= slack(a)
    assert a.norm_d(solution.q - q) <= solution.error + slack(a)


def test_an_unconverged_fixed_point_says_so_and_its_error_is_still_valid():
    a = next(a for a in family() if 0.3 < certificate.interface_contraction(a) < 0.9 and np.ptp(a.q_bar) > 0.5)
    members = classes.Box(a, -1e3, 1e3)
    short, full = approx.class_fixed_point(members, max_iterations=2), approx.class_fixed_point(members)
    assert not short.converged and full.converged
    assert a.norm_d(short.q - full.q) <= short.error + full.error
    assert a.norm_d(full.q - a.q_bar) <= full.error + slack(a), "the box that holds everything has Q_F = Qbar"


@given(instances())
def test_tabular_class_has_no_error(m):
    a = analyse(m)
    members = classes.linear_class(a, np.ones((*a.q_bar.shape, 1)), slot=np.arange(m.num_observations))
    per_pair = np.tile(np.eye(m.num_options), (m.num_observations, 1, 1))
    table = classes.linear_class(a, per_pair, slot=np.arange(m.num_observations))
    assert table.rank == a.interface.available.sum() and members.rank == m.num_observations
    bound = approx.class_error_bound(table)
    assert bound.applicable == (certificate.interface_contraction(a) < 1)
    if bound.applicable:
        assert bound.value <= slack(a)


@pytest.mark.parametrize("kind", KINDS)
@given(m=instances(max_duration=(2, 8)), seed=seeds)
def test_class_error(kind, m, seed):
    a = analyse(m)
    members = KINDS[kind](a, seed)
    bound = approx.class_error_bound(members)
    if not bound.applicable:
        assert bound.failures[0].margin == 1 - members.modulus <= 0
        if kind != "linear":  # a linear class may have a sector
            with pytest.raises(ValueError, match=r"kappa_F = .* is not below 1"):
                approx.class_fixed_point(members)
        return
    solution = approx.class_fixed_point(members)
    assert a.norm_d(solution.q - a.q_bar) <= bound.value + solution.error + slack(a)
    textbook = bound.terms["distance"] / (1 - members.modulus)
    assert bound.value <= textbook * (1 + 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(m=instances(max_duration=(2, 8)), seed=seeds)
def test_projected_certificate(kind, m, seed):
    a, rng = analyse(m), np.random.default_rng(seed)
    members = KINDS[kind](a, seed)
    if members.modulus >= 1:
        return
    solution = approx.class_fixed_point(members)
    for q in (table(a, rng), members.project(table(a, rng)), solution.q + 0.01 * table(a, rng), a.q_bar):
        bound = approx.projected_certificate(members, q)
        error = a.norm_d(q - solution.q)
        assert error <= bound.value + solution.error + slack(a)
        angle = approx.solve_radius(members.modulus, bound.terms["epsilon"], bound.terms["eta"])
        assert error <= angle + solution.error + slack(a), "each of the two is a bound by itself"
        contraction = bound.terms["residual"] / (1 - members.modulus)
        if kind == "linear":
            assert angle <= contraction * (1 + 1e-9) + slack(a)
    # At Qbar the two bounds of the class error are one.
    assert bound.value <= approx.class_error_bound(members).value + slack(a)


@given(st.floats(0, 0.999), st.floats(0, 10), st.floats(0, 10))
def test_solve_radius_is_the_largest_root(kappa, epsilon, eta):
    root = approx.solve_radius(kappa, epsilon, eta)
    assert root**2 == pytest.approx(epsilon**2 + (eta + kappa * root) ** 2, rel=1e-9, abs=1e-12)
    for larger in (1.001, 1.5, 10.0):
        assert (larger * root) ** 2 >= epsilon**2 + (eta + kappa * larger * root) ** 2


def test_few_features_can_contract_where_the_operator_does_not():
    for a in family():
        single = classes.linear_class(a, np.ones((*a.q_bar.shape, 1)))
        if single.modulus < 1 <= certificate.interface_contraction(a):
            assert approx.class_error_bound(single).applicable
            break
    else:
        raise AssertionError("the finer modulus gained nothing on the whole family")


def test_bad_features_are_named():
    a = family()[1]
    features = np.ones((*a.q_bar.shape, 2))
    o, option = (int(i) for i in np.argwhere(a.interface.available)[0])
    features[o, option, 1] = np.inf
    with pytest.raises(ValueError, match=rf"features\[{o}, {option}, 1\] is not finite"):
        classes.linear_class(a, features)
    with pytest.raises(ValueError, match="must start with"):
        classes.linear_class(a, np.ones((a.q_bar.shape[0] + 1, a.q_bar.shape[1], 2)))
    with pytest.raises(ValueError, match=r"radius = -1\.0 is negative"):
        classes.Ball(random_class(a, 0), -1.0)
    with pytest.raises(ValueError, match=r"low = 1\.0 is not at most high = 0\.0"):
        classes.Box(a, 1.0, 0.0)


@cache
def solved(kind, index):
    """The class of one instance of the family and its fixed point, None where it is not certified to exist."""
    members = KINDS[kind](family()[index], index)
    try:
        return members, approx.class_fixed_point(members)
    except NoNumber:
        return members, None


def of(kind, a):
    return solved(kind, next(i for i, other in enumerate(family()) if other is a))


def class_gap(kind):
    def observe(a):
        _, solution = of(kind, a)
        return float("nan") if solution is None else a.norm_d(solution.q - a.q_bar)

    return observe


def error(kind):
    def allow(a):
        _, solution = of(kind, a)
        return a.interface_solution.error + (0.0 if solution is None else solution.error)

    return allow


@pytest.mark.parametrize("kind", KINDS)
def test_the_verifier_passes_the_class_error_and_catches_a_broken_one(kind):
    def claim(a):
        return approx.class_error_bound(of(kind, a)[0])

    def at_qbar(a):
        return approx.projected_certificate(of(kind, a)[0], a.q_bar)

    for bound in (claim, at_qbar):
        assert never_violated(bound, class_gap(kind), error(kind))
        assert caught(lambda a, bound=bound: shrunk(bound(a), 0.95), class_gap(kind), 1e-7)


def test_the_verifier_catches_a_missing_root():
    """||Q_F - Qbar|| <= ||Pi Qbar - Qbar||, the best approximation: what one would like to be true."""

    def wishful(a):
        bound = approx.class_error_bound(of("linear", a)[0])
        return shrunk(bound, bound.terms["distance"] / bound.value) if bound.applicable and bound.value else bound

    assert caught(wishful, class_gap("linear"), 1e-7)


def test_no_certified_fixed_point_is_inapplicable_not_zero():
    pairs = [solved("linear", i) for i in range(len(family()))]
    verdicts = [verdict(approx.class_error_bound(members), 0.0, 0.0) for members, q_f in pairs if q_f is None]
    assert verdicts and set(verdicts) == {Verdict.INAPPLICABLE}
