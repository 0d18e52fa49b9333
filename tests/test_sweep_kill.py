"""Stopped at any moment, for real: kill -9 between and inside writes, of the whole command and of workers, and Ctrl-C.

Every test ends with the same numbers, bit for bit, as a run that nobody disturbed.
"""

import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from experiments import results
from tests.sweep_runs import CELLS, assert_same, copy_code, finish, kept, read, start

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
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds the workers in /proc")


def wait_for_cells(process, folder, count):
    end = time.monotonic() + 300
    while len(kept(folder)) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


def parent_and_state(pid):
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, "gone"
    state, parent = text[text.rindex(")") + 2 :].split()[:2]
    return int(parent), state


def workers(process):
    children = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    children = [pid for pid in children if parent_and_state(pid)[0] == process.pid]
    return [pid for pid in children if "popen_loky" in Path(f"/proc/{pid}/cmdline").read_text()]


def assert_gone(pids):
    end = time.monotonic() + 60
    while any(parent_and_state(pid)[1] not in ("Z", "gone") for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("kill")
    copy_code(place)
    return place


@pytest.fixture(scope="module")
def undisturbed(place):
    assert f"{CELLS} of {CELLS} cells" in finish(place / "whole", "--jobs", "1")
    return read(place / "whole")


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


@needs_proc
def test_the_whole_command_killed_and_then_a_worker(place, undisturbed):
    folder = place / "command"
    process = start(folder, "--jobs", "2")
    wait_for_cells(process, folder, 1)
    orphans = workers(process)
    process.kill()
    process.communicate(timeout=60)
    before = kept(folder)
    assert orphans and len(before) < CELLS
    assert_gone(orphans)  # nobody goes on computing for a command that is gone
    process = start(folder, "--jobs", "2")
    try:
        wait_for_cells(process, folder, len(before) + 1)
        if victims := workers(process):
            os.kill(victims[0], signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    finally:
        process.kill()
    assert {name: kept(folder)[name] for name in before} == before
    assert_same(folder, undisturbed)


@needs_proc
def test_ctrl_c_says_how_to_go_on(place, undisturbed):
    folder = place / "interrupted"
    process = start(folder, "--jobs", "2")
    wait_for_cells(process, folder, 1)
    left_behind = workers(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody in the group hears it
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cells are finished and kept in" in err and "run the same command again" in err and "Traceback" not in err
    assert left_behind and not list((folder / "cells").glob("*.part"))
    assert_gone(left_behind)
    with warnings.catch_warnings(action="error"):
        ds = results.load(folder)
    there = ds.finished.values
    assert 0 < there.sum() == len(kept(folder)) < CELLS
    np.testing.assert_array_equal(ds.e_mix.values[there], undisturbed.e_mix.values[there])
