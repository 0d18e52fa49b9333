"""The random family: shapes, ergodicity by construction, distinct seeds, correlation dial, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import garnet, instances

from icq import exact
from icq.exact import markov


@settings(max_examples=150)
@given(instances())
def test_every_instance_is_ergodic_and_owned(m):
    m.validate()
    assert not markov.structure(exact.handoff_chain(m)).problems()
    assert set(m.observation) == set(range(m.num_observations))
    assert set(m.agent) == set(range(m.num_agents))
    assert (m.prob > 0).all() and ((m.behaviour > 0) == m.available).all()
    assert exact.analyse(m).d.min() > 0


@pytest.mark.parametrize("unavailable", [0.0, 1.0])
def test_single_outcomes_still_ergodic(unavailable):
    for seed in range(20):
        m = garnet(seed, states=7, options=2, outcomes=1, observations=3, unavailable=unavailable)
        assert not markov.structure(exact.handoff_chain(m)).problems()


def test_arguments_are_kept():
    m = garnet(0, states=9, options=4, outcomes=2, observations=5, agents=2, gamma=0.7, max_duration=6)
    assert m.prob.shape == (9, 4, 2)
    assert (m.num_observations, m.num_agents, float(m.gamma)) == (5, 2, 0.7)
    assert set(np.unique(m.duration)) == set(range(1, 7))
    rate = m.reward * (1 - 0.7) / (1 - 0.7**m.duration)
    assert (np.abs(rate) < 1).all()


def test_terminal_and_drop_are_probabilities():
    m = garnet(3, states=400, options=5, observations=400, terminal=0.3, unavailable=0.4)
    for share, p, n in ((m.terminal.mean(), 0.3, m.terminal.size), ((~m.available).mean(), 0.4 * 0.8, 2000)):
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / n)
    assert not garnet(3, terminal=0.0).terminal.any()
    assert (garnet(3, unavailable=1.0).available.sum(1) == 1).all()
    assert garnet(3, unavailable=0.0).available.all()


def test_distinct_seeds_give_distinct_instances():
    seen = {garnet(seed).prob.tobytes() for seed in range(50)}
    assert len(seen) == 50
    one, other = garnet(0), garnet(1)
    for name in ("next_state", "duration", "reward", "terminal", "observation", "behaviour"):
        assert not np.array_equal(getattr(one, name), getattr(other, name)), name
    again = garnet(0)
    assert all(np.array_equal(getattr(one, f), getattr(again, f)) for f in vars(one))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_correlation_dial(correlation):
    m = garnet(5, states=600, observations=3, max_duration=1000, gamma=0.5, correlated=correlation)
    rate = m.reward * 0.5 / (1 - 0.5 ** m.duration.astype(float))
    scores = np.argsort(np.argsort([m.next_state.ravel(), m.duration.ravel(), rate.ravel()], axis=1), axis=1)
    rank = np.corrcoef(scores)[np.triu_indices(3, 1)]
    spearman = 6 / np.pi * np.arcsin(correlation / 2)  # of a Gaussian copula
    # The 601 redirected of 5400 outcomes have an independent next state.
    loose = 4 / np.sqrt(m.prob[..., 0].size) + np.array([1, 1, 0]) * 0.22 * spearman
    assert (np.abs(rank - spearman) <= loose).all()


def test_true_is_full_correlation():
    assert np.array_equal(garnet(1, correlated=True).reward, garnet(1, correlated=1.0).reward)
    assert np.array_equal(garnet(1, correlated=False).reward, garnet(1, correlated=0.0).reward)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"states": 0}, "states = 0"),
        ({"outcomes": 0}, "outcomes = 0"),
        ({"max_duration": 0}, "max_duration = 0"),
        ({"states": 3, "observations": 4}, "observations = 4 > states = 3"),
        ({"observations": 2, "agents": 3}, "agents = 3 > observations = 2"),
        ({"options": 1, "outcomes": 1}, "periodic"),
        ({"unavailable": 1.5}, "unavailable = 1.5"),
        ({"terminal": -0.1}, "terminal = -0.1"),
        ({"correlated": 2.0}, "correlated = 2.0"),
        ({"gamma": 1.0}, "gamma = 1.0"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        garnet(0, **sizes)
