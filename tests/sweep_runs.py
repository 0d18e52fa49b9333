"""A tiny sweep run by the real command in its own process, beside others or killed: shared by the tests that do that.

The code is copied first: its hash is part of every key, and editing it must not disturb these tests.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import xarray as xr

ROOT = Path(__file__).parents[1]
PACKAGES = ("icq", "synthetic", "estimators", "bounds", "icq_bounds")
COMMAND = (
    "sweep", "--axes", "gap=0:1:3", "iid=false,true", "--fix", "agents=2", "clusters=2", "--replicas", "2",
    "--checkpoints", "16", "64",
)  # fmt: skip
CELLS = 6
PLAIN = "from icq_bounds.cli import main; main()"


def copy_code(place):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / "code" / package)


def python(place, *arguments):
    """A Python process that imports the copied code."""
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=place / "code",
    )  # fmt: skip


def start(folder, *more, code=PLAIN):
    return python(folder.parent, "-c", code, *COMMAND, "--out", str(folder), *more)


def finish(folder, *more):
    process = start(folder, *more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def kept(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.npz")}


def read(folder):
    return xr.load_dataset(folder / "sweep.nc", engine="h5netcdf")


def assert_same(folder, undisturbed):
    found = read(folder)
    xr.testing.assert_identical(found.drop_attrs(), undisturbed.drop_attrs())
    assert found.attrs["cells"] == f"{CELLS} of {CELLS}" and len(kept(folder)) == CELLS
