"""A diagnosis as one page: in the terminal, and as HTML that needs nothing else."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from estimators.decomposition import NAME
from estimators.statistics.estimate import Estimate
from icq.display import printable
from icq_bounds.diagnosis.diagnosis import EACH, Agent, Diagnosis
from icq_bounds.diagnosis.words import CHANNELS, MEANING, Said, said
from icq_bounds.figures import style as plots
from icq_bounds.pages import html
from icq_bounds.pages.html import Drawing, Entry, Grid, Page

SHOWN = 12  # agents in the chart and in the terminal
BAR = 20  # letters of the longest bar
LARGE = ("handoffs", "tasks", "agents", "effective handoffs")  # the facts of a log to remember
BRIEF = {"interface": "agents do not see everything", "approximation": "the class cannot represent the values",
         "residual": "the handoffs leave it undecided"}  # fmt: skip


def _parts(agent: Agent) -> dict[str, Estimate]:
    return agent.channels._asdict()


def _printable(part: Any) -> Any:
    """The same with every text inside, names of the log among them, free of control characters and escape sequences."""
    if isinstance(part, str):
        return printable(part)
    if isinstance(part, tuple):
        return type(part)(*map(_printable, part)) if hasattr(part, "_fields") else tuple(map(_printable, part))
    if isinstance(part, dict):
        return {key: _printable(value) for key, value in part.items()}
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{f.name: _printable(getattr(part, f.name)) for f in fields(part) if f.init})
    return part


# --- terminal -------------------------------------------------------------------------------------------------------


def show(d: Diagnosis, s: Said, console: Console) -> None:
    """Print the page."""
    d, s = _printable(d), _printable(s)
    console.print(Text(s.verdict.sentence, style="bold"))
    console.print()
    table = _table("  error", "values are off by", "because")
    for term, e in d.terms.items():
        mark = "> " if term == s.verdict.dominant else "  "
        table.add_row(Text(mark + NAME[term]), Text(said(e)), Text(BRIEF[term], style="dim"))
    console.print(table)
    for line in _remarks(d):
        console.print(Text(line, style="dim"))
    if d.interface.agents:
        console.print()
        console.print(_agent_table(d.interface.agents))
        hidden = len(d.interface.agents) - SHOWN
        if hidden > 0:
            console.print(Text(f"{hidden} more agents in --json and --html", style="dim"))
    console.print()
    console.print(Text("What one more unit buys", style="bold"))
    for move in s.moves:
        after = f" -> {said(move.after)}" if move.after.known else ""
        saves = f", saves {said(move.saves)}" if move.saves is not move.now else ""
        console.print(_indent(move.change))
        console.print(_indent(f"{move.error} {said(move.now)}{after}{saves}", 4, "dim"))
    console.print()
    console.print(Text("Log: " + ", ".join(f"{key} {value}" for key, value in s.facts.items())))
    for line in s.findings:
        console.print(_indent(line))
    if s.lacks:
        console.print(Text("Could not be estimated", style="bold"))
        for lack in s.lacks:
            console.print(_indent(f"{lack.what}: {lack.why}"))
    console.print(Text("What to log next time", style="bold"))
    for line in s.advice:
        console.print(_indent(line))


def _indent(text: str, by: int = 2, style: str = "") -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, by))


def _table(*header: str) -> Table:
    return Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _agent_table(agents: tuple[Agent, ...]) -> Table:
    table = _table("agent", "share", "of what is hidden", "local gap", "mostly")
    for agent in agents[:SHOWN]:
        known = {key: e.value for key, e in _parts(agent).items() if e.known}
        mostly = CHANNELS[max(known, key=lambda key: known[key])] if known and agent.share.known else "-"
        bar, share = "", "-"
        if agent.share.known:
            bar, share = "█" * round(BAR * agent.share.value / 100), f"{agent.share.value:.0f} %"
        table.add_row(*(Text(x) for x in (agent.name, share, bar, said(agent.local), mostly)))
    return table


def _remarks(d: Diagnosis) -> list[str]:
    """What the three numbers need to be understood."""
    out = [f"Errors are root mean squares of a value over handoffs, in units of reward; the three intervals hold "
           f"together with 95 % ({EACH:.1%} each)."]  # fmt: skip
    r, a = d.residual, d.approximation
    if r.value.known:
        out[0] += f" Values themselves are {said(r.value)} large."
    if r.independent.known and r.correlation.known:
        out.append(f"Residual: {r.handoffs} independent handoffs would leave {said(r.independent)}; correlation along "
                   f"the trajectory multiplies its square by {said(r.correlation)}.")  # fmt: skip
    if r.sent.known:
        note = f" ({r.sent.note})" if r.sent.note else ""
        out.append(f"Scalars that agents sent were off by {said(r.sent)}{note}.")
    if d.interface.gap.note and d.interface.gap.known:
        out.append(f"Interface gap: {d.interface.gap.note}.")
    if a.certified is not None:
        out.append(f"Approximation: of {a.of} ({a.fitted}); the noise of that half is in it.")
        if a.certified.known:
            out.append(f"It is certified to be at most {said(a.certified)}.")
    else:
        out.append("Approximation: of a table, which represents everything. --width W fits networks instead.")
    return out


# --- HTML -----------------------------------------------------------------------------------------------------------


def page(d: Diagnosis, s: Said, source: str, command: str) -> Page:
    """The self-contained page of a diagnosis."""
    d, s, source = _printable(d), _printable(s), printable(source)
    agents = d.interface.agents
    known = any(a.local.known for a in agents[:SHOWN])
    return html.render(
        "diagnosis.html",
        title="Which error dominates?",
        lead=f"{source}: {s.facts['handoffs']} handoffs of {s.facts['agents']} agents",
        d=d, s=s, command=command, meaning=MEANING, name=NAME, remarks=_remarks(d), residual=_residual_table(d),
        terms_drawn=_term_figure(d) if any(e.known for e in d.terms.values()) else None,
        agents_drawn=_agent_figure(agents[:SHOWN]) if known else None,
        together={"all agents": d.interface.local} | dict(zip(CHANNELS.values(), d.interface.channels)),
        by_agent=Grid("By agent", ("agent", "handoffs", "share, %", "local gap"),
                      [[a.name, a.handoffs, a.share, a.local] for a in agents]),
        channels=Grid("", ("agent", *CHANNELS.values()), [[a.name, *a.channels] for a in agents]),
        large={key: s.facts[key] for key in LARGE},
        small={key: value for key, value in s.facts.items() if key not in LARGE},
    )  # fmt: skip


def _residual_table(d: Diagnosis) -> Grid:
    r = d.residual
    rows: list[list[Entry]] = [
        ["residual", r.error, f"after {r.handoffs} handoffs"],
        ["its independent part", r.independent, "what as many independent handoffs would leave"],
        ["correlation", r.correlation, "factor on the mean square; above 1 it costs, below it helps"],
        ["size of the values", r.value, "to compare errors with"],
        ["scalars that were sent", r.sent, "root mean square error of their means, per observation"],
    ]
    if d.approximation.certified is not None:
        rows.append(["certified approximation", d.approximation.certified, "upper bound by the Bellman residual"])
    return Grid("", ("number", "estimate", "meaning"), rows)


def _term_figure(d: Diagnosis) -> Drawing:
    with plt.rc_context(plots.STYLE):
        ax = plots.axes(None, 5.6, 2.0)
        for k, (term, e) in enumerate(d.terms.items()):
            if e.known:
                _bar(ax, float(k), 0.55, e, plots.COLOUR[term])
            else:
                ax.text(0, k, " not known", va="center", fontsize=9, color="0.4")
        _rows_named(ax, [NAME[term] for term in d.terms], "values are off by (reward units)")
        alt = "; ".join(f"{NAME[term]} {said(e)}" for term, e in d.terms.items())
        return html.figure(ax, "terms", alt)


def _bar(ax: Axes, y: float, height: float, e: Estimate, hue: str) -> None:
    """A horizontal bar with its interval."""
    ax.barh(y, e.value, height=height, color=hue)
    ax.plot(e.interval, [y, y], color="0.15", linewidth=1.3, solid_capstyle="butt")


def _rows_named(ax: Axes, names: list[str], label: str) -> None:
    """Names of the rows from the top, as they are; the lengths of bars measure `label`."""
    ax.set_yticks(range(len(names)), names)
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel(label)
    ax.grid(axis="y", visible=False)


def _agent_figure(agents: tuple[Agent, ...]) -> Drawing:
    """Three bars per agent."""
    with plt.rc_context(plots.STYLE):
        ax = plots.axes(None, 5.6, 0.9 + 0.48 * len(agents))
        for k, agent in enumerate(agents):
            for j, (channel, e) in enumerate(_parts(agent).items()):
                if e.known:
                    _bar(ax, k + 0.26 * (j - 1), 0.24, e, plots.CHANNEL[channel])
        _rows_named(ax, [_short(a.name) for a in agents], "hidden per handoff of the agent (reward units)")
        marks = [plt.Rectangle((0, 0), 1, 1, color=hue) for hue in plots.CHANNEL.values()]
        ax.legend(marks, list(CHANNELS.values()), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
        best = ", ".join(f"{a.name} {said(a.local)}" for a in agents[:3])
        return html.figure(ax, "agents", f"Local gap by agent and channel; the largest: {best}.")


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
