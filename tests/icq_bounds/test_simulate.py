"""Simulated logs are those of the sampled trajectory, whatever the size of the pieces."""

from dataclasses import fields

import jax
import numpy as np
import pytest
from strategies import garnet

from estimators.logs import simulate
from estimators.logs.log import Log, from_handoffs
from estimators.logs.reader import read
from icq.exact import analyse
from icq.learn import sampling
from icq_bounds.cli import main
from icq_bounds.commands import simulate as command

pytestmark = pytest.mark.compiles

ANALYSIS = analyse(garnet(5, states=9, options=3, outcomes=3, observations=5, agents=2, terminal=0.2))
LENGTH = 1500


def joined(parts):
    return {
        item.name: np.concatenate([getattr(part, item.name) for part in parts])
        for item in fields(Log)
        if isinstance(getattr(parts[0], item.name), np.ndarray)
    }


@pytest.mark.parametrize("piece", [1, sampling.BLOCK, 2 * sampling.BLOCK, 10**9])
def test_pieces_are_one_trajectory(piece):
    drawn = sampling.trajectory(sampling.tables(ANALYSIS), jax.random.key(3), LENGTH)
    whole = from_handoffs(ANALYSIS.smdp, drawn, q=ANALYSIS.q_bar)
    parts = list(simulate.pieces(ANALYSIS, LENGTH, seed=3, q=ANALYSIS.q_bar, piece=piece))
    assert len(parts) == (1 if piece == 10**9 else -(-LENGTH // max(piece, sampling.BLOCK)))
    for name, column in joined(parts).items():
        np.testing.assert_array_equal(column, getattr(whole, name), err_msg=name)
    assert whole.done.sum() > 10


def test_the_scalar_is_the_interface_value():
    (log,) = simulate.pieces(ANALYSIS, LENGTH, seed=0, q=ANALYSIS.q_bar)
    goes_on = ~log.done
    np.testing.assert_array_equal(log.scalar[goes_on], ANALYSIS.v_bar[log.next_observation[goes_on]])
    assert np.isnan(log.scalar[log.done]).all()


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulate") / "m.npz"
    ANALYSIS.smdp.save(path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("flags", [[], ["--no-context", "--no-scalar"]])
def test_the_command_writes_the_log(suffix, flags, workflow, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(simulate, "PIECE", 512)
    out = tmp_path / f"log{suffix}"
    main(["simulate", str(workflow), "--handoffs", str(LENGTH), "--out", str(out), "--seed", "3", *flags])
    assert f"{LENGTH} handoffs" in capsys.readouterr().out
    log, report = read(out)
    parts = list(
        simulate.pieces(ANALYSIS, LENGTH, seed=3, context=not flags, q=None if flags else ANALYSIS.q_bar, piece=512)
    )
    assert report.faultless and log.gamma == ANALYSIS.smdp.gamma and (log.context is None) == bool(flags)
    for name, column in joined(parts).items():
        np.testing.assert_array_equal(getattr(log, name), column, err_msg=name)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_seeds_give_different_logs():
    first, again, other = (next(simulate.pieces(ANALYSIS, 200, seed=seed)) for seed in (0, 0, 1))
    assert (first.reward == again.reward).all() and (first.reward != other.reward).any()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--handoffs", "0", "--out", "a.jsonl"], "handoffs = 0 must be at least 1"),
        (["--handoffs", "9", "--out", "a.csv"], "unknown suffix; use .parquet"),
        (["--handoffs", "9", "--out", "nowhere/a.parquet"], "No such file"),
    ],
)
def test_errors_leave_no_file(flags, words, workflow, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["simulate", str(workflow), *flags])
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_no_file(workflow, tmp_path, monkeypatch, capsys):
    taken = iter([from_handoffs])

    def second_time(*arguments, **options):
        try:
            return next(taken)(*arguments, **options)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(command, "PIECE", 256)
    monkeypatch.setattr(simulate, "from_handoffs", second_time)
    with pytest.raises(SystemExit):
        main(["simulate", str(workflow), "--handoffs", "600", "--out", str(tmp_path / "a.parquet")])
    assert "interrupted" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
