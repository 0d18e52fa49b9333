"""What a bound before the run costs: path, constants, recursion and prediction: python -m benchmarks.path.

Against handoffs, states and parameters; seconds of one core, the median of a few rounds.  Writes a part of
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.harness import Section, number, publish
from bounds.path.moving import Moving, averaged, last_iterate, learners_average, moving
from bounds.path.twin import predicted
from bounds.residual.population import Population
from icq.exact import analyse
from icq_bounds.sweep.beforehand import decay, problem
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.methods import LINEAR, LOCAL, Features, Table

PARTS = ("constants", "path", "bound, last iterate", "bound, average", "prediction")
FAMILY = DialsFamily(gap=0.5, mixing=0.75)
HEADER = ("workflow", "states", "parameters", "handoffs", *PARTS, "together")
SIZES: tuple[tuple[int, Table | Features, int], ...] = (
    *((10, Table(LOCAL, "local", "double"), t) for t in (10**5, 10**6, 10**7)),
    *((n, Table(LOCAL, "local", "double"), 10**6) for n in (2, 5)),
    *((10, Features(p, schedule=LINEAR, clock="local", precision="double"), 10**6) for p in (1, 4, 16)),
)


def case(agents: int, method: Table | Features, handoffs: int) -> tuple[Population, Callable[[], Moving]]:
    """The population problem, and what makes a run around its path with nothing computed yet."""
    a = analyse(replace(FAMILY, agents=agents).workflow())
    config = method.config(a, False)

    def fresh() -> Moving:
        pop, start = problem(a, method.build(a), config)
        return moving(pop, decay(config), start, np.array([handoffs]))

    return fresh().pop, fresh


def seconds(fresh: Callable[[], Moving], handoffs: int) -> list[float]:
    """Of each part, in order."""
    marks = [time.perf_counter()]
    m = fresh()
    marks.append(time.perf_counter())
    _ = m.path
    for part in (lambda: last_iterate(m), lambda: averaged(m, learners_average(handoffs, 2.0)), lambda: predicted(m)):
        marks.append(time.perf_counter())
        part()
    return np.diff([*marks, time.perf_counter()]).tolist()


def section(rounds: int) -> Section:
    """Every size, measured."""
    rows, data = [], []
    for agents, method, handoffs in SIZES:
        pop, fresh = case(agents, method, handoffs)
        found = np.median([seconds(fresh, handoffs) for _ in range(rounds + 1)][1:], axis=0)
        name = f"{agents} agents, {type(method).__name__.lower()}"
        sizes = (pop.analysis.smdp.num_states, len(pop.theta_star), handoffs)
        rows.append((name, *map(str, sizes), *(number(x) for x in found), number(float(found.sum()))))
        data.append({"workflow": name, "sizes": sizes, "seconds": found.tolist()})
    note = (
        "Seconds of one core. Constants hold arrays of states times parameters squared; the path takes steps of its own"
        " clock, whatever the handoffs; the recursion is one compiled step a handoff; the constants along the path are"
        " in the bound on the last iterate."
    )
    return Section("A bound before the run", note, HEADER, tuple(rows), data={"rows": data})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    publish(
        "path", "What a bound before the run costs", "python -m benchmarks.path", [section(rounds)], ("numpy", "numba")
    )


if __name__ == "__main__":
    main()
