"""From a Lyapunov inequality to a certificate over time.

Every certificate of docs/theory.md section 5b-c is an inequality of one shape for V_k = E||Delta_k||^2, x = sqrt V and
a corrected W_k:

    W_{k+1} <= W_k - 2 alpha mu x^2 + alpha^2 G2(x) + alpha^3 G3(x) + alpha^4 G4(x)
    |W_k - V_k| <= alpha S1(x) + alpha^2 S2(x)                          (the slack)
    x_{k+1} <= x_k + alpha (sigma + c x_k)                              (the growth)

with quadratics of non-negative coefficients.  Here they are iterated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bounds.core.bound import Assumption, below
from bounds.core.steps import Steps, schedule
from bounds.residual import loops
from icq.display import Shown, shown

_EPS = float(np.finfo(np.float64).eps)
_LOG_HUGE = 700.0  # exp of more overflows


@shown
class Quadratic(NamedTuple):
    """c0 + c1 x + c2 x^2."""

    c0: float
    c1: float
    c2: float

    def __call__(self, x: float) -> float:
        """The value at x."""
        return self.c0 + x * (self.c1 + x * self.c2)

    def plus(self, other: Quadratic, factor: float = 1.0) -> Quadratic:
        """self + factor * other."""
        return Quadratic(*(a + factor * b for a, b in zip(self, other)))


ZERO = Quadratic(0.0, 0.0, 0.0)


def product(left: tuple[float, float], right: tuple[float, float]) -> Quadratic:
    """(l0 + l1 x)(r0 + r1 x)."""
    return Quadratic(left[0] * right[0], left[0] * right[1] + left[1] * right[0], left[1] * right[1])


@dataclass(frozen=True)
class Lyapunov(Shown):
    """The data of one inequality (module docstring): mu, G2, G3, G4, S1, S2 and growth = (sigma, c)."""

    mu: float
    gain_2: Quadratic
    gain_3: Quadratic
    gain_4: Quadratic
    slack_1: Quadratic
    slack_2: Quadratic
    growth: tuple[float, float]

    def gain(self, alpha: float, after: float) -> Quadratic:
        """What one step adds besides the drift; `after` is the next step, whose W is defined with it.

        Changing W's own step costs |alpha - after| S1(x+) + |alpha^2 - after^2| S2(x+), x+ = x + alpha(sigma + c x).
        """
        out = ZERO.plus(self.gain_2, alpha**2).plus(self.gain_3, alpha**3).plus(self.gain_4, alpha**4)
        if after == alpha:
            return out
        step = (alpha * self.growth[0], 1 + alpha * self.growth[1])
        for slack, change in ((self.slack_1, abs(alpha - after)), (self.slack_2, abs(alpha**2 - after**2))):
            grown = (
                Quadratic(slack.c0, 0.0, 0.0).plus(product(step, (slack.c1, 0.0))).plus(product(step, step), slack.c2)
            )
            out = out.plus(grown, change)
        return out

    def slack(self, alpha: float) -> Quadratic:
        """|W - V| as a function of x."""
        return ZERO.plus(self.slack_1, alpha).plus(self.slack_2, alpha**2)

    def conditions(self, largest: float) -> tuple[Assumption, Assumption]:
        """The two conditions on the largest step: the slack leaves V bounded by W, and the drift does not overshoot."""
        return (
            below("small corrections", self.slack(largest).c2, 1.0, "x^2 coefficient of |W - V| must be below 1"),
            below("no overshoot", 2 * largest * self.mu, 1.0, "2 alpha mu must be below 1"),
        )


def spread(slack: Quadratic, w: float) -> tuple[float, float]:
    """Smallest x with x^2 + slack(x) >= w and largest x with x^2 - slack(x) <= w (needs slack.c2 < 1)."""
    s0, s1, s2 = slack
    low = 0.0 if w <= s0 else (math.sqrt(s1 * s1 + 4 * (1 + s2) * (w - s0)) - s1) / (2 * (1 + s2))
    high = (s1 + math.sqrt(max(s1 * s1 + 4 * (1 - s2) * (w + s0), 0.0))) / (2 * (1 - s2))
    return low, high


def _worst(w: float, drift: float, slack: Quadratic, gain: Quadratic) -> tuple[float, float]:
    """The worst x of `advance`, and 1 minus the derivative of the map at w (the smaller one at a kink)."""
    low, high = spread(slack, w)
    bend = gain.c2 - drift
    x = high if bend >= 0 else min(max(-gain.c1 / (2 * bend), low), high)
    if low < x < high or (x == 0 and bend < 0):
        return x, 0.0
    sign = 1.0 if bend < 0 and x == low else -1.0
    slope = 2 * (1 + sign * slack.c2) * x + sign * slack.c1
    if slope > 0:
        return x, -(gain.c1 + 2 * bend * x) / slope
    return x, -math.inf if gain.c1 > 0 else -bend / (1 - slack.c2)


def advance(w: float, drift: float, slack: Quadratic, gain: Quadratic) -> float:
    """Lemma (worst_x): the largest W' allowed by W <= w and |W - x^2| <= slack(x).

    For x below `low` of `spread` the largest possible W is x^2 + slack(x), and x^2 + slack(x) - drift x^2 + gain(x)
    increases in x because drift <= 1; so the maximum lies in [low, high], where it is that of one parabola.  Overflow
    gives infinity.
    """
    if math.isinf(w):
        return w
    x, _ = _worst(w, drift, slack, gain)
    out = w + gain.c0 + x * (gain.c1 + x * (gain.c2 - drift))
    return out if math.isfinite(out) else math.inf


def _geometric(count: int, pull: float) -> float:
    """1 + r + ... + r^{count-1} for r = 1 - pull."""
    if abs(pull) * count < 1e-9:
        return count * (1 + abs(pull) * count)
    exponent = count * math.log1p(-min(pull, 1 - _EPS))
    return math.inf if exponent > _LOG_HUGE else -math.expm1(exponent) / pull


def _leap(w: float, count: int, drift: float, slack: Quadratic, gain: Quadratic, floor: float) -> float:
    """`count` steps from w >= floor of a map that is concave above `floor`; inf when no tangent helps."""
    best = at = w
    for attempt in range(2):
        x, pull = _worst(at, drift, slack, gain)
        if math.isinf(pull):
            return math.inf
        first = gain.c0 + x * (gain.c1 + x * (gain.c2 - drift)) - pull * (w - at)
        # Far from w the terms cancel: rounded up, or an exploding run would come back small.
        first += 16 * _EPS * (gain(x) + x * x * drift + abs(pull * (w - at)))
        at = max(w + first * _geometric(count, pull), floor)
        if not math.isfinite(at):
            return math.inf
        best = min(best, at) if attempt else at
    return best


def leap(w: float, count: int, drift: float, slack: Quadratic, gain: Quadratic) -> tuple[float, float]:
    """Lemma (leap): bounds on the last and on the largest of W_0, ..., W_count under `advance`, from W_0 <= w.

    `advance` increases in w, and it is concave for w >= turn, from where the worst x is the smallest one, and
    everywhere once gain.c1 >= slack.c1 (drift - gain.c2) / (1 - slack.c2) (a larger gain is still a bound).  Tangents
    of a concave map lie above it, and many steps of an affine map are a geometric sum.  The tangent is taken where
    the tangent at the start says the end will be.  The smaller of both bounds.
    """
    if count == 1 or math.isinf(w):
        end = advance(w, drift, slack, gain)
        return end, max(w, end)
    net = drift - gain.c2
    lifted = gain._replace(c1=max(gain.c1, slack.c1 * net / (1 - slack.c2)))
    end = _leap(w, count, drift, slack, lifted, -math.inf)
    top = max(w, end)
    if net > 0:
        x = gain.c1 / (2 * net)
        turn = slack(x) + x * x
        start = max(w, turn)
        other = _leap(start, count, drift, slack, gain, turn)
        end, top = min(end, other), min(top, max(start, other))
    return end, top


@shown
class Stretch(NamedTuple):
    """`length` equal steps from `time` on: W_time <= w, x_time <= x, x_k <= top throughout."""

    time: int
    length: int
    alpha: float
    w: float
    x: float
    top: float
    slack: Quadratic
    gain: Quadratic


SMOOTH = 64  # a leap is at most this fraction of the time already spent


def walk(
    lyapunov: Lyapunov, steps: Steps, v_0: float, stops: Iterable[int], cap: float = math.inf
) -> Iterator[Stretch]:
    """The recursion from V_0 = v_0 (any law of the first state), in stretches that begin at 0 and at every stop.

    Single steps for a schedule; for a constant step stretches of time/SMOOTH.  The last stretch begins at the last
    stop and has length 0.
    """
    constant = isinstance(steps, float)
    ahead = sorted(set(stops) | {0})
    alpha = schedule(steps, 2 if constant else ahead[-1] + 2).tolist()
    a, slack, gain = alpha[0], lyapunov.slack(alpha[0]), lyapunov.gain(alpha[0], alpha[1])
    w, x, time = v_0 + slack(math.sqrt(v_0)), math.sqrt(v_0), 0
    for stop in [*ahead[1:], ahead[-1]]:
        while True:
            if not constant:
                a = alpha[time]
                slack, gain = lyapunov.slack(a), lyapunov.gain(a, alpha[time + 1])
            if math.isfinite(cap):
                w = min(w, cap**2 + slack(cap))
            count = min(max(time // SMOOTH, 1) if constant else 1, stop - time)
            after, most = leap(w, count, 2 * a * lyapunov.mu, slack, gain) if count else (w, w)
            top = min(max(x, spread(slack, most)[1]), cap) if count > 1 else x
            yield Stretch(time, count, a, w, x, top, slack, gain)
            if not count:
                return
            w, time = after, time + count
            x = min(spread(lyapunov.slack(a if constant else alpha[time]), w)[1], cap)
            if time == stop:
                break


def iterate(
    lyapunov: Lyapunov, steps: Steps, v_0: float, times: Int[np.ndarray, "n"], *, cap: float = math.inf
) -> Float[np.ndarray, "n"]:
    """Certified upper bounds on V at increasing `times`.

    cap: a bound on ||Delta|| that holds on every path (projected learners).  The conditions of
    `Lyapunov.conditions` must hold at the largest step.
    """
    if not isinstance(steps, float) and math.isinf(cap):
        alpha = schedule(steps, int(times[-1]) + 2)
        return _compiled(lyapunov, alpha, v_0, times, np.zeros(len(alpha) - 1), 1.0)[0]
    wanted = times.tolist()
    found = {now.time: now.x * now.x for now in walk(lyapunov, steps, v_0, wanted, cap)}
    return np.array([found[time] for time in wanted])


def row(lyapunov: Lyapunov, rate: float = 1.0, chi: float = math.inf, jump: float = 0.0) -> list[float]:
    """An inequality as one row of `bounds.residual.loops`, with the rate and chi of its weight.

    jump: how much larger V may be in its norm than in that of the row before; 0 where the functional is the same.
    """
    x = lyapunov
    return [x.mu, *x.gain_2, *x.gain_3, *x.gain_4, *x.slack_1, *x.slack_2, *x.growth, rate, chi, jump]


def _compiled(
    lyapunov: Lyapunov, alpha: Float[np.ndarray, "steps"], v_0: float, times: Int[np.ndarray, "n"],
    weights: Float[np.ndarray, "L"], rate: float,
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:  # fmt: skip
    """Single steps of one inequality through any schedule, about a tenth of a microsecond each."""
    ends = np.array([len(alpha) - 1])
    data = np.array([row(lyapunov, rate)])
    v, mean, *_ = loops.iterate(data, ends, alpha, v_0, np.asarray(times, np.int64), weights, False)
    return v, mean


def average(
    lyapunov: Lyapunov,
    rate: float,
    steps: Steps,
    v_0: float,
    times: Int[np.ndarray, "n"],
    *,
    burn_in: int = 0,
    cap: float = math.inf,
) -> Float[np.ndarray, "n"]:
    """Lemma (averaged): bounds on sum alpha_k E||Q_k - Q_F||_d^2 / sum alpha_k over burn_in <= k < T, for T in `times`.

    rate: <mean update, Delta> <= -rate ||Q - Q_F||_d^2, 1 - kappa_F with W = M for every preconditioner.  Summing
    W_{k+1} <= W_k - 2 alpha_k rate E||Q_k - Q_F||_d^2 + gain(x_k) leaves
    [W_first + sum gain(x_k) + max_x(slack(x) - x^2)] / (2 rate sum alpha_k).
    """
    wanted = times.tolist()
    if burn_in >= wanted[0]:
        raise ValueError(f"times[0] = {wanted[0]} must exceed burn_in = {burn_in}")
    if not isinstance(steps, float) and math.isinf(cap):
        alpha = schedule(steps, wanted[-1] + 2)
        weights = np.where(np.arange(len(alpha) - 1) < burn_in, 0.0, alpha[:-1])
        return _compiled(lyapunov, alpha, v_0, times, weights, rate)[1]
    found, total, weight = {}, 0.0, 0.0
    for now in walk(lyapunov, steps, v_0, [burn_in, *wanted], cap):
        if now.time > burn_in:
            s0, s1, s2 = now.slack
            found[now.time] = (total + s0 + s1**2 / (4 * (1 - s2))) / (2 * rate * weight)
        if now.time == burn_in:
            total = now.w
        if now.time >= burn_in:
            total, weight = total + now.length * now.gain(now.top), weight + now.length * now.alpha
    return np.array([found[time] for time in wanted])
