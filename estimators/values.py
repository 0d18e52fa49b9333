"""How far given values are from the interface fixed point: those of a fitted table, and those that agents sent back.

`value_error` has one call for an instance and for a log (docs/theory.md section 7): Qbar is solved for on the log's own
interface model, again without each batch, so its noise is in the interval and its bias is taken off.  A table that was
fitted must not come from the same rows.  Letters: docs/theory.md sections 1 and 7.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from estimators.approximation import enough, length, limits, table
from estimators.doubt import UNSURE, doubt
from estimators.fixed import DIMENSION_LIMIT, check_rest, span
from estimators.law import Fixed, Law
from estimators.logs.log import Log, in_units
from estimators.statistics.estimate import Estimate, estimator, exact, jackknife, rescaled, scale_free
from estimators.statistics.jackknife import BATCHES, degenerate, slices
from estimators.td_noise import TDNoise
from icq.coerce import Numbers
from icq.exact import Analysis
from icq.reason import NoNumber, Reason

SMALL = 0.05  # scatter of the squared noise, in squares of an error, up to which a difference of errors is smooth


@estimator
@scale_free(1, "q")
def value_error(source: Analysis | Log, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    """||q - Qbar||_d of a fixed table q [O, A], in reward units; for a log, q must not come from the same rows.

    A greedy option of Qbar in doubt has no number, nor has noise that rests on few handoffs, which is looked at up to
    DIMENSION_LIMIT pairs (`estimators.fixed.rests_on`).  Raises ValueError for a table that lacks a pair of the log.
    """
    if isinstance(source, Analysis):
        return exact(source.norm_d(table(q, source.interface.available, whole=True) - source.q_bar))
    q = table(q, source.available)
    whole, parts, n_eff = _laws(source)
    without = np.stack([_apart(q, part) for part in parts])
    return length(_apart(q, whole), without, n_eff, confidence, limits(whole, n_eff, confidence, q))


@estimator
@scale_free(1, "before", "after")
def value_error_change(
    log: Log, before: Float[np.ndarray, "O A"], after: Float[np.ndarray, "O A"], *, confidence: float = 0.95
) -> Estimate:
    """||before - Qbar||_d - ||after - Qbar||_d of two tables on the same rows: positive where `after` is better.

    Lemma: errors e_b and e_a that point in one direction change together to first order, and the noise v of Qbar across
    it moves their difference by |v|^2 (1/e_b - 1/e_a)/2.  The variance of that term is known (`jackknife.degenerate`),
    whatever the directions.  Where it is no small part of an error, or an error is not clear of zero, the limits of
    both errors are subtracted, each at half the risk (Bonferroni), and `note` says so.
    """
    first, second = table(before, log.available), table(after, log.available)
    law, parts, n_eff = _laws(log)

    def pair(law: Law) -> Float[np.ndarray, "2 X"]:
        return np.stack([_apart(first, law), _apart(second, law)])

    whole, without = pair(law), np.stack([pair(part) for part in parts])
    ends = limits(law, n_eff, confidence, first, second)
    old, new = (length(whole[k], without[:, k], n_eff, (1 + confidence) / 2, ends) for k in (0, 1))
    noise = degenerate((len(without) - 1) * (whole[0] - without[:, 0])).variance
    if min(old.interval[0], new.interval[0]) <= 0 or noise**0.5 > SMALL * min(old.value, new.value) ** 2:
        apart = (old.interval[0] - new.interval[1], old.interval[1] - new.interval[0])
        return Estimate(
            old.value - new.value, old.stderr + new.stderr, apart, n_eff, confidence=confidence,
            note="errors are small against the noise of this log, so the limits of both are subtracted",
        )  # fmt: skip
    sizes, each = np.linalg.norm(whole, axis=-1), np.linalg.norm(without, axis=-1)
    curvature = (1 / old.value - 1 / new.value) / 2
    return jackknife(
        float(sizes[0] - sizes[1]), each[:, 0] - each[:, 1], n_eff=n_eff, confidence=confidence,
        second=noise * curvature**2,
    )  # fmt: skip


def _laws(log: Log) -> tuple[Law, list[Law], float]:
    """The law of everything and without each batch, and n_eff.  Raises NoNumber when Qbar is not known well enough."""
    found, n_eff = enough(log)
    law, parts = found.whole, list(found.without)
    unsure = doubt(
        law.q_star, np.stack([part.q_star for part in parts]), law.model.available, law.mass.sum(1), law.rounding
    )  # fmt: skip
    unsure.check(chance=UNSURE, n_eff=n_eff)
    if log.available.sum() <= DIMENSION_LIMIT:
        check_rest(law, span(None, log.available), law.solution, len(log), n_eff)
    return law, parts, n_eff


def _apart(q: Float[np.ndarray, "O A"] | float, law: Law) -> Float[np.ndarray, "X"]:
    """sqrt(d)(q - Qbar)."""
    return np.where(law.flat > 0, np.sqrt(law.flat) * (q - law.q_star).reshape(-1), 0.0)


def _squares(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Infinite where a square is beyond float64, which the caller says."""
    with np.errstate(over="ignore"):
        return x**2


def typical_value(known: TDNoise, *, confidence: float = 0.95) -> Estimate:
    """||Qbar||_d: the size of the values themselves, which errors are compared with; known: noise at the table."""
    parts = np.stack([_apart(0.0, law) for law, _ in known.parts])
    ends = limits(known.law, known.n_eff, confidence)
    return rescaled(length(_apart(0.0, known.law), parts, known.n_eff, confidence, ends), known.power)


@estimator
def sent_error(log: Log, known: TDNoise, *, confidence: float = 0.95) -> Estimate:
    """Root mean square over handoffs of (mean scalar sent back on o') - Vbar(o'), in reward units.

    What the learner that ran believed, against what the log says: its approximation error and residual together.
    Scalars that change on the same observation (the learner still moves) are averaged, and `note` says by how much
    they scatter.  known: the noise of the same log at its table (`estimators.td_noise.noise` with chance=UNSURE).
    """
    size = log.num_observations
    acted = known.law.model.available.any(1)
    count, total, square = (np.zeros((BATCHES, size)) for _ in range(3))
    for b, rows in enumerate(slices(len(log))):
        use = np.isfinite(log.scalar[rows]) & ~log.done[rows] & (log.next_observation[rows] >= 0)
        arrive, sent = log.next_observation[rows][use], in_units(log.scalar[rows][use], known.power)
        for sums, weight in ((count, None), (total, sent), (square, _squares(sent))):
            sums[b] = np.bincount(arrive, weights=weight, minlength=size)
    often = (count > 0).sum(0) >= 2
    count, total, square = (np.where(acted & often, sums, 0.0) for sums in (count, total, square))
    if count.sum() == 0:
        raise NoNumber(Reason.NO_SCALAR, need="log the column `scalar`")
    if not np.isfinite(square).all():
        raise NoNumber(Reason.NOT_FINITE, "the square of a scalar, which is far larger than the rewards")

    def vector(drop: int | None, fixed: Fixed) -> Float[np.ndarray, "O"]:
        n, s = (x.sum(0) - (0.0 if drop is None else x[drop]) for x in (count, total))
        mean = np.divide(s, n, out=np.zeros(size), where=n > 0)
        return np.sqrt(n / n.sum()) * np.where(n > 0, mean - fixed.v, 0.0)

    without = np.stack([vector(b, fixed) for b, (_, fixed) in enumerate(known.parts)])
    n, s, s2 = count.sum(0), total.sum(0), square.sum(0)
    mean = np.divide(s, n, out=np.zeros(len(n)), where=n > 0)
    ends = limits(known.law, known.n_eff, confidence, mean[None])
    found = rescaled(length(vector(None, known.fixed), without, known.n_eff, confidence, ends), known.power)
    scatter = float(np.sqrt(max((s2 - n * mean**2).sum() / n.sum(), 0.0)))
    usual = float(np.sqrt(s2.sum() / n.sum()))
    if scatter <= 1e-6 * usual:
        return found
    note = f"scalars on one observation scatter by {scatter / usual:.2g} of their size: their means are compared"
    return replace(found, note="; ".join(filter(None, (note, found.note))))
