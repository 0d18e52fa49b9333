"""The one way a file is written: whole or not at all, through links, and into devices and pipes without replacing them.

A regular file is written beside its place and moved there, so a kill or a full disk at any moment leaves what was
there before.  A symbolic link stays a link and its target is written.  /dev/stdout, a pipe or a device gets the bytes.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from secrets import token_hex

PART = ".part"  # suffix of what is not yet whole
NAME = 40  # letters of a name that are kept in that of its part, which has to fit too
LINKS = 40  # symbolic links followed, as the system does
NEW = 0o666  # permissions of a new file, less those that the user's mask takes


def write(path: str | os.PathLike[str], data: bytes, *, new: bool = False) -> None:
    """Write a file whole or not at all; an old one keeps its permissions.

    new: it must not be there yet; of several processes that try at once exactly one succeeds, the others get
    FileExistsError.  Raises OSError that names the folder and what was to be written there.
    """
    path = Path(path)
    try:
        if (handle := _open_already(path)) is not None:
            _pour(os.dup(handle), data)
        elif (there := _mode(path)) is None or stat.S_ISREG(there):
            path = Path(os.path.realpath(path))
            _replace(path, data, there, new)
        elif stat.S_ISDIR(there):
            raise IsADirectoryError(errno.EISDIR, "Is a folder; name a file in it")
        else:
            _pour(os.open(path, os.O_WRONLY), data)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {path.name})", str(path.parent)) from error


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Whether a file is the standard output, so that nothing else should be said there."""
    return _open_already(Path(path)) == 1


def _mode(path: Path) -> int | None:
    """Kind and permissions of what a path leads to; None where nothing is.  Raises OSError for links in a circle."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _open_already(path: Path) -> int | None:
    """The number of the open file that /dev/stdout, /dev/fd/N or a link to one of them stands for."""
    own = (f"/proc/{os.getpid()}/fd", "/proc/self/fd")
    for _ in range(LINKS):
        folder = os.path.realpath(path.parent)
        if folder in own and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, os.readlink(path))
    return None


def _pour(handle: int, data: bytes) -> None:
    """Write into what is open, after what this process has printed so far; closes it."""
    with os.fdopen(handle, "wb") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        file.write(data)


def _replace(path: Path, data: bytes, there: int | None, new: bool) -> None:
    if there is not None and path.exists() and not os.access(path, os.W_OK):  # somebody may have taken it away
        raise PermissionError(errno.EACCES, "Permission denied")
    part = path.with_name(f".{path.name[:NAME]}.{token_hex(4)}{PART}")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if there is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(there))
        if new:
            _take(part, path)
        else:
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _take(part: Path, path: Path) -> None:
    """Give a file its name unless somebody has it; atomic with its content wherever the disk knows hard links."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without them
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW))
        os.replace(part, path)
