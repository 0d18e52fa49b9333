"""The adversary of docs/theory.md section 6: it finds false statements, and every lemma survives it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from audits import counterexamples
from audits.counterexamples import LEMMAS, Search, main, random_instance, sheet, sticky
from bounds.adversary.interface import claim, gap_case, worst
from bounds.adversary.search import Case, Lemma, Sample, Tally, attack, merged, reduced, scaled, search
from bounds.core.bound import Assumption, Bound
from bounds.interface.gap import scalar_gap_bound
from icq.exact import analyse

pytestmark = pytest.mark.compiles

QUICK = 30
# First seed and count, for lemmas that are tried on few instances.
MORE = {"network": (250, 1), "value loss": (30, 20), "Poisson, decreasing steps": (30, 21), "sharp limits": (30, 61)}


@pytest.fixture(scope="module")
def found():
    """A few dozen instances for all lemmas, more for those that are tried on few of them."""
    out = Search(0, QUICK).run()
    for name, (first, count) in MORE.items():
        out[name] += Search(first, count, (name,)).run()[name]
    return out


@pytest.mark.parametrize("name", [lemma.name for lemma in LEMMAS])
def test_every_lemma_stands_and_its_planted_error_is_caught(found, name):
    t = found[name]
    assert t.violations == 0, f"seeds {t.first}"
    assert t.instances > 0 and t.caught > 0
    assert t.stands


def test_an_exploding_leap_is_not_small():
    """Seeds at which cancellation far from the start once returned a negative bound."""
    for seed in (1158, 1468, 2131, 2917):
        assert Search(seed, 1, ("worst x and leap",)).run()["worst x and leap"].violations == 0


def test_names_are_unique_and_flaws_are_named():
    assert len({lemma.name for lemma in LEMMAS}) == len(LEMMAS)
    assert all(lemma.flaw for lemma in LEMMAS)


def gap_without(factor):
    """The scalar gap with a lost factor, presented as a lemma."""

    def cases(s):
        bound = scalar_gap_bound(s.analysis)
        yield gap_case(s.analysis, replace(bound, value=factor * bound.value))

    return Lemma("wishful gap", cases, scaled(0.5), "factor .5")


def test_a_false_lemma_is_found():
    t = search([gap_without(0.5)], random_instance, range(QUICK))["wishful gap"]
    assert t.violations > 0 and not t.stands
    assert t.first and all(attack(gap_without(0.5), Sample(s, random_instance(s))).violations for s in t.first)
    assert "NOT standing: wishful gap" in with_flaw(t).title and str(t.first[0]) in with_flaw(t).title


def with_flaw(t):
    """The sheet of one lemma that is not in the list."""
    wishful = gap_without(1.0)
    original = counterexamples.LEMMAS
    counterexamples.LEMMAS = (*original, wishful)
    try:
        return sheet({wishful.name: t}, QUICK)
    finally:
        counterexamples.LEMMAS = original


def test_a_lemma_whose_planted_error_is_not_found_does_not_stand():
    lemma = replace(gap_without(1e6), broken=scaled(0.999))
    t = search([lemma], random_instance, range(QUICK))["wishful gap"]
    assert t.violations == 0 and t.caught == 0 and not t.stands
    assert "NOT CAUGHT" in with_flaw(t).tables[0].rows[0]


def test_inapplicable_is_counted_and_proves_nothing():
    fails = Assumption("never", False, -1.0, "on purpose")
    nothing = Bound("b", math.nan, {}, (fails,), "")
    lemma = Lemma("empty", lambda s: iter([Case(nothing, math.nan)]), scaled(0.5), "none")
    t = search([lemma], random_instance, range(5))["empty"]
    assert (t.instances, t.inapplicable, t.cases) == (0, 5, 0) and not t.stands


def test_a_crash_names_lemma_and_seed():
    def crash(s):
        raise ZeroDivisionError("by hand")
        yield

    lemma = Lemma("crash", crash, scaled(0.5), "none")
    with pytest.raises(RuntimeError, match="lemma crash, seed 7: by hand"):
        search([lemma], random_instance, [7])


def test_simulated_observations_convict_by_their_lower_limit_only():
    assert not Case(claim(1.0), 1.1, lower=0.9).violates(claim(1.0))
    assert Case(claim(1.0), 1.3, lower=1.2).violates(claim(1.0))
    assert Case(claim(1.0), 1.1).violates(claim(1.0))
    assert not Case(claim(1.0), 1.1, allowance=0.2).violates(claim(1.0))


def test_the_worst_entry_is_the_violated_one_or_else_the_tightest():
    upper, seen = np.array([[1.0, 10.0, 0.0]]), np.array([[0.5, 9.0, 5.0]])
    live = np.array([[True, True, False]])
    tight = worst(upper, seen, live, 0.0, 0.0)
    assert (tight.bound.value, tight.observed) == (10.0, 9.0)
    bad = worst(upper, seen, np.ones_like(live), 0.0, 0.0, other=10 * upper)
    assert (bad.bound.value, bad.observed) == (0.0, 5.0) and bad.bound.terms["other"] == 0.0
    assert worst(upper, seen, np.zeros_like(live), 0.0, 0.0).observed == 0.0


def test_planted_errors_leave_inapplicable_bounds_alone():
    nothing = Bound("b", math.nan, {}, (Assumption("never", False, -1.0, ""),), "")
    assert scaled(0.5)(nothing) is nothing and reduced(lambda t: 0.0)(nothing) is nothing
    assert reduced(lambda t: t["x"])(claim(3.0, {"x": 2.0})).value == 2.0


def test_tallies_add_up_and_chunks_do_not_matter():
    one, other = Tally(1, 0, 2, 0, 1, (), (2.0, 4.0)), Tally(1, 1, 1, 1, 0, (9,), (1.0,))
    both = one + other
    assert (both.instances, both.cases, both.smallest, both.median) == (2, 3, 1.0, 2.0)
    assert both.first == (9,) and not both.stands
    names = ("scalar gap", "certificates")
    assert merged([Search(0, 7, names).run(), Search(7, 5, names).run()]) == Search(0, 12, names).run()
    assert math.isnan(Tally().smallest) and math.isnan(Tally().median)


def test_streams_depend_on_seed_and_name():
    s = Sample(3, random_instance(3))
    assert s.rng("a").random() == s.rng("a").random() != s.rng("b").random()
    assert s.rng("a").random() != Sample(4, random_instance(4)).rng("a").random()


def test_instances_have_every_shape():
    drawn = [random_instance(seed) for seed in range(200)]
    sizes = {(m.num_states, m.num_observations, m.num_options, m.num_agents) for m in drawn}
    assert len(sizes) > 60
    assert any(m.num_observations == m.num_states > 3 for m in drawn), "fully observed"
    assert any(m.num_observations == 1 < m.num_states for m in drawn), "blind"
    assert any(m.num_options == 1 for m in drawn) and any(m.num_agents >= 3 for m in drawn)
    slow = [analyse(m).slem for m in drawn[:60]]
    assert max(slow) > 0.9 and min(slow) < 0.3


def test_sticky_keeps_the_law_of_where_one_is():
    m = random_instance(next(s for s in range(50) if random_instance(s).num_states > 3))
    a, b = analyse(m), analyse(sticky(m, 0.7))
    np.testing.assert_allclose(b.d, a.d, atol=1e-12)
    np.testing.assert_allclose(
        b.transition.toarray(), 0.3 * a.transition.toarray() + 0.7 * np.eye(len(a.d)), atol=1e-12
    )


def test_the_command_reports_and_exits(capsys):
    assert main(["--instances", "12", "--jobs", "1", "--lemmas", "scalar gap", "certificates"]) == 0
    said = capsys.readouterr().out
    assert "12 random instances" in said and "every lemma stands" in said and "certificates" in said
    with pytest.raises(SystemExit, match="unknown lemma 'nonsense'"):
        main(["--lemmas", "nonsense"])
