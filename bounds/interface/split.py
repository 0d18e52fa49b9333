"""Which single observation, refined by the hidden state, lowers the certified interface gap most.

Refining observation o gives every hidden state behind it its own observation, seen by the same agent with the same
options and behaviour.  The handoff chain, d and the oracle stay as they are; the interface model is solved anew.
Letters: docs/theory.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bounds.interface.gap import gap_value_bound_d
from icq.display import Fact, Shown
from icq.exact import Analysis, interface_model, stationary_weights


def certified_gap(a: Analysis) -> float:
    """||E||_d >= ||Q* - Qbar o phi||_d: rung 2 in the norm of the theorem, unconditional.

    Comparable across splits, because they leave the weights d(s) beta(a|phi(s)) as they are.
    """
    return gap_value_bound_d(a).value


def refine(a: Analysis, observation: int) -> Analysis:
    """The exact analysis after observation o is replaced by one observation per hidden state of positive mass.

    The first such state keeps the index o, the others get O, O+1, ...; hidden states without mass stay in o.
    Raises ValueError for an observation that does not exist.
    """
    m = a.smdp
    if not 0 <= observation < m.num_observations:
        raise ValueError(f"observation = {observation} is outside 0..{m.num_observations - 1}")
    seen = np.asarray(m.observation).copy()
    behind = np.flatnonzero((seen == observation) & (a.d > 0))[1:]
    seen[behind] = m.num_observations + np.arange(len(behind))
    source = np.concatenate([np.arange(m.num_observations), np.full(len(behind), observation)])
    per_observation = {name: np.asarray(getattr(m, name))[source] for name in ("agent", "available", "behaviour")}
    refined = replace(m, observation=seen, **per_observation)
    w, d_obs = stationary_weights(refined, a.d, a.law.log_d)
    interface = interface_model(refined, a.oracle, w)
    return replace(
        a, smdp=refined, interface=interface, interface_solution=interface.solve(), w=w, d_obs=d_obs,
        d_pair=d_obs[:, None] * per_observation["behaviour"],
    )  # fmt: skip


@dataclass(frozen=True)
class Splits(Shown):
    """The certified gap before, after refining each observation [O] (NaN where none was tried), and the best one.

    `best` is None when no refinement lowers the certified gap by more than rounding; a refinement may raise it.
    """

    before: float
    after: Float[np.ndarray, "O"]
    best: int | None

    def _facts_(self) -> list[Fact]:
        after = float(self.after[self.best]) if self.best is not None else None
        return [
            Fact("certified gap", self.before, "reward"),
            Fact("", "no refinement lowers it" if self.best is None else None),
            Fact("best observation to refine", self.best), Fact("gap then", after, "reward"),
            Fact("tried", int(np.isfinite(self.after).sum()), "observations"),
        ]  # fmt: skip


def best_split(
    a: Analysis, certified: Callable[[Analysis], float] = certified_gap, candidates: Sequence[int] | None = None
) -> Splits:
    """Refine each candidate (all by default), recompute `certified` exactly, name the one that lowers it most.

    One interface model and one `certified` per candidate with at least two hidden states.
    """
    hidden = np.bincount(np.asarray(a.smdp.observation)[a.d > 0], minlength=a.smdp.num_observations)
    tried = range(len(hidden)) if candidates is None else candidates
    before, after = certified(a), np.full(len(hidden), np.nan)
    for o in tried:
        after[o] = certified(refine(a, o)) if hidden[o] > 1 else before
    floor = float(np.nanmin(after, initial=np.inf))
    best = int(np.nanargmin(after)) if floor < before * (1 - 1e-9) else None
    return Splits(before, after, best)
