"""A sweep: every combination of the values of its axes is a cell, with the same replicas and checkpoints.

Where it lives: icq_bounds/sweep/folder.py.  Replicas are seeds 0, 1, ... in every cell, so that cells are compared on
common random numbers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icq_bounds.sweep import axes as axis
from icq_bounds.sweep.axes import Value
from icq_bounds.sweep.families import FAMILIES, Family
from icq_bounds.sweep.learning import LAST, Learning

if TYPE_CHECKING:
    from icq_bounds.sweep.cells import Cell

NETWORK = ("width", "depth", "inputs", "reference_iterations", "training", "scale")
FILE_KEYS = ("family", "axes", "fix", "replicas", "handoffs", "checkpoints")
REPLICAS, HANDOFFS = 8, 65536
CELLS, RUNS = 100_000, 100_000  # cells of a sweep, and replicas of a cell, at most


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
        if not 1 <= self.replicas <= RUNS:
            raise ValueError(f"replicas = {axis.short(self.replicas)} must be at least 1 and at most {RUNS}")
        grid = self.checkpoints
        if any(type(k) is not int for k in grid):
            raise ValueError(f"checkpoints = {list(grid)} must be whole numbers")
        if not grid or grid[0] < 1 or any(a >= b for a, b in pairwise(grid)):
            raise ValueError(f"checkpoints = {list(map(axis.short, grid))} must be positive and increasing")
        if grid[-1] > LAST:
            raise ValueError(f"handoffs = {axis.short(grid[-1])} must be at most {LAST}")
        if (cells := prod(self.shape)) > CELLS:
            sizes = " x ".join(f"{len(values)} {name}" for name, values in self.axes)
            raise ValueError(
                f"axes: {sizes} are {axis.short(cells)} cells, at most {CELLS} are swept; take fewer values"
            )
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
        """The inverse of `as_json`.  Raises ValueError, KeyError, TypeError or AttributeError for what it cannot be."""
        spec = Spec(
            said["family"], tuple((name, tuple(values)) for name, values in said["axes"].items()),
            tuple(said["fixed"].items()), said["replicas"], tuple(said["checkpoints"]),
        )  # fmt: skip
        settings = axis.known(spec.family)
        written = [(name, value) for name, values in spec.axes for value in values]
        for name, value in [*written, *((name, value) for name, value in spec.fixed if value is not None)]:
            if repr(settings[name].value(value)) != repr(value):
                raise ValueError(f"{name} = {value}")
        if type(spec.replicas) is not int or spec.replicas < 1 or not spec.checkpoints:
            raise ValueError("replicas or checkpoints")
        return spec


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
        if handoffs < 1:
            raise ValueError(f"handoffs = {axis.short(handoffs)} must be at least 1")
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
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text in UTF-8; save it as one") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for a sweep") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    kinds = {"family": str, "axes": dict, "fix": dict, "replicas": int, "handoffs": int, "checkpoints": list}
    for name, value in said.items():
        if name not in kinds:
            raise ValueError(f"{path}: unknown key {name!r}; known are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ValueError(f"{path}: {name} is {value!r}, a {kinds[name].__name__} is needed")
    return said
