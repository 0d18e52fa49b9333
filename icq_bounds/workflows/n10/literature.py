"""What published kinds of bounds say of the residual of the same run (docs/theory.md section 5c)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from bounds.residual import textbook
from icq.exact import analyse
from icq_bounds.sweep.beforehand import decay, problem
from icq_bounds.sweep.cells import Cell
from icq_bounds.sweep.methods import Mlp, PlainMlp
from icq_bounds.sweep.store import Arrays


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
        a, method = analyse(self.cell.family.workflow()), self.cell.method
        if isinstance(method, Mlp | PlainMlp):
            raise TypeError("published kinds of bounds speak of tables and linear classes")
        config = method.config(a, self.cell.iid)
        pop, start = problem(a, method.build(a), config)
        times, steps = np.array(self.cell.checkpoints), decay(config)
        found = {"average": textbook.textbook, "last": textbook.sup_norm}
        return {"times": times} | {name: bound(pop, steps, start, times).value for name, bound in found.items()}
