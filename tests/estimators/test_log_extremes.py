"""Logs at the limits: any unit of reward, rounding that is no evidence, nothing seen, parts that never meet."""

import json
import warnings
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import approximation, distances, interface, mixing, td_noise, values
from estimators.cells import gather
from estimators.logs.log import Log
from estimators.logs.report import ReaderReport
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, rescaled, rule_of_three
from icq.reason import Reason
from icq_bounds.diagnosis.diagnosis import UNITLESS, diagnose, root
from icq_bounds.diagnosis.words import as_json, words

N = 3200


def log_of(reward, n=N, contexts=2, options=2, observations=3, tasks=5, seed=0, **change):
    """A log of one chain of tasks; reward: (rng, observation, option, context) -> [n]."""
    rng = np.random.default_rng(seed)
    o, c, a = (rng.integers(size, size=n) for size in (observations, contexts, options))
    done = np.arange(n) % tasks == tasks - 1
    onward = np.where(done, -1, np.append(o[1:], o[0]))
    found = Log(
        gamma=0.9, task=np.arange(n) // tasks, k=np.arange(n) % tasks, agent=o % 2, observation=o, option=a,
        reward=np.asarray(reward(rng, o, a, c), float), duration=rng.integers(1, 4, size=n), done=done,
        next_agent=np.where(done, -1, onward % 2), next_observation=onward, scalar=np.where(done, np.nan, 1.0 * onward),
        follows=~np.append(True, done[:-1]), context=c, probability=np.full(n, 1 / options),
    )  # fmt: skip
    return replace(found, **change)


def hidden(rng, o, a, c):
    """Noisy rewards that depend on the context, best options apart."""
    return rng.normal(size=len(o)) + c * (a == 0) + 2.0 * (a == 1)


LOG = log_of(hidden)
Q = np.arange(6.0).reshape(3, 2)
DEGREE = {
    "interface gap": (1, interface.interface_gap), "local gap": (1, interface.local_gap),
    "certified gap": (1, interface.certified_gap), "kappa_S": (0, interface.oracle_contraction),
    "total variation": (0, distances.total_variation), "discrepancy": (0, distances.mean_discrepancy),
    "kappa": (0, approximation.kappa), "sigma_0": (2, td_noise.sigma_0), "sigma_mix": (2, td_noise.sigma_mix),
    "autocorrelation": (0, td_noise.autocorrelation_time), "control": (2, td_noise.control_constant),
    "residual": (2, td_noise.residual_constant), "kemeny": (0, mixing.kemeny),
    "value": (1, lambda log: values.typical_value(td_noise.noise(log))),
    "sent": (1, lambda log: values.sent_error(log, td_noise.noise(log))),
}  # fmt: skip
OF_A_TABLE = {
    "residual of q": interface.local_gap, "bellman": approximation.bellman_residual, "error of q": values.value_error,
    "certificate": approximation.certificate,
}  # fmt: skip


def scaled(log, power):
    return replace(log, reward=np.ldexp(log.reward, power), scalar=np.ldexp(log.scalar, power))


def same(found, expected, power):
    """The same estimate in a unit 2^power as large; what leaves the range of float64 has no number."""
    assert found.known == expected.known or found.why.reason is Reason.OUT_OF_RANGE
    if found.known and expected.known:
        wanted = rescaled(expected, power)
        assert [found.value, *found.interval] == pytest.approx([wanted.value, *wanted.interval], rel=1e-9, abs=5e-322)


@pytest.mark.parametrize("name", [*DEGREE, *OF_A_TABLE])
@pytest.mark.parametrize("power", [-990, -3, 500, 1015])
def test_estimators_do_not_depend_on_the_unit_of_reward(name, power):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name in DEGREE:
            degree, of = DEGREE[name]
            same(of(scaled(LOG, power)), of(LOG), degree * power)
        else:
            of = OF_A_TABLE[name]
            same(of(scaled(LOG, power), np.ldexp(Q, power)), of(LOG, Q), power)


def test_cells_that_were_gathered_before_do_not_depend_on_it_either():
    for power in (-900, 900):
        same(interface.interface_gap(gather(scaled(LOG, power), onward=True)), interface.interface_gap(LOG), power)


def estimates(found, name=""):
    """Every estimate inside a diagnosis, with the field it is in."""
    if isinstance(found, Estimate):
        yield name, found
    elif isinstance(found, tuple):
        for part in found:
            yield from estimates(part, name)
    elif is_dataclass(found):
        for field in fields(found):
            yield from estimates(getattr(found, field.name), field.name)


@pytest.fixture(scope="module")
def diagnosed():
    return list(estimates(diagnose(LOG)))


@settings(max_examples=4)
@given(power=st.integers(-990, 1000))
def test_a_diagnosis_does_not_depend_on_the_unit_of_reward(power, diagnosed):
    pairs = list(zip(estimates(diagnose(scaled(LOG, power))), diagnosed, strict=True))
    assert len(pairs) > 10
    for (name, e), (_, wanted) in pairs:
        same(e, wanted, 0 if name in UNITLESS else power)


# --- rounding is no evidence, and nothing seen is not nothing there -------------------------------------------------

CONSTANT = {
    "the same": lambda rng, o, a, c: np.full(len(o), 0.1), "tiny": lambda rng, o, a, c: np.full(len(o), 1e-320),
    "huge": lambda rng, o, a, c: np.full(len(o), 1e307), "of pairs": lambda rng, o, a, c: 0.1 * o + 0.3 * a,
    "large, nearly the same": lambda rng, o, a, c: 1e8 + 1e-9 * rng.normal(size=len(o)),
    "negative": lambda rng, o, a, c: -1 / 3 - 0.7 * o,
}  # fmt: skip


def report(log):
    return ReaderReport("log", "row", len(log), len(log), int(log.task[-1]) + 1)


@pytest.mark.parametrize("kind", CONSTANT)
@pytest.mark.parametrize("change", ["ends at once", "as it is", "one state", "goes on"])
def test_what_is_rounding_is_zero_and_estimates_lie_in_their_intervals(kind, change):
    shape = {"ends at once": {"tasks": 1}, "one state": {"observations": 1, "contexts": 2}, "goes on": {"tasks": 10**9}}
    log = log_of(CONSTANT[kind], **shape.get(change, {}))
    if change in ("goes on", "one state"):
        log = replace(log, duration=np.ones(N, int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnose(log)
        said = words(found, log, report(log))
    json.dumps(as_json(found, said, report(log)), allow_nan=False)
    size = max(float(np.abs(log.reward).max()), 1e-322)
    for name, e in estimates(found):
        if not e.known:
            continue
        low, high = e.interval
        assert low <= e.value <= high, (name, e)
        assert e.n_eff <= N or np.isinf(e.n_eff), (name, e)
        if name not in UNITLESS:
            assert e.value == 0 or e.value > 1e-13 * size, (name, e)
    if change == "ends at once":  # the reward of a pair does not differ
        gap = found.interface.gap
        if kind != "large, nearly the same":
            assert gap.value == 0 == gap.interval[0] and gap.interval[1] > 0 and "rule of three" in gap.note
    if log.reward.min() == log.reward.max():
        assert said.verdict.sentence.startswith(f"Rewards do not vary: all {N} are ")
    assert said.verdict.dominant is None or found.terms[said.verdict.dominant].interval[0] > 0


def test_rewards_of_zero_only_bound_what_was_never_seen():
    log = log_of(lambda rng, o, a, c: 0.0 * o)
    found = diagnose(log)
    for e in (found.interface.gap, found.interface.local, found.residual.error, found.residual.value):
        assert (
            e.why.reason is Reason.SAME_REWARD and "rule of three" in e.why.place and "range of rewards" in e.why.place
        )
    assert found.terms["approximation"].known
    sentence = words(found, log, report(log)).verdict.sentence
    assert sentence.startswith(f"Rewards do not vary: all {N} are 0.0. ") and "[0, 0]" not in sentence
    assert approximation.bellman_residual(log, Q).known  # a table that is given has an error all the same


def test_the_rule_of_three():
    assert rule_of_three(1000.0) == pytest.approx(3 / 1000, rel=0.01) and rule_of_three(1.0) == 1.0 == rule_of_three(
        0.0
    )
    rng = np.random.default_rng(0)  # of what is never seen in n draws, fewer than 5 % are more frequent than this
    p = rule_of_three(300.0)
    assert 0.03 < np.mean(rng.binomial(300, p, 20_000) == 0) < 0.07


def test_noise_that_is_not_there_has_no_ratio():
    log = replace(log_of(lambda rng, o, a, c: 0.1 + 0.2 * a, observations=1, contexts=1, tasks=10**9),
                  duration=np.ones(N, int))  # fmt: skip
    assert td_noise.autocorrelation_time(log).why.reason is Reason.NO_NOISE
    assert td_noise.sigma_mix(log).why.reason is Reason.NO_NOISE
    constant = td_noise.residual_constant(log)
    assert constant.value == 0 < constant.interval[1]
    assert root(constant, N).interval == (0.0, pytest.approx(np.sqrt(constant.interval[1] / N)))


def test_chains_without_chance_have_no_interval():
    """Observations that alternate: nothing scatters, and the second eigenvalue is -1."""
    log = log_of(hidden, observations=2, tasks=10**9)
    o = np.arange(N) % 2
    onward = 1 - o
    log = replace(log, observation=o, agent=o, next_observation=onward, next_agent=onward)
    assert mixing.relaxation_time(log).why.reason is Reason.PERIODIC
    assert mixing.kemeny(log).why.reason is Reason.NO_SCATTER


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=8), st.integers(-300, 300), st.booleans())
def test_an_estimate_lies_in_its_interval(errors, power, plain):
    sample = np.ldexp(np.array(errors) / 1e150, power)
    found = [estimate.root_mean_square(sample), estimate.mean(sample / 16)]
    rest = np.array([np.delete(sample / 16, i).mean() for i in range(len(sample))])
    found.append(estimate.jackknife(float(np.max(sample / 16)), rest, plain=plain))
    for e in found:
        assert not e.known or np.isnan(e.value) or not np.isfinite(e.interval).all() or (
            e.interval[0] <= e.value <= e.interval[1]
        )  # fmt: skip


# --- parts that never meet ------------------------------------------------------------------------------------------


def test_a_log_that_falls_into_parts_says_so():
    halves = [log_of(hidden, n=N // 2, seed=seed) for seed in (0, 1)]
    joined = {
        f.name: np.concatenate([getattr(h, f.name) for h in halves])
        for f in fields(Log)
        if isinstance(getattr(halves[0], f.name), np.ndarray)
    }
    late = np.arange(N) >= N // 2
    for name, by in (("observation", 3), ("next_observation", 3), ("task", N)):
        joined[name] = joined[name] + by * (late & (joined[name] >= 0))
    log = replace(halves[0], **joined)
    found = diagnose(log)
    for e in (found.interface.gap, found.residual.error):
        assert e.why.reason is Reason.DISCONNECTED and e.why.observation in (0, 3), e.why
        assert "each part as a log of its own" in e.why.need
    assert Reason.SHORT not in {e.why.reason for _, e in estimates(found) if not e.known}
    assert diagnose(halves[0]).interface.gap.known  # the advice, followed


def test_a_discount_that_cannot_be_told_from_one_is_said():
    log = replace(log_of(hidden, tasks=10**9), gamma=float(np.nextafter(1.0, 0.0)), duration=np.ones(N, int))
    found = [e for _, e in estimates(diagnose(log)) if not e.known]
    assert any(e.why.reason is Reason.NOT_CONTRACTING and "cannot be told from 1" in e.why.place for e in found)


def test_limits_that_are_not_zero_stay_so_and_scalars_may_be_huge():
    e = rescaled(Estimate(0.0, 0.1, (0.0, 0.5), 9.0), -1080)
    assert e.interval == (0.0, 5e-324) and rescaled(Estimate(1.0, 0.1, (0.5, 2.0), 9.0), 2000).why.reason is (
        Reason.OUT_OF_RANGE
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        huge = values.sent_error(replace(LOG, scalar=LOG.scalar * 1e300), td_noise.noise(LOG))
    assert huge.why.reason is Reason.NOT_FINITE
