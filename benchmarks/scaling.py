"""What a sweep costs: a cost model fitted on small cells, checked on a large one: python -m benchmarks.scaling.

    seconds(cell) = f + r * handoffs * replicas + v * checkpoints * replicas

f: instance, exact analysis, bounds and file; r: one learned handoff; v: one checkpoint of one replica (its table
measured and certified).  A program is compiled once per process and static shape, p seconds.  Writes docs/scaling.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from rich.progress import track
from scipy.optimize import nnls

from benchmarks.harness import ROOT, machine, number
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.methods import Features, Mlp, Table

PAGE = ROOT / "docs" / "scaling.md"
FAMILY = DialsFamily(gap=0.5)
SMALL = tuple((2**k, seeds) for k in (12, 14, 16) for seeds in (8, 32))  # handoffs, replicas of the fitted cells
LARGE = (2**20, 32)
CHECKPOINTS = (1, 4)


@dataclass(frozen=True)
class Cost:
    """The fitted coefficients in seconds: fixed, per handoff, per checkpoint and replica, and per compiled program."""

    fixed: float
    handoff: float
    checkpoint: float
    compiling: float

    def seconds(self, handoffs: float, replicas: int, checkpoints: int) -> float:
        """Of one warm cell."""
        return self.fixed + self.handoff * handoffs * replicas + self.checkpoint * checkpoints * replicas


def cell(method: Table | Features | Mlp, handoffs: int, replicas: int, checkpoints: int, instance: int) -> Cell:
    """A cell with its checkpoints evenly spread."""
    marks = tuple(int(x) for x in np.linspace(0, handoffs, checkpoints + 1)[1:])
    return Cell(method, replicas, marks, replace(FAMILY, seed=instance))


def timed(one: Cell) -> float:
    """Seconds of one run of a cell."""
    start = time.perf_counter()
    one.run()
    return time.perf_counter() - start


def fit(method: Table | Features | Mlp, rounds: int) -> Cost:
    """Non-negative least squares of median warm times; relative errors count, so small cells matter too."""
    rows: list[Float[np.ndarray, "3"]] = []
    times, first = [], []
    for handoffs, replicas in track(SMALL, description=type(method).__name__, transient=True):
        for checkpoints in CHECKPOINTS:
            cold = timed(cell(method, handoffs, replicas, checkpoints, 0))
            warm = [timed(cell(method, handoffs, replicas, checkpoints, 1 + k)) for k in range(rounds)]
            times.append(float(np.median(warm)))
            first.append(cold - times[-1])
            rows.append(np.array([1.0, handoffs * replicas, checkpoints * replicas]))
    found = nnls(np.stack(rows) / np.array(times)[:, None], np.ones(len(times)))[0]
    return Cost(*map(float, found), compiling=max(float(np.median(first)), 0.0))


def clock(seconds: float) -> str:
    """A duration for people."""
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} seconds"


SWEEPS = (  # cells, handoffs per cell over all replicas
    ("10^9 handoffs in 10^4 cells", 10**4, 10**5),
    ("10^9 handoffs in every one of 10^4 cells", 10**4, 10**9),
)
CORES = (2, 64, 1024)


def page(costs: dict[str, Cost], checked: dict[str, tuple[float, float]]) -> str:
    """docs/scaling.md."""
    about = ", ".join(f"{key} {value}" for key, value in machine(("jax", "jaxlib", "numpy")).items())
    fitted = "\n".join(
        f"| {name} | {c.fixed:.3g} | {1e9 * c.handoff:.3g} | {1e3 * c.checkpoint:.3g} | {c.compiling:.2g} |"
        for name, c in costs.items()
    )
    check = "\n".join(
        f"| {name} | {predicted:.3g} | {found:.3g} | {predicted / found:.2f} |"
        for name, (predicted, found) in checked.items()
    )
    bills = []
    for title, cells, handoffs in SWEEPS:
        for name, c in costs.items():
            total = cells * c.seconds(handoffs / 8, 8, 4)
            spread = [clock(total / cores + c.compiling) for cores in CORES]
            bills.append(f"| {title} | {name} | {number(total / 3600)} | " + " | ".join(spread) + " |")
    return TEMPLATE.format(
        about=about, fitted=fitted, check=check, bills="\n".join(bills),
        cores=" | ".join(f"{n} cores" for n in CORES), dashes=" | ".join(["---"] * len(CORES)),
        large=f"{LARGE[0]:,} handoffs, {LARGE[1]} replicas, {CHECKPOINTS[-1]} checkpoints",
    )  # fmt: skip


TEMPLATE = """# What a sweep costs

Written by `python -m benchmarks.scaling`. {about}.

## The model

A warm cell takes

    seconds = f + r * handoffs * replicas + v * checkpoints * replicas

and every process compiles each static shape once, p seconds.  Cells are independent, so a sweep takes the sum over
cells divided by the number of cores, plus one compilation.  Fitted on ten agents (160 states, 80 observations), cells
of 4 096 to 65 536 handoffs with 8 and 32 replicas:

| method | f, s | r, ns | v, ms | p, s |
| --- | --- | --- | --- | --- |
{fitted}

## Checked on a larger cell

Predicted by the fit above and then run once: {large}.

| method | predicted, s | measured, s | predicted / measured |
| --- | --- | --- | --- |
{check}

## Bills

With 8 replicas and 4 checkpoints a cell, handoffs counted over the replicas:

| sweep | method | core hours | {cores} |
| --- | --- | --- | {dashes} |
{bills}

Cells do not talk to each other and a finished one is a file of some kilobytes, so cores may be in one machine or
behind one scheduler (`icq sweep --dask`, see [sweeps.md](sweeps.md)).  What does not divide is a single chain: handoff
k+1 needs handoff k, so one replica of 10^9 handoffs takes r * 10^9 seconds on any number of cores.

## One GPU

Not measured: no GPU was at hand.  What can be said beforehand: the loop over handoffs is sequential, and on a GPU every
step of it costs at least the launch of its kernels, some microseconds, however many replicas move in that step.  A GPU
therefore pays off where replicas and cells of one shape fill a step (thousands of chains vmapped together) or networks
are wide, not for a few long chains: with t seconds a step and n chains it learns n / t handoffs a second, against
1 / r a core here.
"""


def main() -> None:
    """Fit, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="warm runs of every fitted cell")
    rounds = parser.parse_args().rounds
    methods = {"table": Table(), "2 features": Features(2), "network of width 16": Mlp(16, iterations=200)}
    costs = {name: fit(method, rounds) for name, method in methods.items()}
    checked = {}
    for name, method in methods.items():
        large = cell(method, *LARGE, CHECKPOINTS[-1], 99)
        timed(replace(large, family=replace(FAMILY, seed=98)))  # compiled for its shape before it is timed
        checked[name] = (costs[name].seconds(*LARGE, CHECKPOINTS[-1]), timed(large))
    PAGE.write_text(page(costs, checked))
    print(f"{PAGE.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
