"""The error theorem of networks with plain steps, before they are run: `icq theorem --network`.

docs/theory.md sections 5e and 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from bounds.core.bound import Assumption, Bound
from bounds.core.sheet import Sheet, SheetTable
from bounds.core.statement import number
from bounds.theorem import Output
from estimators.decomposition import TERMS
from estimators.statistics.estimate import finite
from icq.coerce import Instance, count
from icq.display import Fact, Shown
from icq.exact import analyse
from icq_bounds.error_theorem import POINTS
from icq_bounds.sweep.beforehand import Beforehand, beforehand
from icq_bounds.sweep.methods import PlainMlp


@dataclass(frozen=True)
class NetworkTheorem(Shown):
    """What is known of networks before they are run: bounds on every term at `times`, of the last iterate."""

    method: PlainMlp
    times: Int[np.ndarray, "n"]
    known: Beforehand

    def bounds(self, term: str) -> list[Bound]:
        """Of one term, at every time."""
        return list(self.known.bounds[term][Output.LAST])

    @property
    def assumptions(self) -> list[Assumption]:
        """Every assumption once, with its least margin."""
        every = (x for term in TERMS for b in self.bounds(term) for x in b.assumptions)
        least: dict[str, Assumption] = {}
        for x in every:
            least[x.name] = min(least.get(x.name, x), x, key=lambda x: x.margin)
        return list(least.values())

    def sheet(self) -> Sheet:
        """Three tables: bounds over handoffs, the kernels along the path, assumptions."""
        rows = tuple(
            (str(t), *(_value(self.bounds(term)[i]) for term in TERMS), number(float(self.known.predicted[i])))
            for i, t in enumerate(self.times.tolist())
        )
        caps = (self.bounds(term)[0].trivial for term in TERMS)
        trivial = ("trivial", *(number(cap) if math.isfinite(cap) else "-" for cap in caps), "-")
        over_time = SheetTable(
            "Bounds of the last iterate, and where its residual should lie (no bound)",
            ("handoffs", *TERMS, "predicted"), (*rows, trivial),
        )  # fmt: skip
        kept = SheetTable(
            "What a run must keep to from each handoff on, or the bounds stop to speak of it",
            ("from", "kernel within", "table within", "a step turns the kernel by", "weight's rate"), self._kernels(),
        )  # fmt: skip
        said = tuple((x.name, "holds" if x.holds else "FAILS", f"{x.margin:.3g}", x.detail) for x in self.assumptions)
        assumed = SheetTable("Assumptions", ("assumption", "", "margin", "detail"), said)
        m = self.method
        return Sheet(
            f"The error theorem of networks of width {m.width}, output scale {m.scale:g}",
            "plain steps from the start of its seed; errors are root mean squares over runs, d-norm, reward units",
            (over_time, *([kept] if kept.rows else []), assumed),
        )  # fmt: skip

    def _kernels(self) -> tuple[tuple[str, ...], ...]:
        run = self.known.run
        if run is None or not all(x.holds for x in run.known):
            return ()
        out = []
        for s in run.stages:
            limits = (number(s.eta), number(max(p.reach for p in s.pieces)), f"{number(s.turn)} alpha |delta|")
            out.append((str(s.pieces[0].first), *limits, "-" if s.weight is None else number(s.weight.rate)))
        return tuple(out)

    def as_json(self) -> dict[str, Any]:
        """Bounds by term, the prediction and the assumptions."""
        return {
            "width": self.method.width, "scale": self.method.scale, "handoffs": self.times.tolist(),
            "bounds": {term: [finite(b.value) for b in self.bounds(term)] for term in TERMS},
            "trivial": {term: finite(self.bounds(term)[0].trivial) for term in TERMS},
            "predicted": [finite(x) for x in self.known.predicted.tolist()],
            "assumptions": [
                {"name": x.name, "holds": x.holds, "margin": finite(x.margin), "detail": x.detail}
                for x in self.assumptions
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        return self.sheet().text()

    def _facts_(self) -> list[Fact]:
        last = [Fact(term, _value(self.bounds(term)[-1])) for term in TERMS]
        return [Fact("width", self.method.width), Fact("handoffs", int(self.times[-1])), *last]


def network_theorem(m: Instance, method: PlainMlp, handoffs: int, points: int) -> NetworkTheorem:
    """The theorem of networks on a workflow, at so many times up to `handoffs`.  Raises as `analyse` does."""
    handoffs, points = count("handoffs", handoffs), count("points", points, most=POINTS)
    a = analyse(m)
    times = np.unique(np.geomspace(max(handoffs / 1000, 1), handoffs, points).round().astype(int))
    return NetworkTheorem(method, times, beforehand(a, method.build(a), method.config(a, False), times))


def _value(b: Bound) -> str:
    if not b.applicable:
        return f"needs {b.failures[0].name}"
    return number(b.value) + (" (vacuous)" if math.isfinite(b.trivial) and b.value >= b.trivial else "")
