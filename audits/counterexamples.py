"""The search for a counterexample to any lemma: python -m audits.counterexamples --instances 10000 --jobs 2."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from dataclasses import dataclass

import jax
import numpy as np
import tyro
from rich.console import Console

from bounds.adversary.approximation import LEMMAS as APPROXIMATION
from bounds.adversary.interface import LEMMAS as INTERFACE
from bounds.adversary.residual import LEMMAS as RESIDUAL
from bounds.adversary.search import Lemma, Tally, merged, search
from bounds.core.sheet import Sheet, SheetTable
from icq.smdp import ICSMDP, Arr
from icq_bounds.sweep import engine
from synthetic.random import garnet

LEMMAS: tuple[Lemma, ...] = (*INTERFACE, *APPROXIMATION, *RESIDUAL)
CHUNK = 50  # seeds per job


def random_instance(seed: int) -> ICSMDP:
    """A random instance of any shape: one state to eight, fully observed to blind, fast to sticky, short to long."""
    rng = np.random.default_rng(seed)
    states, options = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    observations = int(rng.integers(1, states + 1))
    m = garnet(
        seed,
        states=states,
        options=options,
        outcomes=int(rng.integers(2 if options == 1 else 1, 4)),
        observations=observations,
        agents=int(rng.integers(1, min(observations, 4) + 1)),
        gamma=float(rng.choice([0.2, 0.5, 0.8, 0.95, 0.99])),
        max_duration=int(rng.integers(1, 9)),
        terminal=float(rng.choice([0.0, 0.2, 0.8])),
        unavailable=float(rng.choice([0.0, 0.5])),
        correlated=float(rng.choice([0.0, 0.5, 1.0])),
    )
    return sticky(m, float(rng.choice([0.5, 0.9, 0.98]))) if rng.random() < 0.4 else m


def sticky(m: ICSMDP, stay: float) -> ICSMDP:
    """The instance in which every option fails with probability `stay`: one step, no reward, the state is kept."""
    states, options, _ = m.prob.shape
    shape = (states, options, 1)

    def more(old: Arr, value: np.ndarray | float) -> np.ndarray:
        return np.concatenate([np.asarray(old), np.broadcast_to(value, shape).astype(old.dtype)], axis=2)

    return ICSMDP.create(
        prob=more((1 - stay) * m.prob, stay), next_state=more(m.next_state, np.arange(states)[:, None, None]),
        duration=more(m.duration, 1.0), reward=more(m.reward, 0.0), terminal=more(m.terminal, 0.0), gamma=m.gamma,
        observation=m.observation, agent=m.agent, available=m.available, behaviour=m.behaviour,
    )  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A job: the search over seeds first..first+count-1, for the named lemmas (all by default)."""

    first: int
    count: int
    lemmas: tuple[str, ...] = ()

    def label(self) -> str:
        """A short name for progress lines."""
        return f"instances from {self.first}"

    def program(self) -> Hashable:
        """Every instance compiles its own."""
        return self

    def run(self) -> dict[str, Tally]:
        """What was found, by lemma."""
        chosen = [lemma for lemma in LEMMAS if not self.lemmas or lemma.name in self.lemmas]
        found = search(chosen, random_instance, range(self.first, self.first + self.count))
        jax.clear_caches()  # every shape compiles its own network, or a worker's memory grows without end
        return found


def sheet(found: dict[str, Tally], instances: int) -> Sheet:
    """One row per lemma."""
    flaw = {lemma.name: lemma.flaw for lemma in LEMMAS}
    header = ("lemma", "instances", "inapplicable", "violations", "smallest", "median", "planted error", "caught")
    rows = tuple(
        (
            name, str(t.instances), str(t.inapplicable), str(t.violations), f"{t.smallest:.4g}", f"{t.median:.4g}",
            flaw[name], str(t.caught) if t.caught else "NOT CAUGHT",
        )
        for name, t in found.items()
    )  # fmt: skip
    bad = [name for name, t in found.items() if not t.stands]
    first = "; ".join(f"{name}: seeds {list(t.first)}" for name, t in found.items() if t.first)
    verdict = "every lemma stands" if not bad else f"NOT standing: {', '.join(bad)}. {first}"
    title = f"{instances} random instances, {sum(t.cases for t in found.values())} claims: {verdict}"
    return Sheet(title, "smallest and median: bound / observed", (SheetTable("", header, rows),))


@dataclass(frozen=True)
class SearchOptions:
    """Search for violations of the lemmas of docs/theory.md sections 3 to 6.

    instances: how many random instances; seed: of the first; jobs: processes; lemmas: only these names.
    """

    instances: int = 10_000
    seed: int = 0
    jobs: int = 2
    lemmas: tuple[str, ...] = ()


def run(options: SearchOptions) -> dict[str, Tally]:
    """The search in parallel processes, with progress."""
    end = options.seed + options.instances
    work = [Search(s, min(CHUNK, end - s), options.lemmas) for s in range(options.seed, end, CHUNK)]
    execute = engine.processes(options.jobs, share=False)
    return merged([*engine.run_all(work, None, execute, Console(stderr=True), noun="chunks").values()])


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when a lemma does not stand.  Raises SystemExit for an unknown lemma."""
    options = tyro.cli(SearchOptions, args=arguments, prog="python -m audits.counterexamples")
    unknown = set(options.lemmas) - {lemma.name for lemma in LEMMAS}
    if unknown:
        raise SystemExit(f"unknown lemma {sorted(unknown)[0]!r}; the lemmas are {', '.join(x.name for x in LEMMAS)}")
    found = run(options)
    print(sheet(found, options.instances).text(width=140))
    return 0 if all(t.stands for t in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
