"""The ten-agent experiment in miniature: panels, summary, and planted errors that make it fail."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bounds.interface.bracket import bracket_bound_d
from bounds.path import moving
from bounds.path.population_path import Path as MeanPath
from estimators.decomposition import TERMS
from estimators.statistics.estimate import root_mean_square
from icq.exact import analyse
from icq_bounds.commands import reproduce
from icq_bounds.console import Lines
from icq_bounds.errors import Violated
from icq_bounds.sweep import beforehand as known
from icq_bounds.sweep import engine, measure, store
from icq_bounds.sweep.beforehand import beforehand, problem
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.families import DialsFamily, GarnetFamily
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import SGD, Features, Mlp, Table, asymptote
from icq_bounds.sweep.results import statements
from icq_bounds.workflows.n10 import experiment, panels, summary

pytestmark = pytest.mark.compiles

TINY = experiment.N10Preset(
    "tiny", seeds=12, gaps=(0.0, 0.5, 1.0), value_gaps=(0.0,), ranks=(2,), widths=(2,), mixings=(0.75,),
    mixing_times=(0.1,), gap_handoffs=30_000, table_handoffs=30_000, feature_handoffs=30_000, network_handoffs=2048,
    instances=2, agents=2, width=2, reference_iterations=300, plain=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("n10")
    kept = store.Store(folder / "cells")
    return folder, kept, engine.run_all(experiment.all_cells(TINY), kept, engine.processes(1))


def test_statements_hold_and_are_counted_once(finished):
    folder, _, results = finished
    gaps, local_gap = experiment.local_gap_curves(TINY)
    said = summary.summarise(TINY, results, gaps, local_gap)
    summary.write(said, folder / "summary.json")
    said = json.loads((folder / "summary.json").read_text())
    for kind in ("bound", "certificate"):
        found = said[kind]
        assert found["violations"] == 0 and 0 < found["distinct"] < found["records"]
        assert set(found["max_ratio"]) == set(found["median_ratio"]) == set(TERMS)
    assert all(r is None or r >= 1 for r in said["certificate"]["max_ratio"].values())
    assert said["violated"] == [] and said["kappa_max"] < 1
    learned = experiment.learned(results).values()
    assert statements(learned, "bound", "interface").distinct == 3, "one a gap: 0, 0.5 and 1, however many records"
    assert statements(learned, "certificate", "interface").distinct == 0, "no learned table tells what is hidden"
    for key in ("local_gap_slope", "residual_slope"):
        assert len(said[key]["interval"]) == 2
    assert said["value_lost_at_zero_gap"]["value"] >= 0 and said["value_gained_percent_at_zero_gap"]["value"] <= 100


def test_predictions_are_met(finished):
    """Observed over predicted residual of tables and features, at every checkpoint: leading order, so
    2 per cent beside its 99.9 % interval, which is narrow enough to tell.
    """  # fmt: skip
    _, _, results = finished
    for cell in [*experiment.gap_cells(TINY), *experiment.mixing_cells(TINY), *experiment.mixing_cells(TINY, True)]:
        r = results[cell]
        for column, predicted in zip(r["observed_residual"][0].T, r["predicted"], strict=True):
            low, high = root_mean_square(column / predicted, 0.999).interval
            assert low <= 1.02 and high >= 0.98 and high / low < 1.25


def test_local_gap_slope_is_one():
    gaps, curves = experiment.local_gap_curves(replace(TINY, gaps=(0.25, 0.5, 1.0)))
    np.testing.assert_allclose(curves / curves[:, -1:], np.broadcast_to(gaps, curves.shape), rtol=1e-9)


def test_every_panel_is_drawn(finished):
    folder, _, results = finished
    files = panels.draw_all(TINY, results, folder)
    assert len(files) == 14 and all(f.stat().st_size > 5000 for f in files)


def test_cells_differ_in_key_for_every_field():
    family = DialsFamily()
    base = Cell(Table(), 4, (10,), family)
    others = [
        replace(base, seeds=5), replace(base, checkpoints=(11,)), replace(base, family=replace(family, gap=0.1)),
        replace(base, iid=True), replace(base, who=Who.INDEPENDENT), replace(base, family=replace(family, agents=4)),
        replace(base, family=replace(family, seed=1)), replace(base, family=GarnetFamily()),
        replace(base, method=Features(2)), replace(base, method=Mlp(2)), replace(base, method=Mlp(2, depth=2)),
        replace(base, method=Table(replace(SGD, step=0.5))),
    ]  # fmt: skip
    assert len({store.key(c) for c in [base, *others]}) == len(others) + 1


@pytest.mark.parametrize("method", [Table(), Features(2), Mlp(2, iterations=300)])
def test_a_broken_certificate_is_caught(method):
    """Shrinking a certificate until it lies must be reported as a violation."""
    a = analyse(DialsFamily(agents=3, gap=0.5).workflow())
    found = measure.measured(a, method, 3, (512,), False)
    cls = method.build(a)
    honest = method.certify(a, cls, found.reference.q[0])

    def shrunk(table):
        b = honest(table)
        return replace(b, value=b.value / 10)

    for certify, verdict in ((honest, "holds"), (shrunk, "violated")):
        held = measure.hold(a, found.q, found.times, found.reference, found.before, [certify])
        assert set(held.arrays()["certificate_verdict_residual"].ravel()) == {verdict}


@pytest.fixture(scope="module")
def long_runs():
    """A table over a million handoffs: the tables learned, and all that a bound is made of."""
    method, times = experiment.TABLE, (10_000, 1_000_000)
    a = analyse(DialsFamily(agents=2, clusters=2, gap=0.5, mixing=0.75).workflow())
    found = measure.measured(a, method, 12, times, False)
    return a, method, found


def said_again(long_runs):
    """The verdicts with bounds computed afresh."""
    a, method, found = long_runs
    before = beforehand(a, method.build(a), method.config(a, False), found.times)
    certify = [method.certify(a, method.build(a), found.reference.q[0])]
    held = measure.hold(a, found.q, found.times, found.reference, before, certify)
    return {term: held.arrays()[f"bound_verdict_{term}"] for term in TERMS}


def test_honest_bounds_hold(long_runs):
    said = long_runs[2].arrays()
    assert {v for term in TERMS for v in said[f"bound_verdict_{term}"].ravel()} == {"holds"}


def test_a_tenth_of_the_path_is_missed(long_runs, monkeypatch):
    a, method, _ = long_runs
    pop, _ = problem(a, method.build(a), method.config(a, False))
    at, mean = MeanPath.at, moving.mean_path
    monkeypatch.setattr(MeanPath, "at", lambda self, t: pop.theta_star + 0.9 * (at(self, t) - pop.theta_star))
    monkeypatch.setattr(moving, "mean_path", lambda *given: 0.9 * mean(*given))
    said = said_again(long_runs)["residual"]
    assert said[:, 0].tolist() == ["violated", "violated"]


def test_a_third_of_the_fluctuation_is_not_enough(long_runs, monkeypatch):
    whole = moving.Moving.fluctuation

    def third(self, average=None):
        found = whole(self, average)
        return found._replace(last=found.last / 3, mean=found.mean / 3)

    monkeypatch.setattr(moving.Moving, "fluctuation", third)
    assert said_again(long_runs)["residual"][0, 1] == "violated"


def test_an_interface_rung_below_the_gap_is_caught(long_runs, monkeypatch):
    a, rung, before = long_runs[0], bracket_bound_d, long_runs[2].before
    share = (1 - 1e-6) * a.norm_d_state(a.gap) / rung(a).value
    monkeypatch.setattr(known, "bracket_bound_d", lambda a: replace(rung(a), value=share * rung(a).value))
    monkeypatch.setattr(known, "_residual", lambda *given: (before.bounds["residual"], before.predicted))
    assert set(said_again(long_runs)["interface"].ravel()) == {"violated"}


def test_a_violation_fails_the_command(finished, monkeypatch, tmp_path):
    """Figures and summary are written first; the error names the cell."""
    _, _, results = finished
    cell = experiment.gap_cells(TINY)[0]
    said = results[cell]["bound_verdict_residual"].astype("<U12")
    said[0, 0] = "violated"
    broken = results | {cell: results[cell] | {"bound_verdict_residual": said}}
    monkeypatch.setitem(reproduce.EXPERIMENTS["n10"], "smoke", partial(reproduce._n10, TINY))
    monkeypatch.setattr(engine, "run_all", lambda *_: broken)
    options = reproduce.ReproduceOptions("n10", preset="smoke", out=tmp_path, jobs=1)
    with pytest.raises(Violated, match=r"violated in 1 cells: IC-Q, Table, gap 0, mixing 0\.75"):
        reproduce.run(options, Lines())
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["bound"]["violations"] == 1 and (tmp_path / "d_bounds.png").exists()


def test_asymptotes_distinguish_trajectory_from_control():
    """Misspecified features under slow mixing: correlation raises the asymptote; for a table it does not matter."""
    for method, moves in ((Features(2), True), (Table(), False)):
        a = analyse(DialsFamily(gap=0.5, mixing=0.05).workflow())
        population = method.population(a, method.build(a))
        markov, iid = (float(asymptote(population, method.config(a, x), x)) for x in (False, True))
        assert (markov > 1.05 * iid) if moves else markov == pytest.approx(iid, rel=1e-6)
    assert np.isnan(asymptote(None, Mlp(2).config(a, False), False))
