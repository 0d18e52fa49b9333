"""How to learn: a function class, its schedule, and who learns.

Every field is an axis of `icq sweep`, and the text under it is its meaning in every help and error.  Importing this
module loads no JAX: `icq --help` should not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

from icq_bounds.sweep.fields import check_kinds

if TYPE_CHECKING:
    from icq_bounds.sweep.methods import Features, Mlp, PlainMlp, Schedule, Table


class Who(Enum):
    """Who learns: IC-Q, or a baseline that sees more (centralised) or is told less (independent)."""

    ICQ = "IC-Q"
    CENTRALISED = "centralised oracle"
    INDEPENDENT = "independent learners"


LAST = 2**31 - 1  # handoff or update that is counted
WEIGHTS = 10**7  # of a function class, per agent


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How to learn: a function class, its schedule, and who learns."""

    function_class: Literal["table", "features", "network"] = "table"
    """What is learned: table, features (linear, misspecified) or network (one tanh network per agent)."""
    features: int = 2
    """Features per agent of the linear class."""
    width: int = 16
    """Units of a hidden layer of each agent's network."""
    depth: int = 1
    """Hidden layers of each agent's network."""
    inputs: int = 3
    """Dimension of the random embedding that a network sees of its observation."""
    reference_iterations: int = 2000
    """Expected updates behind the Q_F of a network that learns by Adam."""
    training: Literal["adam", "plain"] = "adam"
    """How networks learn: adam, or plain steps on one-hot observations in double precision, which the theorem bounds
    before the run."""
    scale: float = 1.0
    """Output scale of a network with plain steps: the larger, the less its units learn."""
    clock: Literal["global", "local"] = "global"
    """What counts for a step of table and features: every handoff, or an agent's own visits at known frequencies
    (local), which the theorem bounds before the run."""
    precision: Literal["single", "double"] = "single"
    """Arithmetic of table and features."""
    step: float | None = None
    """Step size of the first handoff (left out: 1 for table and features, on the local clock 0.003 and 0.0003, 0.02 for
    the Adam steps of networks, 0.004 for their plain steps, in units of the width)."""
    decay_power: float | None = None
    """Steps fall like handoffs^-decay_power; 0 keeps them constant (left out: 0.6)."""
    decay_offset: float | None = None
    """Handoffs until the decay sets in (left out: 1000 for table and features, on the local clock 100000, 2000 for
    networks, with plain steps 100000)."""
    averaging_power: float | None = None
    """Iterate k weighs like k^averaging_power in the average (left out: 2)."""
    iid: bool = False
    """Draw every handoff afresh from the stationary law instead of following a trajectory."""
    who: Literal["icq", "centralised", "independent"] = "icq"
    """Who learns: icq, the centralised oracle, or independent learners told no scalar (only `value` for these two)."""

    def build(self) -> Table | Features | Mlp | PlainMlp:
        """The method; settings of the other methods play no part in it."""
        from icq_bounds.sweep import methods

        local = self.clock == "local"
        if self.function_class == "table":
            schedule = self._schedule(methods.LOCAL if local else methods.SGD)
            return methods.Table(schedule, self.clock, self.precision)
        if self.function_class == "features":
            schedule = self._schedule(methods.LINEAR if local else methods.SGD)
            return methods.Features(self.features, schedule=schedule, clock=self.clock, precision=self.precision)
        if self.training == "plain":
            return methods.PlainMlp(self.width, self.scale, schedule=self._schedule(methods.PATIENT))
        return methods.Mlp(
            self.width, self.depth, self.inputs, iterations=self.reference_iterations,
            schedule=self._schedule(methods.ADAPTIVE),
        )  # fmt: skip

    def learner(self) -> Who:
        """Who learns."""
        return Who[self.who.upper()]

    def _schedule(self, usual: Schedule) -> Schedule:
        given = {name: getattr(self, name) for name in usual.__dataclass_fields__}
        return replace(usual, **{name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        """Raise ValueError naming the setting outside its range."""
        check_kinds(self)
        for name in ("features", "width", "depth", "inputs", "reference_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.reference_iterations > LAST:
            raise ValueError(f"reference_iterations = {self.reference_iterations} must be at most {LAST}")
        weights = {"features": self.features, "width": self.width * (self.inputs + self.width * (self.depth - 1))}
        for name, count in weights.items():
            if count > WEIGHTS:
                said = "features" if name == "features" else "width, depth and inputs"
                raise ValueError(f"{name} = {getattr(self, name)}: {said} make more than {WEIGHTS} weights per agent")
        if self.training == "plain" and self.depth != 1:
            raise ValueError(f"depth = {self.depth}: networks with plain steps have one hidden layer")
        for name, least in (("step", "positive"), ("decay_offset", "positive"), ("scale", "positive")):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value} must be {least}")
        for name in ("decay_power", "averaging_power"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} = {value} must not be negative")
