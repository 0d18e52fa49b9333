"""Every notebook is one with its script, was run from top to bottom, and shows nothing of a machine or of an error."""

import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.cli import jupytext as command
from nbclient.exceptions import CellExecutionError
from test_docs import MACHINE, fragile_mathematics, problem, spans
from test_site import dead_links

from audits.notebooks import FOLDER, METADATA, WIDGET, cells, main, pair, render, scripts, steady

SCRIPTS = scripts()
DOTTED = re.compile(r"(icq|synthetic|estimators|bounds|icq_bounds|audits)(\.\w+)+")
LONGEST = 20  # lines of a cell that still fits a glance


def outputs(nb):
    return [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(output):
    """Everything readable of an output; pictures are text too."""
    data = output.get("data", {})
    return "\n".join([output.get("text", ""), *(str(data[kind]) for kind in data if kind != "image/png")])


def problems(nb):
    """What is wrong with an executed notebook."""
    out = []
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        out.append("not executed from top to bottom")
    for output in outputs(nb):
        if output.output_type == "error":
            out.append(f"error {output.ename}")
        if output.get("name") == "stderr":
            out.append(f"complaint {output.text[:60]!r}")
        if WIDGET in output.get("data", {}):
            out.append("a widget that needs a kernel")
        said = shown(output)
        out += [f"machine {found}" for found in MACHINE.findall(said)]
        out += [f"address {found}" for found in re.findall(r" at 0x[0-9a-f]+", said)]
    return out


def markdown(nb):
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def read(script):
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def test_every_script_has_its_notebook_and_every_notebook_its_script():
    assert SCRIPTS
    assert [s.with_suffix(".ipynb") for s in SCRIPTS] == sorted(FOLDER.glob("*.ipynb"))
    numbers = [int(s.name[:2]) for s in SCRIPTS]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_script_and_notebook_have_the_same_cells(script):
    ours, theirs = pair(script)
    assert ours == theirs, "run `make notebooks`"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_a_committed_notebook_was_run_and_says_nothing_of_the_machine(script):
    nb = read(script)
    assert problems(nb) == []
    assert nb.metadata == METADATA
    assert any("image/svg+xml" in o.get("data", {}) or "image/png" in o.get("data", {}) for o in outputs(nb))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_what_a_notebook_keeps_does_not_change_when_it_is_kept_again(script):
    text = script.with_suffix(".ipynb").read_text()
    assert nbformat.writes(steady(nbformat.reads(text, as_version=4))) + "\n" == text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_cells_are_short_and_text_is_sound(script):
    nb = read(script)
    text = markdown(nb)
    assert text.startswith("# ")
    assert max(len(cell.source.splitlines()) for cell in nb.cells if cell.cell_type == "code") <= LONGEST
    assert dead_links(script, text) == []
    assert fragile_mathematics(text) == []
    assert [span for span in spans(text) if DOTTED.fullmatch(span) and problem(span)] == []


# --- the checks themselves ------------------------------------------------------------------------------------------

PERCENT = "# %% [markdown]\n# # A title\n\n# %%\nx = 1\n\n# %%\nprint(x)\n"


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """A script beside the notebook of its run."""
    script = tmp_path / "01_one.py"
    script.write_text(PERCENT)
    nb = jupytext.reads(PERCENT, fmt="py:percent")
    for count, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    nb.cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    script.with_suffix(".ipynb").write_text(nbformat.writes(steady(nb)) + "\n")
    return script


def test_a_sound_pair_passes(executed):
    ours, theirs = pair(executed)
    assert ours == theirs == [("markdown", "# A title"), ("code", "x = 1"), ("code", "print(x)")]
    assert problems(read(executed)) == []
    assert scripts(executed.parent) == [executed]


@pytest.mark.parametrize(("old", "new"), [("x = 1", "x = 2"), ("A title", "The title"), ("# %%\nx = 1\n\n", "")])
def test_a_drift_between_script_and_notebook_is_caught(executed, old, new):
    assert old in PERCENT
    executed.write_text(PERCENT.replace(old, new))
    ours, theirs = pair(executed)
    assert ours != theirs


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[]), "error ValueError"),
        (stream("a warning\n", "stderr"), "complaint 'a warning\\n'"),
        (stream("see /work/x\n"), "machine /work/"),
        (stream("in /home/me\n"), "machine /home/"),
        (stream("<Axes at 0x7f00>\n"), "address  at 0x7f00"),
        (nbformat.v4.new_output("display_data", {"text/html": "<a href='file://x'>"}), "machine file://"),
        (nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}}), "a widget that needs a kernel"),
    ],
)
def test_outputs_that_should_not_be_kept_are_caught(executed, output, said):
    nb = read(executed)
    nb.cells[1].outputs = [output]
    assert problems(nb) == [said]


@pytest.mark.parametrize("counts", [(2, 1), (1, None), (1, 3)])
def test_a_notebook_run_out_of_order_is_caught(executed, counts):
    nb = read(executed)
    for cell, count in zip(nb.cells[1:], counts, strict=True):
        cell.execution_count = count
    assert problems(nb) == ["not executed from top to bottom"]


def test_what_changes_between_runs_is_not_kept(executed):
    nb, before = read(executed), executed.with_suffix(".ipynb").read_text()
    nb.metadata = {"kernelspec": {"name": "mine"}, "widgets": {"state": {}}}
    for cell in nb.cells:
        cell.id, cell.metadata = "another", {"execution": {"start": "now"}}
    slider = nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": "a slider"})
    nb.cells[1].outputs = [slider]
    assert nbformat.writes(steady(nb)) + "\n" == before


def test_equal_cells_have_different_names():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x") for _ in range(3)])
    assert len({cell.id for cell in steady(nb).cells}) == 3
    assert cells(nb) == [("code", "x")] * 3


def test_a_run_follows_the_last_edit_and_a_second_run_changes_nothing(tmp_path):
    script = tmp_path / "01_one.py"
    shutil.copy(FOLDER / "jupytext.toml", tmp_path)
    script.write_text("# %%\nimport sys\n\n# %%\nprint(6 * 7)\nsys.version_info.major\n")
    notebook = render(script)
    first = script.read_text(), notebook.read_text()
    assert problems(read(script)) == []
    assert [shown(output).strip() for output in outputs(read(script))] == ["42", "3"]
    render(script)
    assert (script.read_text(), notebook.read_text()) == first
    notebook.write_text(first[1].replace("print(6 * 7)", "print(6 + 7)").replace("42", "13"))
    command(["--sync", "--quiet", str(script)])
    assert "print(6 + 7)" in script.read_text()


def test_a_cell_that_fails_is_said(tmp_path):
    script = tmp_path / "01_one.py"
    shutil.copy(FOLDER / "jupytext.toml", tmp_path)
    script.write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        render(script)


def test_an_unknown_notebook_is_refused_with_those_there_are():
    with pytest.raises(SystemExit, match=f"no notebook begins with 99; there are {SCRIPTS[0].stem}"):
        main(("99",))
