"""The one compiler option the learner's speed depends on, set when `icq` is imported.

XLA on CPU runs every operation of a loop body as a task of its own, unless the loop counts as small: then it becomes
one kernel, more than ten times faster for the learner's loops.  Small is meant in bytes touched, which a long loop over
a small state is not, so the limit is lifted.  Loops that one kernel cannot hold are left alone by the compiler.

The option is handed over inside `--xla_backend_extra_options`, where compilers that do not know it, and those for GPUs,
ignore it.  What a user has put in XLA_FLAGS is kept, and their own value for this option wins.
"""

from __future__ import annotations

import os
import sys
import warnings

OPTION = "xla_cpu_small_while_loop_byte_threshold"
FLAG = f"--xla_backend_extra_options={OPTION}={2**62}"


def with_fast_loops(flags: str) -> str:
    """XLA_FLAGS with the option added, unless it is there already."""
    return flags if OPTION in flags else f"{flags} {FLAG}".strip()


def set_fast_loops() -> None:
    """Add the option to XLA_FLAGS, for this process and those it starts.

    Warns where JAX has read its flags already: results are the same, runs are slower.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if OPTION in flags:
        return
    os.environ["XLA_FLAGS"] = with_fast_loops(flags)
    if _running():
        warnings.warn(
            "JAX was used before icq was imported, so its compiler keeps its settings: results are the same, learning "
            "is many times slower.  Import icq first.",
            stacklevel=3,
        )


def _running() -> bool:
    """Whether JAX has started a backend, which reads XLA_FLAGS once."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", None)
    return started is not None and bool(started())
