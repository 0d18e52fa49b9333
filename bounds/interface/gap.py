"""Interface representation gap: how far the interface fixed point Qbar is from the oracle's Q*, and what it costs.

Letters are those of docs/theory.md sections 1 and 3: K [S*A, S] the discounted kernel, b [S, A] the local gap, E
[S, A] the gap value, gbar and kappa_S the moduli of the oracle operator T in sup norm and in ||.||_d.  No lemma here
uses that d is stationary, only that w(s|o) and the norms come from one d, so an inexact d costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from bounds.core.bound import Assumption, Bound, below, conditional
from icq import coerce
from icq.coerce import Numbers
from icq.exact import TINY, Analysis, Model, contraction
from icq.exact.fixed_point import Solution, greedy, modulus, root_sum, solve

SECTION = "docs/theory.md section 3"
_EPS = float(np.finfo(np.float64).eps)


def value_range(model: Model) -> tuple[float, float]:
    """Lowest and highest value any policy can have: min(r, 0)/(1 - gbar) and max(r, 0)/(1 - gbar)."""
    reward, rest = model.reward[model.available], 1 - modulus(model.kernel)
    return float(min(reward.min(), 0.0) / rest), float(max(reward.max(), 0.0) / rest)


def trivial_cap(a: Analysis) -> float:
    """Lemma (rung 6): (max(rmax, 0) - min(rmin, 0))/(1 - gbar) >= ||Q* - Qbar o phi||_inf, and >= any policy's loss.

    r ranges over available (s, a).  A cap and not a rung: rungs 4 and 5 often exceed it and are then vacuous.
    """
    low, high = value_range(a.oracle)
    return high - low


def rounding(model: Model, *tables: Float[np.ndarray, "n A"]) -> float:
    """What floating point can add to one entry of (T Q - Q) for the given tables Q, with T of this model."""
    width = int(np.diff(model.kernel.indptr).max(initial=0)) + 4
    size = sum(float(np.abs(t).max(initial=0.0)) for t in (model.reward, *tables))
    return width * _EPS * size


def observed_error(a: Analysis) -> float:
    """Certified numerical error of an entry of Q* - Qbar o phi: the `allowance` when the gap is the observation."""
    return a.oracle_solution.error + a.interface_solution.error


def local_gap(a: Analysis, q: Numbers) -> Float[np.ndarray, "S A"]:
    """b = T(Q o phi) - Q o phi, the residual in the true process of any table Q [O, A]; for Q = Qbar the local gap."""
    lifted = a.lift(q)
    return a.oracle.bellman(lifted) - lifted


def dominating_value(model: Model, residual: Float[np.ndarray, "n A"]) -> Solution:
    """Lemma: with T the operator of `model` and E = |T Q - Q| + K max_a E, |Q^ - Q| <= E pointwise, T Q^ = Q^.

    Unconditional.  On the oracle with residual b it is the gap value (rung 2), `Analysis.gap_value`.
    """
    return solve(np.abs(residual), model.kernel, model.available)


def signed_gap_value(a: Analysis, q: Numbers) -> tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"], float]:
    """Lemma: -L <= Q* - Q o phi <= U pointwise, both between rung 1 and rung 2: max(|U|, |L|) <= E.

    U = b + K max_a U keeps the sign of b, so that gains and losses along a path cancel; L(s,a) = Q(phi(s),a) -
    Q^pi(s,a) is the exact excess over the true value of the policy pi greedy in Q.  Returns U, L and their error.
    """
    q = coerce.shaped("q", q, "OA", a.d_pair.shape)
    b = local_gap(a, q)
    upper = solve(b, a.oracle.kernel, a.oracle.available)
    policy, _ = greedy(q, a.interface.available)
    known = np.array_equal(policy, a.interface_solution.policy)
    value = a.interface_value if known else a.oracle.evaluate(policy[a.smdp.observation])
    own = a.oracle.reward + (a.oracle.kernel @ value.v).reshape(b.shape)
    return upper.q, np.where(a.oracle.available, a.lift(q) - own, 0.0), upper.error + value.error


@lru_cache(maxsize=4)
def signed_gap(a: Analysis) -> tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"], float]:
    """`signed_gap_value` of Qbar, solved for once."""
    return signed_gap_value(a, a.q_bar)


def oracle_contraction(a: Analysis) -> float:
    """kappa_S: T is a kappa_S-contraction in ||.||_d on S x A (the formula of section 4 with states for observations).

    Computed on the states of positive mass: behaviour gives every available option weight, so they are closed under
    every option and the rest does not enter the norm.  Infinite if rounding has emptied a recurrent state.
    """
    keep = a.d > 0
    if (a.d_state_pair[keep][a.oracle.available[keep]] < TINY).any():
        return float("inf")
    kernel = a.oracle.kernel[np.repeat(keep, a.oracle.reward.shape[1])]
    if kernel[:, ~keep].nnz:
        return float("inf")
    kappa = contraction(kernel[:, keep], a.d_state_pair[keep], a.oracle.available[keep])
    return round_up(kappa, kernel.shape[0])


def round_up(kappa: float, size: int) -> float:
    """A computed singular value of a matrix with `size` rows, plus what its computation may have lost."""
    return kappa * (1 + size * _EPS)


def contracts(name: str, kappa: float) -> Assumption:
    """The assumption kappa < 1."""
    return below(f"{name} < 1", kappa, 1.0, f"{name} = {kappa:.6g}")


def sup_bound(
    a: Analysis, name: str, compute: Callable[[], tuple[float, dict[str, float]]], reference: str, roundoff: float
) -> Bound:
    """An unconditional bound in sup norm; gbar < 1 is checked all the same."""
    gbar = a.gamma_bar
    assumption = below("gbar < 1", gbar, 1.0, f"largest expected discount gbar = {gbar:.6g}")
    return conditional(name, [assumption], compute, reference, trivial_cap(a), roundoff=roundoff)


def exact_gap(a: Analysis) -> Bound:
    """Rung 1: ||Q* - Qbar o phi||_inf itself."""

    def compute() -> tuple[float, dict[str, float]]:
        return a.norm_sup_state(a.gap), {}

    return sup_bound(a, "exact gap", compute, f"{SECTION}, rung 1", observed_error(a))


def gap_value_bound(a: Analysis) -> Bound:
    """Rung 2: ||Q* - Qbar o phi||_inf <= max_{s,a} E."""
    solution = a.gap_value

    def compute() -> tuple[float, dict[str, float]]:
        return float(solution.v.max()), {"local_gap": float(np.abs(a.local_gap).max())}

    return sup_bound(a, "gap value", compute, f"{SECTION}, rung 2", _sup_roundoff(a) + solution.error)


def scalar_gap_bound(a: Analysis) -> Bound:
    """Rung 4: ||Q* - Qbar o phi||_inf <= ||b||_inf/(1 - gbar)."""

    def compute() -> tuple[float, dict[str, float]]:
        b = float(np.abs(a.local_gap).max())
        return b / (1 - a.gamma_bar), {"local_gap": b, "gamma_bar": a.gamma_bar}

    bound = sup_bound(a, "scalar gap", compute, f"{SECTION}, rung 4", _sup_roundoff(a))
    return replace(bound, formula=r"\frac{\lVert b\rVert_\infty}{1 - \bar\gamma}")


def _sup_roundoff(a: Analysis) -> float:
    """Rounding of b, grown by the resolvent."""
    return rounding(a.oracle, a.q_bar, a.q_bar) / (1 - a.gamma_bar)


def gap_value_bound_d(a: Analysis) -> Bound:
    """Lemma: ||Q* - Qbar o phi||_d <= ||E||_d, and ||E||_d <= ||b||_d/(1 - kappa_S) when kappa_S < 1.

    Rung 2 in the d-norm; it needs no contraction in that norm.
    """
    solution = a.gap_value

    def compute() -> tuple[float, dict[str, float]]:
        return a.norm_d_state(solution.q), {"local_gap": a.norm_d_state(a.local_gap)}

    return sup_bound(a, "gap value, d-norm", compute, f"{SECTION}, rung 2", _sup_roundoff(a) + solution.error)


def scalar_gap_bound_d(a: Analysis) -> Bound:
    """Lemma: ||Q* - Qbar o phi||_d <= ||b||_d/(1 - kappa_S) if kappa_S < 1; the version that data can estimate."""
    return replace(_kappa_bound(a, "scalar gap, d-norm", 1.0), formula=r"\frac{\lVert b\rVert_d}{1 - \kappa_S}")


def _kappa_bound(a: Analysis, name: str, factor: float) -> Bound:
    kappa = oracle_contraction(a)

    def compute() -> tuple[float, dict[str, float]]:
        b = a.norm_d_state(a.local_gap)
        return factor * b / (1 - kappa), {"local_gap": b, "kappa_s": kappa}

    roundoff = factor * rounding(a.oracle, a.q_bar, a.q_bar) / (1 - kappa) if kappa < 1 else 0.0
    reference = f"{SECTION}, d-norm"
    return conditional(name, [contracts("kappa_S", kappa)], compute, reference, trivial_cap(a), roundoff=roundoff)


def loss_error(a: Analysis) -> float:
    """Certified numerical error of an entry of a.policy_loss: the `allowance` when the loss is the observation."""
    return a.oracle_solution.error + a.interface_value.error


def greedy_loss_cap(a: Analysis) -> Float[np.ndarray, "S"]:
    """Lemma: V*(s) - V^pi(s) <= 2 max_a E(s,a) in every state; pi greedy in Qbar, V^pi its true value."""
    return 2 * a.gap_value.v


def signed_loss_cap(a: Analysis) -> Float[np.ndarray, "S"]:
    """Lemma: V*(s) - V^pi(s) <= max_a U(s,a) + L(s, pi(s)) <= 2 max_a E(s,a), with the signed pair of Qbar."""
    upper, lower, _ = signed_gap(a)
    policy = a.interface_solution.policy[a.smdp.observation]
    return greedy(upper, a.oracle.available)[1] + lower[np.arange(len(policy)), policy]


def greedy_loss_bound(a: Analysis) -> Bound:
    """Lemma: max_s V*(s) - V^pi(s) <= max_s 2 max_a E(s,a), pi greedy in Qbar."""
    solution = a.gap_value

    def compute() -> tuple[float, dict[str, float]]:
        return 2 * float(solution.v.max()), {"gap_value": float(solution.v.max())}

    roundoff = 2 * (_sup_roundoff(a) + solution.error)
    return sup_bound(a, "greedy loss", compute, f"{SECTION}, greedy loss", roundoff)


def greedy_loss_scalar(a: Analysis) -> Bound:
    """Lemma: max_s V*(s) - V^pi(s) <= (max b+ + max b-)/(1 - gbar) <= 2 ||b||_inf/(1 - gbar), pi greedy in Qbar."""

    def compute() -> tuple[float, dict[str, float]]:
        above, under = float(max(a.local_gap.max(), 0.0)), float(max(-a.local_gap.min(), 0.0))
        return (above + under) / (1 - a.gamma_bar), {"above": above, "below": under, "gamma_bar": a.gamma_bar}

    return sup_bound(a, "greedy loss, scalar", compute, f"{SECTION}, greedy loss", 2 * _sup_roundoff(a))


def greedy_loss_d(a: Analysis) -> Bound:
    """Lemma: (sum_s d(s) min_a beta(a|phi(s)) (V* - V^pi)(s)^2)^{1/2} <= 2 ||b||_d/(1 - kappa_S) if kappa_S < 1.

    The minimum is over available options; without this weight the statement is false.
    """
    return _kappa_bound(a, "greedy loss, d-norm", 2.0)


def observed_loss_d(a: Analysis) -> float:
    """The left side of `greedy_loss_d`."""
    smallest = np.where(a.oracle.available, a.d_state_pair, np.inf).min(axis=1)
    return root_sum(smallest, a.policy_loss)
