"""The lemmas of docs/theory.md section 3 under attack, and the value loss of section 6.

Pointwise claims are represented by their worst entry.  Left sides come from the exact solutions, never from the formula
under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from bounds import ladder
from bounds.adversary.search import Case, Lemma, Sample, reduced, scaled
from bounds.approximation import certificate
from bounds.core.bound import Bound
from bounds.interface import agents, gap, information
from bounds.theorem import value_loss
from icq.exact import Analysis
from icq.exact.fixed_point import greedy, solve

PairTable = Float[np.ndarray, "n A"]
EPS = float(np.finfo(float).eps)


def claim(value: float, terms: dict[str, float] | None = None, *, roundoff: float = 0.0) -> Bound:
    """An unconditional number as a bound."""
    return Bound("claim", max(value, 0.0), terms or {}, (), "", roundoff=roundoff)


def worst(
    upper: PairTable,
    observed: PairTable,
    live: Bool[np.ndarray, "n A"],
    roundoff: float,
    allowance: float,
    **terms: PairTable,
) -> Case:
    """The entry of a pointwise claim observed <= upper that is closest to failing, with the other tables there."""
    if not live.any():
        return Case(claim(0.0), 0.0)
    excess = np.where(live, observed - upper, -np.inf)
    ratio = np.where(live & (upper > 0), observed / np.where(upper > 0, upper, 1.0), -np.inf)
    at = excess.argmax() if excess.max() > roundoff + allowance else ratio.argmax()
    bound = claim(float(upper.flat[at]), {k: float(t.flat[at]) for k, t in terms.items()}, roundoff=roundoff)
    return Case(bound, float(observed.flat[at]), allowance)


def gap_case(a: Analysis, bound: Bound, *, d_norm: bool = False) -> Case:
    """A bound on the interface gap."""
    seen = a.norm_d_state(a.gap) if d_norm else a.norm_sup_state(a.gap)
    return Case(bound, seen, gap.observed_error(a))


def rounding(a: Analysis) -> float:
    """Rounding of the local gap, grown by the resolvent, and solver errors."""
    return gap.rounding(a.oracle, a.q_bar, a.q_bar) / (1 - a.gamma_bar) + gap.observed_error(a)


def pointwise_gap(s: Sample) -> Iterator[Case]:
    """|Q* - Qbar o phi| <= E entry by entry."""
    a = s.analysis
    e = a.gap_value
    local = np.abs(a.local_gap)
    yield worst(e.q, np.abs(a.gap), a.oracle.available, e.error, rounding(a), local=local)


def signed_gap(s: Sample) -> Iterator[Case]:
    """-L <= Q* - Q o phi <= U for Qbar and a random table; where U or L is negative it bounds from the other side."""
    a = s.analysis
    for q in (a.q_bar, random_table(a, s.rng("signed"))):
        upper, lower, error = gap.signed_gap_value(a, q)
        shift = gap.rounding(a.oracle, q, q) / (1 - a.gamma_bar) + rounding(a) + error
        for above, seen in ((upper, a.q_star - a.lift(q)), (lower, a.lift(q) - a.q_star)):
            yield worst(np.maximum(above, 0), seen, a.oracle.available & (seen > 0), 0.0, shift)
            yield worst(np.maximum(-seen, 0), -above, a.oracle.available & (above < 0), 0.0, shift)


def any_table_gap(s: Sample) -> Iterator[Case]:
    """|Q* - Q o phi| <= E of the residual of any table Q."""
    a = s.analysis
    q = random_table(a, s.rng("any table"))
    e = gap.dominating_value(a.oracle, gap.local_gap(a, q))
    shift = gap.rounding(a.oracle, q, q) / (1 - a.gamma_bar) + a.oracle_solution.error
    yield worst(e.q, np.abs(a.q_star - a.lift(q)), a.oracle.available, e.error, shift)


def rung(make: Callable[[Analysis], Bound], *, d_norm: bool = False) -> Callable[[Sample], Iterator[Case]]:
    """One bound of the ladder of section 3."""

    def cases(s: Sample) -> Iterator[Case]:
        yield gap_case(s.analysis, make(s.analysis), d_norm=d_norm)

    return cases


def trivial(s: Sample) -> Iterator[Case]:
    """The cap bounds the gap and the loss of the greedy policy."""
    a = s.analysis
    cap = claim(gap.trivial_cap(a), {"range": float(np.ptp(a.oracle.reward[a.oracle.available]))})
    yield gap_case(a, cap)
    yield Case(cap, float(a.policy_loss.max()), gap.loss_error(a))


def agent_value(s: Sample) -> Iterator[Case]:
    """|Q* - Qbar o phi| <= e_i on the states of agent i."""
    a = s.analysis
    e = agents.agent_gap_value(a, a.local_gap)
    owner = np.asarray(a.smdp.agent)[a.smdp.observation]
    upper = np.broadcast_to(e.value[owner][:, None], a.gap.shape)
    local = np.broadcast_to(e.gap[owner][:, None], a.gap.shape)
    yield worst(upper, np.abs(a.gap), a.oracle.available, e.error, rounding(a), local=local)


def attributed(s: Sample) -> Iterator[Case]:
    """Scaling agent j's gaps by t moves e_i by at least (t - 1) A_ij: e_i(t) >= e_i + (t - 1) A_ij."""
    a, rng = s.analysis, s.rng("attribution")
    e = agents.agent_gap_value(a, a.local_gap)
    j, t = int(rng.integers(len(e.value))), float(rng.choice([0.0, 0.5, 2.0, 10.0]))
    owner = np.asarray(a.smdp.agent)[a.smdp.observation]
    moved = agents.agent_gap_value(a, np.where((owner == j)[:, None], t, 1.0) * a.local_gap)
    floor = e.value + (t - 1) * e.attribution[:, j]
    i = int((floor - moved.value).argmax())
    size = 1e-12 * (1 + t) * max(float(e.value.max()), 1e-300)
    yield Case(claim(float(moved.value[i]), roundoff=moved.error + e.error + size), float(floor[i]))


def split(make: Callable[[Analysis], information.Mismatch]) -> Callable[[Sample], Iterator[Case]]:
    """|b| <= reward + mass + shape at every (s, a)."""

    def cases(s: Sample) -> Iterator[Case]:
        a = s.analysis
        found = make(a)
        if all(x.holds for x in found.assumptions):
            shift = gap.rounding(a.oracle, a.q_bar, a.q_bar) + 2 * a.interface_solution.error
            shift += 1e-12 * float(np.abs(a.v_bar).max())
            upper, seen = found.total, np.abs(a.local_gap)
            yield worst(upper, seen, a.oracle.available, shift, shift, massless=found.reward + found.shape)

    return cases


def features_of(a: Analysis) -> Float[np.ndarray, "O 3"]:
    """Distinct random points, one per observation."""
    return np.random.default_rng(len(a.d_obs)).normal(size=(len(a.d_obs), 3))


def gaussian_kernel(a: Analysis) -> Float[np.ndarray, "O O"]:
    """A strictly positive definite kernel on observations."""
    x = features_of(a)
    square = ((x[:, None] - x) ** 2).sum(-1)
    return np.exp(-square) + 0.1 * np.eye(len(x))


def wasserstein(a: Analysis) -> information.Mismatch:
    """Split C by transport."""
    return information.wasserstein(a, features_of(a))


def discrepancy(a: Analysis) -> information.Mismatch:
    """Split C by maximum mean discrepancy."""
    return information.maximum_mean_discrepancy(a, gaussian_kernel(a))


def information_state(s: Sample) -> Iterator[Case]:
    """Rung 5 with both total variations."""
    a = s.analysis
    for make in (information.centred_total_variation, information.total_variation):
        yield gap_case(a, information.information_state_bound(a, make(a)))


def oracle_modulus(s: Sample) -> Iterator[Case]:
    """||T Q - T Q'||_d <= kappa_S ||Q - Q'||_d."""
    a, rng = s.analysis, s.rng("kappa_S")
    p, q = (np.where(a.oracle.available, rng.normal(size=a.gap.shape), 0.0) for _ in range(2))
    least = np.where(a.oracle.available, a.d_state_pair, np.inf).min(axis=1)
    q = p + (q if rng.random() < 0.5 else on_least(a.d_state_pair, least, a.oracle.available, rng))
    moved = a.norm_d_state(a.oracle.bellman(p) - a.oracle.bellman(q))
    value = gap.oracle_contraction(a) * a.norm_d_state(p - q)
    yield Case(claim(value), moved, 1e-13 * (1 + a.norm_d_state(p)))


def on_least(
    mass: PairTable, least: Float[np.ndarray, "n"], live: Bool[np.ndarray, "n A"], rng: np.random.Generator
) -> PairTable:
    """A change at the options of least mass only, large enough to make them greedy."""
    out = np.zeros_like(mass)
    at = np.where(live, mass, np.inf).argmin(axis=1)
    out[np.arange(len(mass)), at] = 10 * rng.exponential(size=len(mass)) / np.sqrt(np.maximum(least, 1e-300))
    return out


def greedy_loss(s: Sample) -> Iterator[Case]:
    """V* - V^pi <= max U + L <= 2 max E in every state."""
    a = s.analysis
    live = np.ones((len(a.d), 1), bool)
    e = a.gap_value
    shift = 2 * (rounding(a) + e.error) + gap.loss_error(a)
    for upper in (gap.greedy_loss_cap(a), gap.signed_loss_cap(a)):
        yield worst(upper[:, None], a.policy_loss[:, None], live, shift, shift)


def loss_rung(make: Callable[[Analysis], Bound], *, d_norm: bool = False) -> Callable[[Sample], Iterator[Case]]:
    """One bound on the loss of the greedy interface policy."""

    def cases(s: Sample) -> Iterator[Case]:
        a = s.analysis
        seen = gap.observed_loss_d(a) if d_norm else float(a.policy_loss.max())
        yield Case(make(a), seen, gap.loss_error(a))

    return cases


def loss_of(a: Analysis, q: PairTable) -> tuple[Float[np.ndarray, "S"], float]:
    """V* - V^pi of the policy greedy in a table, and its certified error."""
    policy, _ = greedy(q, a.interface.available)
    value = a.oracle.evaluate(policy[a.smdp.observation])
    return a.v_star - value.v, a.oracle_solution.error + value.error


def table_loss(s: Sample) -> Iterator[Case]:
    """The loss of any table's greedy policy, from its residual."""
    a = s.analysis
    q = random_table(a, s.rng("table loss"))
    loss, error = loss_of(a, q)
    yield Case(certificate.policy_loss_certificate(a, q), float(loss.max()), error)


def total_loss(s: Sample) -> Iterator[Case]:
    """Value loss (section 6): mean and weighted loss of any table's greedy policy, from its d-norm error."""
    a = s.analysis
    q = random_table(a, s.rng("total loss"))
    total = claim(a.norm_d_state(a.lift(q) - a.q_star), roundoff=a.oracle_solution.error)
    bound = value_loss(a, total)
    loss, error = loss_of(a, q)
    yield Case(bound, float(a.d @ loss), error)
    if bound.applicable:
        least = np.where(a.oracle.available, a.d_state_pair, np.inf).min(axis=1)
        weighted = replace(bound, value=bound.terms["weighted"])
        yield Case(weighted, float(np.sqrt(least @ loss**2)), error)


def random_table(a: Analysis, rng: np.random.Generator) -> Float[np.ndarray, "O A"]:
    """A table near Qbar, near zero or far away."""
    noise = rng.normal(size=a.q_bar.shape) * 10 ** rng.uniform(-3, 1)
    return np.where(a.interface.available, noise + (a.q_bar if rng.random() < 0.7 else 0.0), 0.0)


def residual_class(s: Sample) -> Iterator[Case]:
    """The resolvent behind every certificate: the fixed point of |c| + K max E dominates that of c + K max."""
    a, rng = s.analysis, s.rng("resolvent")
    c = np.where(a.oracle.available, rng.normal(size=a.gap.shape), 0.0)
    upper = solve(np.abs(c), a.oracle.kernel, a.oracle.available)
    signed = solve(c, a.oracle.kernel, a.oracle.available)
    yield worst(upper.q, np.abs(signed.q), a.oracle.available, upper.error, signed.error)


RESOLVENT = (reduced(lambda t: t["local_gap"]), "resolvent forgotten")
POINTWISE = (reduced(lambda t: t["local"]), "resolvent forgotten")
MASS = (reduced(lambda t: t["massless"]), "mass forgotten")
TWO = (scaled(0.5), "factor 2 forgotten")
TENTH = (scaled(0.9), "factor .9")
ONE_SIGN = (reduced(lambda t: min(t["above"], t["below"])), "one sign only")
TWO_LOST = (reduced(lambda t: t["local_gap"]), "factor 2 and resolvent")
LOSS = (reduced(lambda t: t["weighted"] * (1 - t["kappa_s"]) / 2), "resolvent and root of 2")
MASSLESS_STATE = (reduced(lambda t: t["epsilon"] + t["shape"]), "mass and resolvent")

LEMMAS = (
    Lemma("gap value, pointwise", pointwise_gap, *POINTWISE),
    Lemma("gap value of any table", any_table_gap, *TENTH),
    Lemma("signed gap value", signed_gap, *TENTH),
    Lemma("gap value", rung(gap.gap_value_bound), *RESOLVENT),
    Lemma("scalar gap", rung(gap.scalar_gap_bound), *RESOLVENT),
    Lemma("gap value, d-norm", rung(gap.gap_value_bound_d, d_norm=True), *RESOLVENT),
    Lemma("signed gap value, d-norm", rung(ladder.signed_gap_bound_d, d_norm=True), *ONE_SIGN),
    Lemma("scalar gap, d-norm", rung(gap.scalar_gap_bound_d, d_norm=True), *RESOLVENT),
    Lemma("trivial cap", trivial, reduced(lambda t: t["range"]), "range of one reward"),
    Lemma("contraction of the oracle", oracle_modulus, *TENTH),
    Lemma("greedy loss, pointwise", greedy_loss, *TWO),
    Lemma("greedy loss", loss_rung(gap.greedy_loss_bound), *TWO),
    Lemma("greedy loss, scalar", loss_rung(gap.greedy_loss_scalar), *TWO),
    Lemma("greedy loss, d-norm", loss_rung(gap.greedy_loss_d, d_norm=True), *TWO_LOST),
    Lemma("greedy loss of a table", table_loss, *TWO),
    Lemma("value loss", total_loss, *LOSS),
    Lemma("agent gap value", agent_value, *POINTWISE),
    Lemma("agent gap", rung(agents.agent_gap_bound), *TENTH),
    Lemma("linear agent gap", rung(agents.linear_agent_bound), *TENTH),
    Lemma("attribution", attributed, *TENTH),
    Lemma("split A, total variation", split(information.centred_total_variation), *MASS),
    Lemma("split C, total variation", split(information.total_variation), *MASS),
    Lemma("split C, Wasserstein", split(wasserstein), *MASS, stride=10),
    Lemma("split C, MMD", split(discrepancy), *MASS),
    Lemma("information state", information_state, *MASSLESS_STATE),
    Lemma("resolvent", residual_class, *TENTH),
)
