"""Numbers as a person reads them: with the digits that their interval leaves."""

from __future__ import annotations

import math

from estimators.statistics.estimate import Estimate
from icq.display import number


def parts(e: Estimate) -> list[str]:
    """The value and both ends of its interval, to two digits of the interval; only the value where that is a point."""
    if math.isnan(e.value):
        return ["–"]
    low, high = e.interval
    if low == high:
        return [number(e.value)]
    places = _places(e.value, high - low)
    small = round(low, places) == 0 == round(high, places)  # no decimals would be left, as of rounding errors
    return [number(x) if small or abs(e.value) >= 1e6 else _decimal(x, places) for x in (e.value, low, high)]


def text(e: Estimate, unknown: str = "") -> str:
    """An estimate on one line; `unknown`, or else why, where there is none."""
    if not e.known:
        return unknown or f"none: {e.why}"
    value, *ends = parts(e)
    return f"{value} [{', '.join(ends)}]" if ends else value


def plus_minus(e: Estimate) -> str:
    """Three digits, and how far the interval reaches where there is one: 0.18 ±0.08."""
    if math.isnan(e.value):
        return "none"
    reach = max(e.value - e.interval[0], e.interval[1] - e.value)
    return f"{e.value:.3g} ±{reach:.1g}" if reach > 0 else f"{e.value:.3g}"


def _decimal(x: float, places: int) -> str:
    """A number with this many decimals; no minus before what rounds to zero."""
    return f"{round(x, places) + 0.0:.{places}f}"


def _places(value: float, width: float) -> int:
    """Decimals that show two digits of an interval of this width, but at most six."""
    if not (math.isfinite(value) and math.isfinite(width)):
        return 4
    return min(max(1 - math.floor(math.log10(width / 2 or width)), 0), 6 if abs(value) < 0.01 else 4)
