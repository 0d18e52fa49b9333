"""The harness that judges intervals: honest ones pass, broken ones are caught, finished work is kept."""

from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audits.calibration import blocks, logs, report
from audits.calibration.__main__ import CalibrationOptions, chosen, main
from audits.calibration.blocks import calibrate as run
from audits.calibration.rows import Calibration, DataSource, Quantity, estimates, model, row, rows
from audits.calibration.suite import Study
from estimators import approximation, distances, interface, mixing, td_noise, values
from estimators.statistics import estimate
from estimators.statistics.estimate import missing
from icq.reason import Reason
from icq_bounds.errors import Interrupted, WorkError
from icq_bounds.sweep import engine
from icq_bounds.sweep.store import Store, code_version

pytestmark = pytest.mark.compiles

SIZES = (12, 48)
REPLICATES = 250


def draw(model, seeds, size):
    for seed in seeds:
        yield np.random.default_rng(seed).normal(model, 1.0, size)


NORMAL = DataSource("normal", lambda: 2.0, draw, lambda data, n: data[:n], SIZES, "samples")


def scaled(factor):
    def wrong(data):
        found = estimate.mean(data)
        half = factor * (found.interval[1] - found.value)
        return replace(found, interval=(found.value - half, found.value + half))

    return wrong


def shifted(data):
    found = estimate.mean(data)
    shift = 1.5 * found.stderr
    return replace(found, value=found.value + shift, interval=tuple(end + shift for end in found.interval))


def judge(estimator, **more):
    quantity = Quantity("mean", estimator, lambda truth: truth, **more)
    return rows(NORMAL, [quantity], SIZES, estimates(NORMAL, [quantity], SIZES, range(REPLICATES)))


def test_an_honest_interval_is_calibrated():
    for found in judge(estimate.mean):
        assert found.verdict in (Calibration.CALIBRATED, Calibration.UNDECIDED)
        low, high = found.coverage_interval
        assert low < 0.95 < high and found.numbers == found.replicates == REPLICATES
        assert abs(found.bias) < 4 * found.bias_stderr
        assert found.spread == pytest.approx(1 / np.sqrt(found.size), rel=0.2)
        assert found.rmse == pytest.approx(found.spread, rel=0.05)


def test_broken_intervals_are_caught():
    for broken in (scaled(0.5), shifted):
        assert [r.verdict for r in judge(broken)] == [Calibration.UNDERCOVERS] * 2
    assert [r.verdict for r in judge(scaled(3.0))] == [Calibration.OVERCOVERS] * 2
    assert all(r.bias > 4 * r.bias_stderr for r in judge(shifted))


def test_a_guarantee_excuses_covering_too_much_but_not_too_little():
    assert [r.verdict for r in judge(scaled(3.0), guaranteed=True)] == [Calibration.CONSERVATIVE] * 2
    assert [r.verdict for r in judge(scaled(0.5), guaranteed=True)] == [Calibration.UNDERCOVERS] * 2


def test_only_given_numbers_are_judged():
    def cautious(data):
        return estimate.mean(data) if len(data) >= 20 else missing(Reason.FEW_RUNS, n_eff=float(len(data)))

    short, enough = judge(cautious)
    assert short.verdict is Calibration.TOO_SHORT and short.numbers == 0 and np.isnan(short.coverage)
    assert enough.verdict is not Calibration.TOO_SHORT and enough.numbers == REPLICATES


def test_a_number_that_is_none_counts_as_a_miss():
    nan = float("nan")
    lies = judge(lambda data: replace(estimate.mean(data), value=nan, interval=(nan, nan)))
    assert [r.coverage for r in lies] == [0.0, 0.0] and lies[0].verdict is Calibration.UNDERCOVERS


def test_coverage_close_to_the_band_is_undecided_until_there_is_more():
    quantity = Quantity("q", estimate.mean, lambda truth: truth)

    def with_hits(share, count):
        hit = np.arange(count) < round(share * count)
        ends = np.where(hit, 1.0, 3.0)
        found = np.stack([np.ones(count), ends, ends - 1.5, ends + 1.5, np.ones(count), np.ones(count)], axis=1)
        return row(quantity, NORMAL, 12, 2.0 if share == 1 else 1.0, found)

    assert with_hits(0.91, 200).verdict is Calibration.UNDECIDED
    assert with_hits(0.91, 5000).verdict is Calibration.UNDERCOVERS
    assert with_hits(0.95, 200).verdict is Calibration.CALIBRATED


def test_quantities_without_a_truth_have_no_rows():
    nothing = Quantity("undefined", estimate.mean, lambda truth: float("inf"))
    assert rows(NORMAL, [nothing], SIZES, estimates(NORMAL, [nothing], SIZES, range(3))) == []


def test_finished_blocks_survive_and_are_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 10)
    calls = []

    def counted(data):
        calls.append(len(data))
        if len(calls) == 50:
            raise KeyboardInterrupt
        return estimate.mean(data)

    study = Study(NORMAL, (Quantity("mean", counted, lambda truth: truth),))
    store = Store(tmp_path, "code")
    with pytest.raises(Interrupted, match="2 of 3 blocks are finished and kept"):
        run([study], 30, store, 1)
    again = run([study], 30, store, 1)  # blocks 0 and 1 were finished, of 20 estimates each
    assert len(calls) == 50 + 20
    assert [r.replicates for r in again] == [30, 30]
    whole = judge_first(30)
    assert [(r.hits, r.bias) for r in again] == [(r.hits, r.bias) for r in whole]


def test_a_dead_worker_costs_its_blocks_only(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 10)
    pools = []

    def pool(lives):
        def execute(cells):
            pools.append(lives)
            for k, cell in enumerate(cells):
                if k == lives:
                    raise BrokenProcessPool("a worker died")
                yield engine.attempt(cell, code_version())

        return execute

    def dying(*each):
        lives = iter(each)
        monkeypatch.setattr(engine, "processes", lambda jobs: lambda cells: pool(next(lives))(cells))

    dying(1, 2)
    study = Study(NORMAL, (Quantity("mean", estimate.mean, lambda truth: truth),))
    with pytest.warns(UserWarning, match="2 cells go to new ones"):
        found = run([study], 30, Store(tmp_path, "code"), 2)
    assert pools == [1, 2] and [(r.hits, r.bias) for r in found] == [(r.hits, r.bias) for r in judge_first(30)]
    dying(0)
    with pytest.raises(WorkError, match="workers die"):
        run([study], 30, Store(tmp_path / "other", "code"), 2)


def judge_first(count):
    quantity = Quantity("mean", estimate.mean, lambda truth: truth)
    return rows(NORMAL, [quantity], SIZES, estimates(NORMAL, [quantity], SIZES, range(count)))


def test_the_page_says_what_was_found(tmp_path):
    found = judge(estimate.mean) + [replace(r, quantity="half") for r in judge(scaled(0.5))]
    report.write(found, tmp_path, "the command", REPLICATES)
    text = (tmp_path / "calibration.md").read_text()
    assert "the command" in text and "undercovers" in text and "## half" in text
    assert text.count("| normal |") == 4
    assert len(list((tmp_path / "figures").glob("calibration_*.png"))) == 3
    assert [report.at_fault(r) for r in found[2:]] == [True, True]


def test_unknown_names_are_answered_with_the_known_ones(capsys):
    with pytest.raises(ValueError, match="mean over runs"):
        chosen(CalibrationOptions(only=("no such thing",)))
    assert main(["--only", "no such thing"]) == 2
    assert "log-log slope" in capsys.readouterr().err
    assert all(q.name == "log-log slope" for s in chosen(CalibrationOptions(only=("slope",))) for q in s.quantities)


def test_every_estimator_of_logs_is_calibrated():
    """A function that turns a log into an Estimate has a row, or is a part of one that has."""
    parts = {"norm", "scalar", "length", "fitted_residual"}  # of other estimators; and a fit judged by Bellman residual
    text = Path(logs.__file__).read_text()
    found = 0
    for module in (approximation, mixing, distances, interface, td_noise, values):
        for name, function in vars(module).items():
            own = getattr(function, "__module__", "") == module.__name__ and not name.startswith("_")
            if own and callable(function) and getattr(function, "__annotations__", {}).get("return") == "Estimate":
                short = module.__name__.removeprefix("estimators.")
                assert name in parts or f"{short}.{name}" in text, f"{short}.{name} is not calibrated"
                found += name not in parts
    assert found >= 15


def test_every_quantity_has_a_truth_on_five_workflows():
    """Except where a certificate does not exist: the contraction moduli of the random workflow are above 1."""
    lacking = set()
    for quantity in logs.QUANTITIES:
        truths = [quantity.truth(model(source)) for source in logs.SOURCES]
        assert len(truths) >= 5
        lacking |= {quantity.name} if np.isnan(truths).any() else set()
    assert lacking <= {"certified gap", "certificate"}
    slow, none = model(logs.SOURCES[2]), model(logs.SOURCES[1])
    assert slow.analysis.slem > 0.95 and none.analysis.norm_d_state(none.analysis.gap) < 1e-12


def test_a_small_run_of_the_command(tmp_path, capsys):
    arguments = ["--sources", "Garnet", "--only", "Kemeny", "--replicates", "12", "--largest", "3000", "--jobs", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0  # twelve are too few for a verdict
    text = (tmp_path / "calibration.md").read_text()
    assert "12/12" in text and "too short" in text and " ".join(arguments) in text
    assert "calibration.md" in capsys.readouterr().out
