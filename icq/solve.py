"""One certified solver for every fixed point in the project.

The optimality equation Q = r + K max_a Q with a sub-stochastic kernel K has modulus gbar = max row sum of K < 1
(docs/theory.md section 1).  Oracle, interface model, policy evaluation (one option) and gap values are all
instances of it.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.linalg import splu

DIRECT_SOLVE_LIMIT = 1000  # states; beyond it a factorisation of a random graph fills in
_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Solution:
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


def greedy(
    q: Float[np.ndarray, "S A"], available: Bool[np.ndarray, "S A"]
) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """The first maximising available option of each row, and the maximum."""
    masked = np.where(available, q, -np.inf)
    policy = masked.argmax(axis=1)
    return policy, masked[np.arange(len(q)), policy]


def modulus(kernel: sp.csr_array) -> float:
    """gbar: the largest row sum of a non-negative kernel; a row is one (state, option) pair."""
    return float(kernel.sum(axis=1).max())


def solve(
    reward: Float[np.ndarray, "S A"],
    kernel: sp.csr_array,
    available: Bool[np.ndarray, "S A"],
    *,
    tolerance: float = 1e-13,
    max_iterations: int = 100_000,
) -> Solution:
    """Solve Q = reward + kernel max_a Q by policy iteration (exact evaluation when small, sweeps when large).

    kernel: [S*A, S] sub-stochastic, zero rows for unavailable options.  `tolerance` is relative to the scale
    max|reward|/(1 - gbar).  Certificate: with Q = r + K v and v' = max_a Q,
    ||Q - Q*||_inf <= gbar ||v' - v||_inf / (1 - gbar), plus a bound on rounding.
    Raises ValueError when the modulus is not below 1.
    """
    states, options = reward.shape
    gbar = modulus(kernel)
    if gbar >= 1:
        raise ValueError(f"the largest expected discount is {gbar}, it must be below 1")
    scale = np.abs(reward[available]).max(initial=0.0) / (1 - gbar)
    width = int(np.diff(kernel.indptr).max(initial=0)) + 2
    v = np.zeros(states)
    rows = np.arange(states)
    iteration = 0
    while True:
        q = np.where(available, reward + (kernel @ v).reshape(states, options), 0.0)
        policy, v_next = greedy(q, available)
        change = float(np.abs(v_next - v).max())
        rounding = width * _EPS * scale
        error = (gbar * change + rounding) / (1 - gbar)
        converged = gbar * change <= max(tolerance * scale * (1 - gbar), rounding)
        if converged or iteration >= max_iterations:
            return Solution(q, v_next, policy, error, iteration, bool(converged))
        iteration += 1
        chosen = kernel[rows * options + policy]
        r = reward[rows, policy]
        if states <= DIRECT_SOLVE_LIMIT:
            v = splu(sp.csc_array(sp.eye_array(states) - chosen)).solve(r)
        else:
            v = _sweep(chosen, r, v_next)


def _sweep(
    kernel: sp.csr_array, reward: Float[np.ndarray, "S"], v: Float[np.ndarray, "S"], limit: int = 50
) -> Float[np.ndarray, "S"]:
    """Value sweeps of one policy, until they shrink the first change tenfold or `limit` is reached."""
    first = None
    for _ in range(limit):
        after = reward + kernel @ v
        change = float(np.abs(after - v).max())
        v = after
        first = change if first is None else first
        if change <= 0.1 * first:
            break
    return v
