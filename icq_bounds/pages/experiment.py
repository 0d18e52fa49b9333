"""The report of any finished experiment, from its summary.json and its figures.

A summary is a tree: an estimate is a dictionary with `value` and `interval` (icq_bounds.workflows.n10.as_dict),
a dictionary of leaves is a table of two columns, a dictionary of those a table with rows and columns.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bounds.core.bound import Verdict
from estimators.statistics.estimate import from_dict
from icq_bounds.pages import html
from icq_bounds.pages.html import Entry, Grid, Page
from icq_bounds.pages.parts import origin

SETTINGS = ("experiment", "preset", "seconds", "provenance")


def experiment_report(folder: Path, said: Mapping[str, Any]) -> Page:
    """Figures, every conclusion as number or table, provenance."""
    results = {key: value for key, value in said.items() if key not in SETTINGS}
    return html.render(
        "experiment.html",
        title=f"Experiment {said['experiment']}",
        lead=f"{folder.name}: preset {said['preset']}, {said['seconds']} s",
        numbers={words(key): leaf(value) for key, value in results.items() if is_leaf(value)},
        tables=[table for key, value in joined(results).items() for table in tabled(words(key).capitalize(), value)],
        **drawings(folder), origin=reproduced(folder, said),
    )  # fmt: skip


def reproduced(folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Where the numbers come from and how to get them again."""
    words = ["icq", "reproduce", str(said["experiment"]), "--preset", str(said["preset"]), "--out", folder.name]
    commands = {
        "The same numbers again:": shlex.join(words),
        "This page in a notebook:": f"import icq_bounds as ib\nib.report({folder.name!r})",
    }
    return origin(said["provenance"], commands, {})


def drawings(folder: Path, captions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The drawings in a folder; those that `captions` names and that are not there are named."""
    there = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.svg"))}
    captions = captions or {name: words(name[2:]).capitalize() for name in there}
    panels = [html.drawing(there[name], name, text, text) for name, text in captions.items() if name in there]
    return {"panels": panels, "gone": [f"{name}.svg" for name in captions if name not in there]}


def words(key: str) -> str:
    """A key as words."""
    return key.replace("_", " ")


def is_leaf(value: object) -> bool:
    """A number, a word or an estimate."""
    return not isinstance(value, Mapping | list) or (isinstance(value, Mapping) and "interval" in value)


def leaf(value: Any) -> Entry:
    """A number, a word, a verdict or an estimate as a table shows it."""
    if isinstance(value, Mapping):
        return from_dict(value)
    return Verdict(value) if value in {v.value for v in Verdict} else value


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


def tabled(title: str, value: Mapping[str, Any] | list[Any]) -> list[Grid]:
    """A list, a dictionary of leaves, a dictionary of such dictionaries; what is deeper is taken apart."""
    if isinstance(value, list):
        items = [[leaf(x) if is_leaf(x) else json.dumps(x)] for x in value]
        return [Grid(f"{title} ({len(value)})", (title,), items, fold=8)]
    leaves = {name: part for name, part in value.items() if is_leaf(part)}
    deep = {name: part for name, part in value.items() if name not in leaves}
    if deep and not leaves and all(isinstance(p, Mapping) and all(map(is_leaf, p.values())) for p in deep.values()):
        columns = list(dict.fromkeys(name for part in deep.values() for name in part))
        rows = [[words(n), *(leaf(p[c]) if c in p else None for c in columns)] for n, p in deep.items()]
        return [Grid(title, ("", *map(words, columns)), rows)]
    first = [Grid(title, ("", "value"), [[words(n), leaf(part)] for n, part in leaves.items()])] if leaves else []
    return first + [table for name, part in deep.items() for table in tabled(f"{title}: {words(name)}", part)]
