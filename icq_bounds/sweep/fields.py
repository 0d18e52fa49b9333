"""What Python forgets of a class of settings: the text under each field, and its type."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import get_type_hints


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
