"""How differently a state and its observation predict the next observation: distances of discounted next-step laws.

p(.|s,a) = K(.|s,a)/gamma(s,a) and q(.|x) = Khat(.|x)/ghat(x) on observations; a law without mass counts as equal to
the other.  The distance of a cell is averaged over handoffs, of all agents or of one.  Exact from an `Analysis`,
estimated from a `Log` with context (docs/theory.md section 7).

The maximum mean discrepancy is a norm, and its square has an unbiased estimate.  Total variation and Wasserstein have
none: an expectation under n handoffs is a polynomial in the law, and |p - q| is not.  Their plug-in value is too
large, by as much as its own standard error where p = q.  The jackknife halves that bias there and removes it
elsewhere; a correction that is not small against the standard error is a `result` and no number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ot
from jaxtyping import Float
from scipy.spatial.distance import cdist

from estimators.cells import Cells, Law
from estimators.estimate import Estimate, missing
from estimators.interface import LOWER, Source, law_of, norm, scalar, weight
from estimators.logs import Log
from icq.exact import Analysis

SMALL = 0.25  # largest jackknife correction of a distance, in standard errors


def next_laws(law: Law) -> tuple[Float[np.ndarray, "SA O"], Float[np.ndarray, "SA O"]]:
    """p and q, one row per cell; rows of cells without discounted mass are 0 in both."""
    cells, observations = law.mass.size, len(law.frame.agent)
    code = law.frame.source * observations + law.frame.arrival
    kernel = np.bincount(code, law.discount, cells * observations).reshape(cells, observations)
    flat = law.mass.reshape(-1)
    pairs = np.zeros((law.pair_mass.size, observations))
    np.add.at(pairs, law.frame.pair, flat[:, None] * kernel)
    mixed, own = pairs[law.frame.pair], kernel.sum(axis=1, keepdims=True)
    total = mixed.sum(axis=1, keepdims=True)
    kernel = np.divide(kernel, own, out=np.zeros_like(kernel), where=own > 0)
    return kernel, np.divide(mixed, total, out=np.zeros_like(mixed), where=own > 0)


def _variation(law: Law) -> Float[np.ndarray, "SA"]:
    p, q = next_laws(law)
    return 0.5 * np.abs(p - q).sum(axis=1)


def total_variation(source: Source, *, agent: int | None = None) -> Estimate:
    """Mean of TV(p, q) = (1/2) sum |p - q| over handoffs, in [0, 1]."""
    return _mean(source, _variation, agent)


def mean_discrepancy(
    source: Source, kernel: Float[np.ndarray, "O O"] | None = None, *, agent: int | None = None
) -> Estimate:
    """Root mean square over handoffs of MMD(p, q) = ((p - q)'k(p - q))^{1/2}.

    kernel [O, O]: strictly positive definite on the source's observation codes; None: the identity, then it is the
    Euclidean distance of the two laws.  Raises ValueError for a kernel that is not.
    """
    factor = None if kernel is None else _factor(kernel)

    def table(law: Law) -> Float[np.ndarray, "S A k"]:
        p, q = next_laws(law)
        apart = p - q if factor is None else (p - q) @ factor[law.frame.code]
        return apart.reshape(*law.mass.shape, -1)

    return norm(source, table, agent=agent, note=LOWER)


def _factor(kernel: Float[np.ndarray, "O O"]) -> Float[np.ndarray, "O O"]:
    """L with kernel = L L'."""
    bad = ~np.isfinite(kernel) | (np.abs(kernel - kernel.T) > 1e-12 * np.abs(kernel).max())
    if bad.any():
        o, other = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"kernel[{o}, {other}] = {kernel[o, other]} is not finite or not symmetric")
    try:
        return np.linalg.cholesky(kernel)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(kernel)[0])
        raise ValueError(f"kernel has the eigenvalue {least:.3g}: it must be strictly positive definite") from None


def wasserstein(
    source: Source, features: Float[np.ndarray, "O k"] | None = None, *, agent: int | None = None
) -> Estimate:
    """Mean of W1(p, q) over handoffs, in the Euclidean metric of features [O, k] of the source's observation codes.

    features: those of the log if None.  One feature is a sum over the line, more are transport problems.
    """
    if features is None:
        features = source.features if isinstance(source, Log) else None
        if features is None:
            raise ValueError("features: none given, and the source has none; W1 needs a metric on observations")
    if not np.isfinite(features).all():
        o, k = (int(i) for i in np.argwhere(~np.isfinite(features))[0])
        raise ValueError(f"features[{o}, {k}] = {features[o, k]} is not finite")
    place = np.asarray(features, np.float64)

    def transport(law: Law) -> Float[np.ndarray, "SA"]:
        p, q = next_laws(law)
        here = place[law.frame.code]
        return _line(p, q, here[:, 0]) if here.shape[1] == 1 else _plan(p, q, cdist(here, here))

    return _mean(source, transport, agent)


def _line(
    p: Float[np.ndarray, "n O"], q: Float[np.ndarray, "n O"], place: Float[np.ndarray, "O"]
) -> Float[np.ndarray, "n"]:
    """The area between the two distribution functions."""
    order = np.argsort(place)
    return np.abs(np.cumsum((p - q)[:, order], axis=1)[:, :-1]) @ np.diff(place[order])


def _plan(
    p: Float[np.ndarray, "n O"], q: Float[np.ndarray, "n O"], metric: Float[np.ndarray, "O O"]
) -> Float[np.ndarray, "n"]:
    """The cost of the cheapest transport on the supports, row by row."""
    out = np.zeros(len(p))
    for row in np.flatnonzero(p.any(axis=1)):
        start, stop = np.flatnonzero(p[row]), np.flatnonzero(q[row])
        cost = np.ascontiguousarray(metric[np.ix_(start, stop)])
        mass, goal = p[row, start], q[row, stop]
        plan, log = ot.emd(mass / mass.sum(), goal / goal.sum(), cost, log=True)
        if log["warning"] is not None:
            raise ValueError(f"Wasserstein distance: {log['warning']}")
        out[row] = float((plan * cost).sum())
    return out


def _mean(source: Source, distance: Callable[[Law], Float[np.ndarray, "SA"]], agent: int | None) -> Estimate:
    """The mean over handoffs; the jackknife must not have to correct much."""

    def mean(law: Law) -> float:
        return float(weight(law, agent).reshape(-1) @ distance(law))

    found = scalar(source, mean, note=LOWER)
    whole = law_of(source) if found.result == "ok" and not isinstance(source, Analysis) else None
    if not isinstance(whole, Cells):
        return found
    correction = mean(whole.whole) - found.value
    if abs(correction) <= SMALL * found.stderr:
        return found
    times = (correction / (SMALL * max(found.stderr, 1e-300))) ** 2
    return missing(
        f"the plug-in distance {mean(whole.whole):.3g} is too large by about {correction:.2g}, {SMALL} standard errors "
        f"({found.stderr:.2g}) are allowed: log about {times:.2g} times as much, or use mean_discrepancy, which has no "
        "such bias", found.n_eff,
    )  # fmt: skip
