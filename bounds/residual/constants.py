"""The constants of the Poisson certificate, each read off the instance (docs/theory.md section 5b).

Letters: bounds.residual.correction.  Every mean-square constant exists for any weights over states (a row w): the
stationary law d for what enters at order alpha^2, single states for what holds at each moment, |Z(s, .)| for the second
correction.  (w f)^{1/2} is short for (sum_s w(s) f(s))^{1/2}.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bounds.residual.correction import Correction, spectral_norm, symmetric_norm, top_eigenvalue
from bounds.residual.population import Population
from bounds.residual.weights import Weight, own_weight
from icq.display import Shown, shown

DENSE_LIMIT = 200_000_000  # entries of the largest array, S p max(p, X)


@dataclass(frozen=True)
class Constants(Shown):
    """The numbers of the certificate.  Units: reward for sigma, nu_star; reward^2 for noise, omega; 1 for c, L.

    chi: ||Q - Q_F||_d <= chi ||Delta||.  rate: <mean update, Delta> <= -rate ||Q - Q_F||_d^2, mu the same against
    ||Delta||^2.
    sigma, c: (E||update||^2)^{1/2} <= sigma + c ||Delta|| in every state; sigma_bar, c_bar under d.
    lipschitz, nu_star: nu is L-Lipschitz in every state, ||nu*(s)|| <= nu_star.
    noise = Sc = E_d||u delta*||^2 + 2 d.X = tr W M^{-1}(Sigma_0 + Sigma_mix)M^{-1}, W = M unless said.
    lam_1, lam_2: how the second-order stationary average grows with x and x^2.
    omega, a_0, a_1: |Omega| <= omega + a_0 x + a_1 x^2 and its increments.
    kick, kick_c: (E[k delta^2|s])^{1/2} <= kick + kick_c ||Delta||, k the third-order weight of an update.
    """

    chi: float
    rate: float
    mu: float
    sigma: float
    c: float
    sigma_bar: float
    c_bar: float
    lipschitz: float
    nu_star: float
    noise: float
    lam_1: float
    lam_2: float
    omega: float
    a_0: float
    a_1: float
    kick: float
    kick_c: float


def constants(pop: Population, *, iid: bool = False, weight: Weight | None = None) -> Constants:
    """Lemma (constants): every constant of the certificate; with `iid` those of the control (no corrections).

    weight: of the Lyapunov function; None for the preconditioner with its own rate.  Raises ValueError where
    the arrays would be too large.
    """
    return _cached(pop, iid, weight)


@lru_cache(maxsize=8)
def _cached(pop: Population, iid: bool, weight: Weight | None) -> Constants:
    states, p = pop.analysis.smdp.num_states, len(pop.theta_star)
    size = states * p * max(p, len(pop.psi))
    if size > DENSE_LIMIT:
        raise ValueError(f"the certificate needs arrays of {size} entries, more than {DENSE_LIMIT}")
    return _assemble(correction(pop, iid, weight), own_weight(pop).rate if weight is None else weight.rate)


@lru_cache(maxsize=8)
def correction(pop: Population, iid: bool = False, weight: Weight | None = None) -> Correction:
    """The arrays behind the constants, for all who need them."""
    states = pop.analysis.smdp.num_states
    deviation = np.zeros((states, states)) if iid else pop.analysis.deviation
    return Correction(pop, deviation, None if weight is None else weight.matrix)


def update_growth(
    c: Correction, rows: Float[np.ndarray, "R S"]
) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """Lemma (update_growth): (sigma, c) with (w E[||u delta||^2|.])^{1/2} <= sigma + c ||Delta||, for each row w.

    sigma^2 = w E[n delta*^2], c = chi max_o (w E[n g^2 1_{o'}]/m(o))^{1/2} + ||w E[n r r']||^{1/2}.
    """
    k = c.pop.outcomes
    n = c.norm2[k.pair]
    sigma = np.sqrt(rows @ c.pop.expect(n * c.pop.td_error**2))
    onward = (c.scale * np.sqrt(rows @ c.by_observation(n * k.discount**2))).max(axis=1)
    own = np.tensordot(c.lump(rows), c.features(c.read, c.norm2), 1)
    return sigma, onward + np.sqrt(symmetric_norm(own))


def correction_growth(
    c: Correction, rows: Float[np.ndarray, "R S"]
) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """Lemma (correction_growth): (nu, L) with (w ||nu(theta, .)||^2)^{1/2} <= nu + L ||Delta||, for each row w.

    nu^2 = w ||nu*||^2, L = chi ||w m^{-1/2}B'B m^{-1/2}||^{1/2} + ||w U'U||^{1/2}; L also bounds differences.
    """
    onward, own = (np.tensordot(rows, square, 1) for square in c.squares)
    onward, own = c.spectrum[1] * top_eigenvalue(onward), symmetric_norm(own)
    return np.sqrt(rows @ (c.nu_star**2).sum(1)), np.sqrt(onward) + np.sqrt(own)


def kink_growth(c: Correction, rows: Float[np.ndarray, "R S"]) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """Lemma (kink_growth): (e, u) with w E[j |delta|] <= e + u ||Delta||, for each row w.

    e = w E[j |delta*|], u = chi ||w E[j g 1_{o'}] / m^{1/2}|| + chi ||w E[j 1_x] / d(x)^{1/2}||.
    """
    k, live, j = c.pop.outcomes, c.pop.d > 0, c.follow(c.kink)
    onward = np.linalg.norm((rows @ c.by_observation(j * k.discount)) * c.scale, axis=1)
    own = np.linalg.norm((rows @ c.by_pair(j))[:, live] / np.sqrt(c.pop.d[live]), axis=1)
    return rows @ c.pop.expect(j * np.abs(c.pop.td_error)), onward + np.sqrt(c.spectrum[1]) * own


def response_growth(c: Correction, rows: Float[np.ndarray, "R S"]) -> Float[np.ndarray, "R"]:
    """Lemma (response_growth): (w E[(v'Delta)^2/n])^{1/2} <= V ||Delta||, V = ||w E[v v'/n]||^{1/2}, for each row w."""
    return np.sqrt(top_eigenvalue(np.tensordot(rows, c.v_square, 1)))


def stationary_growth(c: Correction) -> tuple[float, float]:
    """Lemma (stationary_second_order): (lam_1, lam_2), E_d F <= Sc + lam_1 ||Delta|| + lam_2 ||Delta||^2.

    F = G + 2 X + 2 Y + 2 ||Delta|| U.  All but the last are quadratic forms in (omega, Delta).  What multiplies
    g omega(o') - r'Delta once in G + 2 X is C = 2 d(s) [n delta* + u'nu*(s_1)] + 2 u'(Z'y)(s), with
    y(s') = E_d[u delta* 1{s_1 = s'}]; Y adds E_d[delta* v]'Delta.
    """
    pop, k = c.pop, c.pop.outcomes
    d = pop.analysis.d[None]
    (_,), (growth,) = update_growth(c, d)
    (_,), (lipschitz,) = correction_growth(c, d)
    (push,), (u,) = kink_growth(c, d)
    back = (c.deviation.T @ (pop.arrive(pop.td_error) @ c.push)) @ c.push.T
    once = c.norm2[k.pair] * pop.td_error + c.follow(c.nu_star @ c.push.T)
    once = 2 * pop.analysis.d[k.source] * once + 2 * back[k.source, k.pair]
    onward, own = c.by_observation(once * k.discount).sum(0), c.read.T @ c.by_pair(once).sum(0)
    moved = np.einsum("sx,spx->p", pop.arrive(pop.td_error), c.v)
    linear = np.linalg.norm(onward * c.scale) + np.linalg.norm(2 * moved - own)
    ahead = c.lump(np.einsum("sx,spx->ps", pop.arrive(k.discount), c.v)) * c.scale
    here = np.einsum("sx,xq,spx->qp", pop.arrive(np.ones(len(k.pair))), c.read, c.v, optimize=True)
    response = spectral_norm(ahead[None])[0] + symmetric_norm((here + here.T)[None] / 2)[0]
    return float(linear + 2 * push), float(growth**2 + 2 * lipschitz * growth + 2 * response + 2 * u)


@shown
class RowGrowths(NamedTuple):
    """What the growth lemmas say of the rows |Z(s, .)|, next states under |Z| P; one entry a row."""

    sigma: Float[np.ndarray, "S"]
    c: Float[np.ndarray, "S"]
    nu: Float[np.ndarray, "S"]
    lipschitz: Float[np.ndarray, "S"]
    response: Float[np.ndarray, "S"]
    push: Float[np.ndarray, "S"]
    u: Float[np.ndarray, "S"]


@lru_cache(maxsize=8)
def row_growths(c: Correction) -> RowGrowths:
    """Those of one correction."""
    size = np.abs(c.deviation)
    sigma, growth = update_growth(c, size)
    nu, lipschitz = correction_growth(c, size @ c.pop.analysis.transition)
    return RowGrowths(sigma, growth, nu, lipschitz, response_growth(c, size), *kink_growth(c, size))


def second_correction(c: Correction) -> tuple[float, float, float]:
    """Lemma (second_correction): (omega, a_0, a_1) for Omega = Z F.

    |Omega| <= omega + a_0 x + a_1 x^2, |Omega(theta) - Omega(theta')| <= (a_0 + a_1 (x + x')) ||Delta - Delta'||.
    Omega(s) sums Z(s, s') F(s'), so F is needed in mean under the weights |Z(s, .)|, next states under |Z| P:
    a_0 = max 2 (c sigma + L sigma + nu c + V sigma + e), a_1 = max c^2 + 2 (L + V) c + 2 u.
    """
    pop, (sigma, growth, nu, lipschitz, response, push, u) = c.pop, row_growths(c)
    a_0 = 2 * (growth * sigma + (lipschitz + response) * sigma + nu * growth + push)
    a_1 = growth**2 + 2 * (lipschitz + response) * growth + 2 * u
    along = c.follow(c.nu_star @ c.push.T)
    start = pop.expect(c.norm2[pop.outcomes.pair] * pop.td_error**2 + 2 * pop.td_error * along)
    return float(np.abs(c.deviation @ start).max()), float(a_0.max()), float(a_1.max())


def third_order(c: Correction) -> tuple[float, float]:
    """Lemma (third_order): (E[k delta^2|s])^{1/2} <= kick + kick_c ||Delta|| in every state, k = (v'u + j sqrt n)_+."""
    pop, k, live = c.pop, c.pop.outcomes, c.pop.d > 0
    inner = np.einsum("spx,xp->sx", c.v, c.push)
    weight = c.follow(np.maximum(inner + c.kink * np.sqrt(c.norm2), 0.0))
    onward = (c.scale * np.sqrt(c.by_observation(weight * k.discount**2))).max(axis=1)
    own = np.sqrt(c.spectrum[1]) * np.sqrt(c.by_pair(weight)[:, live] / pop.d[live]).max(axis=1)
    return float(np.sqrt(pop.expect(weight * pop.td_error**2).max())), float((onward + own).max())


def _assemble(c: Correction, rate: float) -> Constants:
    pop, (low, high) = c.pop, c.spectrum
    low = max(low - len(c.root) * float(np.finfo(float).eps) * high, 0.0)
    sigma, growth = update_growth(c, np.eye(len(pop.analysis.d)))
    (sigma_bar,), (growth_bar,) = update_growth(c, pop.analysis.d[None])
    lam_1, lam_2 = stationary_growth(c)
    omega, a_0, a_1 = second_correction(c)
    kick, kick_c = third_order(c)
    cross = pop.mass @ (pop.td_error * c.follow(c.nu_star @ c.push.T))
    return Constants(
        chi=float(np.sqrt(high)),
        rate=rate,
        mu=rate * (low if rate > 0 else high),
        sigma=float(sigma.max()),
        c=float(growth.max()),
        sigma_bar=float(sigma_bar),
        c_bar=float(growth_bar),
        lipschitz=float(c.lipschitz.max()),
        nu_star=float(np.linalg.norm(c.nu_star, axis=1).max()),
        noise=float(sigma_bar**2 + 2 * cross),
        lam_1=lam_1,
        lam_2=lam_2,
        omega=omega,
        a_0=a_0,
        a_1=a_1,
        kick=kick,
        kick_c=kick_c,
    )
