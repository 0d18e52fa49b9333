"""The three errors of a workflow whose agents are linear in what they see: exactly, and from handoff logs alone.

A game is a finite workflow with the numbers that its agents see.  One cell learns on it and splits the error against
the exact oracle; the other simulates a handoff log of it and estimates the same terms from that.  Running a cell is a
pure function of its fields.  Notation: docs/theory.md sections 2, 3 and 7.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, cast, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bounds.core.bound import verdict
from bounds.interface.gap import gap_value_bound_d
from estimators import interface, td_noise
from estimators.decomposition import TERMS, decompose
from estimators.fixed import class_fixed_point, span
from estimators.logs import simulate
from estimators.logs.log import Log
from estimators.statistics.estimate import OK, result
from estimators.sums import pair_law
from icq.build import Workflow
from icq.exact import Analysis, analyse
from icq.learn import classes, sampling
from icq.learn.classes import Linear
from icq.learn.learner import learn
from icq.reason import NoNumber
from icq.smdp import ICSMDP
from icq_bounds.diagnosis.diagnosis import Diagnosis, diagnose, root
from icq_bounds.sweep.methods import ADAM, ADAPTIVE
from icq_bounds.sweep.store import Arrays
from icq_bounds.workflows.common.recorded import RecordedTable
from synthetic.cpu import CpuSizes
from synthetic.cpu_finite import SMALL, small_machine
from synthetic.math_features import BITS
from synthetic.math_routing import Prices, math_routing
from synthetic.routing import Routing, routing

Views = Float[np.ndarray, "O F"]


@runtime_checkable
class Game(Hashable, Protocol):
    """A finite workflow at one setting of its interface; a frozen dataclass of plain numbers, so it names its cells."""

    def label(self) -> str:
        """A short name for progress lines."""
        ...

    def finite(self) -> tuple[Workflow, Views]:
        """The workflow, and what agents see on each observation, as numbers."""
        ...


@dataclass(frozen=True)
class CpuGame:
    """The small register machine.  shown: test vectors in the summary."""

    shown: int
    sizes: CpuSizes = SMALL

    def label(self) -> str:
        """A short name for progress lines."""
        return f"small machine, {self.shown} vectors shown"

    def finite(self) -> tuple[Workflow, Views]:
        """The observations are the views."""
        workflow = small_machine(self.shown, self.sizes)
        return workflow, np.array(workflow.observations, np.float32)


@dataclass(frozen=True)
class RoutingGame:
    """Routing with a view of so many bits."""

    bits: int
    specialists: int = 4
    intents: int = 4
    instance: int = 0

    def label(self) -> str:
        """A short name for progress lines."""
        return f"routing, view of {self.bits} bits"

    def finite(self) -> tuple[Workflow, Views]:
        """Bits of the request as -1 and 1, 0 where unknown; then who returned it."""
        game = Routing(self.specialists, self.intents, seed=self.instance).with_view(self.bits)
        workflow, length = routing(game), game.bits
        views = np.zeros((len(workflow.observations), length + self.specialists), np.float32)
        for row, seen in zip(views, workflow.observations, strict=True):
            known, prefix, returned = cast(tuple[int, int, int], seen)
            row[:known] = 2.0 * (prefix >> np.arange(known)[::-1] & 1) - 1.0
            row[length:] = returned >> np.arange(self.specialists) & 1
        return workflow, views


@dataclass(frozen=True)
class MathGame:
    """Two language models share questions; bits seen of a question and of a response."""

    source: RecordedTable
    bits: int
    prices: Prices = field(default_factory=Prices)

    def label(self) -> str:
        """A short name for progress lines."""
        return f"two models, view of {self.bits} bits"

    def finite(self) -> tuple[Workflow, Views]:
        """Bits as -1 and 1, 0 where unknown; the inbox sees which group of questions it draws from."""
        workflow = math_routing(self.source.table(), self.bits, self.prices)
        groups = sum(isinstance(seen, int) for seen in workflow.observations)
        views = np.zeros((len(workflow.observations), 2 * BITS + groups), np.float32)
        for row, seen in zip(views, workflow.observations, strict=True):
            if isinstance(seen, int):
                row[2 * BITS + seen] = 1.0
            else:
                bits = np.array(seen)
                row[: len(bits)] = 2.0 * bits - 1.0
        return workflow, views


@dataclass(frozen=True)
class Size:
    """Of the cells of every game.  seeds, handoffs: `TermsCell`; logged, width: rows and networks of `LogCell`."""

    seeds: int
    handoffs: int
    logged: int
    width: int = 16


def cells_of(games: Sequence[Game], size: Size) -> list[TermsCell | LogCell]:
    """What is learned and what is logged."""
    made: list[TermsCell | LogCell] = [TermsCell(game, size.seeds, size.handoffs) for game in games]
    return made + [LogCell(game, size.logged, size.width) for game in games]


@lru_cache(maxsize=4)
def solved(game: Game) -> tuple[Analysis, Views]:
    """A game with everything exact about it."""
    workflow, views = game.finite()
    return analyse(workflow.smdp), views


def linear_in_views(m: ICSMDP, views: Views) -> Linear:
    """Agents whose value of each option is linear in what they see, with an intercept."""
    seen = np.column_stack([views, np.ones(len(views), np.float32)])
    psi = np.eye(m.num_options, dtype=np.float32)[None, :, :, None] * seen[:, None, None, :]
    return classes.linear(m, jnp.asarray(psi.reshape(*psi.shape[:2], -1)))


@dataclass(frozen=True)
class TermsCell:
    """What to learn.  handoffs: per seed."""

    game: Game
    seeds: int
    handoffs: int

    def label(self) -> str:
        """A short name for progress lines."""
        return f"errors of {self.game.label()}"

    def program(self) -> Hashable:
        """Instances differ in size, so every game is a program of its own."""
        return ("terms", self.game, self.seeds)

    def run(self) -> Arrays:
        """`e_interface`, `e_approximation`, and one per seed `e_residual`, `e_total`, in the d-norm, of agents
        linear in what they see that learn with Adam; `bound_interface`, its verdict, and `trivial_cap`, what rewards
        alone say; `reference`: how the fixed point of the class was found, `ok` or why there is none (then
        e_approximation and e_residual are NaN).
        """  # fmt: skip
        a, views = solved(self.game)
        cls = linear_in_views(a.smdp, views)
        record = learn(sampling.tables(a), cls, ADAPTIVE.config(False, ADAM), range(self.seeds), [self.handoffs])
        known, reference = pair_law(a), OK
        try:
            q_f = class_fixed_point(known, span(cls, known.model.available)).q
        except NoNumber as none:
            q_f, reference = np.full(a.q_bar.shape, np.nan), str(none.why)
        split, _ = decompose(a, np.asarray(record.q_average[:, -1], np.float64), q_f)
        bound = gap_value_bound_d(a)
        said = verdict(bound, split.interface, split.interface, allowance=a.oracle_solution.error)
        numbers = {
            "e_interface": split.interface, "e_approximation": split.approximation[0],
            "e_residual": split.residual, "e_total": split.total,
            "bound_interface": bound.value, "bound_verdict_interface": said.value, "trivial_cap": bound.trivial,
            "reference": reference,
            "states": a.smdp.num_states, "observations": a.smdp.num_observations, "kappa": a.kappa,
            "parameters": cls.features.shape[-1] * cls.agents,
        }  # fmt: skip
        return {name: np.array(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class LogCell:
    """What to log, all options equally likely, with the global state as context.  width: of the networks that are
    fitted on one half of the log and judged on the other.
    """  # fmt: skip

    game: Game
    handoffs: int
    width: int
    seed: int = 0

    def label(self) -> str:
        """A short name for progress lines."""
        return f"log of {self.game.label()}"

    def program(self) -> Hashable:
        """Instances differ in size, so every game is a program of its own."""
        return ("log", self.game, self.width)

    def log(self) -> Log:
        """The log."""
        a, _ = solved(self.game)
        (log,) = simulate.pieces(a, self.handoffs, seed=self.seed, q=a.q_bar, piece=self.handoffs)
        return log

    def run(self) -> Arrays:
        """What `icq diagnose` says of each term: `TERM` [3] value and interval, `TERM_n`, `TERM_result`; and
        `TERM_exact`, NaN where it has no exact counterpart.
        """  # fmt: skip
        a, _ = solved(self.game)
        residual = root(td_noise.residual_constant(a), self.handoffs)
        truth = {"interface": interface.interface_gap(a).value, "residual": residual.value}
        out = said(diagnose(self.log(), width=self.width, seed=self.seed))
        return out | {f"{term}_exact": np.array(truth.get(term, np.nan)) for term in TERMS[:3]}


def said(found: Diagnosis) -> Arrays:
    """The terms of a diagnosis as arrays."""
    out: Arrays = {}
    for term, e in zip(TERMS[:3], found.terms.values(), strict=True):
        out |= {term: np.array([e.value, *e.interval]), f"{term}_n": np.array(e.n_eff)}
        out[f"{term}_result"] = np.array(result(e))
    return out
