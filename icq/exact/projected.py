"""Q_F, the fixed point of Pi That on a class of tables: policy iteration, guarded by sweeps of Pi That.

With the greedy options held fixed the equation of a linear class is linear, so every policy costs one solve, and a
solution whose greedy options are those it was solved for is a fixed point.  Where policies do not lead closer, Pi That
itself is applied, a kappa_F-contraction in ||.||_d.  For kappa_F < 1 this converges to the only fixed point; otherwise
there may be none, and the one failure is `NoNumber`.  Letters: docs/theory.md section 4; the table of all pairs has
Q_F = Qbar, for which there is `icq.exact.fixed_point.solve`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
from jaxtyping import Float, Int

from icq.display import Shown
from icq.exact.analysis import Model
from icq.exact.fixed_point import greedy, root_sum
from icq.reason import NoNumber, Reason

LIMIT = 20_000  # policies and sweeps


@runtime_checkable
class Projected(Protocol):
    """Pi That on one class.  A point stands for one member: its parameters, or its table."""

    def start(self) -> Float[np.ndarray, "*point"]:
        """Some member."""
        ...

    def table(self, point: Float[np.ndarray, "*point"]) -> Float[np.ndarray, "O A"]:
        """Q of a member."""
        ...

    def greedy(self, point: Float[np.ndarray, "*point"]) -> Int[np.ndarray, "O"]:
        """The greedy options of a member."""
        ...

    def image(self, point: Float[np.ndarray, "*point"]) -> Float[np.ndarray, "*point"]:
        """Pi That of a member."""
        ...

    def evaluate(self, policy: Int[np.ndarray, "O"]) -> Float[np.ndarray, "*point"] | None:
        """The fixed point of Pi That with these options in place of the maximum; None where it is not to be had."""
        ...

    def distance(self, one: Float[np.ndarray, "*point"], other: Float[np.ndarray, "*point"]) -> float:
        """||one - other||_d of their tables."""
        ...


@dataclass(frozen=True, eq=False)
class Affine(Shown):
    """The class {offset + basis theta} with its interface model; points are parameters theta [p].

    mass [X] = d(x); basis [X, p], dense or sparse, independent on pairs of positive mass; offset [X].
    """

    model: Model
    mass: Float[np.ndarray, "X"]
    basis: Any
    offset: Float[np.ndarray, "X"]

    @cached_property
    def dual(self) -> Any:
        """basis'D [p, X]."""
        return self.basis.T.multiply(self.mass).tocsr() if sp.issparse(self.basis) else self.basis.T * self.mass

    @cached_property
    def factor(self) -> tuple[Float[np.ndarray, "p p"], bool]:
        """The Cholesky factor of basis'D basis.  Raises NoNumber for features that are dependent."""
        try:
            return la.cho_factor(_dense(self.dual @ self.basis))
        except la.LinAlgError:
            raise NoNumber(Reason.DEPENDENT) from None

    def table(self, theta: Float[np.ndarray, "p"]) -> Float[np.ndarray, "O A"]:
        """Q, 0 on unavailable options."""
        shape = self.model.reward.shape
        return np.where(self.model.available, (self.offset + self.basis @ theta).reshape(shape), 0.0)

    def nearest(self, table: Float[np.ndarray, "X"]) -> Float[np.ndarray, "p"]:
        """The parameters of the d-projection of a table."""
        return la.cho_solve(self.factor, self.dual @ (table - self.offset), check_finite=False)

    def jacobian(self, policy: Int[np.ndarray, "O"]) -> Float[np.ndarray, "p p"]:
        """J = basis'D (I - Khat Sel) basis, Sel the selection of these options."""
        return _dense(self.dual @ (self.basis - self.model.kernel @ self.basis[self._chosen(policy)]))

    def _chosen(self, policy: Int[np.ndarray, "O"]) -> Int[np.ndarray, "O"]:
        return np.arange(len(policy)) * self.model.reward.shape[1] + policy

    def start(self) -> Float[np.ndarray, "p"]:
        """The offset."""
        return np.zeros(self.basis.shape[1])

    def greedy(self, point: Float[np.ndarray, "p"]) -> Int[np.ndarray, "O"]:
        """The greedy options of a member."""
        return greedy(self.table(point), self.model.available)[0]

    def image(self, point: Float[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
        """Pi That of a member."""
        _, v = greedy(self.table(point), self.model.available)
        return self.nearest(self.model.reward.reshape(-1) + self.model.kernel @ v)

    def evaluate(self, policy: Int[np.ndarray, "O"]) -> Float[np.ndarray, "p"] | None:
        """J theta = basis'D (r + Khat Sel offset - offset), by one dense solve; None for a singular J."""
        ahead = self.model.kernel @ self.offset[self._chosen(policy)]
        try:
            theta = np.linalg.solve(
                self.jacobian(policy), self.dual @ (self.model.reward.reshape(-1) + ahead - self.offset)
            )
        except np.linalg.LinAlgError:
            return None
        return theta if np.isfinite(theta).all() else None

    def distance(self, one: Float[np.ndarray, "p"], other: Float[np.ndarray, "p"]) -> float:
        """||basis (one - other)||_d."""
        return root_sum(self.mass, self.basis @ (one - other))


def _dense(matrix: Any) -> Float[np.ndarray, "p q"]:
    return matrix.toarray() if sp.issparse(matrix) else matrix


@dataclass(frozen=True, eq=False)
class Convex(Shown):
    """Any closed convex class by its projection alone; points are tables [O, A], and only sweeps are possible."""

    model: Model
    mass: Float[np.ndarray, "O A"]
    project: Callable[[Float[np.ndarray, "O A"]], Float[np.ndarray, "O A"]]

    def table(self, point: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """The point itself."""
        return point

    def start(self) -> Float[np.ndarray, "O A"]:
        """The member nearest to zero."""
        return self.project(np.zeros_like(self.mass))

    def greedy(self, point: Float[np.ndarray, "O A"]) -> Int[np.ndarray, "O"]:
        """The greedy options of a member."""
        return greedy(point, self.model.available)[0]

    def image(self, point: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "O A"]:
        """Pi That of a member."""
        return self.project(self.model.bellman(point))

    def evaluate(self, policy: Int[np.ndarray, "O"]) -> None:
        """Nothing is known about single policies."""

    def distance(self, one: Float[np.ndarray, "O A"], other: Float[np.ndarray, "O A"]) -> float:
        """||one - other||_d."""
        return root_sum(self.mass, one - other)


@dataclass(frozen=True)
class Found(Shown):
    """Where `search` ended: a point, its greedy options, and whether it was close enough to its image."""

    point: Float[np.ndarray, "*point"]
    policy: Int[np.ndarray, "O"]
    iterations: int
    converged: bool


Enough = Callable[[Float[np.ndarray, "*point"], float], bool]  # (point, ||point - Pi That point||_d)


def search(
    members: Projected,
    enough: Enough,
    *,
    policy: Int[np.ndarray, "O"] | None = None,
    trust: bool = False,
    limit: int = LIMIT,
) -> Found:
    """A point that is `enough` like its image under Pi That, after at most `limit` policies and sweeps.

    policy: the options to begin with, otherwise those greedy in the first member.  trust: options that stay greedy end
    the search without a look at the residual, which saves the projection.  No policy is evaluated twice, and its
    solution is passed over unless its residual is smaller than that of the point at hand: policies never raise the
    residual, and every sweep multiplies it by at most kappa_F.
    """
    point, image, residual = members.start(), None, np.inf
    policy = members.greedy(point) if policy is None else policy
    tried: set[int] = set()
    with np.errstate(over="ignore", invalid="ignore"):  # a search without a fixed point may run away; it is told so
        for iteration in range(1, limit + 1):
            name = hash(policy.tobytes())
            jump = None if name in tried else members.evaluate(policy)
            tried.add(name)
            if jump is not None:
                after = members.greedy(jump)
                if trust and (after == policy).all():
                    return Found(jump, policy, iteration, True)
                landed = members.image(jump)
                if (gap := members.distance(jump, landed)) < residual:
                    point, image, residual, policy = jump, landed, gap, after
                    if enough(point, residual):
                        return Found(point, policy, iteration, True)
                    continue
            point = point if image is None else image
            image = members.image(point)
            residual, policy = members.distance(point, image), members.greedy(point)
            if enough(point, residual):
                return Found(point, policy, iteration, True)
            if not np.isfinite(residual):
                break
    return Found(point, policy, iteration, False)


def fixed_point(
    members: Projected,
    enough: Enough,
    *,
    policy: Int[np.ndarray, "O"] | None = None,
    trust: bool = False,
    limit: int = LIMIT,
) -> Found:
    """`search` with a result.

    Raises NoNumber when the search did not end: SINGULAR where the last greedy options had no solution of their own,
    otherwise NO_FIXED_POINT.  Both are possible only for kappa_F >= 1 (or a limit that is too low).
    """
    found = search(members, enough, policy=policy, trust=trust, limit=limit)
    if not found.converged:
        reason = Reason.SINGULAR if members.evaluate(found.policy) is None else Reason.NO_FIXED_POINT
        place = f"after {found.iterations} iterations of Pi That and its greedy options"
        raise NoNumber(reason, place, "a class with kappa_F below 1 has one")
    return found
