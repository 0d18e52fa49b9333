"""Ways to learn: a function class, its schedule, where it would stop, and what certifies it.

Three methods behind one protocol: tables, misspecified features and networks.  Notation: docs/theory.md sections 2, 4
and 5a.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import optax
from jaxtyping import Array, Float, Key

from bounds.approximation.certificate import certificate_pointwise
from bounds.approximation.class_error import class_fixed_point, projected_certificate
from bounds.approximation.classes import LinearClass, linear_class
from bounds.core.bound import Bound, Certificate, conditional
from bounds.network.kernel import LEAST_SHARE, kernel
from bounds.residual import population as noise
from bounds.residual.population import Population
from bounds.residual.sharp import averaged_limit
from icq.display import Fact, Shown
from icq.exact import Analysis
from icq.learn import classes, networks
from icq.learn.classes import FunctionClass, Linear, Tabular
from icq.learn.learner import PLAIN, LearnerConfig, initial_params
from icq.learn.networks import Network
from icq.learn.population import expected_update
from icq.reason import NoNumber, Reason, Why

ADAM = optax.scale_by_adam()
ROUNDS = 20_000  # expected updates behind the Q_F of a network whose kernel is singular
DTYPES = {"single": np.float32, "double": np.float64}
Certifier: TypeAlias = Callable[[Float[np.ndarray, "O A"]], Certificate]


@dataclass(frozen=True)
class Reference(Shown):
    """Where a class would stop with exact expectations.

    q: [1 or seeds, O, A]; error: certified d-norm distance from the Q_F that the class's certificate speaks of (0 for
    networks, whose certificate speaks of these very tables); residual: how far q is from standing still.
    """

    q: Float[np.ndarray, "R O A"]
    error: float
    residual: float
    converged: bool

    def _facts_(self) -> list[Fact]:
        return [Fact("starts x observations x options", " x ".join(map(str, np.shape(self.q)))),
                Fact("error at most", self.error, "reward in the d-norm"), Fact("residual", self.residual),
                Fact("converged", self.converged)]  # fmt: skip


@runtime_checkable
class Method(Protocol):
    """A function class with the way it learns; frozen and printable, so that it can name a cell."""

    def build(self, a: Analysis) -> FunctionClass:
        """The class on an instance."""
        ...

    def config(self, a: Analysis, iid: bool) -> LearnerConfig:
        """How it learns there."""
        ...

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Q_F, one for all runs or one per key."""
        ...

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """The linear population problem behind the sharp asymptote; None for networks."""
        ...

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certifier:
        """A bound on ||Q - Q_F||_d computable from Q and the instance alone."""
        ...


@cache
def annealed_adam(iterations: int) -> optax.GradientTransformation:
    """Adam whose steps fall to zero along a cosine; one object per length, so that it compiles once."""
    return optax.chain(ADAM, optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, iterations)))


@dataclass(frozen=True)
class Schedule:
    """Steps and averaging weights (`LearnerConfig` says what they mean).

    Steps like k^-0.6, averaged with weights like k^2, forget the start and keep the 1/sqrt(T) rate.
    """

    step: float
    decay_offset: float
    decay_power: float = 0.6
    averaging_power: float = 2.0

    def config(self, iid: bool, optimiser: optax.GradientTransformation = PLAIN) -> LearnerConfig:
        """The learner's configuration."""
        return LearnerConfig(
            step=self.step, decay_power=self.decay_power, decay_offset=self.decay_offset,
            averaging_power=self.averaging_power, iid=iid, optimiser=optimiser,
        )  # fmt: skip


SGD = Schedule(step=1.0, decay_offset=1000.0)
LOCAL = Schedule(step=0.003, decay_offset=100_000.0)  # of a table on the local clock
LINEAR = Schedule(step=3e-4, decay_offset=100_000.0)  # of features on the local clock
ADAPTIVE = Schedule(step=0.02, decay_offset=2000.0)
PATIENT = Schedule(step=0.004, decay_offset=100_000.0)  # of a network with plain steps, in units of the width
Clock: TypeAlias = Literal["global", "local"]  # every handoff counts, or an agent's own visits, at known frequencies
Precision: TypeAlias = Literal["single", "double"]


@dataclass(frozen=True)
class Table:
    """One number per (observation, option); plain SGD.

    Local clock: the step of a pair is divided by its visit frequency, relative to the mean; then `step` is what a visit
    moves, and the theorem bounds the run before it is run.
    """

    schedule: Schedule = SGD
    clock: Clock = "global"
    precision: Precision = "single"

    def build(self, a: Analysis) -> Tabular:
        """The tabular class."""
        return classes.tabular(a.smdp, dtype=DTYPES[self.precision])

    def config(self, a: Analysis, iid: bool) -> LearnerConfig:
        """Decaying steps and averaging."""
        plain = self.schedule.config(iid)
        if self.clock == "global":
            return plain
        live = a.interface.available
        with np.errstate(divide="ignore", over="ignore"):
            scale = (1 / np.where(live, a.d_pair, 1.0)).astype(DTYPES[self.precision])
        if not np.isfinite(scale).all():
            o, option = (int(i) for i in np.argwhere(~np.isfinite(scale))[0])
            why = Why(Reason.NO_MASS, f"a mass of {a.d_pair[o, option]:.1e}", "use the global clock", option, o)
            raise NoNumber(why)
        return replace(plain, step=self.schedule.step / int(live.sum()), scale=scale)

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Qbar itself."""
        error = a.interface_solution.error
        return Reference(a.q_bar[None], error, error, a.interface_solution.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """Tabular features."""
        return noise.tabular(a)

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certifier:
        """Q_F = Qbar: the certificate of the table."""
        return lambda q: certificate_pointwise(a, q)[0]


@dataclass(frozen=True)
class Features:
    """`count` fixed features per agent: misspecified on purpose; plain SGD.

    Local clock: every agent's features are orthonormal under what it sees, and its step is divided by how often it
    acts, relative to the mean; the class is the same.
    """

    count: int
    seed: int = 0
    schedule: Schedule = SGD
    clock: Clock = "global"
    precision: Precision = "single"

    def build(self, a: Analysis) -> Linear:
        """The linear class."""
        m = a.smdp
        psi = classes.random_features(m, self.count, self.seed, dtype=DTYPES[self.precision])
        if self.clock == "global":
            return psi
        return classes.linear(m, _orthonormal(a, np.asarray(psi.features)).astype(DTYPES[self.precision]))

    def config(self, a: Analysis, iid: bool) -> LearnerConfig:
        """Decaying steps and averaging."""
        plain = self.schedule.config(iid)
        if self.clock == "global":
            return plain
        agent = np.asarray(a.smdp.agent)
        scale = np.broadcast_to(1 / np.bincount(agent, a.d_obs)[agent][:, None], a.q_bar.shape)
        step = self.schedule.step / a.smdp.num_agents
        return replace(plain, step=step, scale=scale.astype(DTYPES[self.precision]))

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """The projected fixed point, certified."""
        solution = class_fixed_point(_linear(a, cls))
        return Reference(solution.q[None], solution.error, solution.error, solution.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """The features, one block per agent."""
        return noise.population(a, noise.block_features(a, np.asarray(_features(cls).features, np.float64)))

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certifier:
        """The projected residual, a contraction of its own."""
        return partial(projected_certificate, _linear(a, cls))


@dataclass(frozen=True)
class Mlp:
    """One tanh network per agent on a random embedding of what it sees; Adam with decaying steps."""

    width: int
    depth: int = 1
    inputs: int = 3
    iterations: int = 2000
    reference_step: float = 0.02
    schedule: Schedule = ADAPTIVE

    def build(self, a: Analysis) -> FunctionClass:
        """The networks."""
        m = a.smdp
        return networks.network(m, networks.random_inputs(m, self.inputs, seed=0), self.width, self.depth)

    def config(self, a: Analysis, iid: bool) -> LearnerConfig:
        """Adam whose steps decay."""
        return self.schedule.config(iid, ADAM)

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Expected updates from every run's own initial parameters, steps annealed to zero."""
        params = initial_params(cls, keys)
        moved = expected_update(
            a, cls, params, step=self.reference_step, iterations=self.iterations,
            optimiser=annealed_adam(self.iterations),
        )  # fmt: skip
        return Reference(moved.q, 0.0, float(np.maximum(moved.residual, moved.drift).max()), moved.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """None: networks are not linear."""
        return None

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certifier:
        """||Q - Q_F|| <= ||Q - Qbar|| + ||Q_F - Qbar||, each certified."""
        return _of_two_tables(a, q_f)


@dataclass(frozen=True)
class PlainMlp:
    """One tanh network per agent on one-hot observations, learned by plain steps: the theorem bounds it before the run.

    All runs start from the same network, the one of `seed`, with what it says taken off, so that they differ by their
    handoffs only.  scale: of the output; the larger, the less the units learn.  A step is divided by the width, the
    square of the scale, and how often the agent acts, relative to the mean.
    """

    width: int
    scale: float = 1.0
    seed: int = 0
    schedule: Schedule = PATIENT

    def build(self, a: Analysis) -> Network:
        """The networks."""
        return networks.centred_network(a.smdp, self.width, self.scale, self.seed)

    def config(self, a: Analysis, iid: bool) -> LearnerConfig:
        """Decaying steps and averaging."""
        agent = np.asarray(a.smdp.agent)
        share = a.smdp.num_agents * np.bincount(agent, a.d_obs)[agent]
        scale = np.ascontiguousarray(np.broadcast_to(1 / share[:, None], a.q_bar.shape))
        step = self.schedule.step / (self.width * self.scale**2)
        return replace(self.schedule.config(iid), step=step, scale=scale)

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Qbar, where every move of the table can be made; where expected plain updates end, else."""
        if full_rank(a, cls):
            error = a.interface_solution.error
            return Reference(a.q_bar[None], error, error, a.interface_solution.converged)
        step = 0.5 / (self.scale**2 * (self.width + 4))  # about half of what the largest kernel entry allows
        moved = expected_update(a, cls, initial_params(cls, keys[:1]), step=step, iterations=ROUNDS)
        return Reference(moved.q, 0.0, float(np.maximum(moved.residual, moved.drift).max()), moved.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """None: networks are not linear."""
        return None

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certifier:
        """That of the table where Q_F is Qbar, of two tables else."""
        return _of_two_tables(a, q_f)


def full_rank(a: Analysis, cls: FunctionClass) -> bool:
    """Whether the kernel of networks at their start has full rank: then Qbar is where their expected updates stop."""
    if not isinstance(cls, Network) or cls.start is None:
        raise TypeError(f"networks with a start of their own are needed, not {type(cls).__name__}")
    live = np.flatnonzero(a.interface.available.reshape(-1))
    values = np.linalg.eigvalsh(kernel(cls, cls.start, np.ones(a.q_bar.shape))[np.ix_(live, live)])
    return bool(values[0] > LEAST_SHARE * values[-1])


def _of_two_tables(a: Analysis, q_f: Float[np.ndarray, "O A"]) -> Certifier:
    """||Q - Q_F|| <= ||Q - Qbar|| + ||Q_F - Qbar||, each certified."""
    at_reference, name = certificate_pointwise(a, q_f)[0], "certificate of two tables"
    return lambda q: Certificate.of(add_bounds(name, certificate_pointwise(a, q)[0], at_reference))


def _orthonormal(a: Analysis, features: Float[np.ndarray, "O A p"]) -> Float[np.ndarray, "O A p"]:
    """The features of each agent in a basis that is orthonormal under d(x | agent), filled up with zeros."""
    agent, out = np.asarray(a.smdp.agent), np.array(features, np.float64)
    for i in range(a.smdp.num_agents):
        own = agent == i
        weight = np.sqrt(np.where(a.interface.available[own], a.d_pair[own], 0.0) / a.d_obs[own].sum())
        rows = (out[own] * weight[..., None]).reshape(-1, out.shape[-1])
        _, size, right = np.linalg.svd(rows, full_matrices=False)
        inverse = np.divide(1.0, size, out=np.zeros_like(size), where=size > 1e-10 * size.max())
        out[own] = out[own] @ np.pad(right.T * inverse, ((0, 0), (0, out.shape[-1] - len(size))))
    return out


def _features(cls: FunctionClass) -> Linear:
    if not isinstance(cls, Linear):
        raise TypeError(f"a linear class is needed, not {type(cls).__name__}")
    return cls


def _linear(a: Analysis, cls: FunctionClass) -> LinearClass:
    linear = _features(cls)
    return linear_class(a, np.asarray(linear.features, np.float64), np.asarray(linear.offset, np.float64))


def add_bounds(name: str, *parts: Bound) -> Bound:
    """The bound on a sum of errors: every assumption of every part, values and roundoff added."""
    assumptions = [x for part in parts for x in part.assumptions]
    return conditional(
        name, assumptions, lambda: (sum(p.value for p in parts), {p.name: p.value for p in parts}),
        "docs/theory.md section 2", max(p.trivial for p in parts), roundoff=sum(p.roundoff for p in parts),
    )  # fmt: skip


def asymptote(population: Population | None, config: LearnerConfig, iid: bool) -> Float[np.ndarray, ""]:
    """The limit of T E||Q_avg - Q_F||_d^2 for weights like k^p (docs/theory.md section 5a).

    Weights k^p cost the factor (p+1)^2 / (2p+1) over the plain mean.  NaN for networks, and where the iterates have no
    such limit: steps must fall like k^-decay_power with decay_power strictly between 1/2 and 1.
    """
    if population is None or not 0.5 < float(np.asarray(config.decay_power)) < 1:
        return np.array(np.nan)
    sharp, p = averaged_limit(population), float(np.asarray(config.averaging_power))
    return np.array((sharp.iid if iid else sharp.value) * (p + 1) ** 2 / (2 * p + 1))
