"""Optimal values beside quantecon's modified policy iteration, and the whole analysis of a million states.

python -m benchmarks.exact            # the table and the picture of docs/benchmarks.md
python -m benchmarks.exact --million  # plus 10^6 states, 3.2e7 outcomes: about a minute of one core, 5 GiB
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import scipy.sparse as sp
from quantecon.markov import DiscreteDP

from benchmarks.harness import Contender, Section, Timing, measure, number, publish, save, times
from icq import exact
from icq.exact import markov
from icq.exact.fixed_point import Solution, modulus
from icq.smdp import ICSMDP
from icq_bounds.figures import style
from synthetic.random import garnet

SIZES = (320, 3_200, 32_000, 100_000)
OURS, MATCHED, DEFAULT = "icq (certified)", "quantecon, equal error", "quantecon, default"
NATIVE = {"max_duration": 1, "terminal": 0.0, "unavailable": 0.0}  # one discount for all: what quantecon is made for
SEMI_MARKOV = {"max_duration": 4, "unavailable": 0.0}  # durations 1 to 4, a tenth of the outcomes end the task


def model(states: int, options: dict[str, float]) -> exact.Model:
    """Rewards and kernel of a random instance with 4 options and 8 outcomes at gamma 0.9."""
    shape = {"states": states, "options": 4, "outcomes": 8, "observations": states, "agents": 3}
    return exact.oracle_model(garnet(0, **shape, **options))


def other(m: exact.Model) -> DiscreteDP:
    """The same process with one discount: what a row lacks goes to one more state that is worth nothing."""
    n, a = m.reward.shape
    beta, rows, options = modulus(m.kernel), np.repeat(np.arange(n), a), np.tile(np.arange(a), n)
    law, lacking = sp.csr_array(m.kernel / beta), 1 - m.discount.reshape(-1) / beta
    if np.abs(lacking).max() < 1e-12:
        return DiscreteDP(m.reward.reshape(-1), sp.csr_matrix(law), beta, rows, options)
    last = sp.csr_array(([1.0], ([0], [n])), shape=(1, n + 1))
    law = sp.vstack([sp.hstack([law, sp.csr_array(np.maximum(lacking, 0)[:, None])]), last])
    reward = np.append(m.reward.reshape(-1), 0.0)
    return DiscreteDP(reward, sp.csr_matrix(law), beta, np.append(rows, n), np.append(options, 0))


def matched(theirs: DiscreteDP, ours: Solution) -> tuple[float, float]:
    """The loosest epsilon, by powers of 100, whose values are as close to ours as our certificate; and how close."""
    for epsilon in 10.0 ** -np.arange(2, 15, 2):
        v = theirs.solve(method="modified_policy_iteration", epsilon=epsilon).v[: len(ours.v)]
        gap = float(np.abs(v - ours.v).max())
        if gap <= ours.error:
            break
    return float(epsilon), gap


def contest(states: int, options: dict[str, float], rounds: int) -> tuple[Timing, tuple[str, ...], dict[str, object]]:
    """Timing, row of the table and data of one size."""
    m = model(states, options)
    theirs, ours = other(m), m.solve()
    if not ours.converged:
        raise RuntimeError(f"S = {states}: {ours.result}")
    epsilon, gap = matched(theirs, ours)
    default = np.abs(theirs.solve(method="modified_policy_iteration").v[:states] - ours.v).max()
    timing = measure(
        [
            Contender(OURS, m.solve),
            Contender(MATCHED, lambda: theirs.solve(method="modified_policy_iteration", epsilon=epsilon)),
            Contender(DEFAULT, lambda: theirs.solve(method="modified_policy_iteration")),
        ],
        rounds=rounds, label=f"S = {states}",
    )  # fmt: skip
    row = (
        number(states), *(number(1e3 * timing.each(name)) for name in timing.names),
        times(timing.ratio(OURS, MATCHED)), times(timing.ratio(OURS, DEFAULT)),
        f"{ours.error:.0e}", f"{gap:.0e} ({epsilon:.0e})", f"{default:.0e}",
    )  # fmt: skip
    data = {"states": states, "seconds": timing.seconds.tolist(), "error": ours.error, "epsilon": epsilon, "gap": gap}
    return timing, row, data


HEADER = (
    "S", "icq, ms", "quantecon at equal error, ms", "quantecon default, ms", "speed-up at equal error (quartiles)",
    "speed-up over default", "certified error of icq", "true error at equal error (epsilon)", "true error at default",
)  # fmt: skip


def table(title: str, note: str, options: dict[str, float], rounds: int, figure: str) -> Section:
    """One section with its picture."""
    found = [contest(states, options, rounds) for states in SIZES]
    axis = style.axes(None, 6, 3.6)
    for name, marker in ((OURS, "o"), (MATCHED, "s"), (DEFAULT, "^")):
        axis.loglog(SIZES, [1e3 * timing.each(name) for timing, _, _ in found], marker=marker, label=name)
    axis.set(xlabel="states", ylabel="milliseconds")
    axis.set_title(title, loc="left")
    style.label_ends(style.readable(axis))
    rows, data = tuple(row for _, row, _ in found), {"sizes": [d for _, _, d in found]}
    return Section(title, note, HEADER, rows, (save(axis.figure, figure),), data)


def million(states: int = 1_000_000) -> Section:
    """Time and memory of each step of the analysis of one large outcome list."""
    rng, o = np.random.default_rng(0), states // 10
    shape = (states, 4, 8)
    prob = rng.random(shape)
    prob /= prob.sum(-1, keepdims=True)
    following = rng.integers(states, size=shape)
    following[:, 0, 0] = (np.arange(states) + 1) % states  # one closed class
    observation = np.concatenate([np.arange(o), rng.integers(o, size=states - o)])
    m = ICSMDP(
        prob=prob, next_state=following, duration=rng.integers(1, 5, size=shape), reward=rng.random(shape),
        terminal=rng.random(shape) < 0.05, observation=observation, agent=np.arange(o) % 5,
        available=np.ones((o, 4), bool), gamma=np.float64(0.95), behaviour=np.full((o, 4), 0.25),
    )  # fmt: skip
    model(2_000, SEMI_MARKOV).solve()  # compiled before the clock starts
    rows, clock = [], [time.process_time(), time.perf_counter()]

    def say(step: str, result: str = "") -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append((step, f"{cpu - clock[0]:.1f}", f"{wall - clock[1]:.1f}", f"{peak:.1f}", result))
        clock[:] = time.process_time(), time.perf_counter()

    say("the outcome list alone")
    p = exact.handoff_chain(m)
    say("handoff chain", f"{p.nnz:,} entries")
    classes = markov.structure(p)
    say("closed classes, period", "; ".join(classes.problems()) or "ergodic")
    law = markov.stationary(p, classes)
    say("stationary law", law.result)
    weights, _ = exact.stationary_weights(m, law.d)
    oracle = exact.oracle_model(m)
    say("oracle model", f"{oracle.kernel.nnz:,} entries")
    interface = exact.interface_model(m, oracle, weights)
    say("interface model", f"{interface.kernel.nnz:,} entries")
    say("optimal values", oracle.solve().result)
    say("interface values", interface.solve().result)
    header = ("step", "CPU s", "wall s", "peak GiB", "result")
    note = (
        f"{states:,} states, 4 options, 8 outcomes, {o:,} observations; the peak includes the outcome list and grows."
    )
    return Section("A million states", note, header, tuple(rows))


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="also analyse 10^6 states (5 GiB)")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of the interleaved comparison")
    arguments = parser.parse_args()
    common = (
        "4 options, 8 outcomes, gamma 0.9, float64, one core, wall clock: compare within a row. Setup is not timed. "
    )
    sections = [
        table(
            "Optimal values, one discount",
            common + "Every option lasts one step and no task ends, so that both solve literally the same process.",
            NATIVE, arguments.rounds, "benchmark_exact_one_discount.png",
        ),
        table(
            "Optimal values, semi-Markov",
            common + "Durations 1 to 4 and ending tasks; quantecon needs one more state to express them.",
            SEMI_MARKOV, arguments.rounds, "benchmark_exact_semi_markov.png",
        ),
    ]  # fmt: skip
    if arguments.million:
        sections.append(million())
    command = "python -m benchmarks.exact" + " --million" * arguments.million
    publish("exact", "Exact analysis", command, sections, ("numba", "numpy", "scipy", "quantecon"))


if __name__ == "__main__":
    main()
