"""No fixed point is solved for twice in one analysis."""

import pytest
from strategies import garnet

from icq.exact import analyse, fixed_point
from icq_bounds.commands.analyse import analysis_report
from icq_bounds.error_theorem import theorem_report

pytestmark = pytest.mark.compiles


@pytest.fixture
def solved(monkeypatch):
    """What was solved for: one entry per fixed point, from the engine that every solve starts with."""
    problems = []

    class Counted(fixed_point._Plain):
        def __init__(self, reward, kernel, available):
            problems.append((reward.tobytes(), kernel.shape, kernel.data.tobytes(), available.tobytes()))
            super().__init__(reward, kernel, available)

    monkeypatch.setattr(fixed_point, "_Plain", Counted)
    return problems


def report(m):
    return theorem_report(m, step=0.02, handoffs=1000, points=2)


# Q* and Qbar; and the value of the greedy policy and the gap value; and the gap value of the sign of the local gap, one
# of the agents, and the certificate of Q_F.
@pytest.mark.parametrize(("work", "needed"), [(analyse, 2), (analysis_report, 4), (report, 7)])
def test_every_fixed_point_is_solved_for_once(solved, work, needed):
    work(garnet(2, states=8, observations=5, options=2, agents=2, gamma=0.6, max_duration=8))
    assert len(solved) == len(set(solved)) == needed
