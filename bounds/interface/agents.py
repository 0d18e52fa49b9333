"""Whose interface is to blame: the gap per agent, and its attribution to the agents that cause it.

Rung 3 and its linear version 3'.  Letters are those of docs/theory.md section 3: S_i the states in which agent i acts,
K(S_j|s,a) the discounted mass that (s,a) hands to agent j, e [N] the agent gap value, G* [N, N] its maximising rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from bounds.core.bound import Assumption, Bound, conditional
from bounds.interface.gap import SECTION, rounding, sup_bound, trivial_cap
from icq.display import Fact, Shown, spread
from icq.exact import Analysis
from icq.exact.fixed_point import solve


@dataclass(frozen=True)
class AgentRows(Shown):
    """The (state, option) rows of each agent, padded: every field has the agents that act on its first axis.

    agents: their indices; gap: |b| of each row; kernel: [n*R, n] discounted mass handed to each of them; real: not
    padding.
    """

    agents: Int[np.ndarray, "n"]
    gap: Float[np.ndarray, "n R"]
    kernel: sp.csr_array
    real: Bool[np.ndarray, "n R"]


def agent_rows(a: Analysis, gap: Float[np.ndarray, "S A"]) -> AgentRows:
    """Group available rows by acting agent.  O(outcomes) memory for the kernel, n times the largest group for `gap`."""
    agents, owner = np.unique(np.asarray(a.smdp.agent)[a.smdp.observation], return_inverse=True)
    count, states = len(agents), len(owner)
    lump = sp.csr_array((np.ones(states), owner, np.arange(states + 1)), shape=(states, count))
    rows = np.flatnonzero(a.oracle.available)
    group = owner[rows // gap.shape[1]]
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=count)
    width = int(sizes.max())
    place = np.empty(len(rows), np.int64)
    place[order] = group[order] * width + np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    scatter = sp.csr_array((np.ones(len(rows)), (place, rows)), shape=(count * width, gap.size))
    padded = np.zeros(count * width)
    padded[place] = np.abs(gap).reshape(-1)[rows]
    real = np.zeros(count * width, bool)
    real[place] = True
    kernel = sp.csr_array(scatter @ (a.oracle.kernel @ lump))
    return AgentRows(agents, padded.reshape(count, width), kernel, real.reshape(count, width))


@dataclass(frozen=True)
class AgentGap(Shown):
    """e [N], the matrix G* [N, N] of discounted masses and the gaps |b| [N] of the maximising rows; e's error.

    Agents that never act have zeros.  Ties between maximising rows are broken by the first row; e does not depend on
    the choice, the attribution may.
    """

    value: Float[np.ndarray, "N"]
    matrix: Float[np.ndarray, "N N"]
    gap: Float[np.ndarray, "N"]
    error: float

    @cached_property
    def attribution(self) -> Float[np.ndarray, "N N"]:
        """Lemma: A_ij = ((I - G*)^{-1})_ij |b|_j >= 0, with row sums e_i: what agent j's interface adds to e_i.

        e is convex in the gaps and A_ij is a subgradient: scaling agent j's gap by t changes e_i by at least
        (t - 1) A_ij, with equality to first order where the maximising rows are unique.  So A_ij is the most that
        agent i can gain when agent j's gap is removed.
        """
        resolvent = np.linalg.inv(np.eye(len(self.value)) - self.matrix)
        return resolvent * self.gap

    def _facts_(self) -> list[Fact]:
        worst = int(np.argmax(self.value)) if self.value.size else None
        return [Fact("agents", len(self.value)), Fact("certified gap", spread(self.value), "reward"),
                Fact("largest at agent", worst), Fact("local gap", spread(self.gap), "reward")]  # fmt: skip


def agent_gap_value(a: Analysis, gap: Float[np.ndarray, "S A"]) -> AgentGap:
    """Fixed point of e_i = max over S_i and available a of [|gap(s,a)| + sum_j K(S_j|s,a) e_j]; rung 3 has gap = b."""
    rows = agent_rows(a, gap)
    solution = solve(rows.gap, rows.kernel, rows.real)
    total, here = a.smdp.num_agents, rows.agents
    chosen = np.arange(len(here)) * rows.gap.shape[1] + solution.policy
    value, local, matrix = np.zeros(total), np.zeros(total), np.zeros((total, total))
    value[here], local[here] = solution.v, rows.gap.reshape(-1)[chosen]
    matrix[np.ix_(here, here)] = rows.kernel[chosen].toarray()
    return AgentGap(value, matrix, local, solution.error)


def agent_gap_bound(a: Analysis) -> Bound:
    """Rung 3: ||Q* - Qbar o phi||_inf <= max_i e_i, and |Q* - Qbar o phi|(s,a) <= e_i on S_i.  Rung 2 <= 3 <= 4."""
    e = agent_gap_value(a, a.local_gap)

    def compute() -> tuple[float, dict[str, float]]:
        return float(e.value.max()), {f"agent {i}": float(x) for i, x in enumerate(e.value)}

    roundoff = e.error + rounding(a.oracle, a.q_bar, a.q_bar) / (1 - a.gamma_bar)
    return sup_bound(a, "agent gap value", compute, f"{SECTION}, rung 3", roundoff)


def coupling(a: Analysis) -> tuple[Float[np.ndarray, "N N"], Float[np.ndarray, "N"]]:
    """G_ij = max over S_i and a of K(S_j|s,a), and the largest |b| of each agent."""
    rows = agent_rows(a, a.local_gap)
    count, width = rows.gap.shape
    largest = np.zeros((count, count))
    entries = rows.kernel.tocoo()
    np.maximum.at(largest, (entries.row // width, entries.col), entries.data)
    total, here = a.smdp.num_agents, rows.agents
    matrix, gap = np.zeros((total, total)), np.zeros(total)
    matrix[np.ix_(here, here)], gap[here] = largest, rows.gap.max(axis=1)
    return matrix, gap


def linear_agent_bound(a: Analysis) -> Bound:
    """Rung 3': ||Q* - Qbar o phi||_inf <= max_i ((I - G)^{-1} bvec)_i if the spectral radius rho(G) < 1.

    bvec_i = max of |b| over S_i.  At least rung 3; it may exceed rung 4, but not if ||G||_inf <= gbar.  rho(G) < 1 is
    proved on the computed numbers by a vector x > 0 with G x < x (Collatz-Wielandt).
    """
    matrix, gap = coupling(a)
    system = np.eye(len(gap)) - matrix
    radius = float(np.abs(np.linalg.eigvals(matrix)).max())
    try:
        test = np.linalg.solve(system, np.ones(len(gap)))
        proved = bool((test > 0).all() and (matrix @ test < test).all())
    except np.linalg.LinAlgError:
        proved = False
    margin = max(1 - radius, 0.0) if proved else min(1 - radius, 0.0)
    assumption = Assumption("rho(G) < 1", proved, margin, f"spectral radius of the agents' coupling {radius:.6g}")

    def compute() -> tuple[float, dict[str, float]]:
        value = np.linalg.solve(system, gap)
        return float(value.max()), {f"agent {i}": float(x) for i, x in enumerate(value)}

    # ||(I - G)^{-1}||_inf is the largest entry of `test`; the second part is the backward error of the linear solve.
    grown = float(test.max()) if proved else 0.0
    solve_error = 4 * len(gap) * float(np.finfo(float).eps) * (1 + matrix.sum(axis=1).max()) * grown * gap.max()
    roundoff = float(grown * (rounding(a.oracle, a.q_bar, a.q_bar) + solve_error))
    reference = f"{SECTION}, rung 3'"
    return conditional("linear agent gap", [assumption], compute, reference, trivial_cap(a), roundoff=roundoff)
