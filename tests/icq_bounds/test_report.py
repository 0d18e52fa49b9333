"""The report of a folder of results: numbers recomputed, unfinished and broken folders, and a real browser's view."""

import dataclasses
import json
import math
import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from markupsafe import Markup
from strategies import garnet

import icq_bounds as ib
from bounds.core.bound import Verdict
from estimators.decomposition import TERMS
from estimators.statistics.estimate import from_dict, log_log_slope
from icq.reason import Reason
from icq.smdp import ICSMDP
from icq_bounds.cli import main
from icq_bounds.figures.style import COLOUR
from icq_bounds.pages import html, parts, sweep
from icq_bounds.pages import n10 as report_n10
from icq_bounds.pages.report import report
from icq_bounds.sweep import engine
from icq_bounds.sweep.learning import Who
from icq_bounds.sweep.store import Store
from icq_bounds.workflows.n10 import experiment as n10
from icq_bounds.workflows.n10 import panels, summary
from icq_bounds.workflows.n10.literature import LiteratureCell

pytestmark = pytest.mark.compiles

SMALL = ("agents=2", "clusters=2", "visible=1")
EVIL = "<script>document.title = 'taken'</script>"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Three gaps, IC-Q with a table and features, and learners that are told no scalar."""
    folder = tmp_path_factory.mktemp("report") / "swept"
    axes = ("gap=0,0.5,1", "function_class=table,features", "who=icq,independent")
    main(["sweep", "--axes", *axes, "--fix", *SMALL, "--replicas", "3", "--checkpoints", "64", "256", "1024",
          "--jobs", "1", "--out", str(folder)])  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def page(swept):
    return report(swept)


def text(page):
    """What a reader reads."""
    return Markup(re.sub(r"<(style|math|svg).*?</\1>", " ", page.html, flags=re.DOTALL)).striptags()


def table(page, caption):
    """The rows of a table as text."""
    part = page.html.split(caption, 1)[1].split("<tbody>", 1)[1].split("</tbody>")[0]
    cells = (re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in part.split("<tr>")[1:])
    return [[Markup(cell).striptags() for cell in row] for row in cells]


@pytest.mark.parametrize(("width", "phone"), [(360, True), (1280, False)])
def test_a_browser_shows_the_whole_report(browser, page, tmp_path, width, phone):
    seen = browser.load(page.save(tmp_path / "report.html"), width, phone=phone)
    assert (seen.requests, seen.complaints) == ([], [])
    assert browser.js("document.documentElement.scrollWidth") <= width
    shown = browser.js(
        "Object.fromEntries([...document.querySelectorAll('section')].map(s => [s.id, Math.min("
        "...[...s.querySelectorAll('figure svg, .maths math, table')].filter(e => !e.closest('details'))"
        ".map(e => Math.min(e.getBoundingClientRect().width, e.getBoundingClientRect().height)))]))"
    )
    assert list(shown) == [
        "summary", "figures", "slopes", "cells", "verdicts", "tightness", "theorem", "provenance"
    ]  # fmt: skip
    assert all(size is None or size > 12 for size in shown.values())  # null: nothing but folded tables
    assert browser.js("document.querySelectorAll('#figures svg').length") == 6
    assert browser.js("document.querySelectorAll('#theorem .maths math').length") == 2
    browser.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.js("document.documentElement.scrollWidth") <= width
    links = "[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href')))"
    assert browser.js(links)


def test_paper_cuts_nothing(browser, page, tmp_path):
    file = page.save(tmp_path / "report.html")
    browser.load(file, 680, phone=True)  # A4 between its margins
    with browser.on_paper():
        boxes = "[...document.querySelectorAll('.scroll, .maths, figure, dl, pre')]"
        assert browser.js(f"{boxes}.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)") == []
        assert browser.js("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().height > 12)")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", browser.pdf(tmp_path / "report.pdf").read_bytes())) <= 12


def test_slopes_are_those_of_the_records(swept, page):
    """Recomputed from the file, without the report's own functions."""
    rows = {row[0]: row for row in table(page, "Log-log slope of each term")}
    with xr.open_dataset(swept / "sweep.nc", engine="h5netcdf") as ds:
        ds = ds.sel(output="average")
        e = ds["observed"].sel(term="total", who="icq", gap=[0.5, 1.0]).isel(checkpoint=-1)
        curves = np.sqrt((e**2).mean("function_class")).transpose("replica", "gap").values
        assert rows["gap"][1] == "2"
        assert rows["gap"][5] == html.estimate(log_log_slope(np.array([0.5, 1.0]), curves)).striptags()
        late = ds["observed"].sel(term="residual", who="icq")
        curves = np.sqrt((late**2).mean(["function_class", "gap"])).transpose("replica", "checkpoint").values
        expected = log_log_slope(late["checkpoint"].values.astype(float), curves)
        assert rows["handoffs"][1] == "6" and rows["handoffs"][4] == html.estimate(expected).striptags()
        at = {"term": "interface", "who": "icq", "function_class": "table"}
        interface = ds["observed"].sel(at).isel(replica=0, checkpoint=-1).values
    exact = math.log(interface[2] / interface[1]) / math.log(2)
    assert float(rows["gap"][2]) == pytest.approx(exact, abs=1e-3)


def test_verdicts_and_ratios_are_those_of_the_records(swept, page):
    with xr.open_dataset(swept / "sweep.nc", engine="h5netcdf") as ds:
        of = ds.sel(term="residual")
        names = [f"certificate{x}" for x in ("_verdict", "", "_slack")]
        code, stated, slack, e = (of[name].values.ravel() for name in (*names, "observed"))
        kept = (e > slack) & np.isfinite(stated)
        ratio = stated[kept] / e[kept]
        seen = np.sqrt((ds["observed"] ** 2).mean("replica")).sel(term="interface")
        first = (ds["bound"].sel(term="interface") / seen).where(seen > 1e-9).values
        caps = (ds["trivial_cap"] / ds["gap_exact_sup"]).sel(who="icq", gap=[0.5, 1.0]).values
    (row,) = [r for r in table(page, "Statements on each term") if r[0] == "residual, certificate"]
    assert row[1] == str((code >= 0).sum()) == str(6 * 2 * 3 * 3)
    rows = {tuple(r[:2]): r for r in table(page, "Ratio of each statement to what it bounds")}
    numbers = [len(ratio), ratio.min(), np.median(ratio), ratio.max()]
    written = [html.cell(x if isinstance(x, int) else float(x)).striptags() for x in numbers]
    assert rows["residual", "certificate"][4:] == written
    assert rows["interface gap", "bound"][3] == "3", "three gaps, however many records"
    assert rows["interface gap", "bound"][7] == f"{np.nanmax(first):.4g}"
    cap = rows["interface gap", "range of rewards"]
    assert cap[4] == "4" and cap[7] == f"{caps.max():.4g}"
    assert all(float(r[5]) >= 1 for r in rows.values() if r[4] != "0" and r[1] != "bound")


def test_the_words_follow_the_numbers():
    def errors(**terms):
        return {name: np.array(values, float) for name, values in terms.items()}

    nan = math.nan
    said = parts.largest_term(errors(interface=[1, 1, 9, nan], approximation=[2, 2, 0, 9], residual=[0, 3, 1, 9]))
    assert said == ("The residual is the largest of the three terms in 1 of 3 cells, "
                    "the interface gap in 1 and the approximation in 1.")  # fmt: skip
    assert "in every cell" in parts.largest_term(errors(interface=[1, 1], approximation=[2, 2], residual=[0, 0]))
    assert "No cell" in parts.largest_term(errors(interface=[nan], approximation=[2], residual=[0]))
    assert parts.ratios_in_words([["total", "bound", "d-norm", 0, 0, None, None, None]]).startswith("No bound is known")


def test_slopes_say_why_there_is_none():
    """Diverged runs, a single replica, an error that is 0, no finished line; what all replicas share is exact."""
    x, good = np.array([1.0, 2.0, 4.0]), np.random.default_rng(0).uniform(1.0, 2.0, (5, 3, 4))
    diverged, zero = good.copy(), good.copy()
    diverged[2, 1, 3], zero[:, 2] = np.nan, 1e-17
    for found, why in (
        (diverged, Reason.NOT_FINITE), (zero, Reason.NO_ERROR), (good[:, :, :1], Reason.FEW_RUNS),
        (good[:0], Reason.NOT_FINISHED),
    ):  # fmt: skip
        assert sweep.slope(x, found).why.reason is why
    curve = np.broadcast_to((3 * x**-0.5)[None, :, None], good.shape)
    shared = sweep.slope(x, curve)
    assert shared.value == pytest.approx(-0.5) and shared.interval == (shared.value, shared.value)
    wide = sweep.slope(x, good * x[None, :, None])
    assert wide.interval[0] < wide.value < wide.interval[1]


def test_a_sweep_is_drawn_along_an_axis_in_one_call(swept):
    """Solid: the root mean square over everything else; dashed: the root mean square of the bounds on it."""
    ds = ib.load_sweep(swept).sel(who=["icq"])
    ax = ib.plot_along(ds, "gap")
    of = {"term": "interface", "output": "average"}
    seen = np.sqrt((ds["observed"].sel(of).isel(checkpoint=-1, who=0) ** 2).mean(["function_class", "replica"]))
    stated = np.sqrt((ds["bound"].sel(of).isel(checkpoint=-1, who=0) ** 2).mean("function_class"))
    mine = [line for line in ax.get_lines() if line.get_color() == COLOUR["interface"]]
    found = {line.get_linestyle(): line.get_ydata() for line in mine}
    np.testing.assert_allclose(found["-"], seen, atol=1e-12)
    np.testing.assert_allclose(found["--"], stated, atol=1e-12)
    dashed = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    assert {line.get_color() for line in dashed} <= {COLOUR["interface"], COLOUR["approximation"]}, "no other has one"
    with pytest.raises(ValueError, match="'gapp': this sweep has gap, function_class, who, checkpoint"):
        ib.plot_along(ds, "gapp")
    plt.close("all")


def test_lines_leave_out_what_is_not_finished(swept):
    _, ds = sweep.load(swept)
    assert sweep.lines(ds, "residual", "gap").shape == (2, 3, 3)  # tables and features of IC-Q
    assert sweep.lines(ds, "residual", "who").shape[0] == 0, "independent learners have no residual"
    ds["certificate_verdict"][{"gap": 0, "function_class": 1, "who": 0, "term": 2}] = -1
    assert sweep.lines(ds, "residual", "gap").shape == (1, 3, 3)
    assert sweep.lines(ds, "residual", "checkpoint").shape == (5, 3, 3)
    tables = ds["observed"].sel(term="residual", output="average")[:, 0, 0, :, -1].values
    np.testing.assert_array_equal(sweep.lines(ds, "residual", "gap")[0], tables)


def test_diverged_runs_are_said(swept):
    spec, ds = sweep.load(swept)
    ds["observed"][{"gap": 2, "function_class": 0, "who": 0, "term": [2, 3], "replica": 1}] = np.nan
    said = text(sweep.page(spec, ds, "swept", theorem=False))
    assert "1 runs diverged and are NaN" in said
    assert f"none: {Reason.NOT_FINITE}" in said


def test_every_cell_has_its_row(page):
    rows = table(page, "Every cell")
    assert len(rows) == 12
    zero = next(row for row in rows if row[:3] == ["0", "table", "icq"])
    assert zero[3] == "0" and zero[4] == "0" and "[" in zero[5]
    independent = [row for row in rows if row[2] == "independent"]
    assert len(independent) == 6 and all(row[3:7] == ["–"] * 4 and float(row[7].split()[0]) > 0 for row in independent)


def test_the_page_says_how_to_get_it_again(swept, page):
    assert "icq sweep --family dials --axes gap=0.0,0.5,1.0 function_class=table,features who=icq,independent" in text(
        page
    )
    command = re.search(r"icq (sweep --family .*?) --out swept", text(page))
    assert command is not None
    said = command[1].split()
    assert said[said.index("--fix") + 1 : said.index("--replicas")] == [*SMALL]
    made = json.loads((swept / "sweep.json").read_text())["provenance"]
    assert made["code"] in page.html and made["versions"]["jax"] in text(page)
    assert str(swept.parent) not in page.html, "a page is to be shown around: no paths of this machine"


def test_an_unfinished_sweep_is_reported_as_such(swept, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(swept, folder)
    for file in sorted((folder / "cells").glob("*.npz"))[:5]:
        file.unlink()
    page = report(folder, theorem=False)
    assert "7 of 12 cells" in text(page) and "unfinished" in text(page)
    assert len(table(page, "Every cell")) == 7
    for file in (folder / "cells").glob("*.npz"):
        file.unlink()
    page = report(folder, theorem=False)
    assert "0 of 12 cells" in text(page) and "no record yet" in text(page)
    shutil.rmtree(folder / "cells")
    assert sweep.load(folder)[1]["finished"].all(), "sweep.nc is read where the cells are gone"
    (folder / "sweep.nc").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"sweep\.nc is damaged"):
        report(folder)
    (folder / "sweep.nc").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither cells/ nor sweep\.nc"):
        report(folder)


def test_a_violation_is_shouted(swept):
    """One planted violation: counted, listed with its place and numbers, and below 1 among the ratios."""
    spec, ds = sweep.load(swept)
    at = {"gap": 1, "function_class": 1, "who": 0, "term": 2, "output": 1, "replica": 2, "checkpoint": 1}
    ds["certificate"][at] = ds["observed"][at] / 4
    ds["certificate_verdict"][at] = [v.value for v in Verdict].index("violated")
    records = sweep.flat(ds)
    assert records.violations() == 1 and records.counts()["residual, certificate"]["violated"] == 1
    (row,) = [r for r in records.ratio_rows() if r[:2] == ["residual", "certificate"]]
    assert row[5] == pytest.approx(0.25)
    page = sweep.page(spec, ds, "swept", theorem=False)
    assert page.html.count('class="notice bad"') == 2 and text(page).count("1 statements are violated") == 2
    ((_, kind, where, _, _),) = table(page, "Violations")
    assert kind == "certificate"
    assert where == "gap 0.5, function_class features, who icq, output average, replica 2, checkpoint 256"


def test_whatever_a_folder_says_is_only_text(swept, tmp_path):
    folder = tmp_path / f"{EVIL.replace('/', '')}"
    shutil.copytree(swept, folder)
    said = json.loads((folder / "sweep.json").read_text())
    said["provenance"]["machine"] = EVIL
    (folder / "sweep.json").write_text(json.dumps(said))
    found = report(folder, theorem=False).html
    assert "<script" not in found and found.count("&lt;script") >= 3


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "neither sweep.json"),
        (lambda folder: (folder / "cells").mkdir(parents=True), "there are 0 finished cells"),
        (lambda folder: (folder.mkdir(), (folder / "summary.json").write_text("{}")), "summary.json: the key '.*' is"),
        (lambda folder: (folder.mkdir(), (folder / "summary.json").write_text("{")), "summary.json is damaged"),
    ],
)
def test_a_folder_without_results_says_what_is_missing(tmp_path, capsys, prepare, words):
    prepare(tmp_path / "r")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "r")])
    said = capsys.readouterr().err
    assert re.search(words, said) and said.count("\n") == 1


def test_the_command_writes_the_page_into_the_folder(swept, page, tmp_path, capsys):
    folder = tmp_path / "swept"
    shutil.copytree(swept, folder)
    main(["report", str(folder)])
    assert "report.html" in capsys.readouterr().out
    assert (folder / "report.html").read_text() == page.html, "the same results give the same page"


def theorem_section(m):
    return html.part("sections.html", "theorem")(parts.proved(m, 0, 100, "the workflow"))


def test_the_theorem_says_why_it_has_no_number():
    reducible = ICSMDP.create(
        prob=np.ones((2, 1, 1)), next_state=[[[0]], [[1]]], duration=np.ones((2, 1, 1), int),
        reward=np.zeros((2, 1, 1)), observation=[0, 1], agent=[0, 0], gamma=0.5,
    )  # fmt: skip
    body = theorem_section(reducible)
    assert "No numbers for the workflow" in body and "closed classes" in body and "<math" in body


def test_a_report_does_not_wait_minutes_for_the_theorem(monkeypatch):
    monkeypatch.setattr(parts, "PAIRS", 255)
    monkeypatch.setattr(parts, "theorem_report", lambda *_, **__: pytest.fail("it was computed"))
    large = garnet(0, states=64, observations=64, options=4, outcomes=2, unavailable=0.0)
    body = theorem_section(large)
    assert "256 pairs" in body and "icq theorem" in body and "<math" in body


def test_the_theorem_comes_with_its_assumptions(page):
    rows = table(page, "Assumptions")
    assert len(rows) > 10 and {row[1] for row in rows} <= {"✓ holds", "✗ FAILS"}
    assert "the middle of the grid (gap 0.5, function_class features, who independent)" in text(page)
    assert "drift in the d-norm" in page.html and "Lipschitz constant" in page.html, "the letters are explained"
    assert "gap value, d-norm" in text(page) and r"\underbrace" in page.html


MINI = dataclasses.replace(
    n10.SMOKE, name="mini", seeds=3, gaps=(0.0, 1.0), value_gaps=(0.0, 1.0), ranks=(2,), widths=(1,), mixings=(0.75,),
    mixing_times=(0.1,), network_handoffs=2048, gap_handoffs=30_000, table_handoffs=30_000, feature_handoffs=30_000,
    agents=2, width=1,
)  # fmt: skip


def invented(cell, rng):
    """A result as a cell would have it, with bounds and certificates at 1.5 times of what is observed."""
    if isinstance(cell, LiteratureCell):
        times = np.array(cell.cell.checkpoints)
        return {"times": times, "average": 30.0 / np.sqrt(times), "last": np.full(len(times), 1e9)}
    out = {
        name: np.array(v)
        for name, v in (("value_oracle", 2.0), ("value_bar", 1.9), ("value_random", 1.0), ("value_slack", 0.0))
    }
    out["value"] = rng.uniform(1.5, 1.8, cell.seeds)
    if cell.who is not Who.ICQ:
        return out
    shape = (2, cell.seeds, len(cell.checkpoints))
    for term in TERMS:
        e = rng.uniform(0.1, 0.2, shape) / np.sqrt(cell.checkpoints)
        seen = np.sqrt((e**2).mean(axis=1))
        for kind, stated in (("bound", 1.5 * seen), ("certificate", 1.5 * e)):
            out |= {f"{kind}_{term}": stated, f"{kind}_slack_{term}": np.full(stated.shape, 1e-12)}
            out[f"{kind}_verdict_{term}"] = np.full(stated.shape, "holds", dtype="<U12")
        out |= {f"observed_{term}": e, f"sup_{term}": e, f"trivial_{term}": np.array(5.0)}
    numbers = {"kappa": 0.7, "slem": 0.5, "trivial_cap": 5.0, "gap_exact_sup": 0.1, "gap_value_sup": 0.2,
               "gap_scalar": 0.3, "reference_residual": 0.0, "reference_converged": True}  # fmt: skip
    out["predicted"] = np.full(shape[-1], 0.15)
    return out | {name: np.array(value) for name, value in numbers.items()}


def test_networks_stand_under_their_bound():
    """Panel F: observed, bound and prediction of every width."""
    rng = np.random.default_rng(0)
    results = {cell: invented(cell, rng) for cell in n10.plain_cells(MINI, 0.75)}
    ax = panels.network_panel(MINI, results, 0.75)
    assert [line.get_linestyle() for line in ax.get_lines()] == ["-", "--", "-.", ":"]
    assert "width 64" in {text.get_text() for text in ax.get_legend().get_texts()}


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A finished ten-agent experiment with invented records: its summary, two figures and its cells."""
    monkeypatch.setitem(report_n10.PRESETS, "mini", MINI)
    folder, rng = tmp_path / "n10", np.random.default_rng(0)
    kept = Store(folder / "cells")
    results = {cell: invented(cell, rng) for cell in engine.in_order(n10.all_cells(MINI))}
    for cell, result in results.items():
        kept.put(cell, result)
    gaps = np.array([0.5, 1.0])
    said = summary.summarise(MINI, results, gaps, np.outer([1.0, 1.1, 1.2], gaps))
    summary.write({"experiment": "n10"} | said, folder / "summary.json")
    panels.interface_panel(MINI, results).get_figure().savefig(folder / "a_interface.svg")
    panels._both_classes(MINI, results).get_figure().savefig(folder / "b_approximation.svg")
    plt.close("all")
    return folder, said


def test_the_ten_agent_experiment(browser, experiment, tmp_path):
    folder, said = experiment
    page = report(folder, theorem=False)
    seen = browser.load(page.save(tmp_path / "report.html"), 360, phone=True)
    assert (seen.requests, seen.complaints) == ([], [])
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.js("document.querySelectorAll('#figures svg').length") == 2
    assert browser.js("document.querySelector('#b_approximation svg').getBoundingClientRect().width") > 600
    ratios = {row[0]: row[1] for row in table(page, "Residual over its prediction")}
    assert list(ratios) == list(said["residual_over_prediction"])
    for name, ratio in said["residual_over_prediction"].items():
        assert ratios[name] == html.estimate(from_dict(ratio)).striptags()
    assert "c_residual.svg, c_mixing.svg, d_bounds.svg, d_certificates.svg, e_loss.svg, f_networks.svg" in text(page)
    assert "1.5" in [row[5] for row in table(page, "Ratio of each statement")]
    assert "largest of the three terms" in text(page) and "icq reproduce n10 --preset mini" in text(page)


def test_the_summary_stands_in_for_lost_cells(experiment):
    folder, said = experiment
    (folder / "summary.json").rename(folder / "kept.json")
    next((folder / "cells").glob("*.npz")).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"{len(n10.all_cells(MINI)) - 1} of {len(n10.all_cells(MINI))} cells of n10 mini"
    ):
        report(folder)
    (folder / "kept.json").rename(folder / "summary.json")
    shutil.rmtree(folder / "cells")
    page = report(folder, theorem=False)
    rows = {tuple(row[:2]): row for row in table(page, "Ratio of each statement")}
    row = rows["residual", "bound"]
    assert row[7] == f"{said['bound']['max_ratio']['residual']:.4g}" and row[3] == "–"
    assert "cells are not there" in text(page)


def test_other_experiments_are_tables_and_figures(experiment):
    """Any summary: estimates, numbers, words, lists and tables of them."""
    folder, said = experiment
    e = said["residual_slope"]
    other = {
        "experiment": "routing", "preset": "full", "seconds": 3.5, "seeds": 8, "accuracy_at_full_view": e,
        "value": {"IC-Q": {"0": e, "2": e}, "oracle": {"2": 1.5}}, "kappa": {"0": 0.25, "2": None},
        "oracle": {"0": 1.0, "2": 2.0},
        "unsolved": [EVIL, "b", {"a": 1}], "deep": {"x": {"y": {"z": 0.125}}, "w": 7},
        "terms": {"0": {"total": 0.5, "verdict": "holds"}}, "provenance": said["provenance"],
    }  # fmt: skip
    summary.write(other, folder / "summary.json")
    page = report(folder)
    assert [row[2] for row in table(page, "Value</figcaption>")] == [html.estimate(from_dict(e)).striptags(), "1.5"]
    assert table(page, "Value</figcaption>")[1][1] == "–"
    assert table(page, "Kappa, oracle</figcaption>") == [["0", "0.25", "1"], ["2", "–", "2"]]
    assert table(page, "Terms</figcaption>")[0][2] == "✓ holds" and "<script" not in page.html
    assert table(page, "Deep: x</figcaption>") == [["y", "0.125"]] and table(page, "Deep</figcaption>") == [["w", "7"]]
    assert "icq reproduce routing --preset full" in text(page) and page.html.count("<svg") == 2
    del other["provenance"]
    summary.write(other, folder / "summary.json")
    with pytest.raises(ValueError, match=r"summary\.json: the key 'provenance' is missing"):
        report(folder)
