"""docs/theory.md section 5d, finite precision: updates of the learner, one step of the functional, and whole runs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume
from td import TrueUpdate, any_weight, over_populations
from test_moving import Around, both, far

from bounds.core.steps import Decay
from bounds.path.moving import last_iterate, moving
from bounds.path.population_path import mean_step
from bounds.path.reference import inequality, references, structure, worst
from bounds.path.rounding import DOUBLE, SINGLE, arithmetic, of_average, rounded, rounding
from bounds.residual.constants import constants
from bounds.residual.poisson import tier_2_inequality
from bounds.residual.population import tabular
from icq.exact import analyse
from icq.learn.classes import tabular as table
from icq.learn.learner import LearnerConfig, learn
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import complete

STEP = 1e-4
COARSE = arithmetic(SINGLE, Decay(STEP, 1.0, 0.0), 10**6)


def computed(pop, theta, alpha, which):
    """One update from theta in single precision and with the same numbers in double."""
    k = pop.outcomes
    live = pop.analysis.interface.available[k.observation[which]]
    arrived, options = k.observation[which], live.shape[-1]
    moves = np.linalg.solve(pop.metric, pop.psi.T).T[k.pair[which]]
    out = []
    for kind in (np.float32, np.float64):
        psi, at = pop.psi.astype(kind), theta.astype(kind)
        values = (pop.offset.astype(kind) + psi @ at).reshape(-1, options)[arrived]
        delta = kind(k.reward[which]) + kind(k.discount[which]) * values[live].max()
        delta = delta - (kind(pop.offset[k.pair[which]]) + psi[k.pair[which]] @ at)
        out.append((at + kind(alpha) * delta * moves.astype(kind)).astype(np.float64))
    return out


@over_populations(states=(1, 5))
def test_an_update_is_rounded_within_its_bound(pop, rng):
    """From float32 parameters, every outcome: a float32 update against the exact one."""
    s, centre = structure(pop, any_weight(pop, rng)), far(pop, rng)
    r, root = rounding(s.correction, COARSE), s.correction.root
    size = np.abs(centre).max()
    for _ in range(8):
        theta = (centre + rng.choice([0.0, 1.0, 30.0]) * rng.normal(size=len(centre))).astype(np.float32)
        alpha, which = float(rng.choice([1e-5, 1e-2, 0.5])), int(rng.integers(len(pop.outcomes.pair)))
        single, exact = computed(pop, theta.astype(np.float64), alpha, which)
        x = np.linalg.norm(root.T @ (theta - centre))
        lost = np.linalg.norm(root.T @ (single - exact))
        assert lost <= r.level(alpha, size) + r.slope(alpha) * x


@over_populations("tabular", "local clock", "plain", states=(1, 4), outcomes=(1, 3))
def test_one_step_with_the_worst_rounding(pop, rng):
    """The functional after an update that rounding pushes away, along the error or anywhere."""
    weight = any_weight(pop, rng)
    s, true = structure(pop, weight), TrueUpdate(pop, weight=weight)
    alpha = 1.0
    while not all(a.holds for a in tier_2_inequality(constants(pop, weight=weight)).conditions(alpha)):
        alpha /= 1.5
    alpha *= rng.choice([1.0, 0.1, 1e-3])
    theta = far(pop, rng)
    here, there = Around(true, theta), Around(true, theta + alpha * mean_step(pop, theta)[0])
    ends = both(references(s, here.theta[None]), references(s, there.theta[None]))
    turn = np.linalg.norm(there.mean - here.mean) / alpha
    plain = inequality(s, worst(s, ends, np.zeros(1)), 0, float(turn))
    r = replace(rounding(s.correction, COARSE), rel=1e-2 * rng.random())  # far coarser than single precision
    size = float(np.maximum(np.abs(here.theta), np.abs(there.theta)).max())
    data = rounded(plain, r, size, alpha, alpha)
    moved = rng.choice([0.0, 0.01, 1.0, 10.0]) * rng.normal(size=len(theta))
    x, k = float(np.linalg.norm(moved)), pop.outcomes
    far_as = r.level(alpha, size) + r.slope(alpha) * x
    steps = true.step(here.delta(moved)) - here.mean
    after = []
    for g, target in zip(steps, k.target, strict=True):
        end = moved + alpha * g
        way = end if rng.random() < 0.5 and np.linalg.norm(end) > 0 else rng.normal(size=len(end))
        after.append(there.corrected(end + far_as * way / np.linalg.norm(way), alpha)[target])
    over = true.mean(np.array(after)) - here.corrected(moved, alpha) + 2 * alpha * plain.mu * x**2
    room = 1e-10 * (1 + x**2 + np.abs(true.td(here.delta(0.0))).max() ** 2 * (1 + s.z) ** 2)
    assert (over <= data.gain(alpha, alpha)(x) + room).all()
    if x > 1 and alpha < 1e-2:
        assume(far_as > 0.1 * x)
        assert (over > plain.gain(alpha, alpha)(x)).any(), "without the term it is caught"


def test_the_average_forgets_what_it_rounds():
    """A running average in single precision against the same in double, on a table's own schedule."""
    rng, count, p = np.random.default_rng(0), 3000, 2.0
    theta = rng.uniform(-1, 1, count)
    mean = {np.float32: np.float32(0), np.float64: np.float64(0)}
    for k in range(1, count + 1):
        for kind in mean:
            share = kind(1 - (1 - 1 / k) ** (p + 1))
            mean[kind] = mean[kind] + share * (kind(np.float32(theta[k - 1])) - mean[kind])
    lost = abs(float(mean[np.float32]) - float(mean[np.float64]))
    assert 0 < lost <= of_average(COARSE, np.ones(1), np.array([count]))[0]


@pytest.mark.compiles
@pytest.mark.parametrize("power", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("offset", [1.0, 1e3, 1e5])
def test_steps_are_computed_to_the_stated_precision(power, offset):
    """The learner's alpha_k, as its loop computes it, against long double, from the first handoff to 10^7."""
    k = np.unique(np.geomspace(1, 10**7, 20_000).astype(np.int32))
    for wide, unit in ((False, SINGLE), (True, DOUBLE)):
        with jax.enable_x64(wide):
            config = LearnerConfig(step=0.003 / 160, decay_power=power, decay_offset=offset)
            found = np.asarray(jax.jit(config.alpha)(jnp.asarray(k)), np.longdouble)
        exact = np.longdouble(0.003 / 160) * (1 + np.longdouble(1) * k / np.longdouble(offset)) ** -np.longdouble(power)
        off = float(np.abs(found / exact - 1).max())
        allowed = arithmetic(unit, Decay(0.003 / 160, offset, power), 10**7).steps
        assert off <= allowed and found.dtype == np.longdouble
        assert power == 0 or off > unit / 8, "a check that knows no rounding would pass"


@pytest.mark.compiles
def test_large_values_and_small_steps_in_single_precision():
    """Values near 1000, steps of 1e-4 a visit: float32 sticks.  Without rounding in it the bound is violated; with it
    nothing is contradicted, and in double precision the run is what the theorem says.
    """  # fmt: skip
    m = dials_instance(Shape(topology=complete(2), clusters=2), Dials(gap=0.5, mixing=0.5, duration_spread=0.0))
    a = analyse(replace(m, reward=np.asarray(m.reward) + 470.0))
    pop, times, start = tabular(a), np.array([1_000_000]), float(a.q_bar.mean())
    seen = {}
    for kind in (np.float32, np.float64):
        scale = (1 / np.where(a.interface.available, a.d_pair, 1.0)).astype(kind)
        config = LearnerConfig(step=STEP / len(pop.d), scale=scale)
        q = np.asarray(learn(a, table(a.smdp, start, kind), config, 3, times).q, np.float64)[:, 0]
        seen[kind] = np.sqrt(np.mean([a.norm_d(x - a.q_bar) ** 2 for x in q]))
    theta, steps = np.full(len(pop.theta_star), start), Decay(STEP / len(pop.d), 1.0, 0.0)
    bound = {
        unit: last_iterate(moving(pop, steps.step, theta, times, arithmetic=made)).value[0]
        for unit in (None, DOUBLE, SINGLE)
        for made in [None if unit is None else arithmetic(unit, steps, int(times[-1]))]
    }
    assert bound[DOUBLE] == pytest.approx(bound[None], rel=1e-6)
    assert seen[np.float64] <= bound[DOUBLE] <= 3 * seen[np.float64]
    assert bound[None] < seen[np.float32] <= bound[SINGLE]
