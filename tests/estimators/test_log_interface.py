"""The interface gap from logs: exact values, sufficient statistics, refusals, and intervals that hold the truth."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given
from strategies import garnet, instances

from bounds.interface.gap import oracle_contraction as certified_modulus
from bounds.interface.gap import scalar_gap_bound_d
from estimators import interface
from estimators.cells import Cells, gather
from estimators.doubt import MANY
from estimators.interface import (
    CONTEXT,
    LOWER,
    certified_gap,
    channel_tables,
    interface_gap,
    local_gap,
    local_gap_by_agent,
    local_gap_channels,
    oracle_contraction,
    residual,
)
from estimators.law import Law, exact_law
from estimators.logs.log import Log, from_handoffs
from estimators.statistics.estimate import Estimate
from icq.exact import Analysis, analyse
from icq.learn.sampling import tables, trajectory
from icq.reason import Reason
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import complete

pytestmark = pytest.mark.compiles

SMALL = Shape(topology=complete(3), clusters=2, visible=1, hidden=2, options=2)


@cache
def dials(gap: float, mixing: float = 0.3) -> Analysis:
    return analyse(dials_instance(SMALL, Dials(gap=gap, mixing=mixing), 1))


@cache
def random_instance() -> Analysis:
    return analyse(garnet(7, states=10, observations=5, options=2, terminal=0.4, gamma=0.8))


def log_of(a: Analysis, n: int, seed: int = 0) -> Log:
    return from_handoffs(a.smdp, trajectory(tables(a), jax.random.key(seed), n))


def rows(log: Log, keep: np.ndarray) -> Log:
    """The log without some rows; what follows a gap does not continue it."""
    names = ("task", "k", "agent", "observation", "option", "reward", "duration", "done", "next_agent",
             "next_observation", "scalar", "context")  # fmt: skip
    before = np.concatenate(([False], keep[:-1]))
    return replace(log, **{name: getattr(log, name)[keep] for name in names}, probability=None,
                   follows=(log.follows & before)[keep])  # fmt: skip


# --- exact ----------------------------------------------------------------------------------------------------------


@given(instances())
def test_exact_values_are_those_of_the_analysis(m):
    a = analyse(m)
    assert local_gap(a).value == pytest.approx(a.norm_d_state(a.local_gap), abs=1e-9)
    assert interface_gap(a).value == pytest.approx(a.norm_d_state(a.gap), abs=1e-9)
    assert oracle_contraction(a).value == pytest.approx(certified_modulus(a), rel=1e-9)
    assert local_gap(a).interval == (local_gap(a).value, local_gap(a).value)


@given(instances())
def test_a_certified_gap_is_the_bound_and_absent_where_it_does_not_apply(m):
    a = analyse(m)
    found, bound = certified_gap(a), scalar_gap_bound_d(a)
    assert (found.known) == np.isfinite(bound.value)
    if found.known:
        assert found.value == pytest.approx(bound.value, rel=1e-6, abs=1e-9)


@given(instances())
def test_channels_add_up_and_each_has_mean_zero_given_the_pair(m):
    law = exact_law(analyse(m))
    parts = channel_tables(law)
    np.testing.assert_allclose(sum(parts), residual(law), atol=1e-9)
    for part in parts:
        np.testing.assert_allclose(law.fold(law.mass * part), 0, atol=1e-9)


def test_channels_see_what_carries_the_gap():
    reward = analyse(dials_instance(SMALL, Dials(kernel_share=0.0, compensate=0.0), 1))
    found = local_gap_channels(reward)
    assert found.reward.value == pytest.approx(local_gap(reward).value)
    assert max(found.duration.value, found.transition.value) < 1e-9
    kernel = local_gap_channels(analyse(dials_instance(SMALL, Dials(kernel_share=1.0, duration_spread=0.0), 1)))
    assert kernel.transition.value > 0.01


@given(instances())
def test_squares_of_agents_add_up(m):
    a = analyse(m)
    share = np.bincount(np.asarray(m.agent), a.d_obs)
    total = sum(share[agent] * found.value**2 for agent, found in local_gap_by_agent(a).items())
    assert total == pytest.approx(local_gap(a).value ** 2, abs=1e-9)


def test_a_given_table_has_the_residual_of_the_true_process():
    a = random_instance()
    q = np.where(a.interface.available, np.random.default_rng(0).normal(size=a.q_bar.shape), 0.0)
    lifted = a.lift(q)
    truth = a.norm_d_state(a.oracle.bellman(lifted) - lifted)
    assert local_gap(a, q).value == pytest.approx(truth)
    low, high = local_gap(log_of(a, 4000), q).interval
    assert low < truth < high


# --- sufficient statistics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("onward", [False, True])
def test_the_law_of_a_log_is_what_counting_by_hand_gives(onward):
    log = log_of(random_instance(), 12_000)
    cells = gather(log, onward=onward)
    assert cells.covered >= 1 - 1 / len(log)  # or rare cells are left out, by hand too
    count, reward, edge = {}, {}, {}
    for i in range(len(log)):
        key = (log.observation[i], log.context[i], log.option[i])
        known = i + 1 < len(log) or log.done[i] or not onward
        if not known:
            continue
        count[key] = count.get(key, 0) + 1
        reward[key] = reward.get(key, 0.0) + log.reward[i]
        if not log.done[i]:
            to = (*key, log.next_observation[i], log.context[i + 1] if onward else -1)
            edge[to] = edge.get(to, 0.0) + log.discount[i]
    law = cells.whole
    assert sum(count.values()) == cells.count.sum()
    assert sorted(count.values()) == sorted(cells.count.sum(axis=0)[law.mass.reshape(-1) > 0])
    assert sum(reward.values()) == pytest.approx((law.mass * law.reward).sum() * cells.count.sum())
    np.testing.assert_allclose(sorted(edge.values()), np.sort(law.discount * law.mass.reshape(-1)[law.frame.source])
                               * cells.count.sum(), rtol=1e-9)  # fmt: skip


def test_the_law_converges_to_the_exact_one():
    a = random_instance()
    law, truth = gather(log_of(a, 100_000), onward=True).whole, exact_law(a)
    order = np.argsort(truth.frame.observation, kind="stable")
    np.testing.assert_allclose(law.mass, truth.mass[order], atol=0.01)
    np.testing.assert_allclose(law.q_star, truth.q_star[order], atol=0.15)
    np.testing.assert_allclose(law.q_bar, truth.q_bar, atol=0.1)


def test_leaving_a_batch_out_is_the_log_without_its_rows():
    log = log_of(random_instance(), 3200)
    left = gather(log).without[5]
    direct = gather(rows(log, np.arange(3200) // 100 != 5)).whole
    np.testing.assert_allclose(left.mass, direct.mass, atol=1e-12)
    np.testing.assert_allclose(residual(left), residual(direct), atol=1e-9)


def test_rare_cells_are_left_out_and_their_share_is_said():
    log = log_of(random_instance(), 3200)
    rare = replace(log, context=np.where(np.arange(3200) == 77, 99, log.context))
    cells = gather(rare)
    assert cells.covered == pytest.approx(1 - 1 / 3200)
    assert (cells.visits.sum(axis=0) > 1).all()


# --- too little -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", [local_gap, interface_gap, oracle_contraction, certified_gap])
def test_without_context_there_is_no_number(quantity):
    found = quantity(replace(log_of(dials(1.0), 3000), context=None))
    assert found.why.reason is Reason.NO_CONTEXT and np.isnan(found.value) and np.isnan(found.interval).all()


def test_too_little_data_is_a_result():
    a = dials(1.0)
    few, rare = local_gap(log_of(a, 20)).why, interface_gap(log_of(a, 600)).why
    assert few.reason is Reason.FEW_HANDOFFS and "at least" in few.place
    assert local_gap(log_of(a, 200)).why.need.startswith("log longer")
    assert rare.reason is Reason.RARELY_VISITED_CELLS and rare.reason.too_short
    assert local_gap(log_of(dials(1.0, 0.002), 4000)).why.reason is Reason.SHORT
    many = replace(log_of(a, 3000), context=np.arange(3000))
    assert local_gap(many).why.reason is Reason.RARE_CELLS and "coarser" in local_gap(many).why.need


def tied() -> Analysis:
    return analyse(dials_instance(SMALL, Dials(gap=1.0, action_gap=0.0), 1))


def test_a_best_option_in_doubt_is_a_result_while_cells_are_rare():
    log = log_of(tied(), 300)
    assert not gather(log).frequent and local_gap(log).why.reason is Reason.IN_DOUBT


def held(truth: float, found: list[Estimate]) -> int:
    assert all(e.known for e in found)
    return sum(e.interval[0] <= truth <= e.interval[1] for e in found)


def test_intervals_know_what_ties_do_and_without_that_are_caught(monkeypatch):
    """Where all options tie the maximum has a bias of the order of a standard error, however long the log."""
    even = analyse(dials_instance(Shape(complete(4)), Dials(gap=1.0, action_gap=0.0), 1))
    logs = [gather(log_of(even, 10_000, seed), onward=True) for seed in range(20)]
    assert min(cells.doubt.share for cells in logs) > MANY
    assert held(local_gap(even).value, [local_gap(cells) for cells in logs]) >= 16
    truth, found = interface_gap(even).value, [interface_gap(cells) for cells in logs]
    assert held(truth, found) >= 18 and all("tie" in e.note for e in found)
    assert not any("tie" in interface_gap(log_of(dials(1.0), 4000, seed)).note for seed in range(5))
    monkeypatch.setattr(interface, "KINK", np.inf)
    assert held(truth, [interface_gap(cells) for cells in logs]) <= 15


def test_an_agent_that_acts_in_few_batches_has_no_halves():
    log = log_of(analyse(dials_instance(SMALL, Dials(gap=1.0, action_gap=0.0), 1)), 40_000)
    cells = gather(rows(log, (log.agent != 2) | (np.arange(len(log)) % 20_000 < 500)))
    assert cells.frequent and cells.doubt.share > MANY
    lack = local_gap(cells, agent=2).why
    assert lack.reason is Reason.ABSENT_AGENT and lack.agent == 2 and "agent 2" in str(lack)
    assert local_gap(cells, agent=1).known and set(local_gap_by_agent(cells)) == {0, 1, 2}


def test_numbers_that_are_not_finite_stay_so():
    log = log_of(dials(1.0), 2000)
    log.reward[7] = np.nan
    found = local_gap(log)
    assert np.isnan(found.value) and found.why.reason is Reason.NOT_FINITE


def test_bad_sources_and_agents_are_refused():
    with pytest.raises(ValueError, match="agent = 9 does not act"):
        local_gap(dials(1.0), agent=9)
    with pytest.raises(ValueError, match="onward=True"):
        interface_gap(gather(log_of(dials(1.0), 2000)))
    with pytest.raises(ValueError, match="no context"):
        gather(replace(log_of(dials(1.0), 2000), context=None))


def test_a_log_says_what_its_number_is():
    log = log_of(dials(1.0), 3000)
    assert local_gap(log).note == LOWER and interface_gap(log).note == CONTEXT
    assert local_gap(dials(1.0)).note == ""


# --- truth ----------------------------------------------------------------------------------------------------------


def test_a_coarser_context_shows_less_and_never_more():
    a = dials(1.0)
    log = log_of(a, 12_000)
    blind = replace(log, context=np.zeros_like(log.context))
    half = replace(log, context=np.where(log.context < 6, log.context, 0))
    coarse = exact_law(a)
    part = np.where(np.arange(len(a.d)) < 6, np.arange(len(a.d)), -1 - np.asarray(a.smdp.observation))
    b = residual(coarse)
    truth = 0.0
    for group in np.unique(part):
        mass = coarse.mass[part == group]
        truth += ((mass * b[part == group]).sum(0) ** 2 / mass.sum(0)).sum()
    low, high = local_gap(half).interval
    assert low < np.sqrt(truth) < high < local_gap(a).value
    assert local_gap(blind).value == 0


@pytest.mark.parametrize(("gap", "size"), [(0.0, 3000), (1.0, 3000)])
def test_intervals_hold_the_truth(gap, size):
    a, replicates = dials(gap), 40
    truth, hits = (local_gap(a).value, interface_gap(a).value), np.zeros(2)
    numbers = 0
    for seed in range(replicates):
        cells = gather(log_of(a, size, seed), onward=True)
        found = (local_gap(cells), interface_gap(cells))
        numbers += all(f.known for f in found)
        hits += [f.known and f.interval[0] <= t <= f.interval[1] for f, t in zip(found, truth)]
    assert numbers > 0.8 * replicates
    assert (hits >= 0.95 * numbers - 3.5 * np.sqrt(0.05 * 0.95 * numbers)).all()


def _square(cells: Cells, q: np.ndarray, debias: bool) -> float:
    """Between-cell square of the residual, jackknifed or plug-in."""

    def square(law: Law) -> float:
        table = residual(law, q)
        return float((law.mass * (table - law.mean(table)) ** 2).sum())

    without = np.mean([square(law) for law in cells.without])
    whole = square(cells.whole)
    return cells.batches * whole - (cells.batches - 1) * float(without) if debias else whole


def test_the_square_is_unbiased_and_the_plug_in_is_caught():
    a = dials(0.3)
    truth = local_gap(a).value ** 2
    found = np.array([
        [_square(gather(log_of(a, 640, seed)), a.q_bar, debias) for debias in (True, False)] for seed in range(48)
    ])  # fmt: skip
    error, stderr = found.mean(axis=0) - truth, found.std(axis=0) / np.sqrt(len(found))
    assert abs(error[0]) < 4 * stderr[0]
    assert error[1] > 6 * stderr[1]
