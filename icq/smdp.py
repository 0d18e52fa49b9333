"""The IC-SMDP: a finite semi-Markov handoff workflow as a list of outcomes.

Decision epochs are handoffs.  In global state `s` the active agent sees only `o = phi(s)`, picks an option
`a`, and one of `B` outcomes happens: the option lasts `tau` primitive steps, earns `R` (already discounted
inside the option) and hands control over in `s'`.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, TypeAlias

import jax
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from icq import files
from icq.display import Fact, Shown, spread

Arr: TypeAlias = jax.Array | np.ndarray

REQUIRED = ("prob", "next_state", "duration", "reward", "observation", "agent", "gamma")
OPTIONAL = ("terminal", "available", "behaviour")
_KIND = {
    "prob": "float", "next_state": "int", "duration": "int", "reward": "float", "terminal": "bool",
    "observation": "int", "agent": "int", "available": "bool", "gamma": "float", "behaviour": "float",
}  # fmt: skip
_AXES = {
    "prob": "SAB", "next_state": "SAB", "duration": "SAB", "reward": "SAB", "terminal": "SAB",
    "observation": "S", "agent": "O", "available": "OA", "gamma": "", "behaviour": "OA",
}  # fmt: skip
LAWS = ("prob", "behaviour")
ROW_SUM_TOLERANCE, SINGLE = 1e-9, 1e-5  # of double precision; of single precision, whose rows are then normalised


class ICSMDPError(ValueError):
    """An IC-SMDP that breaks its definition; the message names the field, the first bad index and the value."""


@struct.dataclass
class ICSMDP(Shown):
    """A finite IC-SMDP (docs/theory.md section 1).  Immutable pytree; one optional leading batch axis.

    S global states at handoffs, A options per agent (padded), B outcomes per (s, a), O observations.
    Outcomes of unavailable options are padding: they must be finite but are otherwise ignored.
    """

    prob: Float[Arr, "*batch S A B"]  # P(b|s,a), rows sum to 1
    next_state: Int[Arr, "*batch S A B"]  # global state at the next handoff
    duration: Int[Arr, "*batch S A B"]  # tau >= 1, primitive steps
    reward: Float[Arr, "*batch S A B"]  # sum_{t<tau} gamma^t r_t
    terminal: Bool[Arr, "*batch S A B"]  # the task ended; next_state starts a new task
    observation: Int[Arr, "*batch S"]  # phi(s): what the active agent sees
    agent: Int[Arr, "*batch O"]  # i(o): the agent that acts on o
    available: Bool[Arr, "*batch O A"]  # options the agent has on o
    gamma: Float[Arr, "*batch"]  # discount per primitive step
    behaviour: Float[Arr, "*batch O A"]  # beta(a|o) > 0 exactly on available options

    @property
    def num_states(self) -> int:
        """S, the number of global states."""
        return self.prob.shape[-3]

    @property
    def num_options(self) -> int:
        """A, the padded number of options."""
        return self.prob.shape[-2]

    @property
    def num_observations(self) -> int:
        """O, the number of observations."""
        return self.agent.shape[-1]

    @property
    def num_agents(self) -> int:
        """N, one more than the largest agent index."""
        return int(np.max(np.asarray(self.agent))) + 1

    @classmethod
    def create(
        cls,
        *,
        prob: Any,
        next_state: Any,
        duration: Any,
        reward: Any,
        observation: Any,
        agent: Any,
        gamma: Any,
        terminal: Any = None,
        available: Any = None,
        behaviour: Any = None,
    ) -> ICSMDP:
        """Build and validate an instance from array-likes; float64 and int64 NumPy arrays inside.

        Left out: `terminal` (none), `available` (every option), `behaviour` (uniform over available options).
        Raises ICSMDPError naming field, first bad index and value.
        """
        fields = {
            "prob": _cast("prob", prob), "next_state": _cast("next_state", next_state),
            "duration": _cast("duration", duration), "reward": _cast("reward", reward),
            "observation": _cast("observation", observation), "agent": _cast("agent", agent),
            "gamma": _cast("gamma", gamma),
        }  # fmt: skip
        for name in ("prob", "observation", "agent", "gamma"):
            _check_rank(name, fields[name])
        options = fields["prob"].shape[1]
        shape = (fields["agent"].shape[0], options)
        fields["terminal"] = np.zeros(fields["prob"].shape, bool) if terminal is None else _cast("terminal", terminal)
        fields["available"] = np.ones(shape, bool) if available is None else _cast("available", available)
        if behaviour is None:
            if fields["available"].shape != shape:
                raise ICSMDPError(f"available: shape {fields['available'].shape}, expected (O, A) = {shape}")
            count = np.maximum(fields["available"].sum(1, keepdims=True), 1)
            fields["behaviour"] = fields["available"] / count
        else:
            fields["behaviour"] = _cast("behaviour", behaviour)
        _check_shapes(fields)
        return cls(**fields).validate()

    def validate(self) -> ICSMDP:
        """Return self if it is an IC-SMDP; raise ICSMDPError naming field, first bad index and value."""
        if np.ndim(self.prob) == 4:
            size = self.prob.shape[0]
            for name, axes in _AXES.items():
                shape = np.shape(getattr(self, name))
                if len(shape) != 1 + len(axes) or shape[0] != size:
                    raise ICSMDPError(f"{name}: shape {shape}, expected a batch axis of length {size}, then {axes}")
            for i in range(size):
                try:
                    index(self, i).validate()
                except ICSMDPError as error:
                    raise ICSMDPError(f"instance {i}: {error}") from None
            return self
        field = {name: np.asarray(getattr(self, name)) for name in _AXES}
        _check_shapes(field)
        _check_values(field)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` with the field names as keys, whole or not at all."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(getattr(self, name)) for name in _AXES})
        files.write(path, file.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ICSMDP:
        """Read an `.npz` written by `save` or by hand; missing optional keys get their defaults.

        Nothing is ever unpickled.  Raises ICSMDPError for a missing or unknown key, an object array or invalid
        values, FileNotFoundError for a missing file.
        """
        with open(path, "rb") as file:
            try:
                fields = _read(file)
            except ICSMDPError:
                raise
            except ValueError:
                raise ICSMDPError(f"{os.fspath(path)}: not an .npz archive of plain arrays") from None
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
                raise ICSMDPError(f"{os.fspath(path)}: not a readable .npz archive ({error})") from None
        return cls.create(**fields)

    def _facts_(self) -> list[Fact]:
        return [
            Fact("batch", np.shape(self.prob)[:-3] or None), Fact("states", self.num_states),
            Fact("options", self.num_options), Fact("outcomes", np.shape(self.prob)[-1]),
            Fact("observations", self.num_observations), Fact("agents", self.num_agents),
            Fact("gamma", spread(self.gamma), "per primitive step"),
        ]  # fmt: skip


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The named arrays of an open archive, keys checked, nothing unpickled."""
    loaded = np.load(file, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ICSMDPError("a single array, not an .npz archive of named arrays")
    with loaded as archive:
        keys = set(archive.files)
        if unknown := sorted(keys - set(_AXES)):
            raise ICSMDPError(f"{unknown[0]}: unknown key; the keys are {', '.join(_AXES)}")
        if missing := [name for name in REQUIRED if name not in keys]:
            raise ICSMDPError(f"{missing[0]}: missing key; required are {', '.join(REQUIRED)}")
        fields = {}
        for name in archive.files:
            try:
                fields[name] = archive[name]
            except ValueError as error:
                raise ICSMDPError(f"{name}: {error}") from None
        return fields


def stack(instances: Sequence[ICSMDP]) -> ICSMDP:
    """Batch instances of equal shape along a new leading axis.  Raises ValueError when shapes differ."""
    shapes = {tuple(np.shape(leaf) for leaf in jax.tree.leaves(m)) for m in instances}
    if len(shapes) != 1:
        raise ValueError(f"stack: instances of {len(shapes)} different shapes; equal S, A, B and O are needed")
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *instances)


def index(batch: ICSMDP, i: int) -> ICSMDP:
    """Instance `i` of a batch."""
    return jax.tree.map(lambda leaf: np.asarray(np.asarray(leaf)[i]), batch)


def _cast(name: str, value: Any) -> np.ndarray:
    """The value as float64, int64 or bool; raises when a conversion would change a number."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ICSMDPError(f"{name}: not an array ({error})") from None
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise ICSMDPError(f"{name}: dtype {array.dtype} is not numeric")
    if _KIND[name] == "float":
        wide = array.astype(np.float64)
        return _normalised(wide) if name in LAWS and array.dtype.kind == "f" and array.itemsize < 8 else wide
    if array.dtype.kind == "f":
        bad = ~((np.abs(array) < 2.0**53) & (array == np.round(array)))
        _refuse(name, array, bad, "is not an integer" if _KIND[name] == "int" else "is not true or false")
    if _KIND[name] == "bool":
        _refuse(name, array, (array != 0) & (array != 1), "is not true or false")
        return array.astype(bool)
    return array.astype(np.int64)


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Probabilities that were stored in single precision, whose rows sum to 1 only up to that."""
    total = rows.sum(-1, keepdims=True)
    return np.where(np.abs(total - 1) <= SINGLE, rows / np.where(total > 0, total, 1.0), rows)


def _refuse(name: str, array: np.ndarray, bad: np.ndarray | np.bool_, why: str) -> None:
    """Raise for the first bad index, if there is one."""
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"[{', '.join(map(str, first))}]" if first else ""
        raise ICSMDPError(f"{name}{where} = {array[first]} {why}")


def _check_rank(name: str, array: np.ndarray) -> None:
    if array.ndim != len(_AXES[name]):
        axes = ", ".join(_AXES[name])
        raise ICSMDPError(f"{name}: shape {array.shape}, expected {len(_AXES[name])} axes ({axes})")


def _check_shapes(field: dict[str, np.ndarray]) -> None:
    for name, array in field.items():
        _check_rank(name, array)
    size = dict(zip("SAB", field["prob"].shape)) | {"O": field["agent"].shape[0]}
    for axis, length in size.items():
        if length == 0:
            raise ICSMDPError(f"{'agent' if axis == 'O' else 'prob'}: axis {axis} is empty")
    for name, array in field.items():
        expected = tuple(size[axis] for axis in _AXES[name])
        if array.shape != expected:
            axes = ", ".join(_AXES[name])
            raise ICSMDPError(f"{name}: shape {array.shape}, expected ({axes}) = {expected}")


def _check_values(field: dict[str, np.ndarray]) -> None:
    for name in ("prob", "reward", "gamma", "behaviour"):
        _refuse(name, field[name], ~np.isfinite(field[name]), "is not finite")
    gamma, obs, available = field["gamma"], field["observation"], field["available"]
    _refuse("gamma", gamma, ~((gamma > 0) & (gamma < 1)), "is not inside (0, 1)")
    for name, bound in (("observation", len(field["agent"])), ("next_state", len(obs))):
        bad = (field[name] < 0) | (field[name] >= bound)
        _refuse(name, field[name], bad, f"is outside 0..{bound - 1}")
    _refuse("agent", field["agent"], field["agent"] < 0, "is negative")
    _refuse("duration", field["duration"], field["duration"] < 1, "is less than one primitive step")
    empty = ~available.any(axis=1)
    if empty.any():
        raise ICSMDPError(f"available[{int(np.argmax(empty))}]: the observation has no available option")
    behaviour = field["behaviour"]
    _refuse("behaviour", behaviour, available & (behaviour <= 0), "must be positive: the option is available")
    _refuse("behaviour", behaviour, ~available & (behaviour != 0), "must be 0: the option is not available")
    total = behaviour.sum(1)
    _refuse("behaviour", total, np.abs(total - 1) > ROW_SUM_TOLERANCE, "is the row sum; it must be 1")
    used = available[obs]
    _refuse("prob", field["prob"], used[..., None] & (field["prob"] < 0), "is negative")
    total = field["prob"].sum(-1)
    _refuse("prob", total, used & (np.abs(total - 1) > ROW_SUM_TOLERANCE), "is the row sum; it must be 1")
