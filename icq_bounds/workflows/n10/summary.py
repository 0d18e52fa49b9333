"""What the ten-agent experiment says, as one JSON file: slopes with intervals, verdicts, ratios, provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from estimators.statistics import estimate
from estimators.statistics.estimate import as_dict, finite
from icq_bounds.sweep import store
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import Features
from icq_bounds.sweep.provenance import provenance
from icq_bounds.sweep.results import percent
from icq_bounds.workflows.n10 import experiment as n10
from icq_bounds.workflows.n10.experiment import N10Preset, N10Results


def summarise(p: N10Preset, results: N10Results, gaps: np.ndarray, local_gap: np.ndarray) -> dict[str, Any]:
    """Every conclusion of the experiment, with the command's preset and where it ran."""
    measured = {cell: r for cell, r in results.items() if "e_residual" in r}
    counts = n10.verdicts(results)
    ratios = n10.ratios(results)
    residual = {cell.label(): n10.residual_slope(cell, results[cell]) for cell in n10.residual_cells(p)}
    main = next(c for c in n10.residual_cells(p) if not c.iid and isinstance(c.method, Features))
    value = {
        who.value: {f"{n10.dials(c).gap:g}": as_dict(percent(results[c])) for c in n10.gap_cells(p, who)} for who in Who
    }
    zero = next(c for c in n10.gap_cells(p) if n10.dials(c).gap == 0.0)
    return {
        "preset": p.name,
        "agents": p.agents,
        "seeds": p.seeds,
        "kappa_max": max(float(r["kappa"]) for r in measured.values()),
        "local_gap_slope": as_dict(estimate.log_log_slope(gaps, local_gap)),
        "residual_slope": as_dict(residual[main.label()]) | {"cell": main.label()},
        "residual_slopes": {name: as_dict(e) for name, e in residual.items()},
        "residual_over_asymptote": {
            cell.label(): as_dict(n10.over_asymptote(cell, results[cell])) for cell in n10.residual_cells(p)
        },
        "oracle_value_percent_at_zero_gap": percent(results[zero]).value,
        "oracle_value_percent_at_zero_gap_interval": list(percent(results[zero]).interval),
        "value_percent": value,
        "records": int(sum(r["e_residual"].size for r in measured.values())),
        "violations": sum(c.get("violated", 0) for c in counts.values()),
        "verdicts": counts,
        "max_ratio": {term: finite(r.max()) if r.size else None for term, r in ratios.items()},
        "median_ratio": {term: finite(np.median(r)) if r.size else None for term, r in ratios.items()},
        "reference_residual_max": max(float(r["reference_residual"]) for r in measured.values()),
        "references_not_converged": [c.label() for c, r in measured.items() if not bool(r["reference_converged"])],
        "runs_not_finite": int(sum((~np.isfinite(r["e_residual"][:, -1])).sum() for r in measured.values())),
        "provenance": provenance(),
    }


def write(summary: dict[str, Any], path: Path) -> None:
    """Write the summary whole or not at all."""
    store.write(path, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
