"""docs/theory.md section 3.2: brackets of the oracle's values."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from bounds.approximation import certificate
from bounds.interface.bracket import bracket_bound_d
from bounds.interface.gap import signed_gap_value
from bounds.ladder import signed_gap_bound_d
from icq.exact import analyse
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import ring


@given(instances(max_duration=(2, 8)), st.integers(0, 2**31))
def test_brackets_hold_the_values_and_only_narrow(m, seed):
    """Backups of both ends, by matrices written out, for Qbar and for any table."""
    a, rng = analyse(m), np.random.default_rng(seed)
    exact, noise = a.norm_d_state(a.gap), 1e-9 * (1 + np.abs(a.q_star).max())
    bounds = [bracket_bound_d(a, n) for n in range(5)]
    values = [b.value for b in bounds]
    assert values[0] == pytest.approx(signed_gap_bound_d(a).value, rel=1e-12)
    assert all(x >= y * (1 - 1e-12) - noise for x, y in pairwise(values)) and values[-1] >= exact - noise
    q = np.where(a.interface.available, rng.normal(size=a.q_bar.shape), 0.0)
    widths = [certificate.certificate_oracle(a, q, n).value for n in (0, 1, 3)]
    assert widths[0] >= widths[1] * (1 - 1e-12) and widths[1] >= widths[2] * (1 - 1e-12)
    assert widths[2] >= a.norm_d_state(a.lift(q) - a.q_star) - noise


def test_a_bracket_with_a_backup_too_many_is_caught():
    """Reporting how far the ends moved in the last backup, and not how far apart they are."""
    a = analyse(dials_instance(Shape(topology=ring(4)), Dials(gap=0.5), seed=0))
    upper, lower, _ = signed_gap_value(a, a.q_bar)
    lifted = a.lift(a.q_bar)
    high, low = (a.oracle.bellman(x) for x in (lifted + upper, lifted - lower))
    wishful = np.maximum(lifted + upper - high, low - lifted + lower)
    assert a.norm_d_state(wishful) < a.norm_d_state(a.gap) <= bracket_bound_d(a, 1).value
    assert bracket_bound_d(a).value < 1.1 * a.norm_d_state(a.gap)
