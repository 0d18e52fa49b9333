"""docs/theory.md section 5e: networks along their own path."""

from itertools import product

import jax
import numpy as np
import pytest

from bounds.core.bound import Verdict
from bounds.core.steps import Decay
from bounds.network import kernel as kernels
from bounds.network.run import network_run
from bounds.network.theorem import averaged, distance, last_iterate, predicted
from bounds.network.watch import shares
from bounds.path.moving import learners_average
from bounds.residual.population import outcomes
from estimators.statistics.estimate import root_mean_square
from icq.exact import analyse
from icq.learn.classes import q_table
from icq.learn.learner import LearnerConfig, learn
from icq.learn.networks import centred_network
from icq_bounds import dials, network, verify
from icq_bounds.sweep.families import DialsFamily

pytestmark = pytest.mark.compiles
STEP, OFFSET, POWER = 2e-3, 2000.0, 0.6
TIMES = np.array([300, 1000, 3000, 10_000])
A = analyse(DialsFamily(agents=2, clusters=2, gap=0.5, mixing=0.3).workflow())
SCALE = np.full(A.q_bar.shape, 0.5)


def of_width(width, times=TIMES, **options):
    """A run of networks of this width on A."""
    cls = centred_network(A.smdp, width)
    return network_run(A, cls, Decay(STEP, OFFSET, POWER), SCALE, np.asarray(times), **options)


def moved(cls, params, pair, size):
    """Parameters after a step of this size at a pair, and the table there, by the definition of an update."""
    table = np.eye(A.q_bar.size)[pair].reshape(A.q_bar.shape) * SCALE * size
    with jax.enable_x64(True):
        _, back = jax.vjp(lambda p: q_table(cls, p), params)
        after = jax.tree.map(lambda x, y: x + y, params, back(jax.numpy.asarray(table))[0])
        return after, np.asarray(q_table(cls, after))


def test_the_kernel_moves_the_table():
    """One step moves the table by the kernel's column, its bend and nothing else up to third order; the kernel turns as
    its derivative says; agents do not touch each other.
    """
    cls = centred_network(A.smdp, 24, 1.3, seed=3)
    live = np.arange(A.q_bar.size)
    k, bent = kernels.kernel(cls, cls.start, SCALE), kernels.bends(cls, cls.start, SCALE, live)
    assert np.abs(cls.offset).max() > 0 and np.allclose(q_table(cls, cls.start), 0, atol=1e-6)
    agent = np.repeat(np.asarray(A.smdp.agent), 2)
    assert (k[agent[:, None] != agent[None, :]] == 0).all()
    for pair in (0, 3, 9):
        for size in (1e-3, -1e-3):
            after, table = moved(cls, cls.start, pair, size)
            first = size * k[:, pair]
            assert np.abs(table.reshape(-1) - first - size**2 * bent.step[pair]).max() < 1e-3 * size**2
            assert np.abs(table.reshape(-1) - first).max() > 1e-2 * size**2
            turned = (kernels.kernel(cls, after, SCALE) - k) / size
            own = agent == agent[pair]
            rank = int(own[:pair].sum())
            assert np.allclose(turned[np.ix_(own, own)], bent.kernel[rank][np.ix_(own, own)], atol=0.05)


def test_the_kernels_follow_the_path():
    """Coarse and fine kernels begin together, the path is within their share, and the flow ends in Qbar."""
    cls = centred_network(A.smdp, 24)
    path = kernels.kernel_path(A, cls, SCALE, 1e4, 0.05, 0.01)
    assert len(path.fine) > len(path.coarse) > 2
    assert {k.since for k in path.coarse} <= {k.since for k in path.fine}
    assert all(k.drift <= 0.05 for k in path.coarse)
    with jax.enable_x64(True):
        assert A.norm_d(np.asarray(q_table(cls, path.last)) - A.q_bar) < 1e-5 * A.norm_d(A.q_bar)


def by_hand(cls, hidden, outward, o):
    """What the network of the acting agent says, and its units, without JAX."""
    i = int(np.asarray(cls.slot)[o])
    units = np.tanh(np.asarray(cls.inputs)[o] @ hidden[i])
    return i, units, cls.scale * units @ outward[i] + np.asarray(cls.offset)[o]


def enumerated(run, last, start):
    """E||f_theta_T - q_T||_d^2 over all trajectories of `last` handoffs from a state, with the real maximum."""
    k, cls = outcomes(A.smdp), run.cls
    reference = np.concatenate([p.reference for p in run.pieces])
    total, leaves = np.zeros(last), [(1.0, start, cls.start["Dense_0"]["kernel"], cls.start["Dense_1"]["kernel"])]
    for time in range(last):
        onward = []
        for mass, s, hidden, outward in leaves:
            for j in np.flatnonzero(k.source == s):
                o, action = divmod(int(k.pair[j]), 2)
                i, units, q = by_hand(cls, hidden, outward, o)
                delta = (
                    k.reward[j] + k.discount[j] * by_hand(cls, hidden, outward, k.observation[j])[2].max() - q[action]
                )
                size = run.alpha[time] * delta * SCALE[o, action] * cls.scale
                h, w = hidden.copy(), outward.copy()
                w[i, :, action] += size * units
                h[i] += size * np.outer(np.asarray(cls.inputs)[o], (1 - units**2) * outward[i, :, action])
                table = np.array([by_hand(cls, h, w, o)[2] for o in range(len(A.q_bar))])
                p = mass * k.weight[j]
                total[time] += p * (table.reshape(-1) - reference[time]) ** 2 @ A.d_pair.reshape(-1)
                onward.append((p, k.target[j], h, w))
        leaves = onward
    return total


def test_networks_on_every_trajectory_together():
    """The bound is above the exact error of the real learner, written out by hand, from every state; and not far."""
    run = of_width(24, [1, 2])
    bound = last_iterate(run).value - distance(run)
    exact = np.sqrt([enumerated(run, 1, s)[0] for s in range(16)])
    assert (exact <= bound[0] * (1 + 1e-9)).all() and exact.max() > bound[0] / 10
    assert (np.sqrt(enumerated(run, 2, int(exact.argmax()))) <= bound * (1 + 1e-9)).all()


@pytest.fixture(scope="module")
def runs():
    """Sixteen runs of width 24, with what was known of them."""
    run = of_width(24)
    config = LearnerConfig(STEP, POWER, OFFSET, averaging_power=2.0, scale=SCALE)
    return run, learn(A, run.cls, config, 16, TIMES, keep=True)


def test_what_is_predicted_is_observed(runs):
    """On the path, above it by the twin, under the bound: last iterate and average."""
    run, record = runs
    error = np.sqrt(((np.asarray(record.q) - A.q_bar) ** 2 * A.d_pair).sum((-1, -2)))
    reference = np.concatenate([p.reference for p in run.pieces]).reshape(-1, *A.q_bar.shape)
    noise = np.sqrt(((np.asarray(record.q) - reference) ** 2 * A.d_pair).sum((-1, -2)))
    twin = np.concatenate([p.twin for p in run.pieces])
    assert np.sqrt((error**2).mean(axis=0)) == pytest.approx(predicted(run), rel=0.03)
    for column in (noise / twin).T:  # leading order: 5 per cent beside the 99.9 % interval of sixteen runs
        low, high = root_mean_square(column, 0.999).interval
        assert low <= 1.05 and high >= 0.95 and high / low < 2.5
    bound = last_iterate(run)
    assert bound.applicable and (bound.value < bound.trivial / 2).all()
    assert (np.sqrt((error**2).mean(axis=0)) < bound.value).all()


def test_the_mean_of_the_tables():
    """The bound of the average speaks of the mean of all tables of a run, at any weights."""
    times = np.arange(1, 101)
    run = of_width(24, times, average=learners_average(100, 2.0))
    record = learn(A, run.cls, LearnerConfig(STEP, POWER, OFFSET, scale=SCALE), 8, times)
    weights = run.average.weights[1:, None, None]
    tables = np.cumsum(weights * np.asarray(record.q), axis=1) / np.cumsum(weights, axis=0)
    error = np.sqrt(((tables - A.q_bar) ** 2 * A.d_pair).sum((-1, -2)))
    bound = averaged(run)
    assert bound.applicable and (np.sqrt((error**2).mean(axis=0)) < bound.value).all()
    assert bound.value[-1] < 1.1 * np.sqrt((error[:, -1] ** 2).mean())


def test_runs_are_watched(runs):
    """Runs keep to what they may do; one whose parameters are pushed does not."""
    run, record = runs
    used = shares(run, record.params, np.asarray(record.q))
    assert used.shape == (16, len(TIMES)) and (used < 1).all() and (used > 0.05).all()
    one = jax.tree.map(lambda x: np.asarray(x)[:1] * 1.05, record.params)
    with jax.enable_x64(True):
        table = np.array([[q_table(run.cls, jax.tree.map(lambda x, k=k: x[0, k], one)) for k in range(len(TIMES))]])
    assert (shares(run, one, table) > 1).all()
    assert np.isinf(shares(run, one, np.full_like(table, np.nan))).all()


def test_a_singular_kernel_has_no_bound():
    """Fewer parameters than pairs: inapplicable, with the margin; and steps that grow."""
    found = last_iterate(of_width(1))
    assert (
        not found.applicable and found.assumptions[0].name == "kernel has full rank" and found.assumptions[0].margin < 0
    )
    assert np.isnan(found.value).all()
    grow = network_run(A, centred_network(A.smdp, 24), lambda k: 1e-4 * (1 + k), SCALE, np.array([3]))
    assert [x.name for x in last_iterate(grow).assumptions if not x.holds] == ["steps do not grow"]
    with pytest.raises(ValueError, match="share parameters"):
        network_run(A, grow.cls, 0.1, np.arange(A.q_bar.size).reshape(A.q_bar.shape) + 1.0, TIMES)


def test_a_bound_before_the_run_in_one_call():
    """`verify` with networks: every term has a bound, none is violated, and what runs used is in the dataset."""
    model = dials(agents=2, clusters=2, gap=0.5)
    learner = network(24, training="plain", step=24 * STEP, decay_offset=OFFSET)
    check = verify(model, 10_000, 16, learner, checkpoints=TIMES.tolist())
    said = {term: check.terms[term].bound_verdict for term in check.terms}
    assert said == dict.fromkeys(said, Verdict.HOLDS)
    used = check.to_dataset()["used"].values
    assert (used > 0).all() and (used < 1).all()


def test_networks_that_start_alike_run_apart(runs):
    """One start, distinct handoffs; another seed of the start, another network."""
    one, other = (centred_network(A.smdp, 4, seed=s).start["Dense_0"]["kernel"] for s in (0, 1))
    assert not np.isclose(one, other).any()
    q = np.asarray(runs[1].q)[:, 0]
    assert all(not np.array_equal(q[i], q[j]) for i, j in product(range(16), repeat=2) if i < j)


def test_handoffs_drawn_afresh_need_no_correction(runs):
    """The control: what correlation along the trajectory costs is not in its bound."""
    one, other = last_iterate(runs[0]), last_iterate(of_width(24, [300], iid=True))
    assert other.applicable and other.value[0] < one.value[0]
