"""Q_F of a table or of per-agent linear features on the interface model of a law whose states are observations.

Psi [X, p] has one row per pair x = (o, a), non-zero only in the block of the agent that acts on o.  Q_F = f + Psi theta
solves Psi'D(r + K V - Q_F) = 0, by policy iteration: for given greedy options it is one linear solve.  Letters:
docs/theory.md sections 4, 5 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from estimators.law import Fixed, Law
from icq.display import Shown
from icq.exact.fixed_point import greedy
from icq.exact.projected import Affine, fixed_point
from icq.learn.classes import FunctionClass, Linear, Tabular
from icq.reason import NoNumber, Reason, Why

DIMENSION_LIMIT = 2000  # parameters of a class that are solved for densely
LIMIT = 1000  # policies and sweeps before a class is said to have no fixed point
REST = 500  # handoffs that the noise of a fixed point must rest on: normal noise then has its square known to 6 %


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

    Raises NoNumber when the class is too large to be solved for densely, ValueError when it does not cover the
    observations, and TypeError when it is not linear.
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
        raise NoNumber(Reason.TOO_LARGE, f"the {what} has {size} parameters, at most {DIMENSION_LIMIT} are solved for")


def within(law: Law, span: Span) -> Affine:
    """The class with the interface model of a law."""
    return Affine(law.model, law.flat, span.basis, span.offset)


def class_fixed_point(law: Law, span: Span) -> Fixed:
    """Q_F.  Raises NoNumber when it is not found (`icq.exact.projected.fixed_point`)."""
    if span.tabular:
        return law.solution
    members = within(law, span)
    found = fixed_point(members, lambda *_: False, policy=law.solution.policy, trust=True, limit=LIMIT)
    q = members.table(found.point)
    return Fixed(q, *greedy(q, law.model.available))


def influence(law: Law, span: Span, policy: Int[np.ndarray, "O"]) -> Float[np.ndarray, "X k"]:
    """Rows u(x) = G^{1/2} J^{-1} psi(x), so that sum_k u(x_k) delta_k / T is the averaged learner's error in ||.||_d.

    G = Psi'D Psi, J = Psi'D(Psi - K Psi_pi); the same for every basis of the class, up to a rotation.
    """
    root = np.linalg.qr(np.sqrt(law.flat)[:, None] * span.basis, mode="r")
    return (root @ np.linalg.solve(within(law, span).jacobian(policy), span.basis.T)).T


def rests_on(law: Law, span: Span, fixed: Fixed, handoffs: int) -> tuple[float, Why]:
    """How many of T handoffs the scatter of an estimated fixed point rests on, and what to say if they are too few.

    Pair x contributes c(x) = d(x) E[delta^2|x] |u(x)|^2 to it, u of `influence`, which is known from d(x) T handoffs:
    by Kish's formula the sum rests on T (sum c)^2 / sum c^2/d.  A rare pair that the Jacobian amplifies makes them few.
    """
    part = law.flat * law.noise(fixed.q, fixed.v) * (influence(law, span, fixed.policy) ** 2).sum(1)
    each = np.divide(part**2, law.flat, out=np.zeros_like(part), where=law.flat > 0)
    if not each.sum() > 0:
        return float("inf"), Why(Reason.RESTS_ON_FEW)
    count = handoffs * part.sum() ** 2 / each.sum()
    worst = int(each.argmax())
    o, a = divmod(worst, law.mass.shape[1])
    place = f"{part[worst] / part.sum():.0%} of it comes from there, seen {law.flat[worst] * handoffs:.0f} times"
    need = f"log about {max(REST / count, 1.1):.2g} times as many handoffs"
    return float(count), Why(Reason.RESTS_ON_FEW, place, need, option=a, observation=o)


def check_rest(law: Law, span: Span, fixed: Fixed, handoffs: int, n_eff: float) -> None:
    """Raise NoNumber when the noise of a fixed point rests on fewer than REST handoffs."""
    count, why = rests_on(law, span, fixed, handoffs)
    if count < REST:
        raise NoNumber(why, n_eff=n_eff)
