"""`icq diagnose LOG`: which error dominates in a workflow, from its handoff log alone.

The three terms of docs/theory.md section 2 in ||.||_d, each with its interval: the interface gap (needs context,
section 8.3), the approximation error (of a table none; of a network that is fitted on one half of the log and judged on
the other), and the residual sqrt(C/T) that T handoffs leave to an averaged tabular learner, T those of the log
(section 5a).  The intervals of the three terms hold together with 95 %, so that they may be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from estimators import interface, td_noise
from estimators.approximation import certificate, enough
from estimators.cells import Cells, gather
from estimators.decomposition import NAME
from estimators.doubt import CHANCE, UNSURE
from estimators.fit import Fit, fit, network_of, rows_of
from estimators.interface import Channels
from estimators.law import Law
from estimators.logs.log import Log, power_of
from estimators.statistics.estimate import Estimate, attempt, estimator, exact, jackknife, missing, rescaled
from estimators.values import sent_error, typical_value, value_error, value_error_change
from icq.display import Fact, Shown
from icq.reason import NoNumber, Reason

CONFIDENCE = 0.95
EACH = 1 - (1 - CONFIDENCE) / 3  # of each of the three terms: together they hold with CONFIDENCE (Bonferroni)
LOCAL = 3  # the whole, after its three channels
MOST = 50  # agents whose channels are estimated, those with the largest shares

UNITLESS = ("share", "correlation", "covered")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Agent(Shown):
    """What the interface hides from one agent.

    share: of the squared local gap; local: root mean square over the agent's own handoffs; channels: its three parts.
    """

    name: str
    handoffs: int
    share: Estimate
    local: Estimate
    channels: Channels

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.name), Fact("handoffs", self.handoffs), Fact("share", self.share),
                Fact("local gap", self.local, "reward")]  # fmt: skip


@dataclass(frozen=True)
class Split(Shown):
    """The observation whose values should be told apart first.

    Chosen on one half of the batches; before, after, saves: local gap with and without what it hides, and the
    difference, on the other half.
    """

    observation: str
    before: Estimate
    after: Estimate
    saves: Estimate


@dataclass(frozen=True)
class InterfaceTerm(Shown):
    """The interface gap, its source the local gap, and whose it is."""

    gap: Estimate
    local: Estimate
    channels: Channels
    agents: tuple[Agent, ...]
    split: Split | None
    covered: float

    def _facts_(self) -> list[Fact]:
        return [Fact("gap", self.gap, "reward in the d-norm"), Fact("local gap", self.local, "reward"),
                Fact("agents", len(self.agents)), Fact("covered", self.covered, "of the handoffs")]  # fmt: skip


@dataclass(frozen=True)
class ApproximationTerm(Shown):
    """The distance of a class from the interface's fixed point.

    of: which class; certified: its a-posteriori bound; fitted: how the fit ended; wider: what twice the width buys.
    """

    of: str
    error: Estimate
    certified: Estimate | None = None
    fitted: str = ""
    wider: Estimate | None = None


@dataclass(frozen=True)
class ResidualTerm(Shown):
    """What `handoffs` handoffs leave to an averaged tabular learner.

    independent: what as many independent handoffs would leave; correlation: factor on the mean square by correlation
    along the trajectory; value: size of the values; sent: error of the scalars that were sent back.
    """

    handoffs: int
    error: Estimate
    independent: Estimate
    correlation: Estimate
    value: Estimate
    sent: Estimate

    def _facts_(self) -> list[Fact]:
        return [
            Fact("handoffs", self.handoffs), Fact("error", self.error, "reward in the d-norm"),
            Fact("with independent handoffs", self.independent), Fact("factor by correlation", self.correlation),
        ]  # fmt: skip


@dataclass(frozen=True)
class Diagnosis(Shown):
    """Everything `icq diagnose` says about a log, before words."""

    interface: InterfaceTerm
    approximation: ApproximationTerm
    residual: ResidualTerm

    @property
    def terms(self) -> dict[str, Estimate]:
        """The three terms, by name."""
        return {
            "interface": self.interface.gap, "approximation": self.approximation.error,
            "residual": self.residual.error,
        }  # fmt: skip

    def _facts_(self) -> list[Fact]:
        return [Fact(NAME[term], e, "reward in the d-norm") for term, e in self.terms.items()]


def diagnose(
    log: Log, *, width: int | None = None, double: bool = False, seed: int = 0, tell: Tell = lambda what: None
) -> Diagnosis:
    """All parts; tell hears what is being done.

    width: judge networks of this width instead of a table; double: also of twice the width.  Raises ValueError for
    double without width.
    """
    if double and width is None:
        raise ValueError("double needs a width: what would twice the width of a network buy?")
    log, power = log.in_unit()
    found = Diagnosis(_interface(log, tell), _approximation(log, width, double, seed, tell), _residual(log, tell))
    return found if power == 0 else _rescaled(found, power)


def _rescaled(d: Diagnosis, power: int) -> Diagnosis:
    """A diagnosis in units of 2^power in units of reward: shares and factors have none."""

    def back(found: Any) -> Any:
        if isinstance(found, Estimate):
            return rescaled(found, power)
        if isinstance(found, tuple):
            return type(found)(*map(back, found)) if hasattr(found, "_fields") else tuple(map(back, found))
        if not is_dataclass(found) or isinstance(found, type):
            return found
        return replace(found, **{f.name: back(getattr(found, f.name)) for f in fields(found) if f.name not in UNITLESS})

    return Diagnosis(back(d.interface), back(d.approximation), back(d.residual))


def name(names: tuple[str, ...], code: int, kind: str) -> str:
    """What a code stands for: its name in the log, or kind and number."""
    return names[code] if names else f"{kind} {code}"


def observation_name(log: Log, code: int) -> str:
    """An observation as the log writes it."""
    return (
        str(log.features[code].tolist())
        if log.features is not None
        else name(log.names.observation, code, "observation")
    )


def scaled(e: Estimate, factor: float) -> Estimate:
    """A known multiple of an estimate."""
    ends = (e.interval[0] * factor, e.interval[1] * factor)
    return replace(e, value=e.value * factor, stderr=e.stderr * abs(factor), interval=ends)


# --- interface ------------------------------------------------------------------------------------------------------


def _interface(log: Log, tell: Tell) -> InterfaceTerm:
    tell("counting what the context shows")
    try:
        cells = interface.law_of(log, onward=True)
    except NoNumber as lack:
        none = missing(lack.why)
        return InterfaceTerm(none, none, Channels(none, none, none), (), None, 0.0)
    assert isinstance(cells, Cells)
    tell("solving for the interface gap")
    gap = interface.interface_gap(cells, confidence=EACH)
    tell("whose interface hides it")
    near = gather(log) if cells.lacking(optimum=False) else cells  # the local gap needs less: no optimum over contexts
    local, tables = interface.local_gap(near), GapTables()
    if not local.known:
        return InterfaceTerm(gap, local, Channels(local, local, local), (), None, near.covered)
    channels, agents = _channels(near, tables, None), _agents(log, near, local, tables)
    return InterfaceTerm(gap, local, channels, agents, _split(log, near, local), near.covered)


class GapTables:
    """The local gap and its channels of each law, computed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Law, list[Float[np.ndarray, "S A"]]]] = {}

    def __call__(self, law: Law, which: int) -> Float[np.ndarray, "S A"]:
        """0, 1, 2: the channels; LOCAL: the local gap itself."""
        if id(law) not in self._known:
            self._known[id(law)] = law, [*interface.channel_tables(law), interface.residual(law)]
        return self._known[id(law)][1][which]


def _channels(cells: Cells, tables: GapTables, agent: int | None) -> Channels:
    reward, duration, transition = (
        interface.norm(cells, partial(tables, which=k), agent=agent, note=interface.LOWER) for k in range(3)
    )
    return Channels(reward, duration, transition)


def _agents(log: Log, cells: Cells, local: Estimate, tables: GapTables) -> tuple[Agent, ...]:
    """Every agent that acts, largest share first."""
    frame = cells.frame
    acting = np.unique(frame.agent)
    place = np.searchsorted(acting, frame.agent)[frame.observation]

    def shares(law: Law) -> Float[np.ndarray, "N"]:
        part = (law.mass * tables(law, LOCAL) ** 2).sum(axis=1)
        found = np.bincount(place, part, len(acting))
        return found / found.sum() if found.sum() > 0 else found

    whole, without = shares(cells.whole), np.stack([shares(law) for law in cells.without])
    handoffs = np.bincount(log.agent)
    out = []
    for rank, i in enumerate(np.argsort(-whole, kind="stable")):
        agent = int(acting[i])
        share = missing(Reason.NOTHING_HIDDEN, need="there is nothing to share out", n_eff=cells.n_eff)
        if local.interval[0] > 0:
            share = _percentage(jackknife(float(whole[i]), without[:, i], n_eff=cells.n_eff))
        if rank < MOST:
            own = interface.norm(cells, partial(tables, which=LOCAL), agent=agent, note=interface.LOWER)
            channels = _channels(cells, tables, agent)
        else:
            own = missing(Reason.NOT_LOOKED_AT, f"{MOST} of them", n_eff=cells.n_eff)
            channels = Channels(own, own, own)
        out.append(Agent(name(log.names.agent, agent, "agent"), int(handoffs[agent]), share, own, channels))
    return tuple(out)


def _percentage(e: Estimate) -> Estimate:
    """A share in per cent, its interval cut to what a share can be."""
    low, high = (float(np.clip(end, 0, 1)) for end in e.interval)
    return scaled(replace(e, value=float(np.clip(e.value, 0, 1)), interval=(low, high)), 100.0)


def _split(log: Log, cells: Cells, local: Estimate) -> Split | None:
    """The observation that hides most, chosen and judged on different batches; None where nothing is surely hidden."""
    if not local.interval[0] > 0:
        return None
    first: Bool[np.ndarray, "B"] = np.arange(cells.batches) % 2 == 0
    law = cells.only(first).whole
    worst = int(law.fold(law.mass * interface.residual(law) ** 2).sum(axis=1).argmax())
    rest = cells.only(~first)

    def without(law: Law) -> Float[np.ndarray, "S A"]:
        return np.where((law.frame.observation == worst)[:, None], 0.0, interface.residual(law))

    def saves(law: Law) -> float:
        return float(
            np.sqrt((law.mass * interface.residual(law) ** 2).sum()) - np.sqrt((law.mass * without(law) ** 2).sum())
        )

    less = interface.scalar(rest, saves)
    if less.known and less.interval[0] == less.interval[1]:
        less = missing(Reason.NO_SCATTER, n_eff=less.n_eff)
    return Split(
        observation_name(log, int(cells.frame.code[worst])), interface.norm(rest, interface.residual),
        interface.norm(rest, without), less,
    )  # fmt: skip


# --- approximation --------------------------------------------------------------------------------------------------


def _approximation(log: Log, width: int | None, double: bool, seed: int, tell: Tell) -> ApproximationTerm:
    if width is None:
        return ApproximationTerm("a table", exact(0.0))
    of = f"networks of width {width}, fitted on the first half of the log"
    if len(log) < 2:
        return ApproximationTerm(of, missing(Reason.FEW_HANDOFFS, "one cannot be halved", "log longer", n_eff=1.0))
    middle = len(log) // 2
    learned, judged = rows_of(log, slice(0, middle)), rows_of(log, slice(middle, len(log)))
    try:  # no need to fit what cannot be judged
        enough(judged)
    except NoNumber as none:
        place = "; ".join(filter(None, ("on half of the log", none.why.place)))
        return ApproximationTerm(of, missing(replace(none.why, place=place), n_eff=none.n_eff))
    tell(f"fitting networks of width {width}")
    found = _fit(log, learned, width, seed)
    tell("judging them on the other half")
    error, certified = value_error(judged, found.q, confidence=EACH), certificate(judged, found.q)
    if not double:
        return ApproximationTerm(of, error, certified, found.result)
    tell(f"fitting networks of width {2 * width}")
    wider = value_error_change(judged, found.q, _fit(log, learned, 2 * width, seed).q)
    return ApproximationTerm(of, error, certified, found.result, wider)


def _fit(log: Log, learned: Log, width: int, seed: int) -> Fit:
    """Networks fitted in a unit of the largest reward: float32 and the steps of Adam are made for values near 1."""
    scaled, power = learned.in_units_of(power_of(learned.reward))
    found = fit(scaled, network_of(log, width), jax.random.key(seed))
    return replace(found, q=np.ldexp(found.q, power), change=float(np.ldexp(found.change, power)))


# --- residual -------------------------------------------------------------------------------------------------------


def _residual(log: Log, tell: Tell) -> ResidualTerm:
    tell("the noise of a learner on this log")
    n = len(log)
    noise = partial(td_noise.noise, log)
    value = attempt(lambda: typical_value(noise(chance=UNSURE)))
    sent = attempt(lambda: sent_error(log, noise(chance=UNSURE)))
    tell("what correlation costs")
    # the same noise, unless a greedy option is in doubt
    whole = attempt(lambda: td_noise.residual_constant(noise(chance=CHANCE), confidence=EACH))
    alone = attempt(lambda: td_noise.control_constant(noise(chance=CHANCE)))
    return ResidualTerm(n, root(whole, n), root(alone, n), _ratio(whole, alone), value, sent)


@estimator
def root(constant: Estimate, handoffs: int) -> Estimate:
    """sqrt(constant/T) of the constant of a mean square."""
    if not constant.known:
        return constant
    if constant.value == 0:
        return replace(constant, interval=(0.0, float(np.sqrt(constant.interval[1] / handoffs))))
    _check_positive(constant)
    low, value, high = (
        float(np.sqrt(x / handoffs)) for x in (constant.interval[0], constant.value, constant.interval[1])
    )
    stderr = value * constant.stderr / constant.value / 2
    return Estimate(value, stderr, (low, high), constant.n_eff, confidence=constant.confidence)


def _check_positive(e: Estimate) -> None:
    if not e.interval[0] > 0:
        raise NoNumber(Reason.NOT_POSITIVE, need="log longer", n_eff=e.n_eff)


@estimator
def _ratio(whole: Estimate, alone: Estimate) -> Estimate:
    """A ratio of positive estimates, their intervals put together on the log scale as if independent."""
    for e in (whole, alone):
        if not e.known:
            return e
        if e.value == 0:
            raise NoNumber(Reason.NO_NOISE, n_eff=e.n_eff)
        _check_positive(e)
    value = whole.value / alone.value
    down = np.hypot(np.log(whole.value / whole.interval[0]), np.log(alone.interval[1] / alone.value))
    up = np.hypot(np.log(whole.interval[1] / whole.value), np.log(alone.value / alone.interval[0]))
    stderr = value * float(np.hypot(whole.stderr / whole.value, alone.stderr / alone.value))
    return Estimate(value, stderr, (float(value * np.exp(-down)), float(value * np.exp(up))), whole.n_eff)
