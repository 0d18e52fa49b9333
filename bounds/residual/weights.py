"""Weights for the Lyapunov function of section 5b: V = E (theta - theta*)'W(theta - theta*).

The preconditioner itself, W = M, always works while kappa_F < 1.  It charges every direction with the worst drift,
1 - kappa_F, which few directions have.  A weight that solves a Riccati equation charges each direction with its own.
Letters: docs/theory.md section 5b; theta-coordinates, N = Psi'D Khat [p, O], G = Psi'D Psi.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.linalg as la
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from bounds.residual.population import Population
from icq.display import Shown

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Weight(Shown):
    """W [p, p], symmetric positive definite, with a certified `rate`.

    (theta - theta*)'W M^{-1} E_d[psi delta] <= -rate ||Q - Q_F||_d^2 for every theta; no drift where it is <= 0.
    """

    matrix: Float[np.ndarray, "p p"]
    rate: float


def own_weight(pop: Population) -> Weight:
    """Lemma (drift): W = M has the rate 1 - kappa_F, whatever M."""
    return Weight(pop.metric, 1 - pop.kappa)


def certified_rate(pop: Population, matrix: Float[np.ndarray, "p p"], multipliers: Float[np.ndarray, "O"]) -> float:
    """Lemma (certified_rate): a rate of the weight W, for any positive multipliers lambda(o).

    Half the least eigenvalue, relative to G, of Y G + G Y' - Y N Lambda^{-1} N'Y' - sum_o lambda(o) sum_a psi psi' with
    Y = W M^{-1}: by 2 u'omega <= sum u(o)^2/lambda(o) + lambda(o) omega(o)^2 and omega(o)^2 <= sum_a (psi(o,a)'(theta -
    theta*))^2.  Minus what its computation may have lost; -infinity where a number overflows.
    """
    gram, n, cover = _parts(pop, multipliers)
    y = np.linalg.solve(pop.metric, matrix).T
    moved = y @ n / np.sqrt(multipliers)
    form = y @ gram + gram @ y.T - moved @ moved.T - cover
    if not np.isfinite(form).all():
        return -np.inf
    values = la.eigh((form + form.T) / 2, gram, eigvals_only=True)
    size = float(np.abs(values).max() + np.linalg.norm(y, 2) + np.linalg.norm(la.solve(gram, cover), 2))
    return float(values[0] - 100 * len(matrix) * _EPS * size) / 2


def _parts(
    pop: Population, multipliers: Float[np.ndarray, "O"]
) -> tuple[Float[np.ndarray, "p p"], Float[np.ndarray, "p O"], Float[np.ndarray, "p p"]]:
    """G, N and sum_o lambda(o) sum_a psi(o,a) psi(o,a)'."""
    options = pop.q_f.shape[1]
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    onward = pop.psi.T @ (pop.d[:, None] * pop.analysis.interface.kernel.toarray())
    return gram, onward, pop.psi.T @ (np.repeat(multipliers, options)[:, None] * pop.psi)


def riccati_weight(pop: Population, multipliers: Float[np.ndarray, "O"]) -> Float[np.ndarray, "p p"] | None:
    """A W > 0 with W A + A'W = W B Lambda^{-1} B'W + sum lambda psi psi' + G, A = M^{-1}G, B = M^{-1}N.

    It makes the form of `certified_rate` equal to G, so its rate is 1/2.  None where there is none.
    """
    gram, n, cover = _parts(pop, multipliers)
    root = np.linalg.cholesky(gram)  # coordinates in which G = I

    def inner(x: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p p"]:
        half = la.solve_triangular(root, x, lower=True)
        return la.solve_triangular(root, half.T, lower=True).T

    a = root.T @ np.linalg.solve(pop.metric, root)
    b = root.T @ np.linalg.solve(pop.metric, n / np.sqrt(multipliers))
    constant = np.eye(len(gram)) + inner(cover)
    if np.allclose(a, np.eye(len(a)), rtol=0.0, atol=1e-10):
        solved = _unit_riccati(b @ b.T, constant)
        if solved is None or not _solves(solved, a, b @ b.T, constant):
            return None
    else:
        solved = riccati(a, b @ b.T, constant)
        if solved is None:
            return None
    return root @ ((solved + solved.T) / 2) @ root.T


def riccati(
    a: Float[np.ndarray, "p p"], s: Float[np.ndarray, "p p"], q: Float[np.ndarray, "p p"]
) -> Float[np.ndarray, "p p"] | None:
    """The positive definite X with X A + A'X = X S X + Q that makes A - S X stable for the equation x' = -(A - S X) x.

    From the invariant subspace of the Hamiltonian matrix; None where there is none, or the equation is not met.
    """
    n = len(a)
    if not all(np.isfinite(x).all() for x in (a, s, q)):
        return None
    try:
        _, basis, stable = la.schur(np.block([[a, -s], [q, -a.T]]), output="real", sort="rhp")
        found = np.linalg.solve(basis[:n, :n].T, basis[n:, :n].T).T
    except np.linalg.LinAlgError:  # an eigenvalue on the border
        return None
    if stable != n:
        return None
    found = (found + found.T) / 2
    return found if _solves(found, a, s, q) else None


def _solves(
    x: Float[np.ndarray, "p p"], a: Float[np.ndarray, "p p"], s: Float[np.ndarray, "p p"], q: Float[np.ndarray, "p p"]
) -> bool:
    """Whether X is positive definite and X A + A'X = X S X + Q, which a solver may not have managed."""
    if not np.isfinite(x).all():
        return False
    residual = x @ a + a.T @ x - x @ s @ x - q
    return bool(np.linalg.eigvalsh(x)[0] > 0 and np.abs(residual).max() <= 1e-6 * np.abs(q).max())


def _unit_riccati(s: Float[np.ndarray, "p p"], q: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p p"] | None:
    """X with 2 X = X S X + Q: Q^{1/2} f(Q^{1/2} S Q^{1/2}) Q^{1/2}, f(t) = 1/(1 + sqrt(1 - t))."""
    values, vectors = np.linalg.eigh(q)
    half = (vectors * np.sqrt(values)) @ vectors.T
    t, basis = np.linalg.eigh(half @ s @ half)
    if t[-1] >= 1:
        return None
    return half @ ((basis / (1 + np.sqrt(1 - np.maximum(t, 0.0)))) @ basis.T) @ half


@lru_cache(maxsize=4)
def sharp_weight(pop: Population) -> Weight:
    """The Riccati weight with multipliers lambda = c m(o) that makes tr(W M^{-1}(Sigma_0 + Sigma_mix)M^{-1}) least.

    Falls back on W = M where no c gives a Riccati solution with a better quotient of noise and rate.
    """
    inverse = np.linalg.inv(pop.metric)
    noise = inverse @ (pop.sigma_0 + pop.sigma_mix) @ inverse
    own = own_weight(pop)
    noise /= float(np.sum(own.matrix * noise)) or 1.0  # only what is least is asked, whatever the unit of rewards
    best, least = own, float(np.sum(own.matrix * noise)) / own.rate if own.rate > 0 else np.inf

    def level(log_c: float) -> float:
        nonlocal best, least
        multipliers = np.exp(log_c) * pop.least_mass
        matrix = riccati_weight(pop, multipliers)
        if matrix is None:
            return 1e3 * (1 + abs(log_c - 1))
        weight = Weight(matrix, certified_rate(pop, matrix, multipliers))
        value = float(np.sum(matrix * noise)) / weight.rate if weight.rate > 0 else np.inf
        if value < least:
            best, least = weight, value
        return min(float(np.log(max(value, 1e-300))), 1e3)

    for low, high in ((-3.0, 1.0), (0.0, 4.0)):
        minimize_scalar(level, bounds=(low, high), method="bounded", options={"xatol": 0.05, "maxiter": 12})
    return best
