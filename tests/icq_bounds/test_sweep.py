"""Sweeps: what is asked, what is refused before work, and that nothing is lost, run twice or mislabelled."""

import ast
import inspect
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
from collections import namedtuple
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from estimators.decomposition import TERMS
from icq.learn import flags
from icq_bounds import errors
from icq_bounds.cli import main
from icq_bounds.sweep import axes, dataset, engine, provenance, store
from icq_bounds.sweep import folder as place
from icq_bounds.sweep import spec as sweep
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.families import FAMILIES
from icq_bounds.sweep.learning import Who

pytestmark = pytest.mark.compiles

SMALL = {"agents": (2,), "clusters": (2,)}


def ask(fix=SMALL, family="dials", replicas=2, checkpoints=(16, 32), **chosen):
    return sweep.ask(family, axes.parse_table(family, chosen), fix, replicas, checkpoints=checkpoints)


def run(spec, folder, executor=None, console=None):
    kept, _ = place.claim(spec, folder)
    engine.run_all(spec.cells(), kept, executor or engine.processes(1), console)
    return dataset.load(folder)


# ---- what is asked


def test_values_of_an_axis():
    assert ask(gap="0:1:9").axes == (("gap", tuple(np.linspace(0, 1, 9))),)
    assert ask(gap="0,0.5,1").axes == ask(gap=[0, 0.5, 1]).axes == (("gap", (0.0, 0.5, 1.0)),)
    assert ask({}, agents="2:4:3").axes == (("agents", (2, 3, 4)),)
    np.testing.assert_allclose(ask(mixing="0.005:0.5:3:log").axes[0][1], (0.005, 0.05, 0.5))
    assert ask(iid="false,true").axes == (("iid", (False, True)),)
    assert ask(function_class="table,network").axes == (("function_class", ("table", "network")),)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5, unique=True))
def test_written_numbers_are_read_back_exactly(values):
    values = [abs(x) for x in values]
    assert axes.read("dials", "gap", ",".join(map(repr, values))) == tuple(values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gap=0:1"], ["axis gap", "first:last:count"]),
        (["gap=0:1:1"], ["axis gap", "at least 2"]),
        (["gap=a,b"], ["axis gap = 'a' is not a number", "What the interface hides"]),
        (["gap=nan"], ["axis gap", "not a number"]),
        (["gap=0,0"], ["axis gap", "twice"]),
        (["gap=0", "gap=1"], ["axis gap", "twice"]),
        (["gap=0,1.5"], ["gap = 1.5", "[0, 1]"]),
        (["agents=2.5"], ["axis agents", "whole number"]),
        (["agents=1,2"], ["1 agents, at least 2"]),
        (["function_class=tables"], ["axis function_class", "table, features, network"]),
        (["method=table"], ["axis 'method'", "it is called function_class"]),
        (["iid=maybe"], ["axis iid", "false, true"]),
        (["mixing=0:0.5:3:log"], ["axis mixing", "positive"]),
        (["step=0,1"], ["step = 0.0 must be positive"]),
        (["width=0,1"], ["width = 0", "at least 1"]),
        (["gap"], ["'gap' is not NAME=VALUES"]),
        (["handoffs=10,100"], ["--handoffs"]),
        (["degree=2,3"], ["axis degree changes nothing"]),
        (["width=2,3", "function_class=table"], ["axis width changes nothing", "function_class is table"]),
        (["width=2,3", "features=2,3"], ["width and features", "function_class="]),
    ],
)
def test_a_wrong_axis_is_named_before_any_work(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "--axes", *arguments, "--out", str(tmp_path / "s")])
    said = capsys.readouterr().err
    assert stopped.value.code == 1 and not (tmp_path / "s").exists()
    for word in words:
        assert word in said.splitlines()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_axis_gets_the_list_of_known_ones(family, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--family", family, "--axes", "gamme=0.5,0.9"])
    first, *rest = capsys.readouterr().err.splitlines()
    assert "did you mean gamma?" in first
    for name, setting in axes.known(family).items():
        assert setting.meaning
        assert any(line.split()[0] == name and setting.meaning in line for line in rest), name


OTHER = {"graph": ("ring", "random"), "function_class": ("table", "features"), "who": ("icq", "independent"),
         "clock": ("global", "local"), "precision": ("single", "double"), "training": ("adam", "plain")}  # fmt: skip
NEEDS = {
    "degree": {"graph": ("random",), "agents": (4,)}, "seed": {"function_class": ("table",)},
    "width": {}, "features": {},
    "agents": {"clusters": (2,)}, "clusters": {"agents": (2,)}, "graph": {"agents": (5,), "degree": (2,)},
    "options": {"states": (6,), "observations": (4,)},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_axis_reaches_the_cell(family):
    for name, setting in axes.known(family).items():
        low = {"mixing": 0.1, "gamma": 0.5, "terminal": 0.2}.get(name, 0.5)
        number = (2, 3) if setting.kind is int else (low, low / 2)
        values = OTHER.get(name) or ((False, True) if setting.kind is bool else number)
        if name == "duration_mean":
            values = (2.0, 3.0)
        fix = dict(NEEDS.get(name, SMALL if family == "dials" else {}))
        fix = {key: value for key, value in fix.items() if key in axes.known(family)}
        if family == "garnet" and name in ("states", "observations"):
            values, fix = (5, 6), {"agents": (2,), **({"observations": (4,)} if name == "states" else {})}
        if name in ("inputs", "depth", "reference_iterations", "training", "scale"):
            fix["function_class"] = ("network",)
        if name == "scale":
            fix["training"] = ("plain",)
        spec = ask(fix, family, **{name: list(values)})
        assert len(set(spec.cells())) == 2, name
        assert len({store.key(cell) for cell in spec.cells()}) == 2, name


def test_points_that_differ_in_nothing_are_one_cell():
    spec = ask(function_class=["table", "network"], width=[2, 3, 4])
    found = spec.cells()
    assert len(found) == 6 and len(set(found)) == 4
    assert found[0] == found[1] == found[2]


def test_a_file_says_the_same_as_flags(tmp_path):
    from icq_bounds.commands.sweep import SweepOptions, asked

    path = tmp_path / "two.toml"
    path.write_text(
        'replicas = 3\nhandoffs = 128\n[axes]\ngap = "0:1:3"\nmixing = [0.1, 0.5]\n[fix]\nagents = 2\nclusters = 2\n'
    )
    flags = SweepOptions(axes=("gap=0:1:3", "mixing=0.1,0.5"), fix=("agents=2", "clusters=2"), replicas=3, handoffs=128)
    spec, out = asked(SweepOptions(file=path))
    assert spec == asked(flags)[0] and out == Path("results/two")
    assert spec.checkpoints == (2, 4, 8, 16, 32, 64, 128)
    assert asked(SweepOptions(file=path, axes=("gap=1",), replicas=5))[0].axes[0] == ("gap", (1.0,))
    for wrong, word in (("replica = 3", "replica"), ("replicas = 'x'", "int is needed"), ("axes = [", "two.toml")):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=word):
            sweep.read_file(path)


def test_configurations_round_trip_and_name_what_differs():
    spec = ask(gap=[0, 0.5], iid=[False, True])
    said = json.loads(json.dumps(spec.as_json()))
    assert sweep.Spec.from_json(said) == spec
    assert place.first_difference(said, spec.as_json()) is None
    assert "axes.gap is [0.0, 0.5] there, [0.0, 1.0] here" in place.first_difference(
        said, ask(gap=[0, 1.0], iid=[False, True]).as_json()
    )
    assert "order of axes" in place.first_difference(said, ask(iid=[False, True], gap=[0, 0.5]).as_json())
    assert "replicas is 2 there, 3 here" in place.first_difference(said, replace(spec, replicas=3).as_json())
    assert "axes.iid" in place.first_difference(said, ask(gap=[0, 0.5]).as_json())


# ---- the folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "s"
    spec = ask(gap=[0, 0.5], function_class=["table", "features"])
    ds = run(spec, folder)
    dataset.save(ds, folder / "sweep.nc")
    return spec, folder, ds


def contents(folder):
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.rglob("*")) if file.is_file()}


def test_another_configuration_is_refused_and_nothing_touched(finished, capsys):
    spec, folder, _ = finished
    before = contents(folder)
    with pytest.raises(place.OtherSweep, match=r"axes\.gap is \[0\.0, 0\.5\] there, \[0\.0, 1\.0\] here"):
        place.claim(ask(gap=[0, 1.0], function_class=["table", "features"]), folder)
    with pytest.raises(SystemExit):
        main(["sweep", "--axes", "gap=0,0.5", "--out", str(folder)])
    assert "holds another sweep" in capsys.readouterr().err
    assert contents(folder) == before
    _, note = place.claim(spec, folder)
    assert note == "" and contents(folder) == before


def test_only_missing_and_damaged_cells_run_and_all_is_counted(finished, tmp_path, monkeypatch):
    spec, folder, ds = finished
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    lost, damaged = (again / "cells" / f"{store.key(cell)}.npz" for cell in spec.cells()[1:3])
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-100])
    ran = []
    whole = Cell.run
    monkeypatch.setattr(Cell, "run", lambda cell: ran.append(cell) or whole(cell))
    said = io.StringIO()
    with pytest.warns(UserWarning, match="damaged"):
        found = run(spec, again, console=Console(file=said, force_terminal=False))
    assert set(ran) == set(spec.cells()[1:3]) and len(ran) == 2
    assert "4 of 4 cells" in said.getvalue()
    xr.testing.assert_identical(found.drop_attrs(), ds.drop_attrs())
    assert ds.attrs["cells"] == found.attrs["cells"] == "4 of 4"


def test_a_failing_cell_does_not_stop_the_others(tmp_path, monkeypatch):
    spec = ask(gap=[0, 0.5, 1])
    bad, whole = spec.cells()[1], Cell.run

    def broken(cell):
        if cell == bad:
            raise ArithmeticError("no fixed point")
        return whole(cell)

    monkeypatch.setattr(Cell, "run", broken)
    with pytest.raises(errors.FailedCells, match=r"1 of 3 cells failed.*gap 0\.5.*no fixed point"):
        run(spec, tmp_path)
    ds = dataset.load(tmp_path)
    np.testing.assert_array_equal(ds.finished, [True, False, True])
    assert np.isnan(ds.observed.sel(gap=0.5)).all() and np.isfinite(ds.observed.sel(gap=1.0)).all()
    assert (ds.bound_verdict.sel(gap=0.5) == dataset.CODES["missing"]).all()
    assert ds.attrs["cells"] == "2 of 3"


def test_cells_of_a_dead_pool_run_in_a_new_one(tmp_path):
    spec = ask(gap=[0, 0.5, 1])
    ran = []

    def dies(after):
        def execute(found):
            for k, cell in enumerate(found):
                if k == after:
                    raise BrokenProcessPool("killed")
                ran.append(cell)
                yield engine.attempt(cell, store.code_version())

        return execute

    with pytest.warns(UserWarning, match="a worker died"):
        ds = run(spec, tmp_path / "a", dies(1))
    assert sorted(map(repr, ran)) == sorted(map(repr, spec.cells())) and bool(ds.finished.all())
    with pytest.raises(errors.WorkError, match="before they finish"):
        run(spec, tmp_path / "b", dies(0))


def test_a_worker_with_other_code_is_refused():
    with pytest.raises(errors.WorkError, match="a worker runs code"):
        engine.attempt(ask(gap=[0]).cells()[0], "another")


def test_no_scheduler_at_the_address(tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "PATIENCE", "0.3s")
    with pytest.raises(SystemExit):
        main(["sweep", "--axes", "gap=0,1", "--out", str(tmp_path / "s"), "--dask", "tcp://127.0.0.1:9"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no scheduler answers at tcp://127.0.0.1:9" in said


def test_a_file_in_the_folders_place_is_refused(tmp_path, capsys):
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(SystemExit):
            main(["sweep", "--axes", "gap=0,1", "--out", str(out)])
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "file" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_no_room_is_said_before_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**4)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="No space left"):
        place.claim(ask(gap=[0, 1]), tmp_path)
    assert not (tmp_path / "sweep.json").exists()


def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path, finished):
    """The file size limit of the process plays the full disk: the second result no longer fits."""
    spec, _, ds = finished
    kept, _ = place.claim(spec, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def narrowing(found):
        for k, cell in enumerate(found):
            outcome = engine.attempt(cell, store.code_version())
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft if k == 0 else 1000, hard))
            yield outcome

    try:
        with pytest.raises(OSError, match=r"File too large \(writing.*1 of 4 cells are finished and kept"):
            engine.run_all(spec.cells(), kept, narrowing)
        with pytest.raises(OSError, match="File too large"):
            store.Store(tmp_path / "cells")  # a full disk is noticed before work
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [f.suffix for f in (tmp_path / "cells").iterdir()] == [".npz"]
    xr.testing.assert_identical(run(spec, tmp_path).drop_attrs(), ds.drop_attrs())


class Dropping:
    """Its finaliser is where Ctrl-C arrives, and Python drops exceptions of finalisers."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_drops_still_stops_after_the_cell(tmp_path, finished):
    spec, _, ds = finished
    kept, _ = place.claim(spec, tmp_path)

    def interrupted(found):
        for cell in found:
            Dropping()
            yield engine.attempt(cell, store.code_version())

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(errors.Interrupted, match="1 of 4 cells are finished and kept"):
        engine.run_all(spec.cells(), kept, interrupted)
    assert signal.getsignal(signal.SIGINT) is before
    xr.testing.assert_identical(run(spec, tmp_path).drop_attrs(), ds.drop_attrs())


def test_changed_code_is_noted_and_old_results_are_not_used(finished, tmp_path, monkeypatch):
    spec, folder, _ = finished
    shutil.copytree(folder, tmp_path / "s")
    monkeypatch.setattr(store, "code_version", lambda: "0" * 16)
    kept, note = place.claim(spec, tmp_path / "s")
    assert "4 older results" in note and all(kept.get(cell) is None for cell in spec.cells())


# ---- the numbers


def test_one_static_shape_compiles_once(tmp_path):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    execute = engine.processes(1)
    shape = SMALL | {"function_class": ("features",)}
    list(execute(ask(shape, gap=[0.25]).cells()))
    jax.jit(lambda x: x + len(compiled))(1.0)  # something certainly new
    first = len(compiled)
    spec = ask(shape, gap=[0.5, 1], mixing=[0.1, 0.4], gamma=[0.8, 0.9], step=[0.5, 1], iid=[False, True])
    assert len({cell.program() for cell in spec.cells()}) == 1
    outcomes = list(execute([spec.cells()[k] for k in (0, 13, 31)]))
    assert first > 0 and len(compiled) == first and all(o.result for o in outcomes)
    assert len({cell.program() for cell in ask(shape, options=[2, 3]).cells()}) == 2


def test_programs_are_started_apart():
    spec = ask(width=[2, 3], gap=[0, 0.5, 1])
    ordered = engine.in_order(spec.cells() * 2)
    assert len(ordered) == 6 and {c.method.width for c in ordered[:2]} == {2, 3}


def test_the_dataset_holds_every_number_at_its_place(finished):
    spec, _, ds = finished
    assert ds.observed.dims == ("gap", "function_class", "term", "output", "replica", "checkpoint")
    assert ds.bound.dims == ("gap", "function_class", "term", "output", "checkpoint")
    for point, cell in zip(spec.points(), spec.cells(), strict=True):
        result, there = cell.run(), ds.sel(point)
        for term in TERMS:
            records = there.sel(term=term)
            for name in dataset.RECORDS:
                np.testing.assert_array_equal(records[name], result[f"{name}_{term}"])
            for name in dataset.VERDICTS:
                code = records[name]
                words = dict(zip(code.flag_values, code.flag_meanings.split(), strict=True))
                np.testing.assert_array_equal(np.vectorize(words.get)(code), result[f"{name}_{term}"])
        again = dataset.arrays_of(there)
        assert all(np.array_equal(again[name], result[name], equal_nan=result[name].dtype.kind == "f")
                   for name in again if "verdict" in name or "observed" in name)  # fmt: skip
        np.testing.assert_array_equal(there.value, result["value"])
        assert float(there.kappa) == float(result["kappa"])
    total = ds.observed.sel(term="total", drop=True)
    assert float((ds.observed.drop_sel(term="total").sum("term") - total).min()) > -1e-9


def test_two_lines_load_it_with_units_and_origin(finished):
    spec, folder, made = finished
    ds = xr.open_dataset(folder / "sweep.nc", engine="h5netcdf")
    xr.testing.assert_equal(ds.load(), made)
    for name, variable in ds.variables.items():
        assert variable.attrs["long_name"], name
        assert "units" in variable.attrs or variable.dtype == bool, name
    assert ds.checkpoint.units == "handoffs" and ds.observed.units == "reward"
    assert sweep.Spec.from_json(json.loads(ds.attrs["config"])) == spec
    assert json.loads(ds.attrs["seeds"]) == [0, 1]
    said = json.loads(ds.attrs["provenance"])
    assert said["code"] == store.code_version() and said["versions"]["jax"] == jax.__version__
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", ds.attrs["commit"])
    text = json.dumps({k: str(v) for k, v in ds.attrs.items()})
    assert socket.gethostname() not in text and str(Path.home()) not in text and str(folder) not in text
    assert ds.attrs["machines"].count("cores") == 1


def test_axes_never_share_a_name_with_a_variable_or_an_argument_of_sel(finished):
    """`sel(drop=0.2)` would say something else in silence."""
    *_, ds = finished
    arguments = {name for pick in (xr.Dataset.sel, xr.Dataset.isel) for name in inspect.signature(pick).parameters}
    assert {"method", "drop"} <= arguments
    for family in FAMILIES:
        assert not set(axes.known(family)) & (set(ds.data_vars) | {"term", "replica", "checkpoint"} | arguments)


@pytest.mark.parametrize(("old", "new"), axes.RENAMED.items())
def test_an_axis_that_sel_could_not_take_says_its_name(old, new):
    with pytest.raises(axes.UnknownAxis, match=f"'{old}' is unknown to the family garnet: it is called {new}"):
        axes.read("garnet", old, "0.1")


@pytest.mark.parametrize(
    ("written", "value"), [("0:1:11", 0.3), ("-1:1:21", 0.0), ("0:0.9:4", 0.6), ("0.001:1000:7:log", 0.1)]
)
def test_values_of_a_range_are_those_one_would_write(written, value):
    found = axes.read("dials", "gap", written)
    line = xr.DataArray(np.zeros(len(found)), coords={"gap": list(found)})
    assert line.sel(gap=value).size == 1
    low, high, count = map(float, written.split(":")[:3])
    exact = (np.geomspace if "log" in written else np.linspace)(low, high, int(count))
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
    assert (found[0], found[-1]) == (low, high)


def test_flags_keep_no_path(monkeypatch):
    monkeypatch.setattr(flags, "_given", "--xla_dump_to=/home/me/x --xla_cpu_enable_fast_math=false")
    assert provenance.xla_flags() == f"--xla_dump_to=(path) --xla_cpu_enable_fast_math=false {flags.FLAG}"
    monkeypatch.setenv("PATH", os.devnull)
    assert provenance.commit() is None


def test_steps_that_diverge_give_nan_and_no_verdict(tmp_path):
    ds = run(ask(step=[0.5, 1e30], fix=SMALL | {"decay_power": (0.0,), "function_class": ("features",)}), tmp_path)
    far, near = ds.sel(step=1e30), ds.sel(step=0.5)
    for name in ("observed", "certificate"):
        of = {"term": ["residual", "total"]}
        assert np.isnan(far[name].sel(of)).all() and np.isfinite(near[name].sel(of)).all(), name
    assert np.isnan(far.value).all() and np.isfinite(near.value).all()
    assert dataset.verdicts(far, "residual", "certificate") == {"inapplicable": 8}
    assert np.isfinite(far.observed.sel(term="interface")).all() and np.isnan(ds.asymptote).all()


def test_baselines_have_values_and_no_terms(tmp_path):
    ds = run(ask(who=["icq", "centralised", "independent"]), tmp_path)
    assert np.isfinite(ds.value).all()
    assert np.isnan(ds.observed.sel(who="independent")).all() and np.isfinite(ds.observed.sel(who="icq")).all()
    assert (ds.bound_verdict.sel(who="centralised") == -1).all()
    assert (ds.certificate_verdict.sel(who="centralised") == -1).all()
    assert [cell.who for cell in ask(who=["independent"]).cells()] == [Who.INDEPENDENT]


def test_garnets_sweep_too(tmp_path, capsys):
    out = tmp_path / "g"
    main(["sweep", "--family", "garnet", "--axes", "seed=0,1", "--fix", "states=6", "observations=3", "agents=2",
          "--replicas", "2", "--checkpoints", "8", "16", "--out", str(out), "--jobs", "1"])  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())  # lines break where the folder's name makes them
    assert "2 cells (2 seed)" in said and "certificate residual: 16 holds" in said and "open_dataset" in said
    ds = xr.open_dataset(out / "sweep.nc", engine="h5netcdf")
    assert dict(ds.sizes) == {"seed": 2, "term": 4, "output": 2, "replica": 2, "checkpoint": 2}


def test_routing_sweeps_over_its_view(tmp_path):
    fix = {"specialists": (2,), "intents": (2,), "gamma": (0.8,)}
    ds = run(ask(fix, "routing", replicas=1, checkpoints=(8,), view=[1, 2]), tmp_path)
    gap = ds.observed.sel(term="interface", output="last").squeeze()
    assert float(gap[0]) > 1e-3 and float(gap[1]) < 1e-9  # at full view nothing is hidden
    assert ds["view"].units == "bits"


def test_everything_a_cell_runs_is_in_its_key():
    """The key hashes these modules of icq_bounds; store keeps results and makes none."""
    root = Path(store.__file__).parents[1]
    hashed = {file for name in store.MODULES for file in root.glob(name)}
    todo = set(root.rglob("*cells.py"))
    assert {root / f"sweep/{name}.py" for name in ("cells", "methods", "families", "learning")} <= hashed
    assert len(todo) > 5
    while todo:
        file = todo.pop()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("icq_bounds"):
                path = root.joinpath(*node.module.split(".")[1:])
                inner = (
                    [path.with_suffix(".py")]
                    if path.with_suffix(".py").exists()
                    else [path / f"{alias.name}.py" for alias in node.names]
                )
                assert set(inner) <= hashed | {root / "sweep/store.py"}, f"{file} imports {inner}"
