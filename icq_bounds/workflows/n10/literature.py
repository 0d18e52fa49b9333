"""What published kinds of bounds say of the residual of the same run (docs/theory.md section 5c)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from bounds.core.steps import Decay
from bounds.residual import textbook
from icq.exact import analyse
from icq.learn.classes import Linear, Tabular
from icq_bounds.sweep.beforehand import problem
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.store import Arrays

LAST = 10**6  # handoffs: they are walked one by one


@dataclass(frozen=True)
class LiteratureCell:
    """Of which cell."""

    cell: Cell

    def label(self) -> str:
        """A short name for progress lines."""
        return f"literature for {self.cell.label()}"

    def program(self) -> Hashable:
        """It compiles nothing of its own."""
        return ("literature",)

    def run(self) -> Arrays:
        """`times`, and at each `average` (the projected average under mixing) and `last` (the last iterate in a sup
        norm), NaN where their assumptions fail.
        """  # fmt: skip
        a = analyse(self.cell.family.workflow())
        cls, config = self.cell.method.build(a), self.cell.method.config(a, self.cell.iid)
        assert isinstance(cls, Tabular | Linear), "published kinds speak of linear classes"
        pop, start = problem(a, cls, config)
        times = np.array([t for t in self.cell.checkpoints if t <= LAST])
        steps = Decay(*(float(np.asarray(x)) for x in (config.step, config.decay_offset, config.decay_power)))
        found = {"average": textbook.textbook, "last": textbook.sup_norm}
        return {"times": times} | {name: bound(pop, steps, start, times).value for name, bound in found.items()}
