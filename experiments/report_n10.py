"""The report of the ten-agent experiment, from its summary.json, its figures and its cells (experiments.n10)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bounds.statement import number
from estimators.estimate import Estimate
from experiments import engine, html, n10
from experiments.cells import TERMS
from experiments.html import Cell, Page, Section
from experiments.plots import NAME
from experiments.report_parts import (
    Records,
    largest_term,
    provenance_section,
    ratio_section,
    theorem_section,
    verdict_section,
)
from experiments.settings import DialsFamily
from experiments.store import Arrays, Store

CAPTIONS = {
    "a_interface": "The error terms against the gap dial, root mean squares with 95\u00a0% intervals.",
    "b_approximation": "The error terms against the width of every agent's network.",
    "c_residual": "The residual against handoffs, along a trajectory and with the i.i.d. control.",
    "d_bounds": "What was observed against what was certified; nothing may lie below the diagonal.",
    "e_value": "Value of the learned policies, in per cent of the oracle's.",
}
PRESETS = {p.name: p for p in (n10.FULL, n10.SMOKE)}


def n10_report(folder: Path, theorem: bool = True) -> Page:
    """The page of a finished experiment.

    Raises FileNotFoundError for one that is not finished, saying how many of its cells are there, ValueError for a
    damaged summary.
    """
    if not (folder / "summary.json").exists():
        raise FileNotFoundError(_unfinished(folder))
    try:
        said = json.loads((folder / "summary.json").read_text())
        return _page(folder, said, theorem)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        wrong = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{folder / 'summary.json'}: {wrong}; icq reproduce n10 writes it again") from error


def _unfinished(folder: Path) -> str:
    """How far each preset has come."""
    kept, counts = Store(folder / "cells", read_only=True), {}
    for name, preset in PRESETS.items():
        cells = engine.in_order(n10.all_cells(preset))
        counts[name] = (sum(kept.path(cell).exists() for cell in cells), len(cells))
    begun = {name: count for name, count in counts.items() if count[0]} or counts
    said = ", ".join(f"{done} of {cells} cells of the preset {name}" for name, (done, cells) in begun.items())
    return (
        f"{folder}: summary.json is missing, the experiment is not finished; {said} are there. "
        "icq reproduce n10 with this --out goes on where it stopped"
    )


def _page(folder: Path, said: Mapping[str, Any], theorem: bool) -> Page:
    results = _results(folder, said)
    counts = {NAME[term]: said["verdicts"][term] for term in TERMS}
    sections = [
        html.section("Summary", *_summary(said, results)),
        html.section("Figures", *_figures(folder)),
        html.section("Slopes", *_slopes(said)),
        html.section("Value", _values(said)),
        verdict_section(counts),
        _ratios(said, results),
    ]
    if theorem:
        family = DialsFamily(agents=said["agents"], gap=0.5, mixing=0.3)
        which = "the workflow of panel B (gap 0.5, mixing 0.3)"
        sections.append(theorem_section(family.workflow(), 0, PRESETS[said["preset"]].residual_handoffs, which))
    commands = {
        "The same numbers again:": f"icq reproduce n10 --preset {said['preset']} --out {folder.name}",
        "This page in a notebook:": f'from experiments.report import report\nreport("{folder.name}")',
    }
    made = {name: value for name, value in said["provenance"].items() if name != "versions"}
    sections.append(provenance_section(made | {"versions": said["provenance"]["versions"]}, commands, {}))
    lead = f"{folder.name}: preset {said['preset']}, {said['agents']} agents, {said['seeds']} seeds"
    return html.page("The ten-agent experiment", lead, sections)


def _results(folder: Path, said: Mapping[str, Any]) -> list[Arrays]:
    """The finished cells at the code version of the summary; none where they are not there."""
    if not (folder / "cells").is_dir():
        return []
    kept = Store(folder / "cells", said["provenance"]["code"], read_only=True)
    found = [kept.get(cell) for cell in engine.in_order(n10.all_cells(PRESETS[said["preset"]]))]
    return [r for r in found if r is not None]


def _estimate(said: Mapping[str, Any]) -> Estimate:
    """An estimate that `summary.as_dict` wrote."""
    value, low, high, n = (float("nan") if x is None else x for x in (said["value"], *said["interval"], said["n"]))
    return Estimate(value, float("nan"), (low, high), n, said["result"])


def _summary(said: Mapping[str, Any], results: list[Arrays]) -> list[Markup]:
    low, high = said["oracle_value_percent_at_zero_gap_interval"]
    value = Estimate(said["oracle_value_percent_at_zero_gap"], float("nan"), (low, high), float(said["seeds"]))
    parts = [
        html.facts({
            "records": str(said["records"]), "violations": str(said["violations"]),
            "slope of the residual against handoffs": html.estimate(_estimate(said["residual_slope"])),
            "slope of the local gap against its dial": html.estimate(_estimate(said["local_gap_slope"])),
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
    found = [r for r in results if "e_mix" in r]
    errors = {t: np.array([np.sqrt(np.mean(r[f"e_{t}"][:, -1] ** 2)) for r in found]) for t in TERMS}
    return [*parts, html.paragraph(words, f" {largest_term(errors)}" if found else "")]


def _digits(value: float | None, places: int) -> str:
    return "unknown" if value is None else f"{value:.{places}f}"


def _figures(folder: Path) -> list[Markup]:
    drawn, gone = [], []
    for name, caption in CAPTIONS.items():
        path = folder / f"{name}.svg"
        if path.exists():
            drawn.append((name, html.drawing(path.read_text(), name, caption, caption)))
        else:
            gone.append(path.name)
    parts = [html.figures(*(d for name, d in drawn if name != "c_residual"))]
    parts += [d for name, d in drawn if name == "c_residual"]
    if gone:
        parts.append(html.notice(f"Not in the folder: {', '.join(gone)}; icq reproduce n10 draws them again."))
    return parts


def _slopes(said: Mapping[str, Any]) -> list[Markup]:
    over = said["residual_over_asymptote"]
    rows: list[list[Cell]] = [
        [cell, _estimate(slope), _estimate(over[cell])] for cell, slope in said["residual_slopes"].items()
    ]
    return [
        html.paragraph(
            "Least-squares slopes of logarithms with 95 % intervals over seeds: of the local gap against "
            "its dial over random instances, of the residual against handoffs over the last four octaves. Beside it "
            "the residual over its sharp asymptote at the end, which tends to 1."
        ),
        html.table(
            "Local gap", ("quantity", "slope", "instances"),
            [["local gap against its dial", _estimate(said["local_gap_slope"]), int(said["local_gap_slope"]["n"])]],
        ),
        html.table("Residual against handoffs", ("cell", "slope", "over its asymptote"), rows),
    ]  # fmt: skip


def _values(said: Mapping[str, Any]) -> Markup:
    value = said["value_percent"]
    gaps = list(next(iter(value.values())))
    rows: list[list[Cell]] = [[gap, *(_estimate(part[gap]) for part in value.values())] for gap in gaps]
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
