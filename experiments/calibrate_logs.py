"""What is estimated from handoff logs, and the workflows whose logs it is estimated from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from estimators import approximation, chain_intervals, distances, interface, mixing
from estimators.cells import Cells, gather
from estimators.estimate import Estimate
from estimators.logs import Log, from_handoffs
from experiments.calibrate_rows import Quantity, Source
from icq import rollout
from icq.exact import Analysis, analyse
from icq.learner import seed_keys
from icq.networks import Linear, random_features
from icq.rollout import Handoff
from icq.smdp import ICSMDP
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.random import garnet
from synthetic.topology import Topology, complete, ring, star

LENGTHS = (3000, 10_000, 30_000)
SLOW_LENGTHS = (10_000, 30_000, 100_000)  # the slow chain forgets in 50 handoffs
FEATURES = 2  # per agent, out of four to six pairs: misspecified, so that the noise is correlated
FEATURE_SEED = 3  # greedy options of Q_F are clear on every workflow here


@dataclass(frozen=True)
class Workflow:
    """The exact side: an analysed instance, a misspecified class on it, and a table that is not a fixed point."""

    analysis: Analysis
    cls: Linear
    table: Float[np.ndarray, "O A"]


@dataclass(frozen=True)
class Walk:
    """A sampled trajectory [n] of a workflow, not yet a log."""

    workflow: Workflow
    handoff: Handoff


@dataclass(frozen=True, eq=False)
class Logged:
    """The log of a workflow, with what several estimators share."""

    workflow: Workflow
    log: Log

    @cached_property
    def cells(self) -> Cells:
        """Cells of the log with the process of contexts."""
        return gather(self.log, onward=True)


def build(make: Callable[[], ICSMDP]) -> Workflow:
    """The exact side of an instance."""
    a = analyse(make())
    cls = random_features(a.smdp, FEATURES, FEATURE_SEED)
    assert isinstance(cls, Linear)
    return Workflow(a, cls, np.where(a.interface.available, 0.8 * a.q_bar, 0.0))


@partial(jax.jit, static_argnames=("length",))
def _simulate(t: rollout.Tables, keys: Key[Array, "R"], length: int) -> Handoff:
    return jax.vmap(lambda key: rollout.trajectory(t, key, length))(keys)


def draw(workflow: Workflow, seeds: Sequence[int], length: int) -> Iterator[Walk]:
    """One stationary trajectory per seed."""
    handoffs = _simulate(rollout.tables(workflow.analysis), seed_keys(list(seeds)), length)
    found = jax.tree.map(np.asarray, handoffs)
    for r in range(len(seeds)):
        yield Walk(workflow, jax.tree.map(lambda leaf, r=r: leaf[r], found))


def cut(walk: Walk, length: int) -> Logged:
    """The log of its first handoffs, with the global state as context."""
    first = jax.tree.map(lambda leaf: leaf[:length], walk.handoff)
    return Logged(walk.workflow, from_handoffs(walk.workflow.analysis.smdp, first))


def source(name: str, make: Callable[[], ICSMDP], sizes: tuple[int, ...] = LENGTHS) -> Source:
    """Logs of one workflow."""
    return Source(name, partial(build, make), draw, cut, sizes)


def dials(graph: Topology, **settings: float) -> Callable[[], ICSMDP]:
    """A small instance of the dials family."""
    return lambda: dials_instance(Shape(graph, clusters=2, visible=1), Dials(**settings))


SOURCES = (
    source("ten agents", dials(complete(10), gap=0.5)),
    source("no gap", dials(complete(4), gap=0.0)),
    source("slow mixing", dials(ring(3), gap=0.5, mixing=0.02), SLOW_LENGTHS),
    source("persistent", dials(complete(4), gap=0.8, persistence=0.5)),
    source("star", dials(star(6), gap=1.0)),
    source("random (Garnet)", partial(garnet, 10, states=12, observations=6, gamma=0.8)),
)


def _truth(found: Estimate) -> float:
    return found.value if found.result == "ok" else math.nan


def of_cells(name: str, of: Callable[[Analysis | Cells], Estimate]) -> Quantity:
    """A quantity of `estimators.interface` or `estimators.distances`."""
    return Quantity(name, lambda data: of(data.cells), lambda workflow: _truth(of(workflow.analysis)))


def of_log(name: str, of: Callable[[Analysis | Log, Workflow], Estimate], *, guaranteed: bool = False) -> Quantity:
    """A quantity of a log or an instance, and of the class or table of the workflow."""
    return Quantity(
        name, lambda data: of(data.log, data.workflow), lambda workflow: _truth(of(workflow.analysis, workflow)),
        guaranteed,
    )  # fmt: skip


QUANTITIES = (
    of_cells("local gap", interface.local_gap),
    of_cells("local gap of agent 0", partial(interface.local_gap, agent=0)),
    of_log("residual of a table in the true process", lambda of, w: interface.local_gap(of, w.table)),
    of_cells("local gap, reward channel", lambda of: interface.local_gap_channels(of).reward),
    of_cells("local gap, duration channel", lambda of: interface.local_gap_channels(of).duration),
    of_cells("local gap, transition channel", lambda of: interface.local_gap_channels(of).transition),
    of_cells("interface gap", interface.interface_gap),
    of_cells("oracle contraction kappa_S", interface.oracle_contraction),
    of_cells("certified gap", interface.certified_gap),
    of_cells("total variation", distances.total_variation),
    of_cells("mean discrepancy", distances.mean_discrepancy),
    of_log("Bellman residual", lambda of, w: approximation.bellman_residual(of, w.table)),
    of_log("class error", lambda of, w: approximation.class_error(of, w.cls)),
    of_log("contraction kappa", lambda of, w: approximation.kappa(of)),
    of_log("certificate", lambda of, w: approximation.certificate(of, w.table)),
    of_log("Sigma_0", lambda of, w: mixing.sigma_0(of, w.cls)),
    of_log("Sigma_mix", lambda of, w: mixing.sigma_mix(of, w.cls)),
    of_log("autocorrelation time", lambda of, w: mixing.autocorrelation_time(of, w.cls)),
    of_log("control constant", lambda of, w: mixing.control_constant(of, w.cls)),
    of_log("residual constant", lambda of, w: mixing.residual_constant(of, w.cls)),
    of_log("residual constant, table", lambda of, w: mixing.residual_constant(of)),
    of_log("Kemeny's constant", lambda of, w: chain_intervals.kemeny(of)),
    of_log("relaxation time", lambda of, w: chain_intervals.relaxation_time(of)),
    of_log("pseudo-spectral gap", lambda of, w: chain_intervals.pseudo_spectral_gap(of)),
    of_log("mixing time (context)", lambda of, w: chain_intervals.mixing_time(of, context=True), guaranteed=True),
    of_log(
        "contraction rate (context)", lambda of, w: chain_intervals.contraction_rate(of, context=True), guaranteed=True
    ),
)
