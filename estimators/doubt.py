"""How sure the best options of an estimated table are: a maximum is smooth only where its winner is beyond doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from icq.display import Shown
from icq.exact.fixed_point import greedy
from icq.reason import NoNumber, Reason, Why

SHARE = 0.02  # of handoffs expected to go to rows whose best option is another one, where a fixed point is wanted
MANY = 0.1  # the same share, from which halves of the batches must show what ties do to a number
CHANCE = 0.01  # probability that any best option is another one, where the Jacobian is wanted, which jumps with them
UNSURE = 0.05  # CHANCE where values are compared: short logs that pass a laxer rule are chosen by their own noise


@dataclass(frozen=True)
class Doubt(Shown):
    """share: of handoffs expected to go to rows whose best option is another one than estimated; chance: that any best
    option is (both by normal margins); row: the worst one; apart: standard errors between its best two; alike:
    these are equal within rounding, with and without every batch.
    """

    share: float
    chance: float
    row: int
    apart: float
    alike: bool = False

    def check(self, *, share: float = 1.0, chance: float = 1.0, n_eff: float) -> None:
        """Raise NoNumber when there is more doubt than that; rows are observations."""
        if (self.share > share or self.chance > chance) and self.alike:
            place = "most there, where the best two are equal within rounding in all of the log"
            need = "if they are the same option, log them under one name"
            raise NoNumber(Why(Reason.IN_DOUBT, place, need, observation=self.row), n_eff=n_eff)
        if self.share > share or self.chance > chance:
            apart = max(self.apart, 0.1)
            need = f"log about {max((3 / apart) ** 2, 2):.2g} times as many handoffs"
            place = f"most there, where the best two are {apart:.2g} standard errors apart"
            raise NoNumber(Why(Reason.IN_DOUBT, place, need, observation=self.row), n_eff=n_eff)


def doubt(
    q: Float[np.ndarray, "n A"],
    without: Float[np.ndarray, "B n A"],
    available: Bool[np.ndarray, "n A"],
    mass: Float[np.ndarray, "n"],
    rounding: float = 0.0,
) -> Doubt:
    """The doubt about the best options of q, from the tables without each batch; mass: share of handoffs of each row.
    rounding: what cannot be told from 0.

    A rival's margin over its jackknife standard error is its t; the rival is better with probability Phi(-t).
    """
    best, _ = greedy(q, available)
    rows = np.arange(len(q))
    margin = q[rows, best][:, None] - q
    margin = np.where(margin > rounding, margin, 0.0)
    apart = without[:, rows, best][:, :, None] - without
    stderr = np.sqrt((len(without) - 1) * apart.var(axis=0))
    stderr = np.where(stderr > rounding, stderr, 0.0)
    rival = available.copy()
    rival[rows, best] = False
    t = np.divide(margin, stderr, out=np.where(margin > 0, np.inf, 0.0), where=stderr > 0)
    t = np.where(rival, t, np.inf)
    wrong = np.minimum(stats.norm.sf(t).sum(axis=1), 1.0)
    row = int((mass * wrong).argmax())
    rivals = available[row] & (np.arange(q.shape[1]) != best[row])
    alike = bool(((margin[row] == 0) & (stderr[row] == 0))[rivals].any())
    return Doubt(float(mass @ wrong), min(float(wrong.sum()), 1.0), row, float(t[row].min()), alike)
