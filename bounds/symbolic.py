"""The theorem in symbols: every constant a documented SymPy symbol, every number of the numeric code a substitution.

docs/theory.md section 6.  The residual is the second-order Poisson certificate at a constant step in its closed form
(bounds.residual.closed); G and S below are its gain and slack.  `evaluate` puts numbers in, with more
digits than a float has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TypeAlias

import numpy as np
import sympy as sp
from jaxtyping import Float

from bounds.approximation.class_error import class_error_bound
from bounds.approximation.classes import ConvexClass
from bounds.interface.gap import oracle_contraction
from bounds.residual.closed import start
from bounds.residual.constants import Constants, constants
from bounds.residual.population import Population
from bounds.residual.weights import Weight
from icq.display import Latex
from icq.exact import Analysis

Values: TypeAlias = Mapping[sp.Symbol, float]
DIGITS = 30


def _symbol(name: str) -> sp.Symbol:
    return sp.Symbol(name, nonnegative=True)


B_SUP, B_D, GBAR, KAPPA_S = map(_symbol, ("b_sup", "b_d", "gbar", "kappa_S"))
DISTANCE, KAPPA_F = map(_symbol, ("d_F", "kappa_F"))
ALPHA, T, X_0, CHI, MU, RATE = map(_symbol, ("alpha", "T", "x_0", "chi", "mu", "rho"))
SIGMA, C, L, NU, NOISE = map(_symbol, ("sigma", "c", "L", "nu", "S_c"))
LAM_1, LAM_2, OMEGA, A_0, A_1 = map(_symbol, ("lambda_1", "lambda_2", "Omega", "a_0", "a_1"))
KICK, KICK_C, TRACE, TRACE_STEP = map(_symbol, ("s_l", "c_l", "tr", "tr_alpha"))
E_INT, E_APP, WIDTH, BITS, DIAL = map(_symbol, ("E_int", "E_app", "width", "bits", "g"))
C_APP, P_APP, B_0, EPSILON = map(_symbol, ("c_app", "p_app", "b_0", "epsilon"))

MEANING: dict[sp.Symbol, str] = {
    B_SUP: "||b||_inf, the largest local gap (reward units)",
    B_D: "||b||_d, the local gap in the d-norm (reward units)",
    GBAR: "largest expected discount of an option, below 1",
    KAPPA_S: "d-norm modulus of the oracle operator, below 1",
    DISTANCE: "||Pi Qbar - Qbar||_d, distance of Qbar from the class (reward units)",
    KAPPA_F: "d-norm modulus of the class's operator Pi That, below 1",
    ALPHA: "constant step size",
    T: "handoffs",
    X_0: "||theta_0 - theta*||_W, the start; W is M or a Riccati weight",
    CHI: "||Q - Q_F||_d <= chi ||theta - theta*||_W",
    RATE: "drift in the d-norm, 1 - kappa_F for W = M",
    MU: "drift against ||theta - theta*||_W^2",
    SIGMA: "largest root mean square update at theta* given the state",
    C: "growth of that with ||theta - theta*||_W",
    L: "Lipschitz constant of the Poisson solution nu",
    NU: "largest ||nu|| at theta*",
    NOISE: "tr W M^{-1}(Sigma_0 + Sigma_mix)M^{-1}, long-run variance of the update",
    LAM_1: "linear growth of the second-order stationary average",
    LAM_2: "quadratic growth of the second-order stationary average",
    OMEGA: "largest second-order correction at theta*",
    A_0: "its linear growth",
    A_1: "its quadratic growth",
    KICK: "root mean square effect of one update on nu, at theta*",
    KICK_C: "growth of that with ||theta - theta*||_W",
    TRACE: "tr(Psi'D Psi J^{-1}(Sigma_0 + Sigma_mix)J^{-T}), variance of averaged iterates times T",
    TRACE_STEP: "tr(Psi'D Psi C), stationary variance of a constant step per unit of it",
    E_INT: "bound on the interface gap",
    E_APP: "bound on the class error",
    WIDTH: "width (or rank) of the class per agent",
    BITS: "bits of state that an observation reveals",
    DIAL: "gap dial in [0, 1]",
    C_APP: "class error at width 1 (model)",
    P_APP: "power by which the class error falls with width (model)",
    B_0: "interface gap with no bit revealed, or at dial 1 (model)",
    EPSILON: "target for the total error",
}


def _coefficients(polynomial: sp.Expr, x: sp.Symbol) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """c0, c1, c2 of c0 + c1 x + c2 x^2."""
    expanded = sp.expand(polynomial)
    return expanded.coeff(x, 0), expanded.coeff(x, 1), expanded.coeff(x, 2)


_X = _symbol("x")
GAIN = (
    ALPHA**2 * (NOISE + LAM_1 * _X + LAM_2 * _X**2)
    + ALPHA**3 * (2 * (KICK + KICK_C * _X) ** 2 + (SIGMA + C * _X) * (A_0 + 2 * A_1 * _X))
    + ALPHA**4 * A_1 * (SIGMA + C * _X) ** 2
)
SLACK = 2 * ALPHA * (NU * _X + L * _X**2) + ALPHA**2 * (OMEGA + A_0 * _X + A_1 * _X**2)
_G0, _G1, _G2 = _coefficients(GAIN, _X)
_S0, _S1, _S2 = _coefficients(SLACK, _X)


def radius(w: sp.Expr) -> sp.Expr:
    """The largest x with x^2 - S(x) <= w."""
    return (_S1 + sp.sqrt(_S1**2 + 4 * (1 - _S2) * (w + _S0))) / (2 * (1 - _S2))


NET = 2 * ALPHA * MU - _G2
BALANCE = (_G1 + sp.sqrt(_G1**2 + 4 * NET * _G0)) / (2 * NET)
LEVEL = BALANCE**2 + SLACK.subs(_X, BALANCE)
PULL = (2 * NET * BALANCE - _G1) / (2 * (1 + _S2) * BALANCE + _S1)
W_0 = X_0**2 + SLACK.subs(_X, X_0)
EXCESS = sp.Max(W_0 - LEVEL, 0)
_EDGE = radius(LEVEL)
_SLOPE = (_G1 + 2 * _G2 * _EDGE) / (2 * (1 - _S2) * _EDGE - _S1)

INTERFACE = B_SUP / (1 - GBAR)
INTERFACE_D = B_D / (1 - KAPPA_S)
APPROXIMATION = DISTANCE / sp.sqrt(1 - KAPPA_F**2)
LAST = CHI * radius(LEVEL + (1 - PULL) ** T * EXCESS)
STATIONARY = CHI * radius(LEVEL)
AVERAGE = sp.sqrt(
    (W_0 + _S0 + _S1**2 / (4 * (1 - _S2)) + _SLOPE * EXCESS / PULL) / (2 * RATE * ALPHA * T)
    + GAIN.subs(_X, _EDGE) / (2 * RATE * ALPHA)
)
LEADING = CHI * sp.sqrt(ALPHA * NOISE / (2 * MU))
SHARP_AVERAGE = sp.sqrt(TRACE / T)
SHARP_STEP = sp.sqrt(ALPHA * TRACE_STEP)

FORMULAS: dict[str, tuple[sp.Expr, str]] = {
    "scalar gap": (INTERFACE, "rung 4 of the interface gap, sup norm"),
    "scalar gap, d-norm": (INTERFACE_D, "the d-norm rung of the interface gap"),
    "class error": (APPROXIMATION, "section 4"),
    "residual, last iterate": (LAST, "closed form of the second-order Poisson certificate, constant step"),
    "residual, average": (AVERAGE, "the same for the average of the iterates"),
    "residual, stationary": (STATIONARY, "limit of the last iterate's bound for T to infinity"),
    "residual, leading order": (LEADING, "its leading order in the step (not a bound)"),
    "residual, sharp average": (SHARP_AVERAGE, "asymptotic, decreasing steps (not a bound)"),
    "residual, sharp constant step": (SHARP_STEP, "asymptotic, small constant step (not a bound)"),
}


def interface_values(a: Analysis) -> dict[sp.Symbol, float]:
    """The constants of the interface rungs."""
    return {
        B_SUP: float(np.abs(a.local_gap).max()), GBAR: a.gamma_bar, B_D: a.norm_d_state(a.local_gap),
        KAPPA_S: oracle_contraction(a),
    }  # fmt: skip


def approximation_values(members: ConvexClass) -> dict[sp.Symbol, float]:
    """The constants of the class error.  Raises ValueError when it is inapplicable."""
    bound = class_error_bound(members)
    if not bound.applicable:
        raise ValueError(str(bound))
    return {DISTANCE: bound.terms["distance"], KAPPA_F: bound.terms["kappa_f"]}


_CONSTANT = {
    "chi": CHI, "rate": RATE, "mu": MU, "sigma": SIGMA, "c": C, "lipschitz": L, "nu_star": NU, "noise": NOISE,
    "lam_1": LAM_1, "lam_2": LAM_2, "omega": OMEGA, "a_0": A_0, "a_1": A_1, "kick": KICK, "kick_c": KICK_C,
}  # fmt: skip


def constant_values(k: Constants) -> dict[sp.Symbol, float]:
    """The constants of the Poisson certificate that its closed form uses."""
    numbers = asdict(k)
    return {symbol: float(numbers[name]) for name, symbol in _CONSTANT.items()}


def residual_values(
    pop: Population, alpha: float, theta_0: Float[np.ndarray, "p"], weight: Weight | None = None
) -> dict[sp.Symbol, float]:
    """Everything in LAST, AVERAGE, STATIONARY and LEADING but T."""
    return constant_values(constants(pop, weight=weight)) | {ALPHA: alpha, X_0: start(pop, theta_0, weight) ** 0.5}


def evaluate(expression: sp.Expr, values: Values) -> float:
    """The number an expression has at these values.  Raises ValueError naming a symbol that has no value."""
    missing = sorted(str(s) for s in expression.free_symbols - set(values))
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}")
    exact = {symbol: sp.Float(values[symbol], DIGITS) for symbol in expression.free_symbols}
    return float(expression.xreplace(exact).evalf(DIGITS))


def legend(expression: sp.Expr) -> dict[str, str]:
    """What every symbol of an expression means."""
    return {str(s): MEANING[s] for s in sorted(expression.free_symbols, key=str)}


def statement() -> Latex:
    """The theorem in LaTeX: constant step, scalar interface rung, with the abbreviations it needs."""
    lines = (
        rf"E_{{\mathrm{{int}}}} = {sp.latex(INTERFACE)}",
        rf"E_{{\mathrm{{app}}}} = {sp.latex(APPROXIMATION)}",
        r"E_{\mathrm{mix}}(T) = \chi\,R\bigl(W_\infty + (1-\lambda)^{T}(W_0-W_\infty)_+\bigr)",
        r"R(w) = \max\{x : x^2 - S(x) \le w\},\quad W_\infty = r^2 + S(r),\quad W_0 = x_0^2 + S(x_0)",
        r"r = \frac{G_1+\sqrt{G_1^2+4(2\alpha\mu-G_2)G_0}}{2(2\alpha\mu-G_2)},\quad"
        r"\lambda = \frac{2(2\alpha\mu-G_2)r-G_1}{2(1+S_2)r+S_1}",
        rf"G(x) = G_0+G_1x+G_2x^2 = {sp.latex(GAIN)}",
        rf"S(x) = S_0+S_1x+S_2x^2 = {sp.latex(SLACK)}",
    )
    body = r" \\ ".join(f"& {line}" for line in lines)
    head = (
        r"& \bigl(\mathbb E\lVert Q_T\circ\varphi-Q^*\rVert_d^2\bigr)^{1/2}"
        r" \le E_{\mathrm{mix}}(T)+E_{\mathrm{app}}+E_{\mathrm{int}}"
    )
    return Latex(rf"\begin{{aligned}} {head} \\ {body} \end{{aligned}}")
