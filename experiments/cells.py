"""One cell of an experiment: an instance, a way to learn, and every error beside its bound.

A cell is a frozen dataclass of plain numbers, so it names its own result.  Running it is a pure function: equal cells
give equal numbers.  Notation: docs/theory.md sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import optax
from jaxtyping import Array, Float, Key

from bounds import interface, noise
from bounds.approximation import class_fixed_point, projected_certificate
from bounds.bound import Bound, Verdict, conditional, verdict
from bounds.certificate import certificate_pointwise
from bounds.classes import LinearClass, linear_class
from bounds.noise import Population
from bounds.sharp import averaged_limit
from estimators.decomposition import decompose
from experiments.store import Arrays
from icq import baselines, networks, rollout
from icq.exact import Analysis, analyse
from icq.learner import LearnerConfig, initial_params, learn, seed_keys
from icq.networks import FunctionClass, Linear
from icq.population import expected_update
from icq.smdp import ICSMDP
from icq.solve import greedy
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.topology import complete

ADAM = optax.scale_by_adam()
TERMS = ("interface", "app", "mix", "total")
Certificate: TypeAlias = Callable[[Float[np.ndarray, "O A"]], Bound]


@dataclass(frozen=True)
class Reference:
    """Where a class would stop with exact expectations.

    q: [1 or seeds, O, A]; error: certified d-norm distance from the Q_F that the class's certificate speaks of (0 for
    networks, whose certificate speaks of these very tables); residual: how far q is from standing still.
    """

    q: Float[np.ndarray, "R O A"]
    error: float
    residual: float
    converged: bool


@runtime_checkable
class Method(Protocol):
    """A function class with the way it learns; frozen and printable, so that it can name a cell."""

    def build(self, m: ICSMDP) -> FunctionClass:
        """The class on an instance."""
        ...

    def config(self, iid: bool) -> LearnerConfig:
        """How it learns."""
        ...

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Q_F, one for all runs or one per key."""
        ...

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """The linear population problem behind the sharp asymptote; None for networks."""
        ...

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certificate:
        """A bound on ||Q - Q_F||_d computable from Q and the instance alone."""
        ...


@cache
def annealed_adam(iterations: int) -> optax.GradientTransformation:
    """Adam whose steps fall to zero along a cosine; one object per length, so that it compiles once."""
    return optax.chain(ADAM, optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, iterations)))


def decaying_steps(iid: bool) -> LearnerConfig:
    """Steps like k^-0.6, averaged with weights like k^2: the start is forgotten, the 1/sqrt(T) rate is kept."""
    return LearnerConfig(step=1.0, decay_power=0.6, decay_offset=1000.0, averaging_power=2.0, iid=iid)


@dataclass(frozen=True)
class Table:
    """One number per (observation, option); plain SGD."""

    def build(self, m: ICSMDP) -> FunctionClass:
        """The tabular class."""
        return networks.tabular(m)

    def config(self, iid: bool) -> LearnerConfig:
        """Decaying steps and averaging."""
        return decaying_steps(iid)

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Qbar itself."""
        error = a.interface_solution.error
        return Reference(a.q_bar[None], error, error, a.interface_solution.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """Tabular features."""
        return noise.tabular(a)

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certificate:
        """Q_F = Qbar: the certificate of the table."""
        return lambda q: certificate_pointwise(a, q)[0]


@dataclass(frozen=True)
class Features:
    """`count` fixed features per agent: misspecified on purpose; plain SGD."""

    count: int
    seed: int = 0

    def build(self, m: ICSMDP) -> FunctionClass:
        """The linear class."""
        return networks.random_features(m, self.count, self.seed)

    def config(self, iid: bool) -> LearnerConfig:
        """Decaying steps and averaging."""
        return decaying_steps(iid)

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """The projected fixed point, certified."""
        solution = class_fixed_point(_linear(a, cls))
        return Reference(solution.q[None], solution.error, solution.error, solution.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """The features, one block per agent."""
        return noise.population(a, noise.block_features(a, np.asarray(_features(cls).features, np.float64)))

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certificate:
        """The projected residual, a contraction of its own."""
        return partial(projected_certificate, _linear(a, cls))


@dataclass(frozen=True)
class Mlp:
    """One tanh network per agent on a random embedding of what it sees; Adam with decaying steps."""

    width: int
    depth: int = 1
    inputs: int = 3
    iterations: int = 2000
    step: float = 0.02

    def build(self, m: ICSMDP) -> FunctionClass:
        """The networks."""
        return networks.network(m, networks.random_inputs(m, self.inputs, seed=0), self.width, self.depth)

    def config(self, iid: bool) -> LearnerConfig:
        """Adam whose steps decay like k^-0.6."""
        return LearnerConfig(
            step=0.02, decay_power=0.6, decay_offset=2000.0, averaging_power=2.0, iid=iid, optimiser=ADAM
        )

    def reference(self, a: Analysis, cls: FunctionClass, keys: Key[Array, "R"]) -> Reference:
        """Expected updates from every run's own initial parameters, steps annealed to zero."""
        params = initial_params(cls, keys)
        moved = expected_update(
            a, cls, params, step=self.step, iterations=self.iterations, optimiser=annealed_adam(self.iterations)
        )
        return Reference(moved.q, 0.0, float(np.maximum(moved.residual, moved.drift).max()), moved.converged)

    def population(self, a: Analysis, cls: FunctionClass) -> Population | None:
        """None: networks are not linear."""
        return None

    def certify(self, a: Analysis, cls: FunctionClass, q_f: Float[np.ndarray, "O A"]) -> Certificate:
        """||Q - Q_F|| <= ||Q - Qbar|| + ||Q_F - Qbar||, each certified."""
        at_reference = certificate_pointwise(a, q_f)[0]
        return lambda q: add_bounds("certificate of two tables", certificate_pointwise(a, q)[0], at_reference)


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


class Who(Enum):
    """Who learns: IC-Q, or a baseline that sees more (centralised) or is told less (independent)."""

    ICQ = "IC-Q"
    CENTRALISED = "centralised oracle"
    INDEPENDENT = "independent learners"


@dataclass(frozen=True)
class Cell:
    """What to run.  Everything that can change a number is a field."""

    method: Table | Features | Mlp
    seeds: int
    checkpoints: tuple[int, ...]
    gap: float = 0.5
    mixing: float = 0.3
    iid: bool = False
    who: Who = Who.ICQ
    agents: int = 10
    instance: int = 0

    def label(self) -> str:
        """A short name for progress lines."""
        kind = f"{type(self.method).__name__}{'' if isinstance(self.method, Table) else f'({_size(self.method)})'}"
        return f"{self.who.value}, {kind}, gap {self.gap:g}, mixing {self.mixing:g}, {'iid' if self.iid else 'Markov'}"

    def workflow(self) -> ICSMDP:
        """The instance: ten agents who may hand over to anyone, variance-compensated gap."""
        shape = Shape(topology=complete(self.agents))
        return dials_instance(shape, Dials(gap=self.gap, mixing=self.mixing), self.instance)


def _size(method: Features | Mlp) -> int:
    return method.count if isinstance(method, Features) else method.width


def run(cell: Cell) -> Arrays:
    """Learn once; return the value of the learned policies and, for IC-Q, every error beside its bound."""
    true = analyse(cell.workflow())
    if cell.who is Who.ICQ:
        return learn_and_measure(true, cell.method, cell.seeds, cell.checkpoints, cell.iid) | exact_numbers(true)
    change = baselines.centralised if cell.who is Who.CENTRALISED else baselines.independent
    seen = analyse(change(true.smdp))
    _, q = learn_tables(seen, cell.method, cell.seeds, cell.checkpoints, cell.iid)
    rows = np.arange(true.smdp.num_states) if cell.who is Who.CENTRALISED else np.asarray(true.smdp.observation)
    return values(true, q[:, -1][:, rows])


def learn_tables(
    a: Analysis, method: Method, seeds: int, checkpoints: Sequence[int], iid: bool
) -> tuple[FunctionClass, Float[np.ndarray, "R K O A"]]:
    """The class, and the averaged tables of every run at the checkpoints."""
    cls = method.build(a.smdp)
    record = learn(rollout.tables(a), cls, method.config(iid), range(seeds), checkpoints)
    return cls, np.asarray(record.q_average, np.float64)


def learn_and_measure(a: Analysis, method: Method, seeds: int, checkpoints: Sequence[int], iid: bool) -> Arrays:
    """IC-Q on an analysed instance: learned values (`values`) and the decomposition beside its bounds (`measure`)."""
    cls, q = learn_tables(a, method, seeds, checkpoints, iid)
    reference = method.reference(a, cls, seed_keys(range(seeds)))
    lifted = q[:, -1][:, np.asarray(a.smdp.observation)]
    out = values(a, lifted) | measure(a, q, reference, partial(method.certify, a, cls))
    return out | {"asymptote": asymptote(method.population(a, cls), method.config(iid), iid)}


def asymptote(population: Population | None, config: LearnerConfig, iid: bool) -> Float[np.ndarray, ""]:
    """The limit of T E||Q_avg - Q_F||_d^2 for weights like k^p (docs/theory.md section 5a); NaN for networks.

    Weights k^p cost the factor (p+1)^2 / (2p+1) over the plain mean.
    """
    if population is None:
        return np.array(np.nan)
    sharp, p = averaged_limit(population), float(np.asarray(config.averaging_power))
    return np.array((sharp.iid if iid else sharp.value) * (p + 1) ** 2 / (2 * p + 1))


def values(a: Analysis, q: Float[np.ndarray, "R S A"]) -> Arrays:
    """Stationary values in the true workflow: `value` [R] of the policies greedy in the tables over states, and those
    of the behaviour policy, of the exact interface policy and of the optimum.
    """  # fmt: skip
    learned = [baselines.mean_value(a, greedy(table, a.oracle.available)[0]) for table in q]
    return {
        "value": np.array(learned), "value_random": np.array(baselines.random_value(a)),
        "value_bar": np.array(a.d @ a.interface_value.v), "value_oracle": np.array(a.d @ a.v_star),
    }  # fmt: skip


def exact_numbers(a: Analysis) -> Arrays:
    """Constants of the instance and the sup-norm ladder of the interface gap."""
    numbers = {
        "gamma_bar": a.gamma_bar, "kappa": a.kappa, "slem": a.slem, "q_bar_norm": a.norm_d(a.q_bar),
        "action_gap": a.action_gap, "local_gap_sup": a.norm_sup_state(a.local_gap),
        "local_gap_d": a.norm_d_state(a.local_gap), "gap_exact_sup": a.norm_sup_state(a.gap),
        "gap_value_sup": interface.gap_value_bound(a).value, "gap_scalar": interface.scalar_gap_bound(a).value,
        "trivial_cap": interface.trivial_cap(a),
    }  # fmt: skip
    return {name: np.array(value) for name, value in numbers.items()}


def measure(
    a: Analysis,
    q: Float[np.ndarray, "R K O A"],
    reference: Reference,
    certify: Callable[[Float[np.ndarray, "O A"]], Certificate],
) -> Arrays:
    """The decomposition of every record [R, K] in the d-norm, each term beside its bound.

    e_TERM: observed; b_TERM: bound, NaN where inapplicable; slack_TERM: allowance for rounding and solver error;
    verdict_TERM: the verdict in words; sup_TERM: observed in the sup norm.
    """
    runs, marks = q.shape[:2]
    q_f = np.broadcast_to(reference.q, (runs, *q.shape[2:]))
    observed, sup = decompose(a, q, q_f[:, None])
    numerical = a.oracle_solution.error + a.interface_solution.error
    slack = {"interface": numerical, "app": numerical + reference.error, "mix": reference.error}
    slack["total"] = sum(slack.values())
    out: Arrays = {
        "reference_residual": np.array(reference.residual), "reference_converged": np.array(reference.converged)
    }  # fmt: skip
    for term in TERMS:
        out[f"e_{term}"] = np.broadcast_to(getattr(observed, term), (runs, marks)).copy()
        out[f"sup_{term}"] = np.broadcast_to(getattr(sup, term), (runs, marks)).copy()
        out[f"b_{term}"], out[f"slack_{term}"] = np.zeros((runs, marks)), np.zeros((runs, marks))
        out[f"verdict_{term}"] = np.full((runs, marks), Verdict.INAPPLICABLE.value, dtype="<U12")
    gap = interface.gap_value_bound_d(a)
    for r in range(runs):
        app, certificate = certificate_pointwise(a, q_f[r])[0], certify(q_f[r])
        for k in range(marks):
            mix = certificate(q[r, k])
            total = add_bounds("total", gap, app, mix)
            for term, bound in zip(TERMS, (gap, app, mix, total), strict=True):
                seen = float(out[f"e_{term}"][r, k])
                out[f"b_{term}"][r, k] = bound.value
                out[f"slack_{term}"][r, k] = bound.roundoff + slack[term]
                said = verdict(bound, seen, seen, allowance=slack[term])
                out[f"verdict_{term}"][r, k] = said.value
    return out
