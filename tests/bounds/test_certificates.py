"""docs/theory.md section 4: how far an arbitrary table is from the interface fixed point, from its residual alone."""

import numpy as np
import pytest
from broken import caught, family, never_violated, shrunk
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from bounds.approximation import certificate
from bounds.core.bound import Verdict, verdict
from icq.exact import analyse

seeds = st.integers(0, 2**32 - 1)


def table(a, seed):
    """A random table: unrelated to Qbar, near it, or Qbar plus a constant, on any scale."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=a.q_bar.shape if rng.random() < 0.7 else (1, 1)) * 10 ** rng.uniform(-3, 2)
    return np.where(a.interface.available, noise + a.q_bar * rng.integers(2), 0.0)


def slack(a, q):
    return 1e-10 * (1 + certificate.table_cap(a.interface, q))


@given(instances(), seeds)
def test_certificates_hold_and_are_ordered(m, seed):
    a = analyse(m)
    q = table(a, seed)
    error, eps = np.abs(q - a.q_bar), slack(a, q)
    pointwise, e = certificate.certificate_pointwise(a, q)
    sup, d = certificate.certificate_sup(a, q), certificate.certificate_d(a, q)
    assert (error <= e + eps).all()
    assert error.max() <= sup.value + eps and e.max() <= sup.value + eps
    assert a.norm_d(error) <= pointwise.value + eps
    assert max(error.max(), a.norm_d(error)) <= certificate.table_cap(a.interface, q) + eps
    if d.applicable:
        assert pointwise.value <= d.value + eps
    else:
        (failure,) = d.failures
        assert np.isnan(d.value) and failure.name == "kappa < 1" and failure.margin <= 0


@given(instances(gamma=(0.3, 0.9), max_duration=1, terminal=0.0), st.floats(-5, 5))
def test_sup_certificate_is_tight_for_a_constant_shift(m, shift):
    """Equal discounts everywhere: Q = Qbar + c has the residual (1 - ghat)|c| at every pair."""
    a = analyse(m)
    q = np.where(m.available, a.q_bar + shift, 0.0)
    assert certificate.certificate_sup(a, q).value == pytest.approx(abs(shift), abs=1e-9)
    assert certificate.certificate_pointwise(a, q)[0].value == pytest.approx(abs(shift), abs=1e-9)


@given(instances())
def test_interface_modulus_is_at_most_gbar(m):
    """ghat <= gbar, with a strict gain wherever slow and fast hidden states share an observation."""
    a = analyse(m)
    assert certificate.interface_modulus(a) <= a.gamma_bar + 1e-15
    dense = a.interface.kernel.toarray().reshape(*a.q_bar.shape, -1).sum(-1)
    assert certificate.interface_modulus(a) == pytest.approx(dense.max(), abs=1e-15)


def test_interface_modulus_gains():
    assert min(certificate.interface_modulus(a) / a.gamma_bar for a in family() if a.gamma_bar > 0) < 0.9


@given(instances(), seeds)
def test_kappa_is_the_exact_lipschitz_constant(m, seed):
    a = analyse(m)
    kappa, rng = certificate.interface_contraction(a), np.random.default_rng(seed)
    p, q = (np.where(m.available, x, 0.0) for x in rng.normal(size=(2, *a.q_bar.shape)))
    p = p + a.q_bar * rng.integers(2)
    after = a.norm_d(a.interface.bellman(p) - a.interface.bellman(q))
    assert after <= kappa * a.norm_d(p - q) + 1e-12
    p, q = certificate.worst_pair(a)
    after = a.norm_d(a.interface.bellman(p) - a.interface.bellman(q))
    assert after == pytest.approx(kappa * a.norm_d(p - q), abs=1e-12)


@given(instances(), st.integers(1, 4), seeds)
def test_kappa_falls_with_duration(m, longer, seed):
    """The handoff chain does not know durations, and the norm of a non-negative matrix grows with its entries."""
    a, slow = analyse(m), analyse(m.replace(duration=m.duration + longer))
    assert slow.kappa == pytest.approx(m.gamma**longer * a.kappa, abs=1e-12)
    some = analyse(m.replace(duration=m.duration + np.random.default_rng(seed).integers(3, size=m.duration.shape)))
    assert some.kappa <= a.kappa + 1e-12


@given(instances(), st.integers(2, 4))
def test_kappa_grows_with_the_root_of_the_options(m, copies):
    """Every option offered `copies` times: nothing changes but the smallest behaviour probability."""
    many = {name: np.repeat(getattr(m, name), copies, axis=1) for name in ("available", "behaviour")}
    many |= {x: np.repeat(getattr(m, x), copies, axis=1) for x in ("prob", "next_state", "duration", "reward")}
    many["behaviour"] = many["behaviour"] / copies
    copied = m.replace(**many, terminal=np.repeat(m.terminal, copies, axis=1)).validate()
    assert analyse(copied).kappa == pytest.approx(np.sqrt(copies) * analyse(m).kappa, rel=1e-9)


@given(instances(), seeds)
def test_policy_loss_of_any_table(m, seed):
    a = analyse(m)
    q = table(a, seed)
    policy = np.where(m.available, q, -np.inf).argmax(1)[m.observation]
    loss = (a.v_star - a.oracle.evaluate(policy).v).max()
    assert loss <= certificate.policy_loss_certificate(a, q).value + slack(a, q)


def test_a_table_that_is_not_finite_is_refused():
    a = family()[1]
    q = a.q_bar.copy()
    o, option = (int(i) for i in np.argwhere(a.interface.available)[-1])
    q[o, option] = np.nan
    with pytest.raises(ValueError, match=rf"q\[{o}, {option}\] = nan is not finite"):
        certificate.certificate_sup(a, q)
    q = np.where(a.interface.available, a.q_bar, np.nan)
    assert certificate.certificate_sup(a, q).value < 1e-9, "entries of unavailable options are not looked at"


def shifted(a):
    return np.where(a.interface.available, a.q_bar + 1.0, 0.0)


def sup_error(a):
    return float(np.abs(shifted(a) - a.q_bar).max())


def d_error(a):
    return a.norm_d(shifted(a) - a.q_bar)


def solver_error(a):
    return a.interface_solution.error


def wrong_policy_loss(a):
    """The loss of the worst greedy choice: the policy greedy in -Qbar."""
    policy = np.where(a.interface.available, -a.q_bar, -np.inf).argmax(1)[a.smdp.observation]
    return float((a.v_star - a.oracle.evaluate(policy).v).max())


CLAIMS = {
    "sup": (lambda a: certificate.certificate_sup(a, shifted(a)), sup_error, solver_error, 0.95),
    "d": (lambda a: certificate.certificate_d(a, shifted(a)), d_error, solver_error, 0.9),
    "pointwise": (lambda a: certificate.certificate_pointwise(a, shifted(a))[0], d_error, solver_error, 0.95),
    "loss": (lambda a: certificate.policy_loss_certificate(a, -a.q_bar), wrong_policy_loss, lambda a: 1e-9, 0.6),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_verifier_passes_the_certificate_and_catches_a_lost_factor(name):
    claim, observe, error, factor = CLAIMS[name]
    assert never_violated(claim, observe, error)
    assert caught(lambda a: shrunk(claim(a), factor), observe)


def test_the_verifier_catches_a_missing_resolvent():
    for claim, observe in ((certificate.certificate_sup, sup_error), (certificate.certificate_d, d_error)):

        def broken(a, claim=claim):
            bound = claim(a, shifted(a))
            modulus = bound.terms.get("modulus", bound.terms.get("kappa", 0.0))
            return shrunk(bound, 1 - modulus) if bound.applicable else bound

        assert caught(broken, observe)


@given(instances(), seeds)
def test_the_certificate_against_the_oracle_holds_for_any_table(m, seed):
    a = analyse(m)
    q = table(a, seed)
    bound, observed = certificate.certificate_oracle(a, q), a.norm_d_state(a.lift(q) - a.q_star)
    said = verdict(bound, observed, observed, allowance=a.oracle_solution.error)
    assert said in (Verdict.HOLDS, Verdict.VACUOUS)
    assert observed <= certificate.table_cap(a.oracle, a.lift(q)) + slack(a, q)
