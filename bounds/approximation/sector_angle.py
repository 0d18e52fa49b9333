"""How far a table is from Q_F, whatever kappa_F: the right angle with the maximum in its sector.

Letters: docs/theory.md section 4.6; B an orthonormal basis of a linear class in ||.||_d, N = B'D Khat, C the mean over
the options of an observation, P = I - N C B, spread what is left of the mean (`bounds.core.sector`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from bounds.approximation.classes import LinearClass
from bounds.core.bound import Assumption, below
from bounds.core.sector import GROWING, OWN, Sector
from icq.display import Fact, Shown, shown

LARGEST = 400  # dimension of a class up to which forms are computed: a Riccati equation of it takes seconds


@shown
class Distance(NamedTuple):
    """A bound on ||Q - Q_F||_d, and by how much an error of norm 1 in g and h can move it."""

    value: float
    growth: float


@dataclass(frozen=True, eq=False)
class Form(Shown):
    """One choice of multipliers lambda(o) [O] and Y [p, p], of positive definite F with its spectral decomposition.

    F = Y P + P'Y' - Y N Lambda^{-1} N'Y' - S'S, S = Lambda^{1/2} spread(B); phi, basis: eigenvalues of F, less what
    their computation may have lost, and its eigenvectors.
    """

    sector: Sector
    multipliers: Float[np.ndarray, "O"]
    y: Float[np.ndarray, "p p"]
    phi: Float[np.ndarray, "p"]
    basis: Float[np.ndarray, "p p"]

    def distance(self, g: Float[np.ndarray, "p"], h: Float[np.ndarray, "X"]) -> Distance:
        """Theorem (sector angle): L >= ||Q - Q_F||_d.

        g = B'D(Q - That Q), h = Q - Pi Q.  L^2 = ||h||_d^2 + r t + t^2 sum_i p_i^2/(t phi_i - 1) for any t > 1/min phi,
        r = ||s||^2, s = Lambda^{1/2} spread(h), p = V'(Y(g + N C h) + S's), V the eigenvectors.  The least over t.
        """
        s, root = self.sector, np.sqrt(self.sector.repeated(self.multipliers))
        column = h[:, None]
        away = (root * s.spread(column))[:, 0]
        pull = self.y @ (g + s.onward @ s.mean(column)[:, 0]) + (root * s.deviation).T @ away
        p2, r, least = (self.basis.T @ pull) ** 2, float(away @ away), float(self.phi[0])

        def squared(log_excess: float) -> float:
            t = (1 + math.exp(log_excess)) / least
            return r * t + t * t * float(np.sum(p2 / (t * self.phi - 1)))

        found = minimize_scalar(squared, bounds=(-14.0, 6.0), method="bounded", options={"xatol": 1e-3})
        norm2 = float(s.analysis.d_pair.reshape(-1) @ h**2)
        growth = self._growth((1 + math.exp(float(found.x))) / least)
        return Distance(math.sqrt(norm2 + float(found.fun)), growth)

    def _growth(self, t: float) -> float:
        """L at this t is a norm of (g, h); its size on a pair of norm 1."""
        s = self.sector
        cover = float((self.multipliers / s.least_mass)[s.choice].max(initial=0.0))
        onward = float(np.linalg.norm(s.onward / np.sqrt(s.least_mass), 2))
        pull = float(np.linalg.norm(self.y, 2)) * (1 + onward) + cover
        return math.sqrt(1 + t * cover + (t * pull) ** 2 / (t * float(self.phi[0]) - 1))

    def _facts_(self) -> list[Fact]:
        return [Fact("parameters", len(self.phi)), Fact("least eigenvalue", float(self.phi[0]))]


def fits(members: LinearClass) -> Assumption:
    """Whether the class is small enough for its Riccati equations."""
    return below("small class", float(members.rank), LARGEST + 0.5, f"dimension of the class, at most {LARGEST}")


@lru_cache(maxsize=4)
def forms(members: LinearClass) -> tuple[Form, ...]:
    """Some forms of a class, with Y = I and with Y from Riccati equations; none where none is positive definite."""
    if not fits(members).holds or members.rank == 0:
        return ()
    a, basis = members.analysis, members.affine.basis
    s = Sector(a, np.asarray(basis.toarray()), np.eye(members.rank))
    return tuple(_own(s)) + tuple(_riccati(s))


def _own(s: Sector) -> Iterator[Form]:
    for level in OWN:
        if (found := _form(s, np.eye(len(s.metric)), np.exp(level) * s.least_mass)) is not None:
            yield found


def _riccati(s: Sector) -> Iterator[Form]:
    """From the least multipliers of a grid with a solution on, and between them and the ones before."""

    def solved(level: float) -> Form | None:
        multipliers = np.exp(level) * s.least_mass
        y = s.solution(multipliers)
        return None if y is None else _form(s, y, multipliers)

    for level in GROWING:
        if (found := solved(level)) is not None:
            yield found
            yield from (form for step in (-0.5, 0.5) if (form := solved(level + step)) is not None)
            return


def _form(s: Sector, y: Float[np.ndarray, "p p"], multipliers: Float[np.ndarray, "O"]) -> Form | None:
    half, moved = (y @ s.onward / np.sqrt(multipliers))[:, s.choice], y @ s.drift
    parts = (moved + moved.T, half @ half.T, s.cover(multipliers))
    values, vectors = np.linalg.eigh(parts[0] - parts[1] - parts[2])
    lost = 100 * len(y) * float(np.finfo(float).eps) * sum(float(np.linalg.norm(part, 2)) for part in parts)
    return Form(s, multipliers, y, values - lost, vectors) if values[0] > lost else None


def sector_distance(members: LinearClass, q: Float[np.ndarray, "O A"]) -> Distance | None:
    """The least L of all forms for a table Q with 0 at unavailable options; None without a form.

    A class with a form has one Q_F: its mean update is strongly monotone.
    """
    found = forms(members)
    if not found:
        return None
    change = members.analysis.interface.bellman(q) - q
    g = -np.asarray(members.affine.dual @ change.reshape(-1))
    h = (q - members.project(q)).reshape(-1)
    return min(form.distance(g, h) for form in found)
