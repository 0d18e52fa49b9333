"""What Python forgets of a class of settings: the text under each field, and its type, which values are checked by."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@cache
def meanings(cls: type) -> dict[str, str]:
    """The text under each field of a class and of those it is made from, which Python itself forgets."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        found |= _own_meanings(part)
    return found


def _own_meanings(cls: type) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str() as said)):
                    found[field.target.id] = " ".join(said.split())
    return found


@cache
def kinds(cls: type) -> dict[str, object]:
    """The type of each field of a class."""
    return {name: kind for name, kind in get_type_hints(cls).items() if name in cls.__dataclass_fields__}  # type: ignore[attr-defined]  # a dataclass


def kind_of(kind: Any) -> type | tuple[str, ...]:
    """The type of a setting that may be left out, or the words it may be."""
    if get_origin(kind) is Literal:
        return tuple(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    assert isinstance(kind, type)
    return kind


def check_kinds(settings: Any) -> None:
    """Raise ValueError naming the first setting whose value is not of its kind, or no finite number."""
    from icq import coerce  # which loads JAX: a help page does not wait for it

    cls: Any = type(settings)
    for name, declared in kinds(cls).items():
        value, kind = getattr(settings, name), kind_of(declared)
        if value is None and declared is not kind:
            continue
        if kind is int:
            coerce.count(name, value, least=0, most=2**32 - 1)
        elif kind is float:
            coerce.real(name, value)
        elif isinstance(kind, tuple) and value not in kind:
            raise ValueError(f"{name} = {value!r}: choose one of {', '.join(kind)}")
        elif kind is bool and not isinstance(value, bool):
            raise ValueError(f"{name} = {value!r}: choose True or False")
