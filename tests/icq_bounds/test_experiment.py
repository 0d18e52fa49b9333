"""The ten-agent experiment in miniature: panels, summary, resumption, and a broken bound that is caught."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bounds.core.bound import Bound
from icq.exact import analyse
from icq_bounds.sweep import cells, engine, store
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.families import DialsFamily, GarnetFamily
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import SGD, Features, Mlp, Table, asymptote
from icq_bounds.workflows.n10 import experiment, panels, summary

pytestmark = pytest.mark.compiles

TINY = experiment.N10Preset(
    "tiny", seeds=4, gaps=(0.0, 1.0), widths=(1, 2), mixings=(0.75, 0.1), network_handoffs=2048,
    residual_handoffs=2048, instances=2, agents=3, width=2,
    reference_iterations=300,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("n10")
    kept = store.Store(folder / "cells")
    return folder, kept, engine.run_all(experiment.all_cells(TINY), kept, engine.processes(1))


def test_records_hold_and_slopes_are_reported(finished):
    folder, _, results = finished
    gaps, local_gap = experiment.local_gap_curves(TINY)
    said = summary.summarise(TINY, results, gaps, local_gap)
    summary.write(said, folder / "summary.json")
    said = json.loads((folder / "summary.json").read_text())
    assert said["violations"] == 0
    assert said["records"] == sum(r["e_residual"].size for r in results.values() if "e_residual" in r) > 0
    assert said["kappa_max"] < 1
    assert all(ratio is None or ratio >= 1 for ratio in said["max_ratio"].values())
    assert set(said["max_ratio"]) == {"interface", "approximation", "residual", "total"}
    for key in ("local_gap_slope", "residual_slope"):
        assert len(said[key]["interval"]) == 2
    assert 0 < said["oracle_value_percent_at_zero_gap"] <= 100 + 1e-9


def test_local_gap_slope_is_one():
    gaps, curves = experiment.local_gap_curves(replace(TINY, gaps=(0.25, 0.5, 1.0)))
    np.testing.assert_allclose(curves / curves[:, -1:], np.broadcast_to(gaps, curves.shape), rtol=1e-9)


def test_every_panel_is_drawn(finished):
    folder, _, results = finished
    files = panels.draw_all(TINY, results, folder)
    assert len(files) == 10 and all(f.stat().st_size > 5000 for f in files)


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
    """Halving a certificate until it lies must be reported as a violation."""
    a = analyse(DialsFamily(agents=3, gap=0.5).workflow())
    cls, q = cells.learn_tables(a, method, 3, (512,), False)
    reference = method.reference(a, cls, cells.seed_keys(range(3)))
    honest = method.certify(a, cls, reference.q[0])

    def shrunk(_q_f):
        def certify(table):
            b = honest(table)
            return Bound(b.name, b.value / 10, b.terms, b.assumptions, b.reference, b.trivial, roundoff=b.roundoff)

        return certify

    assert set(cells.measure(a, q, reference, lambda _: honest)["verdict_residual"].ravel()) == {"holds"}
    assert set(cells.measure(a, q, reference, shrunk)["verdict_residual"].ravel()) == {"violated"}


def test_asymptotes_distinguish_trajectory_from_control():
    """Misspecified features under slow mixing: correlation raises the asymptote; for a table it does not matter."""
    for method, moves in ((Features(2), True), (Table(), False)):
        a = analyse(DialsFamily(gap=0.5, mixing=0.05).workflow())
        population = method.population(a, method.build(a.smdp))
        markov, iid = (float(asymptote(population, method.config(x), x)) for x in (False, True))
        assert (markov > 1.05 * iid) if moves else markov == pytest.approx(iid, rel=1e-6)
    assert np.isnan(asymptote(None, Mlp(2).config(False), False))
