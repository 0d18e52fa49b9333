"""The report of any finished experiment, from its summary.json and its figures.

A summary is a tree: an estimate is a dictionary with `value` and `interval` (icq_bounds.workflows.n10.as_dict),
a dictionary of leaves is a table of two columns, a dictionary of those a table with rows and columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bounds.core.bound import Verdict
from estimators.statistics.estimate import Estimate
from icq_bounds.pages import html
from icq_bounds.pages.html import Cell, Page, Section
from icq_bounds.pages.parts import provenance_section

SETTINGS = ("experiment", "preset", "seconds", "provenance")


def experiment_report(folder: Path, said: Mapping[str, Any]) -> Page:
    """Figures, every conclusion as number or table, provenance."""
    name, preset = said["experiment"], said["preset"]
    results = {key: value for key, value in said.items() if key not in SETTINGS}
    numbers = {words(key): html.cell(leaf(value)) for key, value in results.items() if is_leaf(value)}
    tables = [tabled(words(key).capitalize(), value) for key, value in joined(results).items()]
    sections = [
        html.section("Summary", html.facts(numbers)),
        html.section("Figures", *figures(folder)),
        html.section("Results", *tables),
        reproduced(folder, name, preset, said["provenance"]),
    ]
    return html.page(f"Experiment {name}", f"{folder.name}: preset {preset}, {said['seconds']} s", sections)


def reproduced(folder: Path, name: str, preset: str, made: Mapping[str, Any]) -> Section:
    """Where the numbers come from and how to get them again."""
    commands = {
        "The same numbers again:": f"icq reproduce {name} --preset {preset} --out {folder.name}",
        "This page in a notebook:": f'from icq_bounds.pages.report import report\nreport("{folder.name}")',
    }
    return provenance_section(made, commands, {})


def figures(folder: Path, captions: Mapping[str, str] | None = None) -> list[Markup]:
    """The drawings in a folder; those that `captions` names and that are not there are named."""
    there = {path.stem: path for path in sorted(folder.glob("*.svg"))}
    captions = captions or {name: words(name[2:]).capitalize() for name in there}
    drawn = [
        html.drawing(there[name].read_text(), name, text, text) for name, text in captions.items() if name in there
    ]
    parts = [html.figures(*(d for d in drawn if 'class="scroll broad"' not in d))]
    parts += [d for d in drawn if 'class="scroll broad"' in d]
    if gone := [f"{name}.svg" for name in captions if name not in there]:
        parts.append(html.notice(f"Not in the folder: {', '.join(gone)}; icq reproduce draws them again."))
    return parts if there else [html.notice("There is no drawing in the folder; icq reproduce draws them again.")]


def words(key: str) -> str:
    """A key as words."""
    return key.replace("_", " ")


def is_leaf(value: object) -> bool:
    """A number, a word or an estimate."""
    return not isinstance(value, Mapping | list) or (isinstance(value, Mapping) and "interval" in value)


def leaf(value: Any) -> Cell:
    """A number, a word, a verdict or an estimate as a table shows it."""
    if isinstance(value, Mapping):
        return read(value)
    return Verdict(value) if value in {v.value for v in Verdict} else value


def read(said: Mapping[str, Any]) -> Estimate:
    """An estimate that `as_dict` wrote."""
    value, low, high, n = (
        float("nan") if x is None else float(x) for x in (said["value"], *said["interval"], said["n"])
    )
    return Estimate(value, float("nan"), (low, high), n, said["result"])


def joined(results: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is a table; columns of leaves with the same names stand in one."""
    tables = {key: value for key, value in results.items() if not is_leaf(value)}
    flat = {k: v for k, v in tables.items() if isinstance(v, Mapping) and all(map(is_leaf, v.values()))}
    for names in {tuple(v): None for v in flat.values()}:
        same = {key: value for key, value in flat.items() if tuple(value) == names}
        if len(same) > 1:
            tables = {key: value for key, value in tables.items() if key not in same}
            tables[", ".join(same)] = {name: {key: part[name] for key, part in same.items()} for name in names}
    return tables


def tabled(title: str, value: Mapping[str, Any] | list[Any]) -> Markup:
    """A list, a dictionary of leaves, a dictionary of such dictionaries; what is deeper is taken apart."""
    if isinstance(value, list):
        items = [[leaf(x) if is_leaf(x) else json.dumps(x)] for x in value]
        return html.table(f"{title} ({len(value)})", (title,), items, fold=8)
    leaves = {name: part for name, part in value.items() if is_leaf(part)}
    deep = {name: part for name, part in value.items() if name not in leaves}
    if deep and not leaves and all(isinstance(p, Mapping) and all(map(is_leaf, p.values())) for p in deep.values()):
        columns = list(dict.fromkeys(name for part in deep.values() for name in part))
        rows = [[words(n), *(leaf(p[c]) if c in p else None for c in columns)] for n, p in deep.items()]
        return html.table(title, ("", *map(words, columns)), rows)
    parts = [tabled(f"{title}: {words(name)}", part) for name, part in deep.items()]
    if leaves:
        parts.insert(0, html.table(title, ("", "value"), [[words(n), leaf(part)] for n, part in leaves.items()]))
    return html.join(parts)
