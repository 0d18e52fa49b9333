"""Approximation error, exact from an instance and estimated from a log, with the same call.

Every squared error here is the squared length of a vector v that is a smooth function of batch sums.  Deleting one
batch at a time gives its bias (noise in v adds to the length) and its variance, also where v is zero.  Letters and
lemmas: docs/theory.md section 7.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from estimators.doubt import SHARE, doubt
from estimators.fixed import Span, check_rest, class_fixed_point, span
from estimators.law import Fixed, Law, negligible
from estimators.logs.log import Log
from estimators.statistics.estimate import (
    Estimate,
    estimator,
    exact,
    jackknife,
    rule_of_three,
    scale_free,
    settled,
    unrewarded,
)  # fmt: skip
from estimators.statistics.jackknife import BATCHES, leave_one_out, norm
from estimators.sums import Sums, pair_law, sums
from estimators.view import LEAVES, effective
from icq import coerce
from icq.coerce import Numbers
from icq.exact import Analysis, contraction
from icq.learn.classes import FunctionClass, Tabular
from icq.reason import NoNumber, Reason, Why


def length(
    whole: Float[np.ndarray, "p"], without: Float[np.ndarray, "B p"], n_eff: float, confidence: float = 0.95,
    limits: tuple[float, float] = (0.0, 0.0),
) -> Estimate:  # fmt: skip
    """|v| from the vector of everything and the vectors of everything but one batch.

    limits: what it is rounding up to, and how large it may be where nothing differed (`limits`).  Noise in v adds its
    variance to |v|^2; the jackknife takes it off (`estimators.statistics.jackknife.norm`).
    """
    influence = (len(without) - 1) * (whole - without)
    pseudo = leave_one_out(float(whole @ whole), (without**2).sum(1))
    return settled(norm(pseudo, influence, n_eff=n_eff, confidence=confidence), *limits)


def limits(law: Law, n_eff: float, confidence: float, *tables: Float[np.ndarray, "O A"]) -> tuple[float, float]:
    """Rounding of the differences of values and of such tables, and how large what was never seen may be.

    Raises NoNumber where all of them are 0, as all rewards are.
    """
    low, high = law.span
    low, high = min([low, *(float(q.min()) for q in tables)]), max([high, *(float(q.max()) for q in tables)])
    size = max(-low, high)
    if size == 0:
        raise unrewarded(round(law.length), n_eff, law.most_discount, confidence)
    return negligible(size, law.length), rule_of_three(n_eff, confidence) * (high - low)


def table(
    q: Numbers, needed: Float[np.ndarray, "o a"] | np.ndarray, *, whole: bool = False
) -> Float[np.ndarray, "o a"]:
    """q on the pairs that are needed, 0 elsewhere.  Raises ValueError naming the first entry missing or not finite.

    whole: q has these rows and options, as for an instance; a log may know fewer than there are.
    """
    rows, options = needed.shape
    q = coerce.shaped("q", q, "OA", needed.shape) if whole else coerce.numbers("q", q)
    if q.ndim != 2 or q.shape[0] < rows or q.shape[1] < options:
        raise ValueError(f"q: shape {q.shape}, expected at least {needed.shape}: a value for every pair that occurs")
    q = q[:rows, :options]
    bad = needed & ~np.isfinite(q)
    if bad.any():
        o, a = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"q[{o}, {a}] = {q[o, a]} is not finite, and the pair occurs")
    return np.where(needed, q, 0.0)


def residual_vector(law: Law, q: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "X"]:
    """v(x) = sqrt(d(x)) (That q - q)(x), whose length is ||q - That q||_d."""
    model = law.model
    options = np.where(model.available, q, -np.inf).max(1)
    value = np.where(model.available.any(1), options, q.max(1))
    mean = model.reward.reshape(-1) + model.kernel @ value
    return np.where(law.flat > 0, np.sqrt(law.flat) * (mean - q.reshape(-1)), 0.0)


@estimator
@scale_free(1, "q")
def bellman_residual(source: Analysis | Log, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    """||q - That q||_d of a fixed table q [O, A], in reward units; for a log, q must not come from the same rows.

    Exact from an `Analysis`.  From a `Log`: v(x) = sqrt(d(x)) E[R + g max q(o') - q(x) | x], bias-corrected square,
    interval truncated at zero.  Raises ValueError for a table that lacks a pair of the log.
    """
    if isinstance(source, Analysis):
        q = table(q, source.interface.available, whole=True)
        return exact(source.norm_d(q - source.interface.bellman(q)))
    q = table(q, source.available)
    found, n_eff = enough(source)
    without = np.stack([residual_vector(part, q) for part in found.without])
    return length(
        residual_vector(found.whole, q), without, n_eff, confidence, limits(found.whole, n_eff, confidence, q)
    )  # fmt: skip


@estimator
@scale_free(1, "cls")
def class_error(source: Analysis | Log, cls: FunctionClass | None = None, *, confidence: float = 0.95) -> Estimate:
    """||Q_F - Qbar||_d: what the class cannot represent.  0 for a table (cls None or `Tabular`), else `Linear`.

    Exact from an `Analysis`.  From a `Log` both fixed points are solved for on the log's own interface model, again
    for every left-out batch.  A class without a fixed point has no number, nor have greedy options in doubt.
    """
    if isinstance(source, Analysis):
        known = pair_law(source)
        return exact(float(np.linalg.norm(error_vector(known, span(cls, known.model.available))[0])))
    if cls is None or isinstance(cls, Tabular):
        return exact(0.0)
    members = source.once("span", lambda: span(cls, source.available), cls)
    if members.basis.shape[1] == source.available.sum():
        return exact(0.0)
    found, n_eff = enough(source)
    known = found.whole
    whole, inside = error_vector(known, members)
    parts = [(*error_vector(part, members), part.solution) for part in found.without]
    for q, others in ((inside.q, [part[1].q for part in parts]), (known.q_star, [part[2].q for part in parts])):
        doubt(q, np.stack(others), known.model.available, known.mass.sum(1), known.rounding).check(
            share=SHARE, n_eff=n_eff
        )
    check_rest(known, members, inside, len(source), n_eff)
    return length(
        whole, np.stack([part[0] for part in parts]), n_eff, confidence, limits(known, n_eff, confidence, inside.q)
    )  # fmt: skip


def error_vector(law: Law, span: Span) -> tuple[Float[np.ndarray, "X"], Fixed]:
    """sqrt(d)(Q_F - Qbar), and Q_F."""
    inside = class_fixed_point(law, span)
    return np.sqrt(law.flat) * (inside.q - law.solution.q).reshape(-1), inside


@estimator
@scale_free(0)
def kappa(source: Analysis | Log, *, confidence: float = 0.95) -> Estimate:
    """kappa, the modulus of That in ||.||_d (docs/theory.md section 4).

    Exact from an `Analysis`.  A `Log` must name the probability of each chosen option: the least frequent option of
    an observation is read off it, because the smallest of several nearly equal counts is not a smooth function.
    """
    if isinstance(source, Analysis):
        return exact(source.kappa)
    found, n_eff = enough(source)
    return jackknife(*moduli(source, found, n_eff), n_eff=n_eff, confidence=confidence)


def moduli(log: Log, found: Sums, n_eff: float) -> tuple[float, Float[np.ndarray, "B"]]:
    """kappa of the law of a log, and of its law without each batch.  Raises NoNumber as `behaviour_of`."""

    def compute() -> tuple[float, Float[np.ndarray, "B"]]:
        behaviour = behaviour_of(log, n_eff)
        return modulus(found.whole, behaviour), np.array([modulus(part, behaviour) for part in found.without])

    return log.once("kappa", compute)


def modulus(law: Law, behaviour: Float[np.ndarray, "O A"]) -> float:
    """kappa of a law whose behaviour policy is known."""
    mass = law.mass.sum(1)[:, None] * behaviour
    return contraction(law.model.kernel, mass, law.model.available)


def behaviour_of(log: Log, n_eff: float = 0.0) -> Float[np.ndarray, "O A"]:
    """beta(a|o) as logged.  Raises NoNumber when it is not known of every option, or changes."""
    beta = np.zeros(log.available.shape)
    if log.probability is None or not np.isfinite(log.probability).all():
        raise NoNumber(Reason.NO_PROBABILITY, need="log the column `probability`", n_eff=n_eff)
    beta[log.observation, log.option] = log.probability
    if not np.allclose(beta[log.observation, log.option], log.probability, rtol=1e-6):
        raise NoNumber(Reason.BEHAVIOUR_CHANGES, n_eff=n_eff)
    total = beta.sum(1)
    short = np.flatnonzero(log.available.any(1) & ~np.isclose(total, 1.0, rtol=1e-4))
    if len(short):
        o = int(short[0])
        place, need = f"those seen have probability {total[o]:.4g} together", "log until every option has been tried"
        raise NoNumber(Why(Reason.UNTRIED_OPTIONS, place, need, observation=o), n_eff=n_eff)
    return beta


@estimator
@scale_free(1, "q")
def certificate(source: Analysis | Log, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    """||q - That q||_d/(1 - kappa) >= ||q - Qbar||_d, the a-posteriori certificate (docs/theory.md section 4).

    No number unless kappa < 1, for a log beyond sampling error.
    """
    if isinstance(source, Analysis):
        size = bellman_residual(source, q).value
        if source.kappa >= 1:
            raise NoNumber(Reason.NOT_CONTRACTING, f"kappa = {source.kappa:.4g}", n_eff=float("inf"))
        return exact(size / (1 - source.kappa))
    q = table(q, source.available)
    found, n_eff = enough(source)
    whole, without = moduli(source, found, n_eff)
    low, high = jackknife(whole, without, confidence=confidence).interval
    if high >= 1:
        raise NoNumber(Reason.NOT_CONTRACTING, f"kappa is in [{low:.4g}, {high:.4g}]", n_eff=n_eff)
    parts = [residual_vector(law, q) / (1 - one) for law, one in zip(found.without, without, strict=True)]
    rounding, most = limits(found.whole, n_eff, confidence, q)
    return length(
        residual_vector(found.whole, q) / (1 - whole), np.stack(parts), n_eff, confidence,
        (rounding / (1 - whole), most / (1 - whole)),
    )  # fmt: skip


def enough(log: Log) -> tuple[Sums, float]:
    """The sums of a log and the effective number of handoffs.  Raises NoNumber when they are too few."""
    return log.once("enough", lambda: _enough(log))


def _enough(log: Log) -> tuple[Sums, float]:
    n_eff = effective(log)
    found = sums(log)
    batches = (found.count > 0).sum(0)
    rare = np.flatnonzero((batches > 0) & (batches < LEAVES))
    if len(rare):
        o, a = divmod(int(rare[0]), found.frame.options)
        place = f"in {batches[rare[0]]} of {BATCHES}, {LEAVES} are needed; one of {len(rare)} such pairs"
        raise NoNumber(Why(Reason.RARE_PAIR, place, "log more handoffs", option=a, observation=o), n_eff=n_eff)
    return found, n_eff
