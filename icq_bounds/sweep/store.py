"""Finished cells on disk: one file per cell, written whole or not at all, found again by what was asked.

The key of a cell hashes its complete configuration with the sources and libraries that its numbers rest on, so a
changed cell or changed code never finds an old result.  A file says itself what it holds, and every byte of it is
under a checksum.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import time
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from icq import files
from icq.note import Note

ROOT = Path(__file__).parents[2]
SOURCES = ("icq", "synthetic", "estimators", "bounds")
# Of icq_bounds: what cells run; figures, pages and commands change no number.
MODULES = (
    "sweep/beforehand.py", "sweep/cells.py", "sweep/families.py", "sweep/learning.py", "sweep/measure.py",
    "sweep/methods.py", "diagnosis/diagnosis.py", "workflows/common/recorded.py",
    "workflows/common/table_errors.py", "workflows/n10/literature.py", "workflows/**/*cells.py",
)  # fmt: skip
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pot")
ABOUT = "_about"
STALE = 3600  # seconds after which the remains of a killed write are removed
Arrays = dict[str, np.ndarray]


@cache
def code_version() -> str:
    """A hash of every source file and library version that can change a number."""
    digest = hashlib.sha256()
    sources = [file for package in SOURCES for file in (ROOT / package).rglob("*.py")]
    sources += [file for name in MODULES for file in (ROOT / "icq_bounds").glob(name)]
    for file in sorted(sources):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    digest.update(repr([(name, version(name)) for name in LIBRARIES]).encode())
    return digest.hexdigest()[:16]


def key(cell: Any, code: str | None = None) -> str:
    """Hash of a frozen dataclass (its repr names every field) and the code version, this one unless given."""
    if not dataclasses.is_dataclass(cell):
        raise TypeError(f"a cell is a dataclass, not {type(cell).__name__}")
    return hashlib.sha256(f"{cell!r} {code or code_version()}".encode()).hexdigest()[:20]


class Store:
    """A folder of finished cells of one code version.

    Raises OSError at once when the folder cannot be written, unless it is only read.
    """

    def __init__(self, folder: Path, code: str | None = None, read_only: bool = False) -> None:
        self.folder, self.code, self.read_only = folder, code or code_version(), read_only
        if not read_only:
            trial = folder / f"writable.{token_hex(4)}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                files.write(trial, b"x" * 4096)  # an unwritable folder or a full disk fails here, before work
            except FileExistsError as error:
                raise NotADirectoryError(error.errno, "is a file, a folder is needed", str(folder)) from error
            trial.unlink(missing_ok=True)
            self._sweep_up()

    def _sweep_up(self) -> None:
        """Remove the remains of killed writes; young ones may belong to a run beside this one."""
        for part in self.folder.glob(f"*{files.PART}"):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink(missing_ok=True)

    def room(self, needed: int) -> None:
        """Raise OSError when the disk has not this many bytes left."""
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(28, f"No space left: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free",
                          str(self.folder))  # fmt: skip

    def path(self, cell: Any) -> Path:
        """Where the result of a cell belongs."""
        return self.folder / f"{key(cell, self.code)}.npz"

    def strangers(self, cells: list[Any]) -> int:
        """How many result files belong to none of these cells at this code version."""
        own = {self.path(cell).name for cell in cells}
        return sum(file.name not in own for file in self.folder.glob("*.npz"))

    def get(self, cell: Any) -> Arrays | None:
        """The finished result, or None."""
        found = self.read(cell)
        return found and found[0]

    def read(self, cell: Any) -> tuple[Arrays, dict[str, Any]] | None:
        """The finished result and where it comes from, or None.

        A damaged file is reported, set aside and counts as missing.
        """
        path = self.path(cell)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            about = json.loads(arrays.pop(ABOUT).tobytes())
            if about["cell"] != repr(cell) or about["names"] != sorted(arrays):
                raise ValueError("it holds another cell")
            return arrays, about
        except Exception as error:  # whatever a damaged archive makes of its reader
            warnings.warn(
                f"{path.name} is damaged ({error}); its cell counts as missing and is computed again",
                Note,
                stacklevel=2,
            )
            if not self.read_only:
                path.replace(path.with_suffix(".damaged"))
            return None

    def put(self, cell: Any, result: Arrays, about: Mapping[str, Any] | None = None) -> None:
        """Write a result with what is to be known about it; whole or not at all."""
        said = {**(about or {}), "cell": repr(cell), "code": self.code, "names": sorted(result)}
        buffer = io.BytesIO()
        note = np.frombuffer(json.dumps(said).encode(), np.uint8)
        np.savez_compressed(buffer, allow_pickle=False, **result, **{ABOUT: note})
        files.write(self.path(cell), buffer.getvalue())
