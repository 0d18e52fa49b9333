"""Finished cells on disk: one file per cell, written whole or not at all, found again by what was asked.

The key of a cell hashes its complete configuration and the source of the packages, so a changed cell or changed code
never finds an old result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("icq", "synthetic", "estimators", "bounds", "experiments")
Arrays = dict[str, np.ndarray]


@cache
def code_version() -> str:
    """A hash of every source file that can change a number."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted(f for package in PACKAGES for f in (root / package).rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def key(cell: Any) -> str:
    """Hash of a frozen dataclass (its repr names every field) and the code version."""
    if not dataclasses.is_dataclass(cell):
        raise TypeError(f"a cell is a dataclass, not {type(cell).__name__}")
    return hashlib.sha256(f"{cell!r} {code_version()}".encode()).hexdigest()[:20]


class Store:
    """A folder of finished cells.  Raises OSError at once when the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # an unwritable folder fails here, before any work

    def path(self, cell: Any) -> Path:
        """Where the result of a cell belongs."""
        return self.folder / f"{key(cell)}.npz"

    def get(self, cell: Any) -> Arrays | None:
        """The finished result, or None.  A damaged file is reported, set aside and counts as missing."""
        path = self.path(cell)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path.name} is damaged ({error}); the cell is computed again", stacklevel=2)
            path.rename(path.with_suffix(".damaged"))
            return None

    def put(self, cell: Any, result: Arrays) -> None:
        """Write a result; a kill at any moment leaves either the whole file or none."""
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **result)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path(cell))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
