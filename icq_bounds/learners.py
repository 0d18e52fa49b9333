"""How agents learn, in one word: `table()`, `features(8)`, `network(width=256)`.

Every one of them takes a schedule: step k is step / (1 + k/decay_offset)^decay_power, with k in handoffs, and iterate k
weighs like k^averaging_power in the average that is learned.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Unpack

from icq_bounds.sweep.learning import Learning
from icq_bounds.sweep.methods import Features, Mlp, PlainMlp, Table


class StepSettings(TypedDict, total=False):
    """A schedule, of which any part may be left out."""

    step: float
    decay_power: float
    decay_offset: float
    averaging_power: float


Clock = Literal["global", "local"]
Precision = Literal["single", "double"]
Training = Literal["adam", "plain"]


def table(clock: Clock = "local", precision: Precision = "double", **schedule: Unpack[StepSettings]) -> Table:
    """One number per observation and option: the class represents everything, so its approximation error is 0.

    clock: local, each agent steps by its own visits at known frequencies, and the theorem bounds the run before it is
    run; or global, every handoff counts, which learns faster at first and has no such bound.  schedule: step (0.003 or
    1), decay_power (0.6), decay_offset (100000 or 1000) and averaging_power (2); step k is
    step / (1 + k/decay_offset)^decay_power, iterate k weighs like k^averaging_power in the average that is learned.
    Raises ValueError for a number outside its range.
    """
    return _built(function_class="table", clock=clock, precision=precision, **schedule)


def features(
    count: int = 2, clock: Clock = "local", precision: Precision = "double", **schedule: Unpack[StepSettings]
) -> Features:
    """`count` random features per agent: a linear class, misspecified where there are few.

    The rest: as for `table`, with step 0.0003 on the local clock.  Raises ValueError for a
    number outside its range.
    """
    return _built(function_class="features", features=count, clock=clock, precision=precision, **schedule)


def network(
    width: int = 16,
    depth: int = 1,
    *,
    training: Training = "adam",
    scale: float = 1.0,
    inputs: int = 3,
    reference_iterations: int = 2000,
    **schedule: Unpack[StepSettings],
) -> Mlp | PlainMlp:
    """One tanh network per agent.

    training: adam, on an embedding of what it sees in `inputs` random numbers; or plain, one hidden layer on one-hot
    observations with plain steps, which the theorem bounds before the run: from width 64 on within seconds, narrower
    ones with a larger output `scale`.  reference_iterations: expected updates, from each run's own start, that find
    where Adam would stop.  schedule: as for `table`, with step 0.02 and decay_offset 2000, or 0.004 in units of the
    width and 100000.  Raises ValueError for a number outside its range, and for plain networks of more layers.
    """
    own = {"width": width, "depth": depth, "inputs": inputs, "reference_iterations": reference_iterations}
    return _built(function_class="network", training=training, scale=scale, **own, **schedule)


def _built(**settings: Any) -> Any:
    learning = Learning(**settings)
    learning.check()
    return learning.build()
