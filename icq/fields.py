"""The fields of an IC-SMDP: their types, axes and values, and how what breaks them is named.

Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from icq import laws
from icq.archive import words

REQUIRED = ("prob", "next_state", "duration", "reward", "observation", "agent", "gamma")
OPTIONAL = ("terminal", "available", "behaviour")
KIND = {
    "prob": "float", "next_state": "int", "duration": "int", "reward": "float", "terminal": "bool",
    "observation": "int", "agent": "int", "available": "bool", "gamma": "float", "behaviour": "float",
}  # fmt: skip
AXES = {
    "prob": "SAB", "next_state": "SAB", "duration": "SAB", "reward": "SAB", "terminal": "SAB",
    "observation": "S", "agent": "O", "available": "OA", "gamma": "", "behaviour": "OA",
}  # fmt: skip
LAWS = ("prob", "behaviour")
LARGEST = 2**31 - 1  # duration of an option and number of outcomes: the learner counts in 32 bits
REWARD_LIMIT = 1e100  # beyond it squares of values and their products overflow


class ICSMDPError(ValueError):
    """An IC-SMDP that breaks its definition; the message names the field, the first bad index and the value."""


def cast(name: str, value: Any) -> np.ndarray:
    """The value as float64, int64 or bool; raises when a conversion would change a number."""
    array = _array(name, value)
    if array.dtype.kind not in "biuf":
        raise ICSMDPError(f"{name}: {words(array.dtype)}, not plain numbers; give integers or floats")
    if KIND[name] == "float":
        return laws.normalised(name, array) if name in LAWS else array.astype(np.float64)
    if array.dtype.kind == "u":
        _refuse(name, array, array > LARGEST, f"is above {LARGEST}")
    if array.dtype.kind == "f":
        bad = ~((np.abs(array) < 2.0**53) & (array == np.round(array)))
        _refuse(name, array, bad, "is not an integer" if KIND[name] == "int" else "is not true or false")
    if KIND[name] == "bool":
        _refuse(name, array, (array != 0) & (array != 1), "is not true or false")
        return array.astype(bool)
    return array.astype(np.int64)


def _array(name: str, value: Any) -> np.ndarray:
    if sp.issparse(value):
        raise ICSMDPError(f"{name}: a sparse matrix; give a dense array (from_matrices takes sparse ones)")
    if np.ma.is_masked(value):
        raise ICSMDPError(f"{name}: some numbers are masked; fill them in, masked entries have no value")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ICSMDPError(f"{name}: not an array; give rows of equal length") from error


def limit_of(value: Any) -> float:
    """How far rows of this law may be from summing to 1, by the precision that it comes in."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", ())
    return laws.tolerance(dtype, shape[-1]) if shape and isinstance(dtype, np.dtype) else laws.TOLERANCE


def _refuse(name: str, array: np.ndarray, bad: np.ndarray | np.bool_, why: str) -> None:
    """Raise for the first bad index, if there is one."""
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"[{', '.join(map(str, first))}]" if first else ""
        raise ICSMDPError(f"{name}{where} = {array[first]} {why}")


def check_rank(name: str, shape: tuple[int, ...]) -> None:
    """Raise ICSMDPError unless a field has as many axes as it should."""
    if len(shape) != len(AXES[name]):
        axes = ", ".join(AXES[name])
        raise ICSMDPError(f"{name}: shape {shape}, expected {len(AXES[name])} axes ({axes})")


def check_shapes(found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ICSMDPError for a field, by name, whose shape does not fit `prob` and `agent`."""
    for name, shape in found.items():
        check_rank(name, shape)
    size = dict(zip("SAB", found["prob"])) | {"O": found["agent"][0]}
    for axis, length in size.items():
        if length == 0:
            raise ICSMDPError(f"{'agent' if axis == 'O' else 'prob'}: axis {axis} is empty")
    if math.prod(found["prob"]) > LARGEST:
        raise ICSMDPError(f"prob: shape {found['prob']} has more than {LARGEST} outcomes, which are counted in 32 bits")
    for name, shape in found.items():
        expected = tuple(size[axis] for axis in AXES[name])
        if shape != expected:
            axes = ", ".join(AXES[name])
            raise ICSMDPError(f"{name}: shape {shape}, expected ({axes}) = {expected}")


def check_values(field: Mapping[str, np.ndarray], limits: Mapping[str, float]) -> None:
    """Raise ICSMDPError for the first bad value of a field; limits: how far rows of a law may be from summing to 1."""
    for name in ("prob", "reward", "gamma", "behaviour"):
        _refuse(name, field[name], ~np.isfinite(field[name]), "is not finite")
    gamma, obs, available = field["gamma"], field["observation"], field["available"]
    _refuse("gamma", gamma, ~((gamma > 0) & (gamma < 1)), "is not inside (0, 1)")
    for name, bound in (("observation", len(field["agent"])), ("next_state", len(obs))):
        bad = (field[name] < 0) | (field[name] >= bound)
        _refuse(name, field[name], bad, f"is outside 0..{bound - 1}")
    _check_agents(field["agent"])
    _refuse("duration", field["duration"], field["duration"] < 1, "is less than one primitive step")
    _refuse("duration", field["duration"], field["duration"] > LARGEST, f"is above {LARGEST} primitive steps")
    empty = ~available.any(axis=1)
    if empty.any():
        raise ICSMDPError(f"available[{int(np.argmax(empty))}]: the observation has no available option")
    behaviour = field["behaviour"]
    _refuse("behaviour", behaviour, available & (behaviour <= 0), "must be positive: the option is available")
    _refuse("behaviour", behaviour, ~available & (behaviour != 0), "must be 0: the option is not available")
    _check_sums("behaviour", behaviour, limits, np.ones(len(behaviour), bool))
    used = available[obs]
    _refuse("prob", field["prob"], used[..., None] & (field["prob"] < 0), "is negative")
    _check_sums("prob", field["prob"], limits, used)
    huge = used[..., None] & (np.abs(field["reward"]) > REWARD_LIMIT)
    _refuse("reward", field["reward"], huge, f"is outside -{REWARD_LIMIT:g}..{REWARD_LIMIT:g}; choose a larger unit")


def _check_sums(name: str, rows: np.ndarray, limits: Mapping[str, float], used: np.ndarray) -> None:
    total, limit = rows.sum(-1, dtype=np.float64), limits[name]
    bad = used & laws.off(total, limit)
    if bad.any():
        _refuse(name, total, bad, f"is the row sum; {laws.remedy(float(total[bad][0]), limit)}")


def _check_agents(agent: np.ndarray) -> None:
    """Agents are 0..N-1, each with an observation: their number is the size of tables."""
    _refuse("agent", agent, agent < 0, "is negative")
    ids = np.unique(agent)
    if len(holes := np.flatnonzero(ids != np.arange(len(ids)))):
        first, above = int(holes[0]), int(ids[holes[0]])
        where = int(np.argmax(agent == above))
        raise ICSMDPError(
            f"agent[{where}] = {above}, but no observation belongs to agent {first}: agent ids are 0..N-1 without "
            "holes; numpy.unique(agent, return_inverse=True)[1] renumbers them"
        )
