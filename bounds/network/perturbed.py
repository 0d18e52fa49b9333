"""The inequality of section 5d for a table whose preconditioner is known up to a share (docs/theory.md section 5e).

One handoff moves Delta by alpha (Gamma + p): Gamma = u delta - ubar as in section 5d, and p = N u delta - N_0 ubar +
rest, where (I + N_0)ubar is how the reference moves, ||N||, ||N_0|| <= eta and ||N - N_0|| <= slip in the norm of the
weight, and ||rest|| <= alpha bend delta^2.  N turns by at most alpha turn |delta|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bounds.path.reference import CommonGrowths, References
from bounds.residual.recursion import ZERO, Lyapunov, Quadratic, product
from icq.display import Shown


@dataclass(frozen=True)
class Disturbance(Shown):
    """What holds while a run is not killed.

    eta, slip, bend, turn: as above.  spin: |ubar_{k+1} - ubar_k|/alpha_k.  size: (E[delta^2|s])^{1/2} in every
    state; ceiling: |delta|.  least, most: steps alpha.
    """

    eta: float
    slip: float
    bend: float
    turn: float
    spin: float
    size: float
    ceiling: float
    least: float
    most: float


def perturbed(x: Lyapunov, s: CommonGrowths, r: References, i: int, p: Disturbance) -> Lyapunov:
    """Theorem (perturbed): W = V + 2 alpha E<(I + N)nu, Delta> + alpha^2 E Omega of the killed run satisfies the
    recursion with these data, where x has those of `inequality` and the rate of a weight that knows eta.

    With U = sigma + c x, M = sigma^ + c x, A = centred + c x, P = eta M + most bend ceiling size, Y = M + P:
    G2 += 2 slip |ubar| x/least + 2 bend size^2 x + 2 A P + P^2 + 2 P (nu + 2 L x) + 2 turn size (nu + L x) x
          + 2 eta L (U + P) x + 2 eta (nu + L x)(A + P),
    G3 += 2 L P (2 M + P) + P (a_0 + 2 a_1 x) + 2 turn size (nu + 2 L x) Y + 2 eta L (U + P) Y,
    G4 += a_1 P (2 M + P) + 2 turn L ceiling Y^2 + sqrt(z) spin (c_z + L_z) P,
    S1 = 2 (1 + eta^+)(nu x + L x^2) with eta^+ = eta + most turn ceiling, growth A + P.
    """
    c, lipschitz = s.single[0], s.single[1]
    sigma, centred, drift, nu = (float(v[i]) for v in (r.sigma, r.centred, r.drift, r.nu))
    a_0, a_1 = float(r.a_0[i]), s.a_1
    moved, mean, away, once = (sigma, c), (centred, c), (sigma + drift, c), (0.0, 1.0)
    wrong = (p.eta * (sigma + drift) + p.most * p.bend * p.ceiling * p.size, p.eta * c)
    both, all_of, two_away = _sum(moved, wrong), _sum(away, wrong), _sum(away, away, wrong)
    second = (
        x.gain_2.plus(Quadratic(0.0, 2 * p.slip * drift / p.least + 2 * p.bend * p.size**2, 0.0))
        .plus(product(mean, wrong), 2.0).plus(product(wrong, wrong)).plus(product(wrong, (nu, 2 * lipschitz)), 2.0)
        .plus(product((nu, lipschitz), once), 2 * p.turn * p.size).plus(product(both, once), 2 * p.eta * lipschitz)
        .plus(product((nu, lipschitz), _sum(mean, wrong)), 2 * p.eta)
    )  # fmt: skip
    third = (
        x.gain_3.plus(product(wrong, two_away), 2 * lipschitz).plus(product(wrong, (a_0, 2 * a_1)))
        .plus(product((nu, 2 * lipschitz), all_of), 2 * p.turn * p.size)
        .plus(product(both, all_of), 2 * p.eta * lipschitz)
    )  # fmt: skip
    turned, spun = 2 * p.turn * lipschitz * p.ceiling, math.sqrt(s.z) * p.spin * float((s.rows[0] + s.rows[1]).max())
    fourth = x.gain_4.plus(product(wrong, two_away), a_1).plus(product(all_of, all_of), turned)
    fourth = fourth.plus(Quadratic(*wrong, 0.0), spun)
    wide = 1 + p.eta + p.most * p.turn * p.ceiling
    return Lyapunov(
        mu=x.mu, gain_2=second, gain_3=third, gain_4=fourth, slack_1=ZERO.plus(x.slack_1, wide), slack_2=x.slack_2,
        growth=_sum(mean, wrong),
    )  # fmt: skip


def _sum(*parts: tuple[float, float]) -> tuple[float, float]:
    return sum(a for a, _ in parts), sum(b for _, b in parts)


def floor(x: Lyapunov, most: float) -> float:
    """The least b for which ||Delta||^2 + corrections + alpha^2 b >= 0 for all steps up to `most`; infinite where the
    corrections are not small.
    """  # fmt: skip
    rest = 1 - x.slack(most).c2
    first = x.slack_1.c1 + most * x.slack_2.c1
    return x.slack_2.c0 + first**2 / (4 * rest) if rest > 0 else float("inf")


def killed(x: Lyapunov, least: float) -> Lyapunov:
    """Lemma (killed): the data for the functional with alpha^2 b added, where runs may be dropped; b as in `floor`."""
    s = x.slack_2
    return Lyapunov(x.mu, x.gain_2, x.gain_3, x.gain_4, x.slack_1, Quadratic(s.c0 + least, s.c1, s.c2), x.growth)
