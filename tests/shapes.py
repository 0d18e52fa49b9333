"""The checker of types and shapes under which every test runs."""

from collections.abc import Mapping, Set
from enum import Enum
from functools import wraps
from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray

LONG = 50  # items of a sequence, from which on beartype looks at fewer of them than `kind`
MANY = 10_000  # combinations that are remembered for one function


def once(function):
    """As beartype checks calls, but once for what it cannot tell apart: two thirds of some tests would be checks.

    Annotations speak of types, shapes and plain values.  What else they may ask, of dictionaries say, is always asked.
    """
    if not any(map(speaks_of_shapes, function.__annotations__.values())):
        return beartype(function)  # quick enough
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


def speaks_of_shapes(annotation):
    """Whether an annotation has an array with a shape in it."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(speaks_of_shapes, get_args(annotation)))


def kind(x):
    """All that an annotation can say of a value, or something that is not hashable."""
    how = HOW.get(type(x))
    if how is None:
        how = HOW[type(x)] = way(x)
    return how(x)


HOW = {}  # the way to the kind of a value, by its type: this is asked for every argument of every call


def way(x):
    if x is None or isinstance(x, str | int | Enum | type):
        return lambda x: (type(x), x)
    if isinstance(x, tuple | list):
        return lambda x: (type(x), *map(kind, x)) if len(x) < LONG else []
    if isinstance(x, Mapping | Set):
        return lambda x: []
    return shaped if hasattr(x, "dtype") else type


def shaped(x):
    return type(x), getattr(x, "shape", None), x.dtype
