"""A-posteriori certificates: how far any table Q [O, A] is from the interface fixed point Qbar, from its residual.

Nothing is assumed about where Q came from, so they hold for any trained network.  Letters: docs/theory.md section 4;
That is the interface operator, kappa its modulus in ||.||_d, ghat the largest row sum of its kernel Khat.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from bounds.core.bound import Certificate, below, conditional
from bounds.interface.bracket import BACKUPS, narrowed
from bounds.interface.gap import contracts, dominating_value, local_gap, round_up, rounding, sup_bound, value_range
from icq import coerce
from icq.coerce import Numbers
from icq.exact import Analysis, Model
from icq.exact.fixed_point import modulus

SECTION = "docs/theory.md section 4"


def interface_contraction(a: Analysis) -> float:
    """kappa = ||D^{1/2} Khat Dmin^{-1/2}||_2, the exact global Lipschitz constant of That in ||.||_d, rounded up."""
    return round_up(a.kappa, a.interface.kernel.shape[0])


def interface_modulus(a: Analysis) -> float:
    """Lemma: ghat = max row sum of Khat <= gbar, the sup-norm modulus of That.

    A row of Khat is the w-average of rows of K, so its sum is an average of numbers that are at most gbar.
    """
    return modulus(a.interface.kernel)


def table_cap(model: Model, q: Float[np.ndarray, "n A"]) -> float:
    """max_x |Q^(x) - Q(x)| is at most this, from the range of rewards alone: Q^ is inside `value_range`."""
    low, high = value_range(model)
    return max(high - float(q[model.available].min()), float(q[model.available].max()) - low)


def table(a: Analysis, q: Numbers) -> Float[np.ndarray, "O A"]:
    """Q [O, A], 0 on unavailable options.  Raises ValueError for another shape, and naming the first entry of an
    available option that is not finite.
    """  # fmt: skip
    given = coerce.shaped("q", q, "OA", a.d_pair.shape)
    bad = a.interface.available & ~np.isfinite(given)
    if bad.any():
        o, option = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"q[{o}, {option}] = {given[o, option]} is not finite")
    return np.where(a.interface.available, given, 0.0)


def residual(a: Analysis, q: Numbers) -> Float[np.ndarray, "O A"]:
    """That Q - Q, 0 on unavailable options.  Raises ValueError as `table` does."""
    known = table(a, q)
    return a.interface.bellman(known) - known


def certificate_sup(a: Analysis, q: Numbers) -> Certificate:
    """Lemma: ||Q - Qbar||_inf <= ||Q - That Q||_inf/(1 - ghat) for every table Q."""
    ghat, q = interface_modulus(a), table(a, q)
    size = float(np.abs(residual(a, q)).max())

    def compute() -> tuple[float, dict[str, float]]:
        return size / (1 - ghat), {"residual": size, "modulus": ghat}

    assumption = below("ghat < 1", ghat, 1.0, f"largest expected interface discount {ghat:.6g}")
    roundoff = rounding(a.interface, q, q) / (1 - ghat)
    cap = table_cap(a.interface, q)
    return Certificate.of(conditional("certificate, sup", [assumption], compute, SECTION, cap, roundoff=roundoff))


def certificate_d(a: Analysis, q: Numbers) -> Certificate:
    """Lemma: ||Q - Qbar||_d <= ||Q - That Q||_d/(1 - kappa) for every table Q, if kappa < 1."""
    kappa, q = interface_contraction(a), table(a, q)
    size = a.norm_d(residual(a, q))

    def compute() -> tuple[float, dict[str, float]]:
        return size / (1 - kappa), {"residual": size, "kappa": kappa}

    roundoff = rounding(a.interface, q, q) / (1 - kappa) if kappa < 1 else 0.0
    cap = table_cap(a.interface, q)
    return Certificate.of(
        conditional("certificate, d", [contracts("kappa", kappa)], compute, SECTION, cap, roundoff=roundoff)
    )


def certificate_pointwise(a: Analysis, q: Numbers) -> tuple[Certificate, Float[np.ndarray, "O A"]]:
    """Lemma: |Q - Qbar| <= E pointwise, E = |Q - That Q| + Khat max_a E; so ||Q - Qbar||_d <= ||E||_d.

    Needs no kappa < 1, and ||E||_inf and ||E||_d never exceed the other two certificates.  Returns the bound in the
    d-norm, and E.
    """
    q = table(a, q)
    change = residual(a, q)
    solution = dominating_value(a.interface, change)

    def compute() -> tuple[float, dict[str, float]]:
        return a.norm_d(solution.q), {"residual": a.norm_d(change)}

    ghat = interface_modulus(a)
    assumption = below("ghat < 1", ghat, 1.0, f"largest expected interface discount {ghat:.6g}")
    roundoff = solution.error + rounding(a.interface, q, q) / (1 - ghat)
    cap = table_cap(a.interface, q)
    bound = conditional("certificate, pointwise", [assumption], compute, SECTION, cap, roundoff=roundoff)
    return Certificate.of(bound), solution.q


def worst_pair(a: Analysis) -> tuple[Float[np.ndarray, "O A"], Float[np.ndarray, "O A"]]:
    """Lemma: kappa is exact.  Tables Q, Q' with ||That Q - That Q'||_d = kappa ||Q - Q'||_d.

    Q = 0 and Q' = (top right singular vector of D^{1/2} Khat Dmin^{-1/2})/sqrt(min_a d(o,a)) on argmin_a d(o,a), so
    that Q' is greedy exactly where it differs.  The vector is non-negative, the matrix being so (Perron-Frobenius).
    Dense: a singular value decomposition of an [O*A, O] matrix.
    """
    mass = np.where(a.interface.available, a.d_pair, np.inf)
    smallest = mass.min(axis=1)
    matrix = np.sqrt(a.d_pair).reshape(-1)[:, None] * a.interface.kernel.toarray() / np.sqrt(smallest)
    top = np.abs(np.linalg.svd(matrix, full_matrices=False)[2][0])
    other = np.zeros_like(a.d_pair)
    rows = np.arange(len(smallest))
    other[rows, mass.argmin(axis=1)] = top / np.sqrt(smallest)
    return np.zeros_like(other), other


def certificate_oracle(a: Analysis, q: Numbers, backups: int = BACKUPS) -> Certificate:
    """Lemma (bracket): ||Q o phi - Q*||_d <= ||max(T^n(Q o phi + E) - Q o phi, Q o phi - T^n(Q o phi - E))||_d.

    For every table Q; E = |T(Q o phi) - Q o phi| + K max_a E on S x A, which is what no backup says.  Interface gap,
    approximation and learning error together, whatever has learned the table.
    """
    q = table(a, q)
    lifted, change = a.lift(q), local_gap(a, q)
    solution = dominating_value(a.oracle, change)

    def compute() -> tuple[float, dict[str, float]]:
        width = narrowed(a.oracle, lifted, solution.q, solution.q, backups)
        return a.norm_d_state(width), {"residual": a.norm_d_state(change), "backups": float(backups)}

    roundoff = solution.error + rounding(a.oracle, q, q) / (1 - a.gamma_bar)
    bound = sup_bound(a, "certificate, oracle", compute, "docs/theory.md section 3, rung 2", roundoff)
    return Certificate.of(replace(bound, trivial=table_cap(a.oracle, lifted)))


def policy_loss_certificate(a: Analysis, q: Numbers) -> Certificate:
    """Lemma: max_s V*(s) - V^pi(s) <= 2 max E for pi greedy in any table Q; E = |T(Q o phi) - Q o phi| + K max_a E.

    Interface gap, approximation and learning error together, from one residual in the true process.
    """
    q = table(a, q)
    lifted = a.lift(q)
    solution = dominating_value(a.oracle, a.oracle.bellman(lifted) - lifted)

    def compute() -> tuple[float, dict[str, float]]:
        return 2 * float(solution.v.max()), {"residual_value": float(solution.v.max())}

    roundoff = 2 * (solution.error + rounding(a.oracle, q, q) / (1 - a.gamma_bar))
    reference = "docs/theory.md section 3, greedy loss"
    return Certificate.of(sup_bound(a, "greedy loss of a table", compute, reference, roundoff))
