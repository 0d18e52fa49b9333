"""The lemmas of docs/theory.md section 5 (and the closed forms of 6) under attack: the mixing residual.

Left sides are exact (bounds.adversary.oracles): single handoffs with the real maximum over options, whole runs with
frozen greedy options.  Simulated runs with the real maximum come on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Int

from bounds.adversary.interface import claim
from bounds.adversary.oracles import DOUBLINGS, FrozenRun, OneStep, long_limits, simulate
from bounds.adversary.search import Case, Lemma, Sample, reduced, scaled
from bounds.approximation.classes import linear_class
from bounds.core.bound import Bound
from bounds.core.curve import Curve
from bounds.residual import closed, poisson, sharp, textbook
from bounds.residual.constants import constants
from bounds.residual.moments import second_moments
from bounds.residual.population import (
    Population,
    is_tabular,
    local_clock,
    population,
    tabular,
    tabular_features,
)
from bounds.residual.recursion import Lyapunov, Quadratic, advance, leap
from bounds.residual.weights import Weight, sharp_weight
from icq.display import Shown
from icq.exact import Analysis
from icq.reason import NoNumber

LARGEST = 150  # size of the moment matrix up to which runs of any length are exact


def random_population(a: Analysis, rng: np.random.Generator) -> Population | None:
    """A table or random features, with the local clock or the identity; None when they are nearly dependent."""
    psi = tabular_features(a)
    kind = int(rng.integers(4))
    if kind == 0:
        return tabular(a)
    if kind > 1:
        width = int(rng.integers(1, min(psi.shape[1], 4) + 1))
        psi = psi @ rng.normal(size=(psi.shape[1], width))
    together = np.zeros(len(a.d_obs), int)
    if linear_class(a, psi.reshape(*a.d_pair.shape, -1), slot=together).modulus >= 1:
        return None
    try:
        pop = population(a, psi, local_clock(a, psi) if kind == 3 else None)
    except NoNumber:
        return None
    return pop if pop.rank_margin > 1e-4 else None


@lru_cache(maxsize=1)
def problem(s: Sample) -> Population | None:
    """The class of this sample, or None."""
    return random_population(s.analysis, s.rng("class of section 5"))


def largest_step(inequality: Lyapunov) -> float:
    """The step at which one of the conditions of the recursion fails (1 if none does)."""
    linear, square = inequality.slack_1.c2, inequality.slack_2.c2
    root = 2 / (linear + math.sqrt(linear**2 + 4 * square)) if linear + square > 0 else math.inf
    return min(root, 0.5 / inequality.mu if inequality.mu > 0 else math.inf, 1.0)


def start(pop: Population, rng: np.random.Generator) -> Float[np.ndarray, "p"]:
    """The fixed point, zero, or somewhere far away."""
    return (pop.theta_star, 0 * pop.theta_star, pop.theta_star + rng.normal(size=len(pop.theta_star)))[rng.integers(3)]


@dataclass(frozen=True)
class Trial(Shown):
    """One class, constant step, start and start law, with exact errors at doubling times."""

    pop: Population
    alpha: float
    theta_0: Float[np.ndarray, "p"]
    law: Float[np.ndarray, "S"]

    @cached_property
    def times(self) -> Int[np.ndarray, "n"]:
        """1, 2, 4, ..."""
        return 2 ** np.arange(DOUBLINGS + 1)

    @cached_property
    def exact(self) -> Float[np.ndarray, "n 3"]:
        """(E||Q_T - Q_F||_d^2)^{1/2}, the same averaged over the path, and max_x (E(Q_T - Q_F)(x)^2)^{1/2}."""
        pop = self.pop
        gram = pop.phi.T @ (pop.d[:, None] * pop.phi)
        rows = []
        for moments in FrozenRun(pop, self.alpha).runs(self.law, pop.error(self.theta_0)):
            entry = np.einsum("xp,pq,xq->x", pop.phi, moments.last, pop.phi)[pop.d > 0].max()
            rows.append((np.sum(gram * moments.last), np.sum(gram * moments.path), entry))
        return np.sqrt(np.maximum(np.array(rows), 0.0))

    def allowance(self, last: int = 6) -> float:
        """Rounding of a matrix power and of the fixed point, relative to the moments up to `times[last]`.

        Moments that overflow (the frozen recursion may explode where kappa > 1) are no observations and do not count.
        """
        size = self.exact[: last + 1, 0]
        return 1e-7 * (float(size[np.isfinite(size)].max(initial=0.0)) + float(np.abs(self.pop.q_f).max()))

    def cases(self, curve: Curve, column: int) -> Iterator[Case]:
        """The curve against the exact errors, one case per time as long as both are finite."""
        for i in range(len(self.times)):
            seen = float(self.exact[i, column])
            if not math.isfinite(seen):
                return
            yield Case(curve.at(i), seen, self.allowance(i))
            if not curve.applicable:
                return


@lru_cache(maxsize=1)
def trial(s: Sample) -> Trial | None:
    """A run on the sample's class, if it is small enough for exact long runs."""
    pop = problem(s)
    if pop is None or s.smdp.num_states * (1 + len(pop.theta_star) + len(pop.theta_star) ** 2) > LARGEST:
        return None
    rng = s.rng("run")
    alpha = largest_step(poisson.tier_2_inequality(constants(pop))) * 10 ** rng.uniform(-4, -0.3)
    law = s.analysis.d if rng.random() < 0.5 else rng.dirichlet(np.ones(s.smdp.num_states))
    return Trial(pop, alpha, start(pop, rng), law)


def constant_run(make: Callable[..., Curve], column: int) -> Callable[[Sample], Iterator[Case]]:
    """A certificate at a constant step along one exact run."""

    def cases(s: Sample) -> Iterator[Case]:
        t = trial(s)
        if t is not None:
            yield from t.cases(make(t.pop, t.alpha, t.theta_0, t.times), column)

    return cases


def weighted_run(s: Sample) -> Iterator[Case]:
    """The certificates with a Riccati weight, along one exact run."""
    t = trial(s)
    weight = None if t is None else riccati(t.pop)
    if t is not None and weight is not None:
        for make, column in (
            (poisson.tier_2, 0),
            (closed.last_iterate, 0),
            (poisson.averaged, 1),
            (closed.averaged, 1),
        ):
            yield from t.cases(make(t.pop, t.alpha, t.theta_0, t.times, weight=weight), column)


def sup_norm_run(s: Sample) -> Iterator[Case]:
    """E||Q_T - Qbar||_inf^2 is at least the largest second moment of an entry."""
    t = trial(s)
    if t is not None and is_tabular(t.pop):
        yield from t.cases(textbook.sup_norm(t.pop, t.alpha, t.theta_0, t.times), 2)


def decreasing_run(s: Sample) -> Iterator[Case]:
    """Tier 1, tier 2 and the averaged form with decreasing steps, by the moment recursion."""
    t = trial(s)
    if t is None:
        return
    times, power = np.array([1, 4, 16, 48]), float(s.rng("decay").choice([0.5, 0.8, 1.0]))
    steps = t.alpha * (1 + np.arange(50) / 5) ** -power
    exact = second_moments(t.pop, steps, t.theta_0, times, t.law)
    for make, seen in ((poisson.tier_1, exact.error), (poisson.tier_2, exact.error), (poisson.averaged, exact.path)):
        curve = make(t.pop, steps, t.theta_0, times)
        for i in range(len(times)):
            yield Case(curve.at(i), math.sqrt(max(seen[i], 0.0)), t.allowance())


def control_run(s: Sample) -> Iterator[Case]:
    """The i.i.d. control, by the moment recursion."""
    t = trial(s)
    if t is None:
        return
    times = np.array([1, 8, 40])
    exact = second_moments(t.pop, t.alpha, t.theta_0, times, iid=True).error
    curve = poisson.iid_control(t.pop, t.alpha, t.theta_0, times)
    for i in range(len(times)):
        yield Case(curve.at(i), math.sqrt(max(exact[i], 0.0)), t.allowance())


def recursion_of_moments(s: Sample) -> Iterator[Case]:
    """The moment recursion against the matrix of Kronecker products, both ways."""
    t = trial(s)
    if t is None:
        return
    times = t.times[:5]
    found = second_moments(t.pop, t.alpha, t.theta_0, times, t.law)
    for i in range(len(times)):
        for one, column in ((found.error[i], 0), (found.path[i], 1)):
            pair = (math.sqrt(max(float(one), 0.0)), float(t.exact[i, column]))
            yield Case(claim(pair[0]), pair[1], t.allowance())
            yield Case(claim(pair[1]), pair[0], t.allowance())


@lru_cache(maxsize=1)
def riccati(pop: Population) -> Weight | None:
    """The Riccati weight, None where there is none better than M."""
    found = sharp_weight(pop)
    return None if found.matrix is pop.metric else found


def one_step(tier: int, *, iid: bool = False, weighted: bool = False) -> Callable[[Sample], Iterator[Case]]:
    """The increment of W over one handoff from every state, plus the drift, against the gain; and the slack."""

    def cases(s: Sample) -> Iterator[Case]:
        pop = problem(s)
        weight = riccati(pop) if weighted and pop is not None else None
        if pop is None or (weighted and weight is None):
            return
        rng = s.rng(f"one step {tier} {iid} {weighted}")
        k = constants(pop, iid=iid, weight=weight)
        inequality = poisson.tier_1_inequality(k) if tier == 1 else poisson.tier_2_inequality(k)
        alpha = largest_step(inequality) * 10 ** rng.uniform(-3, 0)
        after = alpha * float(rng.choice([1.0, 0.9]))
        z = np.zeros_like(pop.analysis.deviation) if iid else pop.analysis.deviation
        true = OneStep(pop, z, None if weight is None else weight.matrix)
        for scale in 10 ** rng.uniform(-3, 2, size=2):
            delta = scale * rng.normal(size=len(pop.theta_star))
            x = float(np.linalg.norm(delta))
            now = true.corrected(delta[None], alpha, tier)[:, 0]
            grown = true.after(delta, alpha, after, tier) - now + 2 * alpha * inequality.mu * x**2
            grown = pop.analysis.d @ grown if iid else grown.max()
            noise = 1e-11 * (x**2 + float(np.abs(now).max()) + float(np.abs(pop.q_f).max()) ** 2)
            parts = {"second order": alpha**2 * inequality.gain_2(x)}
            yield Case(claim(inequality.gain(alpha, after)(x), parts), float(grown), noise)
            slack = inequality.slack(alpha)
            yield Case(claim(slack(x), {"second order": 0.1 * slack(x)}), float(np.abs(now - x**2).max()), noise)

    return cases


def drift(weighted: bool) -> Callable[[Sample], Iterator[Case]]:
    """rate ||Q - Q_F||_d^2 <= -<mean update, Delta>, for the weight M or a Riccati weight."""

    def cases(s: Sample) -> Iterator[Case]:
        pop = problem(s)
        weight = riccati(pop) if weighted and pop is not None else None
        if pop is None or (weighted and weight is None):
            return
        rng, a = s.rng("drift"), s.analysis
        true = OneStep(pop, a.deviation, None if weight is None else weight.matrix)
        rate = 1 - pop.kappa if weight is None else weight.rate
        for scale in 10 ** rng.uniform(-2, 2, size=3):
            delta = scale * rng.normal(size=len(pop.theta_star))
            pull = -float(delta @ (pop.mass @ true.step(delta[None])[0]))
            size = float(pop.d @ (true.correction.read @ delta) ** 2)
            noise = 1e-10 * (size + float(np.abs(pop.q_f).max()) * math.sqrt(size)) * (1 + abs(pull) / size)
            yield Case(claim(max(pull, 0.0)), max(rate, 0.0) * size, noise)

    return cases


def later_covariance(s: Sample) -> Iterator[Case]:
    """Sigma_mix against the series of E_d[z_0 z_k'] + transpose, in a random direction, both ways."""
    pop, a = problem(s), s.analysis
    if pop is None or not a.slem < 0.97:
        return
    p = a.transition.toarray()
    h, total = pop.mean_update @ pop.psi, np.zeros((len(a.d), len(pop.theta_star)))
    for _ in range(1200):  # 0.97^1200 < 1e-15
        total, h = total + h, p @ h
    y = (pop.arrive(pop.td_error) @ pop.psi).T @ total
    direction = s.rng("direction").normal(size=y.shape)
    series, found = (abs(float(np.sum(direction * m))) for m in (y + y.T, pop.sigma_mix))
    unit = float(np.abs(pop.outcomes.reward).max()) + float(np.abs(pop.q_f).max())
    noise = 1e-9 * float(np.abs(pop.sigma_0).sum() + np.abs(pop.sigma_mix).sum()) + 1e-13 * unit**2 * float(
        (pop.psi**2).sum()
    )
    yield Case(claim(series), found, noise)
    yield Case(claim(found), series, noise)


def worst_x(s: Sample) -> Iterator[Case]:
    """`advance` is at least every W' that a grid of x allows, and `leap` at least as many single steps."""
    rng = s.rng("recursion")
    s0, s1 = (rng.exponential(size=2) * 10 ** rng.uniform(-3, 1)).tolist()
    g0, g1, g2 = (rng.exponential(size=3) * 10 ** rng.uniform(-4, 0)).tolist()
    slack, gain = Quadratic(s0, s1, float(rng.uniform(0, 0.95))), Quadratic(g0, g1, g2)
    pull, w = float(rng.uniform(0, 1)), float(rng.exponential() * 10 ** rng.uniform(-3, 3))
    x = np.geomspace(1e-8, 1e3 * (1 + w), 20_000)
    s_x = slack.c0 + x * (slack.c1 + x * slack.c2)
    reach = np.minimum(w, x**2 + s_x)
    inside = x**2 - s_x <= w
    best = (reach - pull * x**2 + gain.c0 + x * (gain.c1 + x * gain.c2))[inside].max(initial=0.0)
    yield Case(claim(max(advance(w, pull, slack, gain), 0.0)), float(best), 1e-12 * (1 + w))
    count, now = int(rng.integers(2, 40)), w
    for _ in range(count):
        now = advance(now, pull, slack, gain)
    end, _ = leap(w, count, pull, slack, gain)
    if math.isfinite(now):
        yield Case(claim(max(end, 0.0)), max(now, 0.0), 1e-9 * (1 + abs(now)))


def simulated(bound: Bound, squares: Float[np.ndarray, "R"]) -> Case:
    """A bound on the root mean square, convicted only beyond five standard errors."""
    mean, error = float(squares.mean()), float(squares.std(ddof=1) / math.sqrt(len(squares)))
    slack = 1e-9 * (1 + math.sqrt(mean))
    return Case(bound, math.sqrt(mean), slack, lower=math.sqrt(max(mean - 5 * error, 0.0)))


def simulated_run(s: Sample) -> Iterator[Case]:
    """Tier 2 and the averaged form against simulated runs with the real maximum."""
    pop = problem(s)
    if pop is None:
        return
    rng, steps = s.rng("simulation"), 150
    alpha = largest_step(poisson.tier_2_inequality(constants(pop))) * 10 ** rng.uniform(-3, -0.5)
    theta_0 = start(pop, rng)
    found = simulate(pop, alpha, theta_0, steps, rng)
    for make, seen in ((poisson.tier_2, found.last), (poisson.averaged, found.average)):
        yield simulated(make(pop, alpha, theta_0, np.array([steps])).at(0), seen)


def projected_run(s: Sample) -> Iterator[Case]:
    """The textbook certificate, and tier 1 with its cap, against simulated runs with projections."""
    pop = problem(s)
    if pop is None:
        return
    rng, steps = s.rng("projection"), 150
    alpha = float(10 ** rng.uniform(-3, -1)) / float(pop.norm2.max())
    radii, _ = textbook.agent_norms(pop, pop.theta_star)
    radii = radii * (1 + rng.exponential())
    curve = textbook.textbook(pop, alpha, 0 * pop.theta_star, np.array([steps]), radii)
    if not curve.applicable:
        yield Case(curve.at(0), math.nan)
        return
    found = simulate(pop, alpha, 0 * pop.theta_star, steps, rng, radii=radii)
    yield simulated(curve.at(0), found.average)
    cap = 2 * float(np.linalg.norm(radii))
    capped = poisson.tier_1(pop, alpha, 0 * pop.theta_star, np.array([steps]), cap=cap)
    yield simulated(capped.at(0), found.last)


def sharp_limits(s: Sample) -> Iterator[Case]:
    """constant_step and averaged_limit against exact long runs, extrapolated to alpha = 0, both ways within 1%."""
    pop = problem(s)
    if pop is None or len(pop.theta_star) > 2 or s.smdp.num_states > 5:
        return
    rates = np.linalg.eigvals(np.linalg.solve(pop.metric, pop.jacobian)).real
    alpha = 0.01 * rates.min() / max(rates.max() ** 2, rates.max() * float(pop.norm2.max()))
    alpha = min(alpha, 0.05 * (1 - s.analysis.slem))  # the limit needs steps that are slow against the chain
    if not alpha * rates.min() > 1e-6:
        return
    full, half = long_limits(pop, alpha), long_limits(pop, alpha / 2)
    unit = float(np.abs(pop.q_f).max()) ** 2
    for i, found in enumerate((sharp.constant_step(pop, 1e-12), sharp.averaged_limit(pop))):
        limit = float(2 * half[i] - full[i])
        if found.applicable and found.value > 1e-6 * unit and abs(full[i] - half[i]) < 0.05 * abs(half[i]):
            yield Case(claim(1.01 * found.value), limit)
            yield Case(claim(1.01 * limit), found.value)


HALF = (scaled(0.5), "factor .5")
TENTH = (scaled(0.9), "factor .9")
HUNDREDTH = (scaled(0.99), "factor .99")
REMAINDERS = (reduced(lambda t: 0.1 * t["second order"]), "remainders, factor 10")

LEMMAS = (
    Lemma("drift", drift(False), *TENTH),
    Lemma("drift, Riccati weight", drift(True), *TENTH, stride=4),
    Lemma("sigma_mix", later_covariance, *HUNDREDTH),
    Lemma("worst x and leap", worst_x, *HUNDREDTH),
    Lemma("one step, first order", one_step(1), *REMAINDERS),
    Lemma("one step, second order", one_step(2), *REMAINDERS),
    Lemma("one step, independent draws", one_step(2, iid=True), reduced(lambda t: 0.5 * t["second order"]), "factor 2"),
    Lemma("one step, Riccati weight", one_step(2, weighted=True), *REMAINDERS, stride=4),
    Lemma("moment recursion", recursion_of_moments, *HUNDREDTH, stride=5),
    Lemma("Poisson, first order", constant_run(poisson.tier_1, 0), *HALF, stride=2),
    Lemma("Poisson, second order", constant_run(poisson.tier_2, 0), *HALF, stride=2),
    Lemma("Poisson, closed form", constant_run(closed.last_iterate, 0), *HALF, stride=2),
    Lemma("Poisson, averaged", constant_run(poisson.averaged, 1), *HALF, stride=2),
    Lemma("Poisson, averaged, closed form", constant_run(closed.averaged, 1), *HALF, stride=2),
    Lemma("Poisson, Riccati weight", weighted_run, *HALF, stride=4),
    Lemma("Poisson, decreasing steps", decreasing_run, *HALF, stride=10),
    Lemma("independent draws", control_run, *TENTH, stride=10),
    Lemma("sup norm", sup_norm_run, scaled(0.1), "factor .1", stride=2),
    Lemma("Poisson, simulated to 5 s.e.", simulated_run, *HALF, stride=10),
    Lemma("projected, simulated to 5 s.e.", projected_run, scaled(0.02), "factor .02", stride=10),
    Lemma("sharp limits", sharp_limits, *TENTH, stride=10),
)
