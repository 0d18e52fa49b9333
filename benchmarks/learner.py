"""The learner beside C, numba, NumPy and PyTorch, and how its cost grows with agents, handoffs, seeds and cores.

python -m benchmarks.learner             # the part `learner` of docs/benchmarks.md, its pictures, its JSON
python -m benchmarks.learner --rounds 1  # a first look: the same, with less to tell luck from speed by

Contenders take turns, so other work on the machine slows all of them alike; what counts are the ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import joblib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks import reference
from benchmarks.harness import Contender, Section, Timing, measure, number, publish, save, times
from icq.learn import classes, networks, sampling
from icq.learn import learner as L
from icq.learn.classes import FunctionClass
from icq.learn.sampling import Tables
from icq.smdp import ICSMDP
from icq_bounds.figures import style
from synthetic.random import garnet

STEP = 0.01
FEATURES = 16
OURS = "IC-Q"
COMMAND = "make bench"
PACKAGES = ("jax", "jaxlib", "numpy", "numba", "torch")


def workflow(states: int, agents: int) -> tuple[ICSMDP, Tables]:
    """A random workflow, 4 options and 4 outcomes, every state observed; its start is drawn uniformly."""
    m = garnet(5, states=states, options=4, outcomes=4, observations=states, agents=agents, gamma=0.9, max_duration=6)
    available = np.asarray(m.available)[np.asarray(m.observation)]
    known = SimpleNamespace(smdp=m, oracle=SimpleNamespace(available=available), d=np.full(states, 1 / states))
    return m, sampling.tables(known)


@dataclass(frozen=True)
class Run:
    """A compiled learner: one call is `seeds` chains of `handoffs` handoffs."""

    t: Tables
    cls: FunctionClass
    handoffs: int
    seeds: int = 1

    def __call__(self) -> Any:
        """Run to the end."""
        config = L.LearnerConfig(step=STEP)
        return jax.block_until_ready(L.learn(self.t, self.cls, config, range(self.seeds), [self.handoffs]))

    @property
    def work(self) -> int:
        """Handoffs of all chains."""
        return self.handoffs * self.seeds


def speed(rounds: int) -> list[Section]:
    """One chain against everything else."""
    m, t = workflow(320, 10)
    inputs = networks.random_inputs(m, FEATURES, seed=0)
    instance = reference.Instance.of(t, m.agent, inputs)
    found = [_table(instance, Run(t, classes.tabular(m), 4_000_000), rounds)]
    for width, handoffs in ((64, 400_000), (256, 100_000)):
        found.append(_network(instance, Run(t, networks.network(m, inputs, width), handoffs), width, rounds))
    return found


def _table(m: reference.Instance, ours: Run, rounds: int) -> Section:
    slow = 20_000
    others: list[tuple[str, Callable[[], object] | None, int]] = [
        ("C", reference.in_c(m, ours.handoffs, STEP), ours.handoffs),
        ("numba", reference.in_numba(m, ours.handoffs, STEP), ours.handoffs),
        ("NumPy loop", partial(reference.in_numpy, m, slow, STEP), slow),
    ]
    note = (
        "320 states, 4 options, 4 outcomes, 10 agents; one chain, one core, one handoff per update, float32. Everybody "
        "does the same: draws a handoff, updates with the semi-Markov discount, counts the visit and keeps the average "
        "of the iterates. C and numba draw with a sequential xorshift generator, IC-Q with JAX's own Threefry, "
        "addressed by position. Goals: half of C and of numba, 200 times NumPy."
    )
    return _compared("A table, one chain", note, ours, others, rounds, {"C": 0.5, "numba": 0.5, "NumPy loop": 200})


def _network(m: reference.Instance, ours: Run, width: int, rounds: int) -> Section:
    slow = 1_000
    others: list[tuple[str, Callable[[], object] | None, int]] = [
        ("C", reference.in_c(m, ours.handoffs, STEP, width), ours.handoffs),
        ("PyTorch loop", reference.in_torch(m, slow, STEP, width), slow),
    ]
    note = (
        f"The same workflow, one tanh network {FEATURES}-{width}-4 per agent, plain SGD, averages included. PyTorch is "
        "autograd on one thread with an optimiser per agent. Goals: 0.7 of C, 500 times PyTorch."
    )
    return _compared(
        f"A network of width {width}, one chain", note, ours, others, rounds, {"C": 0.7, "PyTorch loop": 500}
    )


def _compared(
    title: str,
    note: str,
    ours: Run,
    others: Sequence[tuple[str, Callable[[], object] | None, int]],
    rounds: int,
    goals: dict[str, float],
) -> Section:
    contenders = [Contender(OURS, ours, ours.work)]
    contenders += [Contender(name, call, work) for name, call, work in others if call is not None]
    timing = measure(contenders, rounds, label=title)
    rows = [(OURS, number(timing.rate(OURS)), "1", "")]
    for name, call, _ in others:
        if call is None:
            rows.append((name, "not available here", "", ""))
            continue
        ratio = timing.ratio(OURS, name)
        said = _said(ratio[0], goals[name], at_least=True)
        if ratio[0] < goals[name] and name != "C" and "C" in timing.names:
            said += f"; C itself: {number(timing.ratio('C', name)[0])}"
        rows.append((name, number(timing.rate(name)), times(ratio), said))
    header = ("loop", "handoffs per second", "IC-Q is faster by (quartiles)", "goal")
    data = {name: list(timing.seconds[i] / timing.work[i]) for i, name in enumerate(timing.names)}
    return Section(title, note, header, tuple(rows), data={"seconds_per_handoff": data})


def _said(value: float, goal: float, at_least: bool) -> str:
    met = value >= goal if at_least else value <= goal
    return f"{'at least' if at_least else 'at most'} {goal:g}: {'met' if met else 'missed'}"


def agents(rounds: int) -> Section:
    """Cost per handoff against the number of agents."""
    counts, handoffs, states = (10, 30, 100, 300, 1000), 500_000, 4000
    kinds: dict[str, Callable[[ICSMDP], FunctionClass]] = {
        "table": classes.tabular,
        "8 features": lambda m: classes.random_features(m, 8, seed=1),
        "network, width 16": lambda m: networks.network(m, networks.random_inputs(m, 8, 0), 16),
    }
    built = {n: workflow(states, n) for n in counts}
    lines, rows = {}, []
    for kind, make in kinds.items():
        contenders = [Contender(str(n), Run(t, make(m), handoffs), handoffs) for n, (m, t) in built.items()]
        timing = measure(contenders, rounds, label=f"agents, {kind}")
        lines[kind] = [timing.each(str(n)) for n in counts]
        ratio = timing.ratio("10", "1000")
        rows.append((kind, *(number(1e9 * x) for x in lines[kind]), times(ratio), _said(ratio[0], 1.3, at_least=False)))
    figure = _lines(
        "number of agents", "nanoseconds per handoff", counts, {k: 1e9 * np.array(v) for k, v in lines.items()}
    )
    return Section(
        "Cost of a handoff against the number of agents",
        f"Nanoseconds per handoff; {states} states shared among the agents, {number(handoffs)} handoffs. Parameters of "
        "features and networks grow a hundredfold from left to right. The last column is N = 1000 over N = 10.",
        ("class", *map(str, counts), "1000 over 10 (quartiles)", "goal"), tuple(rows),
        (save(figure, "bench_agents.png"),), {"seconds_per_handoff": lines},
    )  # fmt: skip


def growth(rounds: int) -> list[Section]:
    """Cost against handoffs and seeds: straight lines."""
    m, t = workflow(320, 10)
    cls = classes.tabular(m)
    handoffs, seeds = tuple(2**k for k in range(16, 23)), (1, 2, 4, 8, 16, 32)
    long = {str(n): Run(t, cls, n) for n in handoffs}
    many = {str(n): Run(t, cls, 2**18, seeds=n) for n in seeds}
    return [
        _growth("handoffs", handoffs, long, rounds, "Seconds of one chain."),
        _growth("seeds", seeds, many, rounds, f"Seconds of {number(2**18)} handoffs per seed, one core."),
    ]


def _growth(axis: str, sizes: Sequence[int], runs: dict[str, Run], rounds: int, note: str) -> Section:
    timing = measure([Contender(name, run, run.work) for name, run in runs.items()], rounds, label=axis)
    seconds = [float(np.median(row)) for row in timing.seconds]
    each = [timing.each(name) for name in timing.names]
    slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    rows = [(number(n), number(s), number(1e9 * e)) for n, s, e in zip(sizes, seconds, each, strict=True)]
    figure = _lines(axis, "seconds", sizes, {"measured": seconds, "proportional": each[-1] * timing.work}, "log")
    return Section(
        f"Cost against {axis}", f"{note} A table; slope in log-log: {slope:.2f} (1 is proportional).",
        (axis, "seconds", "nanoseconds per handoff"), tuple(rows), (save(figure, f"bench_{axis}.png"),),
        {"sizes": list(sizes), "seconds": seconds, "slope": slope},
    )  # fmt: skip


CELLS = 8


def cell(seed: int) -> float:
    """One cell of a sweep in a worker, which compiles once."""
    m, t = workflow(320, 10)
    config = L.LearnerConfig(step=jnp.float32(STEP * (1 + seed)))
    record = L.learn(t, classes.tabular(m), config, [seed], [8_000_000])
    return float(jnp.sum(record.q))


def cores(rounds: int) -> Section:
    """A sweep on one and on two cores."""

    def sweep(jobs: int) -> None:
        joblib.Parallel(n_jobs=jobs, pre_dispatch="all")(joblib.delayed(cell)(i) for i in range(CELLS))

    sweep(2)  # starts the workers, which then compile
    timing: Timing = measure(
        [Contender("one core", partial(sweep, 1)), Contender("two cores", partial(sweep, 2))], rounds, label="cores"
    )
    ratio = timing.ratio("two cores", "one core")
    rows = [(name, number(float(np.median(timing.seconds[i])))) for i, name in enumerate(timing.names)]
    return Section(
        "One and two cores",
        f"A sweep of {CELLS} cells, a table of 320 states with 8 million handoffs each, in one process and in two. "
        f"Two cores are {times(ratio)} times as fast; {_said(ratio[0], 1.8, at_least=True)}.",
        ("cores", "seconds"), tuple(rows),
        data={"seconds": dict(zip(timing.names, timing.seconds.tolist(), strict=True))},
    )  # fmt: skip


def _lines(x: str, y: str, sizes: Sequence[int], lines: dict[str, Any], yscale: str = "linear") -> Figure:
    axes = style.axes(None, 5, 3.2)
    axes.set(xlabel=x, ylabel=y, xscale="log", yscale=yscale)
    for name, values in lines.items():
        axes.plot(sizes, values, "--" if name == "proportional" else "o-", label=name)
    if yscale == "linear":
        axes.set_ylim(bottom=0)
    return style.label_ends(style.readable(axes)).figure


def bars(sections: Sequence[Section]) -> str:
    """Handoffs per second of every loop, as a picture."""
    with plt.rc_context(style.STYLE):
        figure, panels = plt.subplots(1, len(sections), figsize=(8.5, 3.2))
    for axes, section in zip(panels, sections, strict=True):
        data = section.data["seconds_per_handoff"]
        names = list(data)
        rate = [1 / float(np.median(data[n])) for n in names]
        axes.barh(names[::-1], rate[::-1], color=[style.BLUE if n == OURS else "0.7" for n in names[::-1]])
        axes.set(xscale="log", xlabel="handoffs per second")
        axes.set_title(section.title.removesuffix(", one chain"), loc="left")
        style.readable(axes).grid(axis="y", visible=False)
    return save(figure, "bench_speed.png")


def main() -> None:
    """Measure everything and write docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every interleaved comparison (default: 5)")
    rounds = parser.parse_args().rounds
    compared = speed(rounds)
    compared[0] = Section(**{**vars(compared[0]), "figures": (bars(compared),)})
    sections = [*compared, agents(rounds), *growth(rounds), cores(min(rounds, 3))]
    publish("learner", "The learner", COMMAND, sections, PACKAGES)


if __name__ == "__main__":
    main()
