"""What the recorder takes for each column: checked by hand at the call, in plain Python, and exact or refused.

Standard library only, as the recorder.  Every function raises LogError naming the field.
"""

from __future__ import annotations

import math
from typing import Any

from estimators.logs.schema import LogError


def _plain(value: Any) -> Any:
    """Array and tensor scalars as Python numbers, arrays as lists."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value


def identity(name: str, value: Any) -> str | int:
    """Text, or an integer from 0."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; an id is text or an integer")
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise LogError(f"{name}: {_short(value)} is not in 0..2^63-1; use text for such ids")
    if isinstance(value, str):
        _check_text(name, value)
        return str(value)
    return int(value)


def view(name: str, value: Any) -> str | int | list[float]:
    """An id, or a vector of finite numbers."""
    value = _plain(value)
    if isinstance(value, list | tuple):
        if not value:
            raise LogError(f"{name}: an empty vector")
        return [number(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    return identity(name, value)


def integer(name: str, value: Any, least: int) -> int:
    """A whole number from `least` that fits 31 bits."""
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; an integer is needed")
    if not least <= value < 2**31:
        raise LogError(f"{name}: {_short(value)} is not in {least}..{2**31 - 1}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number that float64 keeps as it is."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; a number is needed")
    try:
        real = float(value)
    except OverflowError:
        raise LogError(f"{name}: {_short(value)} is beyond the largest number, about 1.8e308") from None
    if not math.isfinite(real):
        raise LogError(f"{name}: {value} is not finite")
    if real != value:
        raise LogError(f"{name}: {_short(value)} has more digits than a number keeps; use text for ids, or a float")
    return real


def truth(name: str, value: Any) -> bool:
    """True or False."""
    value = _plain(value)
    if not isinstance(value, bool):
        raise LogError(f"{name}: {value!r} is a {type(value).__name__}; True or False is needed")
    return value


def json_value(name: str, value: Any) -> Any:
    """Any JSON value, copied, so that what the loop changes later is not recorded."""
    try:
        return _copied(name, value)
    except RecursionError:
        raise LogError(f"{name}: not a JSON value (it is nested too deeply, or contains itself)") from None


def _copied(name: str, value: Any) -> Any:
    value = _plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_text(name, value)
        return str(value)
    if isinstance(value, int):
        if abs(value) >= 10**4000:  # no parser reads it back
            raise LogError(f"{name}: not a JSON value ({_short(value)} is too large; use text)")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise LogError(f"{name}: not a JSON value ({value} is not finite)")
        return float(value)
    if isinstance(value, list | tuple):
        return [_copied(name, each) for each in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise LogError(f"{name}: not a JSON value (the key {key!r} is not text)")
            _check_text(name, key)
        return {str(key): _copied(name, each) for key, each in value.items()}
    raise LogError(f"{name}: not a JSON value (a {type(value).__name__} cannot be written)")


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LogError(f"{name}: {value!r} holds half of a surrogate pair, which is no text") from None


def _short(value: float) -> str:
    return str(value) if abs(value) < 10**60 else "an integer of more than 60 digits"
