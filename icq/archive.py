"""Named arrays of an `.npz` file: what its headers promise is compared before any data are read.

Nothing is ever unpickled, and no promise of a header is taken for memory: a file of a few kilobytes may announce
terabytes.
"""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

SUFFIX, MAGIC = ".npy", b"\x93NUMPY"
WORDS = {"O": "Python objects", "U": "text", "S": "text", "c": "complex numbers", "M": "dates", "m": "dates"}
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Unreadable(ValueError):
    """A file that is no archive of plain arrays; the message says what is wrong, with the name of the array if any."""


@dataclass(frozen=True)
class Promise:
    """What the header of an array says: its shape, its type, and the bytes of its data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bytes: int


class Archive:
    """An open archive: the promises of its headers by name, and then its arrays.  Raises Unreadable."""

    def __init__(self, file: BinaryIO) -> None:
        if file.read(len(MAGIC)) == MAGIC:
            raise Unreadable("a single array, not an .npz archive of named arrays")
        file.seek(0)
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # whatever zipfile makes of a broken directory
            raise Unreadable("not an .npz archive of plain arrays") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = member.filename.removesuffix(SUFFIX)
            if name in self._members:
                raise Unreadable(f"{name}: is in the archive twice")
            self._members[name] = member

    def promises(self) -> dict[str, Promise]:
        """What every header says, once its member is found to have as many bytes and all of them to fit in memory."""
        found = {name: self._promise(name) for name in self._members}
        if (needed := sum(promise.bytes for promise in found.values())) > (there := memory()):
            raise Unreadable(f"its arrays need {size(needed)}, this machine has {size(there)} of memory")
        return found

    def _promise(self, name: str) -> Promise:
        member = self._members[name]
        try:
            with self._zip.open(member) as stream:
                shape, _, dtype = READERS[np.lib.format.read_magic(stream)](stream)
                held = member.file_size - stream.tell()
        except Exception as error:  # headers are Python source, and anything can be wrong with that or with the bytes
            raise Unreadable(f"{name}: not a readable array of an .npz archive") from error
        if dtype.kind not in "biuf":
            raise Unreadable(f"{name}: holds {words(dtype)}; only plain numbers are read")
        if any(length < 0 for length in shape):
            raise Unreadable(f"{name}: its header says shape {shape}")
        promised = math.prod(shape) * dtype.itemsize
        if promised != held:
            raise Unreadable(f"{name}: its header promises {size(promised)} of data, the file holds {size(held)}")
        return Promise(tuple(map(int, shape)), dtype, promised)

    def array(self, name: str) -> np.ndarray:
        """The data of a member whose promise was looked at."""
        try:
            with self._zip.open(self._members[name]) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:
            raise Unreadable(f"{name}: its data are damaged") from error


def words(dtype: np.dtype[Any]) -> str:
    """What values of a type that is no plain number are."""
    return WORDS.get(dtype.kind, f"values of type {dtype}")


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def size(count: int) -> str:
    """Bytes as a person says them."""
    for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")):
        if count < 1024 ** (power + 1):
            return f"{count / 1024**power:.4g} {unit}"
    return f"{count / 1024**5:.3g} PiB"
