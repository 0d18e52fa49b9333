"""What the ten-agent experiment says, as one JSON file: bounds, certificates, slopes, values, provenance."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from estimators.decomposition import TERMS
from estimators.statistics import estimate
from estimators.statistics.estimate import as_dict, finite
from icq import files
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.provenance import provenance
from icq_bounds.sweep.results import KINDS, Stated, gained, statements, tally, violations
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.n10 import experiment as n10
from icq_bounds.workflows.n10.experiment import N10Preset, N10Results
from icq_bounds.workflows.n10.panels import loss


def summarise(p: N10Preset, results: N10Results, gaps: np.ndarray, local_gap: np.ndarray) -> dict[str, Any]:
    """Every conclusion of the experiment, with the command's preset and where it ran."""
    measured = n10.learned(results)
    tables = n10.residual_cells(p)
    zero = results[n10.value_cells(p, Who.ICQ)[int(np.argmin(p.value_gaps))]]
    return {
        "preset": p.name,
        "agents": p.agents,
        "seeds": p.seeds,
        "kappa_max": max(float(r["kappa"]) for r in measured.values()),
        **{kind: evidence(measured.values(), kind) for kind in KINDS},
        "violated": [cell.label() for cell, r in measured.items() if violations([r])],
        "value_lost_at_zero_gap": as_dict(loss(zero)),
        "value_gained_percent_at_zero_gap": as_dict(gained(zero)),
        "local_gap_slope": as_dict(estimate.log_log_slope(gaps, local_gap)),
        "residual_slope": as_dict(n10.residual_slope(tables[0], results[tables[0]])) | {"cell": tables[0].label()},
        "residual_over_prediction": {c.label(): as_dict(n10.over_prediction(c, results[c])) for c in _predicted(p)},
        "value_lost": {
            who.value: {f"{n10.dials(c).gap:g}": as_dict(loss(results[c])) for c in n10.value_cells(p, who)}
            for who in p.learners
        },
        "reference_residual_max": max(float(r["reference_residual"]) for r in measured.values()),
        "references_not_converged": [c.label() for c, r in measured.items() if not bool(r["reference_converged"])],
        "runs_not_finite": int(sum((~np.isfinite(r["observed_total"][:, :, -1])).sum() for r in measured.values())),
        "provenance": provenance(),
    }  # fmt: skip


def _predicted(p: N10Preset) -> list[n10.Cell]:
    plain = [cell for eta in p.plain_mixings for cell in n10.plain_cells(p, eta)]
    return [*n10.residual_cells(p), *n10.mixing_cells(p), *n10.mixing_cells(p, iid=True), *plain]


def evidence(results: Collection[Arrays], kind: Stated) -> dict[str, Any]:
    """What was stated in one way: records with a number, distinct statements among them, verdicts, and the ratio of
    stated to observed of those whose error is above its numerical slack.
    """  # fmt: skip
    found = {term: statements(results, kind, term) for term in TERMS}
    return {
        "records": int(sum(s.applicable.sum() for s in found.values())),
        "distinct": sum(s.distinct for s in found.values()),
        "violations": sum(s.violations for s in found.values()),
        "verdicts": {term: tally(s.verdict) for term, s in found.items()},
        "max_ratio": {term: finite(s.ratios.max()) if len(s.ratios) else None for term, s in found.items()},
        "median_ratio": {term: finite(np.median(s.ratios)) if len(s.ratios) else None for term, s in found.items()},
    }


def write(summary: dict[str, Any], path: Path) -> None:
    """Write the summary whole or not at all."""
    files.write(path, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
