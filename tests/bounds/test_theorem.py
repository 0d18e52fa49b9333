"""docs/theory.md section 6: the assembled theorem, its closed forms and its corollary, against exact runs."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from broken import family
from hypothesis import given
from hypothesis import strategies as st
from strategies import garnet, instances

from audits.counterexamples import random_instance
from bounds import ladder
from bounds.adversary.oracles import FrozenRun
from bounds.adversary.residual import largest_step, random_population, start, trial
from bounds.adversary.search import Sample
from bounds.core.bound import Bound, Verdict
from bounds.core.sheet import Sheet, SheetTable
from bounds.core.term import Asymptotic, Observed, Rung, Term
from bounds.interface.gap import gap_value_bound_d, oracle_contraction
from bounds.residual import closed, poisson
from bounds.residual.constants import constants
from bounds.residual.population import tabular_features
from bounds.residual.recursion import advance, spread
from bounds.theorem import Observations, Output, theorem, value_loss
from icq.exact import analyse
from icq.smdp import ICSMDP

pytestmark = pytest.mark.slow

TIMES = np.array([1, 8, 64, 2**14])
SEEDS = 20


def exact_run(pop, alpha, theta_0, law):
    """Exact root mean square errors at TIMES: of Q_T and of the path against Q_F, and of Q_T against Q*."""
    a, wide = pop.analysis, pop.phi.T @ (pop.d[:, None] * pop.phi)
    base = a.lift(pop.q_f) - a.q_star
    cross = np.bincount(
        np.asarray(a.smdp.observation).repeat(base.shape[1]) * base.shape[1]
        + np.tile(np.arange(base.shape[1]), len(base)),
        weights=(a.d_state_pair * base).reshape(-1),
        minlength=len(pop.d),
    )
    residual, path, total = [], [], []
    for m in FrozenRun(pop, alpha).runs(law, pop.error(theta_0)):
        if m.time in TIMES:
            last = np.sum(wide * m.last)
            residual.append(last)
            path.append(np.sum(wide * m.path))
            total.append(last + 2 * cross @ (pop.phi @ m.mean) + a.norm_d_state(base) ** 2)
    return [np.sqrt(np.maximum(x, 0)) for x in (residual, path, total)]


@cache
def proved(seed):
    """The theorem with exact observations on one random run, or None where the run is too large or has no class."""
    t = trial(Sample(seed, random_instance(seed)))
    if t is None:
        return None
    residual, path, total = exact_run(t.pop, t.alpha, t.theta_0, t.law)
    if not np.isfinite(residual).all():
        return None
    scale = 1e-7 * (1 + max(residual))
    seen = Observations(
        {Output.LAST: exactly(residual, scale), Output.AVERAGE: exactly(path, scale)},
        {Output.LAST: exactly(total, scale)},
    )
    return theorem(
        t.pop.analysis, t.alpha, TIMES, psi=t.pop.psi, metric=t.pop.metric, offset=t.pop.offset, start=t.theta_0,
        observed=seen,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def frozen_options():
    """Exact runs freeze the greedy options; the path takes the maximum, and is tested in test_moving."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "_along_path", lambda *_, **__: ())
        yield


def exactly(values, allowance):
    return [Observed.exact(float(x), allowance) for x in values]


def test_the_theorem_holds_on_exact_runs():
    """Every rung of every term and the total, at every time, on runs whose errors are known exactly."""
    said, tried = [], 0
    for seed in range(SEEDS):
        found = proved(seed)
        if found is None:
            continue
        tried += 1
        terms = [found.interface, found.approximation]
        for i in range(len(TIMES)):
            terms += [found.residual[output][i] for output in Output] + [found.total(Output.LAST, i)]
        said += [(seed, r.bound.name, term.verdict(r.bound)) for term in terms for r in term.rungs]
    assert tried > 4
    assert not [x for x in said if x[2] is Verdict.VIOLATED]
    assert {Verdict.HOLDS, Verdict.VACUOUS, Verdict.INAPPLICABLE} <= {x[2] for x in said}


def test_a_total_that_forgets_a_term_is_caught():
    """Leaving out the interface term, or a tenth of the residual, violates the total somewhere."""
    caught = {"interface": 0, "residual": 0}
    for seed in range(SEEDS):
        found = proved(seed)
        if found is None:
            continue
        for i in range(len(TIMES)):
            total = found.total(Output.LAST, i)
            if not total.best.applicable:
                continue
            parts = total.best.terms
            for name in caught:
                lighter = replace(total.best, value=total.best.value - parts[name])
                caught[name] += total.verdict(lighter) is Verdict.VIOLATED
    assert min(caught.values()) > 0


def test_the_certified_total_never_uses_the_exact_quantities():
    found = proved(next(s for s in range(SEEDS) if proved(s) is not None))
    for term in (found.interface, found.approximation):
        assert term.rungs[0].exact and not any(r.exact for r in term.rungs[1:])
        assert term.best in [r.bound for r in term.rungs[1:]]
    assert found.curve().tolist() == [found.total(Output.LAST, i).best.value for i in range(len(TIMES))]


def unstable():
    """An instance with kappa >= 1."""
    return next(a for a in family() if oracle_contraction(a) >= 1 and a.kappa >= 1)


def test_a_missing_drift_removes_the_number_and_says_by_how_much():
    a = unstable()
    found = theorem(a, 1e-3, np.array([10, 100]))
    assert found.interface.best.applicable, "section 3 needs no contraction"
    for output in Output:
        term = found.residual[output][-1]
        if term.best.applicable:  # the sup norm needs none for a table
            assert term.best.name.startswith("sup norm")
            continue
        assert not found.total(output).best.applicable
        failure = term.best.failures[0]
        assert failure.name == "drift" and failure.margin < 0
        assert str(failure) in found.sheet().markdown()
    loss = found.value_loss(Output.AVERAGE)
    assert np.isnan(loss.value) and "kappa_S < 1" in [x.name for x in loss.failures]
    assert "none" in theorem(a, 1e3, np.array([10]))._repr_latex_()


def test_dependent_features_leave_the_interface_term():
    a = next(a for a in family() if a.interface.available.sum() > 2)
    psi = np.ones((a.d_pair.size, 2))
    found = theorem(a, 1e-3, np.array([10]), psi=psi)
    assert found.interface.best.applicable and np.isnan(found.total().best.value)
    assert found.total().best.failures[0].name == "class fixed point"
    assert "linearly dependent" in str(found.total().best.failures[0])
    assert "linearly dependent" in str(found)


def test_arrays_beyond_memory_are_inapplicable(monkeypatch):
    a = next(a for a in family() if a.kappa < 0.9)
    monkeypatch.setattr(ladder, "DENSE_LIMIT", 1)
    found = theorem(a, 1e-3, np.array([10]))
    names = {a.name for r in found.residual[Output.LAST][0].rungs for a in r.bound.failures}
    assert names == {"arrays fit"}


@pytest.mark.parametrize("times", [[], [0, 1], [3, 2]])
def test_times_must_increase_from_one(times):
    with pytest.raises(ValueError, match="positive and increasing"):
        theorem(family()[0], 1e-3, np.array(times, int))


@given(instances())
def test_signed_gap_bound_in_the_d_norm_is_between_rungs_1_and_2(m):
    a = analyse(m)
    signed, exact = ladder.signed_gap_bound_d(a), a.norm_d_state(a.gap)
    slack = signed.roundoff + 1e-12
    assert exact <= signed.value + slack
    assert signed.value <= gap_value_bound_d(a).value + slack


def random_inequality(seed):
    """The certificate of a random class, a step that satisfies its conditions, and a start; None without one."""
    rng = np.random.default_rng(seed)
    pop = random_population(analyse(random_instance(seed)), rng)
    if pop is None or pop.kappa >= 1:
        return None
    inequality = poisson.tier_2_inequality(constants(pop))
    alpha = largest_step(inequality) * 10 ** rng.uniform(-4, -1)
    return (
        (pop, inequality, alpha, start(pop, rng))
        if all(x.holds for x in closed.conditions(inequality, alpha))
        else None
    )


def test_the_level_is_the_fixed_point_of_the_worst_case():
    tried = 0
    for seed in range(SEEDS):
        if (found := random_inequality(seed)) is None:
            continue
        _, inequality, alpha, _ = found
        level, gain = closed.settle(inequality, alpha), inequality.gain(alpha, alpha)
        drift, slack = 2 * alpha * inequality.mu, inequality.slack(alpha)
        assert advance(level.level, drift, slack, gain) == pytest.approx(level.level, rel=1e-9, abs=1e-300)
        step = 1e-6 * level.level
        above = advance(level.level + step, drift, slack, gain) - advance(level.level, drift, slack, gain)
        if level.level > 0 and step > 1e-9 * level.level:
            assert above / step == pytest.approx(1 - level.pull, abs=1e-4)
        tried += 1
    assert tried > 4


def test_closed_forms_are_never_below_the_recursion_and_meet_it_in_the_end():
    times, tried = np.array([1, 30, 10**5]), 0
    for seed in range(SEEDS):
        if (found := random_inequality(seed)) is None:
            continue
        pop, _, alpha, theta_0 = found
        arguments = (pop, alpha, theta_0, times)
        last, recursion = closed.last_iterate(*arguments), poisson.tier_2(*arguments).value
        assert (recursion <= last.value * (1 + 1e-6) + 1e-12).all()
        assert last.value[-1] >= last.terms["stationary"] * (1 - 1e-12)
        if last.terms["pull"] * times[-1] > 50:
            assert last.value[-1] == pytest.approx(last.terms["stationary"], rel=1e-6, abs=1e-12)
            assert recursion[-1] == pytest.approx(last.value[-1], rel=1e-6, abs=1e-12)
        tried += 1
    assert tried > 4


def test_the_closed_average_is_never_below_the_sum_of_single_steps():
    tried = 0
    for seed in range(SEEDS):
        if (found := random_inequality(seed)) is None:
            continue
        pop, inequality, alpha, theta_0 = found
        error, gain, slack = pop.error(theta_0), inequality.gain(alpha, alpha), inequality.slack(alpha)
        v_0, total = float(error @ error), 0.0
        w = first = v_0 + slack(np.sqrt(v_0))
        ends = []
        for _ in range(200):
            total += gain(spread(slack, w)[1])
            w = advance(w, 2 * alpha * inequality.mu, slack, gain)
            edge = slack.c0 + slack.c1**2 / (4 * (1 - slack.c2))
            ends.append((first + total + edge) / (2 * (1 - pop.kappa) * alpha * (len(ends) + 1)))
        value = closed.mean_squared_error(inequality, 1 - pop.kappa, alpha, v_0, np.arange(1, 201))
        assert (np.array(ends) <= value * (1 + 1e-9)).all()
        tried += 1
    assert tried > 4


def test_a_step_without_net_drift_is_inapplicable():
    pop, inequality, alpha, theta_0 = next(x for x in map(random_inequality, range(SEEDS)) if x is not None)
    curve = closed.last_iterate(pop, largest_step(inequality) * 0.99, theta_0, np.array([10]))
    if not curve.applicable:
        assert "net drift" in [x.name for x in curve.at(0).failures]
    assert closed.last_iterate(pop, alpha, theta_0, np.array([10])).applicable


@given(instances(gamma=(0.1, 0.6), max_duration=(1, 4)), st.integers(0, 2**32 - 1))
def test_value_loss(m, seed):
    """Mean and weighted loss of the policy greedy in any table, from its d-norm error alone."""
    a, rng = analyse(m), np.random.default_rng(seed)
    q = np.where(a.interface.available, a.q_bar + 10 ** rng.uniform(-3, 1) * rng.normal(size=a.q_bar.shape), 0.0)
    error = a.norm_d_state(a.lift(q) - a.q_star)
    bound = value_loss(a, Bound("error", error, {}, (), ""))
    policy = np.where(a.interface.available, q, -np.inf).argmax(1)
    loss = a.v_star - a.oracle.evaluate(policy[a.smdp.observation]).v
    if not bound.applicable:
        assert oracle_contraction(a) >= 1
        return
    least = np.where(a.oracle.available, a.d_state_pair, np.inf).min(1)
    assert a.d @ loss <= bound.value + bound.roundoff + 1e-9
    assert np.sqrt(least @ loss**2) <= bound.terms["weighted"] + 1e-9


def test_value_loss_is_attained():
    """One decision, two options: the table that errs by equal amounts on both turns the choice around."""
    m = ICSMDP.create(
        prob=np.ones((1, 2, 1)), next_state=np.zeros((1, 2, 1), int), duration=np.ones((1, 2, 1), int),
        reward=[[[1.0], [-1.0]]], terminal=np.ones((1, 2, 1), bool), observation=[0], agent=[0], gamma=0.5,
    )  # fmt: skip
    a = analyse(m)
    tilted = np.array([[-1e-12, 1e-12]])
    bound = value_loss(a, Bound("error", a.norm_d_state(a.lift(tilted) - a.q_star), {}, (), ""))
    assert bound.value == pytest.approx(2.0, abs=1e-9), "all that can be lost"


@cache
def quick():
    a = analyse(garnet(3, states=5, observations=4, options=2, gamma=0.5, unavailable=0.0))
    seen = Observations({Output.LAST: [Observed(0.1, 0.09, 0.11)]}, {Output.LAST: [Observed(0.4, 0.3, 0.5)]})
    return theorem(a, 1e-5, np.array([10**4]), observed=seen)


def test_all_forms_show_every_rung_with_its_value():
    found = quick()
    sheet = found.sheet()
    text, page, document = str(found), found._repr_html_(), sheet.markdown()
    for term in (found.interface, found.approximation, *(found.residual[o][0] for o in Output), found.total()):
        for r in term.rungs:
            name = r.bound.name
            assert name.split(",")[0] in text and name in document
            assert name.replace(">", "&gt;") in page
            if r.bound.applicable:
                assert f"{r.bound.value:.4g}" in document and f"{r.bound.value:.4g}" in page
    assert "not a bound" in document and "0.1 (0.09 to 0.11)" in document
    assert max(map(len, text.splitlines())) <= 118
    assert "http" not in page and "<script" not in page and "Qbar o phi - Q*" in page
    assert page.count("<table>") == page.count("</table>") == len(sheet.tables)


def test_latex_has_the_numbers_and_balanced_braces():
    tex = quick()._repr_latex_()
    assert tex.startswith("$$") and tex.endswith("$$") and tex.count("{") == tex.count("}")
    assert f"{quick().total().best.value:.4g}" in tex


def test_the_average_needs_steps_between_the_square_root_and_the_harmonic():
    a = analyse(garnet(3, states=5, observations=4, options=2, gamma=0.5, unavailable=0.0))
    for power, holds in ((0.0, False), (0.3, False), (0.7, True), (1.2, False)):
        found = theorem(a, lambda k, p=power: 0.01 * (1 + k) ** -p, np.array([1, 100]))
        limit = found.residual[Output.AVERAGE][-1].limit
        (steps,) = [x for x in limit.assumptions if x.name == "steps fall like k^-a"]
        assert steps.holds == holds and steps.margin == pytest.approx(0.25 - abs(power - 0.75), abs=1e-9)
        assert np.isnan(limit.value) != holds
    assert np.isnan(found.residual[Output.LAST][-1].limit.value), "the stationary error needs a constant step"


def test_a_table_by_default_and_the_local_clock():
    a = analyse(garnet(3, states=5, observations=4, options=2, gamma=0.5, unavailable=0.0))
    psi, times = tabular_features(a), np.array([100])
    plain, explicit = theorem(a, 1e-4, times), theorem(a, 1e-4, times, psi=psi, metric=np.diag(a.d_pair.reshape(-1)))
    assert plain.curve() == pytest.approx(explicit.curve())
    assert plain.class_name == "table" and explicit.class_name == f"{psi.shape[1]} features"
    assert theorem(a, 1, times).residual[Output.LAST][0].limit is not None, "a whole number is a constant step"


def test_terms_refuse_inconsistent_parts():
    bound = Bound("b", 2.0, {}, (), "", 3.0)
    term = Term("t", "x", (Rung(bound),), 3.0)
    assert term.verdict(bound) is None and np.isnan(term.ratio(2.0))
    seen = replace(term, observed=Observed.exact(1.0))
    assert seen.verdict(bound) is Verdict.HOLDS and seen.ratio(2.0) == 2.0
    nothing = replace(term, observed=Observed.exact(0.0, 1e-9))
    assert nothing.ratio(1e-10) == 1.0 and nothing.ratio(1.0) == np.inf
    with pytest.raises(ValueError, match="assumptions say otherwise"):
        Asymptotic("a", float("nan"), ())


def test_tables_must_be_rectangular_and_escape_their_cells():
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        SheetTable("t", ("a", "b"), (("1",),))
    sheet = Sheet("title", "x < y", (SheetTable("c", ("a|b",), (("[red]<b>[/red]",),)),))
    assert "[red]<b>[/red]" in sheet.text() and "&lt;b&gt;" in sheet.html() and r"a\|b" in sheet.markdown()
    assert re.search(r"x &lt; y", sheet.html())
