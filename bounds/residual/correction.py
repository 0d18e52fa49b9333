"""The Poisson solution of the update and the arrays made from it (docs/theory.md section 5b).

E[.|s] averages over option and outcome in state s.  Z [S, S] is the deviation matrix, so nu(theta, s) =
sum_{s'} Z(s,s') E[u delta|s'] solves the Poisson equation of the update.

Coordinates: with the weight W = L L' of the Lyapunov function, Delta = L'(theta - theta*) moves by alpha u(x) delta,
u(x) = L'M^{-1}psi(x), and Q - Q_F is read off by r(x) = L^{-1}psi(x); for W = M both are phi(x).  With omega(o) =
max_a Q(o,a) - max_a Q_F(o,a), sum_o m(o) omega(o)^2 <= chi^2 ||Delta||^2, and

    nu(theta, s) = nu*(s) + B_s omega - U_s Delta.

omega has kinks.  When theta moves by alpha M^{-1} psi(x) delta, omega(o) moves by alpha delta times something between
the least and the largest r(o,a)'u(x): the middle of that is a linear response v, the half-range a kink of size j.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
from jaxtyping import Float

from bounds.residual.population import Population
from icq.display import Shown


def top_eigenvalue(stack: Float[np.ndarray, "R p p"]) -> Float[np.ndarray, "R"]:
    """Largest eigenvalue of each positive semidefinite matrix."""
    return np.maximum(np.linalg.eigvalsh(stack)[:, -1], 0.0)


def spectral_norm(stack: Float[np.ndarray, "R p q"]) -> Float[np.ndarray, "R"]:
    """Spectral norm of each matrix, by the smaller Gram matrix."""
    left = stack if stack.shape[1] <= stack.shape[2] else stack.transpose(0, 2, 1)
    return np.sqrt(top_eigenvalue(left @ left.transpose(0, 2, 1)))


def is_diagonal(stack: Float[np.ndarray, "R p p"]) -> bool:
    """Whether every matrix is diagonal, as all feature products of a table are."""
    p = stack.shape[1]
    return not stack.reshape(len(stack), -1)[:, ~np.eye(p, dtype=bool).reshape(-1)].any()


def symmetric_norm(stack: Float[np.ndarray, "R p p"]) -> Float[np.ndarray, "R"]:
    """Spectral norm of each symmetric matrix."""
    if is_diagonal(stack):
        return np.abs(np.diagonal(stack, axis1=1, axis2=2)).max(axis=1)
    return np.abs(np.linalg.eigvalsh(stack)[:, [0, -1]]).max(axis=1)


@dataclass(frozen=True, eq=False)
class Correction(Shown):
    """nu and its parts for one population; `deviation` = 0 [S, S] gives the i.i.d. control, where nu = 0.

    weight: W [p, p], symmetric positive definite; None for W = M.
    """

    pop: Population
    deviation: Float[np.ndarray, "S S"]
    weight: Float[np.ndarray, "p p"] | None = None

    @cached_property
    def root(self) -> Float[np.ndarray, "p p"]:
        """L, lower triangular with W = L L'."""
        return self.pop.root if self.weight is None else np.linalg.cholesky(self.weight)

    @cached_property
    def push(self) -> Float[np.ndarray, "X p"]:
        """Row x is u(x) = L'M^{-1}psi(x): an update at x moves Delta by alpha delta u(x)."""
        return self.pop.phi if self.weight is None else np.linalg.solve(self.pop.metric, self.pop.psi.T).T @ self.root

    @cached_property
    def read(self) -> Float[np.ndarray, "X p"]:
        """Row x is r(x) = L^{-1}psi(x): r(x)'Delta = Q(x) - Q_F(x)."""
        return self.pop.phi if self.weight is None else la.solve_triangular(self.root, self.pop.psi.T, lower=True).T

    @cached_property
    def norm2(self) -> Float[np.ndarray, "X"]:
        """n(x) = ||u(x)||^2."""
        return (self.push**2).sum(1)

    @cached_property
    def spectrum(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue of R'D R: ||Q - Q_F||_d^2 lies between these multiples of ||Delta||^2."""
        values = np.linalg.eigvalsh(self.read.T @ (self.pop.d[:, None] * self.read))
        return float(values[0]), float(values[-1])

    @cached_property
    def scale(self) -> Float[np.ndarray, "O"]:
        """chi / sqrt(m(o)), so that ||scale^{-1} omega|| <= ||Delta||."""
        return np.sqrt(self.spectrum[1] / self.pop.least_mass)

    @cached_property
    def nu_star(self) -> Float[np.ndarray, "S p"]:
        """nu*(s) = (Z E[u delta*|.])(s)."""
        return self.deviation @ (self.pop.mean_update @ self.push)

    @cached_property
    def b(self) -> Float[np.ndarray, "S p O"]:
        """B_s = sum_{s'} Z(s,s') E[u g 1_{o'}'|s']."""
        k, states, count = self.pop.outcomes, len(self.deviation), len(self.pop.least_mass)
        rows = k.source * count + k.observation
        sums = sp.csr_array((k.weight * k.discount, (rows, k.pair)), shape=(states * count, len(self.push)))
        mean = (sums @ self.push).reshape(states, count, -1).transpose(0, 2, 1)
        return np.tensordot(self.deviation, mean, 1)

    @cached_property
    def u(self) -> Float[np.ndarray, "S p p"]:
        """U_s = sum_{s'} Z(s,s') E[u r'|s']."""
        return np.tensordot(self.lump(self.deviation), self.features(self.push, np.ones(len(self.push))), 1)

    @cached_property
    def reach(self) -> Float[np.ndarray, "S"]:
        """||B_s m^{-1/2}||."""
        return spectral_norm(self.b / np.sqrt(self.pop.least_mass))

    @cached_property
    def squares(self) -> tuple[Float[np.ndarray, "S O O"], Float[np.ndarray, "S p p"]]:
        """m^{-1/2}B'B m^{-1/2} and U'U of every state."""
        b = self.b / np.sqrt(self.pop.least_mass)
        return np.matmul(b.transpose(0, 2, 1), b), np.matmul(self.u.transpose(0, 2, 1), self.u)

    @cached_property
    def lipschitz(self) -> Float[np.ndarray, "S"]:
        """L(s) = chi ||B_s m^{-1/2}|| + ||U_s||: nu(., s) is L(s)-Lipschitz in Delta."""
        own = symmetric_norm(self.u) if self.weight is None else spectral_norm(self.u)
        return np.sqrt(self.spectrum[1]) * self.reach + own

    @cached_property
    def response(self) -> tuple[Float[np.ndarray, "X O"], Float[np.ndarray, "X O"]]:
        """Middle and half-range over available a of r(o,a)'u(x): how omega(o) can follow an update at x."""
        available = self.pop.analysis.interface.available
        inner = (self.push @ self.read.T).reshape(len(self.push), *available.shape)
        high = np.where(available, inner, -np.inf).max(axis=2)
        low = np.where(available, inner, np.inf).min(axis=2)
        return (high + low) / 2, (high - low) / 2

    @cached_property
    def v(self) -> Float[np.ndarray, "S p X"]:
        """The linear part of the change of nu: B_{s'} c_x - U_{s'} u(x), with c_x the middle response."""
        return self.b @ self.response[0].T - self.u @ self.push.T

    @cached_property
    def kink(self) -> Float[np.ndarray, "S X"]:
        """j(x, s'), the size of the rest, with h_x the half-range of the response.

        The smaller of sum_o h_x(o) ||B_{s'} e_o|| and ||B_{s'} m^{-1/2}|| ||m^{1/2} h_x||.
        """
        half = self.response[1]
        entry = np.linalg.norm(self.b, axis=1) @ half.T
        root = np.sqrt(self.pop.least_mass)
        return np.minimum(entry, np.outer(self.reach, np.linalg.norm(half * root, axis=1)))

    @cached_property
    def v_square(self) -> Float[np.ndarray, "S p p"]:
        """E[v v'/n | s], with 0 where n(x) = 0 (then v = 0)."""
        k = self.pop.outcomes
        key = (k.source * len(self.push) + k.pair) * len(self.deviation) + k.target
        distinct, index = np.unique(key, return_inverse=True)
        source, rest = np.divmod(distinct, len(self.push) * len(self.deviation))
        pair, target = np.divmod(rest, len(self.deviation))
        n = self.norm2[pair]
        weight = np.divide(np.bincount(index, weights=k.weight), n, out=np.zeros(len(n)), where=n > 0)
        ends = np.searchsorted(source, np.arange(len(self.deviation) + 1))
        out = np.empty_like(self.u)
        for s, (i, j) in enumerate(pairwise(ends)):
            vectors = self.v[target[i:j], :, pair[i:j]]
            out[s] = vectors.T @ (weight[i:j, None] * vectors)
        return out

    def lump(self, rows: Float[np.ndarray, "R S"]) -> Float[np.ndarray, "R O"]:
        """Weights over states summed over the states of each observation."""
        out = np.zeros((len(self.pop.least_mass), len(rows)))
        np.add.at(out, np.asarray(self.pop.analysis.smdp.observation), rows.T)
        return out.T

    def features(self, left: Float[np.ndarray, "X p"], weight: Float[np.ndarray, "X"]) -> Float[np.ndarray, "O p p"]:
        """E[weight(x) left(x) r(x)'|s], which depends on s through its observation only."""
        beta = np.asarray(self.pop.analysis.smdp.behaviour)
        scaled = left.reshape(*beta.shape, -1) * (beta * weight.reshape(beta.shape))[..., None]
        return np.matmul(scaled.transpose(0, 2, 1), self.read.reshape(*beta.shape, -1))

    def by_observation(self, value: Float[np.ndarray, "n"]) -> Float[np.ndarray, "S O"]:
        """E[value 1{o' = o}|s]."""
        return self.pop.expect_by(value, self.pop.outcomes.observation, len(self.pop.least_mass))

    def by_pair(self, value: Float[np.ndarray, "n"]) -> Float[np.ndarray, "S X"]:
        """E[value 1{x}|s]."""
        return self.pop.expect_by(value, self.pop.outcomes.pair, len(self.pop.d))

    def follow(self, table: Float[np.ndarray, "S X"]) -> Float[np.ndarray, "n"]:
        """table(s', x) of each outcome."""
        k = self.pop.outcomes
        return table[k.target, k.pair]
