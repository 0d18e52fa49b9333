"""Instances of the families in one call: `dials(agents=10, gap=0.5)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ParamSpec

from icq.smdp import ICSMDP
from icq_bounds.sweep.families import DialsFamily, Family, GarnetFamily, RoutingFamily
from icq_bounds.sweep.fields import meanings

P = ParamSpec("P")


def _made(name: str, family: Callable[P, Family]) -> Callable[P, ICSMDP]:
    """The function that makes an instance of a family from its settings."""

    def make(*args: P.args, **kwargs: P.kwargs) -> ICSMDP:
        return family(*args, **kwargs).workflow()

    settings = "\n".join(f"    {field}: {text}" for field, text in meanings(family).items())  # type: ignore[arg-type]  # a class
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{inspect.getdoc(family)}\n\n{settings}\n\n    Raises ValueError for a setting outside its range.\n"
    make.__signature__ = inspect.signature(family).replace(return_annotation="ICSMDP")  # type: ignore[attr-defined]
    return make


dials = _made("dials", DialsFamily)
garnet = _made("garnet", GarnetFamily)
routing = _made("routing", RoutingFamily)
