"""The population path: where the learner would be without noise (docs/theory.md section 5d).

thbar_0 = theta_0,  thbar_{k+1} = thbar_k + alpha_k w(thbar_k),  w(theta) = M^{-1} E_d[psi delta(theta)].

While the greedy options of Q_thbar stay pi, w is affine, w(theta') = w(theta) - A (theta' - theta) with A = M^{-1}J_pi,
so many steps are one product of matrices I - alpha_k A.  The path is cut into stretches within which the options
provably stay; stretches are exact up to rounding and short enough that their iterates are near the chord of their ends.
Letters: bounds.residual.population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from bounds.residual.population import Population
from icq.display import Fact, Shown
from icq.exact.fixed_point import greedy

REACH = 0.05  # of a stretch, in units of the clock tau = sum of alpha times ||A||_inf
STILL = 1e-14  # of the parameters: a mean step below this share of them is rounding, the path has arrived
SMALL = 1e-16  # terms of a series below this share of its first one are left out


@dataclass(frozen=True, eq=False)
class Path(Shown):
    """Knots of the path; stretch i holds the handoffs times[i] <= k < times[i + 1].

    theta [n + 1, p] at the knots; pairs [n + 1, O]: pair index of the greedy option of each observation from that knot
    on; off [n, p]: how far any iterate of a stretch may be from the chord of its two ends, entry by entry.
    """

    times: Int[np.ndarray, "knots"]
    theta: Float[np.ndarray, "knots p"]
    pairs: Int[np.ndarray, "knots O"]
    off: Float[np.ndarray, "n p"]

    def at(self, times: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m p"]:
        """thbar at these times, which must be knots."""
        where = np.searchsorted(self.times, times)
        if not (self.times[np.minimum(where, len(self.times) - 1)] == times).all():
            raise ValueError("times: only those the path was asked for are knots")
        return self.theta[where]

    def field(self, pop: Population, i: int) -> Float[np.ndarray, "p p"]:
        """A of stretch i."""
        return _piece(pop, self.pairs[i]).a

    def _facts_(self) -> list[Fact]:
        changes = int((np.diff(self.pairs, axis=0) != 0).any(axis=1).sum())
        return [Fact("handoffs", int(self.times[-1])), Fact("stretches", len(self.off)),
                Fact("changes of greedy options", changes)]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Piece:
    """The affine field w(theta) = slope - A theta of one choice of greedy options."""

    pop: Population
    pairs: Int[np.ndarray, "O"]

    @cached_property
    def a(self) -> Float[np.ndarray, "p p"]:
        """A = M^{-1} Psi'D (Psi - Khat Psi_pi)."""
        pop = self.pop
        following = pop.analysis.interface.kernel @ pop.psi[self.pairs]
        return np.linalg.solve(pop.metric, pop.psi.T @ (pop.d[:, None] * (pop.psi - following)))

    @cached_property
    def size(self) -> float:
        """||A||_inf."""
        return float(np.abs(self.a).sum(1).max())

    def products(self, w: Float[np.ndarray, "p"], sums: Float[np.ndarray, "m"]) -> Float[np.ndarray, "p"]:
        """theta_n - theta_0 = sum_k alpha_k prod_{j<k}(I - alpha_j A) w.

        sums[m-1] = sum alpha^m.  With C = sum_m sums_m A^{m-1}/m it is sum_{n>=1} (-A C)^{n-1} C w/n!.
        """

        def c(x: Float[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
            out, power = sums[0] * x, x
            for m, s in enumerate(sums[1:], 2):
                power = self.a @ power
                out = out + s * power / m
            return out

        term = c(w)
        total, n = term.copy(), 1
        while np.abs(term).max() > SMALL * np.abs(total).max() and n < 200:
            n += 1
            term = -(self.a @ c(term)) / n
            total += term
        return total

    def bends(self, w: Float[np.ndarray, "p"], tau: float) -> Float[np.ndarray, "n p"]:
        """tau^n A^{n-1} w/n! for n = 2, 3, ..., until the rest is rounding: for any row l,
        |l'(theta_k - theta_0 - tau_k w)| is at most the sum of |l' row| while tau_k <= tau.
        """
        terms = [tau * w]
        while len(terms) == 1 or np.abs(terms[-1]).max() > SMALL * np.abs(terms[0]).max():
            terms.append(self.a @ terms[-1] * (tau / (len(terms) + 1)))
        return np.array(terms[1:])


def mean_step(pop: Population, theta: Float[np.ndarray, "p"]) -> tuple[Float[np.ndarray, "p"], Int[np.ndarray, "O"]]:
    """w(theta) and the pair index of the greedy option on every observation."""
    table = pop.offset + pop.psi @ theta
    shape = pop.q_f.shape
    policy, value = greedy(table.reshape(shape), pop.analysis.interface.available)
    target = pop.analysis.interface.reward.reshape(-1) + pop.analysis.interface.kernel @ value
    step = np.linalg.solve(pop.metric, pop.psi.T @ (pop.d * (target - table)))
    return step, np.arange(shape[0]) * shape[1] + policy


def population_path(
    pop: Population,
    alpha: Float[np.ndarray, "T"],
    theta_0: Float[np.ndarray, "p"],
    knots: Sequence[int] | Int[np.ndarray, "m"] = (),
) -> Path:
    """The population path through handoffs 0, ..., T - 1 of these steps; `knots` are times that become knots.

    Where a step would overshoot (alpha ||A||_inf >= 1/2) every handoff is a stretch.
    """
    last = len(alpha)
    stops = sorted({int(k) for k in knots if 0 < k < last} | {last})
    clock = np.concatenate([[0.0], np.cumsum(alpha)])
    times, thetas, pairs, offs = [0], [np.asarray(theta_0, np.float64)], [], []
    for stop in stops:
        while times[-1] < stop:
            end, theta, chosen, off = _stretch(pop, alpha, clock, times[-1], stop, thetas[-1])
            times.append(end)
            thetas.append(theta)
            pairs.append(chosen)
            offs.append(off)
    pairs.append(mean_step(pop, thetas[-1])[1])
    return Path(np.array(times), np.array(thetas), np.array(pairs), np.array(offs).reshape(len(offs), -1))


_PIECES: dict[tuple[int, bytes], _Piece] = {}


def _stretch(
    pop: Population, alpha: Float[np.ndarray, "T"], clock: Float[np.ndarray, "L"], first: int, stop: int,
    theta: Float[np.ndarray, "p"],
) -> tuple[int, Float[np.ndarray, "p"], Int[np.ndarray, "O"], Float[np.ndarray, "p"]]:  # fmt: skip
    """The longest stretch from `first` that keeps the greedy options and the reach; at least one handoff."""
    w, chosen = mean_step(pop, theta)
    if np.abs(w).max() <= STILL * float(np.abs(theta).max()):
        return stop, theta, chosen, np.zeros_like(theta)
    piece = _piece(pop, chosen)
    reach = min(REACH / max(piece.size, 1e-300), _until_change(pop, chosen, theta, w))
    end = min(int(np.searchsorted(clock, clock[first] + reach, side="right")) - 1, stop)
    while end > first + 1 and alpha[first:end].max() * piece.size < 0.5:
        tau = float(alpha[first:end].sum())
        bends = piece.bends(w, tau)
        if _options_stay(pop, chosen, theta, w, tau, bends):
            moved = piece.products(w, _sums(alpha[first:end], piece.size))
            return end, theta + moved, chosen, 2 * np.abs(bends).sum(axis=0)  # a chord doubles it
        end = first + max((end - first) // 2, 1)
    return first + 1, theta + alpha[first] * w, chosen, np.zeros_like(theta)


def _piece(pop: Population, chosen: Int[np.ndarray, "O"]) -> _Piece:
    key = (id(pop), chosen.tobytes())
    if key not in _PIECES or _PIECES[key].pop is not pop:
        if len(_PIECES) > 64:
            _PIECES.clear()
        _PIECES[key] = _Piece(pop, chosen)
    return _PIECES[key]


def _sums(alpha: Float[np.ndarray, "n"], size: float) -> Float[np.ndarray, "m"]:
    """sum alpha^m for m = 1, 2, ... until what is left out cannot matter."""
    sums, power = [float(alpha.sum())], alpha
    while sums[-1] * size ** len(sums) > SMALL * sums[0] * size and len(sums) < 60:
        power = power * alpha
        sums.append(float(power.sum()))
    return np.array(sums)


def _until_change(
    pop: Population, chosen: Int[np.ndarray, "O"], theta: Float[np.ndarray, "p"], w: Float[np.ndarray, "p"]
) -> float:
    """The clock, to first order, until the options change; tried first, as what comes before it mostly stays."""
    available, shape = pop.analysis.interface.available, pop.q_f.shape
    rows = np.repeat(chosen, shape[1])
    table, moved = pop.offset + pop.psi @ theta, pop.psi @ w
    margin, closing = table[rows] - table, moved - moved[rows]
    near = available.reshape(-1) & (closing > 0)
    room = margin[near] + _tie(table)  # options that are alike up to rounding never part
    return float((room / closing[near]).min()) if near.any() else np.inf


def _options_stay(
    pop: Population, chosen: Int[np.ndarray, "O"], theta: Float[np.ndarray, "p"], w: Float[np.ndarray, "p"],
    tau: float, bends: Float[np.ndarray, "n p"],
) -> bool:  # fmt: skip
    """Whether the options stay greedy at every iterate: their margins are linear in tau_k up to what `bends` say."""
    available, shape = pop.analysis.interface.available, pop.q_f.shape
    rows = np.repeat(chosen, shape[1])
    table, moved = pop.offset + pop.psi @ theta, pop.psi @ w
    bent = pop.psi @ bends.T
    margin = table[rows] - table
    end = margin + tau * (moved[rows] - moved)
    rest = np.minimum(margin, end) - np.abs(bent[rows] - bent).sum(axis=1)
    rival = available.reshape(-1) & (np.arange(len(rows)) != rows)
    return bool((rest[rival] >= -_tie(table)).all())


def _tie(table: Float[np.ndarray, "X"]) -> float:
    """A margin below it is rounding."""
    return 1e-13 * float(np.abs(table).max())
