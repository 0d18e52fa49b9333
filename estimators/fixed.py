"""Fixed points of the empirical interface model: Qbar, and Q_F of a table or of per-agent linear features.

Psi [X, p] has one row per pair x = (o, a), non-zero only in the block of the agent that acts on o.  Q_F = f + Psi theta
solves Psi'D(r + K V - Q_F) = 0, by policy iteration: for given greedy options it is one linear solve.  A maximum is
smooth only where its winner is beyond doubt, so doubtful winners are found out.  Letters: docs/theory.md sections
4, 5 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy import stats
from scipy.sparse.csgraph import connected_components

from estimators.law import Law
from icq.display import Shown
from icq.exact.fixed_point import greedy
from icq.learn.classes import FunctionClass, Linear, Tabular

DIMENSION_LIMIT = 2000  # parameters of a class that are solved for densely
POLICY_LIMIT = 100  # changes of the greedy options before a class is said to have no fixed point
DOUBT = 0.02  # expected share of handoffs to observations whose greedy option is another one
CHANCE = 0.01  # probability that any greedy option is another one, where J is wanted
REST = 500  # handoffs that the noise of a fixed point must rest on: normal noise then has its square known to 6 %
UNSURE = 0.05  # CHANCE where values are compared: short logs that pass a laxer rule are chosen by their own noise


class FixedPointError(ValueError):
    """The class has no fixed point that policy iteration finds; the message says why."""


@dataclass(frozen=True, eq=False)
class Span(Shown):
    """A class {offset + Psi theta}; tabular classes have one column per available pair."""

    psi: Float[np.ndarray, "X p"]
    offset: Float[np.ndarray, "X"]
    tabular: bool

    @cached_property
    def basis(self) -> Float[np.ndarray, "X k"]:
        """An orthonormal basis of the columns of Psi, so that dependent features do no harm."""
        if self.tabular:
            return self.psi
        rows, columns = self.psi.shape
        entries = sp.coo_array(self.psi)
        graph = sp.csr_array((np.ones(entries.nnz), (entries.row, rows + entries.col)), shape=(rows + columns,) * 2)
        part = connected_components(graph, directed=False)[1]  # features without a common pair: each block on its own
        found = []
        for block in np.unique(part[entries.row]):
            inside, features = np.flatnonzero(part[:rows] == block), np.flatnonzero(part[rows:] == block)
            found.append((inside, *np.linalg.svd(self.psi[np.ix_(inside, features)], full_matrices=False)[:2]))
        least = max((size.max() for *_, size in found), default=0.0) * max(rows, columns) * np.finfo(float).eps
        basis = [(inside, left[:, size > least]) for inside, left, size in found]
        out = np.zeros((rows, sum(left.shape[1] for _, left in basis)))
        column = 0
        for inside, left in basis:
            out[inside, column : column + left.shape[1]] = left
            column += left.shape[1]
        return out


def span(cls: FunctionClass | None, available: Bool[np.ndarray, "O A"]) -> Span:
    """Psi of a class on available pairs; None is the table.

    Raises ValueError when the class does not cover the observations, or is too large to be solved for densely, and
    TypeError for a class that is not linear.
    """
    observations, options = available.shape
    flat = available.reshape(-1)
    if cls is None or isinstance(cls, Tabular):
        _fits("table", int(flat.sum()))
        return Span(np.eye(flat.size)[:, flat], np.zeros(flat.size), True)
    if not isinstance(cls, Linear):
        raise TypeError(f"{type(cls).__name__} is not linear: fit it (estimators.fit) and take its Bellman residual")
    features = np.asarray(cls.features, np.float64)
    if features.shape[0] < observations or features.shape[1] < options:
        raise ValueError(f"features: shape {features.shape}, expected at least {(observations, options)} + (p,)")
    _fits("class", cls.agents * features.shape[2])
    psi = np.zeros((observations, options, cls.agents, features.shape[2]))
    psi[np.arange(observations), :, np.asarray(cls.slot)[:observations]] = features[:observations, :options]
    offset = np.asarray(cls.offset, np.float64)[:observations, :options].reshape(-1)
    return Span(np.where(flat[:, None], psi.reshape(flat.size, -1), 0.0), np.where(flat, offset, 0.0), False)


def _fits(what: str, size: int) -> None:
    if size > DIMENSION_LIMIT:
        raise ValueError(f"the {what} has {size} parameters, more than {DIMENSION_LIMIT} are not solved for densely")


@dataclass(frozen=True, eq=False)
class Fixed(Shown):
    """q [O, A] (0 where unavailable), its greedy options [O] and their values v [O]."""

    q: Float[np.ndarray, "O A"]
    policy: Int[np.ndarray, "O"]
    v: Float[np.ndarray, "O"]


def interface_fixed_point(law: Law) -> Fixed:
    """Qbar of the empirical interface model, certified by `icq.exact.fixed_point.solve`."""
    return Fixed(law.solution.q, law.solution.policy, law.solution.v)


def class_fixed_point(law: Law, span: Span) -> Fixed:
    """Q_F.  Raises FixedPointError when the greedy options do not settle (possible only for kappa_F >= 1)."""
    first = interface_fixed_point(law)
    if span.tabular:
        return first
    basis, d, shape = span.basis, law.flat, law.mass.shape
    reward, kernel, policy = law.model.reward.reshape(-1), law.model.kernel, first.policy
    for _ in range(POLICY_LIMIT):
        chosen = np.arange(shape[0]) * shape[1] + policy
        left = basis.T @ (d[:, None] * (basis - kernel @ basis[chosen]))
        right = basis.T @ (d * (reward + kernel @ span.offset[chosen] - span.offset))
        try:
            theta = np.linalg.solve(left, right)
        except np.linalg.LinAlgError:
            raise FixedPointError("the linear equations of the class are singular for some greedy options") from None
        q = np.where(law.model.available, (span.offset + basis @ theta).reshape(shape), 0.0)
        after, v = greedy(q, law.model.available)
        if (after == policy).all():
            return Fixed(q, policy, v)
        policy = after
    raise FixedPointError(f"the greedy options of the class did not settle in {POLICY_LIMIT} steps")


def influence(law: Law, span: Span, policy: Int[np.ndarray, "O"]) -> Float[np.ndarray, "X k"]:
    """Rows u(x) = G^{1/2} J^{-1} psi(x), so that sum_k u(x_k) delta_k / T is the averaged learner's error in ||.||_d.

    G = Psi'D Psi, J = Psi'D(Psi - K Psi_pi); the same for every basis of the class, up to a rotation.
    """
    basis, d = span.basis, law.flat
    chosen = np.arange(law.mass.shape[0]) * law.mass.shape[1] + policy
    jacobian = basis.T @ (d[:, None] * (basis - law.model.kernel @ basis[chosen]))
    root = np.linalg.qr(np.sqrt(d)[:, None] * basis, mode="r")
    return (root @ np.linalg.solve(jacobian, basis.T)).T


def rests_on(law: Law, span: Span, fixed: Fixed, handoffs: int) -> tuple[float, str]:
    """How many of T handoffs the scatter of an estimated fixed point rests on, and what to do if they are too few.

    Pair x contributes c(x) = d(x) E[delta^2|x] |u(x)|^2 to it, u of `influence`, which is known from d(x) T handoffs:
    by Kish's formula the sum rests on T (sum c)^2 / sum c^2/d.  A rare pair that the Jacobian amplifies makes them few.
    """
    part = law.flat * law.noise(fixed.q, fixed.v) * (influence(law, span, fixed.policy) ** 2).sum(1)
    each = np.divide(part**2, law.flat, out=np.zeros_like(part), where=law.flat > 0)
    if each.sum() == 0:
        return float("inf"), ""
    count = handoffs * part.sum() ** 2 / each.sum()
    o, a = divmod(int(each.argmax()), law.mass.shape[1])
    share, visits = part[each.argmax()] / part.sum(), law.mass[o, a] * handoffs
    return float(count), (
        f"{share:.0%} of the noise comes from option {a} of observation {o}, seen {visits:.0f} times: "
        f"log about {max(REST / count, 1.1):.2g} times as many handoffs"
    )


@dataclass(frozen=True)
class Doubt(Shown):
    """share: of handoffs expected to go to observations whose greedy option is another one than estimated; chance:
    that any greedy option is (both by normal margins); where: the worst place, and what to do about it.
    """

    share: float
    chance: float
    where: str


def doubtful(law: Law, q: Float[np.ndarray, "O A"], without: Float[np.ndarray, "B O A"]) -> Doubt:
    """How sure the greedy options of q are, from the tables without each batch.

    A rival's margin over its jackknife standard error is its t; the rival is better with probability Phi(-t).
    """
    available, rows, count = law.model.available, np.arange(len(q)), len(without)
    best, _ = greedy(q, available)
    margin = q[rows, best][:, None] - q
    apart = without[:, rows, best][:, :, None] - without
    stderr = np.sqrt((count - 1) / count * ((apart - apart.mean(0)) ** 2).sum(0))
    rival = available.copy()
    rival[rows, best] = False
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(rival, np.where(stderr > 0, margin / stderr, np.where(margin > 0, np.inf, 0.0)), np.inf)
    wrong = np.minimum(stats.norm.sf(t).sum(1), 1.0)
    worst = int((law.mass.sum(1) * wrong).argmax())
    least = max(float(t[worst].min()), 0.1)
    return Doubt(
        float(law.mass.sum(1) @ wrong),
        min(float(wrong.sum()), 1.0),
        f"greedy options are in doubt, most on observation {worst}, whose best two are {least:.2g} standard errors "
        f"apart: log about {max((3 / least) ** 2, 2):.2g} times as many handoffs",
    )
