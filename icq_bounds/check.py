"""One call: learn, measure each of the three errors, and hold each beside a bound and a certificate.

A bound is known before the run, from the instance, the class and the schedule.  A certificate is computed afterwards,
from what was learned, whatever has learned it.  Letters: docs/theory.md sections 2 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from markupsafe import Markup
from matplotlib.axes import Axes

from bounds.approximation.certificate import certificate_oracle, certificate_pointwise
from bounds.core.bound import Assumption, Bound, Verdict, conditional, verdict
from estimators.decomposition import TERMS, decompose
from estimators.statistics.estimate import Estimate, exact, root_mean_square
from icq.coerce import Instance, count
from icq.display import Fact, Shown, number, text
from icq.exact import Analysis, analyse
from icq.learn import learner as learning
from icq.learn.learner import Record, seed_keys
from icq.learn.sampling import tables
from icq_bounds import numbers
from icq_bounds.beforehand import bounds_beforehand
from icq_bounds.figures.check import check_panel
from icq_bounds.sweep.cells import allowances, diverged
from icq_bounds.sweep.dataset import CODES, FLAGS, labels
from icq_bounds.sweep.methods import Certifier, Method, Table

HANDOFFS, SEEDS, OCTAVES = 2**16, 8, 7
WORST = (Verdict.VIOLATED, Verdict.INAPPLICABLE, Verdict.UNDECIDED, Verdict.VACUOUS, Verdict.HOLDS)
UNITS = "errors in the d-norm, in reward units"
Certificates: TypeAlias = list[list[Bound]]  # by run and checkpoint


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
    a, chosen, times = analyse(model), learner or Table(), np.array(grid(handoffs, checkpoints))
    return learning.learn(tables(a), chosen.build(a.smdp), chosen.config(iid), count("seeds", seeds), times)


def grid(handoffs: int, checkpoints: Sequence[int] | None = None) -> tuple[int, ...]:
    """The checkpoints; left out, seven by doubling up to `handoffs`."""
    if checkpoints is not None:
        return tuple(count("checkpoints", k) for k in checkpoints)
    last = count("handoffs", handoffs)
    return tuple(sorted({max(1, last >> k) for k in range(OCTAVES)}))


@dataclass(frozen=True)
class TermCheck(Shown):
    """One error after the last handoff, in the d-norm and in reward units.

    observed: exact, or the root mean square over runs with its interval.  bound: known before the run, with the verdict
    of `observed` on it.  certificate: computed from what was learned, root mean square over runs, with the worst
    verdict of a run on its own.
    """

    term: str
    observed: Estimate
    bound: Bound
    bound_verdict: Verdict
    certificate: Bound
    certificate_verdict: Verdict

    def _facts_(self) -> list[Fact]:
        return [
            Fact("", self.term), Fact("observed", self.observed), Fact("bound", _short(self.bound, self.bound_verdict)),
            Fact("certificate", _short(self.certificate, self.certificate_verdict)),
        ]  # fmt: skip


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

    def plot(self, ax: Axes | None = None) -> Axes:
        """Every error over handoffs with 95 % intervals over runs, its bound dashed and its certificate dotted.

        ax: where to draw; new axes when left out.  Returns the axes.
        """
        return check_panel(self.records, ax)

    def to_dataset(self) -> xr.Dataset:
        """Every number with names: dimensions term, replica and checkpoint; units and long names as attributes.

        observed, certificate, certificate_verdict [term, replica, checkpoint]; bound, bound_verdict [term, checkpoint];
        slack [term].  NaN where there is no number; verdicts are codes that their attributes name.
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
    a, chosen, times = analyse(model), learner or Table(), np.array(grid(handoffs, checkpoints))
    runs, cls = count("seeds", seeds, least=2), chosen.build(a.smdp)
    record = learning.learn(tables(a), cls, chosen.config(iid), runs, times)
    q = np.asarray(record.q_average, np.float64)
    reference = chosen.reference(a, cls, seed_keys(range(runs)))
    q_f = np.broadcast_to(reference.q, (runs, *q.shape[2:]))
    before = bounds_beforehand(a, cls, chosen.config(iid), times)
    after = _certificates(a, q, q_f, [chosen.certify(a, cls, table) for table in reference.q])
    errors = _errors(a, q, q_f)
    slack = allowances(a, reference)
    terms, verdicts = {}, {}
    for term in TERMS:
        seen = [_estimate(term, column, len(reference.q)) for column in errors[term].T]
        said = [_judge(b, e, slack[term]) for b, e in zip(before[term], seen, strict=True)]
        own = [
            [verdict(b, e, e, allowance=slack[term]) for b, e in zip(*run, strict=True)]
            for run in zip(after[term], errors[term].tolist(), strict=True)
        ]
        verdicts[term] = (said, own)
        worst = min((run[-1] for run in own), key=WORST.index)
        certified = _together([run[-1] for run in after[term]])
        terms[term] = TermCheck(term, seen[-1], before[term][-1], said[-1], certified, worst)
    title = f"{type(chosen).__name__}, {runs} runs of {times[-1]} handoffs{' drawn afresh' if iid else ''}; {UNITS}"
    records = _dataset(title, times, errors, before, after, verdicts, slack)
    return Check(a, chosen, runs, times, terms, records)


def _errors(a: Analysis, q: Float[np.ndarray, "R K O A"], q_f: Float[np.ndarray, "R O A"]) -> dict[str, np.ndarray]:
    """The d-norm of every term [R, K]."""
    found, _ = decompose(a, q, q_f[:, None])
    return {term: np.array(np.broadcast_to(getattr(found, term), q.shape[:2])) for term in TERMS}


def _certificates(
    a: Analysis, q: Float[np.ndarray, "R K O A"], q_f: Float[np.ndarray, "R O A"], certify: Sequence[Certifier]
) -> dict[str, Certificates]:
    """What each learned table says of its own errors; that of the approximation comes from Q_F."""
    hidden = Assumption("the global state", False, -math.inf, "no learned table tells what its interface hides")
    nothing = conditional("none", [hidden], lambda: (math.nan, {}), "docs/theory.md section 8.3")
    out: dict[str, Certificates] = {term: [] for term in TERMS}
    for r, run in enumerate(q):
        whole = [np.isfinite(table).all() for table in run]
        own = certify[r % len(certify)]
        out["interface"].append([nothing] * len(run))
        out["approximation"].append([certificate_pointwise(a, q_f[r])[0]] * len(run))
        out["residual"].append([own(table) if ok else diverged() for table, ok in zip(run, whole, strict=True)])
        out["total"].append([certificate_oracle(a, t) if ok else diverged() for t, ok in zip(run, whole, strict=True)])
    return out


def _estimate(term: str, errors: Float[np.ndarray, "R"], references: int) -> Estimate:
    """One error at one checkpoint: a number where no run differs from another, else the root mean square."""
    if term == "interface" or (term == "approximation" and references == 1):
        return exact(float(errors[0]))
    return root_mean_square(errors)


def _judge(bound: Bound, seen: Estimate, allowance: float) -> Verdict:
    """The verdict of a measured error; undecided where a bound meets no interval."""
    if bound.applicable and not np.isfinite(seen.interval).all():
        return Verdict.UNDECIDED
    return verdict(bound, *seen.interval, allowance=allowance)


def _together(parts: Sequence[Bound]) -> Bound:
    """The root mean square of the certificates of all runs, which is above that of the errors if each is."""
    first = parts[0]
    assumptions = tuple(dict.fromkeys(x for part in parts for x in part.assumptions))

    def compute() -> tuple[float, dict[str, float]]:
        return math.sqrt(np.mean([part.value**2 for part in parts])), {}

    trivial, roundoff = min(part.trivial for part in parts), max(part.roundoff for part in parts)
    return conditional(first.name, assumptions, compute, first.reference, trivial, roundoff=roundoff)


def _dataset(
    title: str,
    times: Int[np.ndarray, "K"],
    errors: Mapping[str, np.ndarray],
    before: Mapping[str, Sequence[Bound]],
    after: Mapping[str, Certificates],
    verdicts: Mapping[str, tuple[list[Verdict], list[list[Verdict]]]],
    slack: Mapping[str, float],
) -> xr.Dataset:
    one, all_ = ("term", "checkpoint"), ("term", "replica", "checkpoint")
    ds = xr.Dataset(attrs={"title": f"IC-Q verified: {title}"})
    ds = ds.assign_coords(
        term=("term", list(TERMS), labels("1", "which error of Q - Q* = residual + approximation + interface")),
        replica=("replica", np.arange(len(errors["total"])), labels("1", "seed of the run")),
        checkpoint=("checkpoint", times, labels("handoffs", "handoffs learned from")),
    )

    def add(name: str, dims: tuple[str, ...], values: Sequence[object], units: str, text: str) -> None:
        ds[name] = (dims, np.array(values), labels(units, text) | (FLAGS if name.endswith("verdict") else {}))

    def codes(found: Sequence[Verdict]) -> list[int]:
        return [CODES[word.value] for word in found]

    add("observed", all_, [errors[t] for t in TERMS], "reward", "observed error, d-norm")
    add("slack", ("term",), [slack[t] for t in TERMS], "reward", "allowance for numerical error")
    add("bound", one, [[b.value for b in before[t]] for t in TERMS], "reward", "bound known before the run")
    add("bound_verdict", one, [codes(verdicts[t][0]) for t in TERMS], "1", "verdict of the bound")
    certified = [[[b.value for b in run] for run in after[t]] for t in TERMS]
    add("certificate", all_, certified, "reward", "certificate computed from the learned table")
    own = [[codes(run) for run in verdicts[t][1]] for t in TERMS]
    add("certificate_verdict", all_, own, "1", "verdict of the certificate")
    return ds


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
