"""The report of the ten-agent experiment, from its summary.json, its figures and its cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bounds.core.statement import number
from estimators.decomposition import TERMS
from estimators.statistics.estimate import Estimate
from icq_bounds.figures.style import NAME
from icq_bounds.pages import html
from icq_bounds.pages.experiment import figures, read, reproduced
from icq_bounds.pages.html import Cell, Page, Section
from icq_bounds.pages.parts import (
    Records,
    largest_term,
    ratio_section,
    theorem_section,
    verdict_section,
)
from icq_bounds.sweep import engine
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.store import Arrays, Store
from icq_bounds.workflows.n10 import experiment

CAPTIONS = {
    "a_interface": "The error terms against the gap dial, root mean squares with 95\u00a0% intervals.",
    "b_approximation": "The error terms against the width of every agent's network.",
    "c_residual": "The residual against handoffs, along a trajectory and with the i.i.d. control.",
    "d_bounds": "What was observed against what was certified; nothing may lie below the diagonal.",
    "e_value": "Value of the learned policies, in per cent of the oracle's.",
}
PRESETS = {p.name: p for p in (experiment.FULL, experiment.SMOKE)}


def n10_report(folder: Path, said: Mapping[str, Any], theorem: bool = True) -> Page:
    """The page of a finished experiment; said: its summary."""
    results = _results(folder, said)
    counts = {NAME[term]: said["verdicts"][term] for term in TERMS}
    sections = [
        html.section("Summary", *_summary(said, results)),
        html.section("Figures", *figures(folder, CAPTIONS)),
        html.section("Slopes", *_slopes(said)),
        html.section("Value", _values(said)),
        verdict_section(counts),
        _ratios(said, results),
    ]
    if theorem:
        family = DialsFamily(agents=said["agents"], gap=0.5, mixing=0.3)
        which = "the workflow of panel B (gap 0.5, mixing 0.3)"
        sections.append(theorem_section(family.workflow(), 0, PRESETS[said["preset"]].residual_handoffs, which))
    sections.append(reproduced(folder, "n10", said["preset"], said["provenance"]))
    lead = f"{folder.name}: preset {said['preset']}, {said['agents']} agents, {said['seeds']} seeds"
    return html.page("The ten-agent experiment", lead, sections)


def progress(folder: Path) -> list[str]:
    """How far each preset that was begun has come."""
    kept, said = Store(folder / "cells", read_only=True), []
    for name, preset in PRESETS.items():
        cells = engine.in_order(experiment.all_cells(preset))
        if done := sum(kept.path(cell).exists() for cell in cells):
            said.append(f"{done} of {len(cells)} cells of n10 {name}")
    return said


def _results(folder: Path, said: Mapping[str, Any]) -> list[Arrays]:
    """The finished cells at the code version of the summary; none where they are not there."""
    if not (folder / "cells").is_dir():
        return []
    kept = Store(folder / "cells", said["provenance"]["code"], read_only=True)
    found = [kept.get(cell) for cell in engine.in_order(experiment.all_cells(PRESETS[said["preset"]]))]
    return [r for r in found if r is not None]


def _summary(said: Mapping[str, Any], results: list[Arrays]) -> list[Markup]:
    low, high = said["oracle_value_percent_at_zero_gap_interval"]
    value = Estimate(said["oracle_value_percent_at_zero_gap"], float("nan"), (low, high), float(said["seeds"]))
    parts = [
        html.facts({
            "records": str(said["records"]), "violations": str(said["violations"]),
            "slope of the residual against handoffs": html.estimate(read(said["residual_slope"])),
            "slope of the local gap against its dial": html.estimate(read(said["local_gap_slope"])),
            "value at zero gap, % of the oracle": html.estimate(value),
        })
    ]  # fmt: skip
    if said["violations"]:
        parts.append(html.notice(f"{said['violations']} records violate a bound.", bad=True))
    for label in said["references_not_converged"]:
        parts.append(html.notice(f"The reference Q_F of {label} still moves."))
    if said["runs_not_finite"]:
        parts.append(html.notice(f"{said['runs_not_finite']} runs diverged: choose smaller steps."))
    worst = {NAME[t]: said["max_ratio"][t] for t in TERMS if said["max_ratio"][t] is not None}
    tight = ", ".join(f"{name} {number(ratio)}" for name, ratio in worst.items())
    local, residual = (said[f"{name}_slope"]["value"] for name in ("local_gap", "residual"))
    words = (
        f"Of {said['records']} records {said['violations'] or 'none'} violate a bound; certified over observed is at "
        f"most: {tight}. The local gap grows with its dial with slope {_digits(local, 3)}; the residual falls with "
        f"handoffs like their power {_digits(residual, 2)} (1/√T is -0.5). The interface contracts with kappa at most "
        f"{number(said['kappa_max'])}."
    )
    found = [r for r in results if "e_residual" in r]
    errors = {t: np.array([np.sqrt(np.mean(r[f"e_{t}"][:, -1] ** 2)) for r in found]) for t in TERMS}
    return [*parts, html.paragraph(words, f" {largest_term(errors)}" if found else "")]


def _digits(value: float | None, places: int) -> str:
    return "unknown" if value is None else f"{value:.{places}f}"


def _slopes(said: Mapping[str, Any]) -> list[Markup]:
    over = said["residual_over_asymptote"]
    rows: list[list[Cell]] = [[cell, read(slope), read(over[cell])] for cell, slope in said["residual_slopes"].items()]
    return [
        html.paragraph(
            "Least-squares slopes of logarithms with 95 % intervals over seeds: of the local gap against "
            "its dial over random instances, of the residual against handoffs over the last four octaves. Beside it "
            "the residual over its sharp asymptote at the end, which tends to 1."
        ),
        html.table(
            "Local gap", ("quantity", "slope", "instances"),
            [["local gap against its dial", read(said["local_gap_slope"]), int(said["local_gap_slope"]["n"])]],
        ),
        html.table("Residual against handoffs", ("cell", "slope", "over its asymptote"), rows),
    ]  # fmt: skip


def _values(said: Mapping[str, Any]) -> Markup:
    value = said["value_percent"]
    gaps = list(next(iter(value.values())))
    rows: list[list[Cell]] = [[gap, *(read(part[gap]) for part in value.values())] for gap in gaps]
    return html.table("Value of the learned policy, per cent of the oracle's", ("gap dial", *value), rows)


def _ratios(said: Mapping[str, Any], results: list[Arrays]) -> Section:
    if results:
        return ratio_section(Records.of(results).ratio_rows())
    rows: list[list[Cell]] = [
        [NAME[t], "every record", "d-norm", None, None, said["median_ratio"][t], said["max_ratio"][t]] for t in TERMS
    ]
    return ratio_section(
        rows, html.notice("The cells are not there at the code version of summary.json, so these ratios are its own.")
    )
