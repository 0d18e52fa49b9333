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
from icq_bounds.sweep.results import KINDS
from icq_bounds.sweep.store import Arrays, Store
from icq_bounds.workflows.n10 import experiment

CAPTIONS = {
    "a_interface": "The error terms of a table against the gap dial, with their bounds.",
    "b_approximation": "The error terms against the rank of linear classes, with bounds, and the width of networks.",
    "c_residual": "The residual against handoffs: observed, predicted and bounded, with published kinds of bounds.",
    "c_mixing": "The residual at fixed handoffs against the relaxation time of the handoff chain.",
    "d_bounds": "What was observed against what was known before; nothing may lie below the diagonal.",
    "d_certificates": "What was observed against what was computed from the learned tables.",
    "e_loss": "Value lost against the oracle, in reward, with the best interface policy and the random one.",
    "f_networks": "The residual of networks with plain steps against handoffs: observed, predicted and bounded.",
}
PRESETS = {p.name: p for p in (experiment.FULL, experiment.SMOKE)}


def n10_report(folder: Path, said: Mapping[str, Any], theorem: bool = True) -> Page:
    """The page of a finished experiment; said: its summary."""
    results = _results(folder, said)
    tight = {NAME[t]: said["bound"]["median_ratio"][t] for t in TERMS}
    local, residual = (from_dict(said[f"{name}_slope"]) for name in ("local_gap", "residual"))
    violations = sum(said[kind]["violations"] for kind in KINDS)
    return html.render(
        "n10.html",
        title="The ten-agent experiment",
        lead=f"{folder.name}: preset {said['preset']}, {said['agents']} agents, {said['seeds']} seeds",
        numbers=_numbers(said, local, residual, violations), violations=violations, violated=said["violated"],
        **{kind: said[kind] for kind in KINDS},
        moving=said["references_not_converged"], diverged=said["runs_not_finite"],
        tight=", ".join(f"{name} {number(ratio)}" for name, ratio in tight.items() if ratio is not None),
        local=_digits(local, 3), residual=_digits(residual, 2), kappa=said["kappa_max"], largest=_largest(results),
        **drawings(folder, CAPTIONS),
        local_slope=Grid("Local gap", ("quantity", "slope", "instances"),
                         [["local gap against its dial", local, int(local.n_eff)]]),
        predictions=_predictions(said), values=_values(said),
        verdicts=verdicts({
            f"{NAME[t]}, {kind}": said[kind]["verdicts"][t] for kind in KINDS for t in TERMS
        }),
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
    return [r for r in found if r is not None and "observed_residual" in r]


def _numbers(said: Mapping[str, Any], local: Estimate, residual: Estimate, violations: int) -> dict[str, Entry]:
    """The numbers to remember."""
    return {
        "distinct bounds": said["bound"]["distinct"], "violations": violations,
        "slope of the residual against handoffs": residual, "slope of the local gap against its dial": local,
        "value lost against the oracle at zero gap": from_dict(said["value_lost_at_zero_gap"]),
    }  # fmt: skip


def _digits(e: Estimate, places: int) -> str:
    return "unknown" if np.isnan(e.value) else f"{e.value:.{places}f}"


def _largest(results: list[Arrays]) -> str:
    last = {t: [r[f"observed_{t}"][1][:, -1] for r in results] for t in TERMS}
    errors = {t: np.array([np.sqrt(np.mean(e**2)) for e in found]) for t, found in last.items()}
    return largest_term(errors) if results else ""


def _predictions(said: Mapping[str, Any]) -> Grid:
    rows: list[list[Entry]] = [[cell, from_dict(ratio)] for cell, ratio in said["residual_over_prediction"].items()]
    return Grid("Residual over its prediction", ("cell", "ratio"), rows)


def _values(said: Mapping[str, Any]) -> Grid:
    lost = said["value_lost"]
    gaps = list(next(iter(lost.values())))
    rows: list[list[Entry]] = [[gap, *(from_dict(part[gap]) for part in lost.values())] for gap in gaps]
    return Grid("Value lost against the oracle, in reward", ("gap dial", *lost), rows)


def _ratio_rows(said: Mapping[str, Any], results: list[Arrays]) -> list[list[Entry]]:
    if results:
        return Records.of(results).ratio_rows()
    return [
        [NAME[t], kind, "d-norm", None, None, None, said[kind]["median_ratio"][t], said[kind]["max_ratio"][t]]
        for t in TERMS
        for kind in KINDS
    ]


def _proved(said: Mapping[str, Any]) -> dict[str, Any]:
    workflow = DialsFamily(agents=said["agents"], gap=experiment.GAP, mixing=experiment.MIXING).workflow()
    handoffs = PRESETS[said["preset"]].table_handoffs
    return proved(workflow, 0, handoffs, f"the workflow with gap {experiment.GAP:g} and mixing {experiment.MIXING:g}")
