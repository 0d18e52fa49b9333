"""Offline IC-Q: networks fitted to what a log says, and judged on rows they have not seen.

The log's cell means give each pair x its mean reward and its discounted next observations; fitted iteration sets the
targets R + g max Q from the networks of the previous sweep, agent by agent, and takes Adam steps towards them in
||.||_d.  Every block of parameters belongs to one agent, and only maxima cross agent boundaries, as online.  Noise in
the targets is fitted too, so the residual of a fit means something on other rows only.  Letters: docs/theory.md
sections 1, 4 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from rich.progress import Progress

from estimators.approximation import bellman_residual
from estimators.law import Law
from estimators.logs.log import Log
from estimators.statistics.estimate import Estimate, expect
from estimators.sums import pair_law, sums
from icq.display import Fact, Shown, spread
from icq.exact import Analysis
from icq.learn.classes import FunctionClass, Params, q_table
from icq.learn.networks import MLP, Network

STEPS = 100  # Adam steps per sweep


@dataclass(frozen=True)
class Fit(Shown):
    """A fitted table q [O, A] and the parameters behind it.

    change: ||q - q before||_d of the last sweep; converged: it is within the tolerance of ||q||_d.
    """

    q: Float[np.ndarray, "O A"]
    params: Params
    sweeps: int
    change: float
    converged: bool

    @property
    def result(self) -> str:
        """`converged` or not, after how many sweeps, and how far the last one moved."""
        how = "converged" if self.converged else "did not converge"
        return f"{how} after {self.sweeps} sweeps, the last moved {self.change:.2e}"

    def _facts_(self) -> list[Fact]:
        return [Fact("observations", len(self.q)), Fact("options", self.q.shape[1]), Fact("parameters", self.params),
                Fact("values", spread(self.q), "reward"), Fact("", self.result)]  # fmt: skip


def network_of(log: Log, width: int, depth: int = 1, inputs: Float[np.ndarray, "O F"] | None = None) -> Network:
    """One tanh network per agent of a log, on `inputs` [O, F] (left out: the log's features, or one-hot codes).

    Codes are one-hot by position among the agent's own observations.  Raises ValueError on bad sizes.
    """
    if width < 1 or depth < 1:
        raise ValueError(f"width = {width} and depth = {depth} must be at least 1")
    owner = np.maximum(log.owner, 0)
    if inputs is None:
        inputs = log.features if log.features is not None else _one_hot(owner)
    if len(inputs) < log.num_observations:
        raise ValueError(f"inputs: {len(inputs)} rows, expected one per observation ({log.num_observations})")
    return Network(
        slot=jnp.asarray(owner, jnp.int32), inputs=jnp.asarray(inputs[: len(owner)], jnp.float32),
        module=MLP(width, depth, log.num_options), agents=log.num_agents,
    )  # fmt: skip


def _one_hot(owner: np.ndarray) -> Float[np.ndarray, "O F"]:
    rank = np.array([int((owner[:o] == owner[o]).sum()) for o in range(len(owner))])
    return np.eye(int(rank.max()) + 1, dtype=np.float32)[rank]


def fit(
    source: Analysis | Log, cls: FunctionClass, key: Key[Array, ""], *, sweeps: int = 200, rate: float = 1e-2,
    tolerance: float = 1e-3, progress: bool = False,
) -> Fit:  # fmt: skip
    """Fitted iteration of any class on an instance (its population limit) or on a log (offline IC-Q), in float32.

    Each sweep takes STEPS Adam steps towards the targets of the last one; the step size falls from `rate` to a
    hundredth of it over `sweeps`, and the sweeps end early once one moves less than tolerance ||q||_d.  A fit that
    did not converge says so.
    """
    expect("source", source, Analysis, Log)
    law = pair_law(source) if isinstance(source, Analysis) else sums(source, 1).whole
    return _iterate(law, cls, key, sweeps, rate, tolerance, progress)


def _iterate(
    known: Law, cls: FunctionClass, key: Key[Array, ""], sweeps: int, rate: float, tolerance: float, progress: bool
) -> Fit:
    if sweeps < 1:
        raise ValueError(f"sweeps = {sweeps} must be at least 1")
    rows, options = known.mass.shape
    params = cls.init(key)
    q = np.asarray(q_table(cls, params), np.float64)
    if q.shape[0] < rows or q.shape[1] < options:
        raise ValueError(f"cls has a table of shape {q.shape}, the source needs {known.mass.shape}")
    weight = np.zeros(q.shape)
    weight[:rows, :options] = known.mass
    transform = _adam(rate, sweeps)
    with jax.numpy_dtype_promotion("standard"):  # Optax's counters rely on implicit promotion
        state, change, converged, done = transform.init(params), np.inf, False, 0
        with Progress(transient=True, disable=not progress) as bar:
            task = bar.add_task("fitted iteration", total=sweeps)
            while done < sweeps and not converged:
                target = np.zeros(q.shape)
                target[:rows, :options] = known.model.bellman(q[:rows, :options])
                params, state = _sweep(cls, transform, params, state, _single(target), _single(weight))
                after = np.asarray(q_table(cls, params), np.float64)
                change = float(np.sqrt((weight * (after - q) ** 2).sum()))
                converged = change <= tolerance * float(np.sqrt((weight * after**2).sum()))
                q, done = after, done + 1
                bar.update(task, advance=1, description=f"fitted iteration, moved {change:.1e}")
    return Fit(q, params, done, change, converged)


@cache
def _adam(rate: float, sweeps: int) -> optax.GradientTransformation:
    """One object per setting, so that equal settings share one compiled program."""
    return optax.adam(optax.exponential_decay(rate, STEPS * sweeps, 0.01))


def _single(x: np.ndarray) -> Float[Array, "O A"]:
    return jnp.asarray(x, jnp.float32)


@partial(jax.jit, static_argnames=("transform",))
def _sweep(
    cls: FunctionClass, transform: Any, params: Params, state: Any, target: Float[Array, "O A"],
    weight: Float[Array, "O A"],
) -> tuple[Params, Any]:  # fmt: skip
    def loss(p: Params) -> Float[Array, ""]:
        return 0.5 * jnp.sum(weight * (q_table(cls, p) - target) ** 2)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        p, inner = carry
        move, inner = transform.update(jax.grad(loss)(p), inner, p)
        return (optax.apply_updates(p, move), inner), None

    return jax.lax.scan(step, (params, state), None, length=STEPS)[0]


def rows_of(log: Log, rows: slice) -> Log:
    """Consecutive rows of a log, with the same names and codes."""
    follows = log.follows[rows].copy()
    follows[:1] = False
    return Log(
        gamma=log.gamma, task=log.task[rows], k=log.k[rows], agent=log.agent[rows], observation=log.observation[rows],
        option=log.option[rows], reward=log.reward[rows], duration=log.duration[rows], done=log.done[rows],
        next_agent=log.next_agent[rows], next_observation=log.next_observation[rows], scalar=log.scalar[rows],
        follows=follows, context=None if log.context is None else log.context[rows],
        probability=None if log.probability is None else log.probability[rows], features=log.features, names=log.names,
    )  # fmt: skip


def held_out(
    log: Log, cls: FunctionClass, key: Key[Array, ""], *, sweeps: int = 200, rate: float = 1e-2,
    tolerance: float = 1e-3, progress: bool = False, confidence: float = 0.95,
) -> tuple[Fit, Estimate]:  # fmt: skip
    """The fit of the first half of a log, and its ||q - That q||_d on the second half.

    The halves share no row, so the interval is that of a fixed table.
    """
    middle = len(log) // 2
    found = fit(rows_of(log, slice(0, middle)), cls, key, sweeps=sweeps, rate=rate, tolerance=tolerance,
                progress=progress)  # fmt: skip
    return found, bellman_residual(rows_of(log, slice(middle, len(log))), found.q, confidence=confidence)
