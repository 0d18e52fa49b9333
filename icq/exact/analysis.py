"""Everything exact about one IC-SMDP, float64, from outcome lists to sparse kernels.

No S x A x S array is built: r [S, A] is dense, K [S*A, S] and Khat [O*A, O] are sparse, so memory is linear in the
number of outcomes.  Rows of kernels are (state, option) pairs, state-major.  Notation: docs/theory.md sections 1-4.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from icq import coerce
from icq.coerce import Numbers
from icq.display import LIGHT, Fact, Shown
from icq.exact import markov as chains
from icq.exact.fixed_point import Solution, greedy, modulus, root_sum, solve
from icq.reason import NoNumber, Reason
from icq.smdp import ICSMDP

DENSE_ENTRIES = 4_000_000  # largest matrix whose singular values are computed densely
Names: TypeAlias = Sequence[Hashable]
RESTART = "end the task at its goal, so that the next one starts: terminal outcomes, next_state=None in icq.build"
TINY = 1e-290  # masses below have lost digits


class AnalysisError(NoNumber):
    """The interface model is undefined on this instance: SEVERAL_CLASSES, NO_MASS or LAW_NOT_CONVERGED; or there are
    no values at all: NO_DISCOUNT.  Q* alone: `icq.exact.optimum`.
    """  # fmt: skip


@dataclass(frozen=True)
class Model(Shown):
    """Expected one-option quantities of a decision process on rows (state, option).

    reward: r [n, A]; kernel: K [n*A, n] sub-stochastic; available [n, A].  Unavailable rows are zero.
    """

    reward: Float[np.ndarray, "n A"]
    kernel: sp.csr_array
    available: Bool[np.ndarray, "n A"]

    @cached_property
    def discount(self) -> Float[np.ndarray, "n A"]:
        """gamma(s,a) = E[g | s,a], row sums of the kernel."""
        return np.asarray(self.kernel.sum(axis=1)).reshape(self.reward.shape)

    def bellman(self, q: Numbers) -> Float[np.ndarray, "n A"]:
        """(T Q)(s,a) = r + K max_a Q [n, A], 0 on unavailable options.  Raises ValueError for another shape."""
        q = coerce.shaped("q", q, "nA", self.reward.shape)
        _, v = greedy(q, self.available)
        return np.where(self.available, self.reward + (self.kernel @ v).reshape(q.shape), 0.0)

    def solve(self, near: Int[np.ndarray, "n"] | None = None) -> Solution:
        """The certified fixed point of `bellman`; near: options that are greedy in a similar model."""
        return solve(self.reward, self.kernel, self.available, near=near)

    def policy_rows(self, policy: Int[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "n 1"], sp.csr_array]:
        """Reward and kernel of one deterministic policy, as a process with a single option."""
        rows = np.arange(len(policy)) * self.reward.shape[1] + policy
        return self.reward.reshape(-1)[rows][:, None], self.kernel[rows]

    def evaluate(self, policy: Int[np.ndarray, "n"]) -> Solution:
        """The certified value of a deterministic policy."""
        reward, kernel = self.policy_rows(policy)
        return solve(reward, kernel, np.ones_like(reward, dtype=bool))

    def evaluate_random(self, behaviour: Float[np.ndarray, "n A"]) -> Solution:
        """The certified value of a randomised policy beta(a|s)."""
        n, options = self.reward.shape
        mix = sp.csr_array(
            (behaviour.reshape(-1), np.arange(n * options), np.arange(0, n * options + 1, options)),
            shape=(n, n * options),
        )
        reward = (behaviour * self.reward).sum(1)[:, None]
        return solve(reward, sp.csr_array(mix @ self.kernel), np.ones((n, 1), bool))


def outcome_discount(m: ICSMDP) -> Float[np.ndarray, "S A B"]:
    """g(s,a,b) = gamma^tau (1 - done): what the next value is worth after this outcome."""
    return np.where(m.terminal, 0.0, np.asarray(m.gamma) ** np.asarray(m.duration))


def _sum_outcomes(m: ICSMDP, weight: Float[np.ndarray, "S A B"]) -> sp.csr_array:
    """[S*A, S] matrix of sum_b weight(s,a,b) 1{next = s'}."""
    states, options, outcomes = m.prob.shape
    rows = states * options
    starts = np.arange(0, rows * outcomes + 1, outcomes)
    columns = np.asarray(m.next_state).reshape(-1).astype(np.int32)
    matrix = sp.csr_array((weight.reshape(-1), columns, starts.astype(np.int32)), shape=(rows, states))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def oracle_model(m: ICSMDP) -> Model:
    """r and K of the centralised process (it sees s)."""
    available = np.asarray(m.available)[m.observation]
    prob = np.where(available[..., None], m.prob, 0.0)
    reward = (prob * m.reward).sum(-1)
    return Model(reward, _sum_outcomes(m, prob * outcome_discount(m)), available)


def handoff_chain(m: ICSMDP) -> sp.csr_array:
    """P_beta(s'|s) of the embedded handoff chain under the behaviour policy, [S, S]."""
    states, options, _ = m.prob.shape
    weight = np.asarray(m.behaviour)[m.observation][..., None] * m.prob
    rows = _sum_outcomes(m, weight)
    fold = sp.csr_array(
        (np.ones(states * options), np.arange(states * options), np.arange(0, states * options + 1, options)),
        shape=(states, states * options),
    )
    return sp.csr_array(fold @ rows)


def interface_model(m: ICSMDP, oracle: Model, w: Float[np.ndarray, "S"]) -> Model:
    """rhat(o,a) = sum_s w(s|o) r(s,a) and Khat(o'|o,a) = sum_s w(s|o) sum_{s': phi(s')=o'} K(s'|s,a)."""
    states, options = oracle.reward.shape
    obs = np.asarray(m.observation)
    observations = m.num_observations
    lump = sp.csr_array((np.ones(states), obs, np.arange(states + 1)), shape=(states, observations))
    pairs = (obs[:, None] * options + np.arange(options)).reshape(-1)
    weights = sp.csr_array(
        (np.repeat(w, options), (pairs, np.arange(states * options))),
        shape=(observations * options, states * options),
    )
    reward = np.zeros((observations, options))
    np.add.at(reward, obs, w[:, None] * oracle.reward)
    return Model(reward, sp.csr_array(weights @ oracle.kernel @ lump), np.asarray(m.available))


def contraction(
    kernel: sp.csr_array,
    pair_mass: Float[np.ndarray, "n A"],
    available: Bool[np.ndarray, "n A"],
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 20_000,
) -> float:
    """kappa = ||D^{1/2} K Dmin^{-1/2}||_2, a certified upper bound of the d-norm Lipschitz constant of T.

    D = diag d(x) over (row, option) pairs and Dmin = diag min over available options of d(o, a)
    (docs/theory.md section 4).  Dense singular values when small.  Otherwise power iteration on the non-negative
    M'M with the Collatz-Wielandt quotient max_i (M'M x)_i / x_i, an upper bound for every positive x, so an early
    stop is safe and only loose.  Raises ValueError where an observation has no mass.
    """
    smallest = np.where(available, pair_mass, np.inf).min(axis=1)
    if not (smallest > 0).all():
        raise ValueError(f"observation {int(np.argmin(smallest))} has no stationary mass; kappa is undefined")
    left, right = np.sqrt(np.where(available, pair_mass, 0.0)).reshape(-1), 1 / np.sqrt(smallest)
    matrix = sp.csr_array(sp.diags_array(left) @ kernel @ sp.diags_array(right))
    if np.prod(matrix.shape) <= DENSE_ENTRIES:
        return float(np.linalg.norm(matrix.toarray(), 2))
    transpose = sp.csr_array(matrix.T)
    x = np.ones(matrix.shape[1])
    best = np.inf
    for _ in range(max_iterations):
        y = transpose @ (matrix @ x)
        upper = float((y / x).max())
        if best - upper <= tolerance * upper:
            best = min(best, upper)
            break
        best = min(best, upper)
        x = np.maximum(y / y.max(), 1e-200)
    return float(np.sqrt(best))


@dataclass(frozen=True, eq=False)
class Analysis(Shown):
    """Everything exact about one instance (float64); made by `analyse`.

    d [S], w [S] = w(s|phi(s)), d_obs [O], d_pair [O, A] = d(o) beta(a|o), d_state_pair [S, A];
    q_star [S, A] and q_bar [O, A] with certified errors in `oracle_solution` and `interface_solution`.
    """

    smdp: ICSMDP
    chain: chains.Structure
    transition: sp.csr_array
    law: chains.Stationary
    oracle: Model
    interface: Model
    oracle_solution: Solution
    interface_solution: Solution
    d: Float[np.ndarray, "S"]
    w: Float[np.ndarray, "S"]
    d_obs: Float[np.ndarray, "O"]
    d_pair: Float[np.ndarray, "O A"]

    @property
    def q_star(self) -> Float[np.ndarray, "S A"]:
        """Q*, the centralised optimum."""
        return self.oracle_solution.q

    @property
    def q_bar(self) -> Float[np.ndarray, "O A"]:
        """Qbar, the interface fixed point."""
        return self.interface_solution.q

    @property
    def v_star(self) -> Float[np.ndarray, "S"]:
        """V* = max_a Q*."""
        return self.oracle_solution.v

    @property
    def v_bar(self) -> Float[np.ndarray, "O"]:
        """Vbar = max_a Qbar."""
        return self.interface_solution.v

    @property
    def gamma_bar(self) -> float:
        """gbar = max over available (s,a) of E[g | s,a], the sup-norm modulus."""
        return modulus(self.oracle.kernel)

    @cached_property
    def d_state_pair(self) -> Float[np.ndarray, "S A"]:
        """d(s) beta(a|phi(s)), the d-weight on S x A."""
        return self.d[:, None] * np.asarray(self.smdp.behaviour)[self.smdp.observation]

    @cached_property
    def kappa(self) -> float:
        """d-norm contraction certificate of the interface operator; useful when below 1."""
        if (self.d_pair[self.interface.available] < TINY).any():
            return float("inf")  # a mass that no double holds
        return contraction(self.interface.kernel, self.d_pair, self.interface.available)

    @cached_property
    def local_gap(self) -> Float[np.ndarray, "S A"]:
        """b(s,a) = (T(Qbar o phi) - Qbar o phi)(s,a), the true Bellman residual of the interface solution."""
        lifted = self.lift(self.q_bar)
        return self.oracle.bellman(lifted) - lifted

    @cached_property
    def gap(self) -> Float[np.ndarray, "S A"]:
        """Q* - Qbar o phi, 0 on unavailable options."""
        return self.q_star - self.lift(self.q_bar)

    @cached_property
    def gap_value(self) -> Solution:
        """The gap value E [S, A]: E = |b| + K max_a E, so that |Q* - Qbar o phi| <= E (docs/theory.md section 3)."""
        return solve(np.abs(self.local_gap), self.oracle.kernel, self.oracle.available)

    @cached_property
    def slem(self) -> float:
        """Second largest eigenvalue modulus of P_beta (NaN when it did not converge)."""
        return chains.slem(self.transition, self.law.log_d)

    @property
    def spectral_gap(self) -> float:
        """1 - slem."""
        return 1.0 - self.slem

    def mixing_time(self, epsilon: float = 0.25) -> float:
        """Worst-start total variation mixing time of P_beta, in handoffs (dense, O(S^3))."""
        return chains.mixing_time(self.transition, self.d, epsilon)

    @cached_property
    def deviation(self) -> Float[np.ndarray, "S S"]:
        """Deviation matrix Z of P_beta (dense)."""
        return chains.deviation(self.transition, self.d)

    @cached_property
    def action_gap(self) -> float:
        """Smallest Qbar margin of the greedy option over the runner-up; infinite if no observation has a choice."""
        return _margin(self.q_bar, self.interface.available)

    @cached_property
    def interface_value(self) -> Solution:
        """V^pi(s) in the true process of the greedy interface policy pi = argmax Qbar."""
        return self.oracle.evaluate(self.interface_solution.policy[self.smdp.observation])

    @cached_property
    def policy_loss(self) -> Float[np.ndarray, "S"]:
        """V*(s) - V^pi(s) of the greedy interface policy."""
        return self.v_star - self.interface_value.v

    def lift(self, q: Numbers) -> Float[np.ndarray, "S A"]:
        """Q o phi on S x A of a table Q [O, A], 0 on unavailable options.  Raises ValueError for another shape."""
        q = coerce.shaped("q", q, "OA", self.d_pair.shape)
        return np.where(self.oracle.available, q[self.smdp.observation], 0.0)

    def norm_d(self, q: Numbers) -> float:
        """||Q||_d over O x A."""
        return _weighted_norm(q, self.d_pair)

    def norm_d_state(self, q: Numbers) -> float:
        """||Q||_d over S x A; the norm of `lift(q)` here is `norm_d(q)`."""
        return _weighted_norm(q, self.d_state_pair)

    def norm_sup(self, q: Numbers) -> float:
        """||Q||_inf over available pairs of O x A."""
        return _largest(q, self.interface.available)

    def norm_sup_state(self, q: Numbers) -> float:
        """||Q||_inf over available pairs of S x A."""
        return _largest(q, self.oracle.available)

    def _facts_(self) -> list[Fact]:
        few = self.oracle.reward.size <= LIGHT
        return [
            Fact("states", len(self.d)), Fact("options", self.oracle.reward.shape[1]),
            Fact("observations", len(self.d_obs)), Fact("agents", self.smdp.num_agents),
            Fact("mean optimal value", float(self.d @ self.v_star), "reward"),
            Fact("interface gap", self.norm_d_state(self.gap) if few else None, "reward in the d-norm"),
            Fact("at worst", self.norm_sup_state(self.gap) if few else None, "reward"),
            Fact("gamma_bar", self.gamma_bar if few else None), Fact("kappa", vars(self).get("kappa")),
            Fact("", "; ".join(self.chain.problems()) or None),
        ]  # fmt: skip


def _weighted_norm(q: Numbers, weight: Float[np.ndarray, "m A"]) -> float:
    q = coerce.numbers("q", q)
    if q.shape != weight.shape:
        raise ValueError(f"q: shape {q.shape}, expected {weight.shape}; O x A and S x A have their own norms")
    return root_sum(weight, q)


def _largest(q: Numbers, available: Bool[np.ndarray, "m A"]) -> float:
    q = coerce.numbers("q", q)
    if q.shape != available.shape:
        raise ValueError(f"q: shape {q.shape}, expected {available.shape}; O x A and S x A have their own norms")
    return float(np.abs(q[available]).max())


def _margin(q: Float[np.ndarray, "n A"], available: Bool[np.ndarray, "n A"]) -> float:
    if q.shape[1] == 1:
        return float("inf")
    top = np.sort(np.where(available, q, -np.inf), axis=1)[:, -2:]
    return float((top[:, 1] - top[:, 0]).min())


def _called(names: Names, code: int) -> str:
    return repr(names[code]) if code < len(names) else str(code)


def stationary_weights(
    m: ICSMDP, d: Float[np.ndarray, "S"], log_d: Float[np.ndarray, "S"] | None = None, names: Names = ()
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "O"]]:
    """w(s|o) = d(s)/d(o) for each state and d(o).  Raises AnalysisError for an observation without mass.

    log_d: the logarithms, where masses may be too small for a double; then w is right all the same.  names: what
    observations are called in messages, their numbers when left out.
    """
    obs = np.asarray(m.observation)
    with np.errstate(divide="ignore"):
        log_d = np.log(d) if log_d is None else log_d
    top = np.full(m.num_observations, -np.inf)
    np.maximum.at(top, obs, log_d)
    empty = np.flatnonzero(top == -np.inf)
    if len(empty):
        shown = ", ".join(_called(names, int(o)) for o in empty[:6]) + (", ..." if len(empty) > 6 else "")
        raise AnalysisError(Reason.NO_MASS, shown, f"w(s|o) is undefined there, as they are not seen again; {RESTART}")
    d_obs = np.bincount(obs, weights=d, minlength=m.num_observations)
    tiny = (d_obs < TINY)[obs]
    relative = np.where(tiny, np.exp(log_d - top[obs]), d)
    return relative / np.bincount(obs, weights=relative, minlength=m.num_observations)[obs], d_obs


def analyse(model: coerce.Instance) -> Analysis:
    """The exact analysis of an instance or a workflow; an analysis is returned as it is.

    Raises TypeError for anything else, AnalysisError when the handoff chain has several closed classes, an observation
    has no stationary mass (the interface model is then undefined) or the stationary law did not converge.  Periodic
    chains are analysed; `chain` reports the period.
    """
    if isinstance(model, Analysis):
        return model
    m = coerce.instance(model)
    transition = handoff_chain(m)
    structure = chains.structure(transition)
    if len(structure.closed) != 1:
        where = "; ".join(structure.problems(getattr(model, "states", ())))
        raise AnalysisError(Reason.SEVERAL_CLASSES, where, f"{RESTART}; Q* needs none of it: icq.exact.optimum")
    law = chains.stationary(transition, structure)
    if not law.converged:
        raise AnalysisError(Reason.LAW_NOT_CONVERGED, f"residual {law.residual:.1e}", "the chain is too slow")
    w, d_obs = stationary_weights(m, law.d, law.log_d, getattr(model, "observations", ()))
    oracle = oracle_model(m)
    interface = interface_model(m, oracle, w)
    try:
        solved = oracle.solve(), interface.solve()
    except NoNumber as error:
        raise AnalysisError(error.why) from None
    return Analysis(
        smdp=m, chain=structure, transition=transition, law=law, oracle=oracle, interface=interface,
        oracle_solution=solved[0], interface_solution=solved[1], d=law.d, w=w, d_obs=d_obs,
        d_pair=d_obs[:, None] * np.asarray(m.behaviour),
    )  # fmt: skip
