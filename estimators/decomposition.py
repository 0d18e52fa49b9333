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

from icq.exact import Analysis

ROUNDING = 1e-9  # relative; float64 tables of float32 learners


@dataclass(frozen=True)
class Decomposition:
    """Errors in one norm; total, app and mix share the batch shape of the Q tables, interface is one number."""

    norm: str
    interface: float
    app: Float[np.ndarray, "*batch"]
    mix: Float[np.ndarray, "*batch"]
    total: Float[np.ndarray, "*batch"]

    @property
    def slack(self) -> Float[np.ndarray, "*batch"]:
        """interface + app + mix - total, non-negative."""
        return np.asarray(self.interface + self.app + self.mix - self.total)


def _size(
    table: Float[np.ndarray, "*batch n A"], weight: Float[np.ndarray, "n A"], norm: str
) -> Float[np.ndarray, "*batch"]:
    """The norm of each table; weight is d(x), or 1 on available pairs for the sup norm."""
    if norm == "d":
        return np.asarray(np.sqrt((weight * table**2).sum((-2, -1))))
    return np.asarray(np.where(weight > 0, np.abs(table), 0.0).max((-2, -1)))


def decompose(
    analysis: Analysis, q: Float[np.ndarray, "*batch O A"], q_f: Float[np.ndarray, "*other O A"]
) -> tuple[Decomposition, Decomposition]:
    """The decomposition in the d-norm and in the sup norm.

    q: learned tables; q_f: their population fixed points (broadcast against q).  A table that is not finite has
    NaN errors.  Raises ArithmeticError when the triangle inequality fails beyond rounding: some input is not what it
    claims to be.
    """
    q, q_f = np.broadcast_arrays(np.asarray(q, np.float64), np.asarray(q_f, np.float64))
    q = np.where(np.isfinite(q).all((-2, -1), keepdims=True), q, np.nan)
    lifted = np.where(analysis.oracle.available, q[..., analysis.smdp.observation, :], 0.0)
    out = []
    for norm in ("d", "sup"):
        pair = analysis.d_pair if norm == "d" else analysis.interface.available.astype(float)
        state = analysis.d_state_pair if norm == "d" else analysis.oracle.available.astype(float)
        part = Decomposition(
            norm=norm,
            interface=analysis.norm_d_state(analysis.gap) if norm == "d" else analysis.norm_sup_state(analysis.gap),
            app=_size(q_f - analysis.q_bar, pair, norm),
            mix=_size(q - q_f, pair, norm),
            total=_size(lifted - analysis.q_star, state, norm),
        )
        bad = part.slack < -ROUNDING * (1 + part.total)
        if bad.any():
            worst = float(np.nanmin(part.slack))
            raise ArithmeticError(f"triangle inequality fails in the {norm}-norm by {-worst:.3e}")
        out.append(part)
    return out[0], out[1]
