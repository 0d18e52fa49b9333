"""Values of any sign are compared by what is lost; a share is one of a way that is more than rounding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icq.reason import Reason
from icq_bounds.sweep.results import gained, lost


def result(value, random, oracle, slack=1e-12):
    said = {"value": value, "value_random": random, "value_oracle": oracle, "value_slack": slack}
    return {name: np.array(x, float) for name, x in said.items()}


@pytest.mark.parametrize("shift", [0.0, -1.0, -1000.0, 7.0])
def test_shares_do_not_depend_on_the_zero_of_rewards(shift):
    """Oracle -1, learned -10, was 1000 % of the oracle."""
    r = result(np.array([-10.0, -8.0]) + shift, -21.0 + shift, -1.0 + shift)
    assert lost(r["value"], float(r["value_oracle"])).value == pytest.approx(8.0)
    assert gained(r).value == pytest.approx(60.0)


@given(st.lists(st.floats(-1e3, 1), min_size=2, max_size=5), st.floats(-1e3, 1))
def test_estimates_lie_in_their_intervals_and_losses_are_not_negative(value, random):
    r = result(value, random, 1.0)
    e = lost(r["value"], 1.0)
    assert 0 <= e.interval[0] <= e.value <= e.interval[1]
    share = gained(r)
    assert not share.known or (share.interval[0] <= share.value <= min(share.interval[1], 100 + 1e-9))


@pytest.mark.parametrize("way", [0.0, 1e-13, -1e-13])
def test_a_way_of_rounding_has_no_share(way):
    """Zero rewards were nan %."""
    share = gained(result([0.0, 0.0], 0.0, way))
    assert share.why is not None and share.why.reason is Reason.NOTHING_TO_GAIN and "nan" not in str(share)


def test_runs_that_diverged_have_no_value():
    for e in (gained(result([np.nan, 1.0], 0.0, 2.0)), lost(np.array([np.nan, 1.0]), 2.0)):
        assert e.why is not None and e.why.reason is Reason.NOT_FINITE


def test_worse_than_random_is_negative():
    assert gained(result([-3.0, -3.0], 0.0, 2.0)).value == pytest.approx(-150.0)
