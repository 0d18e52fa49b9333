"""A diagnosis as one page: in the terminal, and as HTML that needs nothing else."""

from __future__ import annotations

import matplotlib.pyplot as plt
from markupsafe import Markup
from matplotlib.axes import Axes
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from estimators.statistics.estimate import Estimate
from icq_bounds.diagnosis.diagnosis import EACH, Agent, Diagnosis
from icq_bounds.diagnosis.words import CHANNELS, MEANING, Said, said
from icq_bounds.figures import style as plots
from icq_bounds.pages import html
from icq_bounds.pages.html import Cell, Page, Section

SHOWN = 12  # agents in the chart and in the terminal
BAR = 20  # letters of the longest bar
HUES = {"interface gap": plots.COLOUR["interface"], "approximation": plots.COLOUR["approximation"],
        "residual": plots.COLOUR["residual"]}  # fmt: skip
BRIEF = {"interface gap": "agents do not see everything", "approximation": "the class cannot represent the values",
         "residual": "the handoffs leave it undecided"}  # fmt: skip


def _parts(agent: Agent) -> dict[str, Estimate]:
    return agent.channels._asdict()


# --- terminal -------------------------------------------------------------------------------------------------------


def show(d: Diagnosis, s: Said, console: Console) -> None:
    """Print the page."""
    console.print(Text(s.verdict.sentence, style="bold"))
    console.print()
    table = _table("  error", "values are off by", "because")
    for term, e in d.terms.items():
        mark = "> " if term == s.verdict.dominant else "  "
        table.add_row(Text(mark + term), Text(said(e)), Text(BRIEF[term], style="dim"))
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
        after = f" -> {said(move.after)}" if move.after.result == "ok" else ""
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
        known = {key: e.value for key, e in _parts(agent).items() if e.result == "ok"}
        mostly = CHANNELS[max(known, key=lambda key: known[key])] if known and agent.share.result == "ok" else "-"
        bar, share = "", "-"
        if agent.share.result == "ok":
            bar, share = "█" * round(BAR * agent.share.value / 100), f"{agent.share.value:.0f} %"
        table.add_row(*(Text(x) for x in (agent.name, share, bar, said(agent.local), mostly)))
    return table


def _remarks(d: Diagnosis) -> list[str]:
    """What the three numbers need to be understood."""
    out = [f"Errors are root mean squares of a value over handoffs, in units of reward; the three intervals hold "
           f"together with 95 % ({EACH:.1%} each)."]  # fmt: skip
    r, a = d.residual, d.approximation
    if r.value.result == "ok":
        out[0] += f" Values themselves are {said(r.value)} large."
    if r.independent.result == "ok" and r.correlation.result == "ok":
        out.append(f"Residual: {r.handoffs} independent handoffs would leave {said(r.independent)}; correlation along "
                   f"the trajectory multiplies its square by {said(r.correlation)}.")  # fmt: skip
    if r.sent.result == "ok":
        note = f" ({r.sent.note})" if r.sent.note else ""
        out.append(f"Scalars that agents sent were off by {said(r.sent)}{note}.")
    if d.interface.gap.note and d.interface.gap.result == "ok":
        out.append(f"Interface gap: {d.interface.gap.note}.")
    if a.fitted:
        out.append(f"Approximation: of {a.of} ({a.fitted}); the noise of that half is in it.")
        if a.certified is not None and a.certified.result == "ok":
            out.append(f"It is certified to be at most {said(a.certified)}.")
    else:
        out.append("Approximation: of a table, which represents everything. --width W fits networks instead.")
    return out


# --- HTML -----------------------------------------------------------------------------------------------------------


def page(d: Diagnosis, s: Said, source: str, command: str) -> Page:
    """The self-contained page of a diagnosis."""
    sections = [
        html.section("Verdict", html.paragraph(html.strong(s.verdict.sentence)), *_terms(d)),
        *_agents(d),
        html.section("What more would buy", *_buy(s)),
        html.section("The log", *_log(s)),
        html.section("What is missing", *_missing(s)),
        html.section("The same again", html.listing(command)),
    ]
    lead = f"{source}: {s.facts['handoffs']} handoffs of {s.facts['agents']} agents"
    return html.page("Which error dominates?", lead, sections)


def _terms(d: Diagnosis) -> list[Markup]:
    lines: dict[str, Cell] = {
        term: html.join([html.estimate(e), Markup("<br>"), MEANING[term]]) for term, e in d.terms.items()
    }
    parts = []
    if any(e.result == "ok" for e in d.terms.values()):
        parts.append(_term_figure(d))
    parts += [html.heading("Values are off by"), html.definitions(lines)]
    parts += [html.paragraph(line) for line in _remarks(d)]
    r = d.residual
    split: list[list[Cell]] = [
        ["residual", r.error, f"after {r.handoffs} handoffs"],
        ["its independent part", r.independent, "what as many independent handoffs would leave"],
        ["correlation", r.correlation, "factor on the mean square; above 1 it costs, below it helps"],
        ["size of the values", r.value, "to compare errors with"],
        ["scalars that were sent", r.sent, "root mean square error of their means, per observation"],
    ]
    if d.approximation.certified is not None:
        split.append(["certified approximation", d.approximation.certified, "upper bound by the Bellman residual"])
    parts.append(html.details("More about the residual", html.table("", ("number", "estimate", "meaning"), split)))
    return parts


def _term_figure(d: Diagnosis) -> Markup:
    with plt.rc_context(plots.STYLE):
        ax = plots.axes(None, 5.6, 2.0)
        for k, (term, e) in enumerate(d.terms.items()):
            if e.result == "ok":
                _bar(ax, float(k), 0.55, e, HUES[term])
            else:
                ax.text(0, k, " not known", va="center", fontsize=9, color="0.4")
        ax.set_yticks(range(len(d.terms)), list(d.terms))
        ax.invert_yaxis()
        ax.set_xlim(left=0)
        ax.set_xlabel("values are off by (reward units)")
        ax.grid(axis="y", visible=False)
        alt = "; ".join(f"{term} {said(e)}" for term, e in d.terms.items())
        return _drawn(ax, "terms", alt, "")


def _bar(ax: Axes, y: float, height: float, e: Estimate, hue: str) -> None:
    """A horizontal bar with its interval."""
    ax.barh(y, e.value, height=height, color=hue)
    ax.plot(e.interval, [y, y], color="0.15", linewidth=1.3, solid_capstyle="butt")


def _drawn(ax: Axes, name: str, alt: str, caption: str) -> Markup:
    figure = ax.get_figure(root=True)
    assert figure is not None
    made = html.figure(figure, name, alt, caption)
    plt.close(figure)
    return made


def _agents(d: Diagnosis) -> list[Section]:
    agents = d.interface.agents
    if not agents:
        return []
    text = (
        "The local gap is what the interface hides at one handoff: by how much the best guess from the observation "
        "misses what the context shows. Its channels are what an option earns, how long it takes and where it leads."
    )
    rows: list[list[Cell]] = [[a.name, a.handoffs, a.share, a.local] for a in agents]
    parts: list[list[Cell]] = [[a.name, *a.channels] for a in agents]
    tables = [html.table("By agent", ("agent", "handoffs", "share, %", "local gap"), rows),
              html.details("Channels by agent", html.table("", ("agent", *CHANNELS.values()), parts))]  # fmt: skip
    whole = html.definitions({"all agents": d.interface.local} | dict(zip(CHANNELS.values(), d.interface.channels)))
    chart = [_agent_figure(agents[:SHOWN])] if any(a.local.result == "ok" for a in agents[:SHOWN]) else []
    body = [html.paragraph(text), *chart, html.heading("Local gap of all agents together"), whole]
    return [html.section("From whom it is hidden", *body, *tables)]


def _agent_figure(agents: tuple[Agent, ...]) -> Markup:
    """Three bars per agent."""
    with plt.rc_context(plots.STYLE):
        ax = plots.axes(None, 5.6, 0.9 + 0.48 * len(agents))
        for k, agent in enumerate(agents):
            for j, (channel, e) in enumerate(_parts(agent).items()):
                if e.result == "ok":
                    _bar(ax, k + 0.26 * (j - 1), 0.24, e, plots.CHANNEL[channel])
        ax.set_yticks(range(len(agents)), [_short(agent.name) for agent in agents])
        for label in ax.get_yticklabels():
            label.set_parse_math(False)
        ax.invert_yaxis()
        ax.set_xlim(left=0)
        ax.set_xlabel("hidden per handoff of the agent (reward units)")
        ax.grid(axis="y", visible=False)
        marks = [plt.Rectangle((0, 0), 1, 1, color=hue) for hue in plots.CHANNEL.values()]
        ax.legend(marks, list(CHANNELS.values()), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
        best = ", ".join(f"{a.name} {said(a.local)}" for a in agents[:3])
        return _drawn(ax, "agents", f"Local gap by agent and channel; the largest: {best}.", "")


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _buy(s: Said) -> list[Markup]:
    parts = []
    for move in s.moves:
        after = {"after": move.after} if move.after.result == "ok" else {}
        saves = {"saves": move.saves} if move.saves is not move.now else {}
        numbers: dict[str, Cell] = {f"{move.error} now": move.now, **after, **saves}
        comment = [html.paragraph(move.comment[0].upper() + move.comment[1:] + ".")] if move.comment else []
        parts += [html.heading(move.change[0].upper() + move.change[1:]), *comment, html.definitions(numbers)]
    return parts


def _log(s: Said) -> list[Markup]:
    order = [html.bullets(s.findings)] if s.findings else [html.paragraph("Nothing was missing, torn or out of order.")]
    large = ("handoffs", "tasks", "agents", "effective handoffs")
    rest = {key: value for key, value in s.facts.items() if key not in large}
    numbers = [html.facts({key: s.facts[key] for key in large}), html.definitions(rest)]
    return [*numbers, html.heading("What the reader found"), *order]


def _missing(s: Said) -> list[Markup]:
    found = [html.paragraph("Everything could be estimated.")]
    if s.lacks:
        found = [html.bullets(html.strong(lack.what) + f": {lack.why}" for lack in s.lacks)]
    return [html.heading("Could not be estimated"), *found, html.heading("What to log next time"),
            html.bullets(s.advice)]  # fmt: skip
