"""Numbers at a position of the dials are those of the whole workflow there, and a move computes only what it moves."""

from collections import Counter
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bounds import symbolic
from bounds.planner import BitLaw, Costs, PowerLaw, SharpResidual, plan
from bounds.residual.sharp import averaged_limit
from bounds.theorem import Output
from estimators.decomposition import TERMS
from estimators.statistics.estimate import Estimate, missing
from icq.exact import analyse
from icq.reason import Reason
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.measure import measured
from icq_bounds.sweep.methods import LOCAL, Table
from notebooks.explore import curves, terms
from notebooks.explore.terms import Part, Pictures, Terms, beginning, labelled, positions, sliders

pytestmark = pytest.mark.compiles

HERE = DialsFamily(agents=3, graph="pipeline", clusters=2, visible=1, gap=0.7, mixing=0.1, action_gap=0.3)
CLASSES = (3, 0)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def same(found, wanted):
    for name in ("interface", "approximation", "residual"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert one.value == pytest.approx(other.value, rel=1e-8, abs=1e-12)
    # The bound on the residual is that of gap dial 0: not the same number, and valid at every gap.
    assert found.interface.bound == pytest.approx(wanted.interface.bound, rel=1e-8)
    assert found.approximation.bound == pytest.approx(wanted.approximation.bound, rel=1e-8)


def directly(family, features, handoffs):
    """The same numbers from one analysis of the workflow as it is."""
    a = analyse(family.workflow())
    found = terms.learned(a, features)
    return Terms(terms.hidden(a), found.error, found.residual(handoffs))


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", CLASSES)
@pytest.mark.parametrize("change", [{}, {"gap": 0.2, "mixing": 0.4}, {"persistence": 0.6}, {"compensate": 0.0}])
def test_terms_are_those_of_the_workflow_at_this_position(change, features):
    family = replace(HERE, **change)
    same(terms.terms(family, features, 10**5), directly(family, features, 10**5))


def test_where_dials_are_coupled_the_shortcut_is_not_taken():
    sticky = replace(HERE, persistence=0.6)
    shortcut = terms.learned(analyse(replace(sticky, gap=0.0).workflow()), 0)
    assert terms.learned_by(sticky, 0).constant != pytest.approx(shortcut.constant, rel=1e-3)
    assert terms.without_mixing(sticky) == sticky
    assert terms.without_gap(replace(HERE, compensate=0.5)).gap == HERE.gap
    assert terms.without_gap(HERE).gap == 0


@pytest.fixture
def counted(monkeypatch):
    """How often each part is computed from here on."""
    count = Counter()
    for name in ("analyse", "hidden", "learned"):
        whole = getattr(terms, name)

        def counting(*arguments, name=name, whole=whole):
            count[name] += 1
            return whole(*arguments)

        monkeypatch.setattr(terms, name, counting)
    for cache in (terms.analysis, terms._hidden, terms._learned, terms._residual):
        cache.cache_clear()
    terms.terms(HERE, 3, 1000)
    count.clear()
    return count


@pytest.mark.parametrize(
    ("change", "features", "handoffs", "computed"),
    [
        ({}, 3, 1000, {}),
        ({}, 3, 2000, {}),
        ({"gap": 0.1}, 3, 1000, {"analyse": 1, "hidden": 1}),
        ({"mixing": 0.5}, 3, 1000, {"analyse": 1, "learned": 1}),
        ({}, 0, 1000, {"learned": 1}),
        ({"persistence": 0.5}, 3, 1000, {"analyse": 1, "hidden": 1, "learned": 1}),
    ],
)
def test_a_move_computes_only_what_it_moves(counted, change, features, handoffs, computed):
    terms.terms(replace(HERE, **change), features, handoffs)
    assert counted == computed


def test_the_dominant_term_is_the_largest_and_unknown_ones_are_said():
    small, large, unknown = Part(0.1, 0.2), Part(0.5, float("nan")), Part(float("nan"), float("nan"))
    at = Terms(small, large, Part(0.2, 0.4))
    assert at.dominant == "approximation" and at.total.value == pytest.approx(0.8) and np.isnan(at.total.bound)
    assert curves.said(at) == "approximation dominates, 62% of 0.8"
    assert Terms(small, large, unknown).dominant is None
    assert "not known" in curves.said(Terms(small, large, unknown))


@pytest.mark.parametrize("features", CLASSES)
@pytest.mark.parametrize("persistence", [0.0, 0.7])
def test_partial_variance_runs_from_the_control_to_the_trajectory(features, persistence):
    pop = terms.learned_by(replace(HERE, persistence=persistence), features).problem
    found, limit = terms.partial_variance(pop, 12), averaged_limit(pop)
    assert found[0] == pytest.approx(limit.iid) and found[-1] == pytest.approx(limit.value)


def test_partial_variance_adds_the_lags_one_by_one():
    """Brute force: E[u_0'u_j] as a sum over the first handoff, j - 1 steps of the chain, and the last handoff."""
    pop = terms.learned_by(HERE, 3).problem
    k, table = pop.outcomes, pop.psi @ np.linalg.inv(pop.jacobian).T
    u = table[k.pair] * pop.td_error[:, None]
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    step = pop.analysis.transition.toarray()
    states = len(pop.analysis.d)
    mean = np.zeros((states, u.shape[1]))
    np.add.at(mean, k.source, k.weight[:, None] * u)
    first = pop.analysis.d[k.source] * k.weight
    total = [first @ np.einsum("np,pq,nq->n", u, gram, u)]
    for lag in range(1, 9):
        ahead = (np.linalg.matrix_power(step, lag - 1) @ mean)[k.target]
        total.append(total[-1] + 2 * first @ np.einsum("np,pq,nq->n", u, gram, ahead))
    found = terms.partial_variance(pop, 3)
    assert found == pytest.approx([total[n] for n in (0, 1, 2, 4, 8)])


# --- sliders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    """A drawing that notes where it was asked to draw."""
    seen = []

    def draw(x, y="a", ax=None):
        seen.append((x, y))
        ax.plot([0, x], label="line")
        ax.legend()

    draw.seen = seen
    return draw


def test_a_position_is_drawn_once(drawn):
    picture = Pictures(drawn, size=(2.0, 1.5))
    first, again, other = picture(x=1, y="b"), picture(y="b", x=1), picture(x=2, y="b")
    assert first is again and first != other and first.startswith(b"\x89PNG")
    assert drawn.seen == [(1, "b"), (2, "b")]
    assert not plt.get_fignums()


def test_axes_stay_where_the_first_picture_put_them():
    places = []

    def draw(x, ax=None):
        ax.plot([0, x])
        ax.figure.canvas.mpl_connect("draw_event", lambda event: places.append(ax.get_position().bounds))

    picture = Pictures(draw, size=(2.0, 1.5))
    for x in (1, 1000000, 2):
        picture(x=x)
    assert places[1] == pytest.approx(places[0]) and places[2] == pytest.approx(places[0])
    assert places[0] != pytest.approx(
        plt.subplots(figsize=(2.0, 1.5))[1].get_position().bounds
    )  # laid out, not default


def test_a_drawing_that_fails_leaves_no_figure():
    def draw(ax=None):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Pictures(draw)()
    assert not plt.get_fignums()


def test_sliders_show_where_they_stand(drawn):
    pytest.importorskip("ipywidgets")
    box = sliders(drawn, start={"x": 3}, x=[1, 2, 3], y={"first": "a", "second": "b"})
    *controls, image = box.children
    assert [c.value for c in controls] == [3, "b"] and drawn.seen == [(3, "b")]
    before = image.value
    controls[0].value = 1
    assert drawn.seen == [(3, "b"), (1, "b")] and image.value != before
    controls[0].value = 3
    assert image.value == before and len(drawn.seen) == 2
    assert [label for label, _ in controls[1].options] == ["first", "second"]


@pytest.mark.parametrize(
    ("controls", "start", "said"),
    [
        ({"x": [1]}, {"z": 1}, "'z' is no control; they are x"),
        ({"x": []}, {}, "x: a slider needs at least one position"),
        ({"x": [1, 2]}, {"x": 3}, r"x = 3 is none of its positions \[1, 2\]"),
    ],
)
def test_sliders_refuse_what_they_cannot_show(controls, start, said):
    with pytest.raises(ValueError, match=said):
        beginning({name: labelled(steps) for name, steps in controls.items()}, start)


def test_labels_of_positions():
    assert labelled([1000, 0.5]) == {"1,000": 1000, "0.5": 0.5}
    assert beginning({"x": labelled([1, 2, 3])}, {}) == {"x": 2}


def test_positions_side_by_side_say_their_legend_once(drawn):
    axes = positions(drawn, {"x": 1}, {"x": 2}, {"x": 3})
    assert len(axes) == len(axes[0].figure.axes) == 3
    assert [ax.get_legend() is not None for ax in axes] == [True, False, False]
    assert axes[0].get_ylim() == axes[2].get_ylim()

    def differs(x, ax=None):
        ax.plot([0, x], label=f"line {x}")
        ax.legend()

    assert all(ax.get_legend() is not None for ax in positions(differs, {"x": 1}, {"x": 2}))


# --- figures --------------------------------------------------------------------------------------------------------


def test_every_figure_draws_on_the_axes_it_is_given():
    width, bits, residual, costs = PowerLaw(1.0, 1.0), BitLaw(0.5), SharpResidual(20.0), Costs(1.0, 4.0, 1e-3)
    found = {"interface": Estimate(0.3, 0.1, (0.2, 0.4), 100.0), "approximation": missing(Reason.FEW_RUNS),
             "residual": Estimate(0.1, 0.1, (0.0, 0.2), 100.0)}  # fmt: skip
    drawings = [
        lambda ax: curves.correlation(HERE, 3, ax=ax),
        lambda ax: curves.persistence(HERE, [0.0, 1.0], [0.0, 0.5], ax=ax),
        lambda ax: curves.bounded(HERE, 0.003, handoffs=1000, ax=ax),
        lambda ax: curves.dials_budget(HERE, 3, 10**4, ax=ax),
        lambda ax: curves.dominance(HERE, 3, [0.0, 0.5, 1.0], ax=ax),
        lambda ax: curves.shopping(0.3, [0.1, 0.3], width, bits, residual, costs, ax=ax),
        lambda ax: curves.diagnosed(found, {"residual": 0.15}, ax=ax),
        lambda ax: curves.diagnosed(found, {}, ax=ax),
    ]
    for draw in drawings:
        ax = plt.subplots()[1]
        assert draw(ax) is ax and (ax.lines or ax.collections or ax.patches)


def test_more_of_the_gap_is_hidden_the_longer_it_stays():
    ax = curves.persistence(HERE, [0.0, 1.0], [0.0, 0.5, 0.9])
    without, full = (line.get_ydata() for line in ax.lines[:2])
    assert without == pytest.approx(1.0) and full[0] == pytest.approx(1.0)
    assert 1 < full[1] < full[2]


def test_the_map_of_dominance_shows_the_largest_term():
    gaps = [0.0, 0.5, 1.0]
    ax = curves.dominance(HERE, 3, gaps)
    shown = np.asarray(ax.collections[0].get_array()).reshape(241, -1)
    found = terms.learned_by(HERE, 3)
    for row, gap in ((0, 0.0), (120, 0.5), (240, 1.0)):
        hidden = terms.interface_of(replace(HERE, gap=gap))
        for column in (0, 120, 240):
            residual = Part(float(np.sqrt(found.constant / curves.HANDOFFS[column])), 0.0)
            assert curves.TERMS[int(shown[row, column])] == Terms(hidden, found.error, residual).dominant


def test_the_design_in_words_is_the_plan_and_a_floor_is_named():
    width, bits, residual, costs = PowerLaw(1.0, 1.0), BitLaw(0.5), SharpResidual(20.0), Costs(1.0, 4.0, 1e-3)
    p = plan(0.3, width, bits, residual, costs)
    said = curves.bought(0.3, width, bits, residual, costs)
    assert said == f"0.3: width {p.width}, {p.bits} bits, {p.handoffs:,} handoffs for {p.cost:.3g}"
    assert "0.4" in curves.bought(0.3, width, BitLaw(0.5, floor=0.4), residual, costs)
    ax = curves.shopping(0.3, [0.2, 0.3, 0.6], width, BitLaw(0.5, floor=0.4), residual, costs)
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [True, True, False]


def test_formulas_stand_beside_their_numbers():
    values = {symbolic.B_D: 0.2, symbolic.KAPPA_S: 0.5, symbolic.ALPHA: 1.0}
    text = curves.evaluated({"gap": symbolic.INTERFACE_D}, values)
    assert "| gap |" in text and "| 0.4 |" in text and r"\kappa_{S}" in text and "step size" not in text
    with pytest.raises(ValueError, match="no value for b_sup"):
        curves.evaluated({"gap": symbolic.INTERFACE}, values)


def test_measured_errors_stand_beside_their_bounds():
    found = measured(analyse(HERE.workflow()), Table(LOCAL, "local", "double"), 3, (1000, 30_000), False)
    row = curves.errors_and_bounds({"tables": found}).splitlines()[2]
    shown = [f"{np.sqrt((found.observed[t][1, :, -1] ** 2).mean()):.3f}" for t in TERMS]
    stated = [f"{found.before.bounds[t][Output.AVERAGE][-1].value:.3f}" for t in TERMS]
    cells = [f"{e} (at most {b})" for e, b in zip(shown, stated, strict=True)]
    cells[1] = "0.000"  # of a table, whose bound is 0
    assert row == f"| tables | {' | '.join(cells)} |" and "nan" not in row


def test_a_bound_is_dashed_and_what_was_observed_is_solid():
    ax = curves.bounded(HERE, 0.01, seeds=2, handoffs=1000)
    found = {line.get_label(): line for line in ax.lines}
    dashes = {name: found[name].get_linestyle() for name in found}
    assert dashes["observed"] == "-"
    assert {name for name, style in dashes.items() if style == "--"} == {name for name in found if "bound" in name}
    errors = curves.table_errors(HERE, 0.01, 2, tuple(curves.bounds(HERE, 0.01, 1000)[1].times.tolist()))
    assert np.allclose(found["observed"].get_ydata(), np.sqrt((errors**2).mean(axis=0)))
