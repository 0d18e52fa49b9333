"""docs/theory.md section 5e, Theorem 5.36 and Lemma 5.37: one handoff with the real maximum, outcome by outcome."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.linalg as la
from hypothesis import assume
from td import TrueUpdate, chain, over_populations
from test_moving import Around, both, far

from bounds.network.perturbed import Disturbance, floor, killed, perturbed
from bounds.path.reference import inequality, references, structure, worst
from bounds.residual.population import population, tabular_features
from bounds.residual.weights import sector_weight


@dataclass(frozen=True)
class Trial:
    """One known (theta, reference) and what a handoff does there to a table whose preconditioner is off by N.

    off, lag: N and N_0 in the coordinates of the weight.  turn, bend: of the next N, and of the step.
    """

    here: Around
    there: Around
    off: np.ndarray
    lag: np.ndarray
    turn: float
    bend: float

    def functional(self, around, off, moved, alpha):
        """||Delta||^2 + 2 alpha <(I + N) nu, Delta> + alpha^2 Omega at every state."""
        nu = around.true.nu(around.delta(moved))
        return around.corrected(moved, alpha) + 2 * alpha * nu @ off.T @ moved

    def after(self, moved, alpha, following, rng):
        """E[W'|s], each outcome with a change of N and a bend of its own, as large as they may be."""
        true, k = self.here.true, self.here.true.pop.outcomes
        td, steps = true.td(self.here.delta(moved)), true.step(self.here.delta(moved))
        ubar, out = self.here.mean, []
        for d, u, s in zip(td, steps, k.target, strict=True):
            rest = rng.normal(size=len(moved))
            rest *= alpha * self.bend * d**2 / np.linalg.norm(rest)
            there = moved + alpha * (u + self.off @ u - ubar - self.lag @ ubar + rest)
            turned = rng.normal(size=self.off.shape)
            turned *= alpha * abs(d) * self.turn / np.linalg.norm(turned, 2)
            out.append(self.functional(self.there, self.off + turned, there, following)[s])
        return true.mean(np.array(out))


def trial(pop, rng, eta):
    """(by how much one step exceeds its inequality [S], the same of the slack, rounding)."""
    weight = sector_weight(pop, eta)
    assume(weight is not None)
    s, true = structure(pop, weight), TrueUpdate(pop, weight=weight)
    root = s.correction.root
    half = np.linalg.cholesky(pop.metric)  # M = K^{-1}
    spectrum = la.eigh(weight.matrix, pop.metric, eigvals_only=True)
    twist = float(np.sqrt(spectrum[-1] / spectrum[0]))

    def share(size):
        """A symmetric matrix of this norm in the coordinates of the kernel, seen in those of the weight."""
        x = rng.normal(size=root.shape)
        x = size * (x + x.T) / np.linalg.norm(x + x.T, 2)
        through = root.T @ np.linalg.inv(half.T)
        return through @ x @ np.linalg.inv(through)

    theta = far(pop, rng)
    here = Around(true, theta)
    off, lag = share(eta), share(0.3 * eta)
    onward = np.linalg.solve(root.T, here.mean + lag @ here.mean)
    moved = rng.choice([0.0, 0.01, 1.0]) * rng.normal(size=len(theta))
    turn, bend = rng.choice([0.0, 0.3, 3.0], size=2).tolist()
    td = true.td(here.delta(moved))
    size = float(np.sqrt(true.mean(td**2).max()))

    def made(alpha):
        there = Around(true, theta + alpha * onward)
        ends = both(references(s, here.theta[None]), references(s, there.theta[None]))
        top, spin = worst(s, ends, np.zeros(1)), float(np.linalg.norm(there.mean - here.mean) / alpha)
        slip, ceiling = float(np.linalg.norm(off - lag, 2)), float(np.abs(td).max())
        p = Disturbance(twist * eta, slip, bend, turn, spin, size, ceiling, alpha, alpha)
        x = inequality(s, top, 0, spin)
        return perturbed(x, s, top, 0, p), Trial(here, there, off, lag, turn, bend)

    alpha = 1.0
    while not all(a.holds for a in made(alpha)[0].conditions(alpha)):
        alpha /= 1.5
    alpha *= float(rng.choice([1.0, 0.1, 1e-3]))
    following = alpha * float(rng.choice([1.0, 0.9]))
    data, run = made(alpha)
    x = float(np.linalg.norm(moved))
    w = run.functional(here, off, moved, alpha)
    allowed = w - 2 * alpha * data.mu * x**2 + data.gain(alpha, following)(x)
    tolerance = 1e-10 * (1 + x**2 + np.abs(td).max() ** 2 * (1 + s.z) ** 2) * (1 + np.linalg.norm(root, 2) ** 2)
    over = run.after(moved, alpha, following, rng) - allowed
    return over, np.abs(w - x**2) - data.slack(alpha)(x), tolerance


@over_populations("tabular", "plain table", states=(1, 4), outcomes=(1, 3))
def test_one_step_of_a_network(pop, rng):
    """E[W'|theta, s] <= W - 2 alpha mu x^2 + gain(x) and |W - V| <= slack(x) for every preconditioner within the share,
    every change of it and every bend of the step, at every reference, theta and state.
    """
    over, beyond, size = trial(pop, rng, float(rng.choice([0.0, 0.02, 0.1])))
    assert (over <= size).all() and (beyond <= size).all()


STILL = chain([0.9, 0.6], [1.0, -1.0], noise=0.5, gamma=0.3, observation=[0, 1])


def table(kernel):
    """STILL with this kernel."""
    return population(STILL, tabular_features(STILL), np.linalg.inv(kernel))


def test_a_reference_that_slips_is_caught():
    """The kernel of the run is larger than that of the reference: first order in the step, along the mean update."""
    pop, eta, alpha = table(np.diag([2.0, 1.0])), 0.1, 1e-9
    weight = sector_weight(pop, eta)
    s, true = structure(pop, weight), TrueUpdate(pop, weight=weight)
    here, at = Around(true, pop.theta_star + 1.0), references(s, pop.theta_star[None] + 1.0)
    run = Trial(here, here, eta * np.eye(2), np.zeros((2, 2)), 0.0, 0.0)
    moved = 1e-4 * here.mean / np.linalg.norm(here.mean)
    base = inequality(s, worst(s, both(at, at), np.zeros(1)), 0, 0.0)
    w = run.functional(here, run.off, moved, alpha)
    after = STILL.d @ (run.after(moved, alpha, alpha, np.random.default_rng(0)) - w)
    for slip, holds in ((eta, True), (0.95 * eta, False)):
        data = perturbed(base, s, at, 0, Disturbance(eta, slip, 0.0, 0.0, 0.0, 2.0, 5.0, alpha, alpha))
        assert (after <= -2 * alpha * data.mu * 1e-8 + data.gain(alpha, alpha)(1e-4)) == holds


def test_a_larger_kernel_makes_more_noise():
    """A share that only scales the kernel: without what the perturbation adds one step exceeds its inequality."""
    pop = table(np.diag([2.0, 1.0]))
    weight = sector_weight(pop, 0.1)
    s, true = structure(pop, weight), TrueUpdate(pop, weight=weight)
    here, alpha, eta = Around(true, pop.theta_star), 1e-9, 0.1
    at = references(s, pop.theta_star[None])
    data = inequality(s, worst(s, both(at, at), np.zeros(1)), 0, 0.0)
    run = Trial(here, here, eta * np.eye(2), np.zeros((2, 2)), 0.0, 0.0)
    after = run.after(np.zeros(2), alpha, alpha, np.random.default_rng(0))
    w = run.functional(here, run.off, np.zeros(2), alpha)
    more = STILL.d @ (after - w) / alpha**2
    assert more == pytest.approx((1 + eta) ** 2 * data.gain_2.c0, rel=0.05)
    p = Disturbance(eta, eta, 0.0, 0.0, 0.0, 1.0, 1.0, alpha, alpha)
    assert data.gain_2.c0 < 0.9 * more < perturbed(data, s, at, 0, p).gain_2.c0


def test_killed_runs_do_not_hurt():
    """With what `floor` adds the functional is not negative anywhere; without, it is."""
    pop = table(np.diag([2.0, 1.0]))
    weight = sector_weight(pop, 0.1)
    s, true = structure(pop, weight), TrueUpdate(pop, weight=weight)
    theta, alpha, eta = pop.theta_star + 1.0, 1e-3, 0.1
    here, at = Around(true, theta), references(s, theta[None])
    p = Disturbance(eta, eta, 0.1, 0.1, 0.0, 1.0, 1.0, alpha, alpha)
    data = perturbed(inequality(s, worst(s, both(at, at), np.zeros(1)), 0, 0.0), s, at, 0, p)
    run = Trial(here, here, eta * np.eye(2), np.zeros((2, 2)), 0.0, 0.0)
    nu = true.nu(here.delta(np.zeros(2)))
    low = [run.functional(here, run.off, -t * alpha * v, alpha).min() for v in nu for t in np.linspace(0, 3, 31)]
    least = floor(data, alpha)
    assert -(alpha**2) * least <= min(low) < 0
    assert killed(data, least).slack_2.c0 == data.slack_2.c0 + least
    assert floor(data, 1e9) == np.inf
