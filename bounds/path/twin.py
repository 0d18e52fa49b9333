"""Where the observed error should lie along the population path; not a bound (docs/theory.md section 5d).

C_{k+1} = (I - alpha_k A_k) C_k (I - alpha_k A_k)' + alpha_k^2 M^{-1} Sigma(thbar_k) M^{-1}, C_0 = 0, A_k = M^{-1}J of
the greedy options at thbar_k, Sigma = Sigma_0 + Sigma_mix of the centred update there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.linalg as la
from jaxtyping import Float

from bounds.path.moving import Following, Moving
from bounds.path.reference import td_errors
from bounds.residual.population import Population
from icq.display import shown

SHORT = 1.0  # of a group of stretches, in units of the clock times ||A||_inf
CHANGE = 0.04  # of the logarithm of the step within which it counts as constant


def covariance(pop: Population, theta: Float[np.ndarray, "p"], *, iid: bool = False) -> Float[np.ndarray, "p p"]:
    """Sigma_0 + Sigma_mix of z = psi delta - E_d[psi delta] at a parameter; with `iid` Sigma_0 alone."""
    td, count = td_errors(pop, theta[None])[0], len(pop.d)
    k = pop.outcomes
    second = np.bincount(k.pair, weights=pop.mass * td**2, minlength=count)
    mean = pop.psi.T @ np.bincount(k.pair, weights=pop.mass * td, minlength=count)
    sigma_0 = pop.psi.T @ (second[:, None] * pop.psi) - np.outer(mean, mean)
    if iid:
        return sigma_0
    update = pop.expect_by(td, k.pair, count) @ pop.psi
    y = (pop.arrive(td) @ pop.psi).T @ (pop.analysis.deviation @ update)
    return sigma_0 + y + y.T


def predicted(m: Moving, *, iid: bool = False) -> Float[np.ndarray, "n"]:
    """The fluctuation (E||Q_T - Q_thbar_T||_d^2)^{1/2} at m.times to leading order in the step, options as on the path.

    Exact for steps, field and noise that do not change within a group of stretches; off by about a per cent.
    """
    return onward(m, np.zeros_like(m.pop.metric), iid=iid).value


@shown
class Spread(NamedTuple):
    """value [n]: the fluctuation at m.times; covariance [p, p] after the last of them; widest: the largest standard
    deviation of an entry of the table until then.
    """  # fmt: skip

    value: Float[np.ndarray, "n"]
    covariance: Float[np.ndarray, "p p"]
    widest: float


def onward(m: Following, cov: Float[np.ndarray, "p p"], *, iid: bool = False) -> Spread:
    """The same from a covariance at the start."""
    pop, path, knots = m.pop, m.path, m.knots
    widest = 0.0
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    out = {0: float(np.sqrt(max(np.sum(gram * cov), 0.0)))}
    before = _noise(pop, path.theta[0], iid)
    for i, j in pairwise(knots.tolist()):
        after = _noise(pop, path.theta[j], iid)
        cov = _through(cov, path.field(pop, i), (before + after) / 2, m.alpha[slice(*path.times[[i, j]].tolist())])
        before = after
        out[int(path.times[j])] = float(np.sqrt(max(np.sum(gram * cov), 0.0)))
        widest = max(widest, float(np.einsum("xp,pq,xq->x", pop.psi, cov, pop.psi, optimize=True).max()))
    return Spread(np.array([out[time] for time in m.times.tolist()]), cov, float(np.sqrt(widest)))


def _through(
    cov: Float[np.ndarray, "p p"], a: Float[np.ndarray, "p p"], noise: Float[np.ndarray, "p p"],
    alpha: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "p p"]:  # fmt: skip
    """C after handoffs with these steps: C' = -(AC + CA') + alpha Sigma in the clock tau = sum of alpha.

    Short: a midpoint step.  Long: toward the C that stands still, a few per cent of the step at a time.
    """
    tau = float(alpha.sum())
    if tau * float(np.abs(a).sum(1).max()) <= SHORT:
        half = la.expm(-tau / 2 * a)
        return half @ (half @ cov @ half.T + float((alpha**2).sum()) * noise) @ half.T
    rest = la.solve_continuous_lyapunov(a, noise)
    first = 0
    while first < len(alpha):
        far = np.abs(np.log(alpha[first:] / alpha[first])) > CHANGE
        stop = first + int(np.argmax(far)) if far.any() else len(alpha)
        part = alpha[first:stop]
        still = float((part**2).sum() / part.sum()) * rest
        decay = la.expm(-float(part.sum()) * a)
        cov = still + decay @ (cov - still) @ decay.T
        first = stop
    return cov


def _noise(pop: Population, theta: Float[np.ndarray, "p"], iid: bool) -> Float[np.ndarray, "p p"]:
    inverse = np.linalg.inv(pop.metric)
    return inverse @ covariance(pop, theta, iid=iid) @ inverse
