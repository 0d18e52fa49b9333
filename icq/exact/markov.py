"""Structure, stationary law and mixing of a finite Markov chain, float64.

Used on the embedded handoff chain P_beta (docs/theory.md section 1).  Nothing is averaged silently: several closed
classes, a period or an unconverged iteration are part of the answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from icq.display import Fact, Shown
from icq.exact.elimination import Mass, eliminate
from icq.exact.fixed_point import Compiled, affordable, band
from icq.reason import NoNumber, Reason

DENSE_LIMIT = 1000  # states; dense O(S^3) algebra up to here
SWEEP_LIMIT = 2000  # sweeps before another method is tried
SWEEP_GOAL = 1e-12  # largest step of a sweep, in units of the mean mass of a state
POLISH, CORRECTIONS, CORRECTION_GOAL = 3, 3, 1e-2
LAW_ACCURACY = 1e-8  # largest estimated error in the 1-norm of a law that counts as converged
DEVIATION_ACCURACY = 1e-6  # relative, of a deviation matrix that is used
ARNOLDI_WORK = 1_000_000  # restarts times states
PROBE_GOAL = 1e-3  # of the size of a probe, to which its solution is found
STRONG = 1e-6  # of the largest entry in a row: weaker edges do not lead a search
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

    def problems(self, names: Sequence[Hashable] = ()) -> list[str]:
        """What keeps the chain from being ergodic, in words; empty when it is.  names: of the states, if any."""
        out = []
        if len(self.closed) > 1:
            parts = "; ".join(_some(c, names) for c in self.closed[:4]) + ("; ..." if len(self.closed) > 4 else "")
            out.append(f"reducible: {len(self.closed)} closed classes {parts}, so the stationary law is not unique")
        if len(self.transient):
            out.append(f"reducible: {len(self.transient)} transient states {_some(self.transient, names)}")
        for states, p in zip(self.closed, self.period):
            if p > 1:
                out.append(f"periodic: the class {_some(states, names)} has period {p}")
        return out

    def _facts_(self) -> list[Fact]:
        return [
            Fact("closed classes", len(self.closed)), Fact("transient states", len(self.transient)),
            Fact("period", self.period), Fact("", "; ".join(self.problems()) or "ergodic"),
        ]  # fmt: skip


def _some(states: Int[np.ndarray, "_"], names: Sequence[Hashable] = ()) -> str:
    shown = ", ".join(repr(names[s]) if s < len(names) else str(s) for s in states[:6])
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

    `converged`: finite, normalised, of small residual and of small `error`, which estimates ||d - exact||_1
    (docs/theory.md section 1, 1.9); NaN when nothing is known.  log_d [S]: finite also where d is 0 in double
    precision, -inf on transient states.
    """

    d: Float[np.ndarray, "S"]
    log_d: Float[np.ndarray, "S"]
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
    """A law on one closed class, its estimated error in the 1-norm, and whether the method got there."""

    mass: Mass
    error: float
    done: bool


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
    d, log_d = np.zeros(transition.shape[0]), np.full(transition.shape[0], -np.inf)
    d[states], log_d[states] = law.mass.d, law.mass.log_d
    residual = float(np.abs(transition.T @ d - d).sum())
    good = np.isfinite(law.mass.log_d).all() and (d >= 0).all() and abs(d.sum() - 1) <= LAW_ACCURACY
    small = residual <= LAW_ACCURACY and law.error <= LAW_ACCURACY
    return Stationary(d, log_d, residual, bool(law.done and good and small), law.error, method)


def _law(p: sp.csr_array, tolerance: float, limit: int) -> tuple[str, _Law]:
    """Method and law of an irreducible chain, from the cheapest method that gets there."""
    size = p.shape[0]
    if size <= DENSE_LIMIT:
        return "elimination", _Law(*eliminate(p), True)
    law = _swept(p, min(limit, SWEEP_LIMIT))
    if law.done:
        return "accelerated sweeps", law
    order, width = band(p)
    if affordable(size, width):
        found, error = eliminate(sp.csr_array(p[order][:, order]), width)
        place = np.argsort(order)
        return "elimination in a band", _Law(Mass(found.d[place], found.log_d[place]), error, True)
    return "power iteration", _power(p, tolerance, limit)


def _mass(d: Float[np.ndarray, "S"]) -> Mass:
    with np.errstate(divide="ignore", invalid="ignore"):
        return Mass(d, np.log(d))


def _split(p: sp.csr_array, d: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
    """A change of d, of sum 0, that moves mass between two halves of the chain, 1 in the 1-norm.

    The halves are the ends of a search along strong edges, so that a wall inside the chain lies between them.
    """
    heaviest = p.max(axis=1).toarray().reshape(-1)
    strong = p.copy()
    strong.data = np.where(p.data >= STRONG * np.repeat(heaviest, np.diff(p.indptr)), p.data, 0.0)
    strong.eliminate_zeros()
    order = breadth_first_order(strong, 0, directed=True, return_predecessors=False)
    place = np.full(len(d), len(d))
    place[order] = np.arange(len(order))
    order = np.argsort(place, kind="stable")
    half = np.zeros(len(d), bool)
    half[order[: max(int(np.searchsorted(np.cumsum(d[order]), 0.5)), 1)]] = True
    weight = d[half].sum()
    change = np.where(half, d / weight, -d / max(1 - weight, _EPS))
    change -= change.sum() * d
    return change / np.abs(change).sum()


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
        return _Law(_mass(np.full(size, 1 / size)), float("nan"), False)
    d /= d.sum()

    def solved(change: Float[np.ndarray, "S"], goal: float) -> Float[np.ndarray, "S"] | None:
        """e = e P + change, which must sum to 0."""
        e = np.zeros(size)
        if not loops.evaluate(engine.policy, change, np.inf, e, goal, 0.0, limit):
            return None
        return e - e.sum() * d

    error = np.inf
    for _ in range(CORRECTIONS):
        residual = transpose @ d - d
        residual -= residual.sum() * d  # or there is no solution
        e = solved(residual, CORRECTION_GOAL)
        if e is None or not (found := float(np.abs(e).sum())) < 0.5 * error or (d + e).min() <= 0:
            break
        d, error = (d + e) / (d + e).sum(), max(found, 4 * _EPS)
    # A residual below rounding does not tell how mass is shared across a wall; how a probe across it grows does.
    grown = solved(_split(p, d), PROBE_GOAL)
    error = max(error, _EPS * float(np.abs(grown).sum())) if grown is not None else np.nan
    return _Law(_mass(d), float(error) if np.isfinite(error) else float("nan"), bool(error <= LAW_ACCURACY))


def _power(p: sp.csr_array, tolerance: float, limit: int) -> _Law:
    """Power iteration of (I + P)/2, which has the same law and no period; the error from the rate it had, and from a
    second start, since what does not move at all has no rate.
    """  # fmt: skip
    transpose = sp.csr_array(p.T)
    even = np.full(p.shape[0], 1.0 / p.shape[0])
    x = np.column_stack([even, np.maximum(even + 0.5 * _split(p, even), 0.0)])
    past, rate, change = [np.inf] * 10, np.nan, np.inf
    for k in range(limit):
        after = 0.5 * (x + transpose @ x)
        after /= after.sum(axis=0)
        change = float(np.abs(after - x).sum(axis=0).max())
        if k >= 10 and change > 1e-13:  # below, rounding has no rate
            rate = (change / past[k % 10]) ** 0.1
        past[k % 10] = change
        x = after
        if change <= tolerance:
            break
    apart = float(np.abs(x[:, 0] - x[:, 1]).sum())
    error = max(change * rate / (1 - rate), apart) if rate < 1 else apart
    return _Law(_mass(x[:, 0]), float(error), change <= tolerance and apart <= LAW_ACCURACY)


def slem(transition: sp.csr_array, log_d: Float[np.ndarray, "S"] | None = None) -> float:
    """Second largest eigenvalue modulus; 1 for a periodic or multi-class chain.  NaN when ARPACK gives up.

    log_d: logarithms of the law.  D^{1/2} P D^{-1/2} has the same eigenvalues, and entries of at most P_ij^{1/2}, since
    d_j >= d_i P_ij; it is symmetric for a reversible chain, where those of P itself may be rounding.

    P' maps vectors of sum zero to such vectors, and there its eigenvalues are those of P without one eigenvalue 1.
    ARPACK looks for one of them; on a large random graph many have nearly the same modulus and it gives up.
    """
    size = transition.shape[0]
    if size == 1:
        return 0.0
    if size <= DENSE_LIMIT:
        if log_d is not None and np.isfinite(log_d).all():
            coo = transition.tocoo()
            coo.data = coo.data * np.exp((log_d[coo.row] - log_d[coo.col]) / 2)
            transition = coo.tocsr()
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
    """Deviation matrix Z = (I - P + 1 d')^{-1} - 1 d' (dense): Z h solves the Poisson equation of h - d h.

    Raises NoNumber where the chain is so slow that rounding takes its digits.
    """
    ones = np.broadcast_to(d, (len(d), len(d)))
    whole = np.eye(len(d)) - transition.toarray() + ones
    try:
        inverse = np.linalg.inv(whole)
        lost = float(np.abs(whole @ inverse - np.eye(len(d))).sum(axis=1).max())
    except np.linalg.LinAlgError:
        lost = float("inf")
    if not lost <= DEVIATION_ACCURACY:
        raise NoNumber(Reason.TOO_SLOW, f"relative error {lost:.1e}")
    return inverse - ones


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
