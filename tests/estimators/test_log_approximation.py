"""Approximation error from an instance and from its logs: equal calls, exact values, intervals that cover."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from strategies import garnet, instances
from walks import logs

from bounds.approximation import class_error as bounded
from bounds.approximation.certificate import certificate_d, residual
from bounds.approximation.classes import linear_class
from estimators import approximation
from estimators import law as laws
from estimators.approximation import bellman_residual, certificate, class_error, kappa, length
from estimators.doubt import doubt
from estimators.fit import fit, held_out, network_of, rows_of
from estimators.statistics.jackknife import batch_index, slices
from estimators.sums import Sums, pair_law, sums
from icq.exact import AnalysisError, analyse
from icq.learn.classes import linear, random_features, tabular
from icq.reason import NoNumber, Reason
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import complete

pytestmark = pytest.mark.compiles

EXACT = settings(max_examples=15)


def analysed(m):
    try:
        return analyse(m)
    except AnalysisError:
        assume(False)


def covered(found, truth):
    return np.mean([e.interval[0] <= truth <= e.interval[1] for e in found])


@pytest.fixture(scope="module")
def small():
    return analyse(garnet(0, states=8, options=2, outcomes=3, observations=4, agents=2))


@pytest.fixture(scope="module")
def aliased():
    shape = Shape(complete(2), clusters=2, visible=1, hidden=2, options=2)
    return analyse(dials_instance(shape, Dials(persistence=0.7, kernel_share=0.0), 2))


@pytest.fixture(scope="module")
def log(small):
    return logs(small, 20_000, 1)[0]


# --- exact values ---------------------------------------------------------------------------------------------------


@EXACT
@given(instances(states=(2, 8)))
def test_exact_values_are_those_of_the_bounds(m):
    a = analysed(m)
    q = np.random.default_rng(0).normal(size=a.q_bar.shape)
    assert bellman_residual(a, q).value == pytest.approx(a.norm_d(residual(a, q)))
    assert kappa(a).value == a.kappa
    bound = certificate_d(a, np.where(a.interface.available, q, 0.0))
    found = certificate(a, q)
    assert (found.known) == (a.kappa < 1)
    if found.known:
        assert found.value == pytest.approx(bound.terms["residual"] / (1 - a.kappa))
    assert class_error(a).value == class_error(a, tabular(m)).value == 0
    cls = random_features(m, 2, 0)
    members = linear_class(a, np.asarray(cls.features, np.float64))
    if members.modulus < 1:
        expected = a.norm_d(bounded.class_fixed_point(members).q - a.q_bar)
        assert class_error(a, cls).value == pytest.approx(expected, abs=1e-8)


@EXACT
@given(instances(states=(2, 6)))
def test_the_law_of_an_instance_is_its_interface_model(m):
    a = analysed(m)
    found = pair_law(a)
    assert found.mass == pytest.approx(a.d_pair)
    assert found.model.reward == pytest.approx(a.interface.reward)
    assert found.model.kernel.toarray() == pytest.approx(a.interface.kernel.toarray())
    q = np.random.default_rng(1).normal(size=a.q_bar.shape)
    v = np.random.default_rng(2).normal(size=len(q))
    delta = m.reward + np.where(m.terminal, 0, m.gamma**m.duration) * v[m.observation[m.next_state]]
    delta = delta - q[m.observation][..., None]
    per_state = a.d_state_pair * (m.prob * delta**2).sum(2)
    expected = np.zeros(q.shape)
    np.add.at(expected, m.observation, per_state)
    assert (found.flat * found.noise(q, v)).reshape(q.shape) == pytest.approx(expected)


# --- sufficient statistics ------------------------------------------------------------------------------------------


def test_sums_are_those_of_the_rows(log, monkeypatch):
    part = rows_of(log, slice(0, 1003))
    unknown = replace(part, next_observation=np.where(part.done, -1, part.next_observation))
    for one in (part, unknown):
        found = sums(one)
        for b in range(32):
            rows = batch_index(len(one)) == b
            pair = one.observation[rows] * one.num_options + one.option[rows]
            assert found.count[b] == pytest.approx(np.bincount(pair, minlength=found.count.shape[1]))
            assert found.cell[2, b].sum() == pytest.approx((one.reward[rows] ** 2).sum())
            cross = found.value[1, found.first[b] : found.first[b + 1]]
            assert cross.sum() == pytest.approx((one.reward * one.discount)[rows].sum())
    edge = int(found.totals.edge[2].argmax())
    at = (part.observation * part.num_options + part.option == found.frame.source[edge]) & (
        part.next_observation == found.frame.target[edge]
    )
    assert found.totals.edge[2, edge] == pytest.approx((part.discount[at] ** 2).sum())
    monkeypatch.setattr(laws, "TABLE", 0)  # codes are sorted instead of indexed
    monkeypatch.setattr(Sums, "KEPT", 0)
    again = sums(rows_of(part, slice(0, 1003)))
    assert (again.edge == found.edge).all() and (again.value == found.value).all()
    for kept, made in zip(found.without, again.without, strict=True):
        assert (kept.discount == made.discount).all() and (kept.moments.second == made.moments.second).all()


def test_slices_are_the_batches():
    for n in (32, 33, 100, 1003):
        assert all((batch_index(n)[rows] == b).all() for b, rows in enumerate(slices(n)))


def test_without_a_batch_is_the_law_of_the_other_rows(log):
    part = rows_of(log, slice(0, 4000))
    third = list(sums(part).without)[3]
    rows = slices(len(part))[3]
    keep = np.delete(np.arange(len(part)), np.arange(rows.start, rows.stop))
    alone = replace(part, **{k: v[keep] for k, v in vars(part).items() if isinstance(v, np.ndarray) and len(v) == 4000
                             and k in part.__dataclass_fields__})  # fmt: skip
    whole = sums(alone).whole
    assert third.mass == pytest.approx(whole.mass)
    assert third.model.kernel.toarray() == pytest.approx(whole.model.kernel.toarray())


# --- estimates ------------------------------------------------------------------------------------------------------


def test_intervals_cover_with_aliasing_and_without_a_residual(aliased):
    rng = np.random.default_rng(0)
    q = aliased.q_bar + 0.05 * rng.normal(size=aliased.q_bar.shape)
    runs = logs(aliased, 2000, 50)
    stderr = (0.95 * 0.05 / len(runs)) ** 0.5
    for source, truth in ((q, bellman_residual(aliased, q).value), (aliased.q_bar, 0.0)):
        rate = covered([bellman_residual(one, source) for one in runs], truth)
        assert 0.93 - 3 * stderr <= rate <= 0.98 + 3 * stderr
    truth = kappa(aliased).value
    assert 0.93 - 5 * stderr <= covered([kappa(one) for one in runs[:25]], truth)
    # The plug-in value counts the noise of the conditional means: caught at a table without residual.
    plain = []
    for one in runs[:30]:
        found = sums(one)
        whole = approximation.residual_vector(found.whole, aliased.q_bar)
        plain.append(float(whole @ whole))
    honest = [bellman_residual(one, aliased.q_bar).value ** 2 for one in runs[:30]]
    assert min(plain) > 0 and np.mean(plain) > 2 * np.mean(honest)


def test_class_error_from_logs(aliased):
    cls = random_features(aliased.smdp, 1, 3)
    exact = class_error(aliased, cls)
    spanning = linear(
        aliased.smdp, jnp.asarray(np.stack([aliased.q_bar, np.ones_like(aliased.q_bar)], -1), jnp.float32)
    )
    assert exact.value > 0.01 and class_error(aliased, spanning).value < 1e-6
    runs = logs(aliased, 3000, 10)
    found = [e for e in (class_error(one, cls) for one in runs) if e.known]
    assert len(found) > 7 and covered(found, exact.value) >= 0.93 - 3 * (0.95 * 0.05 / len(found)) ** 0.5
    inside = [e for e in (class_error(one, spanning) for one in runs) if e.known]
    assert len(inside) > 7 and covered(inside, 0.0) >= 0.93 - 3 * (0.95 * 0.05 / len(inside)) ** 0.5
    assert np.mean([e.value for e in inside]) < 0.2 * exact.value
    assert class_error(runs[0]).value == class_error(runs[0], tabular(aliased.smdp)).value == 0
    everything = random_features(aliased.smdp, 40, 0)
    assert class_error(runs[0], everything).value == 0  # spans every table


def test_certificate_is_the_residual_over_its_contraction(aliased):
    q = np.where(aliased.interface.available, 0.8 * aliased.q_bar, 0.0)
    one = logs(aliased, 20_000, 1)[0]
    found, truth = certificate(one, q), certificate(aliased, q)
    assert found.interval[0] <= truth.value <= found.interval[1]
    assert found.value == pytest.approx(bellman_residual(one, q).value / (1 - kappa(one).value), rel=0.01)
    assert truth.value >= aliased.norm_d(q - aliased.q_bar)


def test_length_of_a_known_vector():
    rng = np.random.default_rng(0)
    for size in (0.0, 0.3):
        found = []
        for _ in range(200):
            batch = rng.normal(size=(32, 5)) + size
            whole = batch.mean(0)
            found.append(length(whole, (batch.sum(0) - batch) / 31, 32.0))
        assert covered(found, size * 5**0.5) >= 0.95 - 3 * (0.95 * 0.05 / 200) ** 0.5


# --- results and refusals -------------------------------------------------------------------------------------------


def test_too_little_is_a_result(small, log):
    shape = Shape(complete(2), clusters=2, visible=1, hidden=2, options=2)
    slow = analyse(dials_instance(shape, Dials(mixing=0.02), 2))
    for a, one, why in (
        (small, rows_of(log, slice(0, 100)), Reason.FEW_HANDOFFS),
        (slow, logs(slow, 1000, 1)[0], Reason.SHORT),  # long enough in rows, not in memories of the chain
    ):
        for e in (bellman_residual(one, a.q_bar), kappa(one), class_error(one, random_features(a.smdp, 1, 0))):
            assert e.why.reason is why and e.why.reason.too_short and np.isnan(e.value) and np.isnan(e.interval[0])


def test_a_pair_hardly_tried_is_a_result(small, log):
    rare = np.flatnonzero((log.observation == 1) & (log.option == 1))[1:]
    keep = np.setdiff1d(np.arange(len(log)), rare)
    thin = replace(log, **{k: v[keep] for k, v in vars(log).items() if isinstance(v, np.ndarray) and len(v) == len(log)
                           and k in log.__dataclass_fields__})  # fmt: skip
    why = bellman_residual(thin, small.q_bar).why
    assert (why.reason, why.option, why.observation) == (Reason.RARE_PAIR, 1, 1)
    assert str(why).startswith(f"{Reason.RARE_PAIR} (option 1 of observation 1: in 1 of 32")


def test_kappa_needs_the_behaviour(log):
    assert kappa(replace(log, probability=None)).why.reason is Reason.NO_PROBABILITY
    drifting = np.where(np.arange(len(log)) % 2, log.probability, 0.5 * log.probability)
    assert kappa(replace(log, probability=drifting)).why.reason is Reason.BEHAVIOUR_CHANGES
    assert kappa(replace(log, probability=0.5 * log.probability)).why.reason is Reason.UNTRIED_OPTIONS


def test_bad_tables_and_sources_are_refused(small, log):
    bad = small.q_bar.copy()
    bad[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"q\[2, 0\] = nan"):
        bellman_residual(log, bad)
    with pytest.raises(ValueError, match="expected at least"):
        bellman_residual(log, small.q_bar[:2])
    with pytest.raises(TypeError, match="expected an Analysis or a Log"):
        bellman_residual("log", small.q_bar)
    with pytest.raises(ValueError, match="features: shape"):
        class_error(log, replace_features(random_features(small.smdp, 1, 0)))


def replace_features(cls):
    return cls.replace(slot=cls.slot[:2], features=cls.features[:2], offset=cls.offset[:2])


def test_doubtful_greedy_options_are_found(small, log):
    found = sums(log)
    q, parts = found.whole.q_star, np.stack([part.q_star for part in found.without])
    rest = found.whole.model.available, found.whole.mass.sum(1)
    clear = doubt(q, parts, *rest)
    assert clear.share < 0.02
    level, levels = q.copy(), parts.copy()
    level[:, 1], levels[:, :, 1] = level[:, 0], parts[:, :, 0] + 1e-3 * np.random.default_rng(0).normal(size=(32, 4))
    tied = doubt(level, levels, *rest)
    both = small.d_obs[small.interface.available.all(1)].sum()
    assert tied.share == pytest.approx(0.5 * both, rel=0.1)
    with pytest.raises(NoNumber, match="log about") as none:
        tied.check(share=0.02, n_eff=9.0)
    assert none.value.why.reason is Reason.IN_DOUBT and none.value.why.observation == tied.row


# --- networks -------------------------------------------------------------------------------------------------------


def test_a_network_is_fitted_on_one_half_and_judged_on_the_other(small, log):
    net = network_of(log, 8)
    on_instance = fit(small, net, jax.random.key(0), sweeps=30)
    assert on_instance.converged and "converged" in on_instance.result
    assert bellman_residual(small, on_instance.q).value < 0.02 * small.norm_d(small.q_bar)
    found, judged = held_out(log, net, jax.random.key(0), sweeps=30)
    truth = bellman_residual(small, found.q).value
    assert judged.interval[0] <= truth <= judged.interval[1]
    again = fit(rows_of(log, slice(0, len(log) // 2)), net, jax.random.key(0), sweeps=30)
    assert (again.q == found.q).all()
    unfinished = fit(small, net, jax.random.key(0), sweeps=30, tolerance=0.0)
    assert not unfinished.converged and unfinished.sweeps == 30 and "did not converge" in unfinished.result
    with pytest.raises(TypeError, match="is not linear"):
        class_error(log, net)
    with pytest.raises(ValueError, match="sweeps = 0"):
        fit(small, net, jax.random.key(0), sweeps=0)
    with pytest.raises(ValueError, match="width = 0"):
        network_of(log, 0)


def test_rows_of_keeps_the_codes_and_breaks_the_chain(log):
    part = rows_of(log, slice(100, 200))
    assert len(part) == 100 and not part.follows[0] and part.follows[1:].all()
    assert (part.reward == log.reward[100:200]).all() and (part.context == log.context[100:200]).all()
