"""Structure, stationary law and mixing of a finite Markov chain, float64.

Used on the embedded handoff chain P_beta (docs/theory.md section 1).  Nothing is averaged silently: several closed
classes, a period or an unconverged iteration are part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigs

DENSE_LIMIT = 1000  # states; dense O(S^3) algebra up to here


@dataclass(frozen=True)
class Structure:
    """Communicating structure of a chain.

    `closed`: the closed classes (state indices); `transient`: states in none of them; `period`: of each closed
    class.  The stationary law is unique exactly when there is one closed class.
    """

    closed: tuple[Int[np.ndarray, "_"], ...]
    transient: Int[np.ndarray, "_"]
    period: tuple[int, ...]

    @property
    def irreducible(self) -> bool:
        """One class holds every state."""
        return len(self.closed) == 1 and len(self.transient) == 0

    @property
    def aperiodic(self) -> bool:
        """Every closed class has period 1."""
        return all(p == 1 for p in self.period)

    def problems(self) -> list[str]:
        """What keeps the chain from being ergodic, in words; empty when it is."""
        out = []
        if len(self.closed) > 1:
            parts = "; ".join(_some(c) for c in self.closed[:4]) + ("; ..." if len(self.closed) > 4 else "")
            out.append(f"reducible: {len(self.closed)} closed classes {parts}, so the stationary law is not unique")
        if len(self.transient):
            out.append(f"reducible: {len(self.transient)} transient states {_some(self.transient)}")
        for states, p in zip(self.closed, self.period):
            if p > 1:
                out.append(f"periodic: the class {_some(states)} has period {p}")
        return out


def _some(states: Int[np.ndarray, "_"]) -> str:
    shown = ", ".join(map(str, states[:6]))
    return "{" + shown + (f", ... ({len(states)} states)" if len(states) > 6 else "") + "}"


def structure(transition: sp.csr_array) -> Structure:
    """Closed classes, transient states and periods of a row-stochastic matrix [S, S]."""
    graph = sp.csr_array(transition > 0)
    count, label = connected_components(graph, directed=True, connection="strong")
    coo = graph.tocoo()
    leaving = np.unique(label[coo.row][label[coo.row] != label[coo.col]])
    order = np.argsort(label, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(label, minlength=count))[:-1])
    closed = [members[c] for c in np.setdiff1d(np.arange(count), leaving)]
    closed.sort(key=lambda c: int(c[0]))
    inside = np.zeros(graph.shape[0], bool)
    for c in closed:
        inside[c] = True
    return Structure(tuple(closed), np.flatnonzero(~inside), tuple(_period(graph, c) for c in closed))


def _period(graph: sp.csr_array, states: Int[np.ndarray, "_"]) -> int:
    """gcd over edges u -> v of level(u) + 1 - level(v), levels by breadth-first search."""
    inner = sp.csr_array(graph[states][:, states])
    order, parent = breadth_first_order(inner, 0, directed=True)
    level = np.zeros(len(states), np.int64)
    for node in order[1:]:
        level[node] = level[parent[node]] + 1
    coo = inner.tocoo()
    cycles = np.unique(np.abs(level[coo.row] + 1 - level[coo.col]))
    return int(reduce(np.gcd, cycles, 0)) or 1


@dataclass(frozen=True)
class Stationary:
    """The stationary law `d` [S], its residual ||d P - d||_1, and whether the iteration converged."""

    d: Float[np.ndarray, "S"]
    residual: float
    converged: bool


def stationary(
    transition: sp.csr_array, chain: Structure, *, tolerance: float = 1e-14, max_iterations: int = 100_000
) -> Stationary:
    """The unique stationary law of a chain with one closed class: 0 on transient states, any period.

    Direct elimination (Grassmann-Taksar-Heyman, no cancellation) up to DENSE_LIMIT states of the class, lazy power
    iteration beyond.  Raises ValueError when there are several closed classes.
    """
    if len(chain.closed) != 1:
        raise ValueError("; ".join(chain.problems()))
    states = chain.closed[0]
    inner = sp.csr_array(transition[states][:, states])
    if len(states) <= DENSE_LIMIT:
        law, converged = _gth(inner.toarray()), True
    else:
        law, converged = _power(inner, tolerance, max_iterations)
    d = np.zeros(transition.shape[0])
    d[states] = law
    return Stationary(d, float(np.abs(transition.T @ d - d).sum()), converged)


def _gth(p: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S"]:
    """Stationary law by state reduction; only additions of non-negative numbers, so entrywise accurate."""
    p = p.copy()
    size = len(p)
    for k in range(size - 1, 0, -1):
        p[:k, k] /= p[k, :k].sum()
        p[:k, :k] += np.outer(p[:k, k], p[k, :k])
    d = np.zeros(size)
    d[0] = 1.0
    for k in range(1, size):
        d[k] = d[:k] @ p[:k, k]
    return d / d.sum()


def _power(p: sp.csr_array, tolerance: float, limit: int) -> tuple[Float[np.ndarray, "S"], bool]:
    """Power iteration of (I + P)/2, which has the same law and no period."""
    transpose = sp.csr_array(p.T)
    d = np.full(p.shape[0], 1.0 / p.shape[0])
    for _ in range(limit):
        after = 0.5 * (d + transpose @ d)
        after /= after.sum()
        change = np.abs(after - d).sum()
        d = after
        if change <= tolerance:
            return d, True
    return d, False


def slem(transition: sp.csr_array) -> float:
    """Second largest eigenvalue modulus; 1 for a periodic or multi-class chain.  NaN when ARPACK gives up."""
    size = transition.shape[0]
    if size == 1:
        return 0.0
    if size <= DENSE_LIMIT:
        values = np.linalg.eigvals(transition.toarray())
    else:
        start = np.random.default_rng(0).random(size)  # or ARPACK starts somewhere new every time
        options = {"k": 2, "which": "LM", "tol": 1e-8, "maxiter": 50, "ncv": 40, "v0": start}
        try:
            values = eigs(transition.T, return_eigenvectors=False, **options)
        except ArpackNoConvergence:
            return float("nan")
    return float(min(np.sort(np.abs(values))[-2], 1.0))


def deviation(transition: sp.csr_array, d: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S S"]:
    """Deviation matrix Z = (I - P + 1 d')^{-1} - 1 d' (dense): Z h solves the Poisson equation of h - d h."""
    size = len(d)
    ones = np.broadcast_to(d, (size, size))
    return np.linalg.inv(np.eye(size) - transition.toarray() + ones) - ones


def tv_curve(
    transition: sp.csr_array, d: Float[np.ndarray, "S"], times: Int[np.ndarray, "T"]
) -> Float[np.ndarray, "T"]:
    """max_s TV(P^t(s, .), d) at increasing times t >= 0 (dense)."""
    p, now, power, out = transition.toarray(), 0, np.eye(len(d)), []
    for t in times:
        power = power @ np.linalg.matrix_power(p, int(t) - now)
        now = int(t)
        out.append(0.5 * np.abs(power - d).sum(axis=1).max())
    return np.array(out)


def mixing_time(transition: sp.csr_array, d: Float[np.ndarray, "S"], epsilon: float = 0.25) -> float:
    """Exact worst-start mixing time min{t: max_s TV(P^t(s, .), d) <= epsilon} in handoffs.

    Infinite when 2^50 handoffs are not enough (periodic or several classes).  Dense, O(S^3 log t).
    Raises ValueError outside 0 < epsilon < 1.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon = {epsilon} is not inside (0, 1)")

    def far(power: Float[np.ndarray, "S S"]) -> bool:
        return bool(0.5 * np.abs(power - d).sum(axis=1).max() > epsilon)

    powers = [transition.toarray()]
    if not far(np.eye(len(d))):
        return 0.0
    while far(powers[-1]):
        if len(powers) > 50:
            return float("inf")
        square = powers[-1] @ powers[-1]
        powers.append(square / square.sum(axis=1, keepdims=True))  # or rounding doubles with every squaring
    # The largest t that is still far, binary digit by digit from the top.
    t, base = 0, np.eye(len(d))
    for k in range(len(powers) - 2, -1, -1):
        candidate = base @ powers[k]
        if far(candidate):
            base, t = candidate, t + 2**k
    return float(t + 1)
