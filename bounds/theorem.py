"""The assembled theorem: interface gap, approximation error and mixing residual, each with all its rungs.

Theorem (docs/theory.md section 6).  Let Q_T be what IC-Q has learned after T handoffs with a linear class, as the last
iterate or as the step-weighted average of the iterates, Q_F the population fixed point of the class, Qbar the
interface fixed point and Q* the oracle's values.  Then

    (E||Q_T o phi - Q*||_d^2)^{1/2} <= E_mix(T) + E_app + E_int,

E_int any rung of section 3 for ||Qbar o phi - Q*||_d, E_app any of section 4 for ||Q_F - Qbar||_d, and E_mix(T) any of
section 5 for (E||Q_T - Q_F||_d^2)^{1/2}.  What is assumed is checked on the instance, the rest computed from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from jaxtyping import Float, Int

from bounds import ladder
from bounds.core.bound import Assumption, Bound, below, conditional
from bounds.core.sheet import Sheet, SheetTable
from bounds.core.statement import (
    HEADER,
    assumption_table,
    collect,
    interval,
    loss_table,
    number,
    term_rows,
)
from bounds.core.steps import Steps
from bounds.core.term import Asymptotic, Observed, Rung, Term
from bounds.interface.gap import contracts, loss_error, observed_error, oracle_contraction, trivial_cap
from bounds.ladder import Run
from bounds.residual.population import Population, local_clock, population, tabular_features
from icq.display import Fact, Shown, latex_number, latex_text
from icq.exact import Analysis
from icq.reason import NoNumber, Why

SECTION = "docs/theory.md section 6"
_GAP, _CLASS_ERROR, _RESIDUAL = "||Qbar o phi - Q*||_d", "||Q_F - Qbar||_d", "(E||Q_T - Q_F||_d^2)^1/2"
_TOTAL = "(E||Q_T o phi - Q*||_d^2)^1/2"


class Output(Enum):
    """Which table the learner hands out."""

    LAST = "last iterate"
    AVERAGE = "average"


@dataclass(frozen=True)
class Observations(Shown):
    """Measured errors per output, one entry per time: of the residual against Q_F, of the total against Q*."""

    residual: Mapping[Output, Sequence[Observed]] = field(default_factory=dict)
    total: Mapping[Output, Sequence[Observed]] = field(default_factory=dict)


NOTHING = Observations()


@dataclass(frozen=True)
class Theorem(Shown):
    """The theorem on one instance, one class and one run.  residual[output][i] belongs to times[i]."""

    analysis: Analysis
    class_name: str
    times: Int[np.ndarray, "n"]
    setting: tuple[Assumption, ...]
    interface: Term
    approximation: Term
    residual: Mapping[Output, tuple[Term, ...]]
    observed: Observations

    def total(self, output: Output = Output.LAST, i: int = -1) -> Term:
        """The sum of the best certified rungs after times[i] handoffs; no number if one of them has none."""
        parts = (self.interface, self.approximation, self.residual[output][i])
        best = [term.best for term in parts]
        assumptions = (*self.setting, *(a for bound in best for a in bound.assumptions))

        def compute() -> tuple[float, dict[str, float]]:
            return sum(b.value for b in best), {t.name: b.value for t, b in zip(parts, best)}

        bound = conditional(
            "sum of the best certified rungs", assumptions, compute, SECTION, trivial_cap(self.analysis),
            roundoff=sum(b.roundoff for b in best),
        )  # fmt: skip
        seen = self.observed.total.get(output)
        observed = None if seen is None else seen[i]
        return Term("total", _TOTAL, (Rung(bound),), bound.trivial, self._limit(output, i), observed)

    def _limit(self, output: Output, i: int) -> Asymptotic | None:
        """Exact gap, exact class error and asymptotic residual, added."""
        last = self.residual[output][i].limit
        if last is None:
            return None
        exact = [rung.bound for term in (self.interface, self.approximation) for rung in term.rungs if rung.exact]
        assumptions = (*(a for bound in exact for a in bound.assumptions), *last.assumptions)
        return Asymptotic("exact and asymptotic terms", sum(b.value for b in exact) + last.value, assumptions)

    def rescaled(self, unit: float, analysis: Analysis) -> Theorem:
        """The theorem of this analysis, of one whose rewards were over `unit`; assumptions still speak of that one."""
        residual = {output: tuple(term.rescaled(unit) for term in terms) for output, terms in self.residual.items()}
        seen = (
            {output: [x.rescaled(unit) for x in found] for output, found in each.items()}
            for each in (self.observed.residual, self.observed.total)
        )
        return replace(
            self, analysis=analysis, interface=self.interface.rescaled(unit), residual=residual,
            approximation=self.approximation.rescaled(unit), observed=Observations(*seen),
        )  # fmt: skip

    def curve(self, output: Output = Output.LAST) -> Float[np.ndarray, "n"]:
        """The best certified total at each time; NaN where a term has no number."""
        return np.array([self.total(output, i).best.value for i in range(len(self.times))])

    def value_loss(self, output: Output = Output.LAST, i: int = -1) -> Bound:
        """Corollary: what acting greedily on Q_T loses; see the function `value_loss`."""
        return value_loss(self.analysis, self.total(output, i).best)

    @property
    def assumptions(self) -> dict[str, tuple[Assumption, tuple[str, ...]]]:
        """Every checked assumption (the instance of least margin) with the bounds that rest on it."""
        terms = (self.interface, self.approximation, *(r[-1] for r in self.residual.values()))
        return collect(self.setting, terms)

    def sheet(self) -> Sheet:
        """The whole theorem as tables; all rungs at the last time."""
        at = f"T = {self.times[-1]}"
        terms = {f"Interface gap {_GAP}": self.interface, f"Approximation {_CLASS_ERROR}": self.approximation}
        terms |= {f"Residual {_RESIDUAL}, {o.value}, {at}": found[-1] for o, found in self.residual.items()}
        terms |= {f"Total {_TOTAL}, {o.value}, {at}": self.total(o) for o in self.residual}
        ladders = (SheetTable(caption, HEADER, term_rows(term)) for caption, term in terms.items())
        losses = {f"greedy value loss, {o.value}": self.value_loss(o) for o in self.residual}
        m = self.analysis.smdp
        size = f"{m.num_agents} agents, {m.num_states} states, {m.num_observations} observations, {self.class_name}"
        tables = (*ladders, self._over_time(), loss_table(at, losses), assumption_table(self.assumptions))
        return Sheet(f"IC-Q error theorem: {size}", f"{_TOTAL} <= E_mix(T) + E_app + E_int", tables)

    def _over_time(self) -> SheetTable:
        """The certified total at each time, the residual rung behind it, and what was observed."""
        columns = ("certified", "residual rung", "observed")
        rows = []
        for i, time in enumerate(self.times.tolist()):
            cells = [str(time)]
            for output, terms in self.residual.items():
                total = self.total(output, i)
                cells += [number(total.best.value), terms[i].best.name, interval(total.observed)]
            rows.append(tuple(cells))
        return SheetTable(
            "Total over time", ("T", *(f"{o.value}: {c}" for o in self.residual for c in columns)), tuple(rows)
        )

    def __str__(self) -> str:
        return self.sheet().text()

    def _page_(self) -> str:
        return self.sheet().html()

    def _repr_latex_(self) -> str:
        """The statement with the numbers of the last time, for the last iterate."""
        parts = (self.residual[Output.LAST][-1], self.approximation, self.interface)
        total = self.total().best
        under = " + ".join(
            rf"\underbrace{{{latex_number(t.best.value)}}}_{{{mark}}}"
            for t, mark in zip(parts, (r"E_{\mathrm{mix}}(T)", r"E_{\mathrm{app}}", r"E_{\mathrm{int}}"))
        )
        left = r"\Bigl(\mathbb E\lVert Q_T\circ\varphi-Q^*\rVert_d^2\Bigr)^{1/2}"
        why = "" if total.applicable else rf"\quad\text{{inapplicable: {latex_text(total.failures[0].name)}}}"
        return rf"$$T={self.times[-1]}:\quad {left}\;\le\; {under} = {latex_number(total.value)}{why}$$"

    def _facts_(self) -> list[Fact]:
        parts = (self.interface, self.approximation, self.residual[Output.LAST][-1])
        holds = all(a.holds for a in self.setting)
        total = sum(term.best.value for term in parts) if holds else math.nan
        return [
            Fact("class", self.class_name), Fact("handoffs", int(self.times[-1])),
            Fact("certified total", "none" if math.isnan(total) else total, "reward in the d-norm"),
            *(Fact(term.name, "none" if math.isnan(term.best.value) else term.best.value) for term in parts),
        ]  # fmt: skip


def value_loss(a: Analysis, total: Bound) -> Bound:
    """Lemma (value loss): with pi greedy in a table Q, w(s) = min_a beta(a|phi(s)) and e = ||Q o phi - Q*||_d,

    (sum_s d(s) w(s) (V* - V^pi)(s)^2)^{1/2} <= sqrt(2) e/(1 - kappa_S), so for a handoff drawn from d
    sum_s d(s) (V* - V^pi)(s) <= sqrt(2 sum_s d(s)/w(s)) e/(1 - kappa_S), if kappa_S < 1.

    `total` bounds e, or (E e^2)^{1/2} for a random Q, and then the loss is bounded in expectation.  The value is the
    second form, the terms hold the first as `weighted`.
    """
    kappa = oracle_contraction(a)
    least = np.where(a.oracle.available, np.asarray(a.smdp.behaviour)[a.smdp.observation], np.inf).min(axis=1)
    spread = float(np.sqrt((a.d / least).sum()))

    def compute() -> tuple[float, dict[str, float]]:
        weighted = math.sqrt(2) * total.value / (1 - kappa)
        return spread * weighted, {"weighted": weighted, "spread": spread, "kappa_s": kappa}

    assumptions = (contracts("kappa_S", kappa), *total.assumptions)
    roundoff = spread * math.sqrt(2) * total.roundoff / (1 - kappa) + loss_error(a) if kappa < 1 else 0.0
    return conditional("greedy value loss", assumptions, compute, SECTION, trivial_cap(a), roundoff=roundoff)


def setting(a: Analysis) -> tuple[Assumption, ...]:
    """What every term needs of the instance; `analyse` refuses instances where the first two fail."""
    support = float(np.asarray(a.smdp.behaviour)[a.interface.available].min())
    return (
        below("unique stationary law", float(len(a.chain.closed)), 2.0, "closed classes of the handoff chain, below 2"),
        below("observations have mass", -float(a.d_obs.min()), 0.0, "smallest stationary mass of an observation"),
        below("behaviour has full support", -support, 0.0, "smallest probability of an available option"),
        below("gbar < 1", a.gamma_bar, 1.0, f"largest expected discount gbar = {a.gamma_bar:.6g}"),
    )


def solve_class(
    a: Analysis,
    psi: Float[np.ndarray, "X p"] | None = None,
    metric: Float[np.ndarray, "p p"] | None = None,
    offset: Float[np.ndarray, "X"] | None = None,
) -> Population | Why:
    """The class {offset + Psi theta} with its fixed point, or why there is none; arguments as in `theorem`."""
    psi = tabular_features(a) if psi is None else psi
    try:
        return population(a, psi, local_clock(a, psi) if metric is None else metric, offset)
    except NoNumber as error:
        return error.why


def theorem(
    a: Analysis,
    steps: Steps | int,
    times: Int[np.ndarray, "n"],
    *,
    psi: Float[np.ndarray, "X p"] | None = None,
    metric: Float[np.ndarray, "p p"] | None = None,
    offset: Float[np.ndarray, "X"] | None = None,
    start: Float[np.ndarray, "p"] | None = None,
    observed: Observations = NOTHING,
    solved: Population | Why | None = None,
) -> Theorem:
    """The theorem for {offset + Psi theta} trained by theta <- theta + alpha_k M^{-1} psi(x) delta from `start`.

    psi: rows are pairs o*A + a; left out, the table.  metric: M; left out, Psi'D Psi, which for the table is a step
    per own visit.  start: left out, 0.  times: handoffs, increasing, at least 1.  solved: what `solve_class` made of
    psi, metric and offset, where that is known.  A class without a usable fixed point leaves the interface term and
    says why the others are missing.  Raises ValueError for times or steps that are not a run.
    """
    if len(times) == 0 or times[0] < 1 or (np.diff(times) <= 0).any():
        raise ValueError(f"times = {times.tolist()}: at least one time, positive and increasing")
    name = "table" if psi is None else f"{psi.shape[1]} features"
    seen = Observed.exact(a.norm_d_state(a.gap), observed_error(a))
    gap = Term("interface", _GAP, ladder.interface_rungs(a), trivial_cap(a), observed=seen)
    pop = solve_class(a, psi, metric, offset) if solved is None else solved
    if isinstance(pop, Why):
        approximation, residual = _missing(pop, len(times))
    else:
        first = 0 * pop.theta_star if start is None else start
        run = Run(float(steps) if isinstance(steps, int) else steps, first, times)
        approximation, residual = _approximation(pop), _residual(pop, run, observed)
    return Theorem(a, name, times, setting(a), gap, approximation, residual, observed)


def _approximation(pop: Population) -> Term:
    a, members = pop.analysis, ladder.class_of(pop)
    rungs = ladder.approximation_rungs(pop, members)
    cap = rungs[0].bound.trivial
    allowance = a.interface_solution.error + min(ladder.table_error(pop, members), cap)
    seen = Observed.exact(a.norm_d(pop.q_f - a.q_bar), allowance)
    return Term("approximation", _CLASS_ERROR, rungs, cap, observed=seen)


def _residual(pop: Population, run: Run, observed: Observations) -> dict[Output, tuple[Term, ...]]:
    """One term per output and time."""
    last = ladder.last_iterate_limit(pop, run)
    found = {
        Output.LAST: (ladder.last_iterate_curves(pop, run), [last] * len(run.times)),
        Output.AVERAGE: (ladder.average_curves(pop, run), ladder.average_limits(pop, run)),
    }
    out = {}
    for output, (curves, limits) in found.items():
        seen = observed.residual.get(output, [None] * len(run.times))
        rungs = [tuple(Rung(c.at(i)) for c in curves) for i in range(len(run.times))]
        terms = zip(rungs, limits, seen, strict=True)
        out[output] = tuple(Term("residual", _RESIDUAL, r, pop.range_cap, limit, x) for r, limit, x in terms)
    return out


def _missing(why: Why, count: int) -> tuple[Term, dict[Output, tuple[Term, ...]]]:
    """Terms without a number, because the class has no usable fixed point."""
    fails = Assumption("class fixed point", False, -math.inf, str(why))
    nothing = Bound("no class fixed point", math.nan, {}, (fails,), SECTION)
    approximation = Term("approximation", _CLASS_ERROR, (Rung(nothing, exact=True), Rung(nothing)), math.inf)
    residual = Term("residual", _RESIDUAL, (Rung(nothing),), math.inf)
    return approximation, {output: (residual,) * count for output in Output}
