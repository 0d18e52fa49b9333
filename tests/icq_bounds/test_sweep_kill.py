"""Stopped at any moment, for real: kill -9 between and inside writes, of the whole command, of its workers and of
workers of a Dask cluster, and Ctrl-C.  Every test ends with the same numbers, bit for bit, as an undisturbed run.
"""

import json
import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from icq_bounds.sweep import dataset
from tests.sweep_runs import CELLS, assert_same, copy_code, finish, kept, python, read, start

pytestmark = pytest.mark.compiles

# Dies by kill -9 on the doorstep: the third result is written in full but does not have its name yet.
DOOMED = """
import os, signal
from icq_bounds.cli import main
rename, left = os.replace, [3]
def doomed(source, target):
    left[0] -= str(target).endswith(".npz")
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = doomed
main()
"""
# Waits after every result that it keeps, so that there is time to stop it on a machine of any speed.
WAITING = """
import time
from icq_bounds.cli import main
from icq_bounds.sweep.store import Store
put = Store.put
def waiting(store, *arguments):
    put(store, *arguments)
    (store.folder.parent / "waiting").touch()
    time.sleep(60)
Store.put = waiting
main()
"""
# Preloaded by a worker of a cluster: dies by kill -9 inside its second cell.
DOOMED_WORKER = """
import os, signal
from icq_bounds.sweep.cells import Cell
run, left = Cell.run, [2]
def doomed(cell):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(cell)
Cell.run = doomed
"""
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds the workers in /proc")


def wait_for_cells(process, folder, count):
    end = time.monotonic() + 300
    while len(kept(folder)) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


def wait_until_it_waits(process, folder):
    end = time.monotonic() + 300
    while not (folder / "waiting").exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)  # from the mark to the waiting itself


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
    process = start(folder, "--jobs", "2", code=WAITING)
    wait_until_it_waits(process, folder)
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
    process = start(folder, "--jobs", "2", code=WAITING)
    wait_until_it_waits(process, folder)
    left_behind = workers(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody in the group hears it
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cells are finished and kept in" in err and "run the same command again" in err and "Traceback" not in err
    assert left_behind and not list((folder / "cells").glob("*.part"))
    assert_gone(left_behind)
    with warnings.catch_warnings(action="error"):
        ds = dataset.load(folder)
    there = ds.finished.values
    assert 0 < there.sum() == len(kept(folder)) < CELLS
    np.testing.assert_array_equal(ds.observed.values[there], undisturbed.observed.values[there])


@pytest.fixture
def cluster(place):
    """Address of a scheduler, and its workers: one that is doomed and a healthy one."""
    distributed = pytest.importorskip("distributed")
    (place / "doomed.py").write_text(DOOMED_WORKER)
    meeting = place / "scheduler.json"
    processes = [
        python(place, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
               "--no-jupyter", "--scheduler-file", str(meeting))
    ]  # fmt: skip
    for extra in (("--preload", str(place / "doomed.py")), ()):
        processes.append(
            python(place, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(meeting), "--nthreads", "1",
                   "--no-nanny", "--no-dashboard", "--local-directory", str(place), *extra)
        )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not meeting.exists():
            assert processes[0].poll() is None and time.monotonic() < end
            time.sleep(0.05)
        address = json.loads(meeting.read_text())["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_worker_of_a_cluster_dies_and_every_cell_counts_once(cluster, place, undisturbed):
    address, (doomed, healthy) = cluster
    said = finish(place / "cluster", "--dask", address)
    doomed.wait(timeout=60)
    assert doomed.returncode == -signal.SIGKILL and healthy.poll() is None
    assert f"{CELLS} of {CELLS} cells" in said and f"{CELLS + 1} of" not in said
    assert_same(place / "cluster", undisturbed)
