"""Brackets of Q*: a pair of tables around it, narrowed by backups (docs/theory.md section 3.2).

n backups are n steps of dynamic programming: n is a knob between what one residual says and the exact gap.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bounds.core.bound import Bound
from bounds.interface.gap import SECTION, observed_error, rounding, signed_gap, sup_bound
from icq.exact import Analysis, Model

BACKUPS = 4


def narrowed(
    model: Model, table: Float[np.ndarray, "n A"], above: Float[np.ndarray, "n A"], below: Float[np.ndarray, "n A"],
    backups: int,
) -> Float[np.ndarray, "n A"]:  # fmt: skip
    """Lemma (bracket): |Q^ - Q| <= max(T^n(Q + U) - Q, Q - T^n(Q - L)) pointwise for Q - L <= Q^ <= Q + U, Q^ = T Q^.

    Never larger with more backups where U = |T Q - Q| + K max U and L = U, or where they are the signed gap values.
    """
    high, low = table + above, table - below
    for _ in range(backups):
        high, low = model.bellman(high), model.bellman(low)
    return np.where(model.available, np.maximum(high - table, table - low), 0.0)


def bracket_bound_d(a: Analysis, backups: int = BACKUPS) -> Bound:
    """Lemma (bracket) at Qbar, from the signed gap values: a bound on ||Q* - Qbar o phi||_d, with no backup rung 2.

    Unconditional; with ever more backups it is the exact gap, and dynamic programming.
    """
    upper, lower, error = signed_gap(a)

    def compute() -> tuple[float, dict[str, float]]:
        width = narrowed(a.oracle, a.lift(a.q_bar), upper, lower, backups)
        return a.norm_d_state(width), {"backups": float(backups)}

    grown = rounding(a.oracle, a.q_bar, a.q_bar) / (1 - a.gamma_bar)
    roundoff = error + grown + observed_error(a)
    return sup_bound(a, f"bracket, {backups} backups", compute, f"{SECTION}, rung 2", roundoff)
