"""How differently a state and its observation predict the next observation: distances of discounted next-step laws.

p(.|s,a) = K(.|s,a)/gamma(s,a) and q(.|x) = Khat(.|x)/ghat(x) on observations; a law without mass counts as equal to
the other.  The distance of a cell is averaged over handoffs, of all agents or of one.  Exact from an `Analysis`,
estimated from a `Log` with context (docs/theory.md section 7).

The maximum mean discrepancy is a norm, and its square has an unbiased estimate.  Total variation and Wasserstein have
none: an expectation under n handoffs is a polynomial in the law, and |p - q| is not.  Near p = q their plug-in value
is too large by more than its standard error, so they come with an interval that is conservative by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
import ot
from jaxtyping import Float
from scipy import stats
from scipy.spatial.distance import cdist

from estimators.cells import COVERED_ONWARD, Cells
from estimators.interface import LOWER, Source, law_of, norm, scalar, weight
from estimators.law import Law, negligible, total
from estimators.logs.log import Log
from estimators.statistics.estimate import Estimate, estimator, jackknife, rule_of_three, scale_free, settled
from icq.reason import NoNumber, Reason

Witness: TypeAlias = Callable[
    [Float[np.ndarray, "SA O"], Float[np.ndarray, "SA O"]], Float[np.ndarray, "SA O"]
]  # p, q -> the f that tells them apart most


def next_laws(law: Law) -> tuple[Float[np.ndarray, "SA O"], Float[np.ndarray, "SA O"]]:
    """p and q, one row per cell; rows of cells without discounted mass are 0 in both."""
    cells, observations = law.mass.size, len(law.frame.agent)
    code = law.frame.source * observations + law.frame.arrival
    kernel = total(code, law.discount, cells * observations).reshape(cells, observations)
    flat = law.mass.reshape(-1)
    pairs = np.zeros((law.pair_mass.size, observations))
    np.add.at(pairs, law.frame.pair, flat[:, None] * kernel)
    mixed, own = pairs[law.frame.pair], kernel.sum(axis=1, keepdims=True)
    mixed_mass = mixed.sum(axis=1, keepdims=True)
    kernel = np.divide(kernel, own, out=np.zeros_like(kernel), where=own > 0)
    return kernel, np.divide(mixed, mixed_mass, out=np.zeros_like(mixed), where=own > 0)


def _sign(p: Float[np.ndarray, "SA O"], q: Float[np.ndarray, "SA O"]) -> Float[np.ndarray, "SA O"]:
    """f with TV(p, q) = (p - q).f, of values -1/2 and 1/2."""
    return 0.5 * np.sign(p - q)


@estimator
@scale_free(0)
def total_variation(source: Source, *, agent: int | None = None) -> Estimate:
    """Mean of TV(p, q) = (1/2) sum |p - q| over handoffs, in [0, 1]; from a log with a guaranteed interval."""
    return _mean(source, lambda law: _sign, agent, 1.0)


@estimator
@scale_free(0)
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

    found = law_of(source)
    if isinstance(found, Cells) and found.led_once > 1 - COVERED_ONWARD:
        place = f"{found.led_once:.2%} of them, at most {1 - COVERED_ONWARD:.1%} may be"
        raise NoNumber(Reason.LED_ONCE, place, "log longer", n_eff=found.n_eff)
    far = float(np.sqrt(2.0)) * (1.0 if factor is None else float(np.linalg.norm(factor, axis=1).max()))
    return norm(
        found if isinstance(found, Cells) else source, table, agent=agent, optimum=False, note=LOWER, span=(0.0, far)
    )  # fmt: skip


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


@estimator
@scale_free(0)
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

    def potential(law: Law) -> Witness:
        here = place[law.frame.code]
        if here.shape[1] == 1:
            return partial(_line, place=here[:, 0])
        return partial(_potential, metric=cdist(here, here))

    return _mean(source, potential, agent, float(np.linalg.norm(np.ptp(place, axis=0))))


def _line(
    p: Float[np.ndarray, "n O"], q: Float[np.ndarray, "n O"], place: Float[np.ndarray, "O"]
) -> Float[np.ndarray, "n O"]:
    """f of slope -1 or 1 with W1 = (p - q).f: W1 is the area between the distribution functions."""
    order = np.argsort(place)
    slope = -np.sign(np.cumsum((p - q)[:, order], axis=1)[:, :-1]) * np.diff(place[order])
    f = np.zeros_like(p)
    f[:, order[1:]] = np.cumsum(slope, axis=1)
    return f


def _potential(
    p: Float[np.ndarray, "n O"], q: Float[np.ndarray, "n O"], metric: Float[np.ndarray, "O O"]
) -> Float[np.ndarray, "n O"]:
    """f(o) = min_j metric(o, j) - v(j) with v the prices of a cheapest transport: Lipschitz 1, W1 = (p - q).f."""
    f = np.zeros_like(p)
    for row in np.flatnonzero(p.any(axis=1)):
        start, stop = np.flatnonzero(p[row]), np.flatnonzero(q[row])
        cost = np.ascontiguousarray(metric[np.ix_(start, stop)])
        mass, goal = p[row, start], q[row, stop]
        _, log = ot.emd(mass / mass.sum(), goal / goal.sum(), cost, log=True)
        if log["warning"] is not None:
            raise ValueError(f"Wasserstein distance: {log['warning']}")
        f[row] = (metric[:, stop] - log["v"]).min(axis=1)
    return f


def _along(law: Law, f: Float[np.ndarray, "SA O"], agent: int | None) -> float:
    """The mean over handoffs of (p - q).f."""
    p, q = next_laws(law)
    return float(weight(law, agent).reshape(-1) @ ((p - q) * f).sum(axis=1))


def _mean(
    source: Source, witness: Callable[[Law], Witness], agent: int | None, far: float, confidence: float = 0.95
) -> Estimate:
    """The mean over handoffs of max over f of (p - q).f, which is `far` at most.

    Lemma: E[(p - q).f] with f chosen on other batches <= distance <= E[plug-in].  So the lower limit is that of the
    mean of two halves, each with f from the other one, the upper limit that of the plug-in value; the interval is
    conservative.  The value is the jackknifed plug-in, moved into the interval.
    """

    def best(law: Law) -> Float[np.ndarray, "SA O"]:
        return witness(law)(*next_laws(law))

    def plug_in(law: Law) -> float:
        return max(_along(law, best(law), agent), 0.0)  # rounding

    cells = law_of(source)
    found = scalar(source if isinstance(cells, Law) else cells, plug_in, note=LOWER)
    if not found.known or not isinstance(cells, Cells):
        return found
    halves = (np.arange(cells.batches) % 2 == 0, np.arange(cells.batches) % 2 == 1)
    under = []
    for own, other in (halves, halves[::-1]):
        f, part = best(cells.only(other).whole), cells.only(own)
        without = np.array([_along(law, f, agent) for law in part.without])
        under.append(jackknife(_along(part.whole, f, agent), without, n_eff=found.n_eff))
    t = float(stats.t.ppf(0.5 + confidence / 2, cells.batches // 2 - 1))
    spread = 0.5 * (under[0].stderr + under[1].stderr)  # the halves test each other, so their errors are alike
    low = max(0.5 * (under[0].value + under[1].value) - t * spread, 0.0)
    t = float(stats.t.ppf(0.5 + confidence / 2, cells.batches - 1))
    high = max(plug_in(cells.whole) + t * found.stderr, low)
    found = replace(found, value=min(max(found.value, low), high), interval=(low, high))
    return settled(found, negligible(far, cells.whole.length), far * rule_of_three(found.n_eff, confidence))
