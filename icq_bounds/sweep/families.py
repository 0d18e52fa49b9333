"""Families of workflows whose settings are flags of `icq make` and axes of `icq sweep`.

A family is a frozen dataclass of settings with their meanings (synthetic/settings.py has those of this project) and
with `workflow`, `check`, `used` and `sizes`, entered in FAMILIES.  Importing this module loads no JAX: `icq --help`
should not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from icq_bounds.sweep.fields import check_kinds
from synthetic.settings import DialsSettings, GarnetSettings, RoutingSettings

LARGEST_GRAPH = 10**7  # edges: looking at each takes seconds

if TYPE_CHECKING:
    from icq.smdp import ICSMDP
    from synthetic.dials import Dials, Shape
    from synthetic.routing import Routing


LARGEST = 10**8  # outcomes of an instance: 800 MB for each of its fields


def _fits(outcomes: int, sizes: str) -> None:
    """Raise ValueError for an instance that no machine holds, before anybody tries to build it."""
    if outcomes > LARGEST:
        raise ValueError(f"{sizes}: an instance of so many outcomes, more than {LARGEST}, cannot be built; take fewer")


@runtime_checkable
class Family(Protocol):
    """A family of workflows with all its settings chosen; its repr names it."""

    __dataclass_fields__: ClassVar[dict]

    def workflow(self) -> ICSMDP:
        """The instance."""
        ...

    def check(self) -> None:
        """Raise ValueError naming the setting that has no instance, without the cost of building one if possible."""
        ...

    def sizes(self) -> tuple[object, ...]:
        """What compiled programs depend on: instances of equal sizes share them."""
        ...

    def used(self) -> Family:
        """The same family, with settings that its instance does not use at their defaults."""
        ...


def _named(family: object, sizes: Sequence[str]) -> str:
    return ", ".join(f"{name} = {getattr(family, name)}" for name in sizes)


@dataclass(frozen=True, kw_only=True)
class DialsFamily(DialsSettings):
    """The dials family: each source of error has its own dial."""

    def used(self) -> Family:
        """Only the random graph has a degree to choose."""
        return self if self.graph == "random" else replace(self, degree=DialsFamily.degree)

    def shape(self) -> Shape:
        """The static sizes."""
        from synthetic import topology
        from synthetic.dials import Shape

        graphs = {
            "complete": topology.complete, "ring": topology.ring, "star": topology.star, "pipeline": topology.pipeline,
            "random": lambda n: topology.random(n, self.degree, self.seed),
        }  # fmt: skip
        check_kinds(self)
        if self.graph not in graphs:
            raise ValueError(f"graph = {self.graph!r}: choose one of {', '.join(graphs)}")
        degree = {"complete": self.agents, "star": self.agents, "random": self.degree}.get(self.graph, 1)
        if self.agents * degree > LARGEST_GRAPH:
            raise ValueError(f"agents = {self.agents}: the {self.graph} graph has more than {LARGEST_GRAPH:g} edges")
        return Shape(graphs[self.graph](self.agents), self.clusters, self.visible, self.hidden, self.options)

    def dials(self) -> Dials:
        """The numbers."""
        from synthetic.dials import Dials

        return Dials(**{name: value for name, value in asdict(self).items() if name in Dials.__dataclass_fields__})

    def workflow(self) -> ICSMDP:
        """The instance.  Raises DialError or TopologyError for a setting outside its range."""
        from synthetic.dials import dials_instance

        return dials_instance(self.shape(), self.dials(), self.seed)

    def check(self) -> None:
        """Raise the errors of `workflow` without building it."""
        from synthetic.dials import check

        degree = {"random": self.degree, "ring": 2, "pipeline": 2}.get(self.graph, self.agents)
        places = self.clusters * self.visible * self.hidden
        sizes = ("agents", "clusters", "visible", "hidden", "options", *(["degree"] if self.graph == "random" else []))
        _fits(self.agents * places * self.options * degree * places, _named(self, sizes))
        check(self.shape(), self.dials())

    def sizes(self) -> tuple[object, ...]:
        """The shape, graph included."""
        random = (self.degree, self.seed) if self.graph == "random" else ()
        return (self.graph, *random, self.agents, self.clusters, self.visible, self.hidden, self.options)


@dataclass(frozen=True, kw_only=True)
class GarnetFamily(GarnetSettings):
    """A random (Garnet-like) workflow with aliasing, terminals and unequal option sets."""

    def workflow(self) -> ICSMDP:
        """The instance.  Raises ValueError for sizes that have none."""
        from synthetic.random import garnet

        check_kinds(self)
        return garnet(**{name: getattr(self, name) for name in GarnetSettings.__dataclass_fields__})

    def check(self) -> None:
        """Build one instance of these sizes: it takes milliseconds."""
        _fits(self.states * self.options * self.outcomes, _named(self, ("states", "options", "outcomes")))
        _build_once(replace(self, seed=0))

    def used(self) -> Family:
        """Every setting is used."""
        return self

    def sizes(self) -> tuple[object, ...]:
        """Sizes of the arrays."""
        return (self.states, self.options, self.outcomes, self.observations, self.agents)


@cache
def _build_once(family: GarnetFamily) -> None:
    family.workflow()


@dataclass(frozen=True, kw_only=True)
class RoutingFamily(RoutingSettings):
    """A gateway and specialists who pass on a partly seen request until somebody answers it."""

    def game(self) -> Routing:
        """Sizes and prices.  Raises ValueError for one outside its range."""
        from synthetic.routing import Routing

        check_kinds(self)
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma = {self.gamma} is not inside (0, 1)")
        prices = {name: getattr(self, name) for name in RoutingFamily.__dataclass_fields__ if name != "view"}
        return Routing(gateway_view=self.view, specialist_view=self.view, **prices)

    def workflow(self) -> ICSMDP:
        """The instance with all its reachable states."""
        from synthetic.routing import routing

        return routing(self.game()).smdp

    def check(self) -> None:
        """Raise the errors of `workflow` without building it."""
        _fits((self.specialists * self.intents) ** 2, _named(self, ("specialists", "intents")))
        self.game()

    def used(self) -> Family:
        """Every setting is used."""
        return self

    def sizes(self) -> tuple[object, ...]:
        """What decides which requests can be reached."""
        return (self.specialists, self.intents, self.view, self.leave > 0)


FAMILIES: dict[str, type[Family]] = {"dials": DialsFamily, "garnet": GarnetFamily, "routing": RoutingFamily}


UNITS = {
    "duration_mean": "primitive steps", "max_duration": "primitive steps", "decay_offset": "handoffs",
    "reward_noise": "reward", "action_gap": "reward", "view": "bits", "right": "reward", "wrong": "reward",
    "human": "reward", "ask": "reward", "left": "reward",
}  # fmt: skip
