"""The checker of types and shapes under which every test runs."""

from collections.abc import Mapping, Set
from enum import Enum
from functools import wraps

from beartype import beartype

LONG = 50  # items of a sequence, from which on beartype looks at fewer of them than `kind`
MANY = 10_000  # combinations that are remembered for one function


def once(function):
    """As beartype checks calls, but once for what it cannot tell apart: two thirds of some tests would be checks.

    Annotations speak of types, shapes and plain values.  What else they may ask, of dictionaries say, is always asked.
    """
    checked, known = beartype(function), set()

    @wraps(checked)
    def check(*args, **kwargs):
        kinds = (*map(kind, args), *kwargs, *map(kind, kwargs.values()))
        try:
            if kinds in known:
                return
        except TypeError:  # not hashable
            checked(*args, **kwargs)
            return
        checked(*args, **kwargs)
        if len(known) < MANY:
            known.add(kinds)

    return check


def kind(x):
    """All that an annotation can say of a value, or something that is not hashable."""
    if x is None or isinstance(x, str | int | Enum | type):
        return type(x), x
    if isinstance(x, tuple | list):
        return (type(x), *map(kind, x)) if len(x) < LONG else []
    if isinstance(x, Mapping | Set):
        return []
    return type(x), getattr(x, "shape", None), getattr(x, "dtype", None)
