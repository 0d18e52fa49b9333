"""How tight every rung is: what is known before the run beside what was observed, on four workflows.

python -m audits.tightness  writes docs/tightness.md.  The observed residual is simulated by the learner
itself with the real maximum over options; intervals are 99.9% over independent runs, of the logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float

from bounds.core.bound import Verdict
from bounds.core.sheet import Sheet, SheetTable
from bounds.core.statement import interval, number
from bounds.core.term import Observed, Term
from bounds.residual import closed, poisson
from bounds.residual.population import Population, local_clock, population
from bounds.theorem import Observations, Output, Theorem, theorem
from estimators.statistics import estimate
from icq.display import Fact, Shown
from icq.exact import Analysis, analyse
from icq.learn import classes
from icq.learn.classes import FunctionClass
from icq.learn.learner import LearnerConfig, learn
from icq.smdp import ICSMDP
from icq_bounds.error_theorem import class_features
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.random import garnet
from synthetic.topology import pipeline, star

OUT = Path(__file__).parents[1] / "docs" / "tightness.md"
CONFIDENCE = 0.999
MARKS = 200  # times at which the path is read off, in the middle of as many equal parts


@dataclass(frozen=True)
class Setup:
    """One workflow and how it is learned.

    features: random features per agent with plain updates, 0 is the table with a step per own visit; local_step: the
    step of one pair's own visits (table) or of every update (features); at_rest: start at Q_F instead of 0, which
    leaves out the transient.
    """

    name: str
    make: Callable[[], ICSMDP]
    features: int
    local_step: float
    handoffs: int
    at_rest: bool = False


SETUPS = (
    Setup("ten agents, table", dials_instance, 0, 1e-3, 10_000_000),
    Setup("ten agents, table at rest, smaller step", dials_instance, 0, 1e-4, 10_000_000, at_rest=True),
    Setup("ten agents, 2 features, at rest", dials_instance, 2, 1e-3, 1_000_000, at_rest=True),
    Setup("ten agents, 8 features, at rest", dials_instance, 8, 1e-3, 1_000_000, at_rest=True),
    Setup(
        "random (Garnet), table",
        partial(
            garnet, 2, states=20, observations=10, options=2, outcomes=3, agents=3, gamma=0.7, max_duration=8,
            unavailable=0.0,
        ),
        0, 1e-3, 3_000_000,
    ),
    Setup(
        "pipeline of 6, gap 0.5, table",
        lambda: dials_instance(Shape(topology=pipeline(6), clusters=2), Dials(gap=0.5), 1), 0, 1e-3, 5_000_000,
    ),
    Setup(
        "star of 8, slow mixing, table",
        lambda: dials_instance(Shape(topology=star(8), clusters=2), Dials(mixing=0.1), 2), 0, 1e-3, 5_000_000,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Errors(Shown):
    """Squared d-norm errors per run [R]: of the last table against Q_F and Q*, of the average, and along the path."""

    last: Float[np.ndarray, "R"]
    total: Float[np.ndarray, "R"]
    average: Float[np.ndarray, "R"]
    average_total: Float[np.ndarray, "R"]
    path: Float[np.ndarray, "R"]

    def _facts_(self) -> list[Fact]:
        named = {"last": self.last, "total": self.total, "average": self.average, "path": self.path}
        return [Fact("runs", len(self.last)), *(Fact(f"{name}, root mean square", float(np.sqrt(e.mean())), "reward")
                                                 for name, e in named.items())]  # fmt: skip


def root_mean_square(squares: Float[np.ndarray, "R"]) -> Observed:
    """The root of a mean of squares over independent runs with its covering interval."""
    e = estimate.root_mean_square(np.sqrt(squares), CONFIDENCE)
    return Observed(e.value, *e.interval)


def observe(pop: Population, setup: Setup, alpha: float, runs: int) -> Errors:
    """Run the learner `runs` times from 0, or from Q_F, and measure; in double precision, with known frequencies.

    Raises ValueError where a table's update would exceed a full step.
    """
    a = pop.analysis
    rarest = float(pop.d[pop.d > 0].min())
    if setup.features == 0 and alpha > rarest:
        raise ValueError(
            f"{setup.name}: alpha = {alpha:.3g} over the rarest d(x) = {rarest:.3g} is more than a full step"
        )
    base = pop.q_f if setup.at_rest else np.zeros_like(pop.q_f)
    config = LearnerConfig(step=alpha)
    cls: FunctionClass
    if setup.features:
        features = classes.random_features(a.smdp, setup.features, 0, dtype=np.float64).features
        cls = classes.linear(a.smdp, features, base)
    else:
        cls = replace(classes.tabular(a.smdp, dtype=np.float64), initial=base)
        config = replace(config, scale=1 / np.where(a.interface.available, a.d_pair, 1.0))
    middles = ((np.arange(MARKS) + 0.5) * setup.handoffs / MARKS).astype(int)
    record = learn(a, cls, config, range(runs), np.append(middles[middles > 0], setup.handoffs))
    q, average = np.asarray(record.q, np.float64), np.asarray(record.q_average, np.float64)[:, -1]
    if middles[0] == 0:  # where every run starts
        q = np.concatenate([np.broadcast_to(base, (runs, 1, *base.shape)), q], axis=1)
    return Errors(
        last=_square(a, q[:, -1] - pop.q_f), total=_to_oracle(a, q[:, -1]), average=_square(a, average - pop.q_f),
        average_total=_to_oracle(a, average), path=_square(a, q[:, :-1] - pop.q_f).mean(1),
    )  # fmt: skip


def _square(a: Analysis, table: Float[np.ndarray, "*batch O A"]) -> Float[np.ndarray, "*batch"]:
    return (a.d_pair * table**2).sum((-2, -1))


def _to_oracle(a: Analysis, q: Float[np.ndarray, "*batch O A"]) -> Float[np.ndarray, "*batch"]:
    lifted = np.where(a.oracle.available, q[..., np.asarray(a.smdp.observation), :], 0.0)
    return (a.d_state_pair * (lifted - a.q_star) ** 2).sum((-2, -1))


def prove(setup: Setup, runs: int) -> tuple[Theorem, Observed]:
    """The theorem with its observations, and the error along the path, which the averaged form bounds directly."""
    a = analyse(setup.make())
    psi = class_features(a, setup.features, 0)
    table = setup.features == 0
    metric = local_clock(a, psi) if table else np.eye(psi.shape[1])
    pop = population(a, psi, metric)
    alpha = setup.local_step / int(a.interface.available.sum()) if table else setup.local_step
    errors = observe(pop, setup, alpha, runs)
    seen = {name: [root_mean_square(getattr(errors, name))] for name in ("last", "total", "average", "average_total")}
    observed = Observations(
        {Output.LAST: seen["last"], Output.AVERAGE: seen["average"]},
        {Output.LAST: seen["total"], Output.AVERAGE: seen["average_total"]},
    )
    start = pop.theta_star if setup.at_rest else 0 * pop.theta_star
    times = np.array([setup.handoffs])
    found = theorem(a, alpha, times, psi=None if table else psi, metric=metric, start=start, observed=observed)
    return found, root_mean_square(errors.path)


HEADER = ("term", "rung", "bound", "observed", "ratio", "trivial / bound", "verdict")


def rows(found: Theorem, path: Observed, *, residual_only: bool) -> list[tuple[str, ...]]:
    """Every rung of every term; a class error that is 0 gets one line.

    Of the average, the averaged form bounds the path as well; what follows the path of the mean does not.
    """
    along = found.residual[Output.AVERAGE][-1]
    bounded = tuple(r for r in along.rungs if r.bound.reference in (poisson.SECTION, closed.SECTION))
    terms = {} if residual_only else {"interface": found.interface, "approximation": found.approximation}
    terms |= {f"residual, {o.value}": r[-1] for o, r in found.residual.items()}
    terms["residual, path"] = Term("residual", along.claim, bounded, along.trivial, None, path)
    terms |= {f"total, {o.value}": found.total(o) for o in found.residual}
    return [row for name, term in terms.items() for row in _ladder(name, term)]


def _ladder(name: str, term: Term) -> list[tuple[str, ...]]:
    if term.observed is not None and term.observed.value <= term.observed.allowance:
        return [(name, "every rung", f"0 (up to {number(term.best.value)})", "0", "-", "-", "holds")]
    out = []
    for rung in term.rungs:
        said = "the quantity itself" if rung.exact else str(term.verdict(rung.bound))
        out.append(_row(name, rung.bound.name, rung.bound.value, term, said))
    if term.limit is not None and term.limit.value == term.limit.value:
        out.append(_row(name, term.limit.name, term.limit.value, term, "not a bound"))
    return out


def _row(name: str, rung: str, value: float, term: Term, said: str) -> tuple[str, ...]:
    beaten = number(term.trivial / value) if value > 0 else "-"
    return (name, rung, number(value), interval(term.observed), number(term.ratio(value)), beaten, said)


def about(setup: Setup, t: Theorem) -> str:
    """The workflow in a sentence."""
    m, a = t.analysis.smdp, t.analysis
    return (
        f"**{setup.name}**: {m.num_agents} agents, {m.num_states} states, {t.class_name}, local step "
        f"{setup.local_step:g}, {setup.handoffs} handoffs from {'Q_F' if setup.at_rest else '0'}, kappa "
        f"{number(a.kappa)}, second eigenvalue {number(a.slem)}"
    )


def sheet(setups: tuple[Setup, ...], runs: int) -> Sheet:
    """One table per setup; interface and approximation once per workflow and class."""
    tables, shown = [], set()
    for setup in setups:
        found, path = prove(setup, runs)
        body = rows(found, path, residual_only=(setup.make, setup.features) in shown)
        shown.add((setup.make, setup.features))
        tables.append(SheetTable(about(setup, found), HEADER, tuple(body)))
    return Sheet(
        "# Tightness of every rung",
        f"Written by `python -m audits.tightness --runs {runs}`. Errors are root mean squares in the d-norm over "
        f"{runs} independent runs of the learner, intervals are {CONFIDENCE:.1%} intervals of their logarithm. 'path' "
        "is the root of the mean squared error along the run, which the averaged form bounds before convexity. "
        "'trivial / bound' says how far a bound is below what the range of rewards gives. A table takes a step per "
        "own visit, at known frequencies; features take plain updates. Arithmetic is double.",
        tuple(tables),
    )


def main(runs: int = 16, out: Path = OUT) -> None:
    """Measure the tightness of every rung and write it as Markdown; fails where one is violated."""
    found = sheet(SETUPS, runs)
    out.write_text(found.markdown())
    print(found.text(width=160))
    violated = [" ".join(row[:2]) for table in found.tables for row in table.rows if row[-1] == str(Verdict.VIOLATED)]
    if violated:
        raise SystemExit(f"violated: {'; '.join(violated)}")


if __name__ == "__main__":
    tyro.cli(main)
