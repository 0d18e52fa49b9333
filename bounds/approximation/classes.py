"""Closed convex classes of tables Q [O, A] with their projection in ||.||_d, built so that no agent needs another.

Letters are those of docs/theory.md section 4: Pi the d-projection onto the class F, P the orthogonal projection onto
the directions of F (the span of its differences), D = diag d(x) over x = (o,a).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from bounds.approximation.certificate import interface_contraction
from bounds.interface.gap import round_up
from icq.display import Fact, Shown
from icq.exact import DENSE_ENTRIES, Analysis
from icq.exact.projected import Affine


@runtime_checkable
class ConvexClass(Protocol):
    """A closed convex set of tables; unavailable entries are 0."""

    @property
    def analysis(self) -> Analysis:
        """The instance whose d and operator are meant."""
        ...

    def project(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """Pi q, the nearest member in ||.||_d."""
        ...

    def along(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """P q, the part of q along the directions of the class."""
        ...

    @property
    def modulus(self) -> float:
        """kappa_F = Lipschitz constant of P That in ||.||_d, or an upper bound of it; at most kappa."""
        ...


@dataclass(frozen=True)
class _Block:
    """One agent's share: flat pair indices, D^{1/2} there, and an orthonormal basis of D^{1/2} Psi [rows, rank]."""

    rows: Int[np.ndarray, "n"]
    root: Float[np.ndarray, "n"]
    basis: Float[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False)
class LinearClass(Shown):
    """F = {offset + Psi theta}, one theta per slot (per agent, unless said otherwise).

    offset: [O, A], 0 where unavailable.  Every slot has the directions of its own rows of Psi whose singular values
    exceed rounding; that numerical span is the class.
    """

    analysis: Analysis
    offset: Float[np.ndarray, "O A"]
    blocks: tuple[_Block, ...]

    @property
    def rank(self) -> int:
        """Dimension of the class."""
        return sum(block.basis.shape[1] for block in self.blocks)

    def along(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """P q, block by block: no number crosses an agent boundary."""
        flat, out = q.reshape(-1), np.zeros(q.size)
        for block in self.blocks:
            out[block.rows] = block.basis @ (block.basis.T @ (block.root * flat[block.rows])) / block.root
        return out.reshape(q.shape)

    def project(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """offset + P (q - offset)."""
        return self.offset + self.along(q - self.offset)

    @cached_property
    def coordinates(self) -> sp.csr_array:
        """U'D^{1/2} [rank, O*A]: coordinates of P q in an orthonormal basis of the directions."""
        if not self.blocks:
            return sp.csr_array((0, self.offset.size))
        stacked = sp.csr_array(sp.block_diag([block.basis.T * block.root for block in self.blocks]))
        columns = np.concatenate([block.rows for block in self.blocks])
        return sp.csr_array((stacked.data, columns[stacked.indices], stacked.indptr), (self.rank, self.offset.size))

    @cached_property
    def modulus(self) -> float:
        """Lemma: ||P That Q - P That Q'||_d <= kappa_F ||Q - Q'||_d, kappa_F = ||U'D^{1/2} Khat Dmin^{-1/2}||_2.

        U is an orthonormal basis of D^{1/2} times the directions.  kappa_F <= kappa, exact over all tables, so that
        projection onto few features may contract where That alone is not known to.  kappa itself, also valid, where
        the matrix has more than DENSE_ENTRIES entries.
        """
        a = self.analysis
        if self.rank * len(a.d_obs) > DENSE_ENTRIES:
            return interface_contraction(a)
        smallest = np.where(a.interface.available, a.d_pair, np.inf).min(axis=1)
        matrix = (self.coordinates @ a.interface.kernel @ sp.diags_array(1 / np.sqrt(smallest))).toarray()
        norm = float(np.linalg.norm(matrix, 2)) if self.rank else 0.0
        return min(round_up(norm, sum(matrix.shape)), interface_contraction(a))

    @cached_property
    def affine(self) -> Affine:
        """The same class in coordinates that are orthonormal in ||.||_d."""
        a, root = self.analysis, np.sqrt(self.analysis.d_pair).reshape(-1)
        inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
        basis = self.coordinates.multiply(inverse[None, :] ** 2).T.tocsr()
        return Affine(a.interface, a.d_pair.reshape(-1), basis, self.offset.reshape(-1))

    def _facts_(self) -> list[Fact]:
        return [Fact("observations", len(self.offset)), Fact("options", self.offset.shape[1]),
                Fact("blocks", len(self.blocks)), Fact("rank", self.rank)]  # fmt: skip


def linear_class(
    a: Analysis,
    features: Float[np.ndarray, "O A p"],
    offset: Float[np.ndarray, "O A"] | None = None,
    slot: Int[np.ndarray, "O"] | None = None,
) -> LinearClass:
    """The class Q(o,a) = offset(o,a) + features(o,a)'theta_slot(o), by default one theta per agent and no offset.

    Features of unavailable options are not looked at.  Raises ValueError naming the first feature or offset that is
    not finite, or a shape that does not fit the instance.
    """
    available = a.interface.available
    offset = np.zeros(available.shape) if offset is None else np.where(available, offset, 0.0)
    if features.shape[:2] != available.shape or offset.shape != available.shape:
        raise ValueError(f"features {features.shape} and offset {offset.shape} must start with {available.shape}")
    bad = available[..., None] & ~np.isfinite(features)
    if bad.any():
        raise ValueError(f"features{[int(i) for i in np.argwhere(bad)[0]]} is not finite")
    if not np.isfinite(offset).all():
        raise ValueError(f"offset{[int(i) for i in np.argwhere(~np.isfinite(offset))[0]]} is not finite")
    slot = np.asarray(a.smdp.agent) if slot is None else slot
    pairs = np.flatnonzero(available)
    owner = slot[pairs // available.shape[1]]
    flat, mass = features.reshape(-1, features.shape[2]), a.d_pair.reshape(-1)
    blocks = []
    for i in np.unique(owner):
        rows = pairs[owner == i]
        root = np.sqrt(mass[rows])
        left, size, _ = np.linalg.svd(root[:, None] * flat[rows], full_matrices=False)
        keep = size > size.max(initial=0.0) * max(len(rows), flat.shape[1]) * np.finfo(float).eps
        blocks.append(_Block(rows, root, left[:, keep]))
    return LinearClass(a, offset, tuple(blocks))


@dataclass(frozen=True)
class Ball(Shown):
    """The members of a linear class whose slots are each within `radius` of the offset in ||.||_d."""

    span: LinearClass
    radius: float

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ValueError(f"radius = {self.radius} is negative or NaN: the ball is empty")

    @property
    def analysis(self) -> Analysis:
        """The instance."""
        return self.span.analysis

    @property
    def modulus(self) -> float:
        """The directions are those of the span."""
        return self.span.modulus

    def along(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """P q."""
        return self.span.along(q)

    def project(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """Onto the span, then each slot radially."""
        move = self.span.along(q - self.span.offset).reshape(-1)
        for block in self.span.blocks:
            length = float(np.linalg.norm(block.root * move[block.rows]))
            move[block.rows] *= min(1.0, self.radius / length) if length > 0 else 1.0
        return self.span.offset + move.reshape(q.shape)

    def _facts_(self) -> list[Fact]:
        return [*self.span._facts_(), Fact("radius", self.radius, "reward in the d-norm")]


@dataclass(frozen=True)
class Box(Shown):
    """All tables with low <= Q(o,a) <= high; D is diagonal, so clipping is the d-projection."""

    analysis: Analysis
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low = {self.low} is not at most high = {self.high}: the box is empty")

    @property
    def modulus(self) -> float:
        """P is the identity."""
        return interface_contraction(self.analysis)

    def along(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """Every direction."""
        return np.where(self.analysis.interface.available, q, 0.0)

    def project(self, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """Clip."""
        return np.where(self.analysis.interface.available, np.clip(q, self.low, self.high), 0.0)

    def _facts_(self) -> list[Fact]:
        return [Fact("entries between", self.low), Fact("and", self.high, "reward")]
