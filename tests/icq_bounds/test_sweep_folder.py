"""Grids that are absurd, folders that are claimed at once or damaged, and advice: whoever follows it gets on."""

import json
import shlex
import shutil
import threading
import time

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from icq_bounds.cli import main
from icq_bounds.commands import reproduce
from icq_bounds.commands.sweep import SweepOptions, asked
from icq_bounds.pages import sweep as page
from icq_bounds.pages.report import report
from icq_bounds.sweep import axes, dataset, provenance, store
from icq_bounds.sweep import folder as place
from icq_bounds.sweep import spec as sweep
from icq_bounds.sweep.families import FAMILIES
from icq_bounds.sweep.learning import LAST

BIG = 10**30


def ask(*arguments):
    """The sweep of a command line."""
    return asked(tyro.cli(SweepOptions, args=arguments, config=(tyro.conf.OmitSubcommandPrefixes,)))[0]


def small(gap=(0.0, 1.0), **settings):
    return sweep.ask(axes={"gap": gap}, fix={k: (v,) for k, v in settings.items()}, replicas=2, checkpoints=(4, 8))


# --- grids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--axes", "gap=0:1:3000000"], "axis gap has 3000000 values, at most"),
        (["--axes", f"gap=0:1:{BIG}"], r"axis gap has about 2\^99 values"),
        (["--axes", "gap=0:1:1000", "mixing=0.1:0.9:1000"], "1000 gap x 1000 mixing are 1000000 cells"),
        (["--axes", *(f"{x}=0.1:0.9:999" for x in ("gap", "mixing", "gamma", "compensate"))], " 996005996001 cells"),
        (["--axes", "gap=0:1:9", "gap=0"], "axis gap is given twice"),
        (["--axes", "gap=0,1,0.0"], "axis gap: 0.0 is given twice"),
        (["--axes", "gap="], "axis gap has no value"),
        (["--axes", "gap=0,,1"], "axis gap = '' is not a number"),
        (["--axes", "function_class="], "axis function_class has no value"),
        (["--axes", "gap=-1e308:1e308:3"], "axis gap .* finite"),
        (["--axes", "gap=" + "x" * 10_000], "axis gap = 'x{60}\\.\\.\\.' is not a number"),
        (["--axes", "gap=" + ",".join(map(str, range(20_000)))], "axis gap has 20000 values"),
        (["--axes", "seed=0,9223372036854775808"], r"axis seed = '9223372036854775808' is not below 2\^53"),
        (["--axes", "seed=9007199254740993"], r"not below 2\^53"),
        (["--axes", "seed=0,1e300"], r"axis seed = '1e300' is not below 2\^53"),
        (["--axes", "agents=2,1000000000"], "agents = 1000000000.* cannot be built"),
        (["--axes", "clusters=2,1000000000"], "clusters = 1000000000.* cannot be built"),
        (["--family", "garnet", "--axes", "states=60,1000000000"], "states = 1000000000.* cannot be built"),
        (["--family", "routing", "--axes", "intents=2,1000000000"], "intents = 1000000000.* cannot be built"),
        (["--axes", "width=8,1000000000000"], "width = 1000000000000"),
        (["--axes", "width=100000", "--fix", "depth=2"], "width = 100000: width, depth and inputs make"),
        (["--axes", "features=2,10000000000"], "features = 10000000000"),
        (["--axes", "reference_iterations=1,1e15"], "reference_iterations = 10{15} must be at most"),
        (["--axes", "gap=0,1", "--replicas", "0"], "replicas = 0 must be at least 1"),
        (["--axes", "gap=0,1", "--replicas", str(2**63)], r"replicas = about 2\^63 must"),
        (["--axes", "gap=0,1", "--handoffs", "0"], "handoffs = 0 must be at least 1"),
        (["--axes", "gap=0,1", "--handoffs", str(2**31)], f"handoffs = {2**31} must be at most {LAST}"),
        (["--axes", "gap=0,1", "--handoffs", str(BIG)], "handoffs = about 2"),
        (["--axes", "gap=0,1", "--checkpoints", "1", str(2**63)], r"handoffs = about 2\^63 must be at most"),
        (["--axes", "gap=0,1", "--checkpoints", "8", "8"], "must be positive and increasing"),
        (["--axes", "gap=0,1", "--handoffs", "8", "--checkpoints", "8"], "choose one"),
    ],
)  # fmt: skip
def test_absurd_grids_are_refused_at_once(arguments, words):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=words) as error:
        ask(*arguments)
    assert time.monotonic() - begun < 1.5 and "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("jobs", ["0", "-1", "99999999999"])
@pytest.mark.parametrize("command", [["sweep", "--axes", "gap=0,1"], ["reproduce", "n10"]])
def test_absurd_numbers_of_processes_are_refused(command, jobs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--jobs", jobs, "--out", str(tmp_path / "s")])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"jobs = {jobs} must" in said and not (tmp_path / "s").exists()


@given(
    st.sampled_from([(f, s.name) for f in FAMILIES for s in axes.known(f).values()]),
    st.text("0123456789eE.:,-+xlognaif ", max_size=12) | st.integers().map(str) | st.floats().map(str),
)
def test_an_axis_is_read_or_named(setting, written):
    family, name = setting
    try:
        values = axes.read(family, name, written)
    except ValueError as error:
        assert f"axis {name}" in str(error)
    else:
        assert values == axes.read(family, name, [str(value) for value in values])


def test_a_file_of_absurd_depth_or_letters_is_refused(tmp_path):
    for data in (b"axes = " + b"[" * 100_000, b'family = "\xff"', b"axes = 3", b"axes.gap = {a = 1}"):
        (tmp_path / "s.toml").write_bytes(data)
        with pytest.raises(ValueError, match=r"s\.toml|axis gap"):
            ask(str(tmp_path / "s.toml"))


def test_flags_beside_a_file_win_and_zero_is_no_default(tmp_path):
    (tmp_path / "s.toml").write_text("replicas = 3\ncheckpoints = [16, 32]\n[axes]\ngap = [0, 1]\n")
    file = str(tmp_path / "s.toml")
    assert (ask(file).replicas, ask(file).checkpoints) == (3, (16, 32))
    assert ask(file, "--handoffs", "64").checkpoints[-1] == 64
    with pytest.raises(ValueError, match="replicas = 0"):
        ask(file, "--replicas", "0")


# --- claims ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_of_two_that_claim_a_new_folder_at_once_one_is_refused(tmp_path, monkeypatch, same):
    """Both have looked and found nothing; each claims then."""
    both = threading.Barrier(2, timeout=30)
    whole = store.Store.room
    monkeypatch.setattr(store.Store, "room", lambda kept, needed: (whole(kept, needed), both.wait())[0])
    said, specs = {}, [small(), small() if same else small(gap=(0.0, 0.5))]

    def claim(k):
        try:
            said[k] = place.claim(specs[k], tmp_path / "s")
        except place.OtherSweep as error:
            said[k] = error

    threads = [threading.Thread(target=claim, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (loser,) = (k for k in said if isinstance(said[k], Exception))
    assert "claimed by another process" in str(said[loser])
    assert place.read_folder(tmp_path / "s")[0] == specs[1 - loser]
    monkeypatch.setattr(store.Store, "room", whole)
    place.claim(specs[loser], tmp_path / "other")  # as it is told


# --- damage, and advice that works ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claimed") / "s"
    place.claim(small(), folder)
    dataset.save(dataset.load(folder), folder / "sweep.nc")
    return folder


@pytest.fixture
def folder(claimed, tmp_path, monkeypatch):
    """A claimed folder with its dataset; no cell has run."""
    monkeypatch.setattr(provenance, "commit", lambda: None)  # it asks git, which takes its time
    return shutil.copytree(claimed, tmp_path / "s")


DAMAGE = {
    "cut": lambda text: text[:-30], "empty": lambda text: "", "bytes": lambda text: "\ud800\udcff",
    "deep": lambda text: "[" * 100_000, "list": lambda text: "[]", "null": lambda text: '{"sweep": null}',
    "no code": lambda text: text.replace('"code"', '"kode"'),
    "family": lambda text: text.replace("dials", "sials"), "axis": lambda text: text.replace('"gap"', '"gapp"'),
    "value": lambda text: text.replace("0.0,", '"a",', 1),
    "replicas": lambda text: text.replace('"replicas": 2', '"replicas": "2"'),
    "points": lambda text: text.replace('"checkpoints": [', '"checkpoints": null, "x": ['),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_description_is_removed_and_the_sweep_goes_on(folder, how):
    path = folder / "sweep.json"
    text = path.read_text()
    damaged = DAMAGE[how](text).encode(errors="surrogatepass")
    path.write_bytes(damaged)
    for read in (lambda: place.claim(small(), folder), lambda: report(folder), lambda: dataset.load(folder)):
        with pytest.raises(ValueError, match=r"sweep\.json is damaged; remove it and run the same icq sweep again"):
            read()
    assert path.read_bytes() == damaged, "nothing is written over"
    path.unlink()
    with pytest.raises(place.OtherSweep, match=r"axes\.gap is \[0\.0, 1\.0\] there"):
        place.claim(small(gap=(0.0, 0.5)), folder)
    _, note = place.claim(small(), folder)
    assert note == "" and path.read_text().splitlines()[:9] == text.splitlines()[:9]


@pytest.mark.parametrize("data", [b"", b"x", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_a_damaged_dataset_is_set_aside_where_nothing_else_says_what_it_was(folder, data):
    path = folder / "sweep.nc"
    path.write_bytes(data)
    (folder / "sweep.json").unlink()
    with pytest.raises(ValueError, match=r"sweep\.nc is damaged; run the same icq sweep again"):
        report(folder)
    _, note = place.claim(small(), folder)
    assert "set aside as sweep.nc.damaged" in note and (folder / "sweep.nc.damaged").read_bytes() == data
    dataset.save(dataset.load(folder), path)
    assert place.saved(path)[0] == small()


def test_the_dataset_of_another_program_is_left_alone(folder):
    ds = dataset.load(folder)
    del ds.attrs["config"]
    dataset.save(ds, folder / "sweep.nc")
    (folder / "sweep.json").unlink()
    before = (folder / "sweep.nc").read_bytes()
    with pytest.raises(place.OtherSweep, match="not written by icq sweep; choose a new --out"):
        place.claim(small(), folder)
    assert (folder / "sweep.nc").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--axes", "gap=0,1"],
        ["--axes", "gap=0,1", "--fix", "function_class=table", "width=32"],
        ["--axes", "width=8,16", "--fix", "agents=3", "graph=ring", "iid=true"],
        ["--axes", "function_class=table,features", "mixing=0.01:0.75:5:log", "--handoffs", "1000"],
        ["--family", "garnet", "--axes", "states=40,50", "--replicas", "3"],
        ["--family", "routing", "--axes", "view=1,2", "--fix", "leave=1e-17"],
    ],
)  # fmt: skip
def test_the_command_of_a_report_asks_for_the_same_sweep(arguments, tmp_path):
    spec, name = ask(*arguments), "a [b] 'c' \"d\" $e"
    place.claim(spec, tmp_path / name)
    commands = page._origin(spec, dataset.load(tmp_path / name), name)["commands"]
    again, notebook, records = commands.values()
    words = shlex.split(again)
    assert words[:2] == ["icq", "sweep"] and words[-1] == name and ask(*words[2:]) == spec
    for text in (notebook, records):
        compile(text, "cell", "exec")
    assert name in text.encode().decode("unicode_escape")


def test_advice_on_axes_works():
    with pytest.raises(ValueError, match=r"e\.g\. --axes function_class=features,network"):
        ask("--axes", "width=2,3", "features=2,3")
    assert ask("--axes", "width=2,3", "features=2,3", "function_class=features,network")
    with pytest.raises(ValueError, match="function_class is table; add another one, or leave the axis out"):
        ask("--axes", "width=2,3", "function_class=table")
    assert ask("--axes", "width=2,3", "function_class=table,network") and ask("--axes", "function_class=table")
    with pytest.raises(ValueError, match=r"e\.g\. --axes gap=0:1:9"):
        ask()
    assert ask("--axes", "gap=0:1:9")
    with pytest.raises(ValueError, match="gap has 2 values; what varies goes under --axes"):
        ask("--axes", "mixing=0.1", "--fix", "gap=0,1")
    assert ask("--axes", "mixing=0.1", "gap=0,1")
    for old, new in axes.RENAMED.items():
        family = "garnet" if new == "unavailable" else "dials"
        with pytest.raises(ValueError, match=f"it is called {new}"):
            axes.read(family, old, "0.1")
        assert new in axes.known(family)
    with pytest.raises(ValueError, match="--replicas, --handoffs, --checkpoints"):
        ask("--axes", "handoffs=10,100")
    assert ask("--axes", "gap=0", "--checkpoints", "10", "100").checkpoints == (10, 100)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "{}", '{"experiment": "cpu", "preset": {}}', "\udcff",
                                  '{"experiment": "n10"}', '{"experiment": "cpu", "provenance": 3}'])  # fmt: skip
def test_a_damaged_summary_is_written_again(tmp_path, monkeypatch, capsys, text):
    path = tmp_path / "summary.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"summary\.json.*; the same icq reproduce command writes it again"):
        report(tmp_path)
    done = reproduce.Experiment([], lambda results, folder: ({"preset": "smoke"}, [], []))
    monkeypatch.setitem(reproduce.EXPERIMENTS["cpu"], "smoke", lambda options: done)
    main(["reproduce", "cpu", "--preset", "smoke", "--out", str(tmp_path)])
    assert json.loads(path.read_text())["experiment"] == "cpu"
