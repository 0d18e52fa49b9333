"""The command `icq learn`: run IC-Q on an instance and split its error."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from estimators.decomposition import TERMS, MixingSplit, mixing_split
from estimators.statistics import estimate
from estimators.statistics.estimate import Estimate, as_dict, finite
from icq.coerce import MOST, count
from icq.display import number
from icq.exact import analyse, units
from icq.learn.learner import MOST_RUNS
from icq.smdp import ICSMDP
from icq_bounds.check import grid as check_grid
from icq_bounds.commands import _terms
from icq_bounds.learners import features, network, table
from icq_bounds.numbers import text
from icq_bounds.sweep.cells import learn_and_measure
from icq_bounds.sweep.methods import Method
from icq_bounds.sweep.results import KINDS, gained, lost, tally
from icq_bounds.sweep.store import Arrays


@dataclass(frozen=True)
class LearnOptions:
    """Run IC-Q on an instance and split its error into interface, approximation and residual, each beside its bound.

    Errors are in the d-norm and in units of reward.

    Example: icq learn m.npz --handoffs 1000000
    """

    file: Positional[Path]
    """An instance (.npz)."""
    handoffs: int = 1_000_000
    """Handoffs per run."""
    seeds: int = 8
    """Independent runs."""
    features: int | None = None
    """Linear class with this many features per agent instead of a table."""
    network: int | None = None
    """One tanh network of this width per agent instead of a table."""
    training: Literal["adam", "plain"] = "adam"
    """How networks learn: adam, or plain steps, which the theorem bounds before the run."""
    clock: Literal["local", "global"] = "local"
    """What counts for a step of table and features: an agent's own visits at known frequencies (local), which the
    theorem bounds before the run, or every handoff (global)."""
    iid: bool = False
    """Draw every handoff afresh from the stationary law instead of following a trajectory."""
    split: bool = False
    """Also run that control with the same random numbers, and say what correlation along the trajectory costs."""
    json: bool = False
    """Print one JSON object."""


def run(options: LearnOptions, console: Console) -> None:
    """Learn on an instance and print the terms at the checkpoints."""
    if options.features is not None and options.network is not None:
        raise ValueError("features and network: choose one function class")
    if options.split and options.iid:
        raise ValueError("split and iid: split runs the trajectory and the i.i.d. control; leave out iid")
    if options.training == "plain" and options.network is None:
        raise ValueError("training: it is how networks learn; give their width with --network")
    for name in ("handoffs", "seeds", "features", "network"):
        if (value := getattr(options, name)) is not None:
            count(name, value, least=2 if name == "seeds" else 1, most=MOST_RUNS if name == "seeds" else MOST)
    chosen = _method(options)
    m = ICSMDP.load(options.file)
    unit = units.unit(m)
    a = analyse(m if unit == 1.0 else units.scaled(m, unit))
    grid = check_grid(options.handoffs)
    start = time.perf_counter()
    with console.status("learning"):
        result = learn_and_measure(a, chosen, options.seeds, grid, options.iid)
        control = learn_and_measure(a, chosen, options.seeds, grid, True) if options.split else None
    seconds = time.perf_counter() - start
    place = int(result["shown"])
    shown = {name: result[f"observed_{name}"][place] for name in TERMS}
    terms = {name: [estimate.root_mean_square(e).rescaled(unit) for e in shown[name].T] for name in TERMS}
    bounds = {name: result[f"bound_{name}"][place] * unit for name in TERMS}
    verdicts = {kind: {term: tally(result[f"{kind}_verdict_{term}"]) for term in TERMS} for kind in KINDS}
    if options.json:
        said: dict[str, Any] = {name: [as_dict(e) for e in found] for name, found in terms.items()}
        said |= {"handoffs": list(grid), "value_lost": as_dict(_lost(result).rescaled(unit)), "verdicts": verdicts}
        said["value_gained_percent"] = as_dict(gained(result))
        said["bound"] = {term: [finite(x) for x in bounds[term]] for term in TERMS}
        if control is not None:
            said["split"] = [
                {name: as_dict(getattr(part, name).rescaled(unit**power)) for name, power in SPLIT.items()}
                for part in _splits(result, control)
            ]
            said["split_ratio_limit"] = finite(_limit(result, control))
        print(json.dumps(said, indent=2, allow_nan=False))
        return
    rows = [([str(k)], each) for k, *each in zip(grid, *terms.values(), strict=True)]
    _terms.show(console, "", ["handoffs"], rows, verdicts)
    known = (f"{term} {number(float(bounds[term][-1]))}" for term in TERMS)
    console.print(f"known before, after {grid[-1]} handoffs at most: {', '.join(known)}")
    if not bool(result["reference_converged"]):
        residual = float(result["reference_residual"]) * unit
        console.print(f"note: the reference Q_F still moves (residual {residual:.2e})")
    if control is not None:
        console.print(_split_table(grid, result, control, unit))
    share = gained(result)
    gain = f"{share} % of the way from random options to it" if share.known else str(share)
    below = _lost(result).rescaled(unit)
    console.print(f"value: {below} below the oracle, {gain}; {options.seeds} runs in {seconds:.1f} s")


SPLIT = {"markov": 1, "iid": 1, "excess": 2, "excess_rms": 1, "ratio": 0}  # powers of reward


def _splits(result: Arrays, control: Arrays) -> list[MixingSplit]:
    """The residual against that of the control at every checkpoint."""
    return [mixing_split(*pair) for pair in zip(_residual(result), _residual(control), strict=True)]


def _residual(result: Arrays) -> Float[np.ndarray, "K R"]:
    """Of the average."""
    return np.asarray(result["observed_residual"][1]).T


def _method(options: LearnOptions) -> Method:
    if options.network is not None:
        return network(options.network, training=options.training)
    return table(options.clock) if options.features is None else features(options.features, options.clock)


def _lost(result: Arrays) -> Estimate:
    return lost(result["value"], float(result["value_oracle"]))


def _limit(result: Arrays, control: Arrays) -> float:
    """sqrt((Sigma_0 + Sigma_mix) / Sigma_0) in the norm of the error: where the ratio tends.

    NaN for networks, and where the noise is none but rounding.
    """
    both = np.array([result["asymptote"], control["asymptote"]])
    noise = float(result["value_slack"]) ** 2
    return float(np.sqrt(both[0] / both[1])) if (both > noise).all() else math.nan


def _split_table(grid: Sequence[int], result: Arrays, control: Arrays, unit: float) -> Table:
    limit = _limit(result, control)
    tends = "" if np.isnan(limit) else f"; the ratio tends to {limit:.4g}"
    title = f"residual along the trajectory and with i.i.d. handoffs, same random numbers{tends}"
    table = Table("handoffs", "trajectory", "control", "difference", "ratio", title=title)
    found = _splits(result, control)
    for handoffs, part in zip(grid, found, strict=True):
        shown = [x.rescaled(unit) for x in (part.markov, part.iid, part.excess_rms)]
        numbers = (text(x, "none") for x in (*shown, part.ratio))
        table.add_row(str(handoffs), *numbers)
    saved = f"pairing the runs divides the variance of their mean difference by {found[-1].saved:.2f}"
    said = [saved] if np.isfinite(found[-1].saved) else []
    if not found[-1].ratio.known:
        said.append(f"none: {found[-1].ratio.why}")
    table.caption = "\n".join(said) or None
    return table
