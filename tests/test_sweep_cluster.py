"""The same command on a real Dask scheduler with two worker processes, one of which dies in the middle of a cell."""

import json
import signal
import time

import pytest

from experiments import engine
from experiments.cli import main
from tests.sweep_runs import CELLS, assert_same, copy_code, finish, python, read

distributed = pytest.importorskip("distributed")
# A worker that dies by kill -9 inside its second cell.
DOOMED = """
import os, signal
from experiments.cells import Cell
run, left = Cell.run, [2]
def doomed(cell):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(cell)
Cell.run = doomed
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of the scheduler, the place of the code, the workers."""
    place = tmp_path_factory.mktemp("cluster")
    copy_code(place)
    (place / "doomed.py").write_text(DOOMED)
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
        yield address, place, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_worker_dies_and_the_sweep_finishes_with_every_cell_once(cluster):
    address, place, (doomed, healthy) = cluster
    said = finish(place / "cluster", "--dask", address)
    doomed.wait(timeout=60)
    assert doomed.returncode == -signal.SIGKILL and healthy.poll() is None
    assert f"{CELLS} of {CELLS} cells" in said and f"{CELLS + 1} of" not in said
    finish(place / "alone", "--jobs", "1")
    assert_same(place / "cluster", read(place / "alone"))


def test_nobody_at_the_address(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "PATIENCE", "0.3s")
    with pytest.raises(SystemExit):
        main(["sweep", "--axes", "gap=0,1", "--out", str(tmp_path / "s"), "--dask", "tcp://127.0.0.1:9"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no scheduler answers at tcp://127.0.0.1:9" in said
