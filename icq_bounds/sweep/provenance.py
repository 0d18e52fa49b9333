"""Where numbers come from: versions, commit, flags and the kind of machine; never a path or the name of a host."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icq.learn import flags
from icq_bounds.sweep.store import ROOT, code_version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "xarray", "h5netcdf")


def provenance() -> dict[str, Any]:
    """What a result should say about its origin.

    commit: the checked-out commit, `-dirty` when files differ from it; null outside a checkout, where `code`, a hash
    of the sources and numerical libraries, stands in for it.
    """
    return {
        "icq-bounds": version("icq-bounds"),
        "code": code_version(),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "xla_flags": xla_flags(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str | None:
    """The commit of the checkout that holds this file, if one does."""

    def git(*words: str) -> str | None:
        said = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return said.stdout.strip() if said.returncode == 0 else None

    try:
        if git("ls-files", "--error-unmatch", str(Path(__file__).relative_to(ROOT))) is None:
            return None  # installed inside somebody else's checkout
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except OSError:
        return None


def machine() -> str:
    """System, processor model and cores."""
    return f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores"


def processor() -> str:
    """The processor's model name, or what the platform calls it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown processor"


def xla_flags() -> str:
    """The XLA flags that this process's compiler read, with values that are paths left out."""
    return " ".join(re.sub(r"=\S*[/\\]\S*", "=(path)", word) for word in flags.in_force().split())
