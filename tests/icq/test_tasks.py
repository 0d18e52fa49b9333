"""Totals per task against simulation by hand and against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import instances

from icq.build import Outcome, from_functions
from icq.tasks import EndlessTask, start_law, task_total


def coin(p):
    """Toss until heads: a geometric number of handoffs of two steps each."""
    toss = [Outcome(p, None, 1.0, 2), Outcome(1 - p, "again", 0.0, 2)]
    return from_functions(
        start=["again"], agent=lambda s: "x", observe=lambda s: s, options=lambda s: ["toss"],
        outcomes=lambda s, o: toss, gamma=0.9,
    ).smdp  # fmt: skip


@pytest.mark.parametrize("p", [0.2, 1.0])
def test_geometric_tasks(p):
    m = coin(p)
    policy = np.zeros(1, int)
    assert task_total(m, policy, np.ones(m.prob.shape)) == pytest.approx([1 / p])
    assert task_total(m, policy, np.asarray(m.duration, float)) == pytest.approx([2 / p])
    assert task_total(m, policy, m.terminal) == pytest.approx([1.0])


@given(instances(terminal=(0.3, 0.5), unavailable=0.0), st.integers(0, 2**32 - 1))
def test_totals_solve_their_recursion(m, seed):
    """Iterating one handoff at a time gives the same number: an oracle that needs no linear algebra."""
    rng = np.random.default_rng(seed)
    policy = rng.integers(0, m.num_options, m.num_states)
    amount = rng.normal(size=m.prob.shape)
    try:
        total = task_total(m, policy, amount)
    except EndlessTask:
        assume(False)
    rows = np.arange(m.num_states)
    p, end, following = (np.asarray(x)[rows, policy] for x in (m.prob, m.terminal, m.next_state))
    alive, x = 1.0, np.zeros(m.num_states)
    weight = np.where(end, 0.0, p)
    for _ in range(20_000):
        x = (p * amount[rows, policy]).sum(1) + (weight * x[following]).sum(1)
        alive = (weight * np.broadcast_to(alive, m.num_states)[following]).sum(1)
        if alive.max() < 1e-13:
            break
    assume(alive.max() < 1e-13)
    assert total == pytest.approx(x, rel=1e-9, abs=1e-9)


def test_endless_tasks_are_refused_by_name():
    m = coin(0.5)
    forever = from_functions(
        start=["a"], agent=lambda s: "x", observe=lambda s: s, options=lambda s: ["wait", "end"],
        outcomes=lambda s, o: [Outcome(1.0, "a" if o == "wait" else None)], gamma=0.9,
    ).smdp  # fmt: skip
    assert task_total(forever, np.array([1]), forever.terminal) == pytest.approx([1.0])
    with pytest.raises(EndlessTask, match="state 0"):
        task_total(forever, np.array([0]), forever.terminal)
    assert start_law(m) == pytest.approx([1.0])


def test_start_law_needs_one_law():
    two = from_functions(
        start={"a": 1.0, "b": 3.0}, agent=lambda s: "x", observe=lambda s: s, options=lambda s: ["go"],
        outcomes=lambda s, o: [Outcome(1.0, None)], gamma=0.9,
    ).smdp  # fmt: skip
    assert start_law(two) == pytest.approx([0.25, 0.75])
    broken = np.array(two.next_state)
    broken[0] = 0
    with pytest.raises(ValueError, match="state 1, option 0"):
        start_law(replace(two, next_state=broken))
