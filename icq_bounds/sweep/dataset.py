"""A sweep as one labelled dataset.

    import xarray as xr
    ds = xr.open_dataset("sweep.nc", engine="h5netcdf")

or `results.load(folder)`, which reads the cells themselves and so shows an unfinished sweep too.  Layout:

dimensions   the axes of the sweep in their order, then `term`, `replica` and `checkpoint`
coordinates  each axis: its values;  term: interface, approximation, residual, total;  replica: the seed;
             checkpoint: handoffs learned from
variables    [axes, term, replica, checkpoint]
               observed   the error in the d-norm            sup     the same in the sup norm
               bound      certified, NaN where inapplicable  slack   allowance for rounding and solver error
               verdict    code of the verdict: see its attributes flag_values and flag_meanings; `verdicts` counts
             [axes, replica]  value: stationary value of the learned policy
             [axes]  value_random, value_bar, value_oracle, kappa, gamma_bar, slem, ... (NUMBERS), and `finished`
attributes   of every variable and coordinate `units` and `long_name`; of the dataset: `config`, `provenance` and
             `seeds` as JSON, with code, commit, xla_flags, machines, time and `cells` ("finished of all") beside them

NaN stands where nothing is: cells that are not finished, terms that baselines do not have, runs that diverged.
Notation: docs/theory.md section 2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bounds.core.bound import Verdict
from estimators.decomposition import TERMS
from icq_bounds.sweep import axes, provenance, store
from icq_bounds.sweep.spec import Spec, read_folder
from icq_bounds.sweep.store import Arrays, Store

# source in the cell's result, long name; all in reward units
RECORDS = {
    "observed": ("e", "observed error, d-norm"),
    "sup": ("sup", "observed error, sup norm"),
    "bound": ("b", "certified bound on the error, d-norm"),
    "slack": ("slack", "allowance for numerical error"),
}
CODES: dict[str, int] = {"missing": -1} | {v.value: k for k, v in enumerate(Verdict)}
FLAGS = {"flag_values": np.array(list(CODES.values()), np.int8), "flag_meanings": " ".join(CODES)}
# source in the cell's result, units, long name
NUMBERS = {
    "value_random": ("value_random", "reward", "stationary value of the behaviour policy"),
    "value_bar": ("value_bar", "reward", "stationary value of the exact interface policy"),
    "value_oracle": ("value_oracle", "reward", "stationary value of the optimum"),
    "gamma_bar": ("gamma_bar", "1", "largest expected discount of an option"),
    "kappa": ("kappa", "1", "d-norm modulus of the interface operator"),
    "slem": ("slem", "1", "second largest eigenvalue modulus of the handoff chain"),
    "q_bar_norm": ("q_bar_norm", "reward", "d-norm of Qbar"),
    "margin": ("action_gap", "reward", "smallest margin of the greedy option in Qbar"),
    "local_gap_sup": ("local_gap_sup", "reward", "largest local gap"),
    "local_gap_d": ("local_gap_d", "reward", "local gap in the d-norm"),
    "gap_exact_sup": ("gap_exact_sup", "reward", "largest interface gap"),
    "gap_value_sup": ("gap_value_sup", "reward", "its bound by the gap value"),
    "gap_scalar": ("gap_scalar", "reward", "its scalar bound"),
    "trivial_cap": ("trivial_cap", "reward", "what the range of rewards alone says"),
    "reference_residual": ("reference_residual", "reward", "how far the reference Q_F is from standing still"),
    "reference_converged": ("reference_converged", "1", "whether the reference Q_F converged (1 yes, 0 no)"),
    "asymptote": ("asymptote", "reward^2 handoffs", "limit of handoffs times the mean squared residual"),
}


def dataset(spec: Spec, kept: Store, made: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Every finished cell of a sweep at its place; `made`: the provenance to write down (left out: this process)."""
    cells = spec.cells()
    read = {cell: kept.read(cell) for cell in dict.fromkeys(cells)}
    found = [read[cell] for cell in cells]
    results = [pair[0] if pair else None for pair in found]
    abouts = [pair[1] for pair in found if pair]
    machines = sorted({f"{about['machine']}, {about['device']}" for about in abouts if "machine" in about})
    xla_flags = sorted({about["xla_flags"] for about in abouts if about.get("xla_flags")})
    settings = axes.known(spec.family)
    names = tuple(name for name, _ in spec.axes)
    ds = xr.Dataset(attrs=_attributes(spec, made or provenance.provenance(), machines, xla_flags, results))
    for name, values in spec.axes:
        ds = ds.assign_coords({name: (name, np.array(values), labels(settings[name].units, settings[name].meaning))})
    ds = ds.assign_coords(
        term=("term", np.array(TERMS), labels("1", "which error of Q - Q* = residual + approximation + interface")),
        replica=("replica", np.arange(spec.replicas), labels("1", "seed of the run")),
        checkpoint=("checkpoint", np.array(spec.checkpoints), labels("handoffs", "handoffs learned from")),
    )

    def add(name: str, dims: tuple[str, ...], parts: list[np.ndarray], said: dict[str, Any]) -> None:
        ds[name] = (names + dims, np.stack(parts).reshape(*spec.shape, *parts[0].shape), said)

    records, full = ("term", "replica", "checkpoint"), (spec.replicas, len(spec.checkpoints))
    for name, (source, text) in RECORDS.items():
        add(name, records, [_terms(_part, result, source, full) for result in results], labels("reward", text))
    codes = [_terms(_codes, result, "verdict", full) for result in results]
    add("verdict", records, codes, labels("1", "verdict of the bound") | FLAGS)
    value = [_part(result, "value", full[:1]) for result in results]
    add("value", ("replica",), value, labels("reward", "stationary value of the learned policy"))
    for name, (source, units, text) in NUMBERS.items():
        add(name, (), [_part(result, source, ()) for result in results], labels(units, text))
    done = np.array([result is not None for result in results]).reshape(spec.shape)
    ds["finished"] = (names, done, {"long_name": "whether the cell has a result"})
    return ds


def labels(units: str, text: str) -> dict[str, Any]:
    """The attributes of a variable."""
    return {"units": units, "long_name": text.rstrip(".")}


def _terms(
    read: Callable[[Arrays | None, str, tuple[int, ...]], np.ndarray],
    result: Arrays | None,
    part: str,
    sizes: tuple[int, int],
) -> np.ndarray:
    """What a cell says of all four terms, stacked."""
    return np.stack([read(result, f"{part}_{term}", sizes) for term in TERMS])


def _part(result: Arrays | None, source: str, sizes: tuple[int, ...]) -> np.ndarray:
    if result is None or source not in result:
        return np.full(sizes, np.nan)
    return np.asarray(result[source], np.float64).reshape(sizes)


def _codes(result: Arrays | None, source: str, sizes: tuple[int, ...]) -> np.ndarray:
    if result is None or source not in result:
        return np.full(sizes, CODES["missing"], np.int8)
    return np.vectorize(CODES.__getitem__, otypes=[np.int8])(result[source])


def _attributes(
    spec: Spec, made: Mapping[str, Any], machines: list[str], flags: list[str], results: list[Arrays | None]
) -> dict[str, Any]:
    return {
        "title": f"IC-Q sweep over {', '.join(name for name, _ in spec.axes) or 'nothing'}, family {spec.family}",
        "config": json.dumps(spec.as_json()), "provenance": json.dumps(made),
        "seeds": json.dumps([*range(spec.replicas)]),
        "code": made["code"], "commit": made["commit"] or "", "xla_flags": "; ".join(flags), "time": made["time"],
        "machines": "; ".join(machines), "cells": f"{sum(r is not None for r in results)} of {len(results)}",
    }  # fmt: skip


def load(folder: Path | str) -> xr.Dataset:
    """The dataset of a sweep's folder, finished or not; cells of the code version that last ran there."""
    folder = Path(folder)
    spec, said = read_folder(folder)
    return dataset(spec, Store(folder / "cells", said["code"], read_only=True), said["provenance"])


def save(ds: xr.Dataset, path: Path) -> None:
    """Write the dataset as netCDF, whole or not at all."""
    packed = {str(name): {"zlib": True, "complevel": 4} for name, v in ds.data_vars.items() if v.size > 64}
    store.write(path, bytes(ds.to_netcdf(engine="h5netcdf", encoding=packed)))


def verdicts(ds: xr.Dataset, term: str) -> dict[str, int]:
    """How many records of a term got each verdict."""
    words = {code: word for word, code in CODES.items()}
    found, counts = np.unique(ds["verdict"].sel(term=term).values, return_counts=True)
    return {words[int(code)]: int(count) for code, count in zip(found, counts, strict=True) if code >= 0}
