"""What correlation along the trajectory costs: TD noise, its covariance and its long-run covariance.

The noise is z_k = psi(x_k) delta_k, delta the TD error at the fixed point of a class.  Sigma_0 = E[zz'] is what one
handoff contributes, Sigma_mix what correlation between handoffs adds; L = Sigma_0 + Sigma_mix is the limit of the
covariance of batch sums per handoff.  Every function has one number for an `Analysis` and an estimate for a `Log`:

    sigma_0                tr Sigma_0
    sigma_mix              tr Sigma_mix, of either sign
    autocorrelation_time   1 + tr Sigma_mix/tr Sigma_0, handoffs that count as one independent handoff
    control_constant       tr(G J^{-1} Sigma_0 J^{-T}), G = Psi'D Psi: T E||Qavg - Q_F||_d^2 of the i.i.d. control
    residual_constant      tr(G J^{-1} L J^{-T}): T E||Qavg - Q_F||_d^2 of the trajectory

The last two also take the whitened `TDNoise` of a log, when more than one number is wanted of a long one.
The class is a table (None or `Tabular`) or `Linear`; it is solved for on the log's own interface model.  A log shows
the correlation of what it contains, whatever the hidden state is.  Letters and lemmas: docs/theory.md sections 5a, 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import stats

from estimators.approximation import enough
from estimators.doubt import CHANCE, SHARE, Doubt, doubt
from estimators.fixed import Span, check_rest, class_fixed_point, influence, span
from estimators.law import Fixed, Law, negligible
from estimators.logs.log import Log, in_units
from estimators.statistics.estimate import (
    UNSEEN,
    Estimate,
    estimator,
    exact,
    jackknife,
    positive,
    rescaled,
    rule_of_three,
    scale_free,
    unrewarded,
)  # fmt: skip
from estimators.statistics.jackknife import BATCHES, slices
from estimators.sums import pair_law
from icq.display import Fact, Shown
from icq.exact import Analysis, outcome_discount
from icq.learn.classes import Linear, Tabular
from icq.reason import NoNumber, Reason

FINE = 4  # short batches in a long one; the difference between the two shows the bias
INFLATION = (FINE**2 - 2 + 1 / FINE) / (FINE - 1) ** 2  # of the variance, by taking the bias off
LENGTH = 5.0  # a short batch holds at least this many autocorrelation times
MOST = 1024  # long batches
FREEDOM = 1.0  # least degrees of freedom with which a long-run variance has limits
TABLE = 20_000_000  # entries of the table of batch sums


@dataclass(frozen=True)
class BatchMeans(Shown):
    """tr(M L M') of noise u = M z, by batch means: value, its degrees of freedom as a scaled chi-square, batches."""

    value: float
    freedom: float
    batches: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Limits of value * freedom / chi-square."""
        tail = stats.chi2.ppf([0.5 + confidence / 2, 0.5 - confidence / 2], self.freedom)
        return self.value * self.freedom / float(tail[0]), self.value * self.freedom / float(tail[1])


def batch_means(fine: Float[np.ndarray, "b p"], n: int) -> BatchMeans:
    """tr L from the sums of u over FINE B consecutive short batches of n rows in all.

    Lemma (batch means): with long batches of m rows, sum_b |U_b - mean|^2/((B-1) m) has mean tr L - tr Gamma/m up to
    what is forgotten within a batch, Gamma = sum_j |j| Cov(u_0, u_j).  With t_1, t_FINE its values for long and short
    batches, (FINE t_1 - t_FINE)/(FINE - 1) has no term of order 1/m.  Normal batch sums give it the variance
    INFLATION * 2 tr(L^2)/(B-1) with tr(L^2) estimated from the Gram matrix of the long sums.
    """
    fine = fine - fine.mean(0)
    count = len(fine) // FINE
    coarse = fine.reshape(count, FINE, -1).sum(1)
    gram = coarse @ coarse.T if count <= coarse.shape[1] else coarse.T @ coarse
    scale = (count - 1) * n / count
    long, short = float(np.trace(gram)) / scale, float((fine**2).sum()) / ((FINE * count - 1) * n / (FINE * count))
    value = (FINE * long - short) / (FINE - 1)
    square = float((gram**2).sum()) / scale**2
    square = max((count - 1) ** 2 / ((count + 1) * (count - 2)) * (square - long**2 / (count - 1)), 0.0)
    variance = INFLATION * 2 * square / (count - 1)
    return BatchMeans(value, 2 * value**2 / variance if variance > 0 else float("inf"), count)


@dataclass(frozen=True, eq=False)
class TDNoise(Shown):
    """The noise of a log at the fixed point of a class: its law with and without each batch, and sums per batch.

    power: all of it is in units of 2^power of reward (`estimators.logs.log.Log.in_unit`).
    """

    law: Law
    fixed: Fixed
    span: Span
    parts: tuple[tuple[Law, Fixed], ...]
    table: Float[np.ndarray, "b X"]
    n: int
    n_eff: float
    power: int = 0

    @property
    def rounding(self) -> float:
        """A mean square of TD errors that cannot be told from 0."""
        return negligible(max(-self.law.span[0], self.law.span[1]) ** 2, self.law.length)

    def unseen(self, rows: Float[np.ndarray, "X k"], confidence: float) -> Estimate:
        """E |rows(x) delta|^2 where no TD error was seen: what is rare may be as large as values differ."""
        low, high = self.law.span
        if high == low:
            raise unrewarded(self.n, self.n_eff, self.law.most_discount, confidence)
        most = rule_of_three(self.n_eff, confidence) * (high - low) ** 2 * float((rows**2).sum(1).max())
        return Estimate(0.0, 0.0, (0.0, most), self.n_eff, note=UNSEEN, confidence=confidence)

    def maps(self) -> Float[np.ndarray, "X k"]:
        """Rows G^{1/2} J^{-1} psi(x)."""
        return influence(self.law, self.span, self.fixed.policy)

    def long_run(self, rows: Float[np.ndarray, "X k"]) -> BatchMeans:
        """tr L of rows(x) delta with as many batches as their length allows.  Raises NoNumber with too few."""
        fine, alone = self.table @ rows, float(_second(self.law, self.fixed, rows))
        while True:
            found = batch_means(fine, self.n)
            held = max(found.value / alone, 1.0) if alone > 0 else 1.0
            length = self.n / len(fine)
            if length >= LENGTH * held:
                if not (found.value > 0 and found.freedom >= FREEDOM):
                    raise NoNumber(Reason.NOT_POSITIVE, need="log longer", n_eff=self.n_eff)
                return found
            if found.batches <= BATCHES:
                place = f"noise is correlated over about {held:.3g} handoffs and batches are {length:.3g} long"
                need = f"log at least {LENGTH * held * len(fine):.3g} handoffs"
                raise NoNumber(Reason.SHORT, place, need, n_eff=self.n / held)
            fine = fine.reshape(len(fine) // 2, 2, -1).sum(1)

    def _facts_(self) -> list[Fact]:
        return [Fact("handoffs", self.n), Fact("n_eff", self.n_eff), Fact("pairs", self.fixed.q.size),
                Fact("batches", len(self.parts))]  # fmt: skip


def _second(law: Law, fixed: Fixed, rows: Float[np.ndarray, "X k"]) -> float:
    """E |rows(x) delta|^2."""
    return float(law.flat * law.noise(fixed.q, fixed.v) @ (rows**2).sum(1))


def noise(log: Log, cls: Tabular | Linear | None = None, *, chance: float = 1.0) -> TDNoise:
    """The noise of a log at Q_F of a class.

    Solved again without each batch, as E[delta^2] moves at first order with the fixed point; batch sums do not.
    Raises NoNumber for greedy options in doubt, as the limits of section 5a need them to be unique, and for noise that
    rests on few handoffs (`estimators.fixed.rests_on`).  chance: accepted probability that any of them is wrong
    (CHANCE where the Jacobian is wanted, which jumps with them).
    """
    scaled, power = log.in_unit()
    if power and isinstance(cls, Linear):
        cls = replace(cls, offset=in_units(np.asarray(cls.offset, np.float64), power))
    known, unsure = scaled.once("noise", lambda: _noise(scaled, cls), cls)
    unsure.check(share=SHARE, chance=chance, n_eff=known.n_eff)
    return replace(known, power=power)


def _noise(log: Log, cls: Tabular | Linear | None) -> tuple[TDNoise, Doubt]:
    found, n_eff = enough(log)
    members = log.once("span", lambda: span(cls, log.available), cls)
    whole = found.whole
    if whole.span == (0.0, 0.0):
        raise unrewarded(len(log), n_eff, whole.most_discount)
    fixed = class_fixed_point(whole, members)
    parts = tuple((part, class_fixed_point(part, members)) for part in found.without)
    check_rest(whole, members, fixed, len(log), n_eff)
    unsure = doubt(
        fixed.q, np.stack([part.q for _, part in parts]), whole.model.available, whole.mass.sum(1), whole.rounding
    )
    return TDNoise(whole, fixed, members, parts, _batch_table(log, fixed), len(log), n_eff), unsure


def _batch_table(log: Log, fixed: Fixed) -> Float[np.ndarray, "b X"]:
    """Sums of delta by short batch and pair; n^0.4 long batches, a power of two between BATCHES and MOST."""
    pairs = fixed.q.size
    batches = int(np.clip(2 ** np.floor(0.4 * np.log2(len(log))), BATCHES, MOST))
    while batches > BATCHES and batches * FINE * pairs > TABLE:
        batches //= 2
    table, flat = np.empty((FINE * batches, pairs)), fixed.q.reshape(-1)
    onward = np.append(fixed.v, 0.0)  # a next observation that is not known has code -1, and discount 0
    for b, rows in enumerate(slices(len(log), FINE * batches)):
        pair = log.observation[rows] * fixed.q.shape[1] + log.option[rows]
        delta = log.reward[rows] + log.discount[rows] * onward[log.next_observation[rows]] - flat[pair]
        table[b] = np.bincount(pair, weights=delta, minlength=pairs)
    return table


@dataclass(frozen=True, eq=False)
class NoisePower(Shown):
    """Exact iid = E|u|^2 and markov = sum over k != 0 of E[u_0'u_k] of u = rows(x) delta at a fixed point.

    rounding: what cannot be told from 0 in iid, and in markov what times the memory of the chain.
    """

    iid: float
    markov: float
    rounding: float = 0.0


def power(a: Analysis, fixed: Fixed, rows: Float[np.ndarray, "X k"]) -> NoisePower:
    """Lemma (sigma_mix of docs/theory.md section 5a), contracted: markov = 2 sum_s E[u_0 1{s_1=s}]'(Z h)(s)."""
    m = a.smdp
    states, options, _ = m.prob.shape
    obs, following = np.asarray(m.observation), np.asarray(m.next_state)
    weight = np.asarray(m.behaviour)[obs][..., None] * m.prob
    value = np.where(m.available, fixed.q, 0.0)
    delta = m.reward + outcome_discount(m) * fixed.v[obs[following]] - value[obs][..., None]
    pair = obs[:, None] * options + np.arange(options)
    iid = float((a.d[:, None] * (weight * delta**2).sum(2) * (rows**2).sum(1)[pair]).sum())
    mean = np.einsum("sa,sak->sk", (weight * delta).sum(2), rows[pair])
    slot = following * rows.shape[0] + pair[..., None]
    arrive = np.bincount(
        slot.reshape(-1), weights=(a.d[:, None, None] * weight * delta).reshape(-1), minlength=states * rows.shape[0]
    ).reshape(states, -1)
    size = max(float(np.abs(x).max(initial=0.0)) for x in (m.reward, value)) ** 2 * float((rows**2).sum(1).max())
    markov = 2 * float(((arrive @ rows) * (a.deviation @ mean)).sum())
    return NoisePower(iid, markov, negligible(size, float(weight.size)))


def _exact(a: Analysis, cls: Tabular | Linear | None, *, whitened: bool) -> NoisePower:
    known = pair_law(a)
    members = span(cls, known.model.available)
    fixed = class_fixed_point(known, members)
    return power(a, fixed, influence(known, members, fixed.policy) if whitened else members.psi)


@estimator
@scale_free(2, "cls")
def sigma_0(source: Analysis | Log, cls: Tabular | Linear | None = None, *, confidence: float = 0.95) -> Estimate:
    """tr Sigma_0 = E[|psi(x)|^2 delta^2] at Q_F; for a table E[delta^2], squared reward units."""
    if isinstance(source, Analysis):
        return exact(_exact(source, cls, whitened=False).iid)
    return _alone(noise(source, cls), confidence)


def _alone(found: TDNoise, confidence: float) -> Estimate:
    """tr Sigma_0 by the jackknife on the log scale, every fixed point solved again."""
    rows = found.span.psi
    whole = _second(found.law, found.fixed, rows)
    if whole == 0:
        return found.unseen(rows, confidence)
    without = np.array([_second(part, fixed, rows) for part, fixed in found.parts])
    return positive(whole, without, n_eff=found.n_eff, confidence=confidence)


@estimator
@scale_free(2, "cls")
def sigma_mix(source: Analysis | Log, cls: Tabular | Linear | None = None, *, confidence: float = 0.95) -> Estimate:
    """tr Sigma_mix = sum over k != 0 of E[z_0'z_k] at Q_F: what correlation along the trajectory adds, of either sign.

    From a `Log`: batch means less tr Sigma_0.
    """
    if isinstance(source, Analysis):
        return exact(_exact(source, cls, whitened=False).markov)
    found = noise(source, cls)
    alone = _alone(found, confidence)
    if alone.value == 0:
        raise NoNumber(Reason.NO_NOISE, n_eff=found.n_eff)
    run = found.long_run(found.span.psi)
    low, high = run.interval(confidence)
    less, more = alone.interval
    value = run.value - alone.value
    stderr = float(np.hypot(run.value * np.sqrt(2 / run.freedom), alone.stderr))
    down, up = np.hypot(run.value - low, more - alone.value), np.hypot(high - run.value, alone.value - less)
    return Estimate(value, stderr, (value - float(down), value + float(up)), found.n_eff, confidence=confidence)


@estimator
@scale_free(0, "cls")
def autocorrelation_time(
    source: Analysis | Log, cls: Tabular | Linear | None = None, *, confidence: float = 0.95
) -> Estimate:
    """1 + tr Sigma_mix/tr Sigma_0, the integrated autocorrelation time of the TD noise at Q_F, in handoffs.

    T handoffs average the noise as well as T over this many independent ones; below 1 where correlation helps.
    """
    if isinstance(source, Analysis):
        known = _exact(source, cls, whitened=False)
        if known.iid <= known.rounding:
            raise NoNumber(Reason.NO_NOISE, n_eff=float("inf"))
        return exact(1 + known.markov / known.iid)
    found = noise(source, cls)
    alone = _alone(found, confidence)
    if alone.value == 0:
        raise NoNumber(Reason.NO_NOISE, n_eff=found.n_eff)
    run = found.long_run(found.span.psi)
    return _scaled(run, 1 / alone.value, alone.stderr / alone.value, found.n_eff, confidence)


@estimator
def control_constant(
    source: Analysis | Log | TDNoise, cls: Tabular | Linear | None = None, *, confidence: float = 0.95
) -> Estimate:
    """tr(G J^{-1} Sigma_0 J^{-T}): the limit of T E||Qavg - Q_F||_d^2 if handoffs were independent.

    From a `Log`: the jackknife on the log scale, as errors of rare pairs are amplified and skewed.
    """
    if isinstance(source, Analysis):
        return exact(_exact(source, cls, whitened=True).iid)
    found = source if isinstance(source, TDNoise) else noise(source, cls, chance=CHANCE)
    without = np.array([
        _second(part, fixed, influence(part, found.span, fixed.policy)) for part, fixed in found.parts
    ])  # fmt: skip
    rows = found.maps()
    whole = _second(found.law, found.fixed, rows)
    if whole == 0:
        return rescaled(found.unseen(rows, confidence), 2 * found.power)
    constant = positive(whole, without, n_eff=found.n_eff, confidence=confidence)
    return rescaled(constant, 2 * found.power)


@estimator
def residual_constant(
    source: Analysis | Log | TDNoise, cls: Tabular | Linear | None = None, *, confidence: float = 0.95
) -> Estimate:
    """tr(G J^{-1}(Sigma_0 + Sigma_mix)J^{-T}): the limit of T E||Qavg - Q_F||_d^2 along the trajectory.

    So after T handoffs an averaged learner is off by about sqrt(constant/T).  From a `Log`: batch means of the
    whitened noise; the uncertainty of G and J is added by the jackknife.
    """
    if isinstance(source, Analysis):
        known = _exact(source, cls, whitened=True)
        return exact(known.iid + known.markov)
    found = source if isinstance(source, TDNoise) else noise(source, cls, chance=CHANCE)
    rows = found.maps()
    if _second(found.law, found.fixed, rows) == 0:
        return rescaled(found.unseen(rows, confidence), 2 * found.power)
    run = found.long_run(rows)
    logs = []
    for law, fixed in found.parts:
        fine = found.table @ influence(law, found.span, fixed.policy)
        part = batch_means(_at(fine, run.batches), found.n).value
        if not part > 0:
            raise NoNumber(Reason.NOT_POSITIVE, need="log longer", n_eff=found.n_eff)
        logs.append(np.log(part))
    shape = jackknife(float(np.log(run.value)), np.array(logs), n_eff=found.n_eff)
    constant = _scaled(run, float(np.exp(shape.value)) / run.value, shape.stderr, found.n_eff, confidence)
    return rescaled(constant, 2 * found.power)


def _at(fine: Float[np.ndarray, "b k"], batches: int) -> Float[np.ndarray, "c k"]:
    """Sums over so many long batches, FINE short ones in each."""
    return fine.reshape(FINE * batches, -1, fine.shape[1]).sum(1)


def _scaled(run: BatchMeans, factor: float, spread: float, n_eff: float, confidence: float) -> Estimate:
    """A long-run variance times a factor known up to a relative standard error, combined on the log scale."""
    low, high = run.interval(confidence)
    value, half = run.value * factor, spread * float(stats.t.ppf(0.5 + confidence / 2, BATCHES - 1))
    down, up = np.hypot(np.log(run.value / low), half), np.hypot(np.log(high / run.value), half)
    stderr = value * float(np.hypot(np.sqrt(2 / run.freedom), spread))
    ends = (float(value * np.exp(-down)), float(value * np.exp(up)))
    return Estimate(value, stderr, ends, n_eff, confidence=confidence)
