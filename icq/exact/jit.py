"""Compilation of plain loops by numba."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call and remember on disk; without a writable place, remember in memory only."""
    plain = inspect.unwrap(function)  # a type checker wrapped around it cannot be compiled
    try:
        return numba.njit(plain, cache=True, nogil=True)
    except RuntimeError:
        return numba.njit(plain, nogil=True)
