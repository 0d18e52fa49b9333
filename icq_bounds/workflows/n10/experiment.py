"""The ten-agent experiment: which cells, how they run, and what is concluded from them.

Five panels: A the interface gap against its dial, B approximation against width, C the residual against handoffs with
a Markov trajectory and with the i.i.d. control, D observed against bound for every record, E value against the gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from estimators.decomposition import TERMS
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate
from icq.exact import analyse
from icq.smdp import index
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import Features, Mlp, Table
from icq_bounds.sweep.results import octaves, pairs, tally
from icq_bounds.sweep.store import Arrays
from synthetic.dials import Dials, Shape, make_many
from synthetic.topology import complete

N10Results: TypeAlias = dict[Cell, Arrays]


@dataclass(frozen=True)
class N10Preset:
    """Sizes of the experiment.  `instances`: random instances behind the slope of the local gap;
    `reference_iterations`: expected updates behind a network's Q_F.
    """

    name: str
    seeds: int
    gaps: tuple[float, ...]
    widths: tuple[int, ...]
    mixings: tuple[float, ...]
    network_handoffs: int
    residual_handoffs: int
    instances: int
    agents: int = 10
    width: int = 16
    reference_iterations: int = 2000
    features: int = 2


FULL = N10Preset(
    "full", seeds=32, gaps=tuple(k / 8 for k in range(9)), widths=(1, 2, 4, 8, 16), mixings=(0.75, 0.1, 0.02),
    network_handoffs=2**17, residual_handoffs=2**18, instances=32,
    reference_iterations=6000,
)  # fmt: skip
SMOKE = N10Preset(
    "smoke", seeds=32, gaps=(0.0, 0.5, 1.0), widths=(1, 4), mixings=(0.75, 0.02), network_handoffs=2**14,
    residual_handoffs=2**15, instances=4,
)  # fmt: skip


def gap_cells(p: N10Preset, who: Who = Who.ICQ) -> list[Cell]:
    """One cell per gap dial: networks wide enough that approximation is not in the way."""
    grid = octaves(p.network_handoffs)
    return [Cell(_network(p, p.width), p.seeds, grid, _workflow(p, gap=g), who=who) for g in p.gaps]


def _workflow(p: N10Preset, gap: float = 0.5, mixing: float = 0.3) -> DialsFamily:
    """Agents who may hand over to anyone, variance-compensated gap."""
    return DialsFamily(agents=p.agents, gap=gap, mixing=mixing)


def dials(cell: Cell) -> DialsFamily:
    """The dials of a cell of this experiment."""
    if not isinstance(cell.family, DialsFamily):
        raise TypeError(f"a cell of the dials family is needed, not {type(cell.family).__name__}")
    return cell.family


def _network(p: N10Preset, width: int) -> Mlp:
    return Mlp(width, iterations=p.reference_iterations)


def width_cells(p: N10Preset) -> list[Cell]:
    """One cell per width at a fixed gap."""
    return [Cell(_network(p, w), p.seeds, octaves(p.network_handoffs), _workflow(p)) for w in p.widths]


def residual_cells(p: N10Preset) -> list[Cell]:
    """Tables and misspecified features, at every mixing dial, along a trajectory and with the i.i.d. control."""
    grid = octaves(p.residual_handoffs, 256)
    return [
        Cell(method, p.seeds, grid, _workflow(p, mixing=eta), iid=iid)
        for method in (Table(), Features(p.features))
        for eta in p.mixings
        for iid in (False, True)
    ]


def all_cells(p: N10Preset) -> list[Cell]:
    """Every cell of every panel."""
    return [c for who in Who for c in gap_cells(p, who)] + width_cells(p) + residual_cells(p)


def local_gap_curves(p: N10Preset) -> tuple[np.ndarray, np.ndarray]:
    """Positive dial values [K] and ||b||_inf of `instances` random instances at each, [instances, K]."""
    gaps = np.array([g for g in p.gaps if g > 0])
    curves = np.zeros((p.instances, len(gaps)))
    for i in range(p.instances):
        batch = make_many(Shape(topology=complete(p.agents)), Dials(gap=gaps), i)
        for k in range(len(gaps)):
            a = analyse(index(batch, k))
            curves[i, k] = a.norm_sup_state(a.local_gap)
    return gaps, curves


def residual_slope(cell: Cell, result: Arrays) -> Estimate:
    """Slope of log E_mix against log handoffs over the last four octaves (every one, when there are fewer)."""
    e, grid = result["e_residual"], np.asarray(cell.checkpoints, float)
    return estimate.log_log_slope(grid[-5:], e[:, -5:])


def over_asymptote(cell: Cell, result: Arrays) -> Estimate:
    """Observed over asymptotically predicted residual (root mean squares) at the last checkpoint: 1 in the limit."""
    predicted = np.sqrt(float(result["asymptote"]) / cell.checkpoints[-1])
    return estimate.root_mean_square(result["e_residual"][:, -1] / predicted)


def ratios(results: N10Results) -> dict[str, np.ndarray]:
    """bound / observed of every applicable record of each term whose observed error is above its numerical slack."""
    out = {}
    for term in TERMS:
        found = [pairs(r, term) for r in results.values()]
        out[term] = np.concatenate([bound / error for error, bound in found])
    return out


def verdicts(results: N10Results) -> dict[str, dict[str, int]]:
    """How many records of each term got each verdict."""
    found = [r for r in results.values() if "e_residual" in r]
    return {term: tally(np.concatenate([r[f"verdict_{term}"].ravel() for r in found])) for term in TERMS}
