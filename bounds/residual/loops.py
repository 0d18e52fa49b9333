"""The compiled recursion of docs/theory.md section 5b: one step a handoff, any schedule, constants by stretches.

A row of `data` is one Lyapunov inequality: mu, G2, G3, G4, S1, S2 (three coefficients each), growth (sigma, c); then
what its functional is: the rate and chi of its weight, and by which factor V may be larger in its norm than in that of
the row before (0: it is the same functional).
"""

from __future__ import annotations

import math

import numpy as np

from icq.exact.jit import jit

ROW = 21


@jit
def slack_of(row, alpha):  # type: ignore[no-untyped-def]  # compiled
    """|W - V| as a quadratic in x."""
    a2 = alpha * alpha
    return alpha * row[10] + a2 * row[13], alpha * row[11] + a2 * row[14], alpha * row[12] + a2 * row[15]


@jit
def gain_of(row, alpha, after):  # type: ignore[no-untyped-def]  # compiled
    """What one step adds besides the drift, the change to the next step included."""
    a2 = alpha * alpha
    a3, a4 = a2 * alpha, a2 * a2
    g0 = a2 * row[1] + a3 * row[4] + a4 * row[7]
    g1 = a2 * row[2] + a3 * row[5] + a4 * row[8]
    g2 = a2 * row[3] + a3 * row[6] + a4 * row[9]
    if after != alpha:
        p, q = alpha * row[16], 1 + alpha * row[17]
        for change, k in ((abs(alpha - after), 10), (abs(a2 - after * after), 13)):
            g0 += change * (row[k] + row[k + 1] * p + row[k + 2] * p * p)
            g1 += change * (row[k + 1] * q + 2 * row[k + 2] * p * q)
            g2 += change * row[k + 2] * q * q
    return g0, g1, g2


@jit
def largest_x(w, s0, s1, s2):  # type: ignore[no-untyped-def]  # compiled
    """The largest x with x^2 - slack(x) <= w."""
    return (s1 + math.sqrt(max(s1 * s1 + 4 * (1 - s2) * (w + s0), 0.0))) / (2 * (1 - s2))


@jit
def advance(w, drift, s0, s1, s2, g0, g1, g2):  # type: ignore[no-untyped-def]  # compiled
    """The largest W' allowed (Lemma worst_x); infinity where numbers overflow."""
    low = 0.0 if w <= s0 else (math.sqrt(s1 * s1 + 4 * (1 + s2) * (w - s0)) - s1) / (2 * (1 + s2))
    high = largest_x(w, s0, s1, s2)
    bend = g2 - drift
    x = high if bend >= 0 else min(max(-g1 / (2 * bend), low), high)
    out = w + g0 + x * (g1 + x * bend)
    return out if math.isfinite(out) else math.inf


@jit
def back_of(row, alpha):  # type: ignore[no-untyped-def]  # compiled
    """The largest of slack(x) - x^2: W is at least minus this."""
    s0, s1, s2 = slack_of(row, alpha)
    return s0 + s1 * s1 / (4 * (1 - s2))


@jit
def iterate(data, ends, alpha, v_0, times, weights, inclusive):  # type: ignore[no-untyped-def]  # compiled
    """(V, A, X, E) at increasing `times` from V_0 = v_0.

    data [n, ROW] holds for the handoffs ends[i - 1] <= k < ends[i]; alpha [T + 2].  V: bounds on V_T.  A: bounds
    on sum w_k E||Q_k - reference||_d^2 / sum w_k over k <= T if `inclusive`, else k < T (NaN for an empty sum), the
    smaller of what the drift says (Lemma weighted, functional by functional) and of what V says; weights [T + 1] >= 0.
    X: the largest root of V so far.  E: bounds on (E||Q_T - reference||_d^2)^{1/2}, chi V^{1/2}, the smaller one where
    the functional changes.
    """
    last = times[-1]
    found, means, peaks, peak = np.empty(len(times)), np.full(len(times), np.nan), np.empty(len(times)), 0.0
    errors = np.empty(len(times))
    i, place = 0, 0
    row = data[0]
    s0, s1, s2 = slack_of(row, alpha[0])
    root = math.sqrt(v_0)
    w = v_0 + s0 + root * (s1 + root * s2)
    total, direct, mass, before = 0.0, 0.0, 0.0, 0.0
    for k in range(last + 1):
        a, fresh, known = alpha[k], k == 0, math.inf
        while i + 1 < len(ends) and k >= ends[i]:
            i += 1
            if data[i][20] > 0:  # another functional: from V itself, and the sum of the one before is closed
                s0, s1, s2 = slack_of(row, a)
                x = root if fresh else largest_x(w, s0, s1, s2)
                known = min(known, row[19] * x)
                root = math.sqrt(data[i][20]) * x
                total += before * back_of(row, a) / (2 * row[18])
                before, fresh = 0.0, True
                s0, s1, s2 = slack_of(data[i], a)
                w = root * root + s0 + root * (s1 + root * s2)
            row = data[i]
        s0, s1, s2 = slack_of(row, a)
        x, rate, chi = root if fresh else largest_x(w, s0, s1, s2), row[18], row[19]
        asked = k == times[place]
        peak = max(peak, x)
        if asked:
            found[place] = x * x
            errors[place] = min(known, chi * x)
            peaks[place] = peak
            if not inclusive and mass > 0:
                means[place] = min(total + before * back_of(row, a) / (2 * rate), direct) / mass
        g0, g1, g2 = gain_of(row, a, alpha[k + 1])
        scale = weights[k] / a
        rise = scale - before
        total += (rise * w if rise > 0 else -rise * back_of(row, a)) / (2 * rate)
        total += scale * (g0 + x * (g1 + x * g2)) / (2 * rate)
        direct += weights[k] * chi * chi * x * x
        mass += weights[k]
        before = scale
        if asked:
            if inclusive and mass > 0:
                means[place] = min(total + before * back_of(row, alpha[k + 1]) / (2 * rate), direct) / mass
            place += 1
        w = advance(w, 2 * a * row[0], s0, s1, s2, g0, g1, g2)
        if not math.isfinite(w):
            found[place:] = math.inf
            means[place:] = math.inf
            peaks[place:] = math.inf
            errors[place:] = math.inf
            break
    return found, means, peaks, errors
