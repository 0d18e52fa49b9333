"""The one compiler option the learner's speed depends on, handed to the compiler when `icq` is imported.

XLA on CPU runs every operation of a loop body as a task of its own, unless the loop counts as small: then it becomes
one kernel, up to ten times faster for the learner's loops.  Small is meant in bytes touched, which a long loop over
a small state is not, so the limit is lifted.  Loops that one kernel cannot hold are left alone by the compiler.

The option exists only inside `--xla_backend_extra_options`, a field that `jax.jit(compiler_options=...)` cannot set; a
test says so.  XLA reads XLA_FLAGS once in the life of a process, so the option is there while it reads, and gone
afterwards: the environment, and with it every child, stays the user's.  What they have put in XLA_FLAGS before is kept,
their own value for this option wins, and compilers that do not know it, and those for GPUs, ignore it.
"""

from __future__ import annotations

import os
import warnings

from icq.note import Note

_QUIET = "TF_CPP_MIN_LOG_LEVEL"
_level = os.environ.get(_QUIET)
os.environ.setdefault(_QUIET, "1")  # as JAX does before it loads the compiler, which otherwise tells every start

from jaxlib import xla_client  # noqa: E402

if _level is None:
    del os.environ[_QUIET]

OPTION = "xla_cpu_small_while_loop_byte_threshold"
FLAG = f"--xla_backend_extra_options={OPTION}={2**62}"

_given = ""  # XLA_FLAGS as the compiler read them, as far as this process can tell


def in_force() -> str:
    """The flags of this process's compiler: XLA_FLAGS when `icq` was imported, and the option if it arrived."""
    return with_fast_loops(_given) if compiler_has_option() else _given


def with_fast_loops(flags: str) -> str:
    """XLA_FLAGS with the option added, unless it is there already."""
    return flags if OPTION in flags else f"{flags} {FLAG}".strip()


def compiler_has_option() -> bool:
    """Whether new programs are compiled with some value of the option.  Makes XLA read its flags; starts no backend."""
    return OPTION.encode() in xla_client.CompileOptions().SerializeAsString()


def set_fast_loops() -> None:
    """Let XLA read XLA_FLAGS, once, with the option added; the environment is afterwards what it was.

    Warns where XLA has read its flags already: results are the same, runs are slower.
    """
    global _given
    before = os.environ.get("XLA_FLAGS")
    _given = before or ""
    os.environ["XLA_FLAGS"] = with_fast_loops(_given)
    try:
        arrived = compiler_has_option()
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before
    if not arrived:
        warnings.warn(
            "JAX was used before icq was imported, so its compiler keeps its settings: results are the same, learning "
            "is many times slower.  Import icq first.",
            Note,
            stacklevel=3,
        )
