"""Approximation error, exact from an instance and estimated from a log, with the same call.

Every squared error here is the squared length of a vector v that is a smooth function of batch sums.  Deleting one
batch at a time gives its bias (noise in v adds to the length) and its variance, also where v is zero.  Letters and
lemmas: docs/theory.md section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import numpy as np
from jaxtyping import Float

from estimators.fixed import (
    DOUBT,
    REST,
    Fixed,
    FixedPointError,
    Span,
    class_fixed_point,
    doubtful,
    interface_fixed_point,
    rests_on,
    span,
)
from estimators.law import Law, Sums, law, sums
from estimators.logs.log import Log
from estimators.statistics.estimate import Estimate, exact, missing
from estimators.statistics.jackknife import BATCHES, jackknife, leave_one_out, norm
from estimators.view import LEAVES, too_short
from icq import coerce
from icq.coerce import Numbers
from icq.exact import Analysis, contraction
from icq.learn.classes import FunctionClass, Tabular


def length(
    whole: Float[np.ndarray, "p"], without: Float[np.ndarray, "B p"], n_eff: float, confidence: float = 0.95
) -> Estimate:
    """|v| from the vector of everything and the vectors of everything but one batch.

    Noise in v adds its variance to |v|^2; the jackknife takes it off (`estimators.statistics.jackknife.norm`).
    """
    influence = (len(without) - 1) * (whole - without)
    pseudo = leave_one_out(float(whole @ whole), (without**2).sum(1))
    return norm(pseudo, influence, n_eff=n_eff, confidence=confidence)


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


@singledispatch
def bellman_residual(source: object, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    """||q - That q||_d of a fixed table q [O, A], in reward units; for a log, q must not come from the same rows.

    Exact from an `Analysis`.  From a `Log`: v(x) = sqrt(d(x)) E[R + g max q(o') - q(x) | x], bias-corrected square,
    interval truncated at zero.  Raises ValueError for a table that lacks a pair of the log.
    """
    raise TypeError(f"source is a {type(source).__name__}, expected an Analysis or a Log")


@bellman_residual.register
def _(source: Analysis, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    q = table(q, source.interface.available, whole=True)
    return exact(source.norm_d(q - source.interface.bellman(q)))


@bellman_residual.register
def _(source: Log, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    q = table(q, source.available)
    found, n_eff = enough(source)
    if isinstance(found, Estimate):
        return found
    return _length(found, n_eff, lambda law: residual_vector(law, q), confidence)


@singledispatch
def class_error(source: object, cls: FunctionClass | None = None, *, confidence: float = 0.95) -> Estimate:
    """||Q_F - Qbar||_d: what the class cannot represent.  0 for a table (cls None or `Tabular`), else `Linear`.

    Exact from an `Analysis`.  From a `Log` both fixed points are solved for on the log's own interface model, again
    for every left-out batch.  A class without a fixed point, or greedy options in doubt, is a `result`.
    """
    raise TypeError(f"source is a {type(source).__name__}, expected an Analysis or a Log")


@class_error.register
def _(source: Analysis, cls: FunctionClass | None = None, *, confidence: float = 0.95) -> Estimate:
    known = law(source)
    try:
        vector = error_vector(known, span(cls, known.model.available))[0]
    except FixedPointError as error:
        return missing(str(error))
    return exact(float(np.linalg.norm(vector)))


@class_error.register
def _(source: Log, cls: FunctionClass | None = None, *, confidence: float = 0.95) -> Estimate:
    if cls is None or isinstance(cls, Tabular):
        return exact(0.0)
    members = source.once("span", lambda: span(cls, source.available), cls)
    if members.basis.shape[1] == source.available.sum():
        return exact(0.0)
    found, n_eff = enough(source)
    if isinstance(found, Estimate):
        return found
    try:
        whole, inside, everywhere = error_vector(known := found.whole(), members)
        parts = [error_vector(part, members) for part in found.without()]
    except FixedPointError as error:
        return missing(str(error), n_eff)
    for q, others in ((inside.q, [part[1].q for part in parts]), (everywhere.q, [part[2].q for part in parts])):
        doubt = doubtful(known, q, np.stack(others))
        if doubt.share > DOUBT:
            return missing(doubt.where, n_eff)
    rest, where = rests_on(known, members, inside, len(source))
    if rest < REST:
        return missing(where, n_eff)
    return length(whole, np.stack([part[0] for part in parts]), n_eff, confidence)


def error_vector(law: Law, span: Span) -> tuple[Float[np.ndarray, "X"], Fixed, Fixed]:
    """sqrt(d)(Q_F - Qbar), and the two fixed points."""
    inside, everywhere = class_fixed_point(law, span), interface_fixed_point(law)
    return np.sqrt(law.flat) * (inside.q - everywhere.q).reshape(-1), inside, everywhere


@singledispatch
def kappa(source: object, *, confidence: float = 0.95) -> Estimate:
    """kappa, the modulus of That in ||.||_d (docs/theory.md section 4).

    Exact from an `Analysis`.  A `Log` must name the probability of each chosen option: the least frequent option of
    an observation is read off it, because the smallest of several nearly equal counts is not a smooth function.
    """
    raise TypeError(f"source is a {type(source).__name__}, expected an Analysis or a Log")


@kappa.register
def _(source: Analysis, *, confidence: float = 0.95) -> Estimate:
    return exact(source.kappa)


@kappa.register
def _(source: Log, *, confidence: float = 0.95) -> Estimate:
    found, n_eff = enough(source)
    return found if isinstance(found, Estimate) else _kappa(source, found, n_eff, confidence)


def _kappa(log: Log, found: Sums, n_eff: float, confidence: float) -> Estimate:
    behaviour, unknown = behaviour_of(log)
    if unknown:
        return missing(unknown, n_eff)
    return jackknife(*moduli(log, found, behaviour), n_eff=n_eff, confidence=confidence)


def moduli(log: Log, found: Sums, behaviour: Float[np.ndarray, "O A"]) -> tuple[float, Float[np.ndarray, "B"]]:
    """kappa of the law of a log, and of its law without each batch."""

    def compute() -> tuple[float, Float[np.ndarray, "B"]]:
        without = np.array([modulus(part, behaviour) for part in found.without()])
        return modulus(found.whole(), behaviour), without

    return log.once("kappa", compute)


def modulus(law: Law, behaviour: Float[np.ndarray, "O A"]) -> float:
    """kappa of a law whose behaviour policy is known."""
    mass = law.mass.sum(1)[:, None] * behaviour
    return contraction(law.model.kernel, mass, law.model.available)


def behaviour_of(log: Log) -> tuple[Float[np.ndarray, "O A"], str]:
    """beta(a|o) as logged (0 where not), and why it cannot be used ('' when it can)."""
    beta = np.zeros(log.available.shape)
    if log.probability is None or not np.isfinite(log.probability).all():
        return beta, "the log does not name the probability of every chosen option (`probability`)"
    beta[log.observation, log.option] = log.probability
    if not np.allclose(beta[log.observation, log.option], log.probability, rtol=1e-6):
        return beta, "the logged probabilities change: the behaviour policy is not one function of the observation"
    total = beta.sum(1)
    short = np.flatnonzero(log.available.any(1) & ~np.isclose(total, 1.0, rtol=1e-4))
    if len(short):
        return beta, (
            f"the options seen on observation {short[0]} have probability {total[short[0]]:.4g} together: "
            "log until every option has been tried"
        )
    return beta, ""


@singledispatch
def certificate(source: object, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    """||q - That q||_d/(1 - kappa) >= ||q - Qbar||_d, the a-posteriori certificate (docs/theory.md section 4).

    A `result` unless kappa < 1, for a log beyond sampling error.
    """
    raise TypeError(f"source is a {type(source).__name__}, expected an Analysis or a Log")


@certificate.register
def _(source: Analysis, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    size = bellman_residual(source, q).value
    if source.kappa >= 1:
        return missing(f"kappa = {source.kappa:.4g} is not below 1: no certificate", float("inf"))
    return exact(size / (1 - source.kappa))


@certificate.register
def _(source: Log, q: Numbers, *, confidence: float = 0.95) -> Estimate:
    q = table(q, source.available)
    found, n_eff = enough(source)
    if isinstance(found, Estimate):
        return found
    size = _kappa(source, found, n_eff, confidence)
    if size.result != "ok":
        return size
    if size.interval[1] >= 1:
        return missing(f"kappa is in [{size.interval[0]:.4g}, {size.interval[1]:.4g}], not below 1", size.n_eff)
    behaviour, _ = behaviour_of(source)
    size_whole, sizes = moduli(source, found, behaviour)
    without = np.stack([residual_vector(law, q) / (1 - one) for law, one in zip(found.without(), sizes, strict=True)])
    return length(residual_vector(found.whole(), q) / (1 - size_whole), without, n_eff, confidence)


def _length(found: Sums, n_eff: float, vector: Callable[[Law], Float[np.ndarray, "X"]], confidence: float) -> Estimate:
    """The length of a smooth vector of the law of a log."""
    without = np.stack([vector(part) for part in found.without()])
    return length(vector(found.whole()), without, n_eff, confidence)


def enough(log: Log) -> tuple[Sums | Estimate, float]:
    """The sums of a log and the effective number of handoffs, or why its law is not known well enough."""
    return log.once("enough", lambda: _enough(log))


def _enough(log: Log) -> tuple[Sums | Estimate, float]:
    why, n_eff = too_short(log)
    if why:
        return missing(why, n_eff), n_eff
    found = sums(log)
    batches = (found.visits > 0).sum(0)
    rare = np.flatnonzero((batches > 0) & (batches < LEAVES))
    if not len(rare):
        return found, n_eff
    o, a = divmod(int(rare[0]), found.shape[1])
    why = (
        f"option {a} of observation {o} was chosen in {batches[rare[0]]} of {BATCHES} batches, {LEAVES} are needed "
        f"({len(rare)} such pairs): log more handoffs"
    )
    return missing(why, n_eff), n_eff
