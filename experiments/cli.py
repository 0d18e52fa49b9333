"""The `icq` command.

icq make dials --gap 0.5 --out m.npz     an instance of a family
icq analyse m.npz [--json]               everything exact about it
icq learn m.npz --handoffs 100000        run IC-Q and split its error
icq simulate m.npz --handoffs 1000000 --out log.parquet   a handoff log of it
icq diagnose log.parquet --html page.html   which error dominates, from a log alone
icq reproduce n10 [--preset smoke]       the ten-agent experiment with figures; also routing, cpu, math
icq math log.jsonl --backend local       language models at work, every handoff logged
icq sweep --axes gap=0:1:9 width=8,16    any grid of settings, every finished cell kept
icq report results/sweep                 one HTML page of a folder of results
"""

from __future__ import annotations

import os

# Before NumPy loads: two BLAS threads on a busy two-core machine are far slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro
from rich.console import Console
from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

from experiments import axes
from experiments.errors import WorkError
from experiments.settings import FAMILIES, DialsFamily, GarnetFamily, Learning, RoutingFamily


@dataclass(frozen=True, kw_only=True)
class MakeDials(DialsFamily):
    """The dials family: each source of error has its own dial.

    Example: icq make dials --agents 10 --gap 0.5 --mixing 0.3 --out m.npz
    """

    out: Path
    """Where to write the instance (.npz)."""


@dataclass(frozen=True, kw_only=True)
class MakeGarnet(GarnetFamily):
    """A random (Garnet-like) workflow with aliasing, terminals and unequal option sets."""

    out: Path
    """Where to write the instance (.npz)."""


@dataclass(frozen=True, kw_only=True)
class MakeRouting(RoutingFamily):
    """A gateway and specialists pass a request around that nobody sees whole.

    Example: icq make routing --specialists 3 --view 2 --out r.npz
    """

    out: Path
    """Where to write the instance (.npz)."""


Family: TypeAlias = (
    Annotated[MakeDials, subcommand("dials")]
    | Annotated[MakeGarnet, subcommand("garnet")]
    | Annotated[MakeRouting, subcommand("routing")]
)


@dataclass(frozen=True)
class Make:
    """Write an instance of a family to a file."""

    family: OmitSubcommandPrefixes[Family]


@dataclass(frozen=True)
class Analyse:
    """Everything exact about an instance: fixed points, interface gap and its bounds, contraction, mixing."""

    file: Positional[Path]
    """An instance (.npz with the field names as keys)."""
    json: bool = False
    """Print one JSON object; quantities that are undefined on this instance are null."""


@dataclass(frozen=True)
class Learn:
    """Run IC-Q on an instance and split its error into interface, approximation and residual, each beside its bound.

    Example: icq learn m.npz --handoffs 100000 --network 16
    """

    file: Positional[Path]
    """An instance (.npz)."""
    handoffs: int = 65536
    """Handoffs per run."""
    seeds: int = 8
    """Independent runs."""
    features: int | None = None
    """Linear class with this many features per agent instead of a table."""
    network: int | None = None
    """One tanh network of this width per agent instead of a table."""
    iid: bool = False
    """Draw every handoff afresh from the stationary law instead of following a trajectory."""
    split: bool = False
    """Also run that control with the same random numbers, and say what correlation along the trajectory costs."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Simulate:
    """Write a handoff log of an instance, in the format that docs/logs.md describes.

    Example: icq simulate m.npz --handoffs 10000000 --out log.parquet
    The log ends a task and begins the next one as one continuing run; the same seed gives the same log.
    """

    file: Positional[Path]
    """An instance (.npz)."""
    handoffs: int
    """Rows of the log."""
    out: Path
    """Where to write it: .parquet, or .jsonl for JSON Lines."""
    context: bool = True
    """Log the global state as context; without it nothing can tell the interface gap from a log."""
    scalar: bool = True
    """Log the scalar sent back: the exact interface value Vbar of the next observation."""
    seed: int = 0


@dataclass(frozen=True)
class Diagnose:
    """Which error dominates in a workflow, from its handoff log alone: docs/diagnose.md.

    The interface gap, the approximation error and the residual with intervals; from which agents something is hidden,
    and whether it is what an option earns, how long it takes or where it leads; what one more unit of data, interface
    or width would buy; what could not be estimated and what to log next time.
    Example: icq diagnose log.parquet --html page.html
    The log may come from any workflow; its columns are described in docs/logs.md, and without a context column the
    interface gap cannot be known.
    """

    file: Positional[Path]
    """A handoff log, Parquet or JSON Lines."""
    gamma: float | None = None
    """Discount per primitive step, where the file does not say."""
    width: int | None = None
    """Judge networks of this width, fitted on the first half of the log, instead of a table."""
    double: bool = False
    """Also fit networks of twice that width, and say what they would buy."""
    html: Path | None = None
    """Also write the page here; it needs nothing but itself."""
    json: bool = False
    """Print one JSON object instead."""
    skip_bad: bool = False
    """Leave unusable rows out and count them, instead of stopping at the first."""
    seed: int = 0
    """Seed of the networks."""


@dataclass(frozen=True)
class Theorem:
    """The error theorem on an instance: every rung of every term, its assumptions, and the certified total.

    Example: icq theorem m.npz --handoffs 1000000
    """

    file: Positional[Path]
    """An instance (.npz)."""
    handoffs: int = 10_000_000
    """Handoffs until which the residual is certified."""
    features: int = 0
    """Features per agent; 0 is the table with a step per own visit."""
    step: float | None = None
    """Constant step; left out, the one that certifies the least error after the given handoffs."""
    points: int = 5
    """Points of the certificate curve."""
    seed: int = 0
    """Seed of the features."""
    json: bool = False
    """Print one JSON object."""
    latex: bool = False
    """Print LaTeX."""


@dataclass(frozen=True)
class Reproduce:
    """Reproduce an experiment: figures and summary.json.

    Interrupted? Run the same command again: finished cells are kept in OUT/cells.
    """

    experiment: Positional[Literal["n10", "routing", "cpu", "math"]]
    """n10: the ten-agent synthetic workflow; routing: a gateway and specialists around a partly seen request;
    cpu: four agents write programs for a small register machine; math: a cheap and a strong language model share
    mathematical questions, from recorded answers."""
    preset: Literal["full", "smoke"] = "full"
    """full takes up to ten minutes on two cores, smoke under one."""
    out: Path | None = None
    """Folder for figures, summary.json and finished cells (default results/EXPERIMENT)."""
    clinc: Path | None = None
    """routing only: a folder with the CLINC150 data, to route real requests too."""
    gsm8k: Path | None = None
    """math only: a .csv of recorded answers of two models with the columns prompt, MODEL, MODEL_response; without,
    made-up ones."""
    jobs: int = 2
    """Processes."""


@dataclass(frozen=True)
class Math:
    """Language models solve mathematical questions together; every handoff goes to a log that icq diagnose reads.

    A dispatcher, a cheap model, a verifier and a strong model choose at random, so that the log shows every option.
    Interrupted? Run the same command again: questions that were finished are not asked again.
    """

    log: Positional[Path]
    """Where the handoffs go, a .jsonl file."""
    backend: Literal["recorded", "local", "endpoint"] = "recorded"
    """recorded: answers of a table; local: a small model on this CPU; endpoint: any OpenAI-compatible server."""
    gsm8k: Path | None = None
    """The table of questions and recorded answers; the recorded backend makes one up without."""
    questions: int = 100
    """How many questions."""
    plays: int = 1
    """How often each is played; answers are remembered, so playing again asks nobody."""
    bits: int | None = 1
    """Bits of a question, and of a response, that agents see (None: which question it is)."""
    compare: bool = True
    """Ask every strategy every question, to compare with always-cheap, always-strong and the per-question oracle."""
    table: Path | None = None
    """Write what everybody said as a .csv that icq reproduce math --gsm8k reads."""
    url: str | None = None
    """endpoint only: where it is, up to /v1."""
    cheap: str | None = None
    """endpoint only: name of the cheap model."""
    strong: str | None = None
    """endpoint only: name of the strong model."""
    key_variable: str = "OPENAI_API_KEY"
    """endpoint only: environment variable that holds the key."""
    cheap_price: float = 0.6
    """Dollars per million tokens of the cheap model."""
    strong_price: float = 30.0
    """Dollars per million tokens of the strong model."""
    worth: float = 0.02
    """Dollars that a right answer is worth."""
    seed: int = 0
    """Of choices, and of problems that are made."""


@dataclass(frozen=True)
class Sweep:
    """Every combination of the given values, learned by independent replicas and split into its error terms.

    Every finished cell is kept at once in OUT/cells.  Interrupted, killed, or the disk was full? Run the same command
    again: only missing cells run. OUT/sweep.nc holds all of it as one labelled dataset:
    import xarray as xr; ds = xr.open_dataset("OUT/sweep.nc", engine="h5netcdf")
    """

    file: Positional[Path | None] = None
    """A TOML file with family, axes, fix, replicas, handoffs, checkpoints; flags beside it win."""
    axes: tuple[str, ...] = ()
    """What varies, NAME=VALUES each: a list 0,0.5,1 or a range 0:1:9 (first:last:count, add :log for equal ratios)."""
    fix: tuple[str, ...] = ()
    """Settings other than their default that do not vary, NAME=VALUE each."""
    family: str | None = None
    """Family of workflows: dials (default), garnet or routing."""
    replicas: int | None = None
    """Independent runs of every cell (default 8)."""
    handoffs: int | None = None
    """Handoffs of every run; seven checkpoints by doubling up to there (default 65536)."""
    checkpoints: tuple[int, ...] | None = None
    """The checkpoints instead, in handoffs."""
    out: Path | None = None
    """Folder of the sweep (default results/NAME of the file, or results/sweep)."""
    jobs: int | None = None
    """Processes on this machine (default: one per core)."""
    dask: str | None = None
    """Run on the workers of this Dask scheduler instead, tcp://host:port."""


@dataclass(frozen=True)
class Report:
    """One HTML page of a folder of results.

    Figures, slopes with intervals, verdicts, tightness, the theorem, provenance.  The page needs nothing but itself: it
    can be mailed, printed or read on a phone.
    Example: icq report results/n10
    In a notebook: from experiments.report import report; report("results/n10")
    """

    folder: Positional[Path]
    """What icq sweep or icq reproduce wrote; an unfinished sweep will do."""
    out: Path | None = None
    """The page (default report.html in the folder)."""
    theorem: bool = True
    """With the theorem in numbers on one of the workflows, which takes some seconds."""


def _sweep_help() -> str:
    examples = (
        "icq sweep --axes gap=0:1:9 width=8,16,32 mixing=0.75,0.1,0.01 --out results/gap",
        "icq sweep --axes method=table,features mixing=0.01:0.75:5:log iid=false,true --replicas 32",
        "icq sweep --family garnet --axes observations=5,10,20 seed=0:9:10 --fix states=40",
        "icq sweep --family routing --axes view=1,2,3,4 method=table,network",
        "icq sweep my.toml --dask tcp://head:8786",
    )
    listings = [f"Axes of the family {name} [default]:\n{axes.listing(family)}" for name, family in FAMILIES.items()]
    listings.append(f"Axes of every family, how to learn:\n{axes.listing(Learning)}")
    return "\n\n".join([cleandoc(str(Sweep.__doc__)), "Examples:\n" + "\n".join(f"  {e}" for e in examples), *listings])


Command: TypeAlias = (
    Annotated[Make, subcommand("make", prefix_name=False)]
    | Annotated[Analyse, subcommand("analyse", prefix_name=False)]
    | Annotated[Learn, subcommand("learn", prefix_name=False)]
    | Annotated[Simulate, subcommand("simulate", prefix_name=False)]
    | Annotated[Diagnose, subcommand("diagnose", prefix_name=False)]
    | Annotated[Theorem, subcommand("theorem", prefix_name=False)]
    | Annotated[Reproduce, subcommand("reproduce", prefix_name=False)]
    | Annotated[Math, subcommand("math", prefix_name=False)]
    | Annotated[Sweep, subcommand("sweep", prefix_name=False, description=_sweep_help())]
    | Annotated[Report, subcommand("report", prefix_name=False)]
)
DESCRIPTION = "Learn handoff workflows with IC-Q, split their error in three, and hold each part beside its bound."


def run(command: Command, console: Console) -> None:
    """Carry out one command."""
    from experiments import commands  # loads JAX: `icq --help` should not wait for it

    match command:
        case Make(family):
            commands.make(family, family.out, console)
        case Analyse():
            commands.analyse_file(command.file, command.json, console)
        case Learn():
            commands.learn_file(command, console)
        case Simulate():
            from experiments import simulate

            simulate.simulate_file(command, console)
        case Diagnose():
            from experiments import diagnose_command

            diagnose_command.run(command, console)
        case Theorem():
            commands.prove_file(command, console)
        case Reproduce():
            from experiments import reproduce

            reproduce.reproduce(command, console)
        case Math():
            from experiments import math_command

            math_command.run(command, console)
        case Sweep():
            from experiments import sweep_command

            sweep_command.run(command, console)
        case Report():
            from experiments import report

            report.run(command, console)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `icq`: errors are one line on stderr and a non-zero exit status."""
    command: Command = tyro.cli(
        Command,  # type: ignore[arg-type]  # a union of annotated types is not a class to the checker
        prog="icq", description=DESCRIPTION, args=arguments, config=(OmitSubcommandPrefixes,),
    )  # fmt: skip
    try:
        run(command, Console(highlight=False))
    except (ValueError, OSError, ArithmeticError, MemoryError, WorkError) as error:
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        print(f"icq: error: {message or type(error).__name__}", file=sys.stderr)
        if isinstance(error, axes.UnknownAxis):
            print(error.detail, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stopped:
        print(f"icq: {str(stopped) or 'interrupted; run the same command again to continue'}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
