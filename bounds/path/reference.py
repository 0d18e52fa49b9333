"""The constants of the Poisson certificate at moving references (docs/theory.md section 5d).

Letters: bounds.residual.correction and bounds.residual.constants.  A reference is a parameter thbar with the TD errors
delta-bar of its table and the mean step ubar = E_d[u delta-bar], which is 0 at Q_F only.  The learner is theta =
thbar + e with Delta = L'e, and what moves Delta is Gamma = u delta - ubar.  Constants of differences (c, L, V, u, c_3,
lam_2, a_1) are those of section 5b and do not depend on the reference; the others are here, for many references at
once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from bounds.residual.constants import (
    constants,
    correction,
    correction_growth,
    kink_growth,
    response_growth,
    row_growths,
    update_growth,
)
from bounds.residual.correction import Correction
from bounds.residual.population import Population
from bounds.residual.recursion import Lyapunov, Quadratic, product
from bounds.residual.weights import Weight
from icq.display import Shown

CHUNK = 32  # references at once
_Growths: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # c, L, V, u, one entry a row


@dataclass(frozen=True, eq=False)
class CommonGrowths(Shown):
    """What is the same at every reference: growths for single states, under d, and for the rows |Z(s, .)|.

    z: the largest row sum of |Z|.  Each growth is the largest over its rows, except those behind
    a_0, kept by row.
    """

    correction: Correction
    rate: float
    mu: float
    chi: float
    single: tuple[float, float, float, float]
    mean: tuple[float, float, float, float]
    rows: _Growths
    lam_2: float
    a_1: float
    kick_c: float
    z: float


@lru_cache(maxsize=8)
def structure(pop: Population, weight: Weight | None = None, iid: bool = False) -> CommonGrowths:
    """c, L, V, u of section 5b for single states, for d and for |Z(s, .)|, with the constants made from them."""
    k, c = constants(pop, iid=iid, weight=weight), correction(pop, iid, weight)
    one, d, own = np.eye(len(pop.analysis.d)), pop.analysis.d[None], row_growths(c)

    def growths(rows: Float[np.ndarray, "R S"], onward: Float[np.ndarray, "R S"]) -> _Growths:
        first, second = update_growth(c, rows)[1], correction_growth(c, onward)[1]
        return first, second, response_growth(c, rows), kink_growth(c, rows)[1]

    def largest(found: _Growths) -> tuple[float, float, float, float]:
        a, b, v, u = (float(part.max()) for part in found)
        return a, b, v, u

    return CommonGrowths(
        c, k.rate, k.mu, k.chi, largest(growths(one, one)), largest(growths(d, d)),
        (own.c, own.lipschitz, own.response, own.u), k.lam_2, k.a_1, k.kick_c, float(np.abs(c.deviation).sum(1).max()),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class References(Shown):
    """The constants that depend on the reference, one entry per reference; units as in `Constants`.

    noise: Sc; lam_1; sigma, centred: (E||u delta-bar||^2|s)^{1/2} and (E||u delta-bar - ubar||^2|s)^{1/2}, largest;
    nu: largest ||nu(thbar, s)||; kink, kick: e and s_3, largest over states; drift: ||ubar||; a_0 as in section 5b;
    centred_z, nu_z: centred sigma and nu of the rows |Z(s, .)|, largest.
    """

    noise: Float[np.ndarray, "n"]
    lam_1: Float[np.ndarray, "n"]
    sigma: Float[np.ndarray, "n"]
    centred: Float[np.ndarray, "n"]
    nu: Float[np.ndarray, "n"]
    kink: Float[np.ndarray, "n"]
    kick: Float[np.ndarray, "n"]
    drift: Float[np.ndarray, "n"]
    a_0: Float[np.ndarray, "n"]
    centred_z: Float[np.ndarray, "n"]
    nu_z: Float[np.ndarray, "n"]


def td_errors(pop: Population, theta: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n m"]:
    """delta-bar of every outcome at these parameters, with the maximum over available options."""
    k, live = pop.outcomes, pop.analysis.interface.available
    table = pop.offset + theta @ pop.psi.T
    value = np.where(live, table.reshape(len(theta), *live.shape), -np.inf).max(axis=2)
    return k.reward + k.discount * value[:, k.observation] - table[:, k.pair]


def references(s: CommonGrowths, theta: Float[np.ndarray, "n p"]) -> References:
    """The constants at the parameters theta."""
    parts = [_chunk(s, theta[i : i + CHUNK]) for i in range(0, len(theta), CHUNK)]
    return References(*(np.concatenate([getattr(p, name) for p in parts]) for name in References.__dataclass_fields__))


def _chunk(s: CommonGrowths, theta: Float[np.ndarray, "n p"]) -> References:
    c, pop = s.correction, s.correction.pop
    k, d, z = pop.outcomes, pop.analysis.d, c.deviation
    states, pairs, size = len(d), len(pop.d), np.abs(c.deviation)
    td, n = td_errors(pop, theta), c.norm2[k.pair]
    t = _tables(pop)
    count = len(theta)
    mean_update = (td @ t.by_pair).reshape(count, states, pairs) @ c.push  # E[u delta|s]
    drift = d @ mean_update  # ubar
    nu = z @ mean_update
    square = (n * td**2) @ t.by_state  # E[n delta^2|s]
    length = (drift**2).sum(1)
    centred = np.maximum(square - 2 * np.einsum("nsp,np->ns", mean_update, drift) + length[:, None], 0.0)
    jump = c.follow(c.kink)
    kink = (jump * np.abs(td)) @ t.by_state  # E[j|delta||s]
    along = (nu @ c.push.T)[:, k.target, k.pair]  # u'nu(s_1)
    noise = centred @ d + 2 * (td * along) @ pop.mass
    arrived = (td @ t.arrive).reshape(count, states, pairs)
    back = z.T @ (arrived @ c.push)
    once = n * td + along - drift @ c.push[k.pair].T
    once = 2 * d[k.source] * once + 2 * (back @ c.push.T)[:, k.source, k.pair]
    moved = np.einsum("nsx,spx->np", arrived, c.v, optimize=True)
    lam_1 = np.linalg.norm((once @ t.onward) * c.scale, axis=1) + 2 * kink @ d
    lam_1 += np.linalg.norm(2 * moved - once @ t.own @ c.read, axis=1)
    inner = np.einsum("spx,xp->sx", c.v, c.push)
    third = c.follow(np.maximum(inner + c.kink * np.sqrt(c.norm2), 0.0))
    kick = np.sqrt(((third * td**2) @ t.by_state).max(axis=1))
    sigma_z, centred_z = np.sqrt(square @ size.T), np.sqrt(centred @ size.T)
    nu_z, kink_z = np.sqrt((nu**2).sum(2) @ (size @ pop.analysis.transition).T), kink @ size.T
    grow, lipschitz, response, _ = s.rows
    a_0 = 2 * (grow * centred_z + lipschitz * centred_z + nu_z * grow + response * sigma_z + kink_z)
    return References(
        noise, lam_1, np.sqrt(square.max(1)), np.sqrt(centred.max(1)), np.sqrt((nu**2).sum(2).max(1)), kink.max(1),
        kick, np.sqrt(length), a_0.max(1), centred_z.max(1), nu_z.max(1),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Tables:
    """Matrices [m, ...] that average outcomes: by state, by (state, pair), by (next state, pair) under d; and sums over
    all states of the means by observation handed over to, discounted, and by pair.
    """

    by_state: sp.csr_array
    by_pair: sp.csr_array
    arrive: sp.csr_array
    onward: sp.csr_array
    own: sp.csr_array


@lru_cache(maxsize=4)
def _tables(pop: Population) -> _Tables:
    k, states, pairs = pop.outcomes, len(pop.analysis.d), len(pop.d)

    def matrix(column: Int[np.ndarray, "m"], width: int, value: Float[np.ndarray, "m"]) -> sp.csr_array:
        return sp.csr_array((value, (np.arange(len(value)), column)), shape=(len(value), width))

    return _Tables(
        matrix(k.source, states, k.weight), matrix(k.source * pairs + k.pair, states * pairs, k.weight),
        matrix(k.target * pairs + k.pair, states * pairs, pop.mass),
        matrix(k.observation, len(pop.least_mass), k.weight * k.discount), matrix(k.pair, pairs, k.weight),
    )  # fmt: skip


def worst(s: CommonGrowths, ends: References, off: Float[np.ndarray, "n"]) -> References:
    """The largest of each constant over a stretch, from the two ends [2 n] (first all starts, then all ends) of its
    chord and the distance `off` of its references to the chord.

    With fixed greedy options the TD error is affine in the reference, so each constant is a convex function of it,
    largest on a chord at an end; off the chord it grows by what section 5b says of differences.
    """
    n, root = len(off), math.sqrt(s.z)
    c, lipschitz, _, u = s.single
    c_d, l_d, v_d, u_d = s.mean
    c_z, l_z, v_z, u_z = s.rows
    growth = {
        "noise": math.sqrt(c_d**2 + 2 * l_d * c_d),  # of the root of Sc, a seminorm
        "lam_1": 4 * c_d**2 + 4 * c_d * l_d + 2 * c_d * v_d + 2 * u_d,
        "sigma": c,
        "centred": c + c_d,
        "nu": lipschitz,
        "kink": u,
        "kick": s.kick_c,
        "drift": c_d,
        "a_0": float((2 * ((c_z + l_z) * (c_z + root * c_d) + (l_z + v_z) * c_z + u_z)).max()),
        "centred_z": float(c_z.max()) + root * c_d,
        "nu_z": float(l_z.max()),
    }
    out = {}
    for name, per_unit in growth.items():
        value = np.sqrt(np.maximum(getattr(ends, name), 0.0)) if name == "noise" else getattr(ends, name)
        high = np.maximum(value[:n], value[n:]) + off * per_unit
        out[name] = high**2 if name == "noise" else high
    return References(**out)


def inequality(s: CommonGrowths, r: References, i: int, turn: float) -> Lyapunov:
    """Theorem (moving tier 2): W = V + 2 alpha E<nu, Delta> + alpha^2 E Omega around the moving reference satisfies the
    recursion of `bounds.residual.recursion` with these data.

    With sigma^ = sigma + |ubar| and the turn w' >= |ubar_{k+1} - ubar_k|/alpha_k:  G2 = Sc + lam_1 x + lam_2 x^2,
    G3 = 2 (s_3 + c_3 x)^2 + (sigma^ + c x)(a_0 + 2 a_1 x) + 2 |ubar| [V (sigma + c x) + e + u x]
         + sqrt(z) w' [2 (sigma_z + nu_z) + 2 (c_z + L_z) x],
    G4 = a_1 (sigma^ + c x)^2 + sqrt(z) w' (c_z + L_z)(sigma^ + c x),
    S1 = 2 (nu x + L x^2),  S2 = omega + a_0 x + a_1 x^2,  omega = sigma_z^2 + 2 nu_z sigma_z.
    """
    c, lipschitz, response, u = s.single
    sigma, centred, drift = float(r.sigma[i]), float(r.centred[i]), float(r.drift[i])
    nu, kink, kick, a_0 = float(r.nu[i]), float(r.kink[i]), float(r.kick[i]), float(r.a_0[i])
    across, memory = float(r.centred_z[i]), float(r.nu_z[i])
    moved = (sigma + drift, c)
    spun, spread = math.sqrt(s.z) * turn, float((s.rows[0] + s.rows[1]).max())
    third = product(moved, (a_0, 2 * s.a_1)).plus(product((kick, s.kick_c), (kick, s.kick_c)), 2.0)
    third = third.plus(Quadratic(response * sigma + kink, response * c + u, 0.0), 2 * drift)
    third = third.plus(Quadratic(2 * (across + memory), 2 * spread, 0.0), spun)
    return Lyapunov(
        mu=s.mu,
        gain_2=Quadratic(float(r.noise[i]), float(r.lam_1[i]), s.lam_2),
        gain_3=third,
        gain_4=product(moved, (s.a_1 * moved[0] + spun * spread, s.a_1 * c)),
        slack_1=Quadratic(0.0, 2 * nu, 2 * lipschitz),
        slack_2=Quadratic(across**2 + 2 * memory * across, a_0, s.a_1),
        growth=(centred, c),
    )
