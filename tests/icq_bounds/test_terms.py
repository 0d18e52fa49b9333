"""The three terms of the workflows: exact splits of linear agents, and logs that a diagnosis reads back."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from estimators.fixed import span
from estimators.logs.reader import read
from icq_bounds.diagnosis.diagnosis import diagnose
from icq_bounds.workflows.common import terms
from icq_bounds.workflows.common.recorded import RecordedTable
from icq_bounds.workflows.common.term_cells import (
    CpuGame,
    Game,
    LogCell,
    MathGame,
    RoutingGame,
    Size,
    cells_of,
    linear_in_views,
    said,
    solved,
)
from synthetic.cpu_finite import SMALL
from synthetic.math_features import BITS

pytestmark = pytest.mark.compiles

TINY = replace(SMALL, limit=3, length=1)
CPU = (CpuGame(0, TINY), CpuGame(2, TINY))
ROUTING = RoutingGame(0, 2, 1)
SIZE = Size(seeds=2, handoffs=20_000, logged=30_000, width=4)


@pytest.fixture(scope="module")
def results():
    return {cell: cell.run() for cell in cells_of([ROUTING], SIZE)}


@pytest.mark.parametrize("game", [*CPU, ROUTING, MathGame(RecordedTable.of(None, 30), 2)])
def test_views_tell_observations_of_an_agent_apart(game):
    assert isinstance(game, Game)
    a, views = solved(game)
    agent = np.asarray(a.smdp.agent)
    rows = np.column_stack([agent, views])
    assert len(np.unique(rows, axis=0)) == len(rows) == a.smdp.num_observations
    assert np.abs(views).max() <= 1


def test_a_math_view_shows_its_bits():
    source = RecordedTable.of(None, 30)
    a, views = solved(MathGame(source, 2))
    shown = views[:, : 2 * BITS]
    assert not shown[:, 4:].any() and set(np.unique(shown[:, :4])) == {-1.0, 0.0, 1.0}
    assert len(views) == a.smdp.num_observations


def test_terms_add_up_and_the_gap_is_the_exact_one(results):
    for c, r in terms.learned(results):
        a, _ = solved(c.game)
        assert (r["e_interface"] + r["e_approximation"] + r["e_residual"] >= r["e_total"] - 1e-9).all()
        assert r["e_interface"] == pytest.approx(a.norm_d_state(a.gap))
        assert r["e_approximation"] > 0 and (r["e_residual"] > 0).all() and str(r["reference"]) == "ok"
        assert str(r["bound_verdict_interface"]) == "holds"


def test_what_the_log_cell_says_is_what_a_diagnosis_of_its_file_says(results, tmp_path):
    path = tmp_path / "handoffs.parquet"
    about = terms.write_log(results, path)
    assert about["log_of"] == ROUTING.label()
    log, report = read(path)
    assert report.faultless and len(log) == SIZE.logged
    cell, kept = terms.logged(results)[ROUTING]
    again = said(diagnose(log, width=cell.width, seed=cell.seed))
    for name, value in again.items():
        if value.dtype.kind == "f":
            assert value == pytest.approx(kept[name], nan_ok=True)
    e = terms.estimated(kept, "interface")
    assert e.known and e.interval[0] <= float(kept["interface_exact"]) <= e.interval[1]


def test_other_logs_are_other_logs():
    first, second = (LogCell(ROUTING, 2000, 4, seed).log() for seed in (0, 1))
    assert (first.option != second.option).any()


def test_summary_and_panel(results):
    out = terms.summarise(results)
    json.dumps(out, allow_nan=False)
    assert list(out["terms_of_linear_agents"]) == [ROUTING.label()] == list(out["terms_from_logs"])
    assert out["terms_from_logs"][ROUTING.label()]["interface exact"] > 0.1
    ax = terms.panel(results, [0], "bits", "title")
    names = ax.get_legend_handles_labels()[1]
    assert names[:4] == ["interface gap", "approximation", "residual", "total"]
    assert names[4:] == ["interface gap, from a log"]
    plt.close(ax.figure)


def test_a_basis_found_block_by_block_spans_the_features():
    a, views = solved(RoutingGame(1, 2, 2))
    available = a.interface.available
    members = span(linear_in_views(a.smdp, views), available)
    psi, basis = members.psi, members.basis
    assert basis.shape[1] == np.linalg.matrix_rank(psi) < psi.shape[1]
    assert basis.T @ basis == pytest.approx(np.eye(basis.shape[1]), abs=1e-10)
    assert basis @ (basis.T @ psi) == pytest.approx(psi, abs=1e-10)
