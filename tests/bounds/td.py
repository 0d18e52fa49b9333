"""Brute-force oracles for section 5: the update with its maximum, populations to draw from, simulated trajectories."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import instances

from bounds.adversary.oracles import OneStep, walks
from bounds.residual.population import Population, local_clock, population, tabular, tabular_features
from bounds.residual.weights import Weight, sharp_weight
from icq.exact import analyse
from icq.reason import NoNumber
from icq.smdp import ICSMDP

SMALL = dict(states=(1, 6), options=(1, 3), gamma=(0.1, 0.7), max_duration=(1, 3), terminal=(0.0, 0.4))


KINDS = ["tabular", "plain table", "local clock", "plain"]


def over_populations(*kinds, **limits):
    """Decorator: run test(pop, rng) on random small instances and classes of these kinds (default: all) that contract.

    The population is made outside the strategy, which may only draw.
    """

    def decorate(test):
        @given(instances(**(SMALL | limits)), st.sampled_from(kinds or KINDS), st.integers(0, 2**32 - 1))
        def run(m, kind, seed):
            rng = np.random.default_rng(seed)
            pop = classes(analyse(m), kind, rng)
            assume(pop is not None and pop.kappa < 0.97)
            test(pop, rng)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def classes(a, kind, rng):
    """The class of this kind, or None when the random features are too close to dependent."""
    psi = tabular_features(a)
    if kind == "tabular":
        return tabular(a)
    if kind == "plain table":
        return population(a, psi)
    psi = psi @ rng.normal(size=(psi.shape[1], int(rng.integers(1, psi.shape[1] + 1))))
    try:
        pop = population(a, psi, local_clock(a, psi) if kind == "local clock" else None)
    except NoNumber:
        return None
    return pop if pop.rank_margin > 1e-4 else None


def any_weight(pop, rng):
    """None (W = M), the sharp weight, or a random one with whatever rate it certifies, often negative."""
    kind = rng.integers(3)
    if kind == 0:
        return None
    if kind == 1:
        return sharp_weight(pop)
    p = len(pop.theta_star)
    matrix = np.cov(rng.normal(size=(p, 3 * p + 3))).reshape(p, p) * np.trace(pop.metric) / p
    return Weight(matrix, pop.sector.rate(matrix, rng.exponential(size=len(pop.least_mass)) * pop.least_mass))


@dataclass(frozen=True)
class TrueUpdate:
    """The adversary's one handoff from a single Delta, in the coordinates of the weight, and what tests ask of it."""

    pop: Population
    iid: bool = False
    weight: Weight | None = None

    @cached_property
    def z(self):
        return np.zeros_like(self.pop.analysis.deviation) if self.iid else self.pop.analysis.deviation

    @cached_property
    def one(self):
        return OneStep(self.pop, self.z, None if self.weight is None else self.weight.matrix)

    @property
    def correction(self):
        return self.one.correction

    def td(self, delta):
        """delta of every outcome."""
        return self.one.td(delta[None])[0]

    def step(self, delta):
        """u(x) delta of every outcome, [n, p]."""
        return self.one.step(delta[None])[0]

    def mean(self, value):
        """E[value | s] for value [n, ...]."""
        return self.one.mean(value[None])[:, 0]

    def nu(self, delta):
        """Z E[u delta | .], [S, p]."""
        return self.one.nu(delta[None])[:, 0]

    def second(self, delta):
        """G + 2 X + 2 Y + 2 ||Delta|| U at each state."""
        return self.one.second(delta[None])[:, 0]

    def corrected(self, delta, alpha, tier):
        """W at every state for a known Delta."""
        return self.one.corrected(delta[None], alpha, tier)[:, 0]

    def after(self, delta, alpha, function):
        """E[function(Delta', s') | s] for function(Delta) -> [S], [S]."""
        k = self.pop.outcomes
        values = [function(delta + alpha * g)[s] for g, s in zip(self.step(delta), k.target)]
        return self.mean(np.array(values))


def simulate(pop, alpha, theta_0, times, runs, seed, **options):
    """||Delta||^2, ||Q - Q_F||_d^2 and sup|Q - Q_F| at `times` for independent runs with the real maximum."""
    found, live = [], pop.d > 0
    walk = walks(pop, alpha, theta_0, np.random.default_rng(seed), runs=runs, **options)
    for time, delta in zip(range(int(times[-1]) + 1), walk):
        if time in times:
            error = delta @ pop.phi.T
            found.append(((delta**2).sum(1), error**2 @ pop.d, np.abs(error[:, live]).max(1)))
    return [np.array(part) for part in zip(*found)]


def rare(share, gamma):
    """One place with two options of no reward, the second chosen with probability `share`."""
    return ICSMDP.create(
        prob=np.ones((1, 2, 1)), next_state=np.zeros((1, 2, 1), int), duration=np.ones((1, 2, 1), int),
        reward=np.zeros((1, 2, 1)), observation=np.zeros(1, int), agent=np.zeros(1, int), gamma=gamma,
        behaviour=np.array([[1 - share, share]]),
    )  # fmt: skip


def chain(stay, reward, *, gamma=0.3, noise=0.0, observation=None, discount_spread=0):
    """Hidden states that stay with probability stay[s] and else move on cyclically; reward[s] +- noise[s]."""
    states = len(stay)
    s = np.arange(states)
    stay, reward = np.asarray(stay, float), np.asarray(reward, float)
    noise = np.broadcast_to(noise, (states,))
    prob = 0.5 * np.stack([stay, stay, 1 - stay, 1 - stay], 1)[:, None]
    moved = np.stack([s, s, (s + 1) % states, (s + 1) % states], 1)[:, None]
    earned = np.stack([reward + noise, reward - noise] * 2, 1)[:, None]
    long = np.broadcast_to(np.array([1, 1 + discount_spread] * 2), prob.shape)
    seen = np.zeros(states, int) if observation is None else np.asarray(observation)
    return analyse(
        ICSMDP.create(
            prob=prob, next_state=moved, duration=long, reward=earned, observation=seen,
            agent=np.zeros(seen.max() + 1, int), gamma=gamma,
        )
    )  # fmt: skip
