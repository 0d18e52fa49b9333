"""Handoff graphs: who may hand control to whom.

Every agent may also keep control, so that a handoff chain with full support on the graph is aperiodic; every graph is
strongly connected, so that it is irreducible (docs/theory.md section 8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import connected_components


class TopologyError(ValueError):
    """A handoff graph that cannot carry an ergodic workflow; the message names the agent."""


@dataclass(frozen=True)
class Topology:
    """A handoff graph.  `successors[i]`: the agents that may act after agent i, sorted, i itself among them.

    Hashable, so that it can be a static argument of a compiled function.
    Raises TopologyError for fewer than two agents, an unknown, repeated or missing successor, or an agent that
    cannot reach every other.
    """

    name: str
    successors: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        n = self.agents
        if n < 2:
            raise TopologyError(f"{self.name}: {n} agents, at least 2 are needed")
        for i, row in enumerate(self.successors):
            if bad := [j for j in row if not 0 <= j < n]:
                raise TopologyError(f"{self.name}: successor {bad[0]} of agent {i} is outside 0..{n - 1}")
            if any(a >= b for a, b in pairwise(row)):
                raise TopologyError(f"{self.name}: successors {row} of agent {i} are not sorted and distinct")
            if i not in row:
                raise TopologyError(f"{self.name}: agent {i} cannot keep control (it is not its own successor)")
        table, valid = self.table()
        source = np.repeat(np.arange(n), valid.sum(1))
        graph = sp.csr_array((np.ones(len(source)), (source, table[valid])), shape=(n, n))
        count, label = connected_components(graph, directed=True, connection="strong")
        if count > 1:
            other = int(np.flatnonzero(label != label[0])[0])
            raise TopologyError(
                f"{self.name}: not strongly connected, agents 0 and {other} cannot both reach each other"
            )

    @property
    def agents(self) -> int:
        """N, the number of agents."""
        return len(self.successors)

    @property
    def degree(self) -> int:
        """The largest number of successors, keeping control included."""
        return max(map(len, self.successors))

    def table(self) -> tuple[Int[np.ndarray, "N D"], Bool[np.ndarray, "N D"]]:
        """Successors padded to the largest degree with the agent itself, and the mask of true entries."""
        degree = self.degree
        table = np.array([(*row, *[i] * (degree - len(row))) for i, row in enumerate(self.successors)])
        valid = np.arange(degree) < np.array([len(row) for row in self.successors])[:, None]
        return table, valid


def from_successors(name: str, successors: Sequence[Iterable[int]]) -> Topology:
    """A topology from any successor sets; keeping control is added."""
    return Topology(name, tuple(tuple(sorted({i, *map(int, row)})) for i, row in enumerate(successors)))


def from_adjacency(adjacency: Bool[np.ndarray, "..."], name: str = "custom") -> Topology:
    """A topology from a boolean matrix, adjacency[i, j] true where i may hand over to j."""
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise TopologyError(f"{name}: adjacency of shape {adjacency.shape}, expected (N, N)")
    return from_successors(name, [np.flatnonzero(row).tolist() for row in adjacency])


def ring(agents: int) -> Topology:
    """Each agent hands over to either neighbour on a circle."""
    return from_successors("ring", [((i - 1) % agents, (i + 1) % agents) for i in range(agents)])


def star(agents: int) -> Topology:
    """Agent 0 (the hub) hands over to anyone, everyone else to the hub.  The hub's degree is N."""
    return from_successors("star", [range(agents) if i == 0 else (0,) for i in range(agents)])


def complete(agents: int) -> Topology:
    """Anyone hands over to anyone."""
    return from_successors("complete", [range(agents)] * agents)


def pipeline(agents: int) -> Topology:
    """Each stage retries (keeps control) or passes on to the next; the last hands over to the first."""
    return from_successors("pipeline", [((i + 1) % agents,) for i in range(agents)])


def random(agents: int, out_degree: int, seed: int) -> Topology:
    """`out_degree` distinct other successors per agent: one on a random Hamiltonian cycle, the rest uniform.

    The cycle makes it strongly connected.  Raises TopologyError unless 1 <= out_degree < agents.
    """
    if not 1 <= out_degree < agents:
        raise TopologyError(f"random: out_degree = {out_degree} is outside 1..{agents - 1} for {agents} agents")
    rng = np.random.default_rng(seed)
    order = rng.permutation(agents)
    following = np.empty(agents, np.int64)
    following[order] = np.roll(order, -1)
    rows = []
    for i in range(agents):
        # Positions 0..N-3 stand for the agents other than i and its successor on the cycle, in increasing order.
        extra = rng.choice(agents - 2, out_degree - 1, replace=False) if out_degree > 1 else np.empty(0, np.int64)
        for taken in sorted((i, int(following[i]))):
            extra = extra + (extra >= taken)
        rows.append((int(following[i]), *extra.tolist()))
    return from_successors("random", rows)
