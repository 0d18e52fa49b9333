"""Random IC-SMDPs in the spirit of Garnet (Archibald, McKinnon & Thomas 1995), with aliasing and random durations.

Every (state, option) pair has `outcomes` random outcomes.  A one-factor Gaussian copula ties what happens inside an
outcome: next state, duration and reward rate are monotone functions of standard normals whose pairwise correlation
is a dial.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from icq.coerce import room
from icq.fields import LARGEST
from icq.smdp import ICSMDP
from synthetic.settings import GarnetSettings

ROOM = 64  # bytes of an outcome while it is made
UNIFORM_SHARE = 0.1  # share of the uniform law in every random law: the floor under probabilities


def garnet(
    seed: int = GarnetSettings.seed,
    *,
    states: int = GarnetSettings.states,
    options: int = GarnetSettings.options,
    outcomes: int = GarnetSettings.outcomes,
    observations: int = GarnetSettings.observations,
    agents: int = GarnetSettings.agents,
    gamma: float = GarnetSettings.gamma,
    max_duration: int = GarnetSettings.max_duration,
    terminal: float = GarnetSettings.terminal,
    unavailable: float = GarnetSettings.unavailable,
    correlated: bool | float = GarnetSettings.correlated,
) -> ICSMDP:
    """A random instance; equal arguments give equal instances.

    terminal: probability that an outcome ends the task.  unavailable: probability that an option is not there on an
    observation (one is always kept).  correlated: correlation in [0, 1] of the normals behind next state, duration and
    reward rate of one outcome; True is 1.  The reward is a constant rate in (-1, 1) per primitive step, discounted
    inside the option.  Unavailable options hold random padding.

    By construction every observation has a state, every agent an observation, the behaviour full support, and the
    handoff chain is irreducible (outcomes of available options walk a random cycle through all states) and aperiodic
    (one more such outcome returns to its own state).  Raises ValueError for sizes that cannot have this.
    """
    _check_sizes(states, options, outcomes, observations, agents, max_duration)
    for name, value in (("terminal", terminal), ("unavailable", unavailable), ("correlated", float(correlated))):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} = {value} is not inside [0, 1]")
    if not 0 < gamma < 1:
        raise ValueError(f"gamma = {gamma} is not inside (0, 1)")
    rng = np.random.default_rng(seed)
    shape = (states, options, outcomes)
    observation = _onto(rng, states, observations)
    available = _available(rng, observations, options, unavailable, spare=outcomes == 1 and states > 1)
    where, length, rate = _copula(rng, shape, float(correlated))
    next_state = _ergodic(rng, _floor(where, states), available[observation])
    duration = 1 + _floor(length, max_duration)
    return ICSMDP.create(
        prob=_laws(rng, np.ones(shape, bool)),
        next_state=next_state,
        duration=duration,
        reward=(2 * rate - 1) * (1 - gamma**duration) / (1 - gamma),
        terminal=rng.random(shape) < terminal,
        observation=observation,
        agent=_onto(rng, observations, agents),
        available=available,
        gamma=gamma,
        behaviour=_laws(rng, available),
    )


def _check_sizes(states: int, options: int, outcomes: int, observations: int, agents: int, max_duration: int) -> None:
    sizes = {"states": states, "options": options, "outcomes": outcomes, "observations": observations}
    for name, value in (sizes | {"agents": agents, "max_duration": max_duration}).items():
        if value < 1:
            raise ValueError(f"{name} = {value}, at least 1 is needed")
    if (entries := states * options * outcomes) > LARGEST:
        raise ValueError(f"states x options x outcomes = {entries}: at most {LARGEST} outcomes are counted")
    room(f"states = {states}, options = {options}, outcomes = {outcomes}: the outcomes", ROOM * entries)
    if observations > states:
        raise ValueError(f"observations = {observations} > states = {states}: an observation would have no state")
    if agents > observations:
        raise ValueError(f"agents = {agents} > observations = {observations}: an agent would never act")
    if states > 1 and options == outcomes == 1:
        raise ValueError(f"options = outcomes = 1 with states = {states}: a deterministic cycle is periodic")


def _onto(rng: np.random.Generator, items: int, groups: int) -> Int[np.ndarray, "items"]:
    """A random map of `items` onto all of `groups`."""
    return rng.permutation(np.concatenate([np.arange(groups), rng.integers(groups, size=items - groups)]))


def _available(
    rng: np.random.Generator, observations: int, options: int, share: float, *, spare: bool
) -> Bool[np.ndarray, "O A"]:
    """Leave this share of options out at random, never the last one; with `spare` one observation keeps two."""
    available = rng.random((observations, options)) >= share
    available[np.arange(observations), rng.integers(options, size=observations)] = True
    if spare and not (available.sum(1) > 1).any():
        o = rng.integers(observations)
        available[o, rng.choice(np.flatnonzero(~available[o]))] = True
    return available


def _laws(rng: np.random.Generator, support: Bool[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows n"]:
    """Dirichlet(1, ..., 1) on the support of each row, mixed with the uniform law on it."""
    weight = np.where(support, rng.standard_exponential(support.shape), 0.0)
    weight /= weight.sum(-1, keepdims=True)
    return (1 - UNIFORM_SHARE) * weight + UNIFORM_SHARE * support / support.sum(-1, keepdims=True)


def _copula(rng: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> Float[np.ndarray, "3 S A B"]:
    """Three uniforms per outcome whose normal scores have this pairwise correlation."""
    shared = np.sqrt(correlation) * rng.standard_normal(shape)
    return ndtr(shared + np.sqrt(1 - correlation) * rng.standard_normal((3, *shape)))


def _floor(uniform: Float[np.ndarray, "S A B"], count: int) -> Int[np.ndarray, "S A B"]:
    return np.minimum((uniform * count).astype(np.int64), count - 1)


def _ergodic(
    rng: np.random.Generator, next_state: Int[np.ndarray, "S A B"], available: Bool[np.ndarray, "S A"]
) -> Int[np.ndarray, "S A B"]:
    """Redirect one available outcome per state along a random cycle, and one more outcome into a self-loop."""
    states, options, outcomes = next_state.shape
    out = next_state.copy()
    every = np.arange(states)
    option = np.where(available, rng.random((states, options)), -1.0).argmax(1)
    outcome = rng.integers(outcomes, size=states)
    order = rng.permutation(states)
    successor = np.empty(states, np.int64)
    successor[order] = np.roll(order, -1)
    out[every, option, outcome] = successor
    if states > 1:
        free = available[:, :, None].repeat(outcomes, 2)
        free[every, option, outcome] = False
        slot = rng.choice(np.flatnonzero(free))
        out.flat[slot] = slot // (options * outcomes)
    return out
