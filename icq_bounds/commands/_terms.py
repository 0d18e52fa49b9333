"""How `icq learn` and `icq sweep` end: how large each of the four terms is, and how what was stated of it held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from estimators.decomposition import TERMS
from estimators.statistics.estimate import Estimate
from icq_bounds.numbers import plus_minus
from icq_bounds.sweep.results import Stated

Row = tuple[Sequence[str], Sequence[Estimate]]  # where, and the terms there


def show(
    console: Console, at: str, where: Sequence[str], rows: Iterable[Row],
    counts: Mapping[Stated, Mapping[str, Mapping[str, int]]],
) -> None:  # fmt: skip
    """A table of the terms, and the verdicts.

    at: after how many handoffs; where: headings of the places; counts: by kind (bound, certificate), of each term.
    """
    table = Table(*where, *TERMS, title=f"root mean square error{at}, d-norm, reward units, 95 %")
    for labels, terms in rows:
        table.add_row(*labels, *map(plus_minus, terms))
    if table.rows:
        console.print(table)
    for kind, of in counts.items():
        for term in TERMS:
            said = ", ".join(f"{count} {word}" for word, count in of[term].items())
            console.print(f"{kind:>11} {term:>13}: {said or 'no record'}")
