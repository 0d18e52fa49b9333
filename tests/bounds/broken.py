"""The adversary of the theory tests: a fixed family of instances on which a broken bound must be caught."""

from collections.abc import Callable
from functools import cache

import numpy as np
from strategies import garnet

from bounds.adversary.search import scaled
from bounds.core.bound import Bound, Verdict, verdict
from icq.exact import Analysis, analyse
from icq.smdp import ICSMDP


@cache
def family(count: int = 60) -> tuple[Analysis, ...]:
    """Random small instances, fully observed to blind, gamma .3 to .99, and three on which section 3 is tight."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        states = int(rng.integers(1, 8))
        observations = int(rng.integers(1, states + 1))
        m = garnet(
            seed,
            states=states,
            options=int(rng.integers(1, 4)),
            outcomes=int(rng.integers(2, 4)),
            observations=observations,
            agents=int(rng.integers(1, observations + 1)),
            gamma=float(rng.choice([0.3, 0.8, 0.99])),
            max_duration=int(rng.integers(1, 5)),
            terminal=float(rng.choice([0.0, 0.2])),
            unavailable=float(rng.choice([0.0, 0.5])),
        )
        out.append(analyse(m))
    return (*out, analyse(twins(1, stay=0.99)), analyse(twins(2, stay=0.99)), analyse(skewed()))


def twins(options: int, *, stay: float, gamma: float = 0.5) -> ICSMDP:
    """Two hidden states behind one observation, the worst case of section 3: b = +-1 and Qbar = 0.

    The first option pays +1 in state 0 and -1 in state 1, the second the reverse.  `stay`: probability that the hidden
    state survives a handoff; near 1 the same error repeats for ever and the bounds are nearly attained.
    """
    pay = np.array([[1.0, -1.0], [-1.0, 1.0]])[:, :options, None]
    return ICSMDP.create(
        prob=np.broadcast_to([stay, 1 - stay], (2, options, 2)),
        next_state=np.broadcast_to(np.array([[0, 1], [1, 0]])[:, None], (2, options, 2)),
        duration=np.ones((2, options, 2), int),
        reward=np.broadcast_to(pay, (2, options, 2)),
        observation=[0, 0],
        agent=[0],
        gamma=gamma,
    )


def skewed() -> ICSMDP:
    """One-step twins whose hidden state 1 is rare, and the greedy option costly there: nearly tight in the d-norm."""
    return ICSMDP.create(
        prob=np.broadcast_to([0.9, 0.1], (2, 2, 2)),
        next_state=np.broadcast_to([0, 1], (2, 2, 2)),
        duration=np.ones((2, 2, 2), int),
        reward=np.broadcast_to(np.array([[0.112, -0.112], [-1.0, 1.0]])[:, :, None], (2, 2, 2)),
        terminal=np.ones((2, 2, 2), bool),
        observation=[0, 0],
        agent=[0],
        gamma=0.5,
    )


def shrunk(bound: Bound, factor: float) -> Bound:
    """The same claim with a value `factor` times as large: what a lost constant looks like."""
    return scaled(factor)(bound)


def caught(
    claim: Callable[[Analysis], Bound],
    observe: Callable[[Analysis], float],
    allowance: float = 1e-9,
    over: tuple[Analysis, ...] | None = None,
) -> bool:
    """Whether the claim is reported as violated on some instance of the family.  The allowance is generous."""
    instances = family() if over is None else over
    return any(verdict(claim(a), x := observe(a), x, allowance=allowance) is Verdict.VIOLATED for a in instances)


def never_violated(
    claim: Callable[[Analysis], Bound],
    observe: Callable[[Analysis], float],
    error: Callable[[Analysis], float],
    over: tuple[Analysis, ...] | None = None,
) -> bool:
    """The verifier's answer on the intact bound, with the certified error of the observation only."""
    instances = family() if over is None else over
    verdicts = [verdict(claim(a), x := observe(a), x, allowance=error(a)) for a in instances]
    return Verdict.VIOLATED not in verdicts and Verdict.HOLDS in verdicts
