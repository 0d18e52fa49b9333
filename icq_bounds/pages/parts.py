"""What every report shows: verdicts, ratios of stated to observed, the theorem, provenance.

Notation: docs/theory.md sections 2, 3 and 6.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy
from jaxtyping import Float

from bounds import symbolic
from bounds.core.bound import Verdict
from estimators.decomposition import NAME, TERMS
from icq.display import Fact, Shown, number
from icq.exact import AnalysisError
from icq.smdp import ICSMDP
from icq_bounds.error_theorem import summary, theorem_report
from icq_bounds.figures.sweep import ZERO
from icq_bounds.pages import html
from icq_bounds.pages.html import Entry, Grid
from icq_bounds.sweep.results import KINDS, Stated, Statements, statements, tally
from icq_bounds.sweep.store import Arrays

MEANING = {
    Verdict.HOLDS: "the observed error is at most the bound",
    Verdict.VIOLATED: "the observed error exceeds what was stated: a theorem, its code or an input is wrong",
    Verdict.UNDECIDED: "the interval of the observation straddles the bound",
    Verdict.VACUOUS: "the bound says no more than the range of rewards",
    Verdict.INAPPLICABLE: "an assumption of the bound fails on this workflow, so there is no number",
}
EXACT = {"gap value": "gap_value_sup", "scalar gap": "gap_scalar", "range of rewards": "trivial_cap"}
NUMBERS = ("gap_exact_sup", *EXACT.values())  # of a workflow, in the sup norm
FEW = 2000  # records whose verdicts are counted for show
PAIRS = 240  # pairs up to which a report waits for the theorem's numbers


@dataclass(frozen=True)
class Records(Shown):
    """Every statement beside what was observed, by kind and term; numbers: those of
    icq_bounds.sweep.cells.exact_numbers in NUMBERS, [cells].
    """  # fmt: skip

    found: Mapping[Stated, Mapping[str, Statements]]
    numbers: Arrays

    @staticmethod
    def of(results: Collection[Arrays]) -> Records:
        """The records of finished cells; cells of baselines have none."""
        learned = [r for r in results if "observed_residual" in r]
        found = {kind: {term: statements(learned, kind, term) for term in TERMS} for kind in KINDS}
        return Records(found, {name: np.array([float(r[name]) for r in learned]) for name in NUMBERS})

    @property
    def size(self) -> int:
        """How many tables were learned and measured."""
        return len(self.found["certificate"]["total"].observed)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many statements of each kind on each term got each verdict."""
        return {f"{NAME[t]}, {kind}": tally(s.verdict) for kind, of in self.found.items() for t, s in of.items()}

    def violations(self) -> int:
        """How many verdicts say that a bound or certificate is violated."""
        return sum(s.violations for of in self.found.values() for s in of.values())

    def distinct(self, kind: Stated) -> int:
        """How many different statements of a kind there are."""
        return sum(s.distinct for s in self.found[kind].values())

    def ratio_rows(self) -> list[list[Entry]]:
        """Stated over observed, per term and kind, and for the rungs of the interface gap in the sup norm."""
        rows: list[list[Entry]] = [
            [NAME[term], kind, "d-norm", s.distinct, *_spread(s.ratios)]
            for term in TERMS
            for kind in KINDS
            for s in (self.found[kind][term],)
        ]
        gap = self.numbers["gap_exact_sup"]
        some = gap > ZERO
        for rung, name in EXACT.items():
            ratios = self.numbers[name][some] / gap[some]
            rows.append([NAME["interface"], rung, "sup norm", len(set(ratios.tolist())), *_spread(ratios)])
        return rows

    def _facts_(self) -> list[Fact]:
        said = self.counts().items() if self.size <= FEW else ()
        verdicts = (Fact(name, ", ".join(f"{n} {verdict}" for verdict, n in c.items())) for name, c in said)
        return [
            Fact("tables", self.size), Fact("violations", self.violations() if self.size <= FEW else None), *verdicts
        ]  # fmt: skip


def _spread(ratios: Float[np.ndarray, "n"]) -> tuple[int, float | None, float | None, float | None]:
    """How many ratios there are, and their smallest, median and largest."""
    if not len(ratios):
        return 0, None, None, None
    return len(ratios), float(ratios.min()), float(np.median(ratios)), float(ratios.max())


def verdicts(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """How often each verdict was said, and what the words mean."""
    said = {word for c in counts.values() for word in c}
    meaning = {v: why for v, why in MEANING.items() if v.value in said}
    return {"table": html.verdict_table("Statements on each term", counts), "meaning": meaning}


def tightness(rows: Sequence[Sequence[Entry]]) -> Grid:
    """Ratios of bounds to what they bound."""
    header = ("term", "statement", "norm", "distinct", "ratios", "smallest", "median", "largest")
    return Grid("Ratio of each statement to what it bounds", header, rows)


def proved(m: ICSMDP, features: int, handoffs: int, which: str) -> dict[str, Any]:
    """The theorem: its statement, its numbers on one workflow (or why there are none), its assumptions, every rung.

    features: per agent, 0 for the table; which: the workflow in words.
    """
    said = {"statement": symbolic.statement(), "legend": _legend(), "which": which, "why": "", "large": False}
    if (pairs := int(np.asarray(m.available).sum())) > PAIRS:
        why = f"{pairs} pairs of observation and option are more than {PAIRS}, where it takes minutes"
        return said | {"why": why, "large": True}
    try:
        found = theorem_report(m, features=features, handoffs=handoffs, points=3)
    except AnalysisError as error:
        return said | {"why": str(error)}
    *ladders, assumptions = found.sheet().tables
    header = ("assumption", "status", *assumptions.header[2:])
    return said | {
        "class_name": found.class_name, "summary": summary(found), "latex": found._repr_latex_(),
        "failing": sum(not a.holds for a, _ in found.assumptions.values()),
        "assumptions": html.of_sheet(replace(assumptions, header=header), fold=8),
        "ladders": [html.of_sheet(table) for table in ladders],
    }  # fmt: skip


def _legend() -> dict[str, str]:
    """Every letter of the statement, in the order in which their meanings build on one another."""
    formulas = (symbolic.INTERFACE, symbolic.APPROXIMATION, symbolic.LAST, symbolic.RATE)  # mu's meaning needs the rate
    used = set().union(*(formula.free_symbols for formula in formulas))
    return {sympy.latex(s): meaning for s, meaning in symbolic.MEANING.items() if s in used}


def origin(made: Mapping[str, Any], commands: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Where the numbers come from, how to get them again, how to load them."""
    flat: dict[str, str] = {}
    for name, value in made.items():
        if isinstance(value, Mapping):
            flat |= {str(k): str(v) for k, v in value.items()}
        elif value not in ("", None):
            flat[name] = str(value)
    return {"made": flat, "commands": commands, "config": json.dumps(config, indent=2) if config else ""}


def largest_term(errors: Mapping[str, Float[np.ndarray, "n"]]) -> str:
    """Which of the three terms is largest, in words; errors: TERM -> one number per cell, NaN where unknown."""
    names = [NAME[term] for term in TERMS[:-1]]
    table = np.stack([errors[t] for t in TERMS[:-1]])
    table = table[:, np.isfinite(table).all(axis=0)]
    cells = table.shape[1]
    if cells == 0:
        return "No cell has all three terms yet."
    largest = np.bincount(np.argmax(table, axis=0), minlength=len(names)).tolist()
    (count, name), *rest = sorted(zip(largest, names), reverse=True)
    if count == cells:
        return f"The {name} is the largest of the three terms {'in every cell' if cells > 1 else 'here'}."
    others = " and ".join(f"the {n} in {c}" for c, n in rest if c)
    return f"The {name} is the largest of the three terms in {count} of {cells} cells, {others}."


def ratios_in_words(rows: Sequence[Sequence[Entry]]) -> str:
    """The median ratio of every term's bound."""
    said = [f"{row[0]} {number(row[6])}" for row in rows if row[1] == "bound" and isinstance(row[6], float)]
    return f"Bound over observed, median: {', '.join(said)}." if said else "No bound is known before these runs."
