"""The sector of the maximum: how far apart two greedy values can be, and what a weight makes of it.

A class {offset + Psi theta} with the preconditioner M; G = Psi'D Psi, N = Psi'D Khat [p, O].  C e holds the means of
Psi e over the available options of every observation, P = Psi'D (Psi - Khat C).  A change of the greedy values is omega
= C e + u, and u is small where the options of an observation move alike: u(o)^2 <= (1 - 1/n_o) sum_a (deviation of
option a from the mean)^2.  Letters: docs/theory.md sections 4, 5b and 5e.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg as la
from jaxtyping import Bool, Float

from icq.display import Fact, Shown
from icq.exact import Analysis

_EPS = float(np.finfo(np.float64).eps)
GROWING = tuple(np.arange(0.5, 10.0).tolist())  # logarithms of c in lambda = c m: from the first with a solution on
OWN = (0.0, 0.4, 0.8, 1.2, -0.5)  # and those that suit W = M


@dataclass(frozen=True, eq=False)
class Sector(Shown):
    """The matrices of one class on one instance.  psi [X, p]: zero rows at unavailable pairs; metric: M [p, p]."""

    analysis: Analysis
    psi: Float[np.ndarray, "X p"]
    metric: Float[np.ndarray, "p p"]

    @cached_property
    def gram(self) -> Float[np.ndarray, "p p"]:
        """G."""
        return self.psi.T @ (self._d[:, None] * self.psi)

    @cached_property
    def inverse(self) -> Float[np.ndarray, "p p"]:
        """M^{-1}."""
        found = np.linalg.inv(self.metric)
        return (found + found.T) / 2

    @cached_property
    def onward(self) -> Float[np.ndarray, "p O"]:
        """N."""
        return (self.analysis.interface.kernel.T @ (self._d[:, None] * self.psi)).T

    @cached_property
    def choice(self) -> Bool[np.ndarray, "O"]:
        """Observations with more than one option: elsewhere u = 0."""
        return self._live.sum(axis=1) > 1

    @cached_property
    def drift(self) -> Float[np.ndarray, "p p"]:
        """P."""
        return self.gram - self.onward @ self.mean(self.psi)

    @cached_property
    def deviation(self) -> Float[np.ndarray, "X p"]:
        """Rows psi(o, a) minus their mean, times (1 - 1/n_o)^{1/2}."""
        return self.spread(self.psi)

    @cached_property
    def least_mass(self) -> Float[np.ndarray, "O"]:
        """m(o) = min over available options of d(o, a)."""
        return np.where(self._live, self.analysis.d_pair, np.inf).min(axis=1)

    @property
    def _live(self) -> Bool[np.ndarray, "O A"]:
        return self.analysis.interface.available

    @property
    def _d(self) -> Float[np.ndarray, "X"]:
        return self.analysis.d_pair.reshape(-1)

    def mean(self, table: Float[np.ndarray, "X n"]) -> Float[np.ndarray, "O n"]:
        """C: the mean over the available options of every observation; rows of others are 0."""
        each = table.reshape(*self._live.shape, -1)
        return each.sum(axis=1) / self._live.sum(axis=1)[:, None]

    def spread(self, table: Float[np.ndarray, "X n"]) -> Float[np.ndarray, "X n"]:
        """What is left of it, times (1 - 1/n_o)^{1/2}, 0 at unavailable pairs: u(o)^2 is at most a sum of squares."""
        away = table.reshape(*self._live.shape, -1) - self.mean(table)[:, None, :]
        scale = np.where(self._live, np.sqrt(1 - 1 / self._live.sum(axis=1))[:, None], 0.0)
        return (away * scale[..., None]).reshape(len(table), -1)

    def repeated(self, multipliers: Float[np.ndarray, "O"]) -> Float[np.ndarray, "X 1"]:
        """One number per observation, for each of its pairs."""
        return np.repeat(multipliers, self._live.shape[1])[:, None]

    def cover(self, multipliers: Float[np.ndarray, "O"]) -> Float[np.ndarray, "p p"]:
        """H = sum lambda(o) (1 - 1/n_o) times the squared deviations."""
        return self.deviation.T @ (self.repeated(multipliers) * self.deviation)

    def rate(
        self, matrix: Float[np.ndarray, "p p"], multipliers: Float[np.ndarray, "O"], eta: float = 0.0,
        epsilon: float = 1.0,
    ) -> float:  # fmt: skip
        """Lemmas (sector rate): a rate of the weight W for any multipliers lambda(o) > 0 and epsilon > 0.

        (theta - theta')'W B (E_d[psi delta(theta)] - E_d[psi delta(theta')]) <= -rate ||Q - Q'||_d^2 for any two
        parameters and any B = M^{-1/2}(I + N)M^{-1/2} with ||N|| <= eta.  Half the least eigenvalue, relative to G, of
        Y P + P'Y' - epsilon W M^{-1}W - (eta^2/epsilon) P'M^{-1}P - H - B L^{-1}B' with Y = W M^{-1}, L = Lambda -
        (eta^2/epsilon) N'M^{-1}N, B = (Y - (eta^2/epsilon) P'M^{-1})N, minus what its computation may have lost;
        -infinity where L is not positive definite.  The terms in epsilon are there for eta > 0 only.
        """
        y, share = matrix @ self.inverse, eta**2 / epsilon
        onward = self.onward[:, self.choice]
        left = np.diag(multipliers[self.choice]) - share * onward.T @ self.inverse @ onward
        if len(left) and not np.linalg.eigvalsh(left)[0] > 0:
            return -np.inf
        b = (y - share * self.drift.T @ self.inverse) @ onward
        lost = np.zeros_like(matrix)
        if eta > 0:
            lost = epsilon * y @ matrix + share * self.drift.T @ self.inverse @ self.drift
        parts = [y @ self.drift + (y @ self.drift).T, lost, self.cover(multipliers), b @ np.linalg.solve(left, b.T)]
        form = parts[0] - parts[1] - parts[2] - parts[3]
        if not np.isfinite(form).all():
            return -np.inf
        values = la.eigh((form + form.T) / 2, self.gram, eigvals_only=True)
        size = sum(float(np.linalg.norm(part, 2)) for part in parts) / float(np.linalg.eigvalsh(self.gram)[0])
        size *= max(float(np.linalg.cond(self.metric)) / len(matrix), 1.0)  # of the inverse
        return float(values[0] - 100 * len(matrix) * _EPS * size) / 2

    def solution(
        self, multipliers: Float[np.ndarray, "O"], eta: float = 0.0, epsilon: float = 1.0
    ) -> Float[np.ndarray, "p p"] | None:
        """W with W A + A'W = W S W + Q, which makes the form of `rate` about G; how well, the rate says."""
        half = (self.inverse @ self.onward / np.sqrt(multipliers))[:, self.choice]
        square, constant = half @ half.T, self.gram + self.cover(multipliers)
        if eta > 0:
            square = square + epsilon * self.inverse
            constant = constant + 2 * eta**2 / epsilon * self.drift.T @ self.inverse @ self.drift
        return riccati(self.inverse @ self.drift, square, constant)

    def _facts_(self) -> list[Fact]:
        return [Fact("pairs", len(self.psi)), Fact("parameters", self.psi.shape[1])]


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
