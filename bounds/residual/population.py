"""The population problem of a linear class and the TD noise at its fixed point.

Letters (docs/theory.md section 5): x = (o, a) numbers the X = O*A pairs, state-major; psi(x) is row x of Psi [X, p];
D = diag d(x); M [p, p] is the preconditioner of theta <- theta + alpha M^{-1} psi(x) delta.  Whitened by M = L L':
phi(x) = L^{-1} psi(x), Delta = L'(theta - theta*), so phi(x)'Delta = Q(x) - Q_F(x) and ||Delta||^2 is the M-norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
from jaxtyping import Float, Int

from bounds.core.bound import Assumption
from bounds.core.sector import Sector
from bounds.interface.gap import contracts, round_up
from icq.display import Fact, Shown, spread
from icq.exact import Analysis, outcome_discount
from icq.exact.fixed_point import greedy, root_sum
from icq.exact.projected import Affine, fixed_point
from icq.reason import NoNumber, Reason, Why
from icq.smdp import ICSMDP

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class FlatOutcomes(Shown):
    """The outcomes that can happen under the behaviour policy, flat, in order of their state.

    weight = beta(a|phi(s)) P(b|s,a), so it sums to 1 over each source state; pair and target_pair hold o*A + a and
    the first pair o'*A of the observation handed over to.
    """

    source: Int[np.ndarray, "n"]
    pair: Int[np.ndarray, "n"]
    target: Int[np.ndarray, "n"]
    observation: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]
    discount: Float[np.ndarray, "n"]
    reward: Float[np.ndarray, "n"]


def outcomes(m: ICSMDP) -> FlatOutcomes:
    """The flat outcomes of positive probability of an instance."""
    states, options, branches = m.prob.shape
    obs = np.asarray(m.observation)
    weight = (np.asarray(m.behaviour)[obs][..., None] * m.prob).reshape(-1)
    keep = np.flatnonzero(weight > 0)
    source, option, _ = np.unravel_index(keep, (states, options, branches))
    target = np.asarray(m.next_state).reshape(-1)[keep]
    return FlatOutcomes(
        source, obs[source] * options + option, target, obs[target], weight[keep],
        outcome_discount(m).reshape(-1)[keep], np.asarray(m.reward).reshape(-1)[keep],
    )  # fmt: skip


def sampled_range(k: FlatOutcomes) -> tuple[float, float]:
    """Between which every discounted sum of sampled rewards lies; 0, an ended task's value, is inside."""
    rest = 1 - float(k.discount.max())
    return min(float(k.reward.min()), 0.0) / rest, max(float(k.reward.max()), 0.0) / rest


def tabular_features(a: Analysis) -> Float[np.ndarray, "X p"]:
    """Psi of the tabular class: one indicator per available pair (rows of unavailable pairs are 0)."""
    available = a.interface.available.reshape(-1)
    return np.eye(available.size)[:, available]


def block_features(a: Analysis, features: Float[np.ndarray, "O A p"]) -> Float[np.ndarray, "X q"]:
    """Psi [O*A, N*p] of per-agent features: row (o, a) is non-zero only in the block of the agent that acts on o."""
    observations, options, width = features.shape
    psi = np.zeros((observations, options, a.smdp.num_agents, width))
    psi[np.arange(observations), :, np.asarray(a.smdp.agent)] = features
    return psi.reshape(observations * options, -1)


def local_clock(a: Analysis, psi: Float[np.ndarray, "X p"]) -> Float[np.ndarray, "p p"]:
    """M = Psi'D Psi, which makes ||theta||_M = ||Psi theta||_d; for the tabular class M = D, a step per own visit."""
    return psi.T @ (a.d_pair.reshape(-1, 1) * psi)


@dataclass(frozen=True, eq=False)
class Population(Shown):
    """One linear class {offset + Psi theta} on one instance, with its fixed point theta*; made by `population`.

    psi [X, p] with zero rows at unavailable pairs, metric M [p, p], offset [X], theta_star [p], q_f [O, A] = Q_F,
    residual = ||Q_F - Pi That Q_F||_d, rank_margin = lambda_min/lambda_max of Psi'D Psi.
    """

    analysis: Analysis
    psi: Float[np.ndarray, "X p"]
    metric: Float[np.ndarray, "p p"]
    offset: Float[np.ndarray, "X"]
    theta_star: Float[np.ndarray, "p"]
    q_f: Float[np.ndarray, "O A"]
    residual: float
    rank_margin: float

    @cached_property
    def outcomes(self) -> FlatOutcomes:
        """Flat outcomes under the behaviour policy."""
        return outcomes(self.analysis.smdp)

    @cached_property
    def root(self) -> Float[np.ndarray, "p p"]:
        """L, lower triangular with M = L L'."""
        return np.linalg.cholesky(self.metric)

    @cached_property
    def phi(self) -> Float[np.ndarray, "X p"]:
        """Whitened features, row x is L^{-1} psi(x)."""
        return la.solve_triangular(self.root, self.psi.T, lower=True).T

    @cached_property
    def norm2(self) -> Float[np.ndarray, "X"]:
        """n(x) = ||phi(x)||^2."""
        return (self.phi**2).sum(1)

    @cached_property
    def d(self) -> Float[np.ndarray, "X"]:
        """Stationary mass of each pair, 0 at unavailable ones."""
        return self.analysis.d_pair.reshape(-1)

    @cached_property
    def sector(self) -> Sector:
        """The class with its maxima in their sector."""
        return Sector(self.analysis, self.psi, self.metric)

    @property
    def least_mass(self) -> Float[np.ndarray, "O"]:
        """m(o) = min over available options of d(o, a)."""
        return self.sector.least_mass

    @cached_property
    def spectrum(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue of Phi'D Phi: ||Q - Q_F||_d^2 lies between these multiples of ||Delta||^2."""
        values = np.linalg.eigvalsh(self.phi.T @ (self.d[:, None] * self.phi))
        return float(values[0]), float(values[-1])

    @property
    def chi(self) -> float:
        """chi: ||Q - Q_F||_d <= chi ||Delta||."""
        return float(np.sqrt(self.spectrum[1]))

    @cached_property
    def kappa(self) -> float:
        """kappa_F = ||G^{-1/2} Phi'D Khat m^{-1/2}||_2 <= kappa, G = Phi'D Phi: the class's own d-norm modulus.

        Lemma (drift): <mean update, Delta> <= -(1 - kappa_F) ||Q - Q_F||_d^2 for every preconditioner.
        """
        basis = np.linalg.qr(np.sqrt(self.d)[:, None] * self.psi)[0]
        onward = (
            sp.diags_array(np.sqrt(self.d)) @ self.analysis.interface.kernel @ sp.diags_array(self.least_mass**-0.5)
        )
        norm = float(np.linalg.norm(basis.T @ onward, 2))
        return min(round_up(norm, sum(basis.shape)), self.analysis.kappa)

    @property
    def drift(self) -> float:
        """mu = (1 - kappa_F) lambda_min(Phi'D Phi): <mean update, Delta> <= -mu ||Delta||^2 (mu < 0 if kappa_F > 1)."""
        rest = 1 - self.kappa
        low, high = self.spectrum
        guard = len(self.theta_star) * _EPS * high
        return rest * max(low - guard, 0.0) if rest > 0 else rest * high

    @cached_property
    def greedy(self) -> Int[np.ndarray, "O"]:
        """Pair index of the greedy option of Q_F on each observation (the first one at a tie)."""
        policy, _ = greedy(self.q_f, self.analysis.interface.available)
        return np.arange(len(policy)) * self.q_f.shape[1] + policy

    @cached_property
    def td_error(self) -> Float[np.ndarray, "n"]:
        """delta* = R + g max_a Q_F(o', a) - Q_F(x), one per outcome."""
        k, table = self.outcomes, self.q_f.reshape(-1)
        return k.reward + k.discount * table[self.greedy][k.observation] - table[k.pair]

    def expect(self, value: Float[np.ndarray, "n"]) -> Float[np.ndarray, "S"]:
        """E[value | s] over option and outcome."""
        k = self.outcomes
        return np.bincount(k.source, weights=k.weight * value, minlength=self.analysis.smdp.num_states)

    def expect_by(
        self, value: Float[np.ndarray, "n"], index: Int[np.ndarray, "n"], count: int
    ) -> Float[np.ndarray, "S count"]:
        """E[value 1{index = j} | s] for j < count."""
        return self._table(self.outcomes.source, self.outcomes.weight * value, index, count)

    def arrive(self, value: Float[np.ndarray, "n"]) -> Float[np.ndarray, "S X"]:
        """E_d[value 1{x} 1{s_1 = s'}] for each next state s'."""
        k = self.outcomes
        return self._table(k.target, self.mass * value, k.pair, len(self.d))

    def _table(self, row: np.ndarray, value: np.ndarray, column: np.ndarray, count: int) -> np.ndarray:
        states = self.analysis.smdp.num_states
        return np.bincount(row * count + column, weights=value, minlength=states * count).reshape(states, count)

    @cached_property
    def mass(self) -> Float[np.ndarray, "n"]:
        """Stationary probability of each outcome."""
        return self.analysis.d[self.outcomes.source] * self.outcomes.weight

    @cached_property
    def mean_update(self) -> Float[np.ndarray, "S X"]:
        """E[delta* 1{x}|s], so that h*(s) = E[psi delta*|s] is this times Psi."""
        return self.expect_by(self.td_error, self.outcomes.pair, len(self.d))

    @cached_property
    def sigma_0(self) -> Float[np.ndarray, "p p"]:
        """Sigma_0 = E_d[z z'] with z = psi(x) delta*: what an i.i.d. draw of each handoff would give."""
        weight = np.bincount(self.outcomes.pair, weights=self.mass * self.td_error**2, minlength=len(self.d))
        return self.psi.T @ (weight[:, None] * self.psi)

    @cached_property
    def too_slow(self) -> Why | None:
        """Why there is no deviation matrix; None where there is one."""
        try:
            self.analysis.deviation  # noqa: B018  # computed once
        except NoNumber as error:
            return error.why
        return None

    @cached_property
    def sigma_mix(self) -> Float[np.ndarray, "p p"]:
        """Lemma (sigma_mix): sum_{k>=1} E_d[z_0 z_k'] + transpose = Y + Y', by the deviation matrix Z.

        Y = sum_s E_d[z_0 1{s_1 = s}] (Z h*)(s)' with h*(s) = E[z|s]: the sum over k >= 1 of E_d[z_0 z_k'] is
        E_d[z_0 sum_{j>=0} (P^j h*)(s_1)'], and E_d[h*] = 0.  For a periodic chain the sum is an Abel sum.
        """
        y = (self.arrive(self.td_error) @ self.psi).T @ (self.analysis.deviation @ (self.mean_update @ self.psi))
        return y + y.T

    @cached_property
    def noise(self) -> Float[np.ndarray, "p p"]:
        """M^{-1}(Sigma_0 + Sigma_mix)M^{-1}."""
        return self.sector.inverse @ (self.sigma_0 + self.sigma_mix) @ self.sector.inverse

    @cached_property
    def jacobian(self) -> Float[np.ndarray, "p p"]:
        """J = Psi'D (I - Khat Sel) Psi, minus the derivative of the mean update where the greedy options are unique."""
        following = self.analysis.interface.kernel @ self.psi[self.greedy]
        return self.psi.T @ (self.d[:, None] * (self.psi - following))

    def error(self, theta: Float[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
        """Delta = L'(theta - theta*)."""
        return self.root.T @ (theta - self.theta_star)

    @cached_property
    def range_error(self) -> Float[np.ndarray, "X"]:
        """The largest |Q - Q_F|(x) of any Q in the range of discounted sums of rewards; 0 at unavailable pairs."""
        low, high = sampled_range(self.outcomes)
        table = self.q_f.reshape(-1)
        return np.where(self.d > 0, np.maximum(table - low, high - table), 0.0)

    @property
    def range_cap(self) -> float:
        """The largest ||Q - Q_F||_d of any table Q in the range of discounted sums of rewards."""
        return float(np.sqrt(self.d @ self.range_error**2))

    def _facts_(self) -> list[Fact]:
        return [
            Fact("pairs", len(self.psi)), Fact("parameters", self.psi.shape[1]),
            Fact("Q_F", spread(self.q_f), "reward"), Fact("residual", self.residual),
            Fact("rank margin", self.rank_margin), Fact("kappa_F", vars(self).get("kappa")),
        ]  # fmt: skip


def contraction_assumption(pop: Population) -> Assumption:
    """kappa_F < 1: Pi That is a contraction in the d-norm, so Q_F is unique and the mean update has a drift."""
    return contracts("contraction", pop.kappa)


def is_tabular(pop: Population) -> bool:
    """Whether Psi is one indicator per available pair and M is diagonal."""
    used = pop.psi[pop.d > 0]
    return used.shape[0] == used.shape[1] and bool(
        np.array_equal(used, np.eye(len(used))) and np.array_equal(pop.metric, np.diag(np.diag(pop.metric)))
    )


def population(
    a: Analysis,
    psi: Float[np.ndarray, "X p"],
    metric: Float[np.ndarray, "p p"] | None = None,
    offset: Float[np.ndarray, "X"] | None = None,
    *,
    tolerance: float = 1e-12,
) -> Population:
    """The class {offset + Psi theta} with preconditioner `metric` (default: the identity) and its fixed point.

    Raises NoNumber for dependent features, for a metric that is not symmetric positive definite, and when no fixed
    point was found within `tolerance` of the values (possible only for kappa_F >= 1).
    """
    d, available = a.d_pair.reshape(-1), a.interface.available.reshape(-1)
    psi = np.where(available[:, None], psi, 0.0)
    base = np.where(available, 0.0 if offset is None else offset, 0.0)
    values = np.linalg.eigvalsh(psi.T @ (d[:, None] * psi))
    if not values[0] > len(values) * _EPS * values[-1]:
        raise NoNumber(Reason.DEPENDENT, f"eigenvalues of Psi'D Psi from {values[0]:.2e} to {values[-1]:.2e}")
    metric = np.eye(psi.shape[1]) if metric is None else metric
    _check_metric(metric)
    members = Affine(a.interface, d, psi, base)
    scale = max(a.norm_d(a.q_bar), root_sum(d, base))
    theta = fixed_point(members, lambda _, residual: residual <= tolerance * scale).point
    residual = members.distance(theta, members.image(theta))
    if not np.isfinite(residual):
        raise NoNumber(Reason.NO_FIXED_POINT, "its parameters leave the range of a double")
    return Population(a, psi, metric, base, theta, members.table(theta), residual, float(values[0] / values[-1]))


def _check_metric(metric: Float[np.ndarray, "p p"]) -> None:
    if not np.abs(metric - metric.T).max() <= 1e-12 * np.abs(metric).max():
        raise NoNumber(Reason.BAD_METRIC, "it is not symmetric")
    low = float(np.linalg.eigvalsh(metric)[0])
    if not low > 0:
        raise NoNumber(Reason.BAD_METRIC, f"its smallest eigenvalue is {low:.3g}")


def tabular(a: Analysis) -> Population:
    """The tabular class with the local clock M = D: every pair steps by alpha / d(x)."""
    psi = tabular_features(a)
    return population(a, psi, local_clock(a, psi))
