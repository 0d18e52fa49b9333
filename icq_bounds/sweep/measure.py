"""Every error of what was learned, beside the bound known before the run and the certificate computed after it.

A bound speaks of the root mean square over runs: it is held against that of the runs seen, with its interval.  A
certificate speaks of one table, whatever has learned it.  Letters: docs/theory.md sections 2 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from bounds.approximation.certificate import certificate_oracle, certificate_pointwise
from bounds.core.bound import Assumption, Bound, Certificate, Verdict, conditional, verdict
from bounds.network.watch import shares
from bounds.theorem import Output
from estimators.decomposition import TERMS, decompose
from estimators.statistics.estimate import Estimate, exact, root_mean_square
from icq.display import Fact, Shown
from icq.exact import Analysis
from icq.learn.learner import learn, seed_keys
from icq.learn.networks import Network
from icq_bounds.sweep.beforehand import Beforehand, beforehand
from icq_bounds.sweep.methods import Certifier, Method, Reference
from icq_bounds.sweep.store import Arrays

OUTPUTS = tuple(output.name.lower() for output in Output)  # last, average
CONFIDENCE = 0.999  # of the interval that is held against a bound: there are many statements
Certificates: TypeAlias = Sequence[Sequence[Sequence[Certificate]]]  # by output, run and checkpoint


@dataclass(frozen=True)
class Measured(Shown):
    """q [2, R, K, O, A]: last iterate and average of every run at the times [K].  observed, sup: TERM -> [2, R, K] in
    the d-norm and the sup norm; a run that diverged has NaN.  slack: how far solvers may have moved each term.  used
    [R, K]: the largest share of what it may do before it is killed that a run has used; 0 where nothing can kill one.
    """  # fmt: skip

    q: Float[np.ndarray, "2 R K O A"]
    times: Int[np.ndarray, "K"]
    reference: Reference
    observed: Mapping[str, Float[np.ndarray, "2 R K"]]
    sup: Mapping[str, Float[np.ndarray, "2 R K"]]
    slack: Mapping[str, float]
    before: Beforehand
    after: Mapping[str, Certificates]
    used: Float[np.ndarray, "R K"]

    @cached_property
    def alive(self) -> Bool[np.ndarray, "R K"]:
        """Runs of which the bounds still speak: not seen to be killed."""
        return np.logical_and.accumulate(self.used <= 1, axis=1)

    @cached_property
    def seen(self) -> dict[str, list[list[Estimate]]]:
        """Each error by output and checkpoint: exact, or the root mean square over runs with its 95 % interval."""
        return self._estimates(0.95)

    def _estimates(self, confidence: float, *, alive: bool = False) -> dict[str, list[list[Estimate]]]:
        """alive: runs that were killed count as 0, as in the bounds."""
        one = len(self.reference.q) == 1
        observed = {t: np.where(self.alive, x, 0.0) if alive else x for t, x in self.observed.items()}
        return {
            term: [[_estimate(term, column, one, confidence) for column in part.T] for part in observed[term]]
            for term in TERMS
        }  # fmt: skip

    @cached_property
    def bound_verdicts(self) -> dict[str, list[list[Verdict]]]:
        """Of each bound, by output and checkpoint."""
        every = self._estimates(CONFIDENCE, alive=True)
        return {
            term: [
                [
                    _judge(b, e, bool(np.isfinite(errors[kept]).all()), bool(kept.all()), self.slack[term])
                    for b, e, errors, kept in zip(
                        self.before.bounds[term][output], seen, observed.T, self.alive.T, strict=True
                    )
                ]
                for output, seen, observed in zip(Output, every[term], self.observed[term], strict=True)
            ]
            for term in TERMS
        }  # fmt: skip

    @cached_property
    def certificate_verdicts(self) -> dict[str, list[list[list[Verdict]]]]:
        """Of each certificate, by output, run and checkpoint."""
        return {
            term: [
                [
                    [verdict(b, e, e, allowance=self.slack[term]) for b, e in zip(run, errors, strict=True)]
                    for run, errors in zip(part, observed.tolist(), strict=True)
                ]
                for part, observed in zip(self.after[term], self.observed[term], strict=True)
            ]
            for term in TERMS
        }  # fmt: skip

    def arrays(self) -> Arrays:
        """observed_TERM, sup_TERM, certificate_TERM, certificate_slack_TERM and certificate_verdict_TERM [2, R, K];
        bound_TERM, bound_slack_TERM and bound_verdict_TERM [2, K]; trivial_TERM; predicted [K]; used [R, K]; shown:
        the output of interest, 0 the last iterate, 1 the average.  NaN where there is no number; slack: allowance for
        rounding and solver error; trivial: what the range of rewards alone says.
        """
        out: Arrays = {
            "reference_residual": np.array(self.reference.residual), "predicted": self.before.predicted,
            "reference_converged": np.array(self.reference.converged), "used": self.used,
            "shown": np.array(list(Output).index(self.before.output)),
        }  # fmt: skip
        for term in TERMS:
            before, after = [self.before.bounds[term][output] for output in Output], self.after[term]
            slack = self.slack[term]
            out |= {
                f"observed_{term}": self.observed[term], f"sup_{term}": self.sup[term],
                f"trivial_{term}": np.array(before[0][0].trivial),
                f"bound_{term}": np.array([[b.value for b in part] for part in before]),
                f"bound_slack_{term}": np.array([[b.roundoff + slack for b in part] for part in before]),
                f"bound_verdict_{term}": _words(self.bound_verdicts[term]),
                f"certificate_{term}": np.array([[[b.value for b in run] for run in part] for part in after]),
                f"certificate_slack_{term}": np.array([[[b.roundoff + slack for b in r] for r in p] for p in after]),
                f"certificate_verdict_{term}": _words(self.certificate_verdicts[term]),
            }  # fmt: skip
        return out

    def _facts_(self) -> list[Fact]:
        runs, handoffs = self.q.shape[1], int(self.times[-1])
        return [Fact("runs", runs), Fact("handoffs", handoffs), *(Fact(t, self.seen[t][-1][-1]) for t in TERMS)]


def measured(a: Analysis, method: Method, seeds: int, times: Sequence[int], iid: bool) -> Measured:
    """Run IC-Q on an analysed instance, with what was known before and what is computed after."""
    cls, config = method.build(a), method.config(a, iid)
    marks = np.array(times)
    record = learn(a, cls, config, range(seeds), marks, keep=isinstance(cls, Network) and cls.start is not None)
    before = beforehand(a, cls, config, marks)
    q = np.stack([np.asarray(part, np.float64) for part in (record.q, record.q_average)])
    reference = method.reference(a, cls, seed_keys(range(seeds)))
    certify = [method.certify(a, cls, table) for table in reference.q]
    used = np.zeros((seeds, len(marks)))
    if before.run is not None and all(x.holds for x in before.run.assumptions):
        used = shares(before.run, record.params, q[0])
    return hold(a, q, marks, reference, before, certify, used)


def hold(
    a: Analysis, q: Float[np.ndarray, "2 R K O A"], times: Int[np.ndarray, "K"], reference: Reference,
    before: Beforehand, certify: Sequence[Certifier], used: Float[np.ndarray, "R K"] | None = None,
) -> Measured:  # fmt: skip
    """Measure given tables; certify: of the residual, one for all runs or one per run; used: as in `Measured`."""
    observed, sup = decompose(a, q, reference.q[None, :, None])
    shape = q.shape[:3]

    def full(found: object) -> dict[str, np.ndarray]:
        return {term: np.broadcast_to(getattr(found, term), shape).copy() for term in TERMS}

    slack = allowances(a, reference)
    used = np.zeros(q.shape[1:3]) if used is None else used
    after = certificates(a, q, reference, certify)
    return Measured(q, times, reference, full(observed), full(sup), slack, before, after, used)


def certificates(
    a: Analysis, q: Float[np.ndarray, "2 R K O A"], reference: Reference, certify: Sequence[Certifier]
) -> dict[str, Certificates]:
    """What each learned table says of its own errors; that of the approximation comes from Q_F."""
    hidden = Assumption("the global state", False, -math.inf, "no learned table tells what its interface hides")
    nothing = Certificate.of(conditional("none", [hidden], lambda: (math.nan, {}), "docs/theory.md section 8.3"))
    apart = [certificate_pointwise(a, table)[0] for table in reference.q]

    def each(of: Callable[[int, Float[np.ndarray, "O A"]], Certificate]) -> Certificates:
        return [[[of(r, table) for table in run] for r, run in enumerate(part)] for part in q]

    def whole(certify: Certifier, table: Float[np.ndarray, "O A"]) -> Certificate:
        return certify(table) if np.isfinite(table).all() else diverged()

    return {
        "interface": each(lambda r, table: nothing),
        "approximation": each(lambda r, table: apart[r % len(apart)]),
        "residual": each(lambda r, table: whole(certify[r % len(certify)], table)),
        "total": each(lambda r, table: whole(lambda t: certificate_oracle(a, t), table)),
    }


def allowances(a: Analysis, reference: Reference) -> dict[str, float]:
    """How far the numbers of each term may be off by solver error, in reward units."""
    numerical = a.oracle_solution.error + a.interface_solution.error
    slack = {"interface": numerical, "approximation": numerical + reference.error, "residual": reference.error}
    return slack | {"total": sum(slack.values())}


def diverged() -> Certificate:
    """No certificate speaks of a table that is not finite."""
    finite = Assumption("finite table", False, -np.inf, "the run diverged: choose a smaller step")
    return Certificate.of(conditional("certificate", [finite], lambda: (np.nan, {}), "docs/theory.md section 4"))


def _estimate(term: str, errors: Float[np.ndarray, "R"], one_reference: bool, confidence: float) -> Estimate:
    if term == "interface" or (term == "approximation" and one_reference):
        return exact(float(errors[0]))
    return root_mean_square(errors, confidence)


def _judge(bound: Bound, seen: Estimate, all_finite: bool, all_alive: bool, allowance: float) -> Verdict:
    """The verdict of a measured error.  One run has no interval; a run that diverged breaks any bound; where a run was
    killed a bound may be broken, but it is not confirmed.
    """  # fmt: skip
    if not bound.applicable:
        return Verdict.INAPPLICABLE
    if not all_finite:
        return Verdict.VIOLATED
    if np.isfinite(seen.interval).all():
        said = verdict(bound, *seen.interval, allowance=allowance)
        return Verdict.UNDECIDED if said is Verdict.HOLDS and not all_alive else said
    if bound.value >= bound.trivial:
        return Verdict.VACUOUS
    return Verdict.UNDECIDED


def _words(found: object) -> np.ndarray:
    return np.vectorize(lambda v: v.value, otypes=["<U12"])(np.array(found, dtype=object))
