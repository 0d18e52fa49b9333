"""The command line: what it prints, and that every error is one readable line."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from icq.smdp import ICSMDP
from icq_bounds.cli import COMMANDS, main

pytestmark = pytest.mark.compiles

KEYS = (
    "gamma_bar", "kappa", "gap_exact_sup", "gap_exact_d", "gap_value_sup", "gap_scalar", "local_gap_sup", "local_gap_d",
    "slem", "v_star_mean", "v_bar_mean", "policy_loss_sup",
)  # fmt: skip


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "m.npz"
    main(["make", "dials", "--agents", "3", "--gap", "0.5", "--mixing", "0.3", "--out", str(path)])
    return path


def two_islands(path):
    ICSMDP.create(
        prob=np.ones((2, 1, 1)), next_state=np.array([[[0]], [[1]]]), duration=np.ones((2, 1, 1)), gamma=0.9,
        reward=np.ones((2, 1, 1)), observation=[0, 1], agent=[0, 0],
    ).save(path)  # fmt: skip
    return path


def test_analyse_prints_every_key_as_a_float(workflow, capsys):
    main(["analyse", str(workflow), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert all(isinstance(said[key], float) for key in KEYS)
    assert said["gap_exact_sup"] <= said["gap_value_sup"] <= said["gap_scalar"]
    assert said["problems"] == [] and said["irreducible"] and said["aperiodic"]
    assert {b["verdict"] for b in said["bounds"].values()} == {"holds"}


def test_analyse_prints_a_table(workflow, capsys):
    main(["analyse", str(workflow)])
    out = capsys.readouterr().out
    assert "gap_exact_sup" in out and "gap value, d-norm" in out and "greedy loss" in out and "holds" in out


def test_a_reducible_chain_is_reported_not_averaged(tmp_path, capsys):
    main(["analyse", str(two_islands(tmp_path / "two.npz")), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["closed_classes"] == 2 and not said["irreducible"]
    assert "{0}" in said["problems"][0] and "{1}" in said["problems"][0]
    assert said["v_bar_mean"] is None and said["gamma_bar"] == pytest.approx(0.9)
    main(["analyse", str(tmp_path / "two.npz")])
    assert "reducible" in capsys.readouterr().out


def test_learn_splits_the_residual(workflow, capsys):
    arguments = ["learn", str(workflow), "--handoffs", "3000", "--seeds", "8", "--split"]
    main([*arguments, "--json"])
    said = json.loads(capsys.readouterr().out)
    last = said["split"][-1]
    assert last["excess_rms"]["value"] == pytest.approx(last["markov"]["value"] - last["iid"]["value"])
    assert last["markov"]["value"] == pytest.approx(said["residual"][-1]["value"])
    assert said["split_ratio_limit"] == pytest.approx(1.0)  # tables: correlation costs a transient only
    main(arguments)
    assert "same random numbers" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main([*arguments, "--iid"])
    assert "leave out iid" in capsys.readouterr().err


def test_learn_reports_the_terms(workflow, capsys):
    main(["learn", str(workflow), "--handoffs", "3000", "--seeds", "3", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["handoffs"] == [46, 93, 187, 375, 750, 1500, 3000]
    assert all(len(said[term]) == 7 for term in ("interface", "approximation", "residual", "total"))
    assert set(said["verdicts"]["certificate"]["residual"]) == {"holds"}
    assert set(said["verdicts"]["bound"]["residual"]) <= {"holds", "undecided"}, "three runs may not decide"
    assert len(said["bound"]["residual"]) == 7 and None not in said["bound"]["residual"]
    main(["learn", str(workflow), "--handoffs", "1000", "--seeds", "2", "--features", "2"])
    assert "approximation" in capsys.readouterr().out


def test_garnets_are_made(tmp_path, capsys):
    main(["make", "garnet", "--states", "9", "--observations", "4", "--out", str(tmp_path / "g.npz")])
    assert "9 states" in capsys.readouterr().out
    assert ICSMDP.load(tmp_path / "g.npz").num_observations == 4


def test_theorem_of_networks(tmp_path, capsys):
    """Every term bounded before a run, or the assumption that fails; what it has no use for is refused."""
    small = str(tmp_path / "small.npz")
    main(["make", "dials", "--agents", "2", "--clusters", "2", "--gap", "0.5", "--out", small])
    arguments = ["theorem", small, "--network", "24", "--handoffs", "20000", "--points", "2"]
    main(arguments)
    text = capsys.readouterr().out
    assert "predicted" in text and "kernel has full rank" in text and "20000" in text
    main([*arguments[:3], "1", *arguments[4:], "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["bounds"]["residual"] == [None, None] and said["bounds"]["interface"][0] > 0
    assert [x["name"] for x in said["assumptions"] if not x["holds"]] == ["kernel has full rank"]
    refused = [
        ([*arguments, "--runs", "4"], "runs and network"), ([*arguments, "--latex"], "latex and network"),
        (["theorem", small, "--scale", "2"], "--network"), (["learn", small, "--training", "plain"], "--network"),
    ]  # fmt: skip
    for wrong, word in refused:
        with pytest.raises(SystemExit):
            main(wrong)
        assert word in capsys.readouterr().err


def test_theorem_prints_text_json_and_latex(workflow, capsys):
    arguments = ["theorem", str(workflow), "--handoffs", "1000000", "--points", "2"]
    main(arguments)
    text = capsys.readouterr().out
    assert "kappa" in text and "trivial" in text
    arguments = ["theorem", str(workflow), "--handoffs", "1000", "--points", "1"]
    main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out)
    main([*arguments, "--latex"])
    assert "\\" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--latex", "--json"])
    assert "choose one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["analyse", "nowhere.npz"], "nowhere.npz: No such file"),
        (["make", "dials", "--gap", "1.5", "--out", "x.npz"], "gap"),
        (["make", "dials", "--graph", "tree", "--out", "x.npz"], "complete, ring"),
        (["make", "garnet", "--gamma", "2", "--out", "x.npz"], "gamma"),
        (["reproduce", "n10", "--jobs", "0"], "jobs"),
    ],
)
def test_errors_are_one_line_without_traceback(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 1 and said.out == ""
    assert said.err.count("\n") == 1 and words in said.err


def test_bad_instances_name_the_field(workflow, tmp_path, capsys):
    fields = dict(np.load(workflow))
    fields["prob"][2, 1, 0] += 0.5
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(SystemExit):
        main(["analyse", str(tmp_path / "bad.npz")])
    assert "prob[2, 1] = 1.5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["learn", str(workflow), "--features", "2", "--network", "2"])
    assert "choose one" in capsys.readouterr().err


def test_help_teaches_and_needs_no_jax():
    code = (
        "import sys; from icq_bounds.cli import main\ntry: main(['--help'])\nfinally: assert 'jax' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    for word in ("make", "analyse", "learn", "reproduce"):
        assert word in said.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_help_teaches_by_an_example(name, capsys, monkeypatch):
    examples = []
    for columns in ("40", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit):
            main([name, "--help"])
        lines = capsys.readouterr().out.splitlines()
        examples.append([line for line in lines if re.match(rf"(Example:|  ) ?icq {name} ", line)])
    assert examples[0] == examples[1] != [], "examples stand on lines of their own, whole at any width"
    assert len(lines) < 60 or name == "sweep", "a help fits a screen; that of a sweep lists the axes"
