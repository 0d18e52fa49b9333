"""The tabular loop of learner.c as plain Python for numba to compile."""

import numpy as np


def tabular(handoffs, step, state, accept, alias, next_state, reward, discount, cumulative, observation, available):
    observations, options = cumulative.shape
    outcomes = accept.shape[2]
    q = np.zeros((observations, options), np.float32)
    average = np.zeros((observations, options), np.float32)
    visits = np.zeros((observations, options), np.float32)
    touched = np.zeros(observations, np.int32)
    unit = np.float32(2.0**-24)
    one = np.float32(1.0)
    s = 0
    for k in range(handoffs):
        state ^= state >> np.uint64(12)
        state ^= state << np.uint64(25)
        state ^= state >> np.uint64(27)
        first = state * np.uint64(2685821657736338717)
        state ^= state >> np.uint64(12)
        state ^= state << np.uint64(25)
        state ^= state >> np.uint64(27)
        second = state * np.uint64(2685821657736338717)
        u = np.float32((first & np.uint64(0xFFFFFFFF)) >> np.uint64(8)) * unit
        v = np.float32(first >> np.uint64(40)) * unit
        w = np.float32(second >> np.uint64(40)) * unit
        o = observation[s]
        a = 0
        for i in range(options):
            a += u >= cumulative[o, i]
        b = int(v * np.float32(outcomes))
        if w >= accept[s, a, b]:
            b = alias[s, a, b]
        s_next = next_state[s, a, b]
        o_next = observation[s_next]
        m = np.float32(-3.0e38)
        for i in range(options):
            if available[o_next, i] and q[o_next, i] > m:
                m = q[o_next, i]
        share = one - np.float32(touched[o]) / np.float32(max(k, 1))
        touched[o] = k
        for i in range(options):
            average[o, i] += share * (q[o, i] - average[o, i])
        q[o, a] += step * (reward[s, a, b] + discount[s, a, b] * m - q[o, a])
        visits[o, a] += one
        s = s_next
    return q
