"""The folder of a sweep: one process claims it for one question, and what lies in it says itself what it is.

sweep.json    what was asked, in full, and where it first ran; another question is refused
cells/        one file per finished cell
sweep.nc      all of it as one labelled dataset, written at the end (icq_bounds/sweep/dataset.py)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icq import files
from icq_bounds.sweep.spec import Spec

if TYPE_CHECKING:
    import xarray as xr

    from icq_bounds.sweep.store import Store


class OtherSweep(ValueError):
    """The folder holds a sweep with another configuration."""


class Damaged(ValueError):
    """A sweep.nc that cannot be read."""


class Foreign(ValueError):
    """A dataset that no sweep wrote."""


def saved(path: Path, whole: bool = False) -> tuple[Spec, xr.Dataset]:
    """What a sweep.nc says it holds, and the dataset itself, read if `whole`.

    Raises Damaged where it cannot be read, Foreign for the dataset of another program.
    """
    import xarray as xr

    try:
        with xr.open_dataset(path, engine="h5netcdf") as ds:
            found = ds.load() if whole else ds
            said = ds.attrs.get("config")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, PermissionError):
            raise
        raise Damaged(f"{path} is damaged; run the same icq sweep again") from error
    try:
        return Spec.from_json(json.loads(str(said))), found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Foreign(f"{path} was not written by icq sweep") from error


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first field in which two configurations differ, with both values."""
    for name in dict.fromkeys([*there, *here]):
        a, b = there.get(name, "absent"), here.get(name, "absent")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if (found := first_difference(a, b, f"{prefix}{name}.")) is not None:
                return found
            if list(a) != list(b):
                return f"the order of {prefix}{name} is {', '.join(a)} there, {', '.join(b)} here"
        elif a != b or type(a) is not type(b):
            return f"{prefix}{name} is {a} there, {b} here"
    return None


def read_folder(folder: Path) -> tuple[Spec, dict[str, Any]]:
    """What a sweep's folder says it holds: the configuration, and its record (`code`, `provenance`).

    Raises FileNotFoundError where there is no sweep, ValueError for a damaged sweep.json.
    """
    path = folder / "sweep.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        spec = Spec.from_json(said["sweep"])
        if not isinstance(said["code"], str) or not isinstance(said["provenance"], dict):
            raise TypeError("code or provenance")
        return spec, said
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged; remove it and run the same icq sweep again: finished cells are found again"
        ) from error


def claim(spec: Spec, folder: Path) -> tuple[Store, str]:
    """Make a folder this sweep's, or find it so; returns its store, and a note when its code has changed.

    Nothing is written before everything is known to fit.  Of several processes that claim a new folder at once one
    succeeds.  Raises OtherSweep for another configuration and for a claim that came second, OSError for a folder that
    cannot be written or a disk without room.
    """
    from icq_bounds.sweep import provenance, store

    note, path = "", folder / "sweep.json"
    before: dict[str, Any] | None = None
    if path.exists():
        _, before = read_folder(folder)
        _same(before["sweep"], spec, folder)
    else:
        note = _without_description(spec, folder)
    kept = store.Store(folder / "cells")
    missing = [cell for cell in dict.fromkeys(spec.cells()) if not kept.path(cell).exists()]
    kept.room(2 * len(missing) * cell_bytes(spec))
    if before is not None and before["code"] != kept.code and (others := kept.strangers(spec.cells())):
        note = f"the code has changed since this sweep began: {others} older results stay in cells/ and are not used"
    if before is None or before["code"] != kept.code:
        said = {"sweep": spec.as_json(), "code": kept.code, "provenance": provenance.provenance()}
        try:
            files.write(path, (json.dumps(said, indent=2) + "\n").encode(), new=before is None)
        except FileExistsError as error:
            raise OtherSweep(
                f"{folder} was claimed by another process just now; choose a new --out, or wait until it has finished"
            ) from error
    return kept, note


def _same(there: Mapping[str, Any], spec: Spec, folder: Path) -> None:
    if (found := first_difference(there, spec.as_json())) is not None:
        raise OtherSweep(f"{folder} holds another sweep: {found}; choose a new --out")


def _without_description(spec: Spec, folder: Path) -> str:
    """Whether a folder that has lost its sweep.json may become this sweep's: its sweep.nc says what it holds.

    Returns a note when that is damaged, too; it is set aside then.
    """
    path = folder / "sweep.nc"
    if not path.exists():
        return ""
    try:
        there, _ = saved(path)
    except Damaged:
        path.replace(aside := path.with_suffix(".nc.damaged"))
        return f"{path} is damaged and set aside as {aside.name}"
    except Foreign as error:
        raise OtherSweep(f"{error}; choose a new --out") from error
    _same(there.as_json(), spec, folder)
    return ""


def cell_bytes(spec: Spec) -> int:
    """Room that the result of one cell needs at most: four terms of two outputs with four numbers and a word at every
    record, two numbers and a word at every checkpoint.
    """  # fmt: skip
    word, records = 12 * 4, spec.replicas * len(spec.checkpoints)
    each = (4 * 8 + word) * records + (2 * 8 + word) * len(spec.checkpoints)
    return 4 * 2 * each + 8 * (records + spec.replicas + len(spec.checkpoints)) + 16384
