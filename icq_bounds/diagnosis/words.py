"""What a diagnosis means: the verdict, what one more unit of something would buy, what is missing and what to log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np

from estimators.cells import COVERED_ONWARD, VISITS_OF_A_CELL
from estimators.decomposition import NAME
from estimators.logs.log import Log
from estimators.logs.report import MENDED, NOTED, Finding, ReaderReport
from estimators.statistics.estimate import Estimate, exact, missing, result
from icq.display import Fact, Shown
from icq.reason import Reason, Why, plain
from icq_bounds import numbers
from icq_bounds.diagnosis.diagnosis import Diagnosis, name, observation_name, scaled

MEANING = {
    "interface": "agents do not see everything that matters; no amount of data removes it",
    "approximation": "the function class cannot represent the values; a richer class removes it",
    "residual": "what the logged handoffs leave undecided for a table; it falls like 1 over their square root",
}
CHANNELS = {"reward": "what it earns", "duration": "how long it takes", "transition": "where it leads"}
FEW = 100  # handoffs of an agent below which little can be said about it


@dataclass(frozen=True)
class Conclusion(Shown):
    """dominant: the term that is surely the largest, None where that cannot be told; sentence: in words."""

    dominant: str | None
    sentence: str

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.sentence)]


@dataclass(frozen=True)
class Move(Shown):
    """What one more unit of something buys: the error that it moves, now and afterwards, and the difference."""

    change: str
    error: str
    now: Estimate
    after: Estimate
    saves: Estimate
    comment: str = ""


@dataclass(frozen=True)
class Lack(Shown):
    """What could not be estimated, why in words with the names of the log, and the reason."""

    what: str
    why: str
    reason: Why


@dataclass(frozen=True)
class Said(Shown):
    """A diagnosis in words and numbers; every page is made of this and the diagnosis."""

    verdict: Conclusion
    moves: tuple[Move, ...]
    lacks: tuple[Lack, ...]
    advice: tuple[str, ...]
    facts: dict[str, str]
    findings: tuple[str, ...]

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.verdict.sentence), Fact("moves", len(self.moves)), Fact("not estimated", len(self.lacks)),
                Fact("advice", len(self.advice)), Fact("findings", len(self.findings))]  # fmt: skip


def said(e: Estimate) -> str:
    """An estimate on one line, to the digits that its interval leaves; why there is none stands elsewhere."""
    return numbers.text(e, "not known")


def words(d: Diagnosis, log: Log, report: ReaderReport) -> Said:
    """Everything there is to say."""
    lacks = _lacks(d, log)
    concluded = _constant(log, verdict(d.terms))
    return Said(concluded, _moves(d), lacks, _advice(d, log, report, lacks), _facts(d, log, report), findings(report))


def _constant(log: Log, found: Conclusion) -> Conclusion:
    """The verdict, behind a word about rewards that are all the same."""
    if len(log) < 2 or log.reward.min() < log.reward.max():
        return found
    same = f"Rewards do not vary: all {len(log)} are {float(log.reward[0])!r}."
    return Conclusion(found.dominant, f"{same} {found.sentence}")


def verdict(terms: Mapping[str, Estimate]) -> Conclusion:
    """Which of the three terms is the largest, if their intervals can tell.

    A term dominates when its lower limit is above the upper limits of both others; an unknown term could be larger.
    """
    known = {term: e for term, e in terms.items() if e.known}
    unknown = [NAME[term] for term in terms if term not in known]
    measured = {term: e for term, e in known.items() if e.stderr > 0 or e.interval[1] > 0}
    if not measured:
        return Conclusion(None, f"Nothing can be said yet: {_and(unknown) or 'no term'} could not be estimated.")
    order = sorted(known, key=lambda term: -known[term].value)
    top, rest = order[0], order[1:]
    rivals = [term for term in rest if known[term].interval[1] >= known[top].interval[0]]
    largest, others = NAME[top], ", ".join(f"{NAME[term]} {said(known[term])}" for term in rest)
    against = f", against {others}" if others else ""
    if unknown:
        them = "it" if len(unknown) == 1 else "them"
        is_largest = f"the {largest} is the largest" if not rivals else "none is surely the largest"
        return Conclusion(
            None,
            f"Which error dominates cannot be told without the {_and(unknown)}, and this log does not show {them}. "
            f"Of what can be estimated, {is_largest}: {largest} {said(known[top])}{against}.",
        )
    if rivals:
        times = _times(known[top], known[rivals[0]])
        longer = f" About {times:.2g} times as many handoffs would tell them apart." if times else ""
        return Conclusion(
            None,
            f"Which error dominates cannot be told: the intervals of {largest} and {_and([NAME[t] for t in rivals])} "
            f"overlap. {largest} {said(known[top])}{against}.{longer}",
        )
    meaning = MEANING[top][0].upper() + MEANING[top][1:]
    return Conclusion(top, f"The {largest} dominates: {said(known[top])}{against}. {meaning}.")


def _times(first: Estimate, second: Estimate) -> float | None:
    """How many times as long a log separates two estimates, if half widths shrink like 1 over its root."""
    apart = abs(first.value - second.value)
    reach = sum((e.interval[1] - e.interval[0]) / 2 for e in (first, second))
    times = max((reach / apart) ** 2, 1.5) if apart > 0 else math.inf
    return times if times < 1000 else None


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _moves(d: Diagnosis) -> tuple[Move, ...]:
    residual, gap, local = d.residual.error, d.interface.gap, d.interface.local
    half = math.sqrt(0.5)
    whole = Move(
        "data: twice as many handoffs", "residual", residual, scaled(residual, half), scaled(residual, 1 - half),
        "every doubling buys this factor again",
    )  # fmt: skip
    nothing = gap if not gap.known else exact(0.0)
    moves = [
        whole,
        Move("interface: show every agent the whole context", NAME["interface"], gap, nothing, gap,
             "at most: what the logged context does not hold stays hidden"),
    ]  # fmt: skip
    split = d.interface.split
    if split is not None:
        moves.append(
            Move(
                f"interface: tell apart what is behind “{split.observation}”", "local gap", split.before, split.after,
                split.saves, "the single observation that hides most",
            )
        )  # fmt: skip
    elif local.known:
        none = missing(Reason.NOTHING_HIDDEN, need="no observation surely hides anything", n_eff=local.n_eff)
        moves.append(Move("interface: tell one observation apart", "local gap", local, none, none))
    if d.approximation.wider is not None:
        error = d.approximation.error
        moves.append(Move("width: networks twice as wide", "approximation", error, missing(Reason.ONLY_CHANGE),
                          d.approximation.wider, "both fitted on the same half and judged on the other"))  # fmt: skip
    return tuple(moves)


def _name(log: Log, kind: str, code: int) -> str:
    """A code of a reason with the name that the log has for it."""
    if kind == "observation" and (log.names.observation or log.features is not None):
        return f"observation {observation_name(log, code)!r}"
    names: tuple[str, ...] = getattr(log.names, kind)
    return f"{kind} {names[code]!r}" if names else plain(kind, code)


def _lacks(d: Diagnosis, log: Log) -> tuple[Lack, ...]:
    """Everything without a number; what has the same reason stands together."""
    own = {f"what the interface hides from {a.name}": a.local for a in d.interface.agents}
    every = {
        **{NAME[term]: e for term, e in d.terms.items()}, "local gap": d.interface.local, **own,
        "what correlation costs": d.residual.correlation, "size of the values": d.residual.value,
        "error of the scalars that were sent": d.residual.sent,
    }  # fmt: skip
    if d.approximation.certified is not None:
        every["certified approximation"] = d.approximation.certified
    if d.approximation.wider is not None:
        every["what twice the width buys"] = d.approximation.wider
    reasons: dict[Why, list[str]] = {}
    for what, e in every.items():
        if e.why is not None:
            reasons.setdefault(e.why, []).append(what)
    name = partial(_name, log)
    return tuple(Lack(_and(whats), why.sentence(name) + _how_long(why, log), why) for why, whats in reasons.items())


def _how_long(why: Why, log: Log) -> str:
    """How many handoffs the cells of a log need, where that is what it lacks and can be told."""
    longer = _cells_needed(log) if why.reason is Reason.RARELY_VISITED_CELLS else 0
    return f", at least {longer} handoffs" if longer else ""


def _cells_needed(log: Log) -> int:
    """Handoffs until enough of them are in cells seen often enough, judged by the cells seen so far; 0: unknown."""
    if log.context is None or len(log) < 2:
        return 0
    cell = (
        log.observation.astype(np.int64) * (int(log.context.max()) + 1) + log.context
    ) * log.num_options + log.option
    count = np.sort(np.unique(cell, return_counts=True)[1])
    rarest = count[np.searchsorted(np.cumsum(count), (1 - COVERED_ONWARD) * len(log), side="right")]
    return max(math.ceil(len(log) * VISITS_OF_A_CELL / rarest), len(log) + 1)


def _advice(d: Diagnosis, log: Log, report: ReaderReport, lacks: tuple[Lack, ...]) -> tuple[str, ...]:
    """What to log next time."""
    out = []
    if log.context is None:
        out.append("context: the richest view of the state there is when an agent decides. Without it nothing can tell "
                   "the interface gap from this log, however long it is.")  # fmt: skip
    else:
        out.append("context as rich as can be: the interface gap is about what the logged context shows beyond the "
                   "observation; what it does not hold stays invisible.")  # fmt: skip
    sent = np.isfinite(log.scalar)
    if not sent.any():
        out.append("scalar: the number sent back at each handoff. It shows what the agents believed.")
    if log.probability is None or not np.isfinite(log.probability).all():
        out.append("probability of every chosen option: certificates need it.")
    if any(lack.reason.reason.too_short for lack in lacks):
        out.append("longer: see above what was too short, and by how much.")
    rare = [name(log.names.agent, int(i), "agent") for i in np.flatnonzero(_few(log))]
    if rare:
        shown = ", ".join(rare[:5]) + (f" and {len(rare) - 5} more" if len(rare) > 5 else "")
        out.append(f"more handoffs of {shown}: fewer than {FEW} each.")
    if report.missing:
        out.append(f"every handoff: {report.missing.count} are missing between those that were logged.")
    if report.tasks > 1 and not log.follows[1:][log.task[1:] != log.task[:-1]].any():
        out.append(
            "chain, if one system works off the tasks one after the other: then correlation across tasks is seen."
        )
    return tuple(out)


def _few(log: Log) -> np.ndarray:
    count = np.bincount(log.agent, minlength=log.num_agents)
    return count < FEW


def _facts(d: Diagnosis, log: Log, report: ReaderReport) -> dict[str, str]:
    known = [e.n_eff for e in d.terms.values() if e.known and np.isfinite(e.n_eff)]
    return {
        "handoffs": str(len(log)), "tasks": str(report.tasks), "agents": str(log.num_agents),
        "observations": str(log.num_observations), "options": str(log.num_options), "gamma": f"{log.gamma:g}",
        "effective handoffs": f"{min(known):.0f}" if known else "unknown",
        "context": "no" if log.context is None else f"{int(log.context.max(initial=-1)) + 1} values",
        "scalars": f"{float(np.isfinite(log.scalar).mean()):.0%} of the rows",
    }  # fmt: skip


def findings(report: ReaderReport) -> tuple[str, ...]:
    """The reader's report, line by line; empty when everything was in order."""
    out = []
    for field, text in (MENDED | NOTED).items():
        found: Finding = getattr(report, field)
        if found:
            out.append(f"{found.count} {text} (first: {report.unit} {found.first})")
    for column, found in report.bad.items():
        out.append(f"{found.count} rows left out because of column {column} (first: {report.unit} {found.first})")
    if report.ignored:
        out.append(f"columns not part of the format, ignored: {', '.join(report.ignored)}")
    return tuple(out)


def as_json(d: Diagnosis, s: Said, report: ReaderReport) -> dict[str, Any]:
    """Everything, for machines; NaN and infinity are null."""
    return {"log": _plain(report), **_plain(s), **_plain(d)}


def _plain(x: Any) -> Any:
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if isinstance(x, Estimate):
        return {**{f.name: _plain(getattr(x, f.name)) for f in fields(x) if f.name != "why"}, "result": result(x)}
    if isinstance(x, Lack):
        return {"what": x.what, "why": x.why}
    if is_dataclass(x):
        return {f.name: _plain(getattr(x, f.name)) for f in fields(x)}
    if hasattr(x, "_asdict"):
        return {key: _plain(value) for key, value in x._asdict().items()}
    if isinstance(x, Mapping):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return [_plain(value) for value in x]
    return x
