"""What is calibrated: estimates from logs of growing length, and from growing numbers of independent runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from zlib import crc32

import numpy as np
from jaxtyping import Float

from audits.calibration import logs
from audits.calibration.rows import DataSource, Quantity
from estimators.decomposition import MixingSplit, decompose, mixing_split
from estimators.statistics import estimate
from icq.display import Shown
from icq.exact import analyse
from icq.learn.learner import learn, seed_keys
from icq_bounds.sweep.methods import Features, Method, Table
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import ring

RUNS = (8, 16, 32, 64)
CHECKPOINTS = (512, 1024, 2048, 4096)
POPULATION = 2048  # pairs of runs that stand for all runs there could be


@dataclass(frozen=True)
class Study:
    """A source and what is estimated from it."""

    source: DataSource
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True, eq=False)
class Runs(Shown):
    """Paired learning runs: residuals [R, 2, K] along a trajectory and of the control at the checkpoints."""

    residual: Float[np.ndarray, "R 2 K"]

    @cached_property
    def split(self) -> MixingSplit:
        """Trajectory against control at the last checkpoint."""
        return mixing_split(self.residual[:, 0, -1], self.residual[:, 1, -1])


def learned(method: Method) -> Runs:
    """The residuals of many pairs of runs on a small, slow workflow; drawing from them has an exactly known truth."""
    a = analyse(dials_instance(Shape(ring(3), clusters=2, visible=1), Dials(gap=0.5, mixing=0.05)))
    cls = method.build(a)
    seeds = range(POPULATION)
    q_f = method.reference(a, cls, seed_keys([0])).q[0]
    residuals = []
    for iid in (False, True):
        record = learn(a, cls, method.config(a, iid), seeds, CHECKPOINTS)
        residuals.append(decompose(a, np.asarray(record.q_average, np.float64), q_f)[0].residual)
    return Runs(np.stack(residuals, axis=1))


def draw_runs(population: Runs, seeds: Sequence[int], size: int, root: int = 0) -> Iterator[Runs]:
    """`size` runs drawn from the population, with replacement, for every seed of the root."""
    for seed in seeds:
        rows = np.random.default_rng((root, seed)).integers(len(population.residual), size=size)
        yield Runs(population.residual[rows])


def cut_runs(runs: Runs, size: int) -> Runs:
    """The first `size` runs."""
    return Runs(runs.residual[:size])


def _rms(errors: Float[np.ndarray, "R K"]) -> Float[np.ndarray, "K"]:
    return np.sqrt((errors**2).mean(axis=0))


OVER_RUNS = (
    Quantity(
        "mean over runs", lambda runs: estimate.mean(runs.residual[:, 0, -1]),
        lambda all_: float(all_.residual[:, 0, -1].mean()),
    ),
    Quantity(
        "root mean square over runs", lambda runs: estimate.root_mean_square(runs.residual[:, 0, -1]),
        lambda all_: float(_rms(all_.residual[:, 0])[-1]),
    ),
    Quantity(
        "log-log slope", lambda runs: estimate.log_log_slope(np.array(CHECKPOINTS, float), runs.residual[:, 0]),
        lambda all_: float(np.polyfit(np.log(CHECKPOINTS), np.log(_rms(all_.residual[:, 0])), 1)[0]),
    ),
    Quantity(
        "residual, trajectory minus control", lambda runs: runs.split.excess,
        lambda all_: float((all_.residual[:, 0, -1] - all_.residual[:, 1, -1]).mean()),
    ),
    Quantity(
        "residual rms, trajectory minus control", lambda runs: runs.split.excess_rms,
        lambda all_: float(_rms(all_.residual[:, 0])[-1] - _rms(all_.residual[:, 1])[-1]),
    ),
    Quantity(
        "residual rms, trajectory over control", lambda runs: runs.split.ratio,
        lambda all_: float(_rms(all_.residual[:, 0])[-1] / _rms(all_.residual[:, 1])[-1]),
    ),
)  # fmt: skip


def runs_of(name: str, method: Method) -> DataSource:
    """Numbers of independent pairs of runs of one way to learn."""
    draw = partial(draw_runs, root=crc32(name.encode()))
    return DataSource(name, partial(learned, method), draw, cut_runs, RUNS, "runs")


SUITE = (
    *(Study(source, logs.QUANTITIES) for source in logs.SOURCES),
    Study(runs_of("learning runs, table", Table()), OVER_RUNS),
    Study(runs_of("learning runs, one feature", Features(1)), OVER_RUNS),
)
