"""The ten-agent experiment: which cells there are, and what is read off them.

Panels: A every term against the gap dial; B approximation against the rank of linear classes and the width of networks;
C the residual against handoffs at several mixing dials, and against the mixing time; D every bound, and every
certificate, against what was observed; E what the interface costs, in reward; F the residual of networks with plain
steps against handoffs.

Bounds are known before the runs.  They speak of tables and linear classes on the local clock, and of networks with
plain steps; for networks that learn by Adam there is none in advance, and their certificates stand apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate
from icq.exact import analyse
from icq.smdp import index
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.methods import LINEAR, LOCAL, Features, Mlp, PlainMlp, Table
from icq_bounds.sweep.results import half_decades, octaves
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.n10.literature import LiteratureCell
from synthetic.dials import Dials, Shape, make_many
from synthetic.topology import complete

N10Results: TypeAlias = dict[Cell | LiteratureCell, Arrays]
GAP, MIXING = 0.5, 0.75  # of the cells that vary something else
TABLE = Table(LOCAL, "local", "double")


@dataclass(frozen=True)
class N10Preset:
    """Sizes of the experiment.  value_gaps: of the networks whose value is compared; mixings: of tables over handoffs;
    mixing_times: of misspecified features at fixed handoffs; instances: random ones behind the slope of the local gap;
    reference_iterations: expected updates behind a network's Q_F; learners: whose value is compared; plain: widths and
    output scales of networks with plain steps, at plain_mixings and with plain_seeds runs.
    """  # fmt: skip

    name: str
    seeds: int
    gaps: tuple[float, ...]
    value_gaps: tuple[float, ...]
    ranks: tuple[int, ...]
    widths: tuple[int, ...]
    mixings: tuple[float, ...]
    mixing_times: tuple[float, ...]
    gap_handoffs: int
    table_handoffs: int
    feature_handoffs: int
    network_handoffs: int
    instances: int
    agents: int = 10
    width: int = 16
    reference_iterations: int = 2000
    features: int = 2
    learners: tuple[Who, ...] = tuple(Who)
    plain: tuple[tuple[int, float], ...] = ((16, 4.0), (64, 1.0), (256, 1.0))
    plain_mixings: tuple[float, ...] = (0.75, 0.1)
    plain_handoffs: int = 10**6
    plain_seeds: int = 16


FULL = N10Preset(
    "full", seeds=32, gaps=tuple(k / 8 for k in range(9)), value_gaps=tuple(k / 8 for k in range(9)),
    ranks=(1, 2, 4, 8, 16), widths=(1, 2, 4, 8, 16), mixings=(0.75, 0.1, 0.02),
    mixing_times=(0.75, 0.1, 0.03, 0.01, 0.005), gap_handoffs=10**6,
    table_handoffs=10**7, feature_handoffs=3 * 10**6, network_handoffs=2**17, instances=32,
    reference_iterations=6000,
)  # fmt: skip
SMOKE = N10Preset(
    "smoke", seeds=32, gaps=(0.0, 0.5, 1.0), value_gaps=(0.0, 0.5), ranks=(2,), widths=(16,), mixings=(0.75, 0.02),
    mixing_times=(0.75, 0.01), gap_handoffs=3 * 10**5, table_handoffs=3 * 10**5, feature_handoffs=3 * 10**5,
    network_handoffs=2**15, instances=2, reference_iterations=1000,
    learners=(Who.ICQ,), plain=((64, 1.0),), plain_mixings=(0.75,), plain_handoffs=30_000,
)  # fmt: skip


def _workflow(p: N10Preset, gap: float = GAP, mixing: float = MIXING) -> DialsFamily:
    """Agents who may hand over to anyone, variance-compensated gap."""
    return DialsFamily(agents=p.agents, gap=gap, mixing=mixing)


def dials(cell: Cell) -> DialsFamily:
    """The dials of a cell of this experiment."""
    if not isinstance(cell.family, DialsFamily):
        raise TypeError(f"a cell of the dials family is needed, not {type(cell.family).__name__}")
    return cell.family


def gap_cells(p: N10Preset) -> list[Cell]:
    """A: a table per gap dial."""
    return [Cell(TABLE, p.seeds, half_decades(p.gap_handoffs), _workflow(p, gap=g)) for g in p.gaps]


def rank_cells(p: N10Preset) -> list[Cell]:
    """B: linear classes by rank."""
    return [_linear(p, rank, MIXING) for rank in p.ranks]


def width_cells(p: N10Preset) -> list[Cell]:
    """B: networks by width."""
    return [_networks(p, width, GAP) for width in p.widths]


def residual_cells(p: N10Preset) -> list[Cell]:
    """C: tables at every mixing dial."""
    grid = half_decades(p.table_handoffs)
    return [Cell(TABLE, p.seeds, grid, _workflow(p, mixing=eta)) for eta in p.mixings]


def mixing_cells(p: N10Preset, iid: bool = False) -> list[Cell]:
    """C: misspecified features by mixing time."""
    return [_linear(p, p.features, eta, iid) for eta in p.mixing_times]


def plain_cells(p: N10Preset, mixing: float) -> list[Cell]:
    """F: networks with plain steps, by width."""
    grid = half_decades(p.plain_handoffs)
    return [Cell(PlainMlp(w, scale), p.plain_seeds, grid, _workflow(p, mixing=mixing)) for w, scale in p.plain]


def value_cells(p: N10Preset, who: Who) -> list[Cell]:
    """E: networks wide enough that approximation is not in the way, by gap dial."""
    return [_networks(p, p.width, g, who) for g in p.value_gaps]


def literature_cell(p: N10Preset) -> LiteratureCell:
    """C: what published kinds of bounds say of the first cell of the residual."""
    return LiteratureCell(residual_cells(p)[0])


def _linear(p: N10Preset, rank: int, mixing: float, iid: bool = False) -> Cell:
    method = Features(rank, schedule=LINEAR, clock="local", precision="double")
    return Cell(method, p.seeds, half_decades(p.feature_handoffs), _workflow(p, mixing=mixing), iid=iid)


def _networks(p: N10Preset, width: int, gap: float, who: Who = Who.ICQ) -> Cell:
    method = Mlp(width, iterations=p.reference_iterations)
    return Cell(method, p.seeds, octaves(p.network_handoffs, p.network_handoffs // 4), _workflow(p, gap=gap), who=who)


def all_cells(p: N10Preset) -> list[Cell | LiteratureCell]:
    """Every cell of every panel; those of several panels once."""
    mixing = [*mixing_cells(p), *mixing_cells(p, iid=True)]
    plain = [cell for eta in p.plain_mixings for cell in plain_cells(p, eta)]
    cells = [*gap_cells(p), *rank_cells(p), *width_cells(p), *residual_cells(p), *mixing, *plain]
    return list(dict.fromkeys([*cells, *(c for who in p.learners for c in value_cells(p, who)), literature_cell(p)]))


def learned(results: N10Results) -> dict[Cell, Arrays]:
    """The cells of IC-Q, which have errors."""
    return {c: r for c, r in results.items() if isinstance(c, Cell) and c.who is Who.ICQ}


def relaxation_time(result: Arrays) -> float:
    """1/(1 - slem), in handoffs."""
    return 1 / (1 - float(result["slem"]))


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
    """Slope of log E_mix of the average against log handoffs over the last four checkpoints."""
    e, grid = result["observed_residual"][1], np.asarray(cell.checkpoints, float)
    return estimate.log_log_slope(grid[-4:], e[:, -4:])


def over_prediction(cell: Cell, result: Arrays) -> Estimate:
    """Observed over predicted residual of the last iterate (root mean squares) at the last checkpoint."""
    return estimate.root_mean_square(result["observed_residual"][0][:, -1] / result["predicted"][-1])
