"""Noise, long-run variance and mixing from an instance and from its logs, against independent computations."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from strategies import garnet, instances
from walks import logs

from bounds.residual.population import block_features, population, tabular_features
from bounds.residual.sharp import averaged_limit
from estimators import dobrushin, td_noise
from estimators.fit import rows_of
from estimators.fixed import rests_on, span
from estimators.mixing import contraction_rate, kemeny, mixing_time, pseudo_spectral_gap, relaxation_time
from estimators.statistics.estimate import attempt, positive
from estimators.sums import pair_law
from estimators.td_noise import (
    autocorrelation_time,
    batch_means,
    control_constant,
    residual_constant,
    sigma_0,
    sigma_mix,
)
from estimators.view import counts, effective, memory, transition
from icq.exact import AnalysisError, analyse
from icq.exact import markov as chains
from icq.learn.classes import random_features
from icq.reason import NoNumber, Reason
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import complete

pytestmark = pytest.mark.compiles

NOISE = (sigma_0, sigma_mix, autocorrelation_time, control_constant, residual_constant)
EXACT = settings(max_examples=12)


def covers(e, truth):
    return e.interval[0] <= truth <= e.interval[1]


@pytest.fixture(scope="module")
def persistent():
    shape = Shape(complete(2), clusters=2, visible=1, hidden=2, options=2)
    return analyse(dials_instance(shape, Dials(persistence=0.8, kernel_share=0.0), 2))


@pytest.fixture(scope="module")
def slow():
    shape = Shape(complete(2), clusters=2, visible=1, hidden=2, options=2)
    return analyse(dials_instance(shape, Dials(mixing=0.01), 1))


@pytest.fixture(scope="module")
def log(persistent):
    return logs(persistent, 20_000, 1, seed=3)[0]


def random_chain(seed, size):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(size, 0.5), size=size) * 0.9 + 0.1 / size


# --- exact values ---------------------------------------------------------------------------------------------------


@EXACT
@given(instances(states=(2, 6), options=(1, 2)))
def test_exact_noise_is_that_of_the_bounds(m):
    try:
        a = analyse(m)
    except AnalysisError:
        assume(False)
    cls = random_features(m, 2, 0)
    for given_cls, features in ((None, tabular_features(a)), (cls, block_features(a, np.asarray(cls.features, float)))):
        try:
            pop = population(a, features)
        except NoNumber:
            continue
        sharp = averaged_limit(pop)
        assert sigma_0(a, given_cls).value == pytest.approx(np.trace(pop.sigma_0))
        assert sigma_mix(a, given_cls).value == pytest.approx(np.trace(pop.sigma_mix), abs=1e-9)
        if sharp.applicable:
            assert control_constant(a, given_cls).value == pytest.approx(sharp.iid)
            assert residual_constant(a, given_cls).value == pytest.approx(sharp.value)


@EXACT
@given(instances(states=(2, 8)))
def test_exact_chain_quantities(m):
    try:
        a = analyse(m)
    except AnalysisError:
        assume(False)
    values = np.linalg.eigvals(a.transition.toarray())
    rest = np.delete(values, np.abs(values - 1).argmin())
    assert kemeny(a, context=True).value == pytest.approx(np.real((1 / (1 - rest)).sum()))
    assert kemeny(a, context=True).value == pytest.approx(np.trace(a.deviation))
    assert relaxation_time(a, context=True).value == pytest.approx(1 / (1 - a.slem), rel=1e-6)
    assert mixing_time(a, context=True).value == a.mixing_time()
    p, d, obs = a.transition.toarray(), a.d, np.asarray(m.observation)
    joint = np.zeros((len(a.d_obs),) * 2)
    np.add.at(joint, (obs[:, None], obs[None, :]), d[:, None] * p)
    assert transition(a).toarray() == pytest.approx(joint / a.d_obs[:, None])
    # The second opinion bounds the mixing time of chains that need not be reversible.
    gap = pseudo_spectral_gap(a, context=True).value
    if gap > 0:
        assert a.mixing_time() <= 1 + (1 + 2 * np.log(2) + np.log(1 / d[d > 0].min())) / gap


def test_pseudo_spectral_gap_of_a_reversible_chain():
    a = analyse(dials_instance(Shape(complete(2), clusters=2, visible=1), Dials(mixing=0.1)))
    p = transition(a).toarray()
    flow = a.d_obs[:, None] * p
    if np.allclose(flow, flow.T):
        assert pseudo_spectral_gap(a).value == pytest.approx(1 - chains.slem(transition(a)) ** 2)
    values = np.array([[0.5, 0.5], [0.25, 0.75]])  # every two-state chain is reversible; eigenvalue 1/4
    from estimators.mixing import _pseudo

    assert _pseudo(sp.csr_array(values))[0] == pytest.approx(1 - 1 / 16)


# --- batch means ----------------------------------------------------------------------------------------------------


def test_batch_means_take_the_bias_off_and_cover():
    n, phi, covered, values, plain = 128 * 16, 0.8, [], [], []
    truth = 2 / (1 - phi) ** 2 + 1  # two autoregressive parts and a white one
    shock = np.random.default_rng(0).normal(size=(400, n + 200, 3))
    paths = np.concatenate([lfilter([1], [1, -phi], shock[..., :2], axis=1), shock[..., 2:]], axis=2)
    for u in paths[:, 200:]:
        fine = u.reshape(128, -1, 3).sum(1)
        run = batch_means(fine, n)
        values.append(run.value)
        whole = fine.reshape(32, 4, 3).sum(1)
        plain.append(((whole - whole.mean(0)) ** 2).sum() / 31 / (n / 32))
        low, high = run.interval(0.95)
        covered.append(low <= truth <= high)
    stderr = np.std(values) / 20
    assert np.mean(values) == pytest.approx(truth, abs=4 * stderr)
    assert np.mean(plain) < truth - 4 * np.std(plain) / 20  # without the correction the bias shows
    assert abs(np.mean(covered) - 0.95) < 3 * (0.95 * 0.05 / len(covered)) ** 0.5 + 0.005


# --- estimates from logs --------------------------------------------------------------------------------------------


def test_noise_from_logs_covers_with_persistent_hidden_states(persistent):
    runs = logs(persistent, 15_000, 20)
    for of in (sigma_0, residual_constant):
        truth = of(persistent).value
        found = [e for e in (of(one) for one in runs) if e.known]
        assert len(found) > 16
        stderr = (0.95 * 0.05 / len(found)) ** 0.5
        assert np.mean([covers(e, truth) for e in found]) >= 0.93 - 3 * stderr
    assert autocorrelation_time(persistent).value > 1.2


def test_noise_rests_on_the_handoffs_to_the_pairs_that_make_it(persistent):
    known = pair_law(persistent)
    found = known.solution
    rest, _ = rests_on(known, span(None, known.model.available), found, 1000)
    d, kernel, options = known.flat, known.model.kernel.toarray(), known.mass.shape[1]
    following = np.zeros((d.size, d.size))
    following[:, np.arange(len(found.policy)) * options + found.policy] = kernel
    error = np.linalg.inv(np.diag(d) @ (np.eye(d.size) - following))  # of theta, per unit of noise in each equation
    part = d * known.noise(found.q, found.v) * (d[:, None] * error**2).sum(0)
    assert rest == pytest.approx(1000 * part.sum() ** 2 / (part**2 / d).sum())
    assert rest <= 1000 * (1 + 1e-12)


def test_noise_that_rests_on_few_handoffs_is_no_number():
    a = analyse(garnet(10, states=12, observations=6, gamma=0.8))  # one option in 230 handoffs makes 2/5 of the noise
    cls = random_features(a.smdp, 2, 3)
    for of in NOISE:
        why = of(logs(a, 3000, 1, seed=1)[0], cls).why
        assert why.reason is Reason.RESTS_ON_FEW and "times as many handoffs" in why.need and why.option is not None
    assert sigma_0(logs(a, 60_000, 1, seed=1)[0], cls).known


def test_the_jackknife_of_a_positive_number_scales_with_it():
    without = np.random.default_rng(0).uniform(0.9, 1.1, 32)
    one, many = (positive(c * without.mean(), c * without, n_eff=1.0) for c in (1.0, 1e6))
    np.testing.assert_allclose(np.array([many.value, many.stderr, *many.interval]) / 1e6,
                               [one.value, one.stderr, *one.interval])  # fmt: skip
    assert positive(0.0, np.zeros(32), n_eff=1.0).interval == (0, 0)
    one_batch = attempt(positive, 1.0, np.where(np.arange(32) == 5, 0.0, 1.0), n_eff=1.0)
    assert one_batch.why.reason is Reason.ONE_BATCH and one_batch.n_eff == 1


def test_all_estimates_agree_with_each_other_and_with_the_truth(persistent, log):
    cls = random_features(persistent.smdp, 1, 3)
    for given_cls in (None, cls):
        found = {of: of(log, given_cls) for of in NOISE}
        assert all(e.known for e in found.values())
        for of, e in found.items():
            assert abs(e.value - of(persistent, given_cls).value) < 5 * e.stderr
        total = found[sigma_0].value + found[sigma_mix].value
        assert total / found[sigma_0].value == pytest.approx(found[autocorrelation_time].value)
    for of in (kemeny, relaxation_time):
        e = of(log)
        assert e.known and abs(e.value - of(persistent).value) < 5 * e.stderr


def test_a_shuffled_log_has_no_memory(log):
    order = np.random.default_rng(0).permutation(len(log))
    names = log.__dataclass_fields__
    mixed = {
        k: v[order] for k, v in vars(log).items() if isinstance(v, np.ndarray) and len(v) == len(log) and k in names
    }
    mixed["follows"] = np.zeros(len(log), bool)
    shuffled = autocorrelation_time(replace(log, **mixed))
    assert covers(shuffled, 1.0) and not covers(shuffled, autocorrelation_time(log).value + 0.2)


def test_a_log_that_is_short_against_its_memory_says_how_long_it_must_be(slow):
    one = logs(slow, 6000, 1)[0]
    for of in (*NOISE, kemeny, relaxation_time):
        found = of(one)
        assert found.why.reason is Reason.SHORT and "log at least" in found.why.need and np.isnan(found.value)
    with pytest.raises(NoNumber, match="remembered") as none:
        effective(one)
    assert none.value.n_eff == pytest.approx(len(one) / memory(counts(one).whole()))
    # Noise that is correlated longer than a batch is found out as well.
    found = td_noise.noise(logs(slow, 30_000, 1)[0])
    table = np.repeat(np.random.default_rng(0).normal(size=16), 8)[:, None] * np.ones_like(found.table)
    with pytest.raises(NoNumber, match="log at least") as none:
        replace(found, table=table * 1e3).long_run(found.span.psi)
    assert none.value.why.reason is Reason.SHORT


# --- Dobrushin ------------------------------------------------------------------------------------------------------


@EXACT
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_powers_hold_for_every_chain_within_the_radius(seed, size):
    rng = np.random.default_rng(seed)
    p = random_chain(seed, size)
    other = random_chain(seed + 1, size)
    mix = 0.05 * rng.random((size, 1))
    near = (1 - mix) * p + mix * other
    radius = np.abs(near - p).sum(1)
    found = dobrushin.powers(p, radius, small=1e-6)
    power = near
    for step in found:
        apart = 0.5 * np.abs(power[:, None] - power[None]).sum(2).max()
        assert step.low - 1e-12 <= apart <= step.high + 1e-12
        power = power @ power
    low, high = dobrushin.mixing_bounds(found, 0.25)
    d = chains.stationary(sp.csr_array(near), chains.structure(sp.csr_array(near))).d
    assert low <= chains.mixing_time(sp.csr_array(near), d) <= high
    value, below, above = dobrushin.rate(found)
    every = [(1 - 0.5 * np.abs(q[:, None] - q[None]).sum(2).max()) / s
             for s in range(1, 40) for q in [np.linalg.matrix_power(near, s)]]  # fmt: skip
    assert below - 1e-12 <= max(every) and max(every) <= 2 * above + 1e-12 and below <= value <= above


def test_a_radius_too_small_is_caught():
    p, near = random_chain(0, 4), random_chain(0, 4)
    near[0] = np.array([0.97, 0.01, 0.01, 0.01])
    radius = np.abs(near - p).sum(1)
    apart = 0.5 * np.abs(near[:, None] - near[None]).sum(2).max()
    assert apart <= dobrushin.powers(p, radius)[0].high
    assert apart > dobrushin.powers(p, 0.3 * radius)[0].high


def test_rows_stay_within_their_radius():
    rng = np.random.default_rng(0)
    outside = 0
    for size, visits in ((3, 50), (30, 200), (3, 5000)):
        p = rng.dirichlet(np.ones(size), size=size)
        for _ in range(50):
            seen = np.stack([rng.multinomial(visits, row) for row in p]).astype(float)
            off = np.abs(seen / visits - p).sum(1)
            radius = dobrushin.row_radius(seen, 0.05)
            outside += int((off > radius).any())
            assert (radius < 2).any() or visits < 300
    assert outside <= 7  # 150 trials at 5 %


def test_guaranteed_intervals_hold_and_close(persistent):
    truth, rate = mixing_time(persistent).value, contraction_rate(persistent).value
    widths = []
    for n in (300, 10_000):
        found = [mixing_time(one) for one in logs(persistent, n, 6, seed=n)]
        assert all(covers(e, truth) for e in found if e.known)
        widths.append(np.median([e.interval[1] for e in found if e.known]))
    assert widths[-1] < np.inf and widths[-1] < widths[0]
    assert covers(contraction_rate(logs(persistent, 10_000, 1)[0]), rate)


def test_a_chain_that_is_not_reversible_has_a_guaranteed_mixing_time():
    a = analyse(garnet(5, states=3, options=1, outcomes=2, observations=3, agents=1, unavailable=0.0))
    p = a.transition.toarray()
    flow = a.d[:, None] * p
    assert np.abs(flow - flow.T).max() > 0.01
    found = mixing_time(logs(a, 20_000, 1)[0], context=True)
    assert covers(found, a.mixing_time()) and found.interval[1] < 100 * a.mixing_time()


# --- refusals -------------------------------------------------------------------------------------------------------


def test_equally_slow_eigenvalues_are_a_result():
    shape = Shape(complete(2), clusters=3, visible=1, hidden=2, options=2)
    a = analyse(dials_instance(shape, Dials(mixing=0.2)))
    one = logs(a, 20_000, 1)[0]
    assert relaxation_time(one).why.reason is Reason.TIE
    found = kemeny(one)
    assert found.known and abs(found.value - kemeny(a).value) < 5 * found.stderr


def test_views_and_sources_are_checked(log):
    blind = replace(log, context=None)
    with pytest.raises(ValueError, match="no context"):
        kemeny(blind, context=True)
    with pytest.raises(ValueError, match=r"epsilon = 0\.5"):
        mixing_time(log, 0.5)
    for of in (*NOISE, kemeny, relaxation_time, pseudo_spectral_gap, mixing_time, contraction_rate):
        with pytest.raises(TypeError, match="expected an Analysis or a Log"):
            of(3.0)
    for of in (*NOISE, kemeny):
        assert of(rows_of(log, slice(0, 50))).why.reason is Reason.FEW_HANDOFFS


def test_steps_of_a_view_skip_what_does_not_follow(log):
    part = rows_of(log, slice(0, 400))
    broken = replace(part, follows=np.where(np.arange(400) == 100, False, part.follows))
    assert counts(part, context=True).steps.sum() == 399 and counts(broken, context=True).steps.sum() == 398
    ended = replace(part, next_observation=np.where(np.arange(400) == 7, -1, part.next_observation))
    assert counts(part).steps.sum() == 400 and counts(ended).steps.sum() == 399


def test_a_cycle_is_no_memory():
    assert memory(sp.csr_array(np.roll(np.eye(3), 1, axis=1))) == pytest.approx(1.0)
    assert memory(sp.csr_array(np.array([[0.01, 0.99], [0.99, 0.01]]))) == 1.0  # lambda_2 = -0.98
    slow = sp.csr_array(np.array([[0.99, 0.01], [0.01, 0.99]]))
    assert memory(slow) == pytest.approx(1.98 / 0.02)
    assert memory(sp.csr_array(np.kron(np.array([[0.0, 1.0], [1.0, 0.0]]), slow.toarray()))) > 40  # slow inside a cycle


def test_an_ended_task_is_followed_by_the_next_one(log):
    part = rows_of(log, slice(0, 400))
    last = np.isin(np.arange(400), (7, 399))
    ended = replace(part, done=last, next_observation=np.where(last, -1, part.next_observation))
    assert part.next_observation[7] == part.observation[8]
    assert counts(ended).steps.sum() == 399  # what comes after the last row is not known
    assert (counts(ended).whole() != counts(rows_of(part, slice(0, 399))).whole()).nnz == 0
