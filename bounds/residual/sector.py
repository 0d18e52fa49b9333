"""A weight for maxima in their sector and preconditioners that are known up to a share (docs/theory.md section 5e).

Theta-coordinates, G = Psi'D Psi, N = Psi'D Khat [p, O].  C e holds the means of Psi e over the available options of
every observation, P = Psi'D (Psi - Khat C).  A change of the greedy values is omega = C e + u, and u is small where the
options of an observation move alike: u(o)^2 <= (1 - 1/n_o) sum_a (deviation of option a from the mean)^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.linalg as la
from jaxtyping import Bool, Float

from bounds.residual.population import Population
from bounds.residual.weights import Weight, riccati
from icq.display import Shown

_EPS = float(np.finfo(np.float64).eps)
LEVELS = (1.5, 0.75, 2.25, 0.0, 3.0)  # logarithms of the multipliers in units of m(o) that Riccati weights try
OWN = (0.0, 0.4, 0.8, 1.2, -0.5)  # and that the preconditioner tries
SHARES = (-0.5, 0.5, -1.5, 1.5)  # logarithms of epsilon in units of eta times the least eigenvalue of M^{-1/2}GM^{-1/2}


@dataclass(frozen=True, eq=False)
class _Sector(Shown):
    """The matrices of one population.  deviation [O A, p]: rows psi(o, a) minus their mean, times (1 - 1/n)^{1/2}."""

    pop: Population

    @cached_property
    def gram(self) -> Float[np.ndarray, "p p"]:
        return self.pop.psi.T @ (self.pop.d[:, None] * self.pop.psi)

    @cached_property
    def inverse(self) -> Float[np.ndarray, "p p"]:
        found = np.linalg.inv(self.pop.metric)
        return (found + found.T) / 2

    @cached_property
    def onward(self) -> Float[np.ndarray, "p O"]:
        return self.pop.psi.T @ (self.pop.d[:, None] * self.pop.analysis.interface.kernel.toarray())

    @cached_property
    def choice(self) -> Bool[np.ndarray, "O"]:
        """Observations with more than one option: elsewhere u = 0."""
        return self.pop.analysis.interface.available.sum(axis=1) > 1

    @cached_property
    def means(self) -> Float[np.ndarray, "O p"]:
        live = self.pop.analysis.interface.available
        table = self.pop.psi.reshape(*live.shape, -1)
        return table.sum(axis=1) / live.sum(axis=1)[:, None]

    @cached_property
    def drift(self) -> Float[np.ndarray, "p p"]:
        return self.gram - self.onward @ self.means

    @cached_property
    def deviation(self) -> Float[np.ndarray, "OA p"]:
        live = self.pop.analysis.interface.available
        count = live.sum(axis=1)
        away = self.pop.psi.reshape(*live.shape, -1) - self.means[:, None, :]
        scale = np.where(live, np.sqrt(1 - 1 / count)[:, None], 0.0)
        return (away * scale[..., None]).reshape(-1, away.shape[-1])

    def cover(self, multipliers: Float[np.ndarray, "O"]) -> Float[np.ndarray, "p p"]:
        options = self.pop.q_f.shape[1]
        return self.deviation.T @ (np.repeat(multipliers, options)[:, None] * self.deviation)


def sector_rate(
    pop: Population, matrix: Float[np.ndarray, "p p"], multipliers: Float[np.ndarray, "O"], *,
    eta: float = 0.0, epsilon: float = 1.0,
) -> float:  # fmt: skip
    """Lemma (sector rate): a rate of the weight W for any multipliers lambda(o) > 0 and epsilon > 0.

    (theta - theta')'W B (E_d[psi delta(theta)] - E_d[psi delta(theta')]) <= -rate ||Q - Q'||_d^2 for any two parameters
    and any B = M^{-1/2}(I + N)M^{-1/2} with ||N|| <= eta.  Half the least eigenvalue, relative to G, of Y P + P'Y' -
    epsilon W M^{-1}W - (eta^2/epsilon) P'M^{-1}P - H - B L^{-1}B' with Y = W M^{-1}, H = sum lambda(o) (1 - 1/n_o)
    times the squared deviations, L = Lambda - (eta^2/epsilon) N'M^{-1}N, B = (Y - (eta^2/epsilon) P'M^{-1})N, minus
    what its computation may have lost; -infinity where L is not positive definite.
    """
    return _rate(_sector(pop), matrix, multipliers, eta, epsilon)


@lru_cache(maxsize=4)
def _sector(pop: Population) -> _Sector:
    return _Sector(pop)


def _rate(
    s: _Sector, matrix: Float[np.ndarray, "p p"], multipliers: Float[np.ndarray, "O"], eta: float, epsilon: float
) -> float:
    y, share = matrix @ s.inverse, eta**2 / epsilon
    onward = s.onward[:, s.choice]
    left = np.diag(multipliers[s.choice]) - share * onward.T @ s.inverse @ onward
    if len(left) and not np.linalg.eigvalsh(left)[0] > 0:
        return -np.inf
    b = (y - share * s.drift.T @ s.inverse) @ onward
    lost = np.zeros_like(matrix) if eta == 0 else epsilon * y @ matrix + share * s.drift.T @ s.inverse @ s.drift
    parts = [y @ s.drift + (y @ s.drift).T, lost, s.cover(multipliers), b @ np.linalg.solve(left, b.T)]
    form = parts[0] - parts[1] - parts[2] - parts[3]
    if not np.isfinite(form).all():
        return -np.inf
    values = la.eigh((form + form.T) / 2, s.gram, eigvals_only=True)
    size = sum(float(np.linalg.norm(part, 2)) for part in parts) / float(np.linalg.eigvalsh(s.gram)[0])
    size *= max(float(np.linalg.cond(s.pop.metric)) / len(matrix), 1.0)  # of the inverse
    return float(values[0] - 100 * len(matrix) * _EPS * size) / 2


def sector_weight(pop: Population, eta: float = 0.0) -> Weight | None:
    """The best of the preconditioner and some Riccati weights, for preconditioners known up to the share eta.

    Best: tr(W M^{-1}(Sigma_0 + Sigma_mix)M^{-1}) chi^2/mu, the leading term of the last iterate, is least.  None where
    none of them has a drift.
    """
    s = _sector(pop)
    noise = s.inverse @ (pop.sigma_0 + pop.sigma_mix) @ s.inverse
    low = float(la.eigh(s.gram, pop.metric, eigvals_only=True)[0])
    found: list[tuple[float, Weight]] = []

    def tried(level: float, share: float, *, own: bool) -> float:
        multipliers, epsilon = np.exp(level) * pop.least_mass, (eta or 1.0) * np.exp(share) * low
        matrix = pop.metric if own else _riccati_weight(s, multipliers, eta, epsilon)
        rate = -np.inf if matrix is None else _rate(s, matrix, multipliers, eta, epsilon)
        if matrix is None or not rate > 0:
            return np.inf
        spectrum = la.eigh(s.gram, matrix, eigvals_only=True)
        value = float(np.sum(matrix * noise)) / rate * spectrum[-1] / spectrum[0]
        found.append((value, Weight(matrix, rate)))
        return value

    for own, levels in ((True, OWN), (False, LEVELS)):
        best = min(levels, key=lambda level: tried(level, SHARES[0], own=own))
        for share in SHARES[1:] if eta > 0 else ():
            tried(best, share, own=own)
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _riccati_weight(
    s: _Sector, multipliers: Float[np.ndarray, "O"], eta: float, epsilon: float
) -> Float[np.ndarray, "p p"] | None:
    """W with W A + A'W = W S W + Q, which makes the form of `sector_rate` about G; how well, the rate says."""
    half = (s.inverse @ s.onward / np.sqrt(multipliers))[:, s.choice]
    square, constant = half @ half.T, s.gram + s.cover(multipliers)
    if eta > 0:
        square = square + epsilon * s.inverse
        constant = constant + 2 * eta**2 / epsilon * s.drift.T @ s.inverse @ s.drift
    return riccati(s.inverse @ s.drift, square, constant)
