"""Distances of next-step laws: definitions, dualities, and intervals that are never too short."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from scipy.spatial.distance import cdist
from strategies import garnet, instances

from estimators.cells import gather
from estimators.distances import _line, _potential, mean_discrepancy, next_laws, total_variation, wasserstein
from estimators.law import exact_law
from estimators.logs.log import Log, from_handoffs
from icq.exact import Analysis, analyse
from icq.learn.sampling import tables, trajectory
from icq.reason import Reason

pytestmark = pytest.mark.compiles


@cache
def instance() -> Analysis:
    return analyse(garnet(7, states=10, observations=5, options=2, terminal=0.4, gamma=0.8))


def log_of(a: Analysis, n: int, seed: int = 0, context: bool = True) -> Log:
    return from_handoffs(a.smdp, trajectory(tables(a), jax.random.key(seed), n), context=context)


def laws_by_hand(a: Analysis) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Mass, p and q of every cell with discounted mass."""
    obs, options = np.asarray(a.smdp.observation), a.oracle.reward.shape[1]
    kernel, mixed = a.oracle.kernel.toarray(), a.interface.kernel.toarray()
    out = []
    for s in np.flatnonzero(a.d > 0):
        for o in range(options):
            row = np.bincount(obs, kernel[s * options + o], len(a.d_obs))
            other = mixed[obs[s] * options + o]
            if row.sum() > 0:
                out.append((a.d_state_pair[s, o], row / row.sum(), other / other.sum()))
    return out


@settings(max_examples=10)
@given(instances())
def test_exact_distances_as_their_definitions_read(m):
    a = analyse(m)
    cells = laws_by_hand(a)
    assert total_variation(a).value == pytest.approx(sum(w * np.abs(p - q).sum() / 2 for w, p, q in cells), abs=1e-9)
    euclid = np.sqrt(sum(w * ((p - q) ** 2).sum() for w, p, q in cells))
    assert mean_discrepancy(a).value == pytest.approx(euclid, abs=1e-9)
    places = np.random.default_rng(0).normal(size=(len(a.d_obs), 2))
    kernel = np.exp(-cdist(places, places))
    weighted = np.sqrt(sum(w * (p - q) @ kernel @ (p - q) for w, p, q in cells))
    assert mean_discrepancy(a, kernel).value == pytest.approx(weighted, abs=1e-7)
    metric = cdist(places, places)
    transport = sum(w * ot.emd2(p, q, metric) for w, p, q in cells)
    assert wasserstein(a, places).value == pytest.approx(transport, abs=1e-9)


def test_witnesses_attain_the_distance_and_are_admissible():
    p, q = next_laws(exact_law(instance()))
    places = np.random.default_rng(1).normal(size=(p.shape[1], 1))
    metric = cdist(places, places)
    for f in (_line(p, q, places[:, 0]), _potential(p, q, metric)):
        value = ((p - q) * f).sum(axis=1)
        truth = [ot.emd2(a, b, metric) if a.any() else 0.0 for a, b in zip(p, q)]
        np.testing.assert_allclose(value, truth, atol=1e-9)
        rise = np.abs(f[:, :, None] - f[:, None, :])
        assert (rise <= metric[None] + 1e-9).all()


def test_guaranteed_intervals_hold_the_truth_at_every_size():
    a = instance()
    places = np.arange(len(a.d_obs), dtype=float)[:, None]
    truth = np.array([total_variation(a).value, wasserstein(a, places).value])
    for size in (1000, 4000):
        found = [(total_variation(c), wasserstein(c, places)) for c in (gather(log_of(a, size, s)) for s in range(16))]
        held = np.array([[f.interval[0] <= t <= f.interval[1] for f, t in zip(pair, truth)] for pair in found])
        assert (held.sum(axis=0) >= 13).all()
        assert all(f.interval[0] <= f.value <= f.interval[1] for pair in found for f in pair)


def test_without_a_gap_the_interval_reaches_zero_and_the_plug_in_does_not():
    a = instance()
    log = log_of(a, 3000)
    names = np.random.default_rng(0).integers(2, size=3000)
    blind = gather(replace(log, context=names))
    found = total_variation(blind)
    p, q = next_laws(blind.whole)
    plug_in = float(blind.whole.mass.reshape(-1) @ np.abs(p - q).sum(axis=1) / 2)
    assert found.interval[0] == pytest.approx(0, abs=0.01) and plug_in > 0.015
    assert mean_discrepancy(blind).interval[0] == pytest.approx(0, abs=0.01)


def test_the_mean_discrepancy_of_a_log_holds_the_truth():
    a = instance()
    truth = mean_discrepancy(a).value
    found = [mean_discrepancy(log_of(a, 3000, seed)).interval for seed in range(12)]
    assert sum(low <= truth <= high for low, high in found) >= 9


def test_bad_kernels_features_and_logs_are_refused():
    a = instance()
    size = len(a.d_obs)
    with pytest.raises(ValueError, match="strictly positive definite"):
        mean_discrepancy(a, -np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(float))
    with pytest.raises(ValueError, match=r"kernel\[0, 1\]"):
        mean_discrepancy(a, np.eye(size) + np.triu(np.ones((size, size)), 1))
    with pytest.raises(ValueError, match="none given"):
        wasserstein(a)
    with pytest.raises(ValueError, match=r"features\[1, 0\] = nan"):
        wasserstein(a, np.array([[0.0], [np.nan], [1.0], [2.0], [3.0]]))
    assert total_variation(log_of(a, 3000, context=False)).why.reason is Reason.NO_CONTEXT


def once_by_hand(log: Log, batches: int = 32) -> float:
    """Share of handoffs in cells after which tasks went on in one batch only; every cell occurs in two."""
    n, where = len(log), {}
    assert log.context is not None
    for k in range(n):
        cell = int(log.observation[k]), int(log.context[k]), int(log.option[k])
        visits, went_on = where.setdefault(cell, [0, set()])
        where[cell][0] = visits + 1
        if log.discount[k] > 0:
            went_on.add(k * batches // n)
    return sum(visits for visits, went_on in where.values() if len(went_on) == 1) / n


def test_a_law_that_one_batch_makes_is_a_result():
    a, results = instance(), []
    for seed in range(8):
        log = log_of(a, 1000, seed)
        cells = gather(log)
        if cells.covered < 1:
            continue
        assert cells.led_once == pytest.approx(once_by_hand(log))
        why = mean_discrepancy(cells).why
        results.append((why is not None and why.reason is Reason.LED_ONCE, cells.led_once > 0.001))
    assert {told for told, _ in results} == {True, False}
    assert all(told == due for told, due in results)
