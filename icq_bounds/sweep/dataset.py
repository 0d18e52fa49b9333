"""A sweep as one labelled dataset.

    import xarray as xr
    ds = xr.open_dataset("sweep.nc", engine="h5netcdf")

or `results.load(folder)`, which reads the cells themselves and so shows an unfinished sweep too.  Layout:

dimensions   the axes of the sweep in their order, then `term`, `output`, `replica` and `checkpoint`
coordinates  each axis: its values;  term: interface, approximation, residual, total;  output: last (iterate), average;
             replica: the seed;  checkpoint: handoffs learned from
variables    [axes, term, output, replica, checkpoint]
               observed     the error in the d-norm          sup      the same in the sup norm
               certificate  computed from the learned table, NaN where there is none
               certificate_slack  allowance for rounding and solver error    certificate_verdict  a code
             [axes, term, output, checkpoint]
               bound        known before the run, on the root mean square over runs; bound_slack, bound_verdict
             [axes, term]  trivial: what the range of rewards alone says of the error
             [axes, checkpoint]  predicted: where the residual of the last iterate should lie, no bound
             Codes of verdicts: see the attributes flag_values and flag_meanings; `verdicts` counts.
             [axes, replica, checkpoint]  used: share of what a run may do while bounds speak of it
             [axes, replica]  value: stationary value of the learned policy
             [axes]  value_random, value_bar, value_oracle, kappa, gamma_bar, slem, ... (NUMBERS), and `finished`
attributes   of every variable and coordinate `units` and `long_name`; of the dataset: `config`, `provenance` and
             `seeds` as JSON, with code, commit, xla_flags, machines, time and `cells` ("finished of all") beside them

NaN stands where nothing is: cells that are not finished, terms that baselines do not have, runs that diverged.
Notation: docs/theory.md section 2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from bounds.core.bound import Verdict
from estimators.decomposition import TERMS
from icq import files
from icq_bounds.sweep import axes, provenance
from icq_bounds.sweep.folder import read_folder
from icq_bounds.sweep.measure import OUTPUTS
from icq_bounds.sweep.spec import Spec
from icq_bounds.sweep.store import Arrays, Store

PER_RUN, PER_TIME = ("term", "output", "replica", "checkpoint"), ("term", "output", "checkpoint")
# dimensions, long name; all in reward units
RECORDS = {
    "observed": (PER_RUN, "observed error, d-norm"),
    "sup": (PER_RUN, "observed error, sup norm"),
    "certificate": (PER_RUN, "certificate computed from the learned table, d-norm"),
    "certificate_slack": (PER_RUN, "allowance for numerical error of the certificate"),
    "bound": (PER_TIME, "bound known before the run on the root mean square error, d-norm"),
    "bound_slack": (PER_TIME, "allowance for numerical error of the bound"),
    "trivial": (("term",), "what the range of rewards alone says, d-norm"),
}
VERDICTS = {
    "certificate_verdict": (PER_RUN, "verdict of the certificate"),
    "bound_verdict": (PER_TIME, "verdict of the bound"),
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


Variable: TypeAlias = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]


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
    ds = ds.assign_coords(coordinates(spec.replicas, spec.checkpoints))

    def add(name: str, dims: tuple[str, ...], parts: list[np.ndarray], said: dict[str, Any]) -> None:
        ds[name] = (names + dims, np.stack(parts).reshape(*spec.shape, *parts[0].shape), said)

    parts = [records_of(result, spec.replicas, len(spec.checkpoints)) for result in results]
    for name, (dims, _, said) in parts[0].items():
        add(name, dims, [part[name][1] for part in parts], said)
    value = [_part(result, "value", (spec.replicas,)) for result in results]
    add("value", ("replica",), value, labels("reward", "stationary value of the learned policy"))
    for name, (source, units, text) in NUMBERS.items():
        add(name, (), [_part(result, source, ()) for result in results], labels(units, text))
    done = np.array([result is not None for result in results]).reshape(spec.shape)
    ds["finished"] = (names, done, {"long_name": "whether the cell has a result"})
    return ds


def labels(units: str, text: str) -> dict[str, Any]:
    """The attributes of a variable."""
    return {"units": units, "long_name": text.rstrip(".")}


def coordinates(replicas: int, checkpoints: Sequence[int]) -> dict[str, Any]:
    """Those of records."""
    return {
        "term": ("term", np.array(TERMS), labels("1", "which error of Q - Q* = residual + approximation + interface")),
        "output": ("output", np.array(OUTPUTS), labels("1", "which table: the last iterate, or the average")),
        "replica": ("replica", np.arange(replicas), labels("1", "seed of the run")),
        "checkpoint": ("checkpoint", np.array(checkpoints), labels("handoffs", "handoffs learned from")),
    }  # fmt: skip


def records_of(result: Arrays | None, replicas: int, checkpoints: int) -> dict[str, Variable]:
    """The records of a result by name: dimensions, values, attributes; NaN where there are none."""
    sizes = {"output": len(OUTPUTS), "replica": replicas, "checkpoint": checkpoints}

    def terms(read: Callable[..., np.ndarray], name: str, dims: tuple[str, ...]) -> np.ndarray:
        return np.stack([read(result, f"{name}_{term}", tuple(sizes[d] for d in dims[1:])) for term in TERMS])

    out: dict[str, Variable] = {
        name: (dims, terms(_part, name, dims), labels("reward", text)) for name, (dims, text) in RECORDS.items()
    }
    for name, (dims, text) in VERDICTS.items():
        out[name] = (dims, terms(_codes, name, dims), labels("1", text) | FLAGS)
    text = "where the residual of the last iterate should lie"
    out["predicted"] = (("checkpoint",), _part(result, "predicted", (checkpoints,)), labels("reward", text))
    dims = ("replica", "checkpoint")
    text = "share of what a run may do before the bounds stop to speak of it (networks); above 1 they do not"
    out["used"] = (dims, _part(result, "used", (replicas, checkpoints)), labels("1", text))
    return out


def arrays_of(cell: xr.Dataset) -> Arrays:
    """The records and numbers of one cell of a dataset as its result has them; a baseline has no records."""
    words = {code: word for word, code in CODES.items()}
    out: Arrays = {source: cell[name].values for name, (source, *_) in NUMBERS.items()}
    if (cell["certificate_verdict"].values < 0).all():
        return out
    for term in TERMS:
        part = cell.sel(term=term)
        for name in RECORDS:
            out[f"{name}_{term}"] = part[name].values
        for name in VERDICTS:
            out[f"{name}_{term}"] = np.vectorize(words.__getitem__, otypes=["<U12"])(part[name].values)
    return out


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
    files.write(path, bytes(ds.to_netcdf(engine="h5netcdf", encoding=packed)))


def verdicts(ds: xr.Dataset, term: str, kind: str = "bound") -> dict[str, int]:
    """How many statements on a term got each verdict; kind: bound or certificate."""
    words = {code: word for word, code in CODES.items()}
    found, counts = np.unique(ds[f"{kind}_verdict"].sel(term=term).values, return_counts=True)
    return {words[int(code)]: int(count) for code, count in zip(found, counts, strict=True) if code >= 0}
