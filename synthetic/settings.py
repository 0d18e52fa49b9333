"""What a family of workflows is made of: every setting with its default and its meaning, once for all who make it.

The makers beside this file, `icq make` and `icq sweep` take defaults from here, and the text under a field is its
meaning in every help and error.  Importing this module loads no JAX: a help page should not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DialsSettings:
    """The dials family: each source of error has its own dial."""

    agents: int = 10
    """Number of agents."""
    graph: str = "complete"
    """Handoff graph: complete (anyone hands over to anyone), ring, star, pipeline or random."""
    degree: int = 4
    """Out-degree of the random graph."""
    clusters: int = 4
    """Clusters among which the workflow moves; they only rename observations."""
    visible: int = 2
    """Values of what an agent sees."""
    hidden: int = 2
    """Values of what its interface hides."""
    options: int = 2
    """Options per agent."""
    gap: float = 1.0
    """What the interface hides, in [0, 1]."""
    mixing: float = 0.3
    """Probability of leaving the cluster at a handoff."""
    kernel_share: float = 0.5
    """Part of the gap that sits in the next state instead of the reward."""
    compensate: float = 1.0
    """1 keeps the law of the logs free of the gap."""
    reward_noise: float = 0.2
    """Standard deviation of the reward noise."""
    duration_mean: float = 6.0
    """Primitive steps per option."""
    duration_spread: float = 0.5
    """Relative half-range of the durations, in [0, 1]."""
    action_gap: float = 0.15
    """Smallest margin of the best option in Qbar."""
    persistence: float = 0.0
    """Probability that the hidden part is kept: couples gap and mixing."""
    gamma: float = 0.9
    """Discount per primitive step."""
    seed: int = 0
    """Seed of the random instance."""


@dataclass(frozen=True, kw_only=True)
class GarnetSettings:
    """A random (Garnet-like) workflow with aliasing, terminals and unequal option sets."""

    states: int = 60
    """Global states."""
    options: int = 3
    """Options per agent, some of them unavailable."""
    outcomes: int = 4
    """Random outcomes of a state and option."""
    observations: int = 20
    """Observations; fewer than states make the interface hide something."""
    agents: int = 4
    """Number of agents."""
    gamma: float = 0.9
    """Discount per primitive step."""
    max_duration: int = 6
    """Longest option, primitive steps."""
    terminal: float = 0.1
    """Probability that an outcome ends the task."""
    unavailable: float = 0.2
    """Probability that an option is unavailable on an observation."""
    correlated: float = 0.0
    """Correlation of next state, duration and reward inside an outcome."""
    seed: int = 0
    """Seed of the random instance."""


@dataclass(frozen=True, kw_only=True)
class RoutingSettings:
    """A gateway and specialists who pass on a partly seen request until somebody answers it."""

    specialists: int = 4
    """Specialists; with the gateway one agent more."""
    intents: int = 4
    """Intents of each specialist's domain."""
    view: int | None = None
    """Bits of the request that every agent sees without asking (left out: all of them, so that nothing is hidden)."""
    gamma: float = 0.98
    """Discount per primitive step."""
    right: float = 1.0
    """Reward of an answer by the right specialist."""
    wrong: float = -1.0
    """Reward of an answer by another specialist."""
    human: float = 0.3
    """Reward of handing over to a human."""
    ask: float = -0.02
    """Reward of asking the user for one more bit."""
    left: float = -0.3
    """Reward when the user leaves."""
    leave: float = 0.08
    """Probability that a question makes the user leave."""
    seed: int = 0
    """Seed of the codes and durations."""
