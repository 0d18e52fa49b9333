"""Handoff graphs against their definitions, and the errors of graphs that are none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic import topology
from synthetic.topology import Topology, TopologyError


def adjacency(graph: Topology) -> np.ndarray:
    out = np.zeros((graph.agents, graph.agents), bool)
    for i, row in enumerate(graph.successors):
        out[i, list(row)] = True
    return out


def reachable(edges: np.ndarray) -> np.ndarray:
    """Reachability by Boolean closure, independent of the library's component search."""
    closure = edges | np.eye(len(edges), dtype=bool)
    for _ in range(len(edges).bit_length()):
        closure = (closure.astype(int) @ closure.astype(int)) > 0
    return closure


@given(st.integers(2, 12))
def test_each_graph_is_what_its_name_says(n):
    i, j = np.indices((n, n))
    keep = i == j
    step = (j - i) % n
    assert np.array_equal(adjacency(topology.ring(n)), keep | (step == 1) | (step == n - 1))
    assert np.array_equal(adjacency(topology.pipeline(n)), keep | (step == 1))
    assert np.array_equal(adjacency(topology.star(n)), keep | (i == 0) | (j == 0))
    assert adjacency(topology.complete(n)).all()


@given(st.integers(2, 12), st.integers(0, 1000), st.data())
def test_random_graph_has_the_degree_and_is_strongly_connected(n, seed, data):
    degree = data.draw(st.integers(1, n - 1))
    graph = topology.random(n, degree, seed)
    edges = adjacency(graph)
    assert (edges.sum(1) == degree + 1).all() and edges.diagonal().all()
    assert reachable(edges).all()
    assert graph == topology.random(n, degree, seed)


def test_random_graphs_of_different_seeds_differ():
    assert len({topology.random(10, 2, seed) for seed in range(20)}) == 20


def test_random_successors_are_uniform_beyond_the_cycle():
    counts = sum(adjacency(topology.random(6, 2, seed)).astype(float) for seed in range(2000))
    share = counts[~np.eye(6, dtype=bool)] / 2000
    standard_error = np.sqrt(0.4 * 0.6 / 2000)  # two of five others each
    assert np.abs(share - 0.4).max() < 4.5 * standard_error


@pytest.mark.parametrize("make", [topology.ring, topology.pipeline, lambda n: topology.random(n, 3, 0)])
def test_sparse_graphs_reach_thousands_of_agents(make):
    graph = make(5000)
    assert graph.agents == 5000 and graph.degree <= 4


def test_padding_names_the_agent_itself_and_is_masked():
    table, valid = topology.star(4).table()
    assert table.shape == valid.shape == (4, 4)
    assert valid.sum(1).tolist() == [4, 2, 2, 2]
    assert table[2].tolist() == [0, 2, 2, 2]


def test_a_topology_is_a_value():
    assert hash(topology.ring(5)) == hash(topology.ring(5)) and topology.ring(5) != topology.pipeline(5)


@given(st.integers(2, 7), st.integers(0, 10_000))
def test_from_adjacency_accepts_exactly_the_strongly_connected(n, seed):
    edges = np.random.default_rng(seed).random((n, n)) < 0.4
    if reachable(edges).all():
        assert np.array_equal(adjacency(topology.from_adjacency(edges)), edges | np.eye(n, dtype=bool))
    else:
        with pytest.raises(TopologyError, match="not strongly connected, agents 0 and"):
            topology.from_adjacency(edges)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: topology.ring(1), "ring: 1 agents, at least 2"),
        (lambda: Topology("t", ((0, 1), (0, 1, 2))), "successor 2 of agent 1 is outside 0..1"),
        (lambda: Topology("t", ((0, 1), (1, 0))), "of agent 1 are not sorted and distinct"),
        (lambda: Topology("t", ((0, 1), (0,))), "agent 1 cannot keep control"),
        (lambda: Topology("t", ((0, 1), (0, 1), (0, 2))), "agents 0 and 2 cannot both reach each other"),
        (lambda: topology.from_adjacency(np.ones((2, 3), bool)), r"shape \(2, 3\), expected \(N, N\)"),
        (lambda: topology.random(4, 4, 0), "out_degree = 4 is outside 1..3 for 4 agents"),
    ],
)
def test_errors_name_the_agent(build, message):
    with pytest.raises(TopologyError, match=message):
        build()
