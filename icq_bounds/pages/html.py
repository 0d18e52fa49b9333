"""Pages from templates: one self-contained HTML file each, nothing fetched and no script.

A page is a template of `templates/` and the data that it shows.  Whatever it shows goes through `cell`: text is
escaped, so a name like <script> stays a name; estimates, verdicts and tables look the same everywhere.

    render("sweep.html", title="Title", lead="one line under it", ...).save(path)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isnan
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from math_core import LatexError, LatexToMathML
from matplotlib.axes import Axes

from bounds.core import sheet
from bounds.core.bound import Verdict
from estimators.statistics.estimate import Estimate
from icq import files
from icq.display import Fact, Shown, number
from icq_bounds import numbers

Entry: TypeAlias = str | int | float | Estimate | Verdict | None

SHORT = 18  # letters that stay on one line
FOLD = 30  # rows from which a table is behind a line to click on
BROAD = 600  # points; a wider figure keeps its letters legible on a phone by scrolling
SIGN = {"holds": "✓", "violated": "✗", "undecided": "?", "vacuous": "○", "inapplicable": "–", "FAILS": "✗"}
_MATHS = LatexToMathML(annotation=True, fancy_error=False)
_NUMBER = re.compile(r"[-+−]?(\d[\d.,]*|inf|nan)(e[-+]?\d+)?( ?[%×x])?|-|–|")


@dataclass(frozen=True)
class Page(Shown):
    """A finished page.  Shown in a notebook it stands in a frame of its own, so that no style leaks."""

    html: str

    def save(self, path: Path) -> Path:
        """Write the page whole or not at all; letters that are none (of a file name, say) as escapes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, self.html.encode(errors="backslashreplace"))
        return path

    def _page_(self) -> str:
        frame = Markup('<iframe srcdoc="{}" title="report" style="width:100%;height:80vh;border:0"></iframe>')
        return frame.format(str(self.html))

    def _facts_(self) -> list[Fact]:
        title = re.search("<title>(.*?)</title>", self.html)
        size = Fact("size", len(self.html.encode()) / 1024, "KiB")
        return [Fact("", Markup(title[1]).unescape() if title else None), size]


@dataclass(frozen=True)
class Grid(Shown):
    """A table of a page; columns of numbers stand right.  fold: more rows are behind a line to click on.

    Raises ValueError for a row of the wrong length.
    """

    caption: str
    header: Sequence[Entry]
    rows: Sequence[Sequence[Entry]]
    fold: int = FOLD

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(
                    f"table {self.caption!r}: row {i} has {len(row)} cells under {len(self.header)} columns"
                )

    @property
    def kinds(self) -> list[Markup]:
        """The class of each column, as an attribute: numbers stand right, short words are not broken."""
        return [_kind([row[j] for row in self.rows]) for j in range(len(self.header))]

    def __html__(self) -> Markup:
        return part("kit.html", "table")(self)

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.caption), Fact("rows", len(self.rows)), Fact("columns", len(self.header))]


@dataclass(frozen=True)
class Drawing(Shown):
    """A drawing of a page.

    name: its anchor; box: width and height in the drawing's own units; alt: what a reader who cannot see it should
    know.
    """

    name: str
    box: str
    inner: Markup
    alt: str
    caption: str

    @property
    def broad(self) -> bool:
        """Too wide for the letters to be legible on a phone."""
        return float(self.box.split()[2]) > BROAD

    def __html__(self) -> Markup:
        return part("kit.html", "figure")(self)

    def _facts_(self) -> list[Fact]:
        return [Fact("", self.name), Fact("", self.alt)]


def render(template: str | Template, **data: Any) -> Page:
    """The page of a template, or of the one of this name; page.html wants a title and a lead.

    Raises ValueError when two anchors (section titles, figure names) are the same: links and clip paths would clash.
    """
    text = TEMPLATES.get_template(template).render(data)
    clash = [name for name, count in Counter(re.findall(r'\sid="([^"]*)"', text)).items() if count > 1]
    if clash:
        raise ValueError(
            f"page {data['title']!r}: the anchor {clash[0]!r} is used twice; give sections and figures own names"
        )
    return Page(text)


def part(template: str, macro: str) -> Any:
    """A macro of a template as a function that gives Markup."""
    return getattr(TEMPLATES.get_template(template).module, macro)


def cell(value: Any) -> Markup:
    """How a page shows a value: four digits of a float, an interval, a badge; nothing is a dash; text is escaped."""
    match value:
        case None:
            return Markup("–")
        case Verdict():
            return badge(value.value)
        case Estimate():
            return estimate(value)
        case float():
            return escape("–" if isnan(value) else number(value))
        case _:
            return escape(value)


def badge(word: str) -> Markup:
    """A verdict as sign, word and colour: nothing is said by colour alone."""
    kind, sign = (word, SIGN[word]) if word in SIGN else ("other", "•")
    return Markup('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>').format(kind, sign, word)


def estimate(e: Estimate) -> Markup:
    """A measured number with its interval, to the digits the interval leaves; or why there is none."""
    if not e.known:
        return Markup('<span class="none">none: {}</span>').format(str(e.why))
    value, *ends = numbers.parts(e)
    interval = Markup(' <span class="interval">[{}, {}]</span>').format(*ends) if ends else ""
    return Markup("<span>{}</span>{}").format(value, interval)


def _kind(column: Sequence[Entry]) -> Markup:
    if column and all(_numeric(value) for value in column):
        return Markup(' class="number"')
    short = all(isinstance(v, Estimate | Verdict) or len(cell(v).striptags()) <= SHORT for v in column)
    return Markup(' class="short"' if short else "")


def _numeric(value: Entry) -> bool:
    if isinstance(value, str):
        return "<" not in value and _NUMBER.fullmatch(Markup(value).unescape().strip()) is not None
    return value is None or (isinstance(value, int | float | Estimate) and not isinstance(value, bool))


def verdict_table(caption: str, counts: Mapping[str, Mapping[str, int]]) -> Grid:
    """How often each verdict was said, one row per term, with a bar; verdicts never said have no column."""
    words = [v.value for v in Verdict if any(c.get(v.value, 0) for c in counts.values())]
    unknown = {word for c in counts.values() for word in c} - {v.value for v in Verdict}
    if unknown:
        raise ValueError(f"table {caption!r}: {sorted(unknown)[0]!r} is not a verdict")
    bar = part("kit.html", "bar")
    rows: list[list[Entry]] = [
        [name, sum(c.values()), bar({w: c.get(w, 0) for w in words}), *(c.get(w, 0) for w in words)]
        for name, c in counts.items()
    ]
    return Grid(caption, ("term", "records", "share", *map(badge, words)), rows)


def of_sheet(t: sheet.SheetTable, fold: int = FOLD) -> Grid:
    """A table of the theory (`bounds.core.sheet`); verdicts become badges."""
    return Grid(t.caption, t.header, [[_verdict(text) for text in row] for row in t.rows], fold)


def _verdict(text: str) -> str:
    word, colon, why = text.partition(": ")
    return badge(word) + colon + why if word in SIGN else text


def mathml(latex: str, display: bool = False) -> Markup:
    """A formula; one of its own line with `display`.

    Raises ValueError, naming what is not understood, for LaTeX that cannot be shown.
    """
    flat = re.sub(r"\$([^$]*)\$", r"}\1\\text{", bare(latex))  # no formulas and no \^{} inside \text{}
    flat = flat.replace(r"\^{}", r"\textasciicircum{}")
    try:
        return Markup(_MATHS.convert_with_local_state(flat, displaystyle=display))
    except LatexError as error:
        raise ValueError(f"LaTeX {latex!r}: {error}") from error


def bare(latex: str) -> str:
    """LaTeX without the dollars around it."""
    return latex.strip().strip("$").strip()


def figure(ax: Axes, name: str, alt: str, caption: str = "") -> Drawing:
    """The figure of these axes, which is closed, as inline vector graphics; see `drawing`."""
    drawn, out = ax.get_figure(root=True), StringIO()
    assert drawn is not None
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        drawn.savefig(out, format="svg", metadata={"Date": None})
    plt.close(drawn)
    return drawing(out.getvalue(), name, alt, caption)


def drawing(svg: str, name: str, alt: str, caption: str = "") -> Drawing:
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
    return Drawing(name, shape[1], Markup(re.sub(r"\n\s*", "\n", inner)), alt, caption)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _contents(body: str) -> list[tuple[str, Markup]]:
    """The anchors and titles of the sections of a page."""
    return [(anchor, Markup(title)) for anchor, title in re.findall(r'<section id="(.*?)"><h2>(.*?)</h2>', body)]


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, finalize=cell,
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters |= {
    "anchor": _anchor, "contents": _contents, "mathml": mathml, "bare": bare, "badge": badge, "sheet": of_sheet,
    "begin": lambda text: text[:1].upper() + text[1:],
}  # fmt: skip
