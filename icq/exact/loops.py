"""The loops of the exact analysis that pay for compilation (numba); import it through `icq.exact.fixed_point.compiled`.

Each has a counterpart in NumPy or SciPy that it is tested against.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from icq.exact.jit import jit

RUN = 1e-5  # one run reduces the residual this much at most: its recursion drifts away from the truth
SMALLEST = 2.3e-308  # the least number with all its digits
GOOD_RATE = 0.5  # sweeps go on alone while each shrinks the step this much


class SparseRows(NamedTuple):
    """A sparse kernel [S*A, S]: columns and weights of row i are at starts[i]:starts[i + 1].

    Columns are unsigned, which spares a check for negative ones at every read.
    """

    starts: Int[np.ndarray, "rows+1"]
    column: UInt32[np.ndarray, "entries"]
    weight: Float[np.ndarray, "entries"]


class Policy(NamedTuple):
    """One row per state, without its diagonal: entries start[s]:stop[s], inverse = 1 / (1 - diagonal).

    A Gauss-Seidel step is v[s] = inverse[s] (reward[s] + sum weight v[column]).  column_sum: of the matrix minus I.
    """

    option: Int[np.ndarray, "S"]  # -1: none yet
    start: Int[np.ndarray, "S"]
    stop: Int[np.ndarray, "S"]
    column: UInt32[np.ndarray, "room"]
    weight: Float[np.ndarray, "room"]
    inverse: Float[np.ndarray, "S"]
    reward: Float[np.ndarray, "S"]
    column_sum: Float[np.ndarray, "S"]


@jit
def measure(
    kernel: SparseRows, reward: Float[np.ndarray, "S A"], available: Bool[np.ndarray, "S A"]
) -> tuple[float, int, float]:
    """(largest row sum, most entries in a row, largest |reward| of an available option)."""
    largest, width, scale = 0.0, 0, 0.0
    states, options = reward.shape
    for s in range(states):
        for a in range(options):
            row = s * options + a
            total = 0.0
            for j in range(kernel.starts[row], kernel.starts[row + 1]):
                total += kernel.weight[j]
            largest = max(largest, total)
            width = max(width, kernel.starts[row + 1] - kernel.starts[row])
            if available[s, a]:
                scale = max(scale, abs(reward[s, a]))
    return largest, width, scale


@jit
def slots(starts: Int[np.ndarray, "rows+1"], options: int, start: Int[np.ndarray, "S"]) -> int:
    """start[s]: where the row of state s begins if each state has room for its longest option; returns the end."""
    total = 0
    for s in range(len(start)):
        start[s] = total
        longest = 0
        for row in range(s * options, (s + 1) * options):
            longest = max(longest, starts[row + 1] - starts[row])
        total += longest
    return total


@jit
def improve(
    kernel: SparseRows,
    reward: Float[np.ndarray, "S A"],
    available: Bool[np.ndarray, "S A"],
    v: Float[np.ndarray, "S"],
    q: Float[np.ndarray, "S A"],
    v_next: Float[np.ndarray, "S"],
) -> tuple[float, float]:
    """q = reward + K v, 0 where unavailable, and v_next its maxima.

    Returns (max |v_next - v|, max |v|), infinite if v is not finite: comparisons alone would pass over a NaN.
    Two loops: in one, mispredicted comparisons would hold up the reads of K.
    """
    states, options = reward.shape
    flat, offset = q.reshape(-1), reward.reshape(-1)
    for row in range(len(flat)):
        x = offset[row]
        for j in range(kernel.starts[row], kernel.starts[row + 1]):
            x += kernel.weight[j] * v[kernel.column[j]]
        flat[row] = x
    change, size, total = 0.0, 0.0, 0.0
    for s in range(states):
        best = -np.inf
        for a in range(options):
            if available[s, a]:
                best = max(best, q[s, a])
            else:
                q[s, a] = 0.0
        v_next[s] = best
        change = max(change, abs(best - v[s]))
        size = max(size, abs(v[s]))
        total += abs(v[s])
    return (change, size) if np.isfinite(total) else (np.inf, np.inf)


@jit
def first_best(
    q: Float[np.ndarray, "S A"],
    available: Bool[np.ndarray, "S A"],
    option: Int[np.ndarray, "S"],
    v: Float[np.ndarray, "S"],
) -> None:
    """option[s] = the first maximising available option, v[s] = the maximum."""
    states, options = q.shape
    for s in range(states):
        best, first = -np.inf, 0
        for a in range(options):
            if available[s, a] and q[s, a] > best:
                best, first = q[s, a], a
        option[s], v[s] = first, best


@jit
def select(
    kernel: SparseRows,
    reward: Float[np.ndarray, "S A"],
    available: Bool[np.ndarray, "S A"],
    q: Float[np.ndarray, "S A"],
    best: Float[np.ndarray, "S"],
    policy: Policy,
) -> tuple[int, float]:
    """The greedy policy of q, whose maxima are `best`; only rows whose option changes are touched.

    Returns (options changed, sum of all entries of I minus the matrix).
    """
    states, options = reward.shape
    moved = 0
    for s in range(states):
        option = 0
        for a in range(options - 1, -1, -1):
            if available[s, a] and q[s, a] == best[s]:
                option = a
        if policy.option[s] == option:
            continue
        moved += 1
        if policy.option[s] >= 0:
            policy.column_sum[s] += 1.0 / policy.inverse[s]
            for k in range(policy.start[s], policy.stop[s]):
                policy.column_sum[policy.column[k]] -= policy.weight[k]
        policy.option[s] = option
        policy.reward[s] = reward[s, option]
        row, k, diagonal = s * options + option, policy.start[s], 0.0
        for j in range(kernel.starts[row], kernel.starts[row + 1]):
            if kernel.column[j] == s:
                diagonal += kernel.weight[j]
            else:
                policy.column[k] = kernel.column[j]
                policy.weight[k] = kernel.weight[j]
                policy.column_sum[kernel.column[j]] += kernel.weight[j]
                k += 1
        policy.stop[s] = k
        policy.inverse[s] = 1.0 / (1.0 - diagonal)
        policy.column_sum[s] -= 1.0 / policy.inverse[s]
    mass = 0.0
    for s in range(states):
        mass -= policy.column_sum[s]
    return moved, mass


@jit
def shift(policy: Policy, reward: Float[np.ndarray, "S"], mass: float, v: Float[np.ndarray, "S"]) -> None:
    """Add the constant that makes the sum of reward + K v - v vanish; mass = inf switches it off."""
    total = 0.0
    for s in range(len(v)):
        total += reward[s] + policy.column_sum[s] * v[s]
    for s in range(len(v)):
        v[s] += total / mass


@jit
def sweep(policy: Policy, reward: Float[np.ndarray, "S"], mass: float, v: Float[np.ndarray, "S"]) -> float:
    """One Gauss-Seidel sweep of v = reward + K v in place, then `shift`.

    Returns the largest step of the sweep, infinite if v is not finite.
    """
    step, total = 0.0, 0.0
    for s in range(len(v)):
        x = reward[s]
        for j in range(policy.start[s], policy.stop[s]):
            x += policy.weight[j] * v[policy.column[j]]
        x *= policy.inverse[s]
        step = max(step, abs(x - v[s]))
        v[s] = x
        total += reward[s] + policy.column_sum[s] * x
    for s in range(len(v)):
        v[s] += total / mass
    return step if np.isfinite(total) else np.inf


@jit
def evaluate(
    policy: Policy,
    reward: Float[np.ndarray, "S"],
    mass: float,
    v: Float[np.ndarray, "S"],
    relative: float,
    absolute: float,
    limit: int,
) -> bool:
    """Solve v = reward + K v in place: sweeps while they go fast, then BiCGSTAB on the map of one sweep.

    Stops when a sweep moves v by at most max(relative * the first step, absolute) or after about `limit` sweeps.
    Returns whether it stopped in time.
    """
    shift(policy, reward, mass, v)
    first = sweep(policy, reward, mass, v)
    goal, step, used = max(relative * first, absolute), first, 1
    while step > goal and used < limit:
        last = step
        step = sweep(policy, reward, mass, v)
        used += 1
        if used > 3 and step > GOOD_RATE * last:
            break
    if step <= goal:
        return True
    kept, work = v.copy(), np.empty((6, len(v)))
    while used < limit:
        used += 1 + accelerate(policy, reward, mass, v, goal, limit - used, work)
        step = sweep(policy, reward, mass, v)
        if step > 1e3 * first:  # broken down
            v[:] = kept
            return False
        kept[:] = v
        if step <= goal:
            return True
    return False


@jit
def accelerate(
    policy: Policy,
    reward: Float[np.ndarray, "S"],
    mass: float,
    v: Float[np.ndarray, "S"],
    goal: float,
    limit: int,
    work: Float[np.ndarray, "6 S"],
) -> int:
    """BiCGSTAB (van der Vorst) for v - G(v) = 0 where G is one `sweep`; returns the sweeps used."""
    zero, residual, shadow = work[0], work[1], work[2]
    direction, image, half = work[3], work[4], work[5]
    zero[:] = v
    step = sweep(policy, reward, mass, zero)
    rho = 0.0
    for s in range(len(v)):
        residual[s] = zero[s] - v[s]
        shadow[s] = residual[s]
        direction[s] = residual[s]
        rho += residual[s] * residual[s]
    zero[:] = 0.0
    norm, used = rho, 1
    aim = min(max(0.1 * goal / step, RUN), 0.1) ** 2 * rho if step > 0.0 else rho
    while norm > aim and used < limit:
        image[:] = direction
        sweep(policy, zero, mass, image)
        along = 0.0
        for s in range(len(v)):
            image[s] = direction[s] - image[s]
            along += shadow[s] * image[s]
        if along == 0.0:
            break
        alpha = rho / along
        for s in range(len(v)):
            residual[s] -= alpha * image[s]
            half[s] = residual[s]
        sweep(policy, zero, mass, half)
        used += 2
        onto, square = 0.0, 0.0
        for s in range(len(v)):
            half[s] = residual[s] - half[s]
            onto += half[s] * residual[s]
            square += half[s] * half[s]
        omega = onto / square if square > 0.0 else 0.0
        norm, turned = 0.0, 0.0
        for s in range(len(v)):
            v[s] += alpha * direction[s] + omega * residual[s]
            residual[s] -= omega * half[s]
            norm += residual[s] * residual[s]
            turned += shadow[s] * residual[s]
        if omega == 0.0 or turned == 0.0:
            break
        beta = turned / rho * alpha / omega
        rho = turned
        for s in range(len(v)):
            direction[s] = residual[s] + beta * (direction[s] - omega * image[s])
    return used


@jit
def reduce_states(p: Float[np.ndarray, "S S"]) -> bool:
    """State reduction of a dense stochastic matrix in place, last state first (docs/theory.md section 1, Lemma 1.3).

    Returns whether no number can have fallen below the range of a double.
    """
    for k in range(len(p) - 1, 0, -1):
        leave, out, into = 0.0, np.inf, np.inf
        for j in range(k):
            leave += p[k, j]
            if p[k, j] > 0.0:
                out = min(out, p[k, j])
        if leave < SMALLEST:
            return False
        for i in range(k):
            if p[i, k] > 0.0:
                p[i, k] /= leave
                into = min(into, p[i, k])
                for j in range(k):
                    p[i, j] += p[i, k] * p[k, j]
        if into * out < SMALLEST:
            return False
    return True
