"""docs/theory.md section 3: rungs 3 and 3', and the attribution of the gap to agents."""

import numpy as np
import pytest
from broken import caught, family, never_violated, shrunk
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from bounds.interface import agents, gap
from icq.exact import analyse

seeds = st.integers(0, 2**32 - 1)


def slack(a):
    return 1e-10 * (1 + gap.trivial_cap(a))


def owner(m):
    return np.asarray(m.agent)[m.observation]


@given(instances(gamma=(0.3, 0.9)))
def test_agent_gap_value_is_the_fixed_point(m):
    """Against the definition, iterated with loops over agents, states and options."""
    a = analyse(m)
    kernel, e = a.oracle.kernel.toarray().reshape(*a.q_star.shape, -1), np.zeros(m.num_agents)
    handed = np.stack([kernel[:, :, owner(m) == j].sum(-1) for j in range(m.num_agents)], axis=-1)
    for _ in range(5000):
        rows = np.where(a.oracle.available, np.abs(a.local_gap) + handed @ e, 0.0).max(1)
        after = np.array([rows[owner(m) == i].max() for i in range(m.num_agents)])
        if np.abs(after - e).max() < 1e-13:
            break
        e = after
    np.testing.assert_allclose(agents.agent_gap_value(a, a.local_gap).value, e, atol=slack(a))


@given(instances())
def test_agent_rung_is_between_its_neighbours(m):
    a = analyse(m)
    e, bound = agents.agent_gap_value(a, a.local_gap), agents.agent_gap_bound(a)
    assert (a.gap_value.v <= e.value[owner(m)] + slack(a)).all(), "rung 2 <= rung 3, agent by agent"
    assert bound.value == pytest.approx(e.value.max())
    assert gap.gap_value_bound(a).value <= bound.value + slack(a)
    assert bound.value <= gap.scalar_gap_bound(a).value + slack(a)


@given(instances())
def test_linear_rung_is_at_least_the_agent_rung(m):
    a = analyse(m)
    linear = agents.linear_agent_bound(a)
    matrix, _ = agents.coupling(a)
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    assert linear.applicable == (radius < 1)
    if not linear.applicable:
        (failure,) = linear.failures
        assert np.isnan(linear.value) and failure.margin == pytest.approx(1 - radius)
        return
    assert agents.agent_gap_bound(a).value <= linear.value + linear.roundoff + slack(a)
    if matrix.sum(1).max() <= a.gamma_bar:
        assert linear.value <= gap.scalar_gap_bound(a).value + linear.roundoff + slack(a)


def test_linear_rung_crosses_the_scalar_rung():
    linear = [(agents.linear_agent_bound(a), gap.scalar_gap_bound(a)) for a in family()]
    applicable = [x.value - y.value for x, y in linear if x.applicable]
    assert max(applicable) > 1e-3 and min(applicable) < -1e-3
    assert any(not x.applicable for x, _ in linear)


@given(instances())
def test_attribution_sums_to_the_agent_gap(m):
    a = analyse(m)
    e = agents.agent_gap_value(a, a.local_gap)
    assert (e.attribution >= -1e-15).all()
    np.testing.assert_allclose(e.attribution.sum(1), e.value, atol=slack(a))


@given(instances(), seeds, st.sampled_from([0.0, 0.5, 0.9, 1.1, 3.0]))
def test_attribution_is_a_subgradient(m, seed, scale):
    """Scaling agent j's gap by t moves e by at least (t - 1) A_j, equally so to first order at a strict maximum."""
    a = analyse(m)
    j = seed % m.num_agents
    e = agents.agent_gap_value(a, a.local_gap)
    scaled = np.where((owner(m) == j)[:, None], scale * a.local_gap, a.local_gap)
    after = agents.agent_gap_value(a, scaled).value
    assert (after >= e.value + (scale - 1) * e.attribution[:, j] - slack(a)).all()


def test_attribution_is_the_derivative():
    """Finite differences on the family; at most a few agents sit at a tie of maximising rows."""
    step, misses, total = 1e-6, 0, 0
    for a in family():
        e = agents.agent_gap_value(a, a.local_gap)
        for j in range(a.smdp.num_agents):
            scaled = np.where((owner(a.smdp) == j)[:, None], (1 + step) * a.local_gap, a.local_gap)
            slope = (agents.agent_gap_value(a, scaled).value - e.value) / step
            misses += not np.allclose(slope, e.attribution[:, j], rtol=1e-3, atol=1e-5)
            total += 1
    assert misses <= total / 20


def sup_gap(a):
    return a.norm_sup_state(a.gap)


@pytest.mark.parametrize("claim", [agents.agent_gap_bound, agents.linear_agent_bound])
def test_the_verifier_passes_the_rung_and_catches_a_lost_factor(claim):
    assert never_violated(claim, sup_gap, gap.observed_error)
    assert caught(lambda a: shrunk(claim(a), 0.95), sup_gap)


def test_the_verifier_catches_a_forgotten_handoff():
    """Agents treated as if nothing they hand over came back to them from others."""

    def alone(a):
        e = agents.agent_gap_value(a, a.local_gap)
        value = (e.gap / (1 - np.diag(e.matrix))).max()
        bound = agents.agent_gap_bound(a)
        return shrunk(bound, value / bound.value) if bound.value > 0 else bound

    assert caught(alone, sup_gap)
