"""One style for every figure: readable ticks, names where the lines end, colours from one place."""

import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from icq_bounds.figures import style

matplotlib.use("Agg")
ROOT = Path(__file__).parents[2]
COLOUR = re.compile(r"""["'](#[0-9A-Fa-f]{3,8}|C\d|tab:\w+)["']""")


@pytest.fixture
def ax():
    ax = style.axes(None)
    yield ax
    plt.close(ax.figure)


def lines(ax, ends, start=1.0):
    for k, end in enumerate(ends):
        ax.plot([1.0, 10.0], [start, end], label=f"line {k}")


def names(ax):
    return [text for text in ax.texts if text.get_text().startswith("line")]


def test_names_stand_at_the_ends_of_their_lines_and_apart(ax):
    ends = [1.0, 1.001, 1.002, 3.0]
    lines(ax, ends)
    assert style.label_ends(ax) is ax and ax.get_legend() is None
    ax.figure.canvas.draw()
    boxes = {t.get_text(): t.get_window_extent() for t in names(ax)}
    order = [boxes[f"line {k}"] for k in np.argsort(ends)]
    assert len(order) == 4 and all(below.y1 <= above.y0 + 1 for below, above in pairwise(order))
    assert all(box.x0 >= ax.bbox.x1 for box in order)
    middle = (order[-1].y0 + order[-1].y1) / 2
    assert middle == pytest.approx(ax.transData.transform((10.0, 3.0))[1], abs=12)  # a lone name stays at its line
    for line, text in zip(ax.get_lines(), sorted(names(ax), key=lambda t: t.get_text())):
        assert text.get_color() == pytest.approx(tuple(style.DARKER * x for x in to_rgb(line.get_color())))


@pytest.mark.parametrize("hide", [lambda ax: ax.plot([1, 2], [1, 2], label="short"),
                                  lambda ax: ax.plot([1, 10], [np.nan] * 2, label="nothing"),
                                  lambda ax: ax.errorbar([5], [1], [1], fmt="o", label="points"),
                                  lambda ax: lines(ax, np.arange(40.0)), lambda ax: lines(ax, [1.0] * 4)])  # fmt: skip
def test_a_legend_where_names_cannot_stand_at_the_ends(ax, hide):
    lines(ax, [1.0, 2.0])
    hide(ax)
    style.label_ends(ax)
    assert ax.get_legend() is not None and not names(ax)


@pytest.mark.parametrize("low, high, expected", [
    (1e-3, 10.0, ["0.001", "0.01", "0.1", "1", "10"]), (300.0, 5e5, ["1000", "10k", "100k"]),
    (0.15, 0.9, ["0.2", "0.5"]), (1e-9, 1e-5, ["1e-9", "1e-8", "1e-7", "1e-6", "1e-5"]),
])  # fmt: skip
def test_ticks_of_logarithmic_axes_are_plain_numbers(ax, low, high, expected):
    ax.set(yscale="log", ylim=(low, high))
    style.readable(ax).figure.canvas.draw()
    marks = [t for t in ax.yaxis.get_major_ticks() if low <= t.get_loc() <= high * (1 + 1e-9)]
    assert [t.label1.get_text() for t in marks] == expected
    assert not any(t.label1.get_text() for t in ax.yaxis.get_minor_ticks())


def test_ticks_of_long_axes_need_no_power_beside_them(ax):
    assert [style.plain(x) for x in (-1e6, 0.0, 1.5e6, 25_000.0)] == ["-1M", "0", "1.5M", "25k"]
    ax.plot([0, 3e6], [0, 1])
    ax.set(xlim=(0, 3e6))
    style.readable(ax).figure.canvas.draw()
    assert "1M" in [t.get_text() for t in ax.get_xticklabels()] and not ax.xaxis.get_offset_text().get_text()


def test_ticks_that_a_panel_chose_stay(ax):
    ax.set(xscale="log", xlim=(1, 20))
    ax.set_xticks([1, 4, 16], ["one", "four", "sixteen"])
    style.readable(ax).figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["one", "four", "sixteen"]
    assert not ax.xaxis.get_minor_ticks()


def strange(source):
    """Colours of the library's own cycle, and literal ones outside the set that colour-blind people can tell apart."""
    return [c for c in COLOUR.findall(source) if c.upper() not in style.OKABE_ITO]


def test_colours_of_figures_are_of_one_safe_set():
    files = [
        file for room in ("icq_bounds", "audits", "notebooks", "benchmarks") for file in (ROOT / room).rglob("*.py")
    ]
    drawing = {f.name: f.read_text() for f in files if "matplotlib" in f.read_text()}
    assert len(drawing) > 5
    assert {name: found for name, source in drawing.items() if (found := strange(source))} == {}
    assert strange('ax.plot(x, color="C1"); ax.bar(x, color="#ff0000")') == ["C1", "#ff0000"]  # planted
    assert {*style.COLOUR.values(), *style.WHO.values(), *style.CHANNEL.values()} <= set(style.OKABE_ITO)
