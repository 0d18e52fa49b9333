"""Sections that every report has: verdicts, ratios of certified to observed, the theorem, provenance.

Notation: docs/theory.md sections 2, 3 and 6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy
from jaxtyping import Float
from markupsafe import Markup

from bounds import symbolic
from bounds.core.bound import Verdict
from bounds.core.statement import number
from bounds.theorem import Theorem
from estimators.decomposition import TERMS
from icq.display import Fact, Shown
from icq.exact import AnalysisError
from icq.smdp import ICSMDP
from icq_bounds.error_theorem import summary, theorem_report
from icq_bounds.figures.style import NAME
from icq_bounds.pages import html
from icq_bounds.pages.html import Cell, Section
from icq_bounds.sweep.store import Arrays

MEANING = {
    Verdict.HOLDS: "the observed error is at most the bound",
    Verdict.VIOLATED: "the observed error exceeds the bound: a theorem, its code or an input is wrong",
    Verdict.UNDECIDED: "the interval of the observation straddles the bound",
    Verdict.VACUOUS: "the bound says no more than the range of rewards",
    Verdict.INAPPLICABLE: "an assumption of the bound fails on this workflow, so there is no number",
}
WORDS = {"interface": "interface gap", "approximation": "approximation error", "residual": "mixing residual"}
CERTIFICATE = {
    "interface": "gap value",
    "approximation": "class error",
    "residual": "certificate of the learned table",
    "total": "sum of the three",
}


FEW = 2000  # records whose verdicts are counted for show


@dataclass(frozen=True)
class Records(Shown):
    """What was observed beside what was certified, flat.

    arrays: e_TERM, b_TERM (NaN where there is no bound), slack_TERM and verdict_TERM (in words), [records]; the exact
    numbers of icq_bounds.sweep.cells.exact_numbers, [cells], as far as they are known.
    """

    arrays: Arrays

    @staticmethod
    def of(results: Sequence[Arrays]) -> Records:
        """The records of finished cells; cells of baselines have none."""
        found = [r for r in results if "e_residual" in r]
        names = [f"{part}_{term}" for part in ("e", "b", "slack", "verdict") for term in TERMS]
        return Records({name: np.concatenate([r[name].ravel() for r in found]) for name in [*names, *EXACT]})

    def counts(self) -> dict[str, dict[str, int]]:
        """How many records of each term got each verdict."""
        out = {}
        for term in TERMS:
            words, count = np.unique(self.arrays[f"verdict_{term}"], return_counts=True)
            out[NAME[term]] = {str(w): int(c) for w, c in zip(words, count, strict=True)}
        return out

    def violations(self) -> int:
        """How many verdicts say that a bound is violated."""
        return sum(c.get(Verdict.VIOLATED.value, 0) for c in self.counts().values())

    def ratio_rows(self) -> list[list[Cell]]:
        """Certified over observed, per term and rung."""
        a = self.arrays
        rows: list[list[Cell]] = []
        for term in TERMS:
            e, b, slack = (a[f"{part}_{term}"] for part in ("e", "b", "slack"))
            rows.append([NAME[term], CERTIFICATE[term], "d-norm", *_spread(e, b, slack)])
        if EXACT[0] in a:
            gap = a["gap_exact_sup"]
            rows += [
                [NAME["interface"], rung, "sup norm", *_spread(gap, a[name], np.full_like(gap, 1e-9))]
                for rung, name in (("gap value", "gap_value_sup"), ("scalar gap", "gap_scalar"),
                                   ("range of rewards", "trivial_cap"))
            ]  # fmt: skip
        return rows

    def _facts_(self) -> list[Fact]:
        count = len(self.arrays["e_total"])
        said = self.counts().items() if count <= FEW else ()
        verdicts = (Fact(name, ", ".join(f"{n} {verdict}" for verdict, n in c.items())) for name, c in said)
        return [Fact("records", count), Fact("violations", self.violations() if count <= FEW else None), *verdicts]


PAIRS = 240  # pairs up to which a report waits for the theorem's numbers
EXACT = ("gap_exact_sup", "gap_value_sup", "gap_scalar", "trivial_cap")
RATIO_HEADER = ("term", "bound", "norm", "numbers", "smallest", "median", "largest")


def _spread(
    e: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"], slack: Float[np.ndarray, "n"]
) -> tuple[int, float | None, float | None, float | None]:
    """How many ratios b/e there are, and their smallest, median and largest; errors within the slack have none."""
    keep = np.isfinite(b) & (e > slack)
    if not keep.any():
        return 0, None, None, None
    ratio = b[keep] / e[keep]
    return len(ratio), float(ratio.min()), float(np.median(ratio)), float(ratio.max())


def verdict_section(counts: Mapping[str, Mapping[str, int]], *more: str) -> Section:
    """How often each verdict was said, and what the words mean."""
    said = {word for c in counts.values() for word in c}
    words = (html.badge(v) + Markup(": ") + why for v, why in MEANING.items() if v.value in said)
    if not said:
        return html.section("Verdicts", html.paragraph("There is no record yet."))
    return html.section(
        "Verdicts", html.verdict_table("Records of each term", counts), *more, html.bullets(words)
    )  # fmt: skip


def ratio_section(rows: Sequence[Sequence[Cell]], *more: str) -> Section:
    """How tight the bounds are."""
    return html.section(
        "Tightness",
        html.paragraph(
            "Certified over observed: 1 is exact, below 1 would be a violation. Errors within numerical slack and "
            "bounds that do not apply have no ratio."
        ),
        html.table("Ratio of each bound to what it bounds", RATIO_HEADER, rows),
        *more,
    )


def theorem_section(m: ICSMDP, features: int, handoffs: int, which: str) -> Section:
    """The theorem: its statement, its numbers on one workflow, its assumptions, every rung.

    features: per agent, 0 for the table; which: the workflow in words.
    """
    statement = (
        html.paragraph(
            "After T handoffs the error of IC-Q against the centralised oracle is at most the sum of the interface "
            "gap, the approximation error and the mixing residual (docs/theory.md section 6, with proofs). For a "
            "constant step, with the scalar rung of the interface gap:"
        ),
        html.maths(symbolic.statement()),
        html.details("What the letters mean", html.definitions(_legend()), printed=False),
    )
    if (pairs := int(np.asarray(m.available).sum())) > PAIRS:
        why = f"{pairs} pairs of observation and option are more than {PAIRS}, where it takes minutes; use "
        return html.section(
            "Theorem", *statement, html.notice(f"No numbers for {which}: {why}", html.code("icq theorem"))
        )
    try:
        found = theorem_report(m, features=features, handoffs=handoffs, points=3)
    except AnalysisError as error:
        return html.section("Theorem", *statement, html.notice(f"No numbers for {which}: {error}"))
    return html.section("Theorem", *statement, *_numbers(found, which))


def _legend() -> dict[str, Cell]:
    """Every letter of the statement, in the order in which their meanings build on one another."""
    formulas = (symbolic.INTERFACE, symbolic.APPROXIMATION, symbolic.LAST, symbolic.RATE)  # mu's meaning needs the rate
    used = set().union(*(formula.free_symbols for formula in formulas))
    return {html.symbol(sympy.latex(s)): meaning for s, meaning in symbolic.MEANING.items() if s in used}


def _numbers(found: Theorem, which: str) -> tuple[Markup, ...]:
    sheet = found.sheet()
    *ladders, assumptions = sheet.tables
    assumptions = replace(assumptions, header=("assumption", "status", *assumptions.header[2:]))
    broken = [a.name for a, _ in found.assumptions.values() if not a.holds]
    said = (
        f"{len(broken)} of {len(found.assumptions)} assumptions fail, and the rungs that need them have no number"
        if broken
        else "every assumption holds"
    )
    return (
        html.heading("On one workflow, in numbers"),
        html.paragraph(f"{which[0].upper()}{which[1:]}, {found.class_name}, constant step: {summary(found)}; {said}."),
        html.maths(found._repr_latex_()),
        html.sheet_table(assumptions, fold=8),
        html.details("Every rung of every term", *(html.sheet_table(table) for table in ladders)),
    )


def provenance_section(made: Mapping[str, Any], commands: Mapping[str, str], config: Mapping[str, Any]) -> Section:
    """Where the numbers come from, how to get them again, how to load them."""
    flat: dict[str, Cell] = {}
    for name, value in made.items():
        if isinstance(value, Mapping):
            flat |= {str(k): str(v) for k, v in value.items()}
        elif value not in ("", None):
            flat[name] = str(value)
    how = (html.paragraph(words) + html.listing(text) for words, text in commands.items())
    whole = html.details("Full configuration", html.listing(json.dumps(config, indent=2)), printed=False)
    return html.section("Provenance", html.definitions(flat), *how, whole if config else "")


def largest_term(errors: Mapping[str, Float[np.ndarray, "n"]]) -> str:
    """Which of the three terms is largest, in words; errors: TERM -> one number per cell, NaN where unknown."""
    names = [*WORDS]
    table = np.stack([errors[t] for t in names])
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] == 0:
        return "No cell has all three terms yet."
    first = np.argmax(table, axis=0)
    order = sorted(((int((first == k).sum()), WORDS[t]) for k, t in enumerate(names)), reverse=True)
    cells = table.shape[1]
    (count, name), *rest = order
    if count == cells:
        where = "in every cell" if cells > 1 else "here"
        return f"The {name} is the largest of the three terms {where}."
    others = " and ".join(f"the {n} in {c}" for c, n in rest if c)
    return f"The {name} is the largest of the three terms in {count} of {cells} cells, {others}."


def ratios_in_words(rows: Sequence[Sequence[Cell]]) -> str:
    """The median ratio of every term's certificate."""
    said = [f"{row[0]} {number(row[5])}" for row in rows if row[2] == "d-norm" and isinstance(row[5], float)]
    return f"Certified over observed, median: {', '.join(said)}." if said else "No bound applies to any record."
