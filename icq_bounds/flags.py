"""How flags are read where tyro alone is too narrow."""

from __future__ import annotations

import math
from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


def whole(text: str) -> int:
    """A whole number, also one that is written 1e6.  Raises ValueError for anything else."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def whole_numbers() -> ConstructorRegistry:
    """Counts may be written 1e6; how large they may be is for the command to say, by name."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1, metavar="INT", instance_from_str=lambda said: whole(said[0]),
            is_instance=lambda x: isinstance(x, int) and not isinstance(x, bool), str_from_instance=lambda x: [str(x)],
        )  # fmt: skip

    return registry
