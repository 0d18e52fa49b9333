"""The three errors of a dials workflow at any position of its dials, and sliders that move them in a notebook.

What an error depends on is proved in docs/theory.md section 8: without persistence the gap dial moves the interface gap
alone, and neither the mixing dial nor the class moves that.  Every part is cached under the dials that it depends on,
so that turning one dial computes anew only what the dial moves.  Letters: docs/theory.md sections 5 and 6.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bounds.approximation.class_error import class_error_bound
from bounds.ladder import class_of, signed_gap_bound_d
from bounds.residual import closed, population
from bounds.residual.population import Population
from estimators.decomposition import NAME, TERMS
from icq.display import Fact, Shown
from icq.exact import Analysis, analyse
from icq_bounds.error_theorem import best_step, class_features
from icq_bounds.figures.style import STYLE
from icq_bounds.sweep.families import DialsFamily
from icq_bounds.sweep.methods import SGD, asymptote

POSITIONS = 256  # kept of every part; an analysis of the ten-agent workflow takes a few megabytes

# --- numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part(Shown):
    """One error in the d-norm: `value`, exact or (residual) asymptotic, and its bound, NaN without one."""

    value: float
    bound: float

    def __add__(self, other: Part) -> Part:
        return Part(self.value + other.value, self.bound + other.bound)

    def _facts_(self) -> list[Fact]:
        return [Fact("error", self.value, "reward"), Fact("bound", self.bound, "reward")]


@dataclass(frozen=True)
class Terms(Shown):
    """The three errors at one position: interface gap and class error exactly, the residual as its asymptote."""

    interface: Part
    approximation: Part
    residual: Part

    @property
    def total(self) -> Part:
        """Their sum, which the error against the oracle does not exceed (docs/theory.md section 6)."""
        return self.interface + self.approximation + self.residual

    @property
    def dominant(self) -> str | None:
        """The largest of the three, one of TERMS; None where one is not known."""
        sizes = {term: getattr(self, term).value for term in TERMS[:3]}
        return None if any(map(math.isnan, sizes.values())) else max(sizes, key=lambda term: sizes[term])

    def _facts_(self) -> list[Fact]:
        parts = [Fact(NAME[term], getattr(self, term).value, "reward") for term in TERMS[:3]]
        return [*parts, Fact("dominant", self.dominant)]


def hidden(a: Analysis) -> Part:
    """||Qbar o phi - Q*||_d and its bound by signed gap values."""
    return Part(a.norm_d_state(a.gap), signed_gap_bound_d(a).value)


@dataclass(frozen=True, eq=False)
class Learned(Shown):
    """What a class learns: its population problem, class error ||Q_F - Qbar||_d, and constants of the residual.

    constant: the limit of T E||Qavg - Q_F||_d^2 for the averaged learner (schedule `icq_bounds.sweep.methods.SGD`), control:
    that of the i.i.d. control; both NaN where their assumptions fail.
    """

    problem: Population
    error: Part
    constant: float
    control: float

    def residual(self, handoffs: int) -> Part:
        """The asymptote after so many handoffs, and the Poisson bound on the last iterate from 0, at the constant step
        that is best for so many.
        """  # fmt: skip
        start, times = np.zeros_like(self.problem.theta_star), np.array([handoffs])
        bound = closed.last_iterate(self.problem, best_step(self.problem, handoffs), start, times)
        return Part(math.sqrt(self.constant / handoffs), float(bound.value[0]))

    def _facts_(self) -> list[Fact]:
        return [Fact("class error", self.error.value, "reward"), Fact("residual constant", self.constant),
                Fact("with independent handoffs", self.control)]  # fmt: skip


def learned(a: Analysis, features: int) -> Learned:
    """`features` random features per agent, steps scaled by their covariance; 0: a table, a step per own visit."""
    psi = class_features(a, features, 0)
    pop = population.population(a, psi, population.local_clock(a, psi))
    error = Part(a.norm_d(pop.q_f - a.q_bar), class_error_bound(class_of(pop)).value) if features else Part(0.0, 0.0)
    constant, control = (float(asymptote(pop, SGD.config(iid), iid)) for iid in (False, True))
    return Learned(pop, error, constant, control)


# Each dial moves what depends on it -----------------------------------------------------------------------------------


@lru_cache(maxsize=POSITIONS)
def analysis(family: DialsFamily) -> Analysis:
    """The exact analysis of a workflow."""
    return analyse(family.workflow())


def without_gap(family: DialsFamily) -> DialsFamily:
    """The same workflow with the gap dial at 0, where logs have the same law (docs/theory.md section 8.3).

    So class error and residual are those of any gap, and bounds evaluated there hold at any gap for runs that
    start at stationarity.  A family whose gap leaks into its logs (persistence, or no full compensation) is returned
    as it is.
    """
    return replace(family, gap=0.0) if family.persistence == 0 and family.compensate == 1 else family


def without_mixing(family: DialsFamily) -> DialsFamily:
    """The same workflow at the default mixing dial, where Q*, Qbar and d are the same (docs/theory.md section 8.6).

    With persistence, of which the lemma does not speak, the family is returned as it is.
    """
    return replace(family, mixing=DialsFamily.mixing) if family.persistence == 0 else family


@lru_cache(maxsize=POSITIONS)
def _hidden(family: DialsFamily) -> Part:
    return hidden(analysis(family))


@lru_cache(maxsize=POSITIONS)
def _learned(family: DialsFamily, features: int) -> Learned:
    return learned(analysis(family), features)


@lru_cache(maxsize=POSITIONS)
def _residual(family: DialsFamily, features: int, handoffs: int) -> Part:
    return _learned(family, features).residual(handoffs)


def interface_of(family: DialsFamily) -> Part:
    """The interface gap at this position of the dials."""
    return _hidden(without_mixing(family))


def learned_by(family: DialsFamily, features: int) -> Learned:
    """What a class learns at this position."""
    return _learned(without_gap(family), features)


def terms(family: DialsFamily, features: int, handoffs: int) -> Terms:
    """The three errors at this position."""
    residual = _residual(without_gap(family), features, handoffs)
    return Terms(interface_of(family), learned_by(family, features).error, residual)


def partial_variance(pop: Population, octaves: int) -> Float[np.ndarray, "K"]:
    """v_0, v_1, v_2, v_4, ..., v_(2^octaves): the variance of an averaged handoff with correlation up to a lag counted.

    For u_k = G^{1/2} J^{-1} psi(x_k) delta*_k along a stationary trajectory v_n = E|u_0|^2 + 2 sum_{j=1}^n E[u_0'u_j].
    v_0 is the constant of the i.i.d. control, and v_n tends to tr(G J^{-1}(Sigma_0 + Sigma_mix)J^{-T}) if the chain is
    aperiodic.  Lemma: with h(s) = E[u|s] and m(s) = E_d[u 1{s_1 = s}], the sum is sum_s m(s)'[(I - P^n) Z h](s), as
    sum_{j<n} P^j = (I - P^n) Z + n 1d' and d'h = 0 (docs/theory.md, Lemma 5.2).
    """
    gram = pop.psi.T @ (pop.d[:, None] * pop.psi)
    inverse = np.linalg.inv(pop.jacobian)
    alone = float(np.sum(gram * (inverse @ pop.sigma_0 @ inverse.T)))
    arrive = pop.arrive(pop.td_error) @ pop.psi @ inverse.T @ gram
    solved = pop.analysis.deviation @ (pop.mean_update @ pop.psi @ inverse.T)
    power, out = pop.analysis.transition.toarray(), [alone]
    for _ in range(octaves + 1):
        out.append(alone + 2 * float(np.sum(arrive * (solved - power @ solved))))
        power = power @ power
    return np.array(out)


# --- sliders --------------------------------------------------------------------------------------------------------

Draw = Callable[..., Any]


class Pictures:
    """`draw(ax=..., **values)` as PNG, drawn once per position and kept.

    All take the layout of the first: axes do not jump, and the slowest part of drawing is done once.
    """

    def __init__(self, draw: Draw, size: tuple[float, float] = (7.2, 4.2)) -> None:
        self.draw, self.size = draw, size
        self._known: dict[tuple[tuple[str, Any], ...], bytes] = {}
        self._places: list[Any] = []

    def __call__(self, **values: Any) -> bytes:
        """The picture at these values, in the project's style."""
        key = tuple(sorted(values.items()))
        if key not in self._known:
            self._known[key] = self._drawn(values)
        return self._known[key]

    def _drawn(self, values: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        with plt.rc_context(STYLE | {"figure.constrained_layout.use": not self._places}):
            figure, ax = plt.subplots(figsize=self.size)
            try:
                self.draw(ax=ax, **values)
                for part, place in zip(figure.axes, self._places):
                    part.set_position(place)
                for part in figure.axes:
                    part.minorticks_off()  # on logarithmic axes most of the time goes into them
                figure.savefig(out, format="png", dpi=100)
                self._places = [part.get_position() for part in figure.axes]
            finally:
                plt.close(figure)
        return out.getvalue()


def sliders(
    draw: Draw, *, start: Mapping[str, Any] | None = None, **controls: Sequence[Any] | Mapping[str, Any]
) -> Any:
    """A widget: `draw(ax=..., **values)` under one slider per control.

    controls: the positions of each slider, a sequence or a mapping from labels to values.  start: where the sliders
    begin, in the middle where left out.  Needs ipywidgets and answers to a running kernel;
    `positions` shows several positions to readers without one.  Raises ValueError for a control without positions,
    and for a start that is none of them.
    """
    import ipywidgets

    options = {name: labelled(steps) for name, steps in controls.items()}
    first = beginning(options, {} if start is None else start)
    picture = Pictures(draw)
    image = ipywidgets.Image(value=picture(**first), format="png", layout={"max_width": "100%"})
    found = {
        name: ipywidgets.SelectionSlider(
            options=list(steps.items()), value=first[name], description=name.replace("_", " "),
            style={"description_width": "8em"}, layout={"width": "36em"},
        )
        for name, steps in options.items()
    }  # fmt: skip

    def moved(_: Any) -> None:
        image.value = picture(**{name: slider.value for name, slider in found.items()})

    for slider in found.values():
        slider.observe(moved, "value")
    return ipywidgets.VBox([*found.values(), image])


def labelled(steps: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Positions by label."""
    return dict(steps) if isinstance(steps, Mapping) else {f"{v:,}" if isinstance(v, int) else str(v): v for v in steps}


def beginning(controls: Mapping[str, Mapping[str, Any]], start: Mapping[str, Any]) -> dict[str, Any]:
    """The first position of every control."""
    if unknown := [name for name in start if name not in controls]:
        raise ValueError(f"start: {unknown[0]!r} is no control; they are {', '.join(controls)}")
    found = {}
    for name, steps in controls.items():
        values = list(steps.values())
        if not values:
            raise ValueError(f"{name}: a slider needs at least one position")
        if name in start and start[name] not in values:
            raise ValueError(f"start: {name} = {start[name]!r} is none of its positions {values}")
        found[name] = start.get(name, values[len(values) // 2])
    return found


def _legend(ax: Axes) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def positions(
    draw: Draw, *values: Mapping[str, Any], columns: int = 2, size: tuple[float, float] = (4.8, 3.3)
) -> list[Axes]:
    """`draw` at several positions side by side, with equal axes: what sliders show, for readers without a kernel."""
    rows = -(-len(values) // columns)
    with plt.rc_context(STYLE):
        _, grid = plt.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows), sharex=True, sharey=True, squeeze=False
        )
        used = list(grid.flat)[: len(values)]
        for ax, at in zip(used, values):
            draw(ax=ax, **at)
            ax.label_outer()
            if ax is not used[0] and _legend(ax) == _legend(used[0]) and ax.get_legend() is not None:
                ax.get_legend().remove()  # said once
        for ax in list(grid.flat)[len(values) :]:
            ax.remove()
    return used
