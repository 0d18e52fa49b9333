"""The command `icq theorem`: the error theorem on an instance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from icq.coerce import count
from icq.smdp import ICSMDP
from icq_bounds import error_theorem
from icq_bounds.network_theorem import network_theorem
from icq_bounds.sweep.methods import PlainMlp


@dataclass(frozen=True)
class TheoremOptions:
    """The error theorem on an instance: every rung of every term, its assumptions, and the certified total.

    Errors are in the d-norm and in units of reward, times in handoffs.

    Example: icq theorem m.npz --handoffs 1000000 --runs 8
    """

    file: Positional[Path]
    """An instance (.npz)."""
    handoffs: int = 10_000_000
    """Handoffs until which the residual is certified."""
    features: int = 0
    """Features per agent; 0 is the table with a step per own visit."""
    network: int | None = None
    """Networks of this width per agent with plain, decreasing steps instead, along their own path."""
    scale: float = 1.0
    """Output scale of the networks: the larger, the less their units learn."""
    step: float | None = None
    """Constant step; left out, the one that certifies the least error after the given handoffs."""
    points: int = 5
    """Points of the certificate curve."""
    seed: int = 0
    """Seed of the features."""
    runs: int = 0
    """Runs of the learner whose errors stand beside the bounds; 0 for none."""
    json: bool = False
    """Print one JSON object."""
    latex: bool = False
    """Print LaTeX."""


def run(options: TheoremOptions, console: Console) -> None:
    """Print the error theorem on an instance, as tables, JSON or LaTeX."""
    if options.json and options.latex:
        raise ValueError("json and latex: choose one")
    if options.runs == 1:
        raise ValueError("runs = 1 has no interval: at least 2, or 0 for none")
    if options.network is not None:
        count("network", options.network)
    m = ICSMDP.load(options.file)
    if options.network is not None:
        _networks(options, m)
        return
    if options.scale != 1.0:
        raise ValueError("scale: it is that of networks; give their width with --network")
    found = error_theorem.theorem_report(
        m, features=options.features, seed=options.seed, step=options.step, handoffs=options.handoffs,
        points=options.points, runs=options.runs,
    )  # fmt: skip
    if options.json:
        print(json.dumps(error_theorem.as_json(found), indent=2, allow_nan=False))
    elif options.latex:
        print(error_theorem.as_latex(found))
    else:
        print(found)


def _networks(options: TheoremOptions, m: ICSMDP) -> None:
    for name, given in (("features", options.features), ("runs", options.runs), ("step", options.step)):
        if given:
            raise ValueError(f"{name} and network: leave out {name}; `icq learn --training plain` runs networks")
    if options.latex:
        raise ValueError("latex and network: tables or json")
    method = PlainMlp(options.network or 0, options.scale)
    found = network_theorem(m, method, options.handoffs, options.points)
    print(json.dumps(found.as_json(), indent=2, allow_nan=False) if options.json else found)
