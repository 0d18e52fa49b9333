"""Axes: what may vary in a sweep, and how its values are written.

    gap=0,0.5,1       a list
    gap=0:1:9         nine values from 0 to 1, ends included, rounded to the shortest decimal
    mixing=0.01:0.75:5:log   five values in equal ratios
    function_class=table,network   words;  iid=false,true  switches

Importing this module loads no JAX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np

from icq_bounds.sweep.families import FAMILIES, UNITS
from icq_bounds.sweep.fields import kind_of, kinds, meanings
from icq_bounds.sweep.learning import Learning

Value: TypeAlias = int | float | bool | str
RENAMED = {"method": "function_class", "drop": "unavailable"}
CLOSE = 1e-9  # relative, of range values to the shortest decimal that stands for them
WRITTEN = "write {name}=VALUE,VALUE,... or a range {name}=first:last:count, with :log behind it for equal ratios"
MOST = 10_000  # values of an axis
LETTERS = 60  # of what was written that a message repeats
EXACT = 2**53  # below which every whole number is a floating-point number


class UnknownAxis(ValueError):
    """A name that is no axis of the family; `detail` lists those that are."""

    def __init__(self, name: str, family: str) -> None:
        axes = known(family)
        near = get_close_matches(name, axes, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if name in RENAMED:
            hint = f": it is called {RENAMED[name]}, as xarray's sel keeps {name} for itself"
        if name in ("term", "replica", "replicas", "checkpoint", "checkpoints", "handoffs"):
            hint = ": it is always there; replicas and checkpoints are set by --replicas, --handoffs, --checkpoints"
        super().__init__(f"axis {name!r} is unknown to the family {family}{hint}")
        self.detail = f"known axes [default]:\n{listing(FAMILIES[family])}\n{listing(Learning)}"


@dataclass(frozen=True)
class Setting:
    """One thing that may vary.  `kind`: bool, int, float, str or the tuple of allowed words."""

    name: str
    kind: type | tuple[str, ...]
    default: Value | None
    meaning: str
    units: str
    learning: bool

    def value(self, written: object) -> Value:
        """One value, from text or TOML.  Raises ValueError naming the axis and what it may be."""
        text = str(written).strip()
        if isinstance(self.kind, tuple):
            if text not in self.kind:
                raise ValueError(f"axis {self.name} = {_brief(text)}: choose from {', '.join(self.kind)}")
            return text
        if self.kind is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError(f"axis {self.name} = {_brief(text)}: choose from false, true")
            return text.lower() == "true"
        if self.kind is str:
            return text
        try:
            number = self._number(text)
        except (ValueError, OverflowError) as error:
            kind = "a whole number" if self.kind is int else "a number"
            raise ValueError(
                f"axis {self.name} = {_brief(text)} is not {kind} ({self.meaning}); {WRITTEN.format(name=self.name)}"
            ) from error
        if self.kind is int and abs(number) >= EXACT:
            raise ValueError(
                f"axis {self.name} = {_brief(text)} is not below 2^53, up to where whole numbers are exact"
            )
        return number

    def _number(self, text: str) -> int | float:
        x = float(text)
        if not math.isfinite(x) or (self.kind is int and abs(x - round(x)) > 1e-9 * max(1.0, abs(x))):
            raise ValueError
        return round(x) if self.kind is int else x

    def values(self, written: object) -> tuple[Value, ...]:
        """The values of an axis, from text such as 0:1:9 or 1,2,4, or from a TOML list or value."""
        if isinstance(written, str) and ":" in written:
            parts: list[object] = [*self._range(written)]
        elif isinstance(written, str):
            parts = [*written.split(",")] if written.strip() else []
        else:
            parts = [*written] if isinstance(written, Sequence) else [written]
        if not parts:
            raise ValueError(f"axis {self.name} has no value; {WRITTEN.format(name=self.name)}")
        self._many(len(parts))
        found: dict[Value, None] = {}
        for part in parts:
            if (value := self.value(part)) in found:
                raise ValueError(f"axis {self.name}: {value} is given twice")
            found[value] = None
        return tuple(found)

    def _many(self, count: int) -> None:
        if count > MOST:
            raise ValueError(f"axis {self.name} has {short(count)} values, at most {MOST} can be swept; take fewer")

    def _range(self, text: str) -> Sequence[object]:
        parts = text.split(":")
        wrong = f"axis {self.name} = {_brief(text)} is no range; {WRITTEN.format(name=self.name)}"
        if self.kind not in (int, float) or len(parts) not in (3, 4) or parts[3:] not in ([], ["log"]):
            raise ValueError(wrong)
        try:
            low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
        except ValueError as error:
            raise ValueError(wrong) from error
        if count < 2 or (parts[3:] and not (low > 0 and high > 0)):
            raise ValueError(wrong + "; the count is at least 2, equal ratios need positive ends")
        if not math.isfinite(high - low):
            raise ValueError(wrong + "; both ends and the way between them are finite")
        self._many(count)
        inner = (np.geomspace if parts[3:] else np.linspace)(low, high, count)[1:-1].tolist()
        return [low, *(_shortest(x, CLOSE * (x if parts[3:] else abs(high - low) / count)) for x in inner), high]


def short(count: int) -> str:
    """A count of things, readable when it is absurd; Python does not write more than 4300 digits."""
    return str(count) if count < 10**12 else f"about 2^{count.bit_length() - 1}"


def _brief(text: str) -> str:
    return repr(text if len(text) <= LETTERS else f"{text[:LETTERS]}...")


def _shortest(x: float, tolerance: float) -> float:
    """The decimal of fewest places this close to x: 0.3 for 0.30000000000000004, so that it can be written."""
    places = (round(x, k) for k in range(324))
    return next(short for short in places if abs(short - x) <= tolerance)


def known(family: str) -> dict[str, Setting]:
    """Every axis of a family: its own settings, then how to learn.  Raises ValueError for an unknown family."""
    if family not in FAMILIES:
        raise ValueError(f"family = {family!r}: choose one of {', '.join(FAMILIES)}")
    return {s.name: s for cls in (FAMILIES[family], Learning) for s in _settings(cls)}


def _settings(cls: type) -> list[Setting]:
    fields, said = kinds(cls), meanings(cls)
    return [
        Setting(name, kind_of(kind), getattr(cls, name), said[name], UNITS.get(name, "1"), cls is Learning)
        for name, kind in fields.items()
    ]


def listing(cls: type) -> str:
    """One line for every axis of a class of settings."""
    axes = _settings(cls)
    width = max(len(s.name) for s in axes)
    return "\n".join(f"  {s.name:<{width}}  {s.meaning}{'' if s.default is None else f' [{s.default}]'}" for s in axes)


def parse(family: str, assignments: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """The axes of a command line, each NAME=VALUES, in their order."""
    found: dict[str, tuple[Value, ...]] = {}
    for text in assignments:
        name, equals, written = text.partition("=")
        if not equals:
            raise ValueError(f"axes: {_brief(text)} is not NAME=VALUES (a file goes before --axes)")
        if name in found:
            raise ValueError(f"axis {name} is given twice")
        found[name] = read(family, name, written)
    return found


def parse_table(family: str, table: Mapping[str, object]) -> dict[str, tuple[Value, ...]]:
    """The axes of a TOML table."""
    return {name: read(family, name, written) for name, written in table.items()}


def read(family: str, name: str, written: object) -> tuple[Value, ...]:
    """The values of one axis.  Raises UnknownAxis for a name that the family does not have."""
    axes = known(family)
    if name not in axes:
        raise UnknownAxis(name, family)
    return axes[name].values(written)
