"""How results show themselves: a few lines of text, and a small table in a notebook.

A result type inherits `Shown` and says in `_facts_` which numbers a person wants, each with a label and a unit; text
and HTML are made from them here, for all types alike.  Whoever says nothing shows the fields: numbers as they are,
arrays as their shapes.  A repr is called on half-made, batched and traced objects too, so it never raises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import scipy.sparse as sp
from markupsafe import Markup, escape

T = TypeVar("T")
LINES, WIDTH = 3, 100  # of a repr
LONGEST = 64  # letters of one value
LIGHT = 20_000  # entries of a table up to which one number of it is computed for show, far below a millisecond
HEAVY = 1_000_000  # entries from which not even their range is looked at


class Fact(NamedTuple):
    """One thing worth showing.  No label: the value is a sentence of its own.  No value (None): it is left out."""

    label: str
    value: Any
    unit: str = ""


class Shown:
    """A result that shows the facts of `_facts_`; the fields when there is no such method.

    A result that has a form of its own says it in `_line_` (text) or `_page_` (HTML).
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        type.__setattr__(cls, "__repr__", cls.__repr__)  # in the class itself, where `dataclass` leaves it alone

    def _facts_(self) -> Iterable[Fact]:
        return fields(self)

    def _line_(self) -> str | None:
        return None

    def _page_(self) -> str | None:
        return None

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)


def shown(cls: type[T]) -> type[T]:
    """The same for a named tuple, which cannot inherit: a class decorator."""
    type.__setattr__(cls, "__repr__", text)
    type.__setattr__(cls, "_repr_html_", html)
    return cls


class Latex(str):
    """LaTeX source that a notebook typesets."""

    __slots__ = ()

    def _repr_latex_(self) -> str:
        return f"$${self}$$"


def fields(result: Any) -> list[Fact]:
    """The fields of a dataclass or a named tuple as facts; one that is not set yet is left out."""
    if dataclasses.is_dataclass(result):
        names = [f.name for f in dataclasses.fields(result) if f.repr]
    else:
        names = list(getattr(result, "_fields", ()))
    return [Fact(name, getattr(result, name, None)) for name in names]


def facts(result: Any) -> list[Fact]:
    """What a result says of itself; its fields, when it is not in a state to say anything (traced, half-made)."""
    try:
        said = list(result._facts_())
    except Exception:  # whatever goes wrong in a repr hides what went wrong before it
        said = fields(result)
    return [fact for fact in said if fact.value is not None]


def _own(result: Any, form: str) -> str | None:
    """What a result wants to be shown as, if it does and can."""
    try:
        return getattr(result, form)() or None
    except Exception:  # as in `facts`
        return None


def text(result: Any) -> str:
    """The facts in at most LINES lines of WIDTH letters."""
    if line := _own(result, "_line_"):
        return _short(line, WIDTH)
    parts = [
        " ".join(filter(None, (fact.label, word(fact.value, LONGEST if fact.label else WIDTH), fact.unit)))
        for fact in facts(result)
    ]
    lines = [f"{type(result).__name__}:"]
    for i, part in enumerate(parts):
        part = _short(part, WIDTH - 8) + (";" if i < len(parts) - 1 else "")
        if len(lines[-1]) + 1 + len(part) <= WIDTH - 4:
            lines[-1] += f" {part}"
        elif len(lines) < LINES:
            lines.append(f"    {part}")
        else:
            lines[-1] += " ..."
            break
    return "\n".join(lines) if parts else type(result).__name__


def html(result: Any) -> str:
    """The facts as a table in the notebook's own colours; names are escaped."""
    if page := _own(result, "_page_"):
        return page
    rows = Markup("").join(_row(fact) for fact in facts(result))
    head = Markup('<caption style="text-align:left;font-weight:bold">{}</caption>').format(type(result).__name__)
    return str(Markup("<table>{}<tbody>{}</tbody></table>").format(head, rows))


def _row(fact: Fact) -> Markup:
    value = escape(fact.value if hasattr(fact.value, "__html__") else word(fact.value, longest=10 * LONGEST))
    value = value + Markup(" {}").format(fact.unit) if fact.unit else value
    if not fact.label:
        return Markup('<tr><td colspan="2" style="text-align:left">{}</td></tr>').format(value)
    cell = Markup('<tr><th scope="row" style="text-align:left">{}</th><td style="text-align:left">{}</td></tr>')
    return cell.format(fact.label, value)


def number(x: float) -> str:
    """Four digits, whole numbers below ten million in full."""
    if np.isnan(x):
        return "NaN"
    return f"{x:.0f}" if 1e3 <= abs(x) < 1e7 else f"{x + 0.0:.4g}"


def word(value: Any, longest: int = LONGEST) -> str:
    """A value in a few letters; never the entries of an array."""
    try:
        return _short(_word(value), longest)
    except Exception:  # see `facts`
        return type(value).__name__


def _word(value: Any) -> str:
    match value:
        case bool() | np.bool_():
            return "yes" if value else "no"
        case int() | np.integer():
            return str(int(value))
        case float() | np.floating():
            return number(float(value))
        case Enum():
            return str(value.value)
        case str():
            return value
        case Shown():
            return repr(value)
        case sp.sparray() | sp.spmatrix():
            return f"{list(value.shape)}, {value.nnz} stored"
        case jax.core.Tracer():
            return f"traced {value.dtype}{list(value.shape)}"
        case np.ndarray() | jax.Array():
            return str(list(value.shape)) if value.ndim else _word(value.item())
        case tuple() if hasattr(value, "_fields") and not hasattr(value, "_repr_html_"):
            return type(value).__name__
        case tuple() | list() if len(value) <= 4 and all(isinstance(x, int | float | str) for x in value):
            return ", ".join(map(_word, value)) or "none"
        case Mapping() | tuple() | list():
            return _many(value)
    return type(value).__name__


def _many(value: Mapping[Any, Any] | tuple[Any, ...] | list[Any]) -> str:
    leaves = jax.tree.leaves(value)
    if leaves and all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves):
        count = sum(leaf.size for leaf in leaves)
        return f"{count} numbers" if len(leaves) == 1 else f"{count} numbers in {len(leaves)} arrays"
    return f"{len(value)} entries"


def spread(values: Any) -> str:
    """A number, or the range of a batch of numbers; says how many are not finite.  The shape of very many."""
    every = np.asarray(values)
    if every.ndim == 0:
        return number(float(every))
    if every.size > HEAVY:
        return word(every)
    known, lost = every, 0
    if every.size and not np.isfinite([every.min(), every.max()]).all():
        known = every[np.isfinite(every)]
        lost = every.size - known.size
    if not known.size:
        return "NaN" if lost else "none"
    low, high = number(float(known.min())), number(float(known.max()))
    return (low if low == high else f"{low} to {high}") + (f" ({lost} of {every.size} not finite)" if lost else "")


def printable(text: str) -> str:
    """Text from outside for a terminal: control characters, which may begin escape sequences, as their code."""
    return text if text.isprintable() else "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)


def _short(words: str, longest: int) -> str:
    """On one line, cut to so many letters."""
    line = printable(" ".join(words.split()))
    return line if len(line) <= longest else line[: longest - 3].rstrip() + "..."


def latex_number(value: float) -> str:
    """Four digits."""
    if np.isnan(value):
        return r"\text{none}"
    if np.isinf(value):
        return r"\infty"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return rf"{mantissa}\cdot10^{{{int(exponent)}}}" if exponent else mantissa


def latex_text(text: str) -> str:
    """A name inside LaTeX text."""
    return text.replace("_", r"\_").replace("^", r"\^{}").replace("<", "$<$").replace("*", "$*$")
