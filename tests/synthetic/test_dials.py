"""The invariances of docs/theory.md section 8, each next to something that does move."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.interface.gap import oracle_contraction
from icq.exact import Analysis, analyse, outcome_discount
from icq.smdp import ICSMDP
from synthetic import topology
from synthetic.dials import (
    MAX_TILT,
    VALUES,
    DialError,
    Dials,
    Draws,
    Shape,
    dials_instance,
    draw,
    durations,
    make,
    make_many,
)

pytestmark = pytest.mark.compiles

SHAPES = (
    Shape(topology.ring(3), clusters=2, visible=2, hidden=2, options=2),
    Shape(topology.star(4), clusters=3, visible=1, hidden=3, options=3),
    Shape(topology.random(5, 2, 0), clusters=2, visible=1, hidden=2, options=2),
)
TINY = Shape(topology.pipeline(2), clusters=2, visible=1, hidden=3, options=2)
TIGHT = 1e-10

shapes, seeds, unit = st.sampled_from(SHAPES), st.integers(0, 10**6), st.floats(0, 1)
examples = settings(max_examples=12)


def same(*values, tolerance=TIGHT):
    return all(np.max(np.abs(np.asarray(v) - np.asarray(values[0]))) <= tolerance for v in values[1:])


def view(shape: Shape, x: np.ndarray) -> np.ndarray:
    """Split a leading state or observation axis into (i, c, y[, h])."""
    head = (shape.agents, shape.clusters, shape.visible)
    return x.reshape(*head, *([shape.hidden] if len(x) == shape.states else []), *x.shape[1:])


def pair(*pairs: ICSMDP) -> list[Analysis]:
    return [analyse(m) for m in pairs]


def random_class(shape: Shape, seed: int, size: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(shape.observations * shape.options, size))


def class_fixed_point(an: Analysis, psi: np.ndarray) -> np.ndarray:
    """Q_F of span(psi): iterate the d-projection of the interface operator."""
    weight = an.d_pair.reshape(-1)
    normal = psi.T @ (weight[:, None] * psi)
    q, theta = np.zeros_like(an.q_bar), np.zeros(psi.shape[1])
    for _ in range(4000):
        after = np.linalg.solve(normal, psi.T @ (weight * an.interface.bellman(q).reshape(-1)))
        q, change, theta = (psi @ after).reshape(q.shape), np.abs(after - theta).max(), after
        if change < 1e-14:
            return q
    raise AssertionError("no fixed point of the class")


def td_moments(an: Analysis, q: np.ndarray, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sigma_0 and Sigma_mix of z = psi(x) delta at Q = q (docs/theory.md section 5a), by enumeration."""
    m = an.smdp
    obs = np.asarray(m.observation)
    features = psi.reshape(*an.q_bar.shape, -1)[obs]  # [S, A, p]
    delta = m.reward + outcome_discount(m) * q.max(1)[obs[m.next_state]] - q[obs][..., None]
    mass = an.d_state_pair[..., None] * m.prob
    sigma = np.einsum("sa,sap,saq->pq", (mass * delta**2).sum(-1), features, features)
    into = np.zeros((len(obs), psi.shape[1]))
    np.add.at(into, np.asarray(m.next_state), (mass * delta)[..., None] * features[:, :, None, :])
    mean = np.einsum("sa,sap->sp", (mass * delta).sum(-1), features) / an.d[:, None]
    cross = into.T @ an.deviation @ mean
    return sigma, cross + cross.T


def tabular(an: Analysis) -> np.ndarray:
    return np.eye(an.q_bar.size)


def variance(an: Analysis) -> np.ndarray:
    """E[delta^2 | o, a] at Qbar."""
    sigma, _ = td_moments(an, an.q_bar, tabular(an))
    return np.diag(sigma).reshape(an.q_bar.shape) / an.d_pair


def log_law(an: Analysis, handoffs: int) -> dict[tuple, float]:
    """Joint law of (o, a, R, tau, o', a', ...) over the first handoffs of a stationary run, by enumeration."""
    m, obs = an.smdp, np.asarray(an.smdp.observation)
    step: list[dict[tuple, np.ndarray]] = []
    for s in range(len(obs)):
        row: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(len(obs)))
        for a, b in np.ndindex(m.prob.shape[1:]):
            key = (obs[s], a, round(float(m.reward[s, a, b]), 9), m.duration[s, a, b], obs[m.next_state[s, a, b]])
            row[key][m.next_state[s, a, b]] += m.behaviour[obs[s], a] * m.prob[s, a, b]
        step.append(dict(row))
    law: dict[tuple, np.ndarray] = {(): an.d}
    for _ in range(handoffs):
        after: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(len(obs)))
        for history, now in law.items():
            for s in np.flatnonzero(now):
                for key, follow in step[s].items():
                    after[(*history, key)] = after[(*history, key)] + now[s] * follow
        law = dict(after)
    return {history: float(now.sum()) for history, now in law.items()}


def law_distance(p: dict[tuple, float], q: dict[tuple, float]) -> float:
    return 0.5 * sum(abs(p.get(k, 0.0) - q.get(k, 0.0)) for k in p.keys() | q.keys())


compiled_draw = jax.jit(draw, static_argnums=0)


def numpy_draws(shape: Shape, seed: int) -> Draws:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, compiled_draw(shape, jax.random.key(seed)))


# The construction.


@examples
@given(shapes, seeds, unit, unit, unit)
def test_construction(shape, seed, gap, share, carried):
    m = dials_instance(shape, Dials(gap=gap, kernel_share=share, compensate=carried, persistence=0.4), seed)
    assert (m.num_states, m.num_observations, m.num_agents) == (shape.states, shape.observations, shape.agents)
    assert m.prob.shape == (shape.states, shape.options, shape.outcomes)
    assert all(np.asarray(x).dtype == np.float64 for x in (m.prob, m.reward, m.gamma, m.behaviour))
    assert np.abs(m.prob.sum(-1) - 1).max() < 1e-12 and m.prob.min() >= 0
    assert not m.terminal.any()
    owner = np.asarray(m.agent)[m.observation]
    allowed = np.zeros((shape.agents, shape.agents), bool)
    for i, row in enumerate(shape.topology.successors):
        allowed[i, list(row)] = True
    used = np.zeros_like(allowed)
    s, a, b = np.nonzero(m.prob)
    used[owner[s], owner[m.next_state[s, a, b]]] = True
    assert np.array_equal(used, allowed)


@examples
@given(shapes, seeds)
def test_tilts_are_centred_and_bounded(shape, seed):
    d = numpy_draws(shape, seed)
    assert same(d.branch.sum(-1), 1.0, tolerance=1e-14)
    assert same(d.xi.mean(2), 0.0, tolerance=1e-14)
    assert same((d.branch[:, :, None] * d.xi).sum(-1), 0.0, tolerance=1e-14)
    assert same(np.abs(d.xi).max((2, 4)), MAX_TILT, tolerance=1e-14)
    assert same(d.rho.mean(2), 0.0, tolerance=1e-14)
    assert same((d.branch * d.offset).sum(-1), 0.0, tolerance=1e-14)


@examples
@given(shapes, seeds, unit, st.floats(0.01, 0.5), st.floats(1, 12), unit, st.floats(0.1, 0.99))
def test_qbar_is_prescribed(shape, seed, gap, margin, mean, spread, gamma):
    dials = Dials(gap=gap, action_gap=margin, duration_mean=mean, duration_spread=spread, gamma=gamma)
    an = analyse(dials_instance(shape, dials, seed))
    d = numpy_draws(shape, seed)
    wanted = (d.value[..., None] - margin * d.loss)[:, None]
    assert same(view(shape, an.q_bar), np.repeat(wanted, shape.clusters, 1))
    assert VALUES[0] <= an.v_bar.min() and an.v_bar.max() <= VALUES[1]


def test_outcomes_are_jointly_random():
    shape = SHAPES[0]
    m = dials_instance(shape, seed=3)
    p, tau, reward = m.prob[0, 0], m.duration[0, 0].astype(float), m.reward[0, 0]
    worth = np.random.default_rng(0).normal(size=m.num_observations)[np.asarray(m.observation)[m.next_state[0, 0]]]
    for u, v in ((tau, reward), (tau, worth), (reward, worth)):
        covariance = p @ (u * v) - (p @ u) * (p @ v)
        assert abs(covariance) > 1e-4 * np.sqrt((p @ u**2) * (p @ v**2))


# Gap.


@examples
@given(shapes, seeds, unit, unit)
def test_gap_moves_what_the_interface_hides_and_nothing_else(shape, seed, gap, share):
    flat, tilted, full = pair(
        *(dials_instance(shape, Dials(gap=g, kernel_share=share, duration_mean=8.0), seed) for g in (0.0, gap, 1.0))
    )
    psi = random_class(shape, seed)
    for an in (tilted, full):
        assert same(an.d, flat.d) and same(an.w, 1 / shape.hidden)
        assert same(an.interface.reward, flat.interface.reward)
        assert same(an.interface.kernel.toarray(), flat.interface.kernel.toarray())
        assert same(an.q_bar, flat.q_bar) and abs(an.kappa - flat.kappa) < TIGHT
        for basis in (psi, tabular(an)):
            q, reference = class_fixed_point(an, basis), class_fixed_point(flat, basis)
            assert same(q, reference, tolerance=1e-9)
            for moment, wanted in zip(td_moments(an, q, basis), td_moments(flat, reference, basis)):
                assert same(moment, wanted, tolerance=1e-9)
    assert same(tilted.local_gap, gap * full.local_gap)
    assert np.abs(full.local_gap).max() > 1e-3


@examples
@given(shapes, seeds, unit)
def test_zero_gap_is_an_exact_information_state(shape, seed, share):
    an = analyse(dials_instance(shape, Dials(gap=0.0, kernel_share=share), seed))
    assert same(an.local_gap, 0.0) and same(an.gap, 0.0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_logs_have_the_same_law_for_every_gap(share):
    """Stronger than any moment: no learner and no estimator that sees only logs can tell the gaps apart."""

    def law(**dials):
        return log_law(analyse(dials_instance(TINY, Dials(kernel_share=share).replace(**dials), 5)), 2)

    flat = law(gap=0.0)
    assert sum(flat.values()) == pytest.approx(1)
    assert law_distance(flat, law(gap=1.0)) < 1e-12
    assert law_distance(flat, law(gap=0.6)) < 1e-12
    # What breaks it: a hidden part that stays, and a reward that shifts.
    assert law_distance(flat, law(gap=1.0, persistence=0.5)) > 1e-3
    assert law_distance(flat, law(gap=0.0, persistence=0.5)) < 1e-12
    if share < 1:
        assert law_distance(flat, law(gap=1.0, compensate=0.0)) > 1e-3


@examples
@given(shapes, seeds, unit, unit, unit)
def test_second_moment_of_the_td_error(shape, seed, gap, share, carried):
    """m0 + amplitude^2 + g^2 [(1 - c^2) E rho^2 + 2 (1 - c) k E rho D], D(h) = sum_l p0 xi e."""
    dials = Dials(gap=gap, kernel_share=share, compensate=carried)
    an = analyse(dials_instance(shape, dials, seed))
    d = numpy_draws(shape, seed)
    tau = np.floor(1 + 5 * (1 + 0.5 * (2 * d.length - 1)) + d.rounding)
    worth = 0.9**tau * d.value[d.next_agent, d.next_visible][:, None, None]
    error = d.offset + worth - (d.branch * worth).sum(-1, keepdims=True)
    moved = np.einsum("iyal,iyhal,iyal->iyha", d.branch, share * d.xi, error)
    rho = (1 - share) * d.rho
    noise = 0.2**2 + (carried * np.abs(d.rho).max(2) / MAX_TILT) ** 2
    leak = (1 - carried**2) * (rho**2).mean(2) + 2 * (1 - carried) * (rho * moved).mean(2)
    wanted = (d.branch * error**2).sum(-1) + noise + gap**2 * leak
    assert same(view(shape, variance(an)), np.repeat(wanted[:, None], shape.clusters, 1))


def test_without_compensation_the_gap_leaks_into_the_noise():
    flat, full = pair(
        *(dials_instance(SHAPES[0], Dials(gap=g, compensate=0.0, duration_mean=8.0), 1) for g in (0.0, 1.0))
    )
    assert same(full.q_bar, flat.q_bar) and same(full.interface.reward, flat.interface.reward)
    assert np.abs(variance(full) / variance(flat) - 1).max() > 0.05
    psi = random_class(SHAPES[0], 0)
    mixes = [td_moments(an, class_fixed_point(an, psi), psi)[1] for an in (flat, full)]
    assert np.abs(mixes[1] - mixes[0]).max() > 1e-3


@examples
@given(shapes, seeds, unit, unit)
def test_compensation_moves_no_expectation(shape, seed, share, carried):
    one, other = pair(*(dials_instance(shape, Dials(kernel_share=share, compensate=c), seed) for c in (0.0, carried)))
    assert same(one.oracle.reward, other.oracle.reward) and same(one.q_star, other.q_star)
    assert same(one.oracle.kernel.toarray(), other.oracle.kernel.toarray()) and same(one.d, other.d)


@examples
@given(shapes, seeds, unit)
def test_value_of_an_interface_policy_is_free_of_the_gap(shape, seed, gap):
    """Averaged over h, any policy on observations is worth the same; only the oracle gains."""
    values = []
    for g in (0.0, gap):
        an = analyse(dials_instance(shape, Dials(gap=g), seed))
        rng = np.random.default_rng(seed)
        beta = rng.dirichlet(np.ones(shape.options), shape.observations)
        own = view(shape, an.interface_value.v).mean(3)
        assert same(own.reshape(-1), an.v_bar)
        values.append(view(shape, an.oracle.evaluate_random(beta[an.smdp.observation]).v).mean(3))
    assert same(*values)


@examples
@given(shapes, seeds, unit)
def test_kernel_share_moves_the_gap_from_reward_to_kernel(shape, seed, share):
    reward, both, kernel = pair(
        *(dials_instance(shape, Dials(kernel_share=k, duration_mean=8.0), seed) for k in (0.0, share, 1.0))
    )
    assert same(both.local_gap, (1 - share) * reward.local_gap + share * kernel.local_gap)
    assert same(both.q_bar, reward.q_bar, kernel.q_bar) and same(both.d, reward.d, kernel.d)
    assert same(variance(both), variance(reward), variance(kernel))
    psi = random_class(shape, seed)
    moments = [np.stack(td_moments(an, class_fixed_point(an, psi), psi)) for an in (reward, both, kernel)]
    assert same(*moments, tolerance=1e-9)
    depends = [
        view(shape, an.oracle.kernel.toarray().reshape(shape.states, -1)).std(3).max() for an in (reward, kernel)
    ]
    assert depends[0] < TIGHT < 1e-4 < depends[1]


# Mixing.


def most(shape):
    """The end of the dial; two clusters that always change would be periodic."""
    return 1.0 if shape.clusters > 2 else 0.98


@examples
@given(shapes, seeds, st.floats(0.02, 1), st.floats(0.02, 1))
def test_mixing_moves_the_chain_and_not_the_task(shape, seed, slow, fast):
    one, other = pair(*(dials_instance(shape, Dials(mixing=x * most(shape)), seed) for x in (slow, fast)))
    assert same(one.d, other.d) and same(one.q_bar, other.q_bar)
    assert same(one.q_star, other.q_star) and same(one.gap, other.gap) and same(one.local_gap, other.local_gap)
    assert abs(one.kappa - other.kappa) < TIGHT and abs(oracle_contraction(one) - oracle_contraction(other)) < TIGHT
    assert same(variance(one), variance(other))
    for an in (one, other):
        sigma, mix = td_moments(an, an.q_bar, tabular(an))
        assert same(mix, 0.0) and sigma.max() > 1e-5


@examples
@given(shapes, seeds, st.floats(0.02, 1), unit)
def test_slem_is_the_slower_of_base_and_cluster(shape, seed, fraction, gap):
    eta = fraction * most(shape)
    an = analyse(dials_instance(shape, Dials(mixing=eta, gap=gap), seed))
    d = numpy_draws(shape, seed)
    base = np.zeros((shape.agents, shape.visible, shape.agents, shape.visible))
    for i, y, a, l in np.ndindex(d.branch.shape):
        base[i, y, d.next_agent[i, l], d.next_visible[i, l]] += d.branch[i, y, a, l] / shape.options
    second = np.sort(np.abs(np.linalg.eigvals(base.reshape(shape.agents * shape.visible, -1))))[-2]
    assert an.slem == pytest.approx(max(second, abs(1 - eta * shape.clusters / (shape.clusters - 1))), abs=1e-9)
    assert an.chain.irreducible and an.chain.aperiodic


def test_class_fixed_point_under_mixing():
    """Free of eta when the class is closed under cluster averaging; otherwise not."""
    shape = SHAPES[0]
    analyses = pair(*(dials_instance(shape, Dials(mixing=eta, duration_mean=9.0), 2) for eta in (0.05, 0.5)))
    assert all(an.kappa < 1 for an in analyses)
    ragged = random_class(shape, 0)
    mean = view(shape, ragged.reshape(shape.observations, -1)).mean(1, keepdims=True)
    mean = np.repeat(mean, shape.clusters, 1).reshape(ragged.shape)
    closed = np.concatenate([mean, ragged - mean], axis=1)[:, :6]
    assert np.linalg.matrix_rank(closed) == 6
    assert same(*(class_fixed_point(an, closed) for an in analyses), tolerance=1e-9)
    one, other = (class_fixed_point(an, ragged) for an in analyses)
    assert np.abs(one - other).max() > 1e-4

    def misfit(an):
        """||Pi Qbar - Qbar||_d, on which the certified approximation error rests."""
        root = np.sqrt(an.d_pair.reshape(-1))
        target = root * an.q_bar.reshape(-1)
        return np.linalg.norm(target - root[:, None] * ragged @ np.linalg.lstsq(root[:, None] * ragged, target)[0])

    assert misfit(analyses[0]) == pytest.approx(misfit(analyses[1]), abs=TIGHT)


def test_slow_mixing_correlates_the_updates_of_a_misspecified_class():
    shape, sizes = SHAPES[0], []
    psi = random_class(shape, 0)
    for eta in (0.5, 0.02):
        an = analyse(dials_instance(shape, Dials(mixing=eta, gap=0.0), 2))
        sizes.append(np.abs(td_moments(an, class_fixed_point(an, psi), psi)[1]).max())
    assert sizes[1] > 3 * sizes[0]


# Noise, durations, action gap, persistence.


@examples
@given(shapes, seeds, st.floats(0, 2), unit)
def test_reward_noise_moves_sigma_0_only(shape, seed, noise, carried):
    quiet, loud = pair(
        *(dials_instance(shape, Dials(reward_noise=x, compensate=carried, duration_mean=8.0), seed) for x in (0, noise))
    )
    assert same(quiet.oracle.reward, loud.oracle.reward) and same(quiet.q_star, loud.q_star)
    assert same(quiet.oracle.kernel.toarray(), loud.oracle.kernel.toarray()) and same(quiet.d, loud.d)
    psi = random_class(shape, seed)
    q = class_fixed_point(quiet, psi)
    (sigma, mix), (louder, louder_mix) = (td_moments(an, q, psi) for an in (quiet, loud))
    assert same(mix, louder_mix, tolerance=1e-9)
    assert same(louder - sigma, noise**2 * psi.T @ (quiet.d_pair.reshape(-1, 1) * psi), tolerance=1e-9)


@examples
@given(shapes, seeds, st.floats(1, 10), st.floats(0, 5), unit)
def test_longer_options_contract_more(shape, seed, mean, more, spread):
    short, long = pair(
        *(dials_instance(shape, Dials(duration_mean=x, duration_spread=spread), seed) for x in (mean, mean + more))
    )
    assert (long.smdp.duration >= short.smdp.duration).all()
    assert long.kappa <= short.kappa + 1e-12 and long.gamma_bar <= short.gamma_bar + 1e-12
    assert same(short.d, long.d) and same(short.q_bar, long.q_bar)


def test_duration_is_not_a_pure_dial():
    short, long = pair(*(dials_instance(SHAPES[0], Dials(duration_mean=x), 0) for x in (4.0, 8.0)))
    assert long.kappa < short.kappa - 0.1
    assert np.abs(long.local_gap - short.local_gap).max() > 1e-3
    assert np.abs(variance(long) - variance(short)).max() > 1e-3


@pytest.mark.parametrize(("mean", "spread"), [(6.0, 0.5), (2.3, 1.0), (4.0, 0.0), (1.0, 1.0)])
def test_duration_law_has_the_mean_it_is_asked_for(mean, spread):
    d = numpy_draws(Shape(topology.complete(20), options=4), 0)
    with jax.enable_x64(True):
        tau = np.asarray(durations(d, mean, spread)).astype(float)
    standard_error = tau.std() / np.sqrt(tau.size)
    assert tau.min() >= 1 and abs(tau.mean() - mean) <= 4 * standard_error
    assert tau.min() >= np.floor(1 + (mean - 1) * (1 - spread)) and tau.max() <= np.ceil(1 + (mean - 1) * (1 + spread))


@examples
@given(shapes, seeds, st.floats(0.001, 0.5))
def test_action_gap_is_exact(shape, seed, margin):
    one, other = pair(*(dials_instance(shape, Dials(action_gap=x), seed) for x in (margin, 0.15)))
    assert one.action_gap == pytest.approx(margin, abs=1e-11)
    assert same(one.v_bar, other.v_bar) and same(one.local_gap, other.local_gap) and same(one.d, other.d)
    assert abs(one.kappa - other.kappa) < TIGHT and same(variance(one), variance(other))
    assert same(one.q_bar, other.q_bar) == (abs(margin - 0.15) * 2 <= TIGHT)


def test_persistence_couples_gap_and_mixing():
    shape = SHAPES[0]
    redrawn, kept = pair(*(dials_instance(shape, Dials(persistence=p), 0) for p in (0.0, 0.8)))
    assert np.abs(kept.w - 1 / shape.hidden).max() > 1e-3 and np.abs(kept.q_bar - redrawn.q_bar).max() > 1e-3
    assert np.abs(kept.gap - redrawn.gap).max() > 1e-2
    assert np.abs(td_moments(kept, kept.q_bar, tabular(kept))[1]).max() > 1e-4


@examples
@given(shapes, seeds, st.floats(0, 0.95))
def test_persistence_with_the_gap_in_the_reward(shape, seed, persistence):
    """The hidden part then moves on its own: w, Qbar and b stay, and 1 - slem gains a third rate."""
    redrawn, kept = pair(
        *(dials_instance(shape, Dials(kernel_share=0.0, persistence=p), seed) for p in (0.0, persistence))
    )
    assert same(kept.d, redrawn.d) and same(kept.q_bar, redrawn.q_bar) and same(kept.local_gap, redrawn.local_gap)
    assert same(variance(kept), variance(redrawn))
    assert kept.slem == pytest.approx(max(redrawn.slem, persistence), abs=1e-9)


# Shapes, seeds, batches, errors.


def test_seeds():
    shape = SHAPES[0]
    a, again = dials_instance(shape, seed=1), dials_instance(shape, seed=1)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(again)))
    batch = make_many(shape, Dials(), np.arange(8))
    for name in ("prob", "reward", "duration"):
        rows = np.asarray(getattr(batch, name)).reshape(8, -1)
        assert len(np.unique(rows, axis=0)) == 8


def test_every_draw_has_its_own_key():
    d = numpy_draws(Shape(topology.complete(20), options=4), 0)
    u = [np.ravel(x) for x in (d.length, d.rounding, d.branch, d.offset)]
    assert np.abs(np.corrcoef(u) - np.eye(4)).max() < 4.5 / np.sqrt(len(u[0]))


def test_vmapped_equals_looped():
    shape = SHAPES[1]
    dials = Dials(gap=np.array([0.0, 0.5, 1.0]), mixing=np.array([0.1, 0.2, 0.3]), persistence=0.3)
    batch = make_many(shape, dials, np.array([3, 4, 3]))
    for i, seed in enumerate((3, 4, 3)):
        one = Dials(gap=float(dials.gap[i]), mixing=float(dials.mixing[i]), persistence=0.3)
        with jax.enable_x64(True):
            looped = jax.tree.map(np.asarray, jax.jit(make, static_argnums=0)(shape, one, jax.random.key(seed)))
        for a, b in zip(jax.tree.leaves(looped), jax.tree.leaves(batch)):
            assert a.dtype == b.dtype and same(a.astype(float), b[i].astype(float), tolerance=1e-14)


def test_make_is_vmappable_and_refuses_single_precision():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(RuntimeError, match="needs float64"):
        make(TINY, Dials(), keys[0])
    with jax.enable_x64(True):
        batch = jax.jit(jax.vmap(lambda key: make(TINY, Dials(), key)))(keys)
    assert batch.prob.shape == (3, TINY.states, TINY.options, TINY.outcomes) and batch.prob.dtype == np.float64
    assert jnp.zeros(()).dtype == np.float32


@pytest.mark.parametrize("shape", [*SHAPES, TINY, Shape(topology.complete(3))], ids=lambda shape: shape.topology.name)
def test_every_topology_makes_an_ergodic_instance(shape):
    an = analyse(dials_instance(shape, seed=0))
    assert an.chain.irreducible and an.chain.aperiodic and same(an.w, 1 / shape.hidden)


def test_a_thousand_agents_on_a_ring():
    shape = Shape(topology.ring(1000), clusters=2, visible=1)
    m = dials_instance(shape)
    assert m.num_agents == 1000 and m.num_states == 4000


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        (Dials(gap=1.1), r"gap = 1.1 is outside \[0, 1\]"),
        (Dials(gap=np.array([0.5, np.nan])), r"gap\[1\] = nan is outside \[0, 1\]"),
        (Dials(mixing=0.0), r"mixing = 0.0 is outside \(0, 1\)"),
        (Dials(mixing=1.0), r"mixing = 1.0 is outside \(0, 1\): two clusters that always change are periodic"),
        (Dials(kernel_share=-0.1), "kernel_share = -0.1"),
        (Dials(compensate=2.0), "compensate = 2.0"),
        (Dials(reward_noise=-1.0), "reward_noise = -1.0"),
        (Dials(duration_mean=0.5), "duration_mean = 0.5"),
        (Dials(duration_spread=1.5), "duration_spread = 1.5"),
        (Dials(action_gap=-0.1), "action_gap = -0.1"),
        (Dials(persistence=1.0), r"persistence = 1.0 is outside \[0, 1\)"),
        (Dials(gamma=1.0), r"gamma = 1.0 is outside \(0, 1\)"),
    ],
)
def test_bad_dials_are_named(dials, message):
    with pytest.raises(DialError, match=message):
        make_many(SHAPES[0], dials, 0)


def test_bad_shapes_are_named():
    with pytest.raises(DialError, match=r"complete graph of 1000 agents .* S = 16000, A = 2, B = 32000, .* GiB"):
        Shape(topology.complete(1000))
    with pytest.raises(DialError, match="hidden = 1, at least 2"):
        Shape(topology.ring(3), hidden=1)


def test_default_instance_is_the_workflow_it_is_meant_to_be():
    """Ten agents, a clearly useful oracle, a visible price of the interface, and assumptions that hold."""
    an = analyse(dials_instance())
    beta = np.asarray(an.smdp.behaviour)[an.smdp.observation]
    oracle = an.d @ an.v_star
    assert an.smdp.num_agents == 10 and an.v_bar.min() > 0.5 and an.v_star.min() > 0.5
    assert 0.6 < an.d @ an.oracle.evaluate_random(beta).v / oracle < 0.85
    assert 0.85 < an.d @ an.interface_value.v / oracle < 0.95
    assert an.kappa < 0.85 and an.gamma_bar < 0.75
    fast = analyse(dials_instance(dials=Dials(mixing=0.75)))
    assert fast.slem < 0.5
