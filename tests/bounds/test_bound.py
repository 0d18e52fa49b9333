"""The bound type and the verdict: every outcome, their precedence, and refusals."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds.core.bound import Assumption, Bound, Verdict, below, conditional, verdict
from bounds.core.term import Observed, Rung, Term

GOOD = Assumption("kappa < 1", True, 0.2, "kappa = 0.8")
BAD = Assumption("kappa < 1", False, -0.5, "kappa = 1.5")


def bound(value: float = 2.0, trivial: float = 10.0, roundoff: float = 0.0) -> Bound:
    return Bound("test", value, {"part": value}, (GOOD,), "docs/theory.md section 6", trivial, roundoff=roundoff)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (1.0, 1.5, Verdict.HOLDS),
        (1.0, 2.0, Verdict.HOLDS),
        (1.0, 2.5, Verdict.UNDECIDED),
        (2.0, 2.5, Verdict.UNDECIDED),
        (2.1, 2.5, Verdict.VIOLATED),
    ],
)
def test_the_interval_decides(lower, upper, expected):
    assert verdict(bound(), lower, upper) is expected


def test_precedence():
    vacuous = bound(10.0, trivial=10.0)
    assert verdict(vacuous, 1.0, 2.0) is Verdict.VACUOUS
    assert verdict(vacuous, 9.0, 11.0) is Verdict.VACUOUS
    assert verdict(vacuous, 10.5, 11.0) is Verdict.VIOLATED, "a false bound is not excused by being useless"
    assert verdict(bound(2.0), 1.0, 1.5, trivial=2.0) is Verdict.VACUOUS
    assert verdict(vacuous, 1.0, 2.0, trivial=11.0) is Verdict.HOLDS
    assert verdict(bound(math.inf, trivial=math.inf), 1.0, 2.0) is Verdict.VACUOUS


def test_inapplicable_has_no_number_and_says_why():
    failed = conditional("test", [GOOD, BAD], lambda: pytest.fail("computed without its assumption"), "", 10.0)
    assert math.isnan(failed.value) and not failed.terms and not failed.applicable
    assert failed.failures == (BAD,)
    assert "kappa < 1 fails (margin -0.5): kappa = 1.5" in str(failed)
    assert verdict(failed, 1e9, 1e9) is Verdict.INAPPLICABLE
    assert verdict(failed, math.nan, math.nan) is Verdict.INAPPLICABLE


def test_conditional_computes_when_everything_holds():
    made = conditional("test", [GOOD], lambda: (3.0, {"part": 3.0}), "", 10.0, roundoff=1e-9)
    assert (made.value, dict(made.terms), made.roundoff) == (3.0, {"part": 3.0}, 1e-9)


def test_only_the_stated_slack_is_forgiven():
    above = 2.0 + 3e-9
    assert verdict(bound(), above, above) is Verdict.VIOLATED
    assert verdict(bound(), above, above, allowance=2e-9) is Verdict.VIOLATED
    assert verdict(bound(roundoff=2e-9), above, above, allowance=2e-9) is Verdict.HOLDS


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3), st.sampled_from([1e7, 1e13, math.inf]))
def test_an_error_is_never_forgiven_in_favour_of_a_bound(value, observed, allowance, trivial):
    """Up to rounding, equal numbers hold; beyond, an observation that may be above its bound is undecided."""
    got = verdict(bound(value, trivial), observed, observed, allowance=allowance)
    rounding = allowance <= 1e-9 * (value if math.isinf(trivial) else trivial)
    if observed > value + allowance:
        assert got is Verdict.VIOLATED
    elif rounding:
        assert got is Verdict.HOLDS
    else:
        assert got is (Verdict.HOLDS if observed <= value - allowance else Verdict.UNDECIDED)


def test_a_number_lost_in_solver_error_neither_holds_nor_has_a_ratio():
    lost = Observed.exact(0.85, 6e16)
    term = Term("gap", "", (Rung(bound(1.8, 2e16)),), 2e16, observed=lost)
    assert term.verdict(term.best) is Verdict.UNDECIDED and math.isnan(term.ratio(1.8))


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1e-3, 0.999))
def test_shrinking_a_bound_never_improves_its_verdict(value, a, b, factor):
    order = [Verdict.HOLDS, Verdict.UNDECIDED, Verdict.VIOLATED]
    before, after = (verdict(bound(v, math.inf), min(a, b), max(a, b)) for v in (value, factor * value))
    assert order.index(after) >= order.index(before)


def test_below_is_strict_and_catches_nan():
    assert below("x", 0.75, 1.0, "").margin == 0.25
    assert not below("x", 1.0, 1.0, "").holds
    assert below("x", math.nan, 1.0, "").margin == -math.inf


def test_refusals():
    with pytest.raises(ValueError, match="but the bound is inapplicable"):
        Bound("test", 1.0, {}, (BAD,), "")
    with pytest.raises(ValueError, match="the value is nan but the bound is applicable"):
        Bound("test", math.nan, {}, (GOOD,), "")
    with pytest.raises(ValueError, match="negative"):
        bound(-1.0)
    with pytest.raises(ValueError, match="trivial bound is NaN"):
        bound(1.0, trivial=math.nan)
    with pytest.raises(ValueError, match="roundoff = inf"):
        bound(roundoff=math.inf)
    with pytest.raises(ValueError, match="margin is NaN"):
        Assumption("x", False, math.nan, "")
    with pytest.raises(ValueError, match="negative margin"):
        Assumption("x", True, -1.0, "")
    for lower, upper in ((2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)):
        with pytest.raises(ValueError, match="empty or NaN"):
            verdict(bound(), lower, upper)
    for allowance in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="allowance"):
            verdict(bound(), 0.0, 1.0, allowance=allowance)


def test_bounds_do_not_change():
    b = bound()
    with pytest.raises(FrozenInstanceError):
        b.value = 0.0
    with pytest.raises(TypeError):
        b.terms["part"] = 0.0
    assert replace(b, value=1.0).value == 1.0


def test_the_time_is_a_field_and_the_title_renders_it():
    later = bound(3.0)
    assert later.title == later.name and later.time is None
    later = replace(later, time=64)
    assert later.name == "test" and later.title == "test after 64 updates"
    assert str(later).startswith("test after 64 updates: 3")
