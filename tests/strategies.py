"""Random IC-SMDPs: small ones by seed, and hypothesis strategies of every shape."""

from hypothesis import strategies as st

from icq.smdp import ICSMDP
from synthetic import random

IntRange = int | tuple[int, int]
FloatRange = float | tuple[float, float]


def _integers(limit: IntRange, low: int | None = None, high: int | None = None) -> st.SearchStrategy[int]:
    first, last = limit if isinstance(limit, tuple) else (limit, limit)
    first, last = max(first, low or first), min(last, high or last)
    return st.sampled_from(range(min(first, last), last + 1))


def _floats(limit: FloatRange) -> st.SearchStrategy[float]:
    """A grid over the range, ends and middle first: exact ends are drawn often, and examples stay readable."""
    first, last = limit if isinstance(limit, tuple) else (limit, limit)
    if first == last:
        return st.just(float(first))
    return st.sampled_from([first + (last - first) * (i / 8) for i in (0, 4, 8, 2, 6, 1, 3, 5, 7)])


def garnet(seed: int, **settings: int | float) -> ICSMDP:
    """A random instance that is small where its settings do not say otherwise."""
    settings = {"states": 12, "outcomes": 3, "observations": 6, "max_duration": 4} | settings
    return random.garnet(seed, **{"agents": min(3, settings["observations"])} | settings)


@st.composite
def instances(
    draw,
    *,
    states: IntRange = (1, 8),
    options: IntRange = (1, 3),
    outcomes: IntRange = (1, 4),
    alias: FloatRange = (0.0, 1.0),
    agents: IntRange = (1, 4),
    gamma: FloatRange = (0.3, 0.99),
    max_duration: IntRange = (1, 5),
    terminal: FloatRange = (0.0, 0.5),
    unavailable: FloatRange = (0.0, 0.7),
    correlated: FloatRange = (0.0, 1.0),
) -> ICSMDP:
    """A random ergodic instance; every limit is a value or an inclusive (low, high).

    alias: 0 every state has its own observation, 1 all states share one.  Agents are at most the observations.
    """
    s = draw(_integers(states))
    a = draw(_integers(options))
    o = round(s - draw(_floats(alias)) * (s - 1))
    return garnet(
        draw(st.integers(0, 2**32 - 1)),
        states=s,
        options=a,
        outcomes=draw(_integers(outcomes, low=2 if a == 1 and s > 1 else 1)),
        observations=o,
        agents=draw(_integers(agents, high=o)),
        gamma=draw(_floats(gamma)),
        max_duration=draw(_integers(max_duration)),
        terminal=draw(_floats(terminal)),
        unavailable=draw(_floats(unavailable)),
        correlated=draw(_floats(correlated)),
    )
