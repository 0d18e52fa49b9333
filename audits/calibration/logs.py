"""What is estimated from handoff logs, and the workflows whose logs it is estimated from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from audits.calibration.rows import DataSource, Quantity
from estimators import approximation, distances, interface, mixing, td_noise, values
from estimators.doubt import UNSURE
from estimators.logs.log import Log, from_handoffs
from estimators.statistics.estimate import Estimate, attempt, exact
from estimators.td_noise import TDNoise
from icq.display import Shown
from icq.exact import Analysis, analyse
from icq.learn import sampling
from icq.learn.classes import Linear, random_features
from icq.learn.learner import seed_keys
from icq.learn.sampling import Handoff
from icq.smdp import ICSMDP
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.random import garnet
from synthetic.topology import Topology, complete, ring, star

LENGTHS = (3000, 10_000, 30_000)
SLOW_LENGTHS = (10_000, 30_000, 100_000)  # the slow chain forgets in 50 handoffs
FEATURES = 2  # per agent, out of four to six pairs: misspecified, so that the noise is correlated
FEATURE_SEED = 3  # greedy options of Q_F are clear on every workflow here


@dataclass(frozen=True)
class KnownWorkflow(Shown):
    """The exact side: an analysed instance, a misspecified class on it, and a table that is not a fixed point."""

    analysis: Analysis
    cls: Linear
    table: Float[np.ndarray, "O A"]

    @property
    def places(self) -> Float[np.ndarray, "O 1"]:
        """Observations on a line, a unit apart."""
        return np.arange(len(self.table), dtype=np.float64)[:, None]


@dataclass(frozen=True)
class Walk(Shown):
    """A sampled trajectory [n] of a workflow, not yet a log: the leaves of a `Handoff`."""

    workflow: KnownWorkflow
    leaves: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Logged(Shown):
    """The log of a workflow, with what several estimators share."""

    workflow: KnownWorkflow
    log: Log

    @cached_property
    def channels(self) -> interface.Channels:
        """The three parts of the local gap, estimated together."""
        return interface.local_gap_channels(self.log)


def build(make: Callable[[], ICSMDP]) -> KnownWorkflow:
    """The exact side of an instance."""
    a = analyse(make())
    cls = random_features(a.smdp, FEATURES, FEATURE_SEED)
    assert isinstance(cls, Linear)
    return KnownWorkflow(a, cls, np.where(a.interface.available, 0.8 * a.q_bar, 0.0))


@partial(jax.jit, static_argnames=("length",))
def _simulate(t: sampling.Tables, keys: Key[Array, "R"], length: int) -> Handoff:
    return jax.vmap(lambda key: sampling.trajectory(t, key, length))(keys)


def draw(workflow: KnownWorkflow, seeds: Sequence[int], length: int, root: int = 0) -> Iterator[Walk]:
    """One stationary trajectory per seed of the root."""
    handoffs = _simulate(sampling.tables(workflow.analysis), seed_keys(list(seeds), root), length)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(handoffs)]
    for r in range(len(seeds)):
        yield Walk(workflow, tuple(leaf[r] for leaf in leaves))


def cut(walk: Walk, length: int) -> Logged:
    """The log of its first handoffs, with the global state as context; agents send back what the table says."""
    first = Handoff(*(jnp.asarray(leaf[:length]) for leaf in walk.leaves))
    return Logged(walk.workflow, from_handoffs(walk.workflow.analysis.smdp, first, q=walk.workflow.table))


def source(name: str, make: Callable[[], ICSMDP], sizes: tuple[int, ...] = LENGTHS) -> DataSource:
    """Logs of one workflow.  Every source has its own root, so that what is chance in one is not seen in all."""
    root = crc32(name.encode()) >> 1  # 31 bits, as JAX takes a seed for a signed number
    return DataSource(name, partial(build, make), partial(draw, root=root), cut, sizes)


def dials(graph: Topology, **settings: float) -> Callable[[], ICSMDP]:
    """A small instance of the dials family."""
    return lambda: dials_instance(Shape(graph, clusters=2, visible=1), Dials(**settings))


SOURCES = (
    source("ten agents", dials(complete(10), gap=0.5)),
    source("no gap, star", dials(star(6), gap=0.0)),
    source("slow mixing", dials(ring(3), gap=0.5, mixing=0.02), SLOW_LENGTHS),
    source("persistent", dials(complete(4), gap=0.8, persistence=0.5)),
    source(
        "random (Garnet)",
        partial(garnet, 10, states=12, outcomes=3, observations=6, agents=3, gamma=0.8, max_duration=4),
    ),
)


def _truth(found: Estimate) -> float:
    return found.value if found.known else math.nan


def channel(name: str) -> Quantity:
    """One part of the local gap."""
    return Quantity(
        f"local gap, {name} channel", lambda data: getattr(data.channels, name),
        lambda workflow: _truth(getattr(interface.local_gap_channels(workflow.analysis), name)),
    )  # fmt: skip


def of_log(name: str, of: Callable[[Analysis | Log, KnownWorkflow], Estimate], *, guaranteed: bool = False) -> Quantity:
    """A quantity of a log or an instance, and of the class or table of the workflow."""
    return Quantity(
        name, lambda data: of(data.log, data.workflow), lambda workflow: _truth(of(workflow.analysis, workflow)),
        guaranteed,
    )  # fmt: skip


def of_noise(name: str, of: Callable[[Log, TDNoise], Estimate], truth: Callable[[KnownWorkflow], float]) -> Quantity:
    """A quantity of a log and of its noise at the fixed point of the table."""

    def estimate(data: Logged) -> Estimate:
        return attempt(lambda: of(data.log, td_noise.noise(data.log, chance=UNSURE)))

    return Quantity(name, estimate, truth)


def _sent_error(w: KnownWorkflow) -> float:
    """Root mean square over handoffs of max_a table(o', a) - Vbar(o')."""
    a = w.analysis
    lasting = np.where(a.smdp.terminal, 0.0, a.smdp.prob) * a.d_state_pair[..., None]
    arrive = np.asarray(a.smdp.observation)[a.smdp.next_state]
    weight = np.bincount(arrive.reshape(-1), lasting.reshape(-1), len(w.table))
    sent = np.where(a.interface.available, w.table, -np.inf).max(axis=1)
    return float(np.sqrt(weight / weight.sum() @ (sent - a.v_bar) ** 2))


def _value_error_change(of: Analysis | Log, w: KnownWorkflow) -> Estimate:
    """From the table to one that is halfway to Qbar at every other option, so that its error points elsewhere."""
    even = np.arange(w.table.shape[1]) % 2 == 0
    nearer = np.where(w.analysis.interface.available & even, (w.table + w.analysis.q_bar) / 2, w.table)
    if isinstance(of, Log):
        return values.value_error_change(of, w.table, nearer)
    return exact(values.value_error(of, w.table).value - values.value_error(of, nearer).value)


QUANTITIES = (
    of_log("local gap", lambda of, w: interface.local_gap(of)),
    of_log("local gap of agent 0", lambda of, w: interface.local_gap(of, agent=0)),
    of_log("residual of a table in the true process", lambda of, w: interface.local_gap(of, w.table)),
    channel("reward"),
    channel("duration"),
    channel("transition"),
    of_log("interface gap", lambda of, w: interface.interface_gap(of)),
    of_log("oracle contraction kappa_S", lambda of, w: interface.oracle_contraction(of)),
    of_log("certified gap", lambda of, w: interface.certified_gap(of)),
    of_log("total variation", lambda of, w: distances.total_variation(of), guaranteed=True),
    of_log("Wasserstein distance", lambda of, w: distances.wasserstein(of, w.places), guaranteed=True),
    of_log("mean discrepancy", lambda of, w: distances.mean_discrepancy(of)),
    of_log("Bellman residual", lambda of, w: approximation.bellman_residual(of, w.table)),
    of_log("class error", lambda of, w: approximation.class_error(of, w.cls)),
    of_log("contraction kappa", lambda of, w: approximation.kappa(of)),
    of_log("certificate", lambda of, w: approximation.certificate(of, w.table)),
    of_log("error of a table", lambda of, w: values.value_error(of, w.table)),
    of_log("change of that error", _value_error_change),
    of_noise(
        "size of the values",
        lambda log, known: values.typical_value(known),
        lambda w: w.analysis.norm_d(w.analysis.q_bar),
    ),
    of_noise("error of what was sent", values.sent_error, _sent_error),
    of_log("Sigma_0", lambda of, w: td_noise.sigma_0(of, w.cls)),
    of_log("Sigma_mix", lambda of, w: td_noise.sigma_mix(of, w.cls)),
    of_log("autocorrelation time", lambda of, w: td_noise.autocorrelation_time(of, w.cls)),
    of_log("control constant", lambda of, w: td_noise.control_constant(of, w.cls)),
    of_log("residual constant", lambda of, w: td_noise.residual_constant(of, w.cls)),
    of_log("residual constant, table", lambda of, w: td_noise.residual_constant(of)),
    of_log("Kemeny's constant", lambda of, w: mixing.kemeny(of)),
    of_log("relaxation time", lambda of, w: mixing.relaxation_time(of)),
    of_log("pseudo-spectral gap", lambda of, w: mixing.pseudo_spectral_gap(of)),
    of_log("mixing time (context)", lambda of, w: mixing.mixing_time(of, context=True), guaranteed=True),
    of_log("contraction rate (context)", lambda of, w: mixing.contraction_rate(of, context=True), guaranteed=True),
)
