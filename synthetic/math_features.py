"""What an agent may see of a mathematical question and of a response to it, as bits in a fixed order.

An interface of b bits shows the first b of each list, so every view refines the smaller ones.  The thresholds are
round numbers near the middle of grade-school word problems; nothing is fitted to a table.
"""

from __future__ import annotations

import ast
import math
import operator
import re

NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
FINAL = re.compile(rf"####\s*({NUMBER})")
ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
RELATION = re.compile(r"half|twice|third|quarter|percent|%|times|double|triple", re.IGNORECASE)
RATE = re.compile(r"\b(?:each|every|per)\b", re.IGNORECASE)
COMPARED = re.compile(r"\b(?:than|fewer|less|left|remain\w*)\b", re.IGNORECASE)
SIGNS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
BITS = 6  # of each list below


def question_bits(text: str) -> tuple[bool, ...]:
    """Long; many numbers; a relation such as `half`; many sentences; a rate such as `each`; a comparison."""
    return (
        len(text.split()) > 45, len(re.findall(NUMBER, text)) > 4, RELATION.search(text) is not None,
        len(re.findall(r"[.?!](?:\s|$)", text)) > 4, RATE.search(text) is not None, COMPARED.search(text) is not None,
    )  # fmt: skip


def response_bits(text: str) -> tuple[bool, ...]:
    """A marked final number; its arithmetic holds; long; many lines; the final number is the last one computed; the
    final number is a whole number that is not negative.
    """  # fmt: skip
    claims = [(evaluate(left), evaluate(right)) for left, right in ANNOTATION.findall(text)]
    holds = all(a is not None and b is not None and math.isclose(a, b, rel_tol=1e-2) for a, b in claims)
    final = marked_number(text)
    last = claims[-1][1] if claims else None
    same = final is not None and last is not None and math.isclose(final, last, rel_tol=1e-9)
    whole = final is not None and final >= 0 and float(final).is_integer()
    return final is not None, holds, len(text.split()) > 60, len(text.strip().splitlines()) > 4, same, whole


def marked_number(text: str) -> float | None:
    """The number after `####`, where the response has one."""
    found = FINAL.search(text)
    return _number(found[1]) if found else None


def final_number(text: str) -> float | None:
    """The marked number, or else the last number in the text."""
    marked = marked_number(text)
    if marked is not None:
        return marked
    found = re.findall(NUMBER, text)
    return _number(found[-1]) if found else None


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("$", ""))


def evaluate(expression: str) -> float | None:
    """The value of a sum, difference, product or quotient of numbers; None for anything else.  Nothing is executed."""
    plain = re.sub(r"[$,]", "", expression).strip()
    if len(plain) > 200 or not re.fullmatch(r"[\d.+\-*/() ]+", plain):
        return None
    try:
        tree = ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", plain), mode="eval")
        value = float(_value(tree.body))
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None
    return value if math.isfinite(value) else None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in SIGNS:
            return float(SIGNS[type(sign)](_value(left), _value(right)))
    raise ValueError("not arithmetic")
