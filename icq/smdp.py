"""The IC-SMDP: a finite semi-Markov handoff workflow as a list of outcomes.

Decision epochs are handoffs.  In global state `s` the active agent sees only `o = phi(s)`, picks an option
`a`, and one of `B` outcomes happens: the option lasts `tau` primitive steps, earns `R` (already discounted
inside the option) and hands control over in `s'`.  Notation: docs/theory.md section 1.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from icq import files
from icq.archive import Archive, Unreadable
from icq.display import Fact, Shown, spread
from icq.fields import AXES, LAWS, REQUIRED, ICSMDPError, cast, check_rank, check_shapes, check_values, limit_of

Arr: TypeAlias = jax.Array | np.ndarray


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
        Laws stored in single precision are divided by their sums, with the warning `laws.Normalised`.  Raises
        ICSMDPError naming field, first bad index and value.
        """
        limits = {name: limit_of(value) for name, value in (("prob", prob), ("behaviour", behaviour))}
        fields = {
            "prob": cast("prob", prob), "next_state": cast("next_state", next_state),
            "duration": cast("duration", duration), "reward": cast("reward", reward),
            "observation": cast("observation", observation), "agent": cast("agent", agent),
            "gamma": cast("gamma", gamma),
        }  # fmt: skip
        for name in ("prob", "observation", "agent", "gamma"):
            check_rank(name, fields[name].shape)
        options = fields["prob"].shape[1]
        shape = (fields["agent"].shape[0], options)
        fields["terminal"] = np.zeros(fields["prob"].shape, bool) if terminal is None else cast("terminal", terminal)
        fields["available"] = np.ones(shape, bool) if available is None else cast("available", available)
        if behaviour is None:
            if fields["available"].shape != shape:
                raise ICSMDPError(f"available: shape {fields['available'].shape}, expected (O, A) = {shape}")
            count = np.maximum(fields["available"].sum(1, keepdims=True), 1)
            fields["behaviour"] = fields["available"] / count
        else:
            fields["behaviour"] = cast("behaviour", behaviour)
        check_shapes({name: array.shape for name, array in fields.items()})
        check_values(fields, limits)
        return cls(**fields)

    def validate(self) -> ICSMDP:
        """Return self if it is an IC-SMDP; raise ICSMDPError naming field, first bad index and value."""
        if np.ndim(self.prob) == 4:
            size = self.prob.shape[0]
            for name, axes in AXES.items():
                shape = np.shape(getattr(self, name))
                if len(shape) != 1 + len(axes) or shape[0] != size:
                    raise ICSMDPError(f"{name}: shape {shape}, expected a batch axis of length {size}, then {axes}")
            for i in range(size):
                try:
                    index(self, i).validate()
                except ICSMDPError as error:
                    raise ICSMDPError(f"instance {i}: {error}") from None
            return self
        field = {name: np.asarray(getattr(self, name)) for name in AXES}
        check_shapes({name: array.shape for name, array in field.items()})
        check_values(field, {name: limit_of(field[name]) for name in LAWS})
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` with the field names as keys, whole or not at all."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(getattr(self, name)) for name in AXES})
        files.write(path, file.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ICSMDP:
        """Read an `.npz` written by `save` or by hand; missing optional keys get their defaults.

        Nothing is ever unpickled.  Raises ICSMDPError for a missing or unknown key, an object array or invalid
        values, FileNotFoundError for a missing file.
        """
        with open(path, "rb") as file:
            try:
                fields = _read(Archive(file))
            except Unreadable as error:
                raise ICSMDPError(f"{os.fspath(path)}: {error}") from error
        return cls.create(**fields)

    def _facts_(self) -> list[Fact]:
        return [
            Fact("batch", np.shape(self.prob)[:-3] or None), Fact("states", self.num_states),
            Fact("options", self.num_options), Fact("outcomes", np.shape(self.prob)[-1]),
            Fact("observations", self.num_observations), Fact("agents", self.num_agents),
            Fact("gamma", spread(self.gamma), "per primitive step"),
        ]  # fmt: skip


def _read(archive: Archive) -> dict[str, np.ndarray]:
    """The named arrays of an open archive, keys and shapes checked before data are read."""
    found = archive.promises()
    if unknown := sorted(set(found) - set(AXES)):
        raise ICSMDPError(f"{unknown[0]}: unknown key; the keys are {', '.join(AXES)}")
    if missing := [name for name in REQUIRED if name not in found]:
        raise ICSMDPError(f"{missing[0]}: missing key; required are {', '.join(REQUIRED)}")
    check_shapes({name: promise.shape for name, promise in found.items()})
    return {name: archive.array(name) for name in found}


def stack(instances: Sequence[ICSMDP]) -> ICSMDP:
    """Batch instances of equal shape along a new leading axis.  Raises ValueError when shapes differ."""
    shapes = {tuple(np.shape(leaf) for leaf in jax.tree.leaves(m)) for m in instances}
    if len(shapes) != 1:
        raise ValueError(f"stack: instances of {len(shapes)} different shapes; equal S, A, B and O are needed")
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *instances)


def index(batch: ICSMDP, i: int) -> ICSMDP:
    """Instance `i` of a batch."""
    return jax.tree.map(lambda leaf: np.asarray(np.asarray(leaf)[i]), batch)
