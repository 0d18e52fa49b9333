"""One call: learn, measure each of the three errors, and hold each beside a bound and a certificate.

A bound is known before the run, from the instance, the class and the schedule.  A certificate is computed afterwards,
from what was learned, whatever has learned it.  Letters: docs/theory.md sections 2 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Int
from markupsafe import Markup
from matplotlib.axes import Axes
from scipy import stats

from bounds.core.bound import Bound, Certificate, Verdict, conditional
from bounds.theorem import Output
from estimators.decomposition import TERMS
from estimators.statistics.estimate import Estimate
from icq.coerce import Instance, count
from icq.display import Fact, Shown, number, text
from icq.exact import Analysis, analyse, units
from icq.learn import learner as learning
from icq.learn.learner import Record
from icq_bounds import numbers
from icq_bounds.figures.check import check_panel
from icq_bounds.learners import table
from icq_bounds.sweep.dataset import coordinates, records_of
from icq_bounds.sweep.measure import measured
from icq_bounds.sweep.methods import Method

HANDOFFS, SEEDS, OCTAVES = 10**6, 8, 7
WORST = (Verdict.VIOLATED, Verdict.INAPPLICABLE, Verdict.UNDECIDED, Verdict.VACUOUS, Verdict.HOLDS)
WHICH = {Output.LAST: "last iterate", Output.AVERAGE: "average"}


def learn(
    model: Instance,
    handoffs: int = HANDOFFS,
    seeds: int = SEEDS,
    learner: Method | None = None,
    *,
    checkpoints: Sequence[int] | None = None,
    iid: bool = False,
) -> Record:
    """Run IC-Q on a model: Q tables [seeds, checkpoints, O, A] of independent runs of `handoffs` handoffs each.

    learner: `table()` when left out, `features(8)`, `network(width=16)`.  checkpoints: left out, seven by doubling up
    to `handoffs`.  iid: draw every handoff afresh from the stationary law instead of following a trajectory.  Raises
    ValueError for a number outside its range, and as `analyse` does.
    """
    a, chosen, times = analyse(model), learner or table(), np.array(grid(handoffs, checkpoints))
    return learning.learn(a, chosen.build(a), chosen.config(a, iid), count("seeds", seeds), times)


def grid(handoffs: int, checkpoints: Sequence[int] | None = None) -> tuple[int, ...]:
    """The checkpoints; left out, seven by doubling up to `handoffs`."""
    if checkpoints is not None:
        return tuple(count("checkpoints", k) for k in checkpoints)
    last = count("handoffs", handoffs)
    return tuple(sorted({max(1, last >> k) for k in range(OCTAVES)}))


@dataclass(frozen=True)
class TermCheck(Shown):
    """One error after the last handoff, in the d-norm and in reward units: of the average, or of the last iterate of
    networks that have a bound.

    observed: exact, or the root mean square over runs with its interval.  bound: known before the run, with the verdict
    of `observed` on it.  certificate: computed from what was learned, root mean square over runs, with the worst
    verdict of a run on its own.
    """

    term: str
    observed: Estimate
    bound: Bound
    bound_verdict: Verdict
    certificate: Certificate
    certificate_verdict: Verdict

    def _facts_(self) -> list[Fact]:
        return [
            Fact("", self.term), Fact("observed", self.observed), Fact("bound", _short(self.bound, self.bound_verdict)),
            Fact("certificate", _short(self.certificate, self.certificate_verdict)),
        ]  # fmt: skip


@dataclass(frozen=True)
class NextRun(Shown):
    """What R independent runs say of one more, whatever the law of a run.

    at_most: the largest certificate of the R runs, in the d-norm and in reward units, which the error of the next one
    exceeds with probability at most 1/(R + 1): each of R + 1 certificates is equally likely to be the largest.
    probability: R/(R + 1).  killed: the share of runs that leave what the bound speaks of, exact 95 % interval.
    """

    at_most: float
    probability: float
    killed: Estimate

    def _facts_(self) -> list[Fact]:
        return [Fact("error at most", self.at_most, "reward in the d-norm"), Fact("probability", self.probability),
                Fact("runs killed", self.killed)]  # fmt: skip


@dataclass(frozen=True)
class Check(Shown):
    """What `verify` found: the errors of IC-Q on a model, each beside its bound and its certificate.

    terms: by name (interface, approximation, residual, total), after the last of `handoffs`, the checkpoints.  In a
    notebook it shows itself as a table; `plot` draws it over handoffs, `to_dataset` has every number of every run.
    """

    analysis: Analysis
    learner: Method
    seeds: int
    handoffs: Int[np.ndarray, "K"]
    terms: Mapping[str, TermCheck]
    records: xr.Dataset

    def __repr__(self) -> str:
        try:
            return self._lines()
        except Exception:  # half-made: what is wrong shows elsewhere
            return text(self)

    def _lines(self) -> str:
        columns = [["observed", "bound", "certificate"]]
        for row in self.terms.values():
            told = (_short(row.bound, row.bound_verdict), _short(row.certificate, row.certificate_verdict))
            columns.append([f"{row.term} {numbers.plus_minus(row.observed)}", *told])
        lines = zip(*([cell.ljust(max(map(len, column))) for cell in column] for column in columns), strict=True)
        return "\n".join("  ".join(line).rstrip() for line in lines)

    def _page_(self) -> str:
        def cells(tag: str, values: Sequence[object]) -> Markup:
            cell = Markup(f'<{tag} style="text-align:left">{{}}</{tag}>')
            return Markup("<tr>{}</tr>").format(Markup("").join(cell.format(value) for value in values))

        head = cells("th", ("term", "observed", "bound (known before)", "", "certificate (computed after)", ""))
        body = Markup("").join(
            cells("td", (row.term, numbers.text(row.observed), _whole(row.bound), row.bound_verdict,
                         _whole(row.certificate), row.certificate_verdict))
            for row in self.terms.values()
        )  # fmt: skip
        page = '<table><caption style="text-align:left">{}</caption><thead>{}</thead><tbody>{}</tbody></table>'
        return str(Markup(page).format(self.records.attrs["title"], head, body))

    def rescaled(self, unit: float, analysis: Analysis) -> Check:
        """The check of this analysis, of one whose rewards were over `unit`."""
        records = self.records.copy()
        for name, column in records.data_vars.items():
            if column.attrs.get("units") == "reward":
                records[name] = (column.dims, column.values * unit, column.attrs)
        terms = {
            name: replace(
                row, observed=row.observed.rescaled(unit), bound=row.bound.rescaled(unit),
                certificate=Certificate.of(row.certificate.rescaled(unit)),
            )
            for name, row in self.terms.items()
        }  # fmt: skip
        return replace(self, analysis=analysis, terms=terms, records=records)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Every error over handoffs with 95 % intervals over runs, its bound dashed and its certificate dotted.

        ax: where to draw; new axes when left out.  Returns the axes.
        """
        return check_panel(self.records, ax)

    def next_run(self, term: str = "total") -> NextRun:
        """A statement about one more run after as many handoffs.

        term: approximation, residual or total.  A run without a certificate, as one that diverged, leaves infinity.
        Raises ValueError for another term: no learned table tells what its interface hides.
        """
        if term not in TERMS[1:]:
            raise ValueError(f"term = {term!r} has no certificate; choose one of {', '.join(TERMS[1:])}")
        last = self.records.isel(checkpoint=-1)
        found = last.certificate.sel(term=term, output=self.records.attrs["shown"]).values
        found = np.where(np.isnan(found), np.inf, found)
        killed = int((self.records.used.values > 1).any(axis=-1).sum())
        low, high = stats.binomtest(killed, self.seeds).proportion_ci(0.95, "exact")
        one = killed / self.seeds
        error = math.sqrt(one * (1 - one) / self.seeds)
        share = Estimate(one, error, (float(low), float(high)), float(self.seeds), confidence=0.95)
        return NextRun(float(found.max()), self.seeds / (self.seeds + 1), share)

    def to_dataset(self) -> xr.Dataset:
        """Every number with names: dimensions term, output (last, average), replica and checkpoint; units and long
        names as attributes.

        observed, sup, certificate, certificate_verdict [term, output, replica, checkpoint]; bound, bound_verdict [term,
        output, checkpoint]; predicted [checkpoint].  NaN where there is no number; verdicts are codes that their
        attributes name.
        """
        return self.records.copy()


def verify(
    model: Instance,
    handoffs: int = HANDOFFS,
    seeds: int = SEEDS,
    learner: Method | None = None,
    *,
    checkpoints: Sequence[int] | None = None,
    iid: bool = False,
) -> Check:
    """Learn as `learn` does, measure the three errors against the exact oracle, bound and certify each.

    handoffs: of every run.  seeds: independent runs, at least 2, over which observed errors are root mean squares.
    Raises ValueError for a number outside its range, and as `analyse` does.
    """
    a, chosen, times = analyse(model), learner or table(), grid(handoffs, checkpoints)
    if (unit := units.unit(a.smdp)) != 1.0:
        inner = verify(units.scaled(a.smdp, unit), handoffs, seeds, learner, checkpoints=checkpoints, iid=iid)
        return inner.rescaled(unit, a)
    found = measured(a, chosen, count("seeds", seeds, least=2), times, iid)
    terms, output = {}, found.before.output
    place = list(Output).index(output)
    for term in TERMS:
        own = min((run[-1] for run in found.certificate_verdicts[term][place]), key=WORST.index)
        terms[term] = TermCheck(
            term, found.seen[term][place][-1],
            found.before.bounds[term][output][-1], found.bound_verdicts[term][place][-1],
            _together([run[-1] for run in found.after[term][place]]), own,
        )  # fmt: skip
    title = f"{type(chosen).__name__}, {seeds} runs of {times[-1]} handoffs{' drawn afresh' if iid else ''}"
    title += f"; errors of the {WHICH[output]} in the d-norm, in reward units"
    records = xr.Dataset(attrs={"title": f"IC-Q verified: {title}", "shown": output.name.lower()})
    records = records.assign_coords(coordinates(seeds, times))
    for name, (dims, part, said) in records_of(found.arrays(), seeds, len(times)).items():
        records[name] = (dims, part, said)
    return Check(a, chosen, seeds, found.times, terms, records)


def _together(parts: Sequence[Certificate]) -> Certificate:
    """The root mean square of the certificates of all runs, which is above that of the errors if each is."""
    first = parts[0]
    assumptions = tuple(dict.fromkeys(x for part in parts for x in part.assumptions))

    def compute() -> tuple[float, dict[str, float]]:
        return math.sqrt(np.mean([part.value**2 for part in parts])), {}

    trivial, roundoff = min(part.trivial for part in parts), max(part.roundoff for part in parts)
    return Certificate.of(conditional(first.name, assumptions, compute, first.reference, trivial, roundoff=roundoff))


def _short(bound: Bound, said: Verdict) -> str:
    """A bound in a few letters; what is not above its own rounding is 0."""
    if not bound.applicable:
        return f"needs {bound.failures[0].name}"
    return f"{0.0 if bound.value <= bound.roundoff else bound.value:.3g} {said}"


def _whole(bound: Bound) -> str:
    """A bound in words, with everything that fails."""
    if bound.applicable:
        return number(bound.value)
    return "none: " + "; ".join(f"{x.name} fails ({x.detail})" for x in bound.failures)
