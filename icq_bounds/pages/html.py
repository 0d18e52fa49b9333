"""One self-contained HTML page: style, figures, tables and formulas in one file, nothing fetched and no script.

Every function returns `Markup`; whatever is given as plain text is escaped, so a name like <script> stays a name.  A
page is put together from sections, checked for clashing anchors, and saved or shown in a notebook:

    page("Title", "one line", [section("Results", paragraph("text"), table("caption", header, rows))]).save(path)
"""

from __future__ import annotations

import math as real
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TypeAlias

import matplotlib.pyplot as plt
from markupsafe import Markup, escape
from math_core import LatexError, LatexToMathML
from matplotlib.figure import Figure

from bounds.core.bound import Verdict
from bounds.core.sheet import Sheet, Table
from bounds.core.statement import number
from estimators.statistics.estimate import Estimate
from icq.display import Fact, Shown
from icq_bounds.pages.style import CSS
from icq_bounds.sweep import store

Cell: TypeAlias = str | int | float | Estimate | Verdict | None

# The browser itself refuses to fetch anything or to run anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SHORT = 18  # letters that stay on one line
BRIEF = 12  # rows that stay on one sheet of paper
WIDE = 9  # more columns are printed smaller
BROAD = 600  # points; a wider figure keeps its letters legible on a phone by scrolling
SIGN = {"holds": "✓", "violated": "✗", "undecided": "?", "vacuous": "○", "inapplicable": "–", "FAILS": "✗"}
_MATHS = LatexToMathML(annotation=True, fancy_error=False)
_NUMBER = re.compile(r"[-+−]?(\d[\d.,]*|inf|nan)(e[-+]?\d+)?( ?[%×x])?|-|–|")


@dataclass(frozen=True)
class Section(Shown):
    """A heading with what stands under it; the heading is an entry of the page's contents."""

    title: str
    body: Markup

    @property
    def anchor(self) -> str:
        """The heading as an address on the page."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.title), Fact("size", len(self.body), "letters")]


@dataclass(frozen=True)
class Page(Shown):
    """A finished page.  Shown in a notebook it stands in a frame of its own, so that no style leaks."""

    html: str

    def save(self, path: Path) -> Path:
        """Write the page whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write(path, self.html.encode())
        return path

    def _page_(self) -> str:
        frame = Markup('<iframe srcdoc="{}" title="report" style="width:100%;height:80vh;border:0"></iframe>')
        return frame.format(str(self.html))

    def _facts_(self) -> list[Fact]:
        title = re.search("<title>(.*?)</title>", self.html)
        return [Fact("", Markup(title[1]).unescape() if title else None),
                Fact("size", len(self.html.encode()) / 1024, "KiB")]  # fmt: skip


def page(title: str, lead: str, sections: Sequence[Section]) -> Page:
    """The whole document: title, one line under it, contents, sections.

    Raises ValueError when two anchors (section titles, figure names) are the same: links and clip paths would clash.
    """
    links = join(Markup('<a href="#{}">{}</a>').format(s.anchor, s.title) for s in sections)
    body = join(Markup('<section id="{}"><h2>{}</h2>{}</section>').format(s.anchor, s.title, s.body) for s in sections)
    nav = Markup('<nav aria-label="Contents">{}</nav>').format(links) if len(sections) > 1 else Markup()
    main = Markup('<header><h1>{}</h1><p class="lead">{}</p></header>{}{}').format(title, lead, nav, body)
    clash = [name for name, count in Counter(re.findall(r'\sid="([^"]*)"', main)).items() if count > 1]
    if clash:
        raise ValueError(f"page {title!r}: the anchor {clash[0]!r} is used twice; give sections and figures own names")
    head = Markup(
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="{}"><title>{}</title><style>{}</style>'
    ).format(Markup(POLICY), title, Markup(CSS))
    return Page(f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>{main}</main></body></html>\n')


def section(title: str, *body: str) -> Section:
    """A section of a page."""
    return Section(title, join(body))


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other; plain text is escaped."""
    return Markup("").join(parts)


def paragraph(*parts: str) -> Markup:
    """A paragraph of text and inline markup."""
    return Markup("<p>{}</p>").format(join(parts))


def heading(text: str) -> Markup:
    """A heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def strong(text: str) -> Markup:
    """Words that matter."""
    return Markup("<strong>{}</strong>").format(text)


def code(text: str) -> Markup:
    """A command, a file or a name from the code, in a line of text."""
    return Markup("<code>{}</code>").format(text)


def listing(text: str) -> Markup:
    """Several lines of code or data."""
    return Markup('<pre tabindex="0">{}</pre>').format(text)


def bullets(items: Iterable[str]) -> Markup:
    """An unordered list."""
    return Markup("<ul>{}</ul>").format(join(Markup("<li>{}</li>").format(item) for item in items))


def notice(*parts: str, bad: bool = False) -> Markup:
    """Something the reader must not miss; `bad`: something is wrong, not merely noteworthy."""
    kind, word = ("bad", "Attention: ") if bad else ("note", "Note: ")
    return Markup('<p class="notice {}" role="note"><strong>{}</strong>{}</p>').format(kind, word, join(parts))


def details(summary: str, *body: str, printed: bool = True) -> Markup:
    """Something long behind a line to click on.  On paper it is open, unless `printed` is false."""
    keep = "" if printed else "screen"
    return Markup('<details class="{}"><summary>{}</summary>{}</details>').format(keep, summary, join(body))


def facts(numbers: Mapping[str, str]) -> Markup:
    """The few numbers to remember: value large, name small."""
    cards = join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value) for name, value in numbers.items())
    return Markup('<dl class="facts">{}</dl>').format(cards)


def definitions(pairs: Mapping[str, Cell]) -> Markup:
    """Names with their values, one per line."""
    rows = join(Markup("<dt>{}</dt><dd>{}</dd>").format(name, cell(value)) for name, value in pairs.items())
    return Markup('<dl class="pairs">{}</dl>').format(rows)


def badge(said: Verdict | str) -> Markup:
    """A verdict as sign, word and colour: nothing is said by colour alone."""
    word = str(said)
    kind = word if word in SIGN else "other"
    return Markup('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>').format(
        kind, SIGN.get(word, "•"), word
    )


def estimate(e: Estimate) -> Markup:
    """A measured number with its interval, to the digits the interval leaves; or why there is none."""
    if e.result != "ok":
        return Markup('<span class="none">none: {}</span>').format(e.result)
    if real.isnan(e.value):
        return Markup("–")
    low, high = e.interval
    places = _places(e.value, high - low)
    if low == high:
        return Markup("<span>{}</span>").format(number(e.value + 0.0))
    small = round(low, places) == 0 == round(high, places)  # no decimals would be left, as of rounding errors
    value, *ends = (number(x) if small or abs(e.value) >= 1e6 else _decimal(x, places) for x in (e.value, low, high))
    return Markup('<span>{}</span> <span class="interval">[{}, {}]</span>').format(value, *ends)


def _decimal(x: float, places: int) -> str:
    """A number with this many decimals; no minus before what rounds to zero."""
    return f"{round(x, places) + 0.0:.{places}f}"


def _places(value: float, width: float) -> int:
    """Decimals that show two digits of an interval of this width, but at most six."""
    if not (real.isfinite(value) and real.isfinite(width) and width > 0):
        return 4
    return min(max(1 - real.floor(real.log10(width / 2)), 0), 6 if abs(value) < 0.01 else 4)


def cell(value: Cell) -> Markup:
    """What a table shows for a value: four digits of a float, an interval, a badge; nothing is a dash."""
    match value:
        case None:
            return Markup("–")
        case Verdict():
            return badge(value)
        case Estimate():
            return estimate(value)
        case float():
            return escape("–" if real.isnan(value) else number(value + 0.0))
        case _:
            return escape(value)


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, fold: int = 30, printed: bool = True
) -> Markup:
    """A table that scrolls inside its own box; columns of numbers stand right.

    More than `fold` rows are behind a line to click on.  Raises ValueError for a row of the wrong length.
    """
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"table {caption!r}: row {i} has {len(row)} cells under {len(header)} columns")
    marks = [Markup(_kind([row[j] for row in rows])) for j in range(len(header))]
    head = join(Markup('<th scope="col"{}>{}</th>').format(k, name) for k, name in zip(marks, header))
    lines = (join(Markup("<td{}>{}</td>").format(k, cell(value)) for k, value in zip(marks, row)) for row in rows)
    body = join(Markup("<tr>{}</tr>\n").format(line) for line in lines)
    grid = Markup(
        '<div class="scroll{}" tabindex="0" role="region" aria-label="{}">'
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(" wide" if len(header) > WIDE else "", caption or "table", head, body)
    if len(rows) > fold:
        return details(f"{caption} ({len(rows)} rows)", grid, printed=printed)
    label = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup()
    brief = " brief" if len(rows) <= BRIEF else ""
    return Markup('<figure class="table{}">{}{}</figure>').format(brief, label, grid)


def _kind(column: Sequence[Cell]) -> str:
    """Numbers stand right, short words are not broken."""
    if column and all(_numeric(value) for value in column):
        return ' class="number"'
    short = all(isinstance(v, Estimate | Verdict) or len(cell(v).striptags()) <= SHORT for v in column)
    return ' class="short"' if short else ""


def _numeric(value: Cell) -> bool:
    if isinstance(value, Markup):
        return "<" not in value and _NUMBER.fullmatch(value.unescape()) is not None
    if isinstance(value, str):
        return _NUMBER.fullmatch(value.strip()) is not None
    return value is None or (isinstance(value, int | float | Estimate) and not isinstance(value, bool))


def verdict_table(caption: str, counts: Mapping[str, Mapping[str, int]], first: str = "term") -> Markup:
    """How often each verdict was said, one row per name, with a bar; verdicts never said have no column."""
    words = [v.value for v in Verdict if any(c.get(v.value, 0) for c in counts.values())]
    unknown = {word for c in counts.values() for word in c} - {v.value for v in Verdict}
    if unknown:
        raise ValueError(f"table {caption!r}: {sorted(unknown)[0]!r} is not a verdict")
    rows: list[list[Cell]] = [
        [name, sum(c.values()), _bar(c), *(c.get(word, 0) for word in words)] for name, c in counts.items()
    ]
    return table(caption, (first, "records", "share", *map(badge, words)), rows)


def _bar(counts: Mapping[str, int]) -> Markup:
    every = max(sum(counts.values()), 1)
    parts = (
        Markup('<span class="{}" style="width:{:.2f}%"></span>').format(v.value, 100 * counts[v.value] / every)
        for v in Verdict
        if counts.get(v.value, 0)
    )
    return Markup('<span class="bar" aria-hidden="true">{}</span>').format(join(parts))


def sheet(s: Sheet, *, fold: int = 30) -> Markup:
    """A sheet of the theory (`bounds.core.sheet`): its statement and its tables; verdicts become badges."""
    return paragraph(s.statement) + join(sheet_table(t, fold=fold) for t in s.tables)


def sheet_table(t: Table, *, fold: int = 30) -> Markup:
    """A table of the theory; verdicts become badges."""
    return table(t.caption, t.header, [[_verdict(text) for text in row] for row in t.rows], fold=fold)


def _verdict(text: str) -> str:
    word, colon, why = text.partition(": ")
    return badge(word) + colon + why if word in SIGN else text


def maths(latex: str) -> Markup:
    """A displayed formula, with its LaTeX source behind a line to click on.

    Raises ValueError, naming what is not understood, for LaTeX that cannot be shown.
    """
    source = latex.strip().removeprefix("$$").removesuffix("$$").strip()
    return Markup('<div class="maths" tabindex="0">{}</div>{}').format(
        _mathml(source, True), details("LaTeX source", listing(source), printed=False)
    )


def symbol(latex: str) -> Markup:
    """A formula in a line of text."""
    return _mathml(latex.strip().removeprefix("$").removesuffix("$"), False)


def _mathml(latex: str, display: bool) -> Markup:
    flat = re.sub(r"\$([^$]*)\$", r"}\1\\text{", latex)  # the converter knows no formulas and no \^{} inside \text{}
    flat = flat.replace(r"\^{}", r"\textasciicircum{}")
    try:
        return Markup(_MATHS.convert_with_local_state(flat, displaystyle=display))
    except LatexError as error:
        raise ValueError(f"LaTeX {latex!r}: {error}") from error


def figure(drawn: Figure, name: str, alt: str, caption: str = "") -> Markup:
    """A matplotlib figure as inline vector graphics; see `drawing`."""
    out = StringIO()
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        drawn.savefig(out, format="svg", metadata={"Date": None})
    return drawing(out.getvalue(), name, alt, caption)


def drawing(svg: str, name: str, alt: str, caption: str = "") -> Markup:
    """An SVG file that matplotlib wrote, inline.

    name: its anchor, and the prefix that keeps its inner names apart from those of other figures; alt: what a reader
    who cannot see it should know.  Raises ValueError for a name that is no anchor and for what is no drawing.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise ValueError(f"figure name {name!r}: start with a letter, then letters, digits, - and _")
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    shape = re.search(r'<svg[^>]*viewBox="([-\d. ]+)"[^>]*>', svg)
    if shape is None or "</svg>" not in svg:
        raise ValueError(f"figure {name}: this is no drawing with a viewBox")
    inner = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg[shape.end() : svg.rindex("</svg>")])
    picture = Markup(
        '<svg viewBox="{}" role="img" aria-label="{}" xmlns:xlink="http://www.w3.org/1999/xlink">{}</svg>'
    ).format(Markup(shape[1]), alt, Markup(re.sub(r"\n\s*", "\n", inner)))
    if float(shape[1].split()[2]) > BROAD:
        picture = Markup('<div class="scroll broad" tabindex="0" role="region" aria-label="{}">{}</div>').format(
            caption or alt, picture
        )
    label = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup()
    return Markup('<figure id="{}">{}{}</figure>').format(name, picture, label)


def figures(*drawn: Markup) -> Markup:
    """Figures side by side where there is room."""
    return Markup('<div class="figures">{}</div>').format(join(drawn))
