"""The report of the ten-agent experiment, from its summary.json, its figures and its cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from estimators.decomposition import NAME, TERMS
from estimators.statistics.estimate import Estimate, from_dict
from icq.display import number
from icq_bounds.pages import html
from icq_bounds.pages.experiment import drawings, reproduced
from icq_bounds.pages.html import Entry, Grid, Page
from icq_bounds.pages.parts import Records, largest_term, proved, tightness, verdicts
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
    worst = {NAME[t]: said["max_ratio"][t] for t in TERMS if said["max_ratio"][t] is not None}
    local, residual = (from_dict(said[f"{name}_slope"]) for name in ("local_gap", "residual"))
    return html.render(
        "n10.html",
        title="The ten-agent experiment",
        lead=f"{folder.name}: preset {said['preset']}, {said['agents']} agents, {said['seeds']} seeds",
        numbers=_numbers(said, local, residual), records=said["records"], violations=said["violations"],
        moving=said["references_not_converged"], diverged=said["runs_not_finite"],
        tight=", ".join(f"{name} {number(ratio)}" for name, ratio in worst.items()),
        local=_digits(local, 3), residual=_digits(residual, 2), kappa=said["kappa_max"], largest=_largest(results),
        **drawings(folder, CAPTIONS),
        local_slope=Grid("Local gap", ("quantity", "slope", "instances"),
                         [["local gap against its dial", local, int(local.n_eff)]]),
        residual_slopes=_slopes(said), values=_values(said),
        verdicts=verdicts({NAME[term]: said["verdicts"][term] for term in TERMS}),
        ratios=tightness(_ratio_rows(said, results)), kept=bool(results),
        proved=_proved(said) if theorem else None, origin=reproduced(folder, said),
    )  # fmt: skip


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


def _numbers(said: Mapping[str, Any], local: Estimate, residual: Estimate) -> dict[str, Entry]:
    """The numbers to remember."""
    low, high = said["oracle_value_percent_at_zero_gap_interval"]
    value = Estimate(said["oracle_value_percent_at_zero_gap"], float("nan"), (low, high), float(said["seeds"]))
    return {
        "records": said["records"], "violations": said["violations"],
        "slope of the residual against handoffs": residual, "slope of the local gap against its dial": local,
        "value at zero gap, % of the oracle": value,
    }  # fmt: skip


def _digits(e: Estimate, places: int) -> str:
    return "unknown" if np.isnan(e.value) else f"{e.value:.{places}f}"


def _largest(results: list[Arrays]) -> str:
    found = [r for r in results if "e_residual" in r]
    errors = {t: np.array([np.sqrt(np.mean(r[f"e_{t}"][:, -1] ** 2)) for r in found]) for t in TERMS}
    return largest_term(errors) if found else ""


def _slopes(said: Mapping[str, Any]) -> Grid:
    over = said["residual_over_asymptote"]
    rows: list[list[Entry]] = [
        [cell, from_dict(slope), from_dict(over[cell])] for cell, slope in said["residual_slopes"].items()
    ]
    return Grid("Residual against handoffs", ("cell", "slope", "over its asymptote"), rows)


def _values(said: Mapping[str, Any]) -> Grid:
    value = said["value_percent"]
    gaps = list(next(iter(value.values())))
    rows: list[list[Entry]] = [[gap, *(from_dict(part[gap]) for part in value.values())] for gap in gaps]
    return Grid("Value of the learned policy, per cent of the oracle's", ("gap dial", *value), rows)


def _ratio_rows(said: Mapping[str, Any], results: list[Arrays]) -> list[list[Entry]]:
    if results:
        return Records.of(results).ratio_rows()
    return [
        [NAME[t], "every record", "d-norm", None, None, said["median_ratio"][t], said["max_ratio"][t]] for t in TERMS
    ]


def _proved(said: Mapping[str, Any]) -> dict[str, Any]:
    workflow = DialsFamily(agents=said["agents"], gap=0.5, mixing=0.3).workflow()
    handoffs = PRESETS[said["preset"]].residual_handoffs
    return proved(workflow, 0, handoffs, "the workflow of panel B (gap 0.5, mixing 0.3)")
