"""The command `icq make`: an instance of a family, written to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from rich.console import Console
from tyro.conf import subcommand

from icq_bounds.console import Lines
from icq_bounds.sweep.families import DialsFamily, GarnetFamily, RoutingFamily


@dataclass(frozen=True, kw_only=True)
class MakeDials(DialsFamily):
    """The dials family: each source of error has its own dial.

    Example: icq make dials --agents 10 --gap 0.5 --mixing 0.3 --out m.npz
    """

    out: Path
    """Where to write the instance (.npz)."""


@dataclass(frozen=True, kw_only=True)
class MakeGarnet(GarnetFamily):
    """A random (Garnet-like) workflow with aliasing, terminals and unequal option sets.

    Example: icq make garnet --states 60 --observations 20 --out g.npz
    """

    out: Path
    """Where to write the instance (.npz)."""


@dataclass(frozen=True, kw_only=True)
class MakeRouting(RoutingFamily):
    """A gateway and specialists pass a request around that nobody sees whole.

    Example: icq make routing --specialists 3 --view 2 --out r.npz
    """

    out: Path
    """Where to write the instance (.npz)."""


Made: TypeAlias = (
    Annotated[MakeDials, subcommand("dials")]
    | Annotated[MakeGarnet, subcommand("garnet")]
    | Annotated[MakeRouting, subcommand("routing")]
)


def description() -> str:
    """The help of all families."""
    return "Write an instance of a family to a file.\n\nExample: icq make dials --gap 0.5 --out m.npz"


def run(options: Made, console: Console) -> None:
    """Write an instance of a family."""
    from icq.files import is_stdout

    options.check()  # an instance that no machine holds is refused before it is tried
    out, m = options.out, options.workflow()
    m.save(out)
    said = Lines(stderr=True) if is_stdout(out) else console
    said.print(
        f"{out}: {m.num_agents} agents, {m.num_states} states, {m.num_observations} observations, "
        f"{m.num_options} options, {m.prob.shape[-1]} outcomes"
    )
