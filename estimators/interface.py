"""How much the interface hides, from an exact analysis or from a log with context.

Each quantity is one function of the law of a handoff (`estimators.law.Law`).  An `Analysis` gives its exact
value.  A `Log` gives an estimate: the plug-in value without each batch in turn, with every fixed point solved again,
which removes the bias of squared noise (docs/theory.md section 7).  A log without context has no estimate: its law is
the same with and without a gap (docs/theory.md section 8).  `Cells` are a log already counted: several quantities of
one long log are cheaper from `gather(log, onward=True)`.

A context that is not Markov shows part of what is hidden, so local gaps from logs are lower bounds of the true ones;
the fixed point of the context process, and what rests on it, is then about that process only.  `Estimate.note` says so.
Letters: docs/theory.md sections 1, 3 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from estimators.cells import Cells, gather
from estimators.doubt import MANY
from estimators.law import Law, exact_law, negligible
from estimators.logs.log import Log, in_units, power_of
from estimators.statistics import estimate, jackknife
from estimators.statistics.estimate import (
    Estimate,
    estimator,
    exact,
    expect,
    rule_of_three,
    scale_free,
    settled,
    unrewarded,
)  # fmt: skip
from icq import coerce
from icq.coerce import Numbers
from icq.display import shown
from icq.exact import Analysis
from icq.reason import NoNumber, Reason, Why

SHARED = 300_000  # rows up to which a log keeps its cells; of a longer one, gather them once and pass them
Source: TypeAlias = Analysis | Log | Cells
TableOfLaw: TypeAlias = Callable[[Law], Float[np.ndarray, "S A *k"]]
ENTRIES = 200_000_000  # numbers that a table may have in all batches together, 1.5 GiB
KINK = 0.25  # standard errors that halves may be off beyond noise: a bias of 0.35 costs 1.4 % of coverage
ROUNDING = 1e-12  # of the largest reward
TIES = "best options tie, which moves the number: the interval is longer by what that may be"
LOWER = "a lower bound of the true gap unless the context is Markov"
CONTEXT = "of the process whose state is observation and context: the true one if the context is Markov"


def law_of(source: Source, onward: bool = False) -> Law | Cells:
    """The exact law of a source, or the sums of its batches.  Raises NoNumber for a log that has none."""
    expect("source", source, Analysis, Log, Cells)
    if isinstance(source, Analysis):
        return exact_law(source)
    if isinstance(source, Cells):
        if onward and not source.frame.onward:
            raise ValueError("these cells do not know the next context: use gather(log, onward=True)")
        return source
    if source.context is None:
        raise NoNumber(Reason.NO_CONTEXT, need="log a context column, the richest view of the state there is")
    if len(source) < jackknife.BATCHES:
        raise NoNumber(Reason.FEW_HANDOFFS, f"{len(source)}, at least {jackknife.BATCHES} are needed", "log longer")
    if len(source) > SHARED:
        return gather(source, onward=onward)
    return source.once(f"cells, onward {onward}", lambda: gather(source, onward=onward))


def gathered(source: Source, onward: bool = False) -> Source:
    """The cells of a log, for several quantities of it; the source itself where there are none."""
    try:
        found = law_of(source, onward)
    except NoNumber:
        return source
    return found if isinstance(found, Cells) else source


def weight(law: Law, agent: int | None) -> Float[np.ndarray, "S A"]:
    """d(s) beta(a|o), or its conditional law given that the agent acts.  Raises ValueError if it never does."""
    if agent is None:
        return law.mass
    chosen = law.mass * (law.frame.agent == agent)[law.frame.observation][:, None]
    total = float(chosen.sum())
    if total == 0:
        raise ValueError(f"agent = {agent} does not act; those that do: {sorted(set(law.frame.agent.tolist()))}")
    return chosen / total


@estimator
@scale_free(1)
def norm(
    source: Source,
    table: TableOfLaw,
    *,
    agent: int | None = None,
    onward: bool = False,
    optimum: bool = True,
    note: str = "",
    confidence: float = 0.95,
    span: tuple[float, float] | None = None,
) -> Estimate:
    """||F||_d of a table of cells, or over the handoffs of one agent, (E[F^2 | agent acts])^{1/2}.

    table: law -> F [S, A], or vectors [S, A, k]; onward: it needs the process of contexts; optimum: it needs a fixed
    point; span: what its entries may be, in the place of values.  From a log: `estimators.statistics.jackknife.norm` of
    one batch left out at a time; of halves of the batches where an optimum over contexts is taken or best options are
    in doubt.  If ties move the number by more than `KINK` standard errors, its interval is longer by what that may be,
    and its note says so.  What cannot be told from 0 is 0, and its upper limit then that of what was never seen.
    """
    found = law_of(source, onward)
    if isinstance(found, Law):
        whole = table(found)
        power = power_of(whole)
        return exact(float(np.ldexp(np.sqrt(_square(found, in_units(whole, power), agent)), power)))
    if why := found.lacking(optimum=optimum and not onward):
        raise NoNumber(why, n_eff=found.n_eff)
    whole = table(found.whole)
    if whole.size * found.batches > ENTRIES:
        place = f"{whole.size} entries in {found.batches} batches"
        raise NoNumber(Reason.NO_ROOM, place, "log a coarser context", n_eff=found.n_eff)
    square, bias = _square(found.whole, whole, agent), (0.0, 0.0)
    if not (onward or (optimum and found.doubt.share > MANY)):
        pseudo, influence = _left_out(found, table, whole, agent, square)
    else:
        _check_halves(found, agent)
        pseudo, influence = _halves(found, table, whole, agent, square)
        off, stderr = jackknife.kink(square, pseudo, influence)
        if abs(off) > KINK * stderr and np.sqrt(square) > ROUNDING * np.abs(found.whole.reward).max():
            bias, note = jackknife.bias_of(off), f"{note}; {TIES}"
    estimated = jackknife.norm(pseudo, influence, n_eff=found.n_eff, confidence=confidence, bias=bias)
    return settled(replace(estimated, note=note), *_limits(found, whole, agent, span, confidence))


def _limits(
    found: Cells, whole: Float[np.ndarray, "S A *k"], agent: int | None, span: tuple[float, float] | None,
    confidence: float,
) -> tuple[float, float]:  # fmt: skip
    """What a norm is rounding up to, and how large it may be where nothing differed.

    Raises NoNumber where every reward is 0 and so is the table: then there is not even a range.
    """
    law, (low, high) = found.whole, found.whole.span if span is None else span
    share = 1.0 if agent is None else float(law.mass[(law.frame.agent == agent)[law.frame.observation]].sum())
    size, n = max(-low, high, float(np.abs(whole).max(initial=0.0))), found.n_eff * share
    if size == 0:
        raise unrewarded(round(found.handoffs * share), n, law.most_discount, confidence)
    return negligible(size, law.length), rule_of_three(n, confidence) * (high - low)


def _left_out(
    found: Cells, table: TableOfLaw, whole: Float[np.ndarray, "S A *k"], agent: int | None, square: float
) -> tuple[Float[np.ndarray, "B"], Float[np.ndarray, "B K"]]:
    """Pseudo-values of the square and influence of the batches, each left out in turn."""
    root, rest = _root(weight(found.whole, agent)), found.batches - 1
    squares, influence = np.empty(found.batches), np.empty((found.batches, whole.size))
    for b, law in enumerate(found.without):
        part = table(law)
        squares[b] = _square(law, part, agent)
        influence[b] = _moved(part, whole, -rest * weight(law, agent) * root)
    return jackknife.leave_one_out(square, squares), influence


def _check_halves(found: Cells, agent: int | None) -> None:
    """Raise NoNumber where halves of the batches say nothing of an agent, as it does not act in all of them."""
    if agent is None:
        return
    acts = found.visits @ (found.frame.agent == agent)[found.frame.observation]
    plus = jackknife.signs(found.batches) > 0
    if not ((plus @ acts > 0).all() and (~plus @ acts > 0).all()):
        place = f"it acts in {int((acts > 0).sum())} of {found.batches} batches only"
        raise NoNumber(Why(Reason.ABSENT_AGENT, place, "log longer", agent=agent), n_eff=found.n_eff)


def _halves(
    found: Cells, table: TableOfLaw, whole: Float[np.ndarray, "S A *k"], agent: int | None, square: float
) -> tuple[Float[np.ndarray, "B"], Float[np.ndarray, "B K"]]:
    """The same from halves of the batches."""
    root, ways = _root(weight(found.whole, agent)), found.batches - 1
    squares, apart = np.empty((2, ways)), np.zeros((ways, whole.size))
    for j, pair in enumerate(found.halves):
        for side, (law, sign) in enumerate(zip(pair, (0.5, -0.5), strict=True)):
            part = table(law)
            squares[side, j] = _square(law, part, agent)
            apart[j] += _moved(part, whole, sign * weight(law, agent) * root)
    return jackknife.halves(square, *squares), jackknife.signs(found.batches).T @ apart


def _root(mass: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
    return np.sqrt(np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0))


def _moved(
    part: Float[np.ndarray, "S A *k"], whole: Float[np.ndarray, "S A *k"], scale: Float[np.ndarray, "S A"]
) -> Float[np.ndarray, "K"]:
    return ((part - whole).reshape(scale.size, -1) * scale.reshape(-1, 1)).reshape(-1)


def _square(law: Law, table: Float[np.ndarray, "S A *k"], agent: int | None) -> float:
    mass = weight(law, agent)
    return float((mass.reshape(-1, 1) * table.reshape(mass.size, -1) ** 2).sum())


@estimator
def scalar(source: Source, of: Callable[[Law], float], *, onward: bool = False, note: str = "") -> Estimate:
    """A number that depends smoothly on the law and on no fixed point, with its jackknife interval."""
    found = law_of(source, onward)
    if isinstance(found, Law):
        return exact(of(found))
    if why := found.lacking(optimum=False):
        raise NoNumber(why, n_eff=found.n_eff)
    without = np.array([of(law) for law in found.without])
    return replace(estimate.jackknife(of(found.whole), without, n_eff=found.n_eff), note=note)


def residual(law: Law, q: Numbers | None = None) -> Float[np.ndarray, "S A"]:
    """b = E[R + g max_a Q(o', a) | cell] - Q(x); for Qbar if q is None, else for q [O, A] in the source's own codes.

    Raises ValueError for a table that lacks an observation or an option, or has an option that is not there.
    """
    table = law.q_bar if q is None else _own(law, q)
    value = np.where(law.interface.available, table, -np.inf).max(axis=1)
    return np.where(law.mass > 0, law.reward + law.follow(value) - law.lift(table), 0.0)


def _own(law: Law, q: Numbers) -> Float[np.ndarray, "O A"]:
    """The rows of a table that the source has; a log may lack some that there are."""
    every, rows, options = coerce.numbers("q", q), int(law.frame.code.max()) + 1, law.interface.available.shape[1]
    if every.ndim != 2 or len(every) < rows or every.shape[1] != options:
        raise ValueError(
            f"q: shape {every.shape}, expected (O, A) with O at least {rows} and A = {options}; give one number for "
            "every observation and option"
        )
    return np.asarray(every[law.frame.code])


@scale_free(1, "q")
def local_gap(source: Source, q: Numbers | None = None, *, agent: int | None = None) -> Estimate:
    """||b||_d, reward units: the local gap at Qbar, or the residual b_q in the true process of any table q [O, A].

    agent: root mean square over the handoffs of that agent.  q must not come from the same log.
    Raises ValueError for an agent that never acts.
    """
    if q is not None and isinstance(source, Analysis):
        q = coerce.shaped("q", q, "OA", source.d_pair.shape)
    return norm(source, partial(residual, q=q), agent=agent, optimum=q is None, note=LOWER)


def local_gap_by_agent(source: Source) -> dict[int, Estimate]:
    """The local gap of every agent that acts; the squares, weighted by shares of the handoffs, add up to ||b||_d^2.

    Empty when there is no estimate for the whole.
    """
    keep = gathered(source)
    try:
        found = law_of(keep)
    except NoNumber:
        return {}
    law = found if isinstance(found, Law) else found.whole
    return {agent: local_gap(keep, agent=agent) for agent in sorted(set(law.frame.agent.tolist()))}


@shown
class Channels(NamedTuple):
    """The parts of the local gap; as tables of cells they add up to it exactly."""

    reward: Estimate
    duration: Estimate
    transition: Estimate


def channel_tables(
    law: Law,
) -> tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"], Float[np.ndarray, "S A"]]:
    """r - rhat, (gamma(s,a) - ghat(x)) vbar(x) and (K V)(s,a) - gamma(s,a) vbar(x), vbar(x) = (Khat V)(x)/ghat(x).

    What the option earns, how long it takes, and where it leads.  Each has mean 0 given x; they add up to b.
    """
    value = np.where(law.interface.available, law.q_bar, -np.inf).max(axis=1)
    mass, carried = law.follow(np.ones_like(value)), law.follow(value)
    mean_mass, mean_carried = law.mean(mass), law.mean(carried)
    worth = np.divide(mean_carried, mean_mass, out=np.zeros_like(mass), where=mean_mass > 0)
    return law.reward - law.mean(law.reward), (mass - mean_mass) * worth, carried - mass * worth


def _channel(law: Law, which: int) -> Float[np.ndarray, "S A"]:
    return channel_tables(law)[which]


def local_gap_channels(source: Source, *, agent: int | None = None) -> Channels:
    """The norms of the reward, duration and transition part of the local gap at Qbar.

    Each is a lower bound of its true value unless the context is Markov.
    """
    keep = gathered(source)
    return Channels(*(norm(keep, partial(_channel, which=k), agent=agent, note=LOWER) for k in range(3)))


def gap(law: Law) -> Float[np.ndarray, "S A"]:
    """Q* - Qbar o phi."""
    return np.where(law.mass > 0, law.q_star - law.lift(law.q_bar), 0.0)


def interface_gap(source: Source, *, agent: int | None = None, confidence: float = 0.95) -> Estimate:
    """The interface gap ||Q* - Qbar o phi||_d, reward units.

    From a log it is that of the process whose state is observation and context.  The fixed points are solved again for
    halves of the batches.  If the context is not Markov the number is about the process with the same one-step law,
    neither below nor above the true gap in general.
    """
    return norm(source, gap, agent=agent, onward=True, note=CONTEXT, confidence=confidence)


def modulus(law: Law) -> float:
    """kappa_S: the d-norm modulus of the operator of the process whose state is observation and context.

    The least likely option of a state enters, and where options tie the least of their frequencies would be too low:
    so the behaviour must be known.
    """
    if law.frame.behaviour is None:
        raise ValueError("kappa_S needs the probability of the chosen option in the log")
    return law.modulus


@estimator
@scale_free(0)
def oracle_contraction(source: Source) -> Estimate:
    """kappa_S = ||D^{1/2} K Dmin^{-1/2}||_2, without unit; below 1 the oracle's operator contracts in ||.||_d."""
    found = law_of(source, onward=True)
    if isinstance(found, Cells) and found.frame.behaviour is None:
        raise NoNumber(Reason.NO_PROBABILITY, need="log the column `probability`", n_eff=found.n_eff)
    return scalar(found if isinstance(found, Cells) else source, modulus, onward=True, note=CONTEXT)


@estimator
@scale_free(1)
def certified_gap(source: Source, *, agent: int | None = None) -> Estimate:
    """||b||_d/(1 - kappa_S) >= the interface gap, in reward; no number unless kappa_S is below 1 beyond its interval.

    From a log both come from the process of contexts: a certificate only if the context is Markov.
    """
    keep = gathered(source, onward=True)
    kappa = oracle_contraction(keep)
    if kappa.known and kappa.interval[1] >= 1:
        raise NoNumber(Reason.NOT_CONTRACTING, f"kappa_S = {kappa}", "use interface_gap", n_eff=kappa.n_eff)
    if not kappa.known:
        return kappa
    return norm(keep, lambda law: residual(law) / (1 - modulus(law)), agent=agent, onward=True, note=CONTEXT)
