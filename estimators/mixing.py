"""How fast the chain of a view forgets, from an instance or from one trajectory, reversible or not.

`mixing_time` and `contraction_rate` have *guaranteed* intervals: they hold at every length of the log with at least
the stated probability, and are wide.  `kemeny`, `relaxation_time` and `pseudo_spectral_gap` have *calibrated* ones:
their error tends to the stated probability as the log grows, and too short a log has no number.

All speak of the chain of the view (`estimators.view.transition`): observations, or with `context` the logged context.
If the view is not Markov they describe the Markov chain with the same one-step probabilities.  A hidden part that the
view does not show may be slower.  Letters and lemmas: docs/theory.md section 7.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from estimators import dobrushin
from estimators.logs.log import Log
from estimators.statistics.estimate import Estimate, estimator, exact, jackknife, positive
from estimators.view import Counts, check_one_class, counts, effective, memory, transition
from icq.exact import Analysis
from icq.exact import markov as chains
from icq.reason import NoNumber, Reason

HORIZON = 10  # powers over which the pseudo-spectral gap is maximised
APART = 3.0  # standard errors that decide which of two eigenvalues is the slower one
ROUNDING = 1e-12  # relative, of eigenvalues of at most DENSE_LIMIT states
GUARANTEED = "guaranteed, hence wide; of the Markov chain with the one-step probabilities of the view"


@estimator
def kemeny(source: Analysis | Log, *, context: bool = False, confidence: float = 0.95) -> Estimate:
    """Kemeny's constant sum_{i>=2} 1/(1 - lambda_i): mean handoffs to a state drawn from the stationary law.

    The trace of the deviation matrix, so a smooth function of the one-step probabilities at any spectrum, tied,
    complex or slow.  Calibrated interval.
    """
    if isinstance(source, Analysis):
        return exact(_kemeny(transition(source, context=context)))
    seen, n_eff = _pieces(source, context)
    without = np.array([_kemeny(part) for part in seen.without])
    return _varied(jackknife(_kemeny(seen.whole()), without, n_eff=n_eff, confidence=confidence))


def _varied(e: Estimate) -> Estimate:
    """Raise NoNumber for an estimate that no part of the log moved: it has no interval."""
    if e.stderr <= ROUNDING * abs(e.value):
        raise NoNumber(Reason.NO_SCATTER, "every state was always left for the same one", n_eff=e.n_eff)
    return e


def _kemeny(p: sp.csr_array) -> float:
    """tr (I - P + 1u')^{-1} - 1 for any weights u that sum to 1; the uniform ones."""
    size = p.shape[0]
    return float(np.trace(np.linalg.inv(np.eye(size) - p.toarray() + 1.0 / size))) - 1.0


@estimator
def relaxation_time(source: Analysis | Log, *, context: bool = False, confidence: float = 0.95) -> Estimate:
    """1/(1 - |lambda_2|) of the view's chain, in handoffs.

    Calibrated interval, computed on the log scale.  Two eigenvalues (other than a conjugate pair) that are equally
    slow within sampling error have no number: their maximum has no normal law; `kemeny` has one.
    """
    if isinstance(source, Analysis):
        return exact(_relaxation(_moduli(transition(source, context=context))[0]))
    seen, n_eff = _pieces(source, context)
    whole = _moduli(seen.whole())
    without = np.array([_moduli(part) for part in seen.without])
    _check_apart(
        whole[0] - whole[1], without[:, 0] - without[:, 1], f"eigenvalues {whole[0]:.4g}, {whole[1]:.4g}", n_eff
    )
    times = np.array([_relaxation(float(modulus)) for modulus in without[:, 0]])
    return _varied(positive(_relaxation(whole[0]), times, n_eff=n_eff, confidence=confidence))


def _relaxation(modulus: float) -> float:
    """1/(1 - |lambda_2|).  Raises NoNumber for a modulus that cannot be told from 1."""
    if modulus >= 1 - ROUNDING:
        raise NoNumber(Reason.PERIODIC, f"its second eigenvalue has modulus {modulus:.4g}", "use contraction_rate")
    return 1 / (1 - modulus)


def _moduli(p: sp.csr_array) -> tuple[float, float]:
    """|lambda_2| and the next modulus that is not its conjugate's (0 when there is none); dense."""
    values = np.linalg.eigvals(p.toarray())
    values = values[np.argsort(-np.abs(values))][1:]
    if not len(values):
        return 0.0, 0.0
    rest = values[1:]
    if abs(values[0].imag) > 1e-12:
        rest = rest[np.abs(rest - values[0].conj()) > 1e-9]
    return float(abs(values[0])), float(np.abs(rest).max(initial=0.0))


@estimator
def pseudo_spectral_gap(source: Analysis | Log, *, context: bool = False, confidence: float = 0.95) -> Estimate:
    """max_{k <= HORIZON} gap((P*)^k P^k)/k, the second opinion for chains that are not reversible.

    P* is the time reversal; the gap is 1 - sigma_2(D^{1/2} P^k D^{-1/2})^2.  The mixing time to epsilon is at most
    (1 + 2 log(1/(2 epsilon)) + log(1/min d))/gap.  Calibrated interval; ties as in `relaxation_time`.
    """
    if isinstance(source, Analysis):
        return exact(_pseudo(transition(source, context=context))[0])
    seen, n_eff = _pieces(source, context)
    whole = _pseudo(seen.whole())
    without = np.array([_pseudo(part) for part in seen.without])
    for i, what in ((1, "directions"), (2, "powers")):
        _check_apart(whole[i], without[:, i], f"two {what}, {whole[i]:.3g} apart", n_eff)
    return _varied(positive(whole[0], without[:, 0], n_eff=n_eff, confidence=confidence))


def _check_apart(whole: float, without: Float[np.ndarray, "B"], what: str, n_eff: float) -> None:
    """Raise NoNumber where the lead of the largest of several numbers is within sampling error."""
    if whole <= APART * jackknife(whole, without).stderr:
        raise NoNumber(Reason.TIE, what, n_eff=n_eff)


def _pseudo(p: sp.csr_array) -> tuple[float, float, float]:
    """The gap, the lead of sigma_2^2 over sigma_3^2 at the best power, and the lead of that power over the next."""
    dense, size = p.toarray(), p.shape[0]
    if size == 1:
        return 1.0, 1.0, 1.0
    law = np.linalg.solve((np.eye(size) - dense + 1.0).T, np.ones(size))
    weight = np.sqrt(np.maximum(law, 1e-300))
    step = weight[:, None] * dense / weight
    power, gaps, leads = np.eye(size), [], []
    for k in range(1, HORIZON + 1):
        power = power @ step
        squares = np.linalg.eigvalsh(power.T @ power)  # ascending; the largest is 1
        gaps.append((1 - squares[-2]) / k)
        leads.append((squares[-2] - squares[-3]) / k if size > 2 else 1.0)
    order = np.argsort(gaps)
    return float(gaps[order[-1]]), float(leads[order[-1]]), float(gaps[order[-1]] - gaps[order[-2]])


@estimator
def mixing_time(
    source: Analysis | Log, epsilon: float = 0.25, *, context: bool = False, confidence: float = 0.95
) -> Estimate:
    """min{t: max_i TV(P^t(i, .), d) <= epsilon} of the view's chain, in handoffs, with a guaranteed interval.

    From a `Log`: the mixing time of the counted one-step probabilities, and bounds by Dobrushin's coefficient of
    P, P^2, P^4, ...: they hold with probability `confidence` for a Markov view whose states all occur in the log,
    whatever the start, reversible or not, at every length of the log.  The upper limit is infinite as long as nothing
    can be guaranteed; stderr is NaN, as no normal law is claimed.  Raises ValueError outside 0 < epsilon < 1/2.
    """
    if not 0 < epsilon < 0.5:
        raise ValueError(f"epsilon = {epsilon} is not inside (0, 1/2)")
    if isinstance(source, Analysis):
        return exact(_mixing_time(transition(source, context=context), epsilon))
    p, steps, n_eff = _powers(source, context, confidence, epsilon)
    return Estimate(
        _mixing_time(p, epsilon), float("nan"), dobrushin.mixing_bounds(steps, epsilon), n_eff, note=GUARANTEED,
        confidence=confidence,
    )  # fmt: skip


@estimator
def contraction_rate(source: Analysis | Log, *, context: bool = False, confidence: float = 0.95) -> Estimate:
    """max over s = 1, 2, 4, ... of (1 - D(P^s))/s, per handoff, with a guaranteed interval (see `mixing_time`).

    D is Dobrushin's coefficient; one over this is the mixing time up to constants, for every chain.
    """
    if isinstance(source, Analysis):
        p = transition(source, context=context).toarray()
        return exact(dobrushin.rate(dobrushin.powers(p, np.zeros(len(p)), small=1e-3))[0])
    _, steps, n_eff = _powers(source, context, confidence, 1e-3)
    value, low, high = dobrushin.rate(steps)
    return Estimate(value, float("nan"), (low, high), n_eff, note=GUARANTEED, confidence=confidence)


def _mixing_time(p: sp.csr_array, epsilon: float) -> float:
    return chains.mixing_time(p, chains.stationary(p, chains.structure(p)).d, epsilon)


def _powers(
    log: Log, context: bool, confidence: float, small: float
) -> tuple[sp.csr_array, list[dobrushin.Power], float]:
    """The counted one-step probabilities, guaranteed bounds of its powers, and the effective number of handoffs."""
    seen = counts(log, context=context, batches=1)
    _check_dense(seen)
    p = seen.whole()
    if not (p.sum(axis=1) > 0).all():
        raise NoNumber(Reason.RARE_STATE, "seen and never left", "log until every state has been left")
    check_one_class(p)
    steps = np.zeros((seen.size, seen.size))
    steps[seen.source, seen.target] = seen.steps[0]
    radius = dobrushin.row_radius(steps, 1 - confidence)
    return p, dobrushin.powers(p.toarray(), radius, small), len(log) / memory(p)


def _pieces(log: Log, context: bool) -> tuple[Counts, float]:
    """The counts by batch and n_eff.  Raises NoNumber when there are not enough."""
    n_eff = effective(log, context=context)
    seen = log.once(f"counts, context {context}", lambda: counts(log, context=context))
    _check_dense(seen, n_eff)
    return seen, n_eff


def _check_dense(seen: Counts, n_eff: float = 0.0) -> None:
    if seen.size > chains.DENSE_LIMIT:
        raise NoNumber(Reason.TOO_LARGE, f"{seen.size} states, at most {chains.DENSE_LIMIT}", n_eff=n_eff)
