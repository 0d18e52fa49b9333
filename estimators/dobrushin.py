"""Contraction of a chain in total variation, from counts, with guarantees (docs/theory.md section 7).

D(P) = max_{i,j} TV(P(i,.), P(j,.)) is Dobrushin's coefficient.  It needs no reversibility: D(PQ) <= D(P) D(Q), and a
row vector of sum zero shrinks by D(P) in l1 when multiplied by P.  From bounds on the rows of P the functions here
follow D(P^s) through s = 1, 2, 4, ... with a guaranteed error, and turn it into a guaranteed mixing time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from icq.display import Shown

DOUBLINGS = 30  # powers s = 2^k that are looked at, at most
BLOCK = 4_000_000  # entries of a block of pairwise differences


@dataclass(frozen=True)
class Power(Shown):
    """Bounds low <= D(P^s) <= high at one power s; `value` is D of the estimate."""

    s: int
    value: float
    low: float
    high: float


def row_radius(counts: Float[np.ndarray, "S S"], delta: float) -> Float[np.ndarray, "S"]:
    """Lemma (rows): with probability 1 - delta, ||Phat(i,.) - P(i,.)||_1 <= radius(i) for all i at once.

    counts [S, S]: steps i -> j of one trajectory of a chain on S states.  The row of a state visited m times is judged
    at level delta/(S m (m+1)), so the random number of visits does no harm; at that level the smaller of the bound
    over all subsets of columns and the one by empirical symmetrisation.  2, the trivial bound, for unvisited rows.
    """
    size, visits = len(counts), counts.sum(1)
    m = np.maximum(visits, 1)
    log = np.log(2 * size * m * (m + 1) / delta)
    subsets = np.sqrt(2 * (log + size * math.log(2)) / m)
    spread = np.sqrt(counts).sum(1) / m
    symmetric = 2 * spread + 3 * np.sqrt(2 * (log + math.log(2)) / m)
    return np.where(visits > 0, np.minimum(np.minimum(subsets, symmetric), 2.0), 2.0)


def coefficient(p: Float[np.ndarray, "S S"], radius: Float[np.ndarray, "S"]) -> tuple[float, float, float]:
    """D of p, and bounds of D of every stochastic matrix whose rows are within `radius` of those of p in l1.

    TV(i, j) is within (radius(i) + radius(j))/2 of its value at p.
    """
    size = len(p)
    value = low = high = 0.0
    step = max(BLOCK // max(size * size, 1), 1)
    for first in range(0, size, step):
        rows = slice(first, first + step)
        apart = 0.5 * np.abs(p[rows, None, :] - p[None, :, :]).sum(2)
        slack = 0.5 * (radius[rows, None] + radius[None, :])
        slack[np.arange(len(slack)), first + np.arange(len(slack))] = 0.0  # a row is at no distance from itself
        value = max(value, float(apart.max()))
        low, high = max(low, float((apart - slack).max())), max(high, float((apart + slack).max()))
    return value, max(low, 0.0), min(high, 1.0)


def powers(p: Float[np.ndarray, "S S"], radius: Float[np.ndarray, "S"], small: float = 0.0) -> list[Power]:
    """D(P^s) at s = 1, 2, 4, ... with bounds valid for every P with rows within `radius` of p.

    Lemma (doubling): if ||p^s(i,.) - P^s(i,.)||_1 <= e_s(i) and D(P^s) <= U_s, then e_{2s} = p^s e_s + U_s e_s does for
    2s, because p^{2s} - P^{2s} = p^s (p^s - P^s) + (p^s - P^s) P^s, and the rows of p^s - P^s sum to zero.
    Also D(P^{2s}) <= D(P^s)^2.  Stops where D(p^s) is at most `small`.
    """
    out: list[Power] = []
    error, s = radius, 1
    for _ in range(DOUBLINGS):
        value, low, high = coefficient(p, error)
        high = min(high, out[-1].high ** 2) if out else high
        out.append(Power(s, value, low, high))
        if value <= small:
            break
        error = np.minimum(p @ error + high * error, 2.0)
        p = p @ p
        p /= p.sum(1, keepdims=True)
        s *= 2
    return out


def mixing_bounds(found: list[Power], epsilon: float) -> tuple[float, float]:
    """Lemma (mixing time): lower and upper bound of min{t: max_i TV(P^t(i,.), d) <= epsilon}, in steps.

    Below: D(P^s) > 2 epsilon means that some start is farther than epsilon, so the time exceeds s.  Above: it is at
    most s ceil(log epsilon/log U_s).  0 and infinity where nothing is known.
    """
    low, high = max((power.s + 1 for power in found if power.low > 2 * epsilon), default=0), math.inf
    for power in found:
        if power.high < 1:
            times = math.ceil(math.log(epsilon) / math.log(power.high)) if power.high > 0 else 1
            high = min(high, power.s * max(times, 1))
    return float(low), float(high)


def rate(found: list[Power]) -> tuple[float, float, float]:
    """max over s = 1, 2, 4, ... of (1 - D(P^s))/s, with bounds: the generalised contraction coefficient, dyadic.

    D(P^s) does not rise with s, so the maximum over all s is at most twice this.  Powers beyond the last one looked at
    are at most 1/s.
    """
    value = max((1 - power.value) / power.s for power in found)
    low = max((1 - power.high) / power.s for power in found)
    high = max((1 - power.low) / power.s for power in found)
    return value, low, max(high, 0.5 / found[-1].s)
