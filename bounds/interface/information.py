"""Rung 5, the approximate information state: the local gap as a distance between distributions.

With xi = K(.|s,a) - Khat(.|phi(s),a) on observations, f = Vbar and m the mass of xi,
|b(s,a)| <= |r - rhat|(s,a) + |xi f|, and |xi f| is split into how long (the mass m: what durations and endings cost)
and where (what the next observation costs).  Kernels are sub-stochastic, so m is not zero and leaving it out is
false.  K = gamma(s,a) p and Khat = ghat(o,a) q with p, q probabilities.  Letters: docs/theory.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import ot
import scipy.sparse as sp
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist

from bounds.core.bound import Assumption, Bound, below, conditional
from bounds.interface.gap import SECTION, rounding, trivial_cap
from icq.display import Fact, Shown, spread
from icq.exact import Analysis

SMALLEST = 1e-10  # relative eigenvalue from which ||f||_H is known to six digits


@dataclass(frozen=True)
class Mismatch(Shown):
    """One split of the local gap: |b| <= reward + mass + shape at every available (s,a), 0 elsewhere.

    reward: |r - rhat|; mass: how long; shape: where, infinite if an assumption fails.  All [S, A] in units of reward.
    """

    name: str
    reward: Float[np.ndarray, "S A"]
    mass: Float[np.ndarray, "S A"]
    shape: Float[np.ndarray, "S A"]
    assumptions: tuple[Assumption, ...] = ()

    @property
    def total(self) -> Float[np.ndarray, "S A"]:
        """The sum of the three parts, an upper bound of |b|."""
        return self.reward + self.mass + self.shape

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.name), Fact("states", len(self.reward)), Fact("options", self.reward.shape[1]),
                Fact("largest total", spread(self.total), "reward"),
                *(Fact("", f"inapplicable: {a}") for a in self.assumptions if not a.holds)]  # fmt: skip


@dataclass(frozen=True)
class _Laws:
    """p and q as [S*A, O] row-stochastic matrices (a zero row where both masses are 0), their masses and |r - rhat|."""

    p: sp.csr_array
    q: sp.csr_array
    mass: Float[np.ndarray, "S A"]
    mass_hat: Float[np.ndarray, "S A"]
    reward: Float[np.ndarray, "S A"]

    @property
    def difference(self) -> sp.csr_array:
        return sp.csr_array(self.p - self.q)


def _kernels(a: Analysis) -> tuple[sp.csr_array, sp.csr_array]:
    """K(o'|s,a) and Khat(o'|phi(s),a), both on rows (s,a) and zero on unavailable ones."""
    states, options = a.oracle.reward.shape
    obs = np.asarray(a.smdp.observation)
    lump = sp.csr_array((np.ones(states), obs, np.arange(states + 1)), shape=(states, len(a.d_obs)))
    rows = (obs[:, None] * options + np.arange(options)).reshape(-1)
    return sp.csr_array(a.oracle.kernel @ lump), a.interface.kernel[rows]


def _laws(a: Analysis) -> _Laws:
    kernel, kernel_hat = _kernels(a)
    mass, mass_hat = kernel.sum(axis=1), kernel_hat.sum(axis=1)
    p, q = _normalised(kernel, mass), _normalised(kernel_hat, mass_hat)
    # A law of zero mass is arbitrary: taking the other one makes its distance 0, and the mass term exact.
    p = p + sp.diags_array((mass == 0).astype(float)) @ q
    q = q + sp.diags_array((mass_hat == 0).astype(float)) @ p
    shape = a.oracle.reward.shape
    return _Laws(sp.csr_array(p), sp.csr_array(q), mass.reshape(shape), mass_hat.reshape(shape), _reward(a))


def _normalised(kernel: sp.csr_array, mass: Float[np.ndarray, "n"]) -> sp.csr_array:
    return sp.csr_array(sp.diags_array(np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0)) @ kernel)


def _reward(a: Analysis) -> Float[np.ndarray, "S A"]:
    return np.where(a.oracle.available, np.abs(a.oracle.reward - a.interface.reward[a.smdp.observation]), 0.0)


def _balanced(
    a: Analysis, name: str, laws: _Laws, distance: Float[np.ndarray, "n"], assumptions: tuple[Assumption, ...] = ()
) -> Mismatch:
    """Split (C): |xi f| <= |m| |q f| + gamma(s,a) D(p,q), for any D with |p f - q f| <= D."""
    carried = np.abs(laws.q @ a.v_bar).reshape(laws.mass.shape)
    shape = np.where(laws.mass > 0, laws.mass * distance.reshape(laws.mass.shape), 0.0)
    return Mismatch(name, laws.reward, np.abs(laws.mass - laws.mass_hat) * carried, shape, assumptions)


def centred_total_variation(a: Analysis) -> Mismatch:
    """Lemma (split A): |xi f| <= |mid f| |m| + (span f/2) ||xi||_1, mid and span of f = Vbar over observations.

    The best possible bound over all functions with the range of f.  ||xi||_1 is the full l1 norm: it contains |m|.
    """
    kernel, kernel_hat = _kernels(a)
    xi = sp.csr_array(kernel - kernel_hat)
    high, low = float(a.v_bar.max()), float(a.v_bar.min())
    shape = a.oracle.reward.shape
    mass = abs(high + low) / 2 * np.abs(xi.sum(axis=1))
    spread = (high - low) / 2 * abs(xi).sum(axis=1)
    return Mismatch("centred total variation", _reward(a), mass.reshape(shape), spread.reshape(shape))


def total_variation(a: Analysis) -> Mismatch:
    """Lemma (split C, total variation): D(p,q) = (span Vbar/2) ||p - q||_1."""
    laws = _laws(a)
    spread = float(np.ptp(a.v_bar))
    return _balanced(a, "total variation", laws, spread / 2 * abs(laws.difference).sum(axis=1))


def wasserstein(a: Analysis, features: Float[np.ndarray, "O k"]) -> Mismatch:
    """Lemma (split C, Wasserstein-1): D(p,q) = Lip(Vbar) W1(p,q), both in the Euclidean metric of `features`.

    Assumption: features separate observations of different Vbar, or Lip(Vbar) is infinite; the margin is the smallest
    distance of two such observations.  W1 is the cost of a transport plan from a network simplex, so an early stop
    could only make it larger.  Raises ValueError for features that are not finite or a simplex without solution.
    """
    bad = ~np.isfinite(features)
    if bad.any():
        o, k = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"features[{o}, {k}] = {features[o, k]} is not finite")
    metric = cdist(features, features)
    rise = np.abs(a.v_bar[:, None] - a.v_bar)
    rise[rise <= 2 * a.interface_solution.error] = 0.0  # equal as far as the solver can tell; see `roundoff` below
    separation = float(metric[rise > 0].min(initial=np.inf))
    nearest = Assumption("features separate", separation > 0, separation, "smallest distance of unequal observations")
    laws = _laws(a)
    if not nearest.holds:
        return _balanced(a, "Wasserstein", laws, np.full(laws.p.shape[0], np.inf), (nearest,))
    lipschitz = float(np.divide(rise, metric, out=np.zeros_like(rise), where=rise > 0).max())
    distance = np.array([_transport(laws.p[[x]], laws.q[[x]], metric) for x in range(laws.p.shape[0])])
    return _balanced(a, "Wasserstein", laws, lipschitz * distance, (nearest,))


def _transport(p: sp.csr_array, q: sp.csr_array, metric: Float[np.ndarray, "O O"]) -> float:
    """W1 of two rows on their supports."""
    if not (p.nnz and q.nnz):
        return 0.0
    cost = np.ascontiguousarray(metric[np.ix_(p.indices, q.indices)])
    plan, log = ot.emd(p.data / p.data.sum(), q.data / q.data.sum(), cost, log=True)
    if log["warning"] is not None:
        raise ValueError(f"Wasserstein distance: {log['warning']}")
    return float((plan * cost).sum())


def maximum_mean_discrepancy(a: Analysis, kernel: Float[np.ndarray, "O O"]) -> Mismatch:
    """Lemma (split C, MMD): D(p,q) = min_c ||Vbar - c||_H MMD(p,q) for a strictly positive definite kernel on O.

    A constant c does not change p f - q f, so the cheapest is taken.  Assumption: the smallest eigenvalue exceeds
    SMALLEST times the largest; the relative excess is the margin.  Distance kernels fail it.
    Raises ValueError for a kernel that is not symmetric or not finite.
    """
    bad = ~np.isfinite(kernel) | (np.abs(kernel - kernel.T) > 1e-12 * np.abs(kernel).max())
    if bad.any():
        o, other = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"kernel[{o}, {other}] = {kernel[o, other]} is not finite or not symmetric")
    eigenvalues = np.linalg.eigvalsh(kernel)
    size = float(np.abs(eigenvalues).max())
    margin = float(eigenvalues[0]) / size - SMALLEST if size > 0 else -SMALLEST
    detail = f"smallest eigenvalue over the largest, less {SMALLEST}"
    positive = Assumption("kernel is positive definite", margin > 0, margin, detail)
    laws = _laws(a)
    if not positive.holds:
        return _balanced(a, "MMD", laws, np.full(laws.p.shape[0], np.inf), (positive,))
    factor = np.linalg.cholesky(kernel)
    white = solve_triangular(factor, np.stack([a.v_bar, np.ones_like(a.v_bar)], axis=1), lower=True)
    constant = white[:, 0] @ white[:, 1] / (white[:, 1] @ white[:, 1])
    norm = np.linalg.norm(white[:, 0] - constant * white[:, 1])
    return _balanced(a, "MMD", laws, norm * np.linalg.norm(laws.difference @ factor, axis=1), (positive,))


def information_state_bound(a: Analysis, mismatch: Mismatch) -> Bound:
    """Rung 5: ||Q* - Qbar o phi||_inf <= (epsilon + delta)/(1 - gbar), at least rung 4.

    epsilon = max |r - rhat|, delta = max of mass + shape.  The terms also give the largest mass and shape alone.
    """
    gbar = a.gamma_bar
    assumptions = (below("gbar < 1", gbar, 1.0, f"largest expected discount gbar = {gbar:.6g}"), *mismatch.assumptions)

    def compute() -> tuple[float, dict[str, float]]:
        epsilon, delta = float(mismatch.reward.max()), float((mismatch.mass + mismatch.shape).max())
        parts = {"mass": float(mismatch.mass.max()), "shape": float(mismatch.shape.max())}
        return (epsilon + delta) / (1 - gbar), {"epsilon": epsilon, "delta": delta, **parts}

    roundoff = (rounding(a.oracle, a.q_bar, a.q_bar) + 2 * a.interface_solution.error) / (1 - gbar)
    reference = f"{SECTION}, rung 5"
    name = f"information state, {mismatch.name}"
    return conditional(name, assumptions, compute, reference, trivial_cap(a), roundoff=roundoff)
