"""One certified solver for every fixed point in the project.

The optimality equation Q = r + K max_a Q with a sub-stochastic kernel K has modulus gbar = max row sum of K < 1
(docs/theory.md section 1).  Oracle, interface model, policy evaluation (one option) and gap values are all
instances of it.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from icq.display import Fact, Shown, spread
from icq.reason import NoNumber, Reason

DIRECT_SOLVE_LIMIT = 1000  # states; beyond it a factorisation of a random graph fills in
COMPILED_FROM = 200  # states; below it importing the compiler costs more than it saves
SWEEPS = 1000  # of one policy evaluation
PROGRESS, PATIENCE = 0.9, 1000  # without this decrease of the residual in so many policies, plain value iteration
ENVELOPE, WORK = 30_000_000, 1e10  # entries and operations up to which a factorisation in a band is affordable
_Step: TypeAlias = tuple[np.ndarray, np.ndarray, float, float]
FEW, MANY = 0.001, 0.1  # shares of states whose option changed
_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Solution(Shown):
    """A fixed point with its own error certificate.

    `error` bounds ||q - exact||_inf (and so ||v - exact||_inf), rounding included.  `q` is 0 where an option is
    unavailable.  `converged` is False when the iteration limit was reached first; `error` is valid all the same.
    """

    q: Float[np.ndarray, "S A"]
    v: Float[np.ndarray, "S"]
    policy: Int[np.ndarray, "S"]
    error: float
    iterations: int
    converged: bool

    @property
    def result(self) -> str:
        """`converged` or why not, with the certified error."""
        how = "converged" if self.converged else "did not converge"
        return f"{how} after {self.iterations} iterations, error <= {self.error:.2e}"

    def _facts_(self) -> list[Fact]:
        return [
            Fact("states", len(self.v)), Fact("options", self.q.shape[1]), Fact("values", spread(self.v), "reward"),
            Fact("", self.result),
        ]  # fmt: skip


def greedy(
    q: Float[np.ndarray, "S A"], available: Bool[np.ndarray, "S A"]
) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """The first maximising available option of each row, and the maximum."""
    masked = np.where(available, q, -np.inf)
    policy = masked.argmax(axis=1)
    return policy, masked[np.arange(len(q)), policy]


def unit_of(size: float) -> int:
    """e with size/2 < 2^e <= size up to rounding, 0 for 0 and for what is not finite: numbers over 2^e are of size 1.

    Scaling by a power of two changes no digit.
    """
    return int(np.frexp(size)[1]) - 1 if size > 0 and np.isfinite(size) else 0


def root_sum(weight: Float[np.ndarray, "*n"], x: Float[np.ndarray, "*n"]) -> float:
    """(sum weight x^2)^{1/2}, whatever the size of x: no square overflows or falls to 0."""
    unit = unit_of(float(np.abs(x).max(initial=0.0)))
    return float(np.ldexp(np.sqrt((weight * np.ldexp(x, -unit) ** 2).sum()), unit))


def modulus(kernel: sp.csr_array) -> float:
    """gbar: the largest row sum of a non-negative kernel; a row is one (state, option) pair."""
    return float(kernel.sum(axis=1).max())


def compiled() -> ModuleType:
    """The compiled loops `icq.exact.loops`, loaded when first used: small instances never wait for the compiler."""
    return import_module("icq.exact.loops")


def solve(
    reward: Float[np.ndarray, "S A"],
    kernel: sp.csr_array,
    available: Bool[np.ndarray, "S A"],
    *,
    near: Int[np.ndarray, "S"] | None = None,
    tolerance: float = 1e-13,
    max_iterations: int = 100_000,
) -> Solution:
    """Solve Q = reward + kernel max_a Q by safeguarded policy iteration (docs/theory.md section 1, Lemma 1.9).

    kernel: [S*A, S] sub-stochastic, zero rows for unavailable options.  near: options that may be optimal, as those of
    a similar problem: below COMPILED_FROM states one linear solve is all if they are.  `tolerance` is relative to the
    scale max|reward|/(1 - gbar); rewards are scaled to size 1 by a power of two first.  Certificate: with Q = r + K v
    and v' = max_a Q, ||Q - Q*||_inf <= gbar ||v' - v||_inf / (1 - gbar), plus a bound on rounding.
    From COMPILED_FROM states on the loops are compiled; the certificate is the same.
    Raises NoNumber when the modulus is not below 1 by more than rounding, ValueError when a reward is not finite, a
    value leaves the range of a double, or a state has no option.
    """
    lost = np.flatnonzero(~available.any(axis=1))
    if len(lost):
        raise ValueError(f"state {lost[0]} has no available option, so it has no value")
    reward = np.where(available, reward, 0.0)
    if not np.isfinite(reward).all():
        raise ValueError("the reward of an available option is not finite")
    unit = unit_of(float(np.abs(reward).max()))
    reward = np.ldexp(reward, -unit)
    engine = (_Plain if len(reward) < COMPILED_FROM else Compiled)(reward, kernel, available)
    gbar, width, largest = engine.measure()
    rest = 1 - gbar - width * _EPS  # what the sums of a row may have lost included
    if gbar >= 1 or rest <= 0:
        raise NoNumber(Reason.NO_DISCOUNT, f"the largest expected discount is {gbar!r}", "choose gamma further below 1")
    scale = largest / rest
    if near is not None and len(near) < COMPILED_FROM:
        v = _value(reward, kernel, near)
    else:
        _, v = engine.greedy(reward)
    best: float = np.inf
    least: float = np.inf
    idle, iteration = 0, 0
    while True:
        q, v_next, change, size = engine.improve(v)
        loss = (width + 2) * _EPS
        rounding = loss * (largest + gbar * size)
        error = (gbar * change + rounding) / rest
        goal = max(tolerance * largest, rounding)
        # What an evaluation loses may exceed the rounding of one step: then as soon as nothing more is gained.
        enough = goal if change < 0.5 * least else max(goal, loss * scale)
        least = min(least, change)
        converged = gbar * change <= enough and np.isfinite(error)
        if converged or iteration >= max_iterations:
            policy = engine.greedy(q)[0]
            return _in_units(unit, Solution(q, v_next, policy, float(error), iteration, bool(converged)))
        iteration += 1
        best, idle = (change, 0) if change <= PROGRESS * best else (best, idle + 1)
        v = v_next if idle > PATIENCE else engine.evaluate(q, v_next, 0.3 * goal)


def _in_units(unit: int, x: Solution) -> Solution:
    """The solution times 2^unit."""
    with np.errstate(over="ignore"):
        q, v, error = (np.ldexp(part, unit) for part in (x.q, x.v, np.float64(x.error)))
    if not (np.isfinite(q).all() and np.isfinite(error)):
        raise ValueError("values leave the range of double precision: give rewards in a larger unit")
    lost = float(error) + (np.finfo(np.float64).smallest_subnormal if unit < -900 and x.error > 0 else 0.0)
    return replace(x, q=q, v=v, error=lost)


class _Plain:
    """One greedy step and one policy evaluation in NumPy and SciPy: the reference of the compiled loops."""

    def __init__(
        self, reward: Float[np.ndarray, "S A"], kernel: sp.csr_array, available: Bool[np.ndarray, "S A"]
    ) -> None:
        self.reward, self.kernel, self.available = reward, kernel, available
        self.policy: Int[np.ndarray, "S"] = np.full(len(reward), -1)

    def measure(self) -> tuple[float, int, float]:
        """(gbar, most entries in a row, largest |reward| of an available option)."""
        width = int(np.diff(self.kernel.indptr).max(initial=0))
        return modulus(self.kernel), width, float(np.abs(self.reward[self.available]).max(initial=0.0))

    def greedy(self, q: Float[np.ndarray, "S A"]) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
        """The first maximising option and the maximum."""
        return greedy(q, self.available)

    def improve(self, v: Float[np.ndarray, "S"]) -> _Step:
        """Greedy step: (q, v_next, max |v_next - v|, max |v|)."""
        q = np.where(self.available, self.reward + (self.kernel @ v).reshape(self.reward.shape), 0.0)
        _, v_next = greedy(q, self.available)
        return q, v_next, float(np.abs(v_next - v).max()), float(np.abs(v).max())

    def evaluate(self, q: Float[np.ndarray, "S A"], v: Float[np.ndarray, "S"], goal: float) -> Float[np.ndarray, "S"]:
        """The value of the greedy policy of q, by elimination."""
        rows, (policy, _) = np.arange(len(q)), greedy(q, self.available)
        return splu(_system(self.kernel[rows * q.shape[1] + policy])).solve(self.reward[rows, policy])


def band(kernel: sp.csr_array) -> tuple[Int[np.ndarray, "S"], int]:
    """An order of the states that keeps neighbours close (Cuthill and McKee), and the largest |i - j| of an edge in it.

    Chains with a small band are exactly those on which iterations are slowest: lines, rings, grids.
    """
    order = reverse_cuthill_mckee(kernel)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    coo = kernel.tocoo()
    return order, int(np.abs(place[coo.row] - place[coo.col]).max(initial=0))


def affordable(states: int, width: int) -> bool:
    """Whether elimination in a band of this half width fits memory and patience."""
    return states * (2 * width + 1) <= ENVELOPE and states * float(width) ** 2 <= WORK


def _factorised(kernel: sp.csr_array, reward: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"] | None:
    """The solution of v = reward + kernel v by elimination; None where its fill could be too much."""
    if len(reward) <= DIRECT_SOLVE_LIMIT:
        return splu(_system(kernel)).solve(reward)
    order, width = band(kernel)
    if not affordable(len(reward), width):
        return None
    v = np.empty(len(reward))
    inner = sp.csr_array(kernel[order][:, order])
    v[order] = splu(_system(inner), permc_spec="NATURAL", diag_pivot_thresh=0.0).solve(reward[order])
    return v


def _value(
    reward: Float[np.ndarray, "S A"], kernel: sp.csr_array, policy: Int[np.ndarray, "S"]
) -> Float[np.ndarray, "S"]:
    """The value of a policy by a dense solve, which for few states is the fastest."""
    rows, dense = np.arange(len(policy)), kernel.toarray()
    return np.linalg.solve(np.eye(len(policy)) - dense[rows * reward.shape[1] + policy], reward[rows, policy])


def _system(kernel: sp.csr_array) -> sp.csc_array:
    return sp.csc_array(sp.eye_array(kernel.shape[1]) - kernel)


class Compiled:
    """The same two steps in one pass over memory each; the matrix of the policy is kept and only changed rows move."""

    def __init__(
        self, reward: Float[np.ndarray, "S A"], kernel: sp.csr_array, available: Bool[np.ndarray, "S A"]
    ) -> None:
        states, options, loops = *reward.shape, compiled()
        starts, columns = (index.astype(np.int32, copy=False) for index in (kernel.indptr, kernel.indices))
        self.loops, self.kernel = loops, kernel
        self.rows = loops.SparseRows(starts, columns.view(np.uint32), np.ascontiguousarray(kernel.data, np.float64))
        self.model = self.rows, np.ascontiguousarray(reward, np.float64), np.ascontiguousarray(available)
        start = np.empty(states, np.int64)
        room = loops.slots(starts, options, start)
        self.policy = loops.Policy(
            option=np.full(states, -1), start=start, stop=start.copy(), column=np.empty(room, np.uint32),
            weight=np.empty(room), inverse=np.empty(states), reward=np.empty(states), column_sum=np.zeros(states),
        )  # fmt: skip
        self.q, self.spare = np.empty(reward.shape), (np.empty(states), np.empty(states))
        self.hard = False  # iterations have failed here before

    def measure(self) -> tuple[float, int, float]:
        """(gbar, most entries in a row, largest |reward| of an available option)."""
        return self.loops.measure(*self.model)

    def greedy(self, q: Float[np.ndarray, "S A"]) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
        """The first maximising option and the maximum."""
        policy, v = np.empty(len(q), np.int64), np.empty(len(q))
        self.loops.first_best(np.ascontiguousarray(q, np.float64), self.model[2], policy, v)
        return policy, v

    def improve(self, v: Float[np.ndarray, "S"]) -> _Step:
        """Greedy step: (q, v_next, max |v_next - v|, max |v|)."""
        v_next = self.spare[0] if v is not self.spare[0] else self.spare[1]
        change, size = self.loops.improve(*self.model, v, self.q, v_next)
        return self.q, v_next, change, size

    def evaluate(self, q: Float[np.ndarray, "S A"], v: Float[np.ndarray, "S"], goal: float) -> Float[np.ndarray, "S"]:
        """The value of the greedy policy of q from v: roughly while the policy still moves, then to `goal`."""
        moved, mass = self.loops.select(*self.model, q, v, self.policy)
        share = moved / len(v)
        relative = 0.0 if share <= FEW else 0.1 if share > MANY else 0.01
        if not self.hard:
            for constant in (mass, np.inf):  # should the constant shift do harm, go on without it
                out = v.copy()
                if self.loops.evaluate(self.policy, self.policy.reward, constant, out, relative, goal, SWEEPS):
                    return out
        rows = np.arange(len(v)) * q.shape[1] + self.policy.option
        exact = _factorised(self.kernel[rows], self.policy.reward)
        self.hard = exact is not None
        if exact is not None:
            return exact
        return out if np.isfinite(out).all() else v
