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
from numpy.lib.stride_tricks import as_strided
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from icq.display import Fact, Shown
from icq.exact.fixed_point import COMPILED_FROM, Compiled, affordable, band, compiled
from icq.reason import NoNumber, Reason

DENSE_LIMIT = 1000  # states; dense O(S^3) algebra up to here
SWEEP_LIMIT = 2000  # sweeps before another method is tried
SWEEP_GOAL = 1e-12  # largest step of a sweep, in units of the mean mass of a state
POLISH, CORRECTIONS, CORRECTION_GOAL = 3, 3, 1e-2
LAW_ACCURACY = 1e-8  # largest estimated error in the 1-norm of a law that counts as converged
ARNOLDI_WORK = 1_000_000  # restarts times states
ELIMINATION_ROUNDING = 10.0  # error of elimination per state in units of rounding, an estimate
_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Structure(Shown):
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

    def _facts_(self) -> list[Fact]:
        return [
            Fact("closed classes", len(self.closed)), Fact("transient states", len(self.transient)),
            Fact("period", self.period), Fact("", "; ".join(self.problems()) or "ergodic"),
        ]  # fmt: skip


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
class Stationary(Shown):
    """The stationary law `d` [S], how it was found, its residual ||d P - d||_1, and whether `method` converged.

    `error` estimates ||d - exact||_1 (docs/theory.md section 1, 1.9); NaN when nothing is known.
    """

    d: Float[np.ndarray, "S"]
    residual: float
    converged: bool
    error: float
    method: str

    @property
    def result(self) -> str:
        """`converged` or why not, with method, residual and estimated error."""
        how = "converged" if self.converged else "did not converge"
        return f"{self.method} {how}, residual {self.residual:.1e}, estimated error {self.error:.1e}"

    def _facts_(self) -> list[Fact]:
        return [Fact("states", len(self.d)), Fact("smallest mass", float(self.d.min())), Fact("", self.result)]


@dataclass(frozen=True)
class _Law:
    """A law on one closed class, its estimated error in the 1-norm, and whether it converged."""

    d: Float[np.ndarray, "S"]
    error: float
    converged: bool


def stationary(
    transition: sp.csr_array, chain: Structure, *, tolerance: float = 1e-14, max_iterations: int = 10_000
) -> Stationary:
    """The unique stationary law of a chain with one closed class: 0 on transient states, any period.

    Up to DENSE_LIMIT states elimination (Grassmann-Taksar-Heyman, no cancellation).  Beyond, accelerated sweeps, or
    where these are too slow, elimination in a band if the class has a narrow one, else lazy power iteration to
    `max_iterations`.  Raises NoNumber when there are several closed classes.
    """
    if len(chain.closed) != 1:
        raise NoNumber(Reason.SEVERAL_CLASSES, "; ".join(chain.problems()))
    states = chain.closed[0]
    whole = len(states) == transition.shape[0]
    inner = transition if whole else sp.csr_array(transition[states][:, states])
    method, law = _law(inner, tolerance, max_iterations)
    d = np.zeros(transition.shape[0])
    d[states] = law.d
    return Stationary(d, float(np.abs(transition.T @ d - d).sum()), law.converged, law.error, method)


def _law(p: sp.csr_array, tolerance: float, limit: int) -> tuple[str, _Law]:
    """Method and law of an irreducible chain, from the cheapest method that gets there."""
    size = p.shape[0]
    if size <= DENSE_LIMIT:
        return "elimination", _Law(_gth(p.toarray()), ELIMINATION_ROUNDING * size * _EPS, True)
    law = _swept(p, min(limit, SWEEP_LIMIT))
    if law.converged:
        return "accelerated sweeps", law
    order, width = band(p)
    if affordable(size, width):
        d = np.empty(size)
        d[order] = _gth_band(sp.csr_array(p[order][:, order]), width)
        return "elimination in a band", _Law(d, ELIMINATION_ROUNDING * size * _EPS, True)
    return "power iteration", _power(p, tolerance, limit)


def _gth(p: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S"]:
    """Stationary law by state reduction; only additions of non-negative numbers, so entrywise accurate."""
    p, size = p.copy(), len(p)
    if size >= COMPILED_FROM:
        compiled().reduce_states(p)
    else:
        for k in range(size - 1, 0, -1):
            p[:k, k] /= p[k, :k].sum()
            p[:k, :k] += np.outer(p[:k, k], p[k, :k])
    d = np.zeros(size)
    d[0] = 1.0
    for k in range(1, size):
        d[k] = d[:k] @ p[:k, k]
    return d / d.sum()


def _gth_band(p: sp.csr_array, width: int) -> Float[np.ndarray, "S"]:
    """`_gth` of a chain whose jumps are at most `width` long: reduction never leaves the band."""
    size, row = p.shape[0], 2 * width + 1
    coo = p.tocoo()
    stored = np.zeros(size * row)
    np.add.at(stored, coo.row.astype(np.int64) * row + (coo.col - coo.row + width), coo.data)

    def block(top: int, left: int, height: int, wide: int) -> Float[np.ndarray, "h w"]:
        """Entries (top + i, left + j), a view: entry (i, j) lies at 2 width i + j + width."""
        begin = top * (row - 1) + left + width
        return as_strided(stored[begin:], (height, wide), (8 * (row - 1), 8))

    for k in range(size - 1, 0, -1):
        low = max(k - width, 0)
        into, out = block(low, k, k - low, 1), block(k, low, 1, k - low)
        into /= out.sum()
        inner = block(low, low, k - low, k - low)
        inner += into * out
    d = np.zeros(size)
    d[0] = 1.0
    for k in range(1, size):
        low = max(k - width, 0)
        d[k] = d[low:k] @ block(low, k, k - low, 1)[:, 0]
        if d[k] > 1e200:
            d[: k + 1] *= 1e-200
    return d / d.sum()


def _swept(p: sp.csr_array, limit: int) -> _Law:
    """Gauss-Seidel sweeps of d = d P, accelerated when slow, then corrections of what is left of the residual.

    A correction e solves e = e P + residual, so it is the error itself up to its own error; the last one is reported.
    """
    size = p.shape[0]
    transpose = sp.csr_array(p.T)
    engine = Compiled(np.zeros((size, 1)), transpose, np.ones((size, 1), bool))
    loops = engine.loops
    loops.select(*engine.model, np.zeros((size, 1)), np.zeros(size), engine.policy)
    d, none = np.ones(size), np.zeros(size)
    done = loops.evaluate(engine.policy, none, np.inf, d, 0.0, SWEEP_GOAL, limit)
    d = np.maximum(d, 0.0)
    for _ in range(POLISH):  # small entries again, relative to themselves
        loops.sweep(engine.policy, none, np.inf, d)
    if not (done and np.isfinite(d).all() and d.min() > 0):
        return _Law(np.full(size, 1 / size), float("nan"), False)
    d /= d.sum()
    error = np.inf
    for _ in range(CORRECTIONS):
        e = np.zeros(size)
        residual = transpose @ d - d
        residual -= residual.sum() * d  # or there is no solution
        done = loops.evaluate(engine.policy, residual, np.inf, e, CORRECTION_GOAL, 0.0, limit)
        e -= e.sum() * d
        found, after = float(np.abs(e).sum()), d + e
        if not (done and found < 0.5 * error and after.min() > 0):
            break
        d, error = after / after.sum(), max(found, 4 * _EPS)
    return _Law(d, float(error) if np.isfinite(error) else float("nan"), bool(error <= LAW_ACCURACY))


def _power(p: sp.csr_array, tolerance: float, limit: int) -> _Law:
    """Power iteration of (I + P)/2, which has the same law and no period; the error from the rate it had."""
    transpose = sp.csr_array(p.T)
    d = np.full(p.shape[0], 1.0 / p.shape[0])
    past, rate, change = [np.inf] * 10, np.nan, np.inf
    for k in range(limit):
        after = 0.5 * (d + transpose @ d)
        after /= after.sum()
        change = float(np.abs(after - d).sum())
        if k >= 10 and change > 1e-13:  # below, rounding has no rate
            rate = (change / past[k % 10]) ** 0.1
        past[k % 10] = change
        d = after
        if change <= tolerance:
            break
    error = change * rate / (1 - rate) if rate < 1 else np.nan
    return _Law(d, float(error), change <= tolerance and not error > LAW_ACCURACY)


def slem(transition: sp.csr_array) -> float:
    """Second largest eigenvalue modulus; 1 for a periodic or multi-class chain.  NaN when ARPACK gives up.

    P' maps vectors of sum zero to such vectors, and there its eigenvalues are those of P without one eigenvalue 1.
    ARPACK looks for one of them; on a large random graph many have nearly the same modulus and it gives up.
    """
    size = transition.shape[0]
    if size == 1:
        return 0.0
    if size <= DENSE_LIMIT:
        return float(min(np.sort(np.abs(np.linalg.eigvals(transition.toarray())))[-2], 1.0))
    transpose = sp.csr_array(transition.T)

    def image(x: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "S"]:
        y = transpose @ x.reshape(-1)
        return y - y.mean()

    start = np.random.default_rng(0).random(size)  # or ARPACK starts somewhere new every time
    operator = LinearOperator((size, size), matvec=image, dtype=np.float64)
    effort = int(np.clip(ARNOLDI_WORK // size, 5, 200))
    options = {"k": 1, "which": "LM", "tol": 1e-8, "maxiter": effort, "ncv": min(40, size), "v0": start - start.mean()}
    try:
        value = eigs(operator, return_eigenvectors=False, **options)
    except ArpackNoConvergence:
        found = structure(transition)
        return float("nan") if len(found.closed) == 1 and found.aperiodic else 1.0
    return float(min(np.abs(value).max(), 1.0))


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
