"""Stopped at any moment, for real: kill -9 between and inside writes, of the whole command and of workers, and Ctrl-C.

Every test ends with the same numbers, bit for bit, as a run that nobody disturbed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments import results

ROOT = Path(__file__).parents[1]
PACKAGES = ("icq", "synthetic", "estimators", "bounds", "experiments")

COMMAND = (
    "sweep", "--axes", "gap=0:1:3", "iid=false,true", "--fix", "agents=2", "clusters=2", "--replicas", "2",
    "--checkpoints", "16", "64",
)  # fmt: skip
CELLS = 6
PLAIN = "from experiments.cli import main; main()"
# Dies by kill -9 on the doorstep: the third result is written in full but does not have its name yet.
DOOMED = """
import os, signal
from experiments.cli import main
rename, left = os.replace, [3]
def doomed(source, target):
    left[0] -= str(target).endswith(".npz")
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = doomed
main()
"""


def start(folder, *more, code=PLAIN):
    command = [sys.executable, "-c", code, *COMMAND, "--out", str(folder), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        cwd=folder.parent / "code",
    )  # fmt: skip


def finish(folder, *more):
    process = start(folder, *more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def kept(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.npz")}


def wait_for_cells(process, folder, count):
    end = time.monotonic() + 300
    while len(kept(folder)) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


def family_of(pid):
    """The children of a process, found in /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    name_end = (text := file.read()).rindex(")")
            except OSError:
                continue
            if int(text[name_end + 2 :].split()[1]) == pid:
                found.append(int(entry))
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
        return text[text.rindex(")") + 2] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a copy of the code, whose hash is in every key: editing it must not disturb these tests."""
    place = tmp_path_factory.mktemp("kill")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.fixture(scope="module")
def undisturbed(place):
    folder = place / "whole"
    assert f"{CELLS} of {CELLS} cells" in finish(folder, "--jobs", "1")
    return xr.load_dataset(folder / "sweep.nc", engine="h5netcdf")


def assert_same(folder, undisturbed):
    found = xr.load_dataset(folder / "sweep.nc", engine="h5netcdf")
    xr.testing.assert_identical(found.drop_attrs(), undisturbed.drop_attrs())
    assert found.attrs["cells"] == f"{CELLS} of {CELLS}" and len(kept(folder)) == CELLS


def test_killed_inside_a_write(place, undisturbed):
    folder = place / "inside"
    process = start(folder, "--jobs", "1", code=DOOMED)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    before = kept(folder)
    assert len(before) == 2 and len(list((folder / "cells").glob("*.part"))) == 1
    assert not (folder / "sweep.nc").exists()
    finish(folder, "--jobs", "1")
    after = kept(folder)
    assert {name: after[name] for name in before} == before  # finished cells did not run again
    assert_same(folder, undisturbed)


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds the workers in /proc")


@needs_proc
def test_the_whole_command_killed_and_then_a_worker(place, undisturbed):
    folder = place / "command"
    process = start(folder, "--jobs", "2")
    wait_for_cells(process, folder, 1)
    workers = family_of(process.pid)
    process.kill()
    process.communicate(timeout=60)
    before = kept(folder)
    end = time.monotonic() + 60
    while any(map(alive, workers)):  # nobody goes on computing for a command that is gone
        assert time.monotonic() < end
        time.sleep(0.1)
    assert len(before) < CELLS, "it was over before it was killed"
    process = start(folder, "--jobs", "2")
    try:
        wait_for_cells(process, folder, len(before) + 1)
        victims = [pid for pid in family_of(process.pid) if "popen_loky" in Path(f"/proc/{pid}/cmdline").read_text()]
        if victims:
            os.kill(victims[0], signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    finally:
        process.kill()
    assert {name: kept(folder)[name] for name in before} == before
    assert_same(folder, undisturbed)


@needs_proc
def test_ctrl_c_says_how_to_go_on(place, undisturbed):
    folder = place / "ctrl_c"
    process = start(folder, "--jobs", "2")
    wait_for_cells(process, folder, 1)
    workers = family_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody in the group hears it
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cells are finished and kept" in err and "run the same command again" in err and "Traceback" not in err
    assert not list((folder / "cells").glob("*.part")) and not any(map(alive, workers))
    with warnings.catch_warnings(action="error"):
        ds = results.load(folder)
    there = ds.finished.values
    assert 0 < there.sum() == len(kept(folder)) < CELLS
    np.testing.assert_array_equal(ds.e_mix.values[there], undisturbed.e_mix.values[there])
