"""The constants of the Poisson certificate, each read off the instance (docs/theory.md section 5b).

E[.|s] averages over option and outcome in state s, E_d also over s ~ d.  Z [S, S] is the deviation matrix, so
nu(theta, s) = sum_{s'} Z(s,s') E[phi delta|s'] solves the Poisson equation of the update.  With omega(o) =
max_a Q(o,a) - max_a Q_F(o,a) and ||Delta|| the whitened error, sum_o m(o) omega(o)^2 <= chi^2 ||Delta||^2, and

    nu(theta, s) = nu*(s) + B_s omega - U_s Delta.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from bounds.noise import Population

DENSE_LIMIT = 200_000_000  # entries of the largest array, S p max(O, p)


def _spectral(stack: Float[np.ndarray, "S p q"]) -> Float[np.ndarray, "S"]:
    """Spectral norm of each matrix, by the eigenvalues of the smaller Gram matrix (rounded up)."""
    left = stack if stack.shape[1] <= stack.shape[2] else stack.transpose(0, 2, 1)
    gram = left @ left.transpose(0, 2, 1)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0.0))


@dataclass(frozen=True)
class Correction:
    """The Poisson solution nu and the arrays made from it; `deviation` = 0 gives the i.i.d. control."""

    pop: Population
    deviation: Float[np.ndarray, "S S"]
    tabular: bool

    @cached_property
    def scale(self) -> Float[np.ndarray, "O"]:
        """chi / sqrt(m(o)): |omega(o)| weights are turned into ||Delta|| by it."""
        return self.pop.chi / np.sqrt(self.pop.least_mass)

    @cached_property
    def nu_star(self) -> Float[np.ndarray, "S p"]:
        """nu*(s) = (Z E[phi delta*|.])(s)."""
        return self.deviation @ (self.pop.mean_update @ self.pop.phi)

    @cached_property
    def along(self) -> Float[np.ndarray, "n"]:
        """phi(x)'nu*(s') of each outcome."""
        k = self.pop.outcomes
        return (self.nu_star @ self.pop.phi.T)[k.target, k.pair]

    @cached_property
    def b(self) -> Float[np.ndarray, "S p O"]:
        """B_s = sum_{s'} Z(s,s') E[phi g 1_{o'}'|s']."""
        k, states, count = self.pop.outcomes, len(self.deviation), len(self.pop.least_mass)
        rows = k.source * count + k.observation
        sums = sp.csr_array((k.weight * k.discount, (rows, k.pair)), shape=(states * count, len(self.pop.phi)))
        mean = (sums @ self.pop.phi).reshape(states, count, -1).transpose(0, 2, 1)
        return np.tensordot(self.deviation, mean, 1)

    @cached_property
    def u(self) -> Float[np.ndarray, "S p p"]:
        """U_s = sum_{s'} Z(s,s') E[phi phi'|s']."""
        m = self.pop.analysis.smdp
        lump = np.zeros((len(self.deviation), m.num_observations))
        np.add.at(lump.T, np.asarray(m.observation), self.deviation.T)
        return np.tensordot(lump, self.feature_square(np.ones(len(self.pop.phi))), 1)

    def feature_square(self, weight: Float[np.ndarray, "X"]) -> Float[np.ndarray, "O p p"]:
        """E[weight(x) phi phi'|s], which depends on s through its observation only."""
        beta = np.asarray(self.pop.analysis.smdp.behaviour)
        phi = self.pop.phi.reshape(*beta.shape, -1)
        scaled = phi * (beta * weight.reshape(beta.shape))[..., None]
        return np.matmul(scaled.transpose(0, 2, 1), phi)

    def by_observation(self, value: Float[np.ndarray, "n"]) -> Float[np.ndarray, "S O"]:
        """E[value 1{o' = o}|s]."""
        return self.pop.expect_by(value, self.pop.outcomes.observation, len(self.pop.least_mass))

    def by_pair(self, value: Float[np.ndarray, "n"]) -> Float[np.ndarray, "S X"]:
        """E[value 1{x}|s]."""
        return self.pop.expect_by(value, self.pop.outcomes.pair, len(self.pop.d))

    @cached_property
    def lipschitz(self) -> Float[np.ndarray, "S"]:
        """L(s) = chi ||B_s m^{-1/2}|| + ||U_s||: nu(., s) is L(s)-Lipschitz in Delta."""
        return _spectral(self.b * self.scale) + self.symmetric_norm(self.u)

    def symmetric_norm(self, stack: Float[np.ndarray, "R p p"]) -> Float[np.ndarray, "R"]:
        """Spectral norm of each symmetric matrix; those of a table are diagonal."""
        if self.tabular:
            return np.abs(np.diagonal(stack, axis1=1, axis2=2)).max(axis=1)
        return np.abs(np.linalg.eigvalsh(stack)[:, [0, -1]]).max(axis=1)

    @cached_property
    def lipschitz_mean(self) -> float:
        """Lbar: ||nu(theta, s) - nu*(s)|| in mean square over s ~ d, per ||Delta||."""
        d = self.pop.analysis.d[:, None, None]
        b = self.b * self.scale
        flat_b, flat_u = (np.sqrt(d) * part for part in (b, self.u))
        grams = [np.einsum("spq,spr->qr", part, part, optimize=True) for part in (flat_b, flat_u)]
        return float(sum(np.sqrt(max(np.linalg.eigvalsh(g)[-1], 0.0)) for g in grams))

    @cached_property
    def jump(self) -> Float[np.ndarray, "n"]:
        """l(x, s'), per outcome: ||nu(theta + alpha M^{-1} psi(x) delta, s') - nu(theta, s')|| <= alpha l |delta|.

        L(s') sqrt(n(x)) in general.  Tabular: only the value of o(x) moves, by t n(x) alpha delta with t in [0, 1], so
        the larger of the two ends t = 0, 1.
        """
        k, pop = self.pop.outcomes, self.pop
        if not self.tabular:
            return self.lipschitz[k.target] * np.sqrt(pop.norm2)[k.pair]
        options = pop.analysis.smdp.num_options
        level = np.matmul(self.u, pop.phi.T)
        value = self.b[:, :, np.arange(len(pop.phi)) // options] * pop.norm2
        ends = np.maximum(np.linalg.norm(level, axis=1), np.linalg.norm(value - level, axis=1))
        return ends[k.target, k.pair]


def is_tabular(pop: Population) -> bool:
    """Whether Psi is one indicator per available pair and M is diagonal."""
    used = pop.psi[pop.d > 0]
    return used.shape[0] == used.shape[1] and bool(
        np.array_equal(used, np.eye(len(used))) and np.array_equal(pop.metric, np.diag(np.diag(pop.metric)))
    )


@dataclass(frozen=True)
class Constants:
    """The numbers of the certificate.  Units: reward for sigma, nu_star; reward^2 for noise, omega; 1 for c, L.

    chi, mu: ||Q-Q_F||_d <= chi ||Delta|| and the drift (`Population.drift`).
    sigma, c: sqrt E||update||^2 given s <= sigma + c ||Delta||, largest over s; *_bar under d.
    lipschitz, nu_star: nu is L-Lipschitz, ||nu*(s)|| <= nu_star.
    noise = Sc = E_d||phi delta*||^2 + 2 d.X = tr M^{-1}(Sigma_0 + Sigma_mix); lam_1, lam_2: how the second-order
    stationary average grows with x and x^2.
    omega, a_0, a_1: |Omega| <= omega + a_0 x + a_1 x^2 and its increments.
    kick, kick_c: sqrt E[l sqrt(n) delta^2|s] <= kick + kick_c ||Delta||.
    """

    chi: float
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


@lru_cache(maxsize=4)
def constants(pop: Population, *, iid: bool = False) -> Constants:
    """Lemma (constants): every constant of the certificate; with `iid` those of the control (no corrections).

    Raises ValueError where the arrays would be too large.
    """
    states, p = pop.analysis.smdp.num_states, len(pop.theta_star)
    size = states * p * max(p, len(pop.least_mass))
    if size > DENSE_LIMIT:
        raise ValueError(f"the certificate needs arrays of {size} entries, more than {DENSE_LIMIT}")
    deviation = np.zeros((states, states)) if iid else pop.analysis.deviation
    return _assemble(Correction(pop, deviation, is_tabular(pop)))


def _growth(
    c: Correction, per: Float[np.ndarray, "R S"], own: Float[np.ndarray, "R p p"]
) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """(sigma, c) with sqrt E[||phi delta||^2] <= sigma + c ||Delta|| under each row of state weights.

    sigma^2 = E[n delta*^2], c = chi max_o sqrt(E[n g^2 1_{o'}]/m(o)) + ||E[n phi phi']||^{1/2}, the last mean is `own`.
    """
    pop, k = c.pop, c.pop.outcomes
    n = pop.norm2[k.pair]
    sigma = np.sqrt(per @ pop.expect(n * pop.td_error**2))
    onward = (c.scale * np.sqrt(per @ c.by_observation(n * k.discount**2))).max(axis=1)
    return sigma, onward + np.sqrt(c.symmetric_norm(own))


def _jump_growth(c: Correction, per: Float[np.ndarray, "R S"]) -> Float[np.ndarray, "R"]:
    """u with E[l |delta - delta*|] <= u ||Delta|| under each row of state weights."""
    k, live = c.pop.outcomes, c.pop.d > 0
    onward = np.linalg.norm((per @ c.by_observation(c.jump * k.discount)) * c.scale, axis=1)
    own = np.linalg.norm((per @ c.by_pair(c.jump))[:, live] / np.sqrt(c.pop.d[live]), axis=1)
    return onward + c.pop.chi * own


def _linear(c: Correction) -> float:
    """The x-coefficient of E_d||phi delta||^2 + 2 E_d<nu(theta, s_1), phi delta> around theta*.

    Both are quadratic forms in (omega, Delta); C collects what multiplies g omega(o') - phi'Delta once:
    C = 2 d(s) [n delta* + phi'nu*(s_1)] + 2 phi'(Z'y)(s), y(s') = E_d[phi delta* 1{s_1 = s'}].
    """
    pop, k = c.pop, c.pop.outcomes
    back = (c.deviation.T @ (pop.arrive(pop.td_error) @ pop.phi)) @ pop.phi.T
    stationary = pop.norm2[k.pair] * pop.td_error + c.along
    weight = 2 * pop.analysis.d[k.source] * stationary + 2 * back[k.source, k.pair]
    onward = c.by_observation(weight * k.discount).sum(0)
    own = c.by_pair(weight).sum(0)
    return float(np.linalg.norm(onward * c.scale) + np.linalg.norm(pop.phi.T @ own))


def _assemble(c: Correction) -> Constants:
    pop, k = c.pop, c.pop.outcomes
    a, rho, n = pop.analysis, np.abs(pop.td_error), pop.norm2[k.pair]
    d, every = a.d, np.eye(len(a.d))
    own = c.feature_square(pop.norm2)
    sigma, growth = _growth(c, every, own[a.smdp.observation])
    (sigma_bar,), (growth_bar,) = _growth(c, d[None], np.tensordot(a.d_obs, own, 1)[None])
    u, (u_bar,) = _jump_growth(c, every), _jump_growth(c, d[None])
    cross = pop.expect(pop.td_error * c.along)
    lip_next = np.sqrt(a.transition @ c.lipschitz**2)
    nu_next = np.sqrt(a.transition @ (c.nu_star**2).sum(1))
    push = pop.expect(c.jump * rho)
    a_0 = 2 * (growth * sigma + lip_next * sigma + nu_next * growth + push)
    a_1 = growth**2 + 2 * lip_next * growth + 2 * u
    kick_weight = c.jump * np.sqrt(n)
    live = pop.d > 0
    kick_c = (c.scale * np.sqrt(c.by_observation(kick_weight * k.discount**2))).max(axis=1)
    kick_c = kick_c + pop.chi * np.sqrt(c.by_pair(kick_weight)[:, live] / pop.d[live]).max(axis=1)
    size = np.abs(c.deviation)
    numbers = dict(
        chi=pop.chi, mu=pop.drift, sigma=sigma.max(), c=growth.max(), sigma_bar=sigma_bar, c_bar=growth_bar,
        lipschitz=c.lipschitz.max(), nu_star=np.linalg.norm(c.nu_star, axis=1).max(),
        noise=sigma_bar**2 + 2 * d @ cross, lam_1=_linear(c) + 2 * d @ push,
        lam_2=growth_bar**2 + 2 * c.lipschitz_mean * growth_bar + 2 * u_bar,
        omega=np.abs(c.deviation @ (sigma**2 + 2 * cross)).max(), a_0=(size @ a_0).max(), a_1=(size @ a_1).max(),
        kick=np.sqrt(pop.expect(kick_weight * rho**2).max()), kick_c=kick_c.max(),
    )  # fmt: skip
    return Constants(**{name: float(value) for name, value in numbers.items()})
