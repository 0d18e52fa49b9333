"""The three errors of a run against the centralised oracle, each measured on its own.

    Q_theta - Q* = (Q_theta - Q_F) + (Q_F - Qbar) + (Qbar o phi - Q*)
                     residual        approximation    interface

in the d-norm and in the sup norm over available pairs (docs/theory.md section 2).  The triangle inequality holds for
every record or the arithmetic is wrong, so it is checked on every record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, attempt, jackknife, mean_squares, positive, rescaled, unit
from icq import coerce
from icq.coerce import Numbers
from icq.display import Fact, Shown, spread
from icq.exact import Analysis

ROUNDING = 1e-9  # relative; float64 tables of float32 learners
FEWEST = 8  # pairs of runs whose root mean squares are compared
TERMS = ("interface", "approximation", "residual", "total")  # in code, arrays and files
NAME = {term: term for term in TERMS} | {"interface": "interface gap"}  # for people


@dataclass(frozen=True)
class Decomposition(Shown):
    """Errors in one norm, reward units; interface is one number, the others have the batch shape of the Q tables."""

    norm: str
    interface: float
    approximation: Float[np.ndarray, "*batch"]
    residual: Float[np.ndarray, "*batch"]
    total: Float[np.ndarray, "*batch"]

    @property
    def slack(self) -> Float[np.ndarray, "*batch"]:
        """interface + approximation + residual - total, non-negative."""
        return np.asarray(self.interface + self.approximation + self.residual - self.total)

    def _facts_(self) -> list[Fact]:
        return [
            Fact("norm", self.norm), Fact(NAME["interface"], self.interface, "reward"),
            *(Fact(NAME[term], spread(getattr(self, term))) for term in TERMS[1:]),
            Fact("records", " x ".join(map(str, np.shape(self.total))) or None),
        ]  # fmt: skip


def _size(
    table: Float[np.ndarray, "*batch n A"], weight: Float[np.ndarray, "n A"], norm: str
) -> Float[np.ndarray, "*batch"]:
    """The norm of each table; weight is d(x), or 1 on available pairs for the sup norm."""
    if norm == "d":
        return np.asarray(np.sqrt((weight * table**2).sum((-2, -1))))
    return np.asarray(np.where(weight > 0, np.abs(table), 0.0).max((-2, -1)))


def decompose(analysis: Analysis, q: Numbers, q_f: Numbers) -> tuple[Decomposition, Decomposition]:
    """The decomposition in the d-norm and in the sup norm.

    q [*batch, O, A]: learned tables; q_f [*other, O, A]: their population fixed points, the leading axes broadcast
    against those of q.  A table that is not finite has NaN errors.  Raises ValueError for tables of another shape,
    ArithmeticError when the triangle inequality fails beyond rounding: some input is not what it
    claims to be.
    """
    pairs = analysis.d_pair.shape
    tables = (coerce.shaped(name, x, "OA", pairs, batch=True) for name, x in (("q", q), ("q_f", q_f)))
    q, q_f = np.broadcast_arrays(*tables)
    q = np.where(np.isfinite(q).all((-2, -1), keepdims=True), q, np.nan)
    lifted = np.where(analysis.oracle.available, q[..., analysis.smdp.observation, :], 0.0)
    out = []
    for norm in ("d", "sup"):
        pair = analysis.d_pair if norm == "d" else analysis.interface.available.astype(float)
        state = analysis.d_state_pair if norm == "d" else analysis.oracle.available.astype(float)
        part = Decomposition(
            norm=norm,
            interface=analysis.norm_d_state(analysis.gap) if norm == "d" else analysis.norm_sup_state(analysis.gap),
            approximation=_size(q_f - analysis.q_bar, pair, norm),
            residual=_size(q - q_f, pair, norm),
            total=_size(lifted - analysis.q_star, state, norm),
        )
        bad = part.slack < -ROUNDING * (1 + part.total)
        if bad.any():
            worst = float(np.nanmin(part.slack))
            raise ArithmeticError(f"triangle inequality fails in the {norm}-norm by {-worst:.3e}")
        out.append(part)
    return out[0], out[1]


@dataclass(frozen=True)
class MixingSplit(Shown):
    """The residual of runs along a trajectory against that of the i.i.d. control at equal length.

    markov, iid: root mean square of either; excess: mean of residual(Markov) - residual(iid); excess_rms: difference of
    the root mean squares; ratio: their quotient.  The excess is what correlation along the trajectory costs; it has no
    sign (docs/theory.md sections 2 and 5).  saved: variance of the excess without pairing over the one with it, above 1
    when the common random numbers helped.
    """

    markov: Estimate
    iid: Estimate
    excess: Estimate
    excess_rms: Estimate
    ratio: Estimate
    saved: float

    def _facts_(self) -> list[Fact]:
        return [
            Fact("ratio", self.ratio), Fact("trajectory", self.markov, "reward"), Fact("i.i.d.", self.iid, "reward"),
            Fact("excess", self.excess, "reward"), Fact("variance saved by pairing", self.saved),
        ]  # fmt: skip


def mixing_split(markov: Float[np.ndarray, "R"], iid: Float[np.ndarray, "Q"], confidence: float = 0.95) -> MixingSplit:
    """Split the residuals of R paired runs: run r of both has the same key, hence the same uniforms
    (`icq.learn.learner.learn` with iid False and True).

    Intervals leave out whole pairs, so whatever the common random numbers correlate is used; that of the quotient is
    one of its logarithm.  Fewer than `FEWEST` pairs, or errors that are all 0, have no number.  Raises ValueError when
    the numbers of runs differ: nothing would be paired.
    """
    if markov.shape != iid.shape:
        raise ValueError(f"markov has {len(markov)} runs, iid {len(iid)}: run r of both must have the same key")
    scaled, _ = unit(np.stack([markov, iid, markov - iid]))
    variance, apart = float(np.var(scaled[0]) + np.var(scaled[1])), float(np.var(scaled[2]))
    pairs = np.stack([markov, iid], axis=1)
    return MixingSplit(
        markov=estimate.root_mean_square(markov, confidence), iid=estimate.root_mean_square(iid, confidence),
        excess=estimate.mean(markov - iid, confidence), excess_rms=attempt(_difference, pairs, confidence),
        ratio=attempt(_quotient, pairs, confidence), saved=variance / apart if apart > 0 else float("nan"),
    )  # fmt: skip


def _difference(pairs: Float[np.ndarray, "R 2"], confidence: float) -> Estimate:
    """Of the root mean squares of two columns."""
    pairs, power = unit(pairs)
    whole, without = (np.sqrt(square) for square in mean_squares(pairs, FEWEST))
    apart = jackknife(float(whole[0] - whole[1]), without[:, 0] - without[:, 1], confidence=confidence, plain=True)
    return rescaled(apart, power)


def _quotient(pairs: Float[np.ndarray, "R 2"], confidence: float) -> Estimate:
    """The same, on the log scale."""
    whole, without = (np.sqrt(square) for square in mean_squares(unit(pairs)[0], FEWEST))
    return positive(float(whole[0] / whole[1]), without[:, 0] / without[:, 1], confidence=confidence, plain=True)
