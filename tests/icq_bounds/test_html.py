"""The page kit: everything escaped, anchors unique, and what a real browser makes of a page."""

import math
import re

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from matplotlib.figure import Figure

from bounds import symbolic
from bounds.core.bound import Verdict
from bounds.core.sheet import SheetTable
from estimators.statistics.estimate import Estimate, missing
from icq.reason import Reason
from icq_bounds.pages import html

matplotlib.use("Agg")
EVIL = "</td><script>document.title = 'taken'</script><img src=https://example.org/x.png onerror=alert(1)>\"'&"


EVERYTHING = """{% extends "page.html" %}
{% from "kit.html" import section, notice, details, facts, definitions, bullets, listing, maths, figures %}
{% block body %}
{% call section("Words") %}
<p>{{ evil }}<strong>{{ evil }}</strong><code>{{ evil }}</code></p>{% call notice(bad=true) %}{{ evil }}{% endcall %}
{{ facts({evil: slope, "records": "2848"}) }}{{ bullets([evil]) }}{{ listing(evil) }}
{{ definitions({evil: evil, "commit": "a" * 64}) }}{% call details(evil) %}{{ evil }}{% endcall %}<h3>{{ evil }}</h3>
{% endcall %}
{% call section("Figures") %}{{ figures(drawings) }}{% endcall %}
{% call section("Tables") %}{% for table in tables %}{{ table }}{% endfor %}{% endcall %}
{% call section("Formulas") %}{{ maths(statement) }}<p>{{ symbol | mathml }}</p>{% endcall %}
{% endblock %}"""
WORDS = """{% from "kit.html" import section, notice, details, facts, definitions, bullets, listing %}
{% call section(text) %}{{ text }}{% endcall %}{% call notice() %}{{ text }}{% endcall %}
{% call details(text) %}{{ text }}{% endcall %}{{ facts({text: text}) }}{{ definitions({text: text}) }}
{{ bullets([text]) }}{{ listing(text) }}{{ text | badge }}{{ table }}{{ missing }}"""


def drawn(label="x < y & z"):
    figure = Figure(figsize=(5.6, 4.0))
    ax = figure.subplots()
    ax.plot([1.0, 2.0, 3.0], [1.0, 4.0, 2.0])
    ax.scatter([1.0, 2.0], [2.0, 3.0], rasterized=True)
    ax.set_title(label)
    return ax


def page(source, **data):
    """The page of a template that is only here."""
    return html.render(html.TEMPLATES.from_string(source), **{"title": EVIL, "lead": EVIL, "evil": EVIL} | data)


def everything():
    """A page with one of everything, and hostile text wherever text goes."""
    slope = Estimate(-0.488797, 0.02, (-0.5238, -0.4537), 32.0)
    rows = [[EVIL, slope, 32, Verdict.HOLDS], ["b", missing(Reason.FEW_RUNS, "1"), 3, Verdict.VIOLATED]]
    counts = {EVIL: {"holds": 500, "vacuous": 3}, "total": {"holds": 100, "violated": 3, "inapplicable": 200}}
    tables = [
        html.Grid(EVIL, (EVIL, "slope", "n", "verdict"), rows), html.verdict_table(EVIL, counts),
        html.Grid("long", ("k", "x"), [[k, k / 7] for k in range(40)]),
        html.Grid("wide", [f"column {j}" for j in range(18)], [[j * 1.234 for j in range(18)]]),
        html.of_sheet(SheetTable(EVIL, ("a", EVIL), (("holds", EVIL),))),
    ]  # fmt: skip
    drawings = [html.figure(drawn(), "one", EVIL, EVIL), html.figure(drawn(), "two", "lines")]
    statement, symbol = symbolic.statement(), r"\kappa_F<1"
    return page(EVERYTHING, slope=slope, drawings=drawings, tables=tables, statement=statement, symbol=symbol)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return everything().save(tmp_path_factory.mktemp("page") / "page.html")


@pytest.mark.parametrize(("width", "phone"), [(360, True), (1280, False)])
def test_a_browser_shows_it_and_fetches_nothing(browser, saved, width, phone):
    seen = browser.load(saved, width, phone=phone)
    assert (seen.requests, seen.complaints) == ([], [])
    assert browser.js("document.title") == EVIL
    assert browser.js("document.querySelectorAll('script, img, iframe, link').length") == 0
    assert browser.js("innerWidth") == width
    assert browser.js("document.documentElement.scrollWidth") <= width
    boxes = browser.js(
        "[...document.querySelectorAll('figure svg, math, .maths, table')]"
        ".filter(e => !e.closest('details')).map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(boxes) >= 8 and min(min(box) for box in boxes) > 8
    assert browser.js("document.querySelector('.maths').getBoundingClientRect().width") <= width
    lines = "document.querySelectorAll('.maths mtr')"
    assert browser.js(f"{lines}.length") == symbolic.statement().count(r"\\ &") + 1
    assert browser.js(f"new Set([...{lines}].map(r => Math.round(r.getBoundingClientRect().top))).size") == 8


def test_the_browser_notices_a_page_that_fetches(browser, tmp_path):
    """What the tests of pages rely on: a request is seen, a page that is too wide is seen, a script's error is seen."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'><div style='width:700px'>x</div>"
        "<img src='file:///nowhere.png'><script>nowhere()</script>"
    )
    seen = browser.load(bad, 360, phone=True)
    assert seen.requests == ["file:///nowhere.png"]
    assert any("nowhere is not defined" in text for text in seen.complaints)
    assert browser.js("document.documentElement.scrollWidth") >= 700


def test_the_page_forbids_itself_to_fetch(browser, tmp_path):
    """Should markup from elsewhere slip in, the page's own policy stops it."""
    text = everything().html.replace(
        "</main>", "<img src='https://example.org/x.png'><script>nowhere()</script></main>"
    )
    (tmp_path / "page.html").write_text(text)
    seen = browser.load(tmp_path / "page.html", 360, phone=True)
    assert seen.requests == []
    assert sum("Content Security Policy" in text for text in seen.complaints) == 2


def test_paper_cuts_nothing(browser, saved, tmp_path):
    browser.load(saved, 680, phone=True)  # A4 between its margins
    with browser.on_paper():
        cut = browser.js(
            "[...document.querySelectorAll('.scroll, .maths, figure, dl')]"
            ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel + e.className)"
        )
        assert cut == []
        assert browser.js("document.querySelector('details table').getBoundingClientRect().height") > 100
        assert browser.js("getComputedStyle(document.querySelector('details.screen')).display") == "none"
    data = browser.pdf(tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF") and 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 6


def test_a_notebook_gets_a_frame(browser, tmp_path):
    found = everything()._repr_html_()
    assert found.startswith("<iframe srcdoc=") and found.count("<") == 2
    (tmp_path / "notebook.html").write_text("<!DOCTYPE html><style>h1 {color: red}</style>" + found)
    seen = browser.load(tmp_path / "notebook.html", 900)
    assert (seen.requests, seen.complaints) == ([], [])
    inner = "document.querySelector('iframe').contentDocument"
    assert browser.js(f"{inner}.querySelectorAll('figure svg').length") == 2
    assert browser.js(f"getComputedStyle({inner}.querySelector('h1')).color") != "rgb(255, 0, 0)"


def test_names_inside_figures_do_not_clash():
    """The same drawing twice: every name differs, and every reference finds its own."""
    source = '{% extends "page.html" %}{% block body %}{{ one }}{{ two }}{% endblock %}'
    figures = [html.figure(drawn(), name, "a line") for name in ("one", "two")]
    one, two = (figure.__html__() for figure in figures)
    made = page(source, one=one, two=two).html
    assert 'clip-path="url(#one-' in one and 'href="#one-' in one
    for part, name in ((one, "one"), (two, "two")):
        ids = {piece.split('"')[0] for piece in part.split(' id="')[1:]}
        assert {piece.split(")")[0] for piece in part.split("url(#")[1:]} <= ids
        assert {piece.split('"')[0] for piece in part.split('href="#')[1:]} <= ids
        assert all(i == name or i.startswith(f"{name}-") for i in ids)
    assert made.count("<style") == 1, "the figures' own styles would reach the whole page"
    with pytest.raises(ValueError, match="'one' is used twice"):
        page(source, one=figures[0], two=figures[0])
    with pytest.raises(ValueError, match="figure name '1 a'"):
        html.figure(drawn(), "1 a", "alt")


@given(st.text(max_size=40))
def test_any_text_is_only_text(text):
    table = html.Grid(text, (text,), [[text]])
    made = html.TEMPLATES.from_string(WORDS).render(text=text, table=table, missing=missing(Reason.FEW_RUNS, text))
    bare = html.TEMPLATES.from_string(WORDS).render(
        text="", table=html.Grid("", ("",), [[""]]), missing=missing(Reason.FEW_RUNS)
    )
    assert str(escape(text)) in made and made.count(str(escape(text))) >= 15
    tags = re.compile("</?[a-z0-9]+")
    figcaption = ["<figcaption", "</figcaption"] if text else []  # a table without a caption has none
    assert sorted(tags.findall(made)) == sorted(tags.findall(bare) + figcaption)
    assert made.count("<") == bare.count("<") + len(figcaption)


def test_numbers_show_the_digits_their_interval_leaves():
    def said(value, low, high):
        return html.estimate(Estimate(value, 0.1, (low, high), 9.0)).striptags()

    assert said(-0.488797, -0.5238, -0.4537) == "-0.489 [-0.524, -0.454]"
    assert said(98.7412, 97.1, 100.4) == "98.7 [97.1, 100.4]"
    assert said(1.0, 1 - 1e-14, 1 + 1e-14) == "1.0000 [1.0000, 1.0000]"
    assert said(2.5, 2.5, 2.5) == "2.5"
    assert said(math.nan, math.nan, math.nan) == "–"
    assert said(3e-17, 0.0, 2.5e-16) == "3e-17 [0, 2.5e-16]"
    assert html.estimate(missing(Reason.FEW_RUNS)).striptags() == "none: too few runs"
    assert html.cell(math.nan) == "–" == html.cell(None)
    assert said(-0.0001, -0.1, 0.1) == "0.00 [-0.10, 0.10]" and html.cell(-0.0) == "0"
    assert html.cell(1 / 3) == "0.3333" and html.cell(12345) == "12345"


def test_columns_of_numbers_stand_right():
    made = html.Grid("", ("a", "b", "c"), [["x", 1.0, "3 (2 to 4)"], ["2", None, "-"]]).__html__()
    assert made.count('<th scope="col" class="number">') == 1 and made.count('<td class="number">') == 2
    with pytest.raises(ValueError, match="row 1 has 1 cells under 2 columns"):
        html.Grid("t", ("a", "b"), [[1, 2], [1]])


def test_verdicts_are_words_and_counted_in_full():
    made = html.verdict_table("v", {"residual": {"holds": 3, "violated": 1}, "total": {"vacuous": 4}}).__html__()
    assert "✗</span> violated" in made and "undecided" not in made
    assert 'class="holds" style="width:75.00%"' in made
    with pytest.raises(ValueError, match="'fine' is not a verdict"):
        html.verdict_table("v", {"residual": {"fine": 3}})


def test_formulas_keep_their_source_and_errors_say_what():
    made = html.part("kit.html", "maths")("$$a < b$$")
    assert "<mo>&lt;</mo>" in made and "<pre" in made and "a &lt; b" in made and "$" not in made
    assert html.mathml(r"\text{steps $<$ k\^{}-a}").count("<mtext>") == 2
    with pytest.raises(ValueError, match="nowhere"):
        html.mathml(r"\nowhere")


def test_a_page_is_saved_whole(tmp_path, monkeypatch):
    path = everything().save(tmp_path / "deep" / "page.html")
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        page('{% extends "page.html" %}{% block body %}{% endblock %}').save(path)
    assert path.read_text() == before and [p.name for p in path.parent.iterdir()] == ["page.html"]
    assert before.count("<section") == 4
