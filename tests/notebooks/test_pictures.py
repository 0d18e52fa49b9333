"""The figures of the notebooks draw the numbers that they are given, on the axes that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from bounds.core.bound import Bound, below, conditional
from bounds.core.term import Rung
from bounds.interface import information
from bounds.interface.agents import agent_gap_value
from bounds.ladder import interface_rungs
from estimators.decomposition import Decomposition
from estimators.statistics.estimate import root_mean_square
from icq.exact import analyse
from icq.smdp import index
from icq_bounds.figures.style import COLOUR
from notebooks.explore import pictures
from synthetic.dials import Dials, Shape, make_many
from synthetic.topology import ring

pytestmark = pytest.mark.compiles

DIAL = [0.0, 0.5, 1.0]


@pytest.fixture(scope="module")
def analyses():
    batch = make_many(Shape(ring(3), clusters=2), Dials(gap=np.array(DIAL)), 0)
    return [analyse(index(batch, k)) for k in range(len(DIAL))]


@pytest.fixture
def ax():
    with plt.rc_context({"backend": "agg"}):
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


def lines(ax, colour=None):
    return [line for line in ax.get_lines() if colour is None or to_hex(line.get_color()) == to_hex(colour)]


def words(ax):
    return [text.get_text() for text in ax.texts]


HANDOFFS = [10, 100, 1000]
ERRORS = Decomposition(
    "d", 0.2, np.full((4, 3), 0.1),
    np.array([[1.0, 0.3, 0.01], [1.2, 0.31, 0.011], [0.9, 0.32, 0.012], [1.0, 0.3, 0.01]]), np.full((4, 3), 0.25),
)  # fmt: skip


BOUNDS = {"interface": [0.3] * 3, "approximation": [0.2] * 3, "residual": [5.0, 4.0, 3.0], "total": [5.5, 4.5, 3.5]}


def test_terms_are_root_mean_squares_beside_their_bounds_and_certificates(ax):
    bounds = {"interface": BOUNDS["interface"], "residual": BOUNDS["residual"]}
    assert pictures.terms_over_time(HANDOFFS, ERRORS, bounds, {"residual": 2 * ERRORS.residual}, ax) is ax
    seen, bound, certificate = lines(ax, COLOUR["residual"])
    assert np.allclose(seen.get_ydata(), np.sqrt((ERRORS.residual**2).mean(axis=0)))
    assert np.allclose(bound.get_ydata(), BOUNDS["residual"])
    assert np.allclose(certificate.get_ydata(), 2 * seen.get_ydata())
    assert [line.get_linestyle() for line in (seen, bound, certificate)] == ["-", "--", ":"]
    assert np.allclose(lines(ax, COLOUR["interface"])[1].get_ydata(), 0.3)
    assert len(lines(ax, COLOUR["approximation"])) == 1  # nothing is stated about it
    assert sorted(words(ax)) == ["approximation", "interface gap", "residual", "total"]


def test_the_table_says_which_term_is_largest_and_when():
    certificates = {"residual": 2 * ERRORS.residual}
    *_, residual, total, _, said = pictures.terms_table(HANDOFFS, ERRORS, BOUNDS, certificates).splitlines()
    assert said.endswith("the **residual** from 10 handoffs on, the **interface gap** from 1,000 handoffs on.")
    seen = root_mean_square(ERRORS.residual[:, -1])
    assert f"| {seen} | 3 | {3 / seen.value:.2f} | {2 * seen.value:.4g} |" in residual
    assert total.endswith("| 0.25, exact | 3.5 | 14.00 |  |")


def test_the_gap_and_its_bounds_against_the_dial(analyses, ax):
    pictures.gap_against_dial(DIAL, analyses, ax)
    found = {line.get_label(): np.asarray(line.get_ydata()) for line in lines(ax)}
    assert np.allclose(found["interface gap"], [a.norm_d_state(a.gap) for a in analyses])
    assert (found["interface gap"] <= found["signed gap value"] + 1e-12).all()
    assert (found["signed gap value"] <= found["gap value"] + 1e-12).all()


def test_a_ladder_shows_every_rung_or_what_it_lacks(analyses, ax):
    rungs = interface_rungs(analyses[-1])
    missing = conditional("needs more", [below("kappa < 1", 1.2, 1.0, "kappa = 1.2")], lambda: (1.0, {}), "here")
    useless = Bound("range of rewards", 9.0, {}, (), "here", 4.0)
    pictures.ladder([*rungs, Rung(missing), Rung(useless)], ax)
    dots = {float(line.get_ydata()[0]): line for line in lines(ax) if line.get_marker() == "o"}
    assert {i: line.get_xdata()[0] for i, line in dots.items()} == {
        i: rung.bound.value for i, rung in enumerate([*rungs, Rung(missing), Rung(useless)]) if rung.bound.applicable
    }
    assert words(ax)[len(rungs)] == "needs kappa < 1"
    assert to_hex(dots[len(rungs) + 1].get_color()) != to_hex(COLOUR["interface"])
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "range of rewards"


def test_a_ladder_without_a_gap_has_no_ratios(analyses, ax):
    rungs = [Rung(Bound("exact", 0.0, {}, (), "here"), exact=True), Rung(Bound("bound", 0.1, {}, (), "here"))]
    pictures.ladder(rungs, ax)
    assert words(ax) == ["0", "0.1"]


def test_attribution_is_drawn_entry_by_entry(analyses, ax):
    found = agent_gap_value(analyses[-1], analyses[-1].local_gap)
    pictures.attribution_map(found.attribution, ax)
    assert np.array_equal(ax.images[0].get_array(), found.attribution)
    assert words(ax) == [f"{e:.2f}" for e in found.value]


def test_bars_of_a_split_add_up_to_its_worst_pair(analyses, ax):
    a = analyses[-1]
    splits = [information.total_variation(a), information.wasserstein(a, np.zeros((len(a.v_bar), 1)))]
    pictures.mismatch_bars(splits, a.norm_sup_state(a.local_gap), ax)
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(splits[0].total.max())
    assert any("features separate fails" in said for said in words(ax))


def test_only_visited_values_are_compared(ax):
    truth, mass = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, 0.25], [0.25, 0.0]])
    pictures.against_truth(truth + 0.5, truth, mass, ax)
    small, large = lines(ax, COLOUR["approximation"])
    assert np.allclose(np.column_stack(small.get_data()), [[2.0, 2.5], [3.0, 3.5]])
    assert np.allclose(np.column_stack(large.get_data()), [[1.0, 1.5]])
    assert (large.get_markersize() / small.get_markersize()) ** 2 == pytest.approx(2.0)


@pytest.mark.parametrize("draw", [pictures.against_width, pictures.certificates])
def test_named_series_have_their_intervals(draw, ax):
    found = [root_mean_square(np.array([1.0, 1.1, 0.9]) / k) for k in (1, 2, 3)]
    draw([1, 2, 3], {"error": (found, "-"), "bound": ([root_mean_square(np.full(3, 2.0))] * 3, "--")}, ax)
    assert np.allclose(lines(ax)[0].get_ydata(), [e.value for e in found])
    low, high = found[1].interval
    assert {low, high} <= set(ax.collections[0].get_paths()[0].vertices[:, 1])


def test_promised_and_found_stand_side_by_side(ax):
    pictures.promised_and_found(np.array([0.3, 0.1]), [0.2, -0.1], 1, ax)
    assert [bar.get_height() for bar in ax.patches] == [0.3, 0.1, 0.2, -0.1]
    assert "agent 1" in ax.get_ylabel()


def test_the_style_is_the_projects():
    with plt.rc_context():
        plt.rcParams["axes.spines.top"] = True
        pictures.use_style()
        assert plt.rcParams["axes.spines.top"] is False
