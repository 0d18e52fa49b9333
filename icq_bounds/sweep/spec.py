"""A sweep: every combination of the values of its axes is a cell, with the same replicas and checkpoints.

A sweep lives in a folder:

    sweep.json    what was asked, in full, and where it first ran; another question is refused
    cells/        one file per finished cell
    sweep.nc      all of it as one labelled dataset, written at the end (icq_bounds/sweep/dataset.py)

Replicas are seeds 0, 1, ... in every cell, so that cells are compared on common random numbers.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icq_bounds.sweep import axes as axis
from icq_bounds.sweep.axes import Value
from icq_bounds.sweep.families import FAMILIES, Family
from icq_bounds.sweep.learning import Learning

if TYPE_CHECKING:
    from icq_bounds.sweep.cells import Cell
    from icq_bounds.sweep.store import Store

NETWORK = ("width", "depth", "inputs", "reference_iterations", "training", "scale")
FILE_KEYS = ("family", "axes", "fix", "replicas", "handoffs", "checkpoints")
REPLICAS, HANDOFFS, MOST_CELLS = 8, 65536, 100_000


class OtherSweep(ValueError):
    """The folder holds a sweep with another configuration."""


@dataclass(frozen=True)
class Spec:
    """What is asked: a family, values of the axes in order, every other setting, replicas and checkpoints."""

    family: str
    axes: tuple[tuple[str, tuple[Value, ...]], ...]
    fixed: tuple[tuple[str, Value | None], ...]
    replicas: int
    checkpoints: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis."""
        return tuple(len(values) for _, values in self.axes)

    def points(self) -> Iterator[dict[str, Value]]:
        """Every combination of the axes' values, the last axis fastest."""
        names = [name for name, _ in self.axes]
        return (dict(zip(names, chosen, strict=True)) for chosen in product(*(values for _, values in self.axes)))

    def cells(self) -> list[Cell]:
        """The cell of every point; points that differ in nothing the cell uses have equal cells, and run once."""
        from icq_bounds.sweep.cells import Cell

        found = []
        for family, learning in self._settings():
            found.append(
                Cell(learning.build(), self.replicas, self.checkpoints, family, learning.iid, learning.learner())
            )
        return found

    def _settings(self) -> Iterator[tuple[Family, Learning]]:
        own = FAMILIES[self.family].__dataclass_fields__
        for point in self.points():
            chosen = dict(self.fixed) | point
            family = FAMILIES[self.family](**{name: value for name, value in chosen.items() if name in own})
            yield family.used(), Learning(**{name: value for name, value in chosen.items() if name not in own})  # type: ignore[arg-type]  # values are checked when read

    def check(self) -> None:
        """Raise ValueError for a value outside its range, or an axis that no cell uses, before any work."""
        from icq.coerce import count

        count("replicas", self.replicas)
        grid = tuple(count("checkpoints", k) for k in self.checkpoints)
        if (cells := math.prod(self.shape)) > MOST_CELLS:
            raise ValueError(f"axes: {cells} cells, at most {MOST_CELLS} make a sweep; take fewer values")
        if not grid or grid[0] < 1 or any(a >= b for a, b in pairwise(grid)):
            raise ValueError(f"checkpoints = {list(grid)} must be positive and increasing")
        for family, learning in dict.fromkeys(self._settings()):
            family.check()
            learning.check()
        every = set(self.cells())
        for name, values in self.axes:
            if len(values) > 1:
                one = tuple((n, v[:1] if n == name else v) for n, v in self.axes)
                if set(replace(self, axes=one).cells()) == every:
                    raise ValueError(f"axis {name} changes nothing here: {self._unused(name)}")

    def _unused(self, name: str) -> str:
        chosen = dict(self.axes) | {key: (value,) for key, value in self.fixed}
        setting = axis.known(self.family)[name]
        if setting.learning:
            classes = ", ".join(map(str, chosen["function_class"]))
            return f"function_class is {classes}; add another one, or leave the axis out"
        return f"{setting.meaning.rstrip('.')}; leave it out, or change the settings it belongs to"

    def as_json(self) -> dict[str, Any]:
        """The full configuration."""
        return {
            "family": self.family, "axes": {name: list(values) for name, values in self.axes},
            "fixed": dict(self.fixed), "replicas": self.replicas, "checkpoints": list(self.checkpoints),
        }  # fmt: skip

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Spec:
        """The inverse of `as_json`."""
        return Spec(
            said["family"], tuple((name, tuple(values)) for name, values in said["axes"].items()),
            tuple(said["fixed"].items()), said["replicas"], tuple(said["checkpoints"]),
        )  # fmt: skip


def ask(
    family: str = "dials",
    axes: Mapping[str, tuple[Value, ...]] | None = None,
    fix: Mapping[str, tuple[Value, ...]] | None = None,
    replicas: int = REPLICAS,
    handoffs: int = HANDOFFS,
    checkpoints: tuple[int, ...] | None = None,
) -> Spec:
    """The checked sweep over these axes; every setting that is neither an axis nor fixed has its default.

    An axis of networks (width, say) implies function_class = network, `features` the linear class.  Checkpoints left
    out: seven, by doubling, up to `handoffs`.  Raises ValueError naming what is wrong.
    """
    axes, fix = dict(axes or {}), dict(fix or {})
    fixed: dict[str, Value | None] = {name: setting.default for name, setting in axis.known(family).items()}
    if both := [name for name in fix if name in axes]:
        raise ValueError(f"{both[0]} is an axis and fixed at once")
    for name, values in fix.items():
        if len(values) != 1:
            raise ValueError(f"fix: {name} has {len(values)} values; what varies goes under --axes")
        fixed[name] = values[0]
    if "function_class" not in axes and "function_class" not in fix:
        fixed["function_class"] = _implied_class([*axes, *fix])
    for name in axes:
        del fixed[name]
    if checkpoints is None:
        from icq.coerce import count

        handoffs = count("handoffs", handoffs)
        checkpoints = tuple(sorted({max(1, handoffs >> k) for k in range(7)}))
    spec = Spec(family, tuple(axes.items()), tuple(fixed.items()), replicas, checkpoints)
    spec.check()
    return spec


def _implied_class(names: list[str]) -> str:
    networks = [name for name in names if name in NETWORK]
    if networks and "features" in names:
        raise ValueError(f"{networks[0]} and features: say which, e.g. --axes function_class=features,network")
    return "network" if networks else "features" if "features" in names else "table"


def read_file(path: Path) -> dict[str, Any]:
    """The keys of a TOML file.  Raises ValueError naming an unknown key or a wrong type."""
    try:
        said = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    kinds = {"family": str, "axes": dict, "fix": dict, "replicas": int, "handoffs": int, "checkpoints": list}
    for name, value in said.items():
        if name not in kinds:
            raise ValueError(f"{path}: unknown key {name!r}; known are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ValueError(f"{path}: {name} is {value!r}, a {kinds[name].__name__} is needed")
    return said


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first field in which two configurations differ, with both values."""
    for name in dict.fromkeys([*there, *here]):
        a, b = there.get(name, "absent"), here.get(name, "absent")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if (found := first_difference(a, b, f"{prefix}{name}.")) is not None:
                return found
            if list(a) != list(b):
                return f"the order of {prefix}{name} is {', '.join(a)} there, {', '.join(b)} here"
        elif a != b or type(a) is not type(b):
            return f"{prefix}{name} is {a} there, {b} here"
    return None


def read_folder(folder: Path) -> tuple[Spec, dict[str, Any]]:
    """What a sweep's folder says it holds: the configuration, and its record (`code`, `provenance`).

    Raises FileNotFoundError where there is no sweep, ValueError for a damaged sweep.json.
    """
    path = folder / "sweep.json"
    try:
        said = json.loads(path.read_text())
        return Spec.from_json(said["sweep"]), said
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it and run the same command: finished cells are found again"
        ) from error


def claim(spec: Spec, folder: Path) -> tuple[Store, str]:
    """Make a folder this sweep's, or find it so; returns its store, and a note when its code has changed.

    Nothing is written before everything is known to fit.  Raises OtherSweep for another configuration, OSError for a
    folder that cannot be written or a disk without room.
    """
    from icq_bounds.sweep import provenance, store

    note, path = "", folder / "sweep.json"
    before: dict[str, Any] | None = None
    if path.exists():
        _, before = read_folder(folder)
        if (found := first_difference(before["sweep"], spec.as_json())) is not None:
            raise OtherSweep(f"{folder} holds another sweep: {found}; choose a new --out")
    elif (folder / "sweep.nc").exists():
        raise OtherSweep(f"{folder} holds a sweep.nc without its sweep.json; choose a new --out")
    kept = store.Store(folder / "cells")
    missing = [cell for cell in dict.fromkeys(spec.cells()) if not kept.path(cell).exists()]
    kept.room(2 * len(missing) * cell_bytes(spec))
    if before is not None and before["code"] != kept.code and (others := kept.strangers(spec.cells())):
        note = f"the code has changed since this sweep began: {others} older results stay in cells/ and are not used"
    if before is None or before["code"] != kept.code:
        said = {"sweep": spec.as_json(), "code": kept.code, "provenance": provenance.provenance()}
        store.write(path, (json.dumps(said, indent=2) + "\n").encode())
    return kept, note


def cell_bytes(spec: Spec) -> int:
    """Room that the result of one cell needs at most: four terms of two outputs with four numbers and a word at every
    record, two numbers and a word at every checkpoint.
    """  # fmt: skip
    word, records = 12 * 4, spec.replicas * len(spec.checkpoints)
    each = (4 * 8 + word) * records + (2 * 8 + word) * len(spec.checkpoints)
    return 4 * 2 * each + 8 * (records + spec.replicas + len(spec.checkpoints)) + 16384
