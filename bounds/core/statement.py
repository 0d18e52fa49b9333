"""Terms, assumptions and numbers of the theorem as cells of tables (docs/theory.md section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from bounds.core.bound import Assumption, Bound
from bounds.core.sheet import Cells, SheetTable
from bounds.core.term import Observed, Term

HEADER = ("bound", "value", "trivial", "observed", "ratio", "verdict")
EVERY = ("every bound",)
Needed: TypeAlias = dict[str, tuple[Assumption, tuple[str, ...]]]


def number(value: float) -> str:
    """Four digits; a dash for a missing number."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def interval(observed: Observed | None) -> str:
    """The observation, with its interval if it has one."""
    if observed is None:
        return "-"
    if observed.lower == observed.upper:
        return number(observed.value)
    return f"{number(observed.value)} ({number(observed.lower)} to {number(observed.upper)})"


def failed(assumptions: Iterable[Assumption]) -> str:
    """Which fail, and by how much; empty when all hold."""
    return "; ".join(str(a) for a in assumptions if not a.holds)


def term_rows(term: Term) -> tuple[Cells, ...]:
    """One row per rung, and one for the limit, which is marked as no bound."""
    rows = []
    for rung in term.rungs:
        b, said = rung.bound, term.verdict(rung.bound)
        name = f"{b.name} (the quantity itself)" if rung.exact else b.name
        why = f"inapplicable: {failed(b.assumptions)}" if b.failures else str(said or "-")
        numbers = (number(b.value), number(term.trivial), interval(term.observed), number(term.ratio(b.value)))
        rows.append((name, *numbers, why))
    if term.limit is not None:
        value, why = term.limit.value, failed(term.limit.assumptions)
        note = f"not a bound; inapplicable: {why}" if why else "not a bound"
        rows.append((term.limit.name, number(value), "-", interval(term.observed), number(term.ratio(value)), note))
    return tuple(rows)


def collect(setting: Sequence[Assumption], terms: Iterable[Term]) -> Needed:
    """Every assumption by name, the instance of least margin, with the bounds that rest on it."""
    found: Needed = {a.name: (a, EVERY) for a in setting}
    for name, assumptions in (x for term in terms for x in _checked(term)):
        for a in assumptions:
            least, used = found.get(a.name, (a, ()))
            used = used if name in used or used == EVERY else (*used, name)
            found[a.name] = (min(least, a, key=lambda x: x.margin), used)
    return found


def _checked(term: Term) -> list[tuple[str, tuple[Assumption, ...]]]:
    """Every bound and limit of a term with its assumptions."""
    found = [(rung.bound.name, rung.bound.assumptions) for rung in term.rungs]
    return found if term.limit is None else [*found, (term.limit.name, term.limit.assumptions)]


def assumption_table(needed: Needed) -> SheetTable:
    """One row per assumption."""
    rows = tuple(
        (a.name, "holds" if a.holds else "FAILS", f"{a.margin:.3g}", a.detail, "; ".join(used))
        for a, used in needed.values()
    )
    return SheetTable("Assumptions", ("assumption", "", "margin", "detail", "needed by"), rows)


def loss_table(at: str, losses: Mapping[str, Bound]) -> SheetTable:
    """What acting on the learned table loses."""
    rows = tuple((name, number(b.value), number(b.trivial), status(b)) for name, b in losses.items())
    return SheetTable(
        f"Expected loss of the greedy policy at a handoff, {at}", ("bound", "value", "trivial", "status"), rows
    )


def status(b: Bound) -> str:
    """What a bound is worth before anything is observed."""
    if not b.applicable:
        return f"inapplicable: {failed(b.assumptions)}"
    return "vacuous" if b.value >= b.trivial else "below the trivial cap"
