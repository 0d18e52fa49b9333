"""Weights of the Lyapunov function of section 5b, V = E (theta - theta*)'W(theta - theta*), and which of them are good.

The preconditioner itself charges every direction with the worst drift; a weight that solves a Riccati equation charges
each with its own.  What a weight certifies: `bounds.core.sector`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.linalg as la
from jaxtyping import Float

from bounds.core.bound import Assumption, below
from bounds.core.sector import GROWING, OWN
from bounds.residual.population import Population
from icq.display import Shown

BISECTIONS = 2  # of the step of GROWING before the first with a solution
LEVELS = (1.5, 0.75, 2.25, 0.0, 3.0)  # logarithms of the multipliers in units of m(o) that Riccati weights try
DESCENTS = 6  # steps of the multipliers of all observations
MANY = 300  # parameters from which on one Riccati equation takes seconds: multipliers are not refined there
SHARES = (-0.5, 0.5, -1.5, 1.5)  # logarithms of epsilon in units of eta times the least eigenvalue of M^{-1/2}GM^{-1/2}


@dataclass(frozen=True, eq=False)
class Weight(Shown):
    """W [p, p], symmetric positive definite, with a certified `rate`.

    (theta - theta*)'W M^{-1} E_d[psi delta] <= -rate ||Q - Q_F||_d^2 for every theta; no drift where it is <= 0.
    """

    matrix: Float[np.ndarray, "p p"]
    rate: float


def has_drift(rate: float) -> Assumption:
    """The assumption that a certified rate is positive: Q_F is unique and every run is pulled to it."""
    return below("drift", -rate, 0.0, f"certified rate {rate:.4g} of the weight must be positive")


@lru_cache(maxsize=4)
def own_weight(pop: Population) -> Weight:
    """Lemma (drift): W = M has the rate 1 - kappa_F, whatever M; or what its best multipliers certify, if that is more.

    Where it is not positive there is no drift.
    """
    s = pop.sector
    found = (s.rate(pop.metric, np.exp(level) * pop.least_mass) for level in OWN)
    return Weight(pop.metric, max(1 - pop.kappa, *found))


@lru_cache(maxsize=4)
def sharp_weight(pop: Population) -> Weight:
    """The weight with the least tr(W M^{-1}(Sigma_0 + Sigma_mix)M^{-1})/rate, the leading term of an average.

    Of the preconditioner and of Riccati weights whose multipliers are refined observation by observation.  Its rate is
    not positive where none of them has a drift.
    """
    own = own_weight(pop)
    tried = [own, *_riccati_weights(pop)]
    return min((w for w in tried if w.rate > 0), key=lambda w: _average(pop, w), default=own)


@lru_cache(maxsize=4)
def last_weight(pop: Population) -> Weight | None:
    """The weight for the last iterate along the path: None, the preconditioner, where it has a drift, which averages
    its noise best, else the best by the leading term; None again where none has a drift.
    """
    return None if own_weight(pop).rate > 0 else sector_weight(pop)


def _average(pop: Population, w: Weight) -> float:
    return float(np.sum(w.matrix * pop.noise)) / w.rate


def _last(pop: Population, w: Weight) -> float:
    """tr(W M^{-1}(Sigma_0 + Sigma_mix)M^{-1}) chi^2/mu, the leading term of the last iterate."""
    spectrum = la.eigh(pop.sector.gram, w.matrix, eigvals_only=True)
    return _average(pop, w) * float(spectrum[-1] / spectrum[0])


def _riccati_weights(pop: Population) -> Iterator[Weight]:
    """Riccati weights for lambda = c m, and what a descent from the best of them finds.

    Where one c has a solution every larger one has, with more noise: the least c is looked for.
    """
    found: list[tuple[float, Weight, Float[np.ndarray, "O"]]] = []

    def tried(level: float) -> bool:
        multipliers = np.exp(level) * pop.least_mass
        if (weight := _certified(pop, multipliers)) is None:
            return False
        found.append((_average(pop, weight), weight, multipliers))
        return True

    if (first := next((level for level in GROWING if tried(level)), None)) is None:
        return
    low, high = first - GROWING[1] + GROWING[0], first
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if tried(middle) else (middle, high)
    yield from (weight for _, weight, _ in found)
    if len(pop.theta_star) <= MANY:
        _, weight, multipliers = min(found, key=lambda each: each[0])
        yield _descended(pop, weight, multipliers)


def _certified(pop: Population, multipliers: Float[np.ndarray, "O"]) -> Weight | None:
    """The Riccati weight of these multipliers, if there is one and it has a drift."""
    matrix = pop.sector.solution(multipliers)
    if matrix is None:
        return None
    rate = pop.sector.rate(matrix, multipliers)
    return Weight(matrix, rate) if rate > 0 else None


def _descended(pop: Population, weight: Weight, multipliers: Float[np.ndarray, "O"]) -> Weight:
    """Multipliers moved, on a logarithmic scale, towards where tr(W noise) would be stationary, while that helps."""
    share = 0.25
    for _ in range(DESCENTS):
        goal = stationary(pop, weight.matrix, multipliers)
        tried = multipliers ** (1 - share) * goal**share
        found = _certified(pop, tried)
        if found is not None and _average(pop, found) < _average(pop, weight):
            weight, multipliers, share = found, tried, min(2 * share, 1.0)
        else:
            share /= 4
    return weight


def stationary(
    pop: Population, matrix: Float[np.ndarray, "p p"], multipliers: Float[np.ndarray, "O"]
) -> Float[np.ndarray, "O"]:
    """lambda(o)^2 = b'W Y W b/tr(Y H_o), b = M^{-1}N e_o and H_o the squared deviations there: where the derivative of
    tr(W noise) vanishes.  (A - S W)Y + Y(A - S W)' = noise.
    """
    s = pop.sector
    b = (s.inverse @ s.onward)[:, s.choice]
    loop = s.inverse @ s.drift - (b / multipliers[s.choice]) @ b.T @ matrix
    y = la.solve_continuous_lyapunov(loop, pop.noise)
    moved = matrix @ b
    away = s.deviation.reshape(*pop.q_f.shape, -1)[s.choice]
    up, down = np.einsum("po,pq,qo->o", moved, y, moved), np.einsum("oap,pq,oaq->o", away, y, away)
    out = multipliers.copy()
    good = (up > 0) & (down > 0)
    out[np.flatnonzero(s.choice)[good]] = np.sqrt(up[good] / down[good])
    return out


def sector_weight(pop: Population, eta: float = 0.0) -> Weight | None:
    """The best of the preconditioner and some Riccati weights, for preconditioners known up to the share eta.

    Best: tr(W M^{-1}(Sigma_0 + Sigma_mix)M^{-1}) chi^2/mu, the leading term of the last iterate, is least.  None where
    none of them has a drift.
    """
    s = pop.sector
    if eta == 0:
        every = (w for w in (own_weight(pop), *_riccati_weights(pop)) if w.rate > 0)
        return min(every, key=lambda w: _last(pop, w), default=None)
    low = float(la.eigh(s.gram, pop.metric, eigvals_only=True)[0])
    found: list[tuple[float, Weight]] = []

    def tried(level: float, share: float, *, own: bool) -> float:
        multipliers, epsilon = np.exp(level) * pop.least_mass, eta * np.exp(share) * low
        matrix = pop.metric if own else s.solution(multipliers, eta, epsilon)
        rate = -np.inf if matrix is None else s.rate(matrix, multipliers, eta, epsilon)
        if matrix is None or not rate > 0:
            return np.inf
        found.append((_last(pop, Weight(matrix, rate)), Weight(matrix, rate)))
        return found[-1][0]

    for own, levels in ((True, OWN), (False, LEVELS)):
        best = min(levels, key=lambda level: tried(level, SHARES[0], own=own))
        for share in SHARES[1:]:
            tried(best, share, own=own)
    return min(found, key=lambda pair: pair[0])[1] if found else None
