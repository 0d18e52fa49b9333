"""The dials family: IC-SMDPs in which each source of error has its own dial (docs/theory.md section 8).

State s = (agent i, cluster c, visible y, hidden h), observation o = (i, c, y), both row-major.  In (o, a) one of L
base branches l = (successor j, next visible y') is taken with probability p0(l|i,y,a); it lasts tau(i,y,a,l)
primitive steps and pays r0(i,y,a) + offset(i,y,a,l) + or - amplitude(i,y,a), the sign being the reward noise.  The
cluster moves on its own and only renames observations.  The hidden part is redrawn uniformly (or kept, with
`persistence`), so that w(h|o) = 1/H.

The hidden part tilts the odds: P(l, sign | i,y,h,a) = p0(l)/2 [1 + g k xi_l(h) + sign g (1-k) rho(h)/amplitude].
Both tilts average to zero over h, so what an agent can log has the same law for every gap g and kernel share k: the
dial moves what the interface hides and nothing else.  All random numbers are drawn (`draw`) before any dial is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from icq.smdp import ICSMDP, Arr, index
from synthetic.settings import DialsSettings
from synthetic.topology import Topology, complete

VALUES = (1.0, 2.0)  # range of the prescribed interface values Vbar(i, y), reward units
STEER = 4.0  # log-odds by which the best option prefers the most to the least valuable successor
REWARD_TILT = 0.35  # largest |rho|, reward units: what the hidden part can add to an option's mean reward
OFFSET = 0.2  # half-range of the branch reward offsets before centring, reward units
MAX_TILT = 0.95  # largest relative change of an outcome's odds: every outcome stays possible at gap 1
MAX_ENTRIES = 20_000_000  # S*A*B beyond which an outcome list (33 bytes an entry) is refused

Dial: TypeAlias = float | int | Float[Arr, "..."]


class DialError(ValueError):
    """A dial or a shape outside its range; the message names it, its index in the batch and the value."""


@dataclass(frozen=True)
class Shape:
    """Static sizes.  S = N C Y H states, O = N C Y observations, B = degree Y C H 2 outcomes.  Hashable.

    Raises DialError for a size below its minimum or more than MAX_ENTRIES outcomes in all.
    """

    topology: Topology = field(default_factory=lambda: complete(DialsSettings.agents))
    clusters: int = DialsSettings.clusters
    visible: int = DialsSettings.visible
    hidden: int = DialsSettings.hidden
    options: int = DialsSettings.options

    def __post_init__(self) -> None:
        for name, least in (("clusters", 2), ("visible", 1), ("hidden", 2), ("options", 2)):
            if getattr(self, name) < least:
                raise DialError(f"{name} = {getattr(self, name)}, at least {least} is needed")
        if self.entries > MAX_ENTRIES:
            raise DialError(
                f"{self.topology.name} graph of {self.agents} agents with degree {self.topology.degree}: "
                f"S = {self.states}, A = {self.options}, B = {self.outcomes}, {self.entries:.2e} outcomes "
                f"(about {self.entries * 33 / 2**30:.1f} GiB), more than {MAX_ENTRIES:.0e}; choose a sparser graph"
            )

    @property
    def agents(self) -> int:
        """N."""
        return self.topology.agents

    @property
    def states(self) -> int:
        """S."""
        return self.observations * self.hidden

    @property
    def observations(self) -> int:
        """O."""
        return self.agents * self.clusters * self.visible

    @property
    def branches(self) -> int:
        """L, the padded number of base branches."""
        return self.topology.degree * self.visible

    @property
    def outcomes(self) -> int:
        """B, in the order (branch, next cluster, next hidden, sign)."""
        return self.branches * self.clusters * self.hidden * 2

    @property
    def entries(self) -> int:
        """S A B."""
        return self.states * self.options * self.outcomes


@struct.dataclass
class Dials:
    """Dynamic dials; a pytree whose leaves may carry one batch axis.

    gap g in [0, 1]; mixing eta in (0, 1] (below 1 for C = 2), the probability of leaving the cluster; kernel_share k
    in [0, 1] of the gap that sits in the next state instead of the reward; compensate in [0, 1], the part of the reward
    gap that rides on the odds of the noise (1: the law of the logs is free of g) instead of shifting the reward;
    reward_noise >= 0; duration_mean >= 1 and duration_spread in [0, 1], primitive steps and relative half-range;
    action_gap >= 0, the smallest margin of the greedy option in Qbar; persistence of h in [0, 1); gamma in (0, 1).
    """

    gap: Dial = DialsSettings.gap
    mixing: Dial = DialsSettings.mixing
    kernel_share: Dial = DialsSettings.kernel_share
    compensate: Dial = DialsSettings.compensate
    reward_noise: Dial = DialsSettings.reward_noise
    duration_mean: Dial = DialsSettings.duration_mean
    duration_spread: Dial = DialsSettings.duration_spread
    action_gap: Dial = DialsSettings.action_gap
    persistence: Dial = DialsSettings.persistence
    gamma: Dial = DialsSettings.gamma


@dataclass(frozen=True)
class _Range:
    """An interval; an infinite end is open."""

    low: float | int
    high: float | int
    open_low: bool = False
    open_high: bool = False

    def holds(self, x: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        above = x > self.low if self.open_low else x >= self.low
        below = x < self.high if self.open_high or self.high == np.inf else x <= self.high
        return np.asarray(above & below)

    def __str__(self) -> str:
        right = ")" if self.open_high or self.high == np.inf else "]"
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:.6g}{right}"


def check(shape: Shape, dials: Dials) -> None:
    """Raise DialError naming the first dial outside its range, its index in a batch and the value."""
    ranges = {
        "gap": _Range(0, 1), "mixing": _Range(0, 1, open_low=True, open_high=shape.clusters == 2),
        "kernel_share": _Range(0, 1), "compensate": _Range(0, 1), "reward_noise": _Range(0, np.inf),
        "duration_mean": _Range(1, np.inf), "duration_spread": _Range(0, 1), "action_gap": _Range(0, np.inf),
        "persistence": _Range(0, 1, open_high=True), "gamma": _Range(0, 1, open_low=True, open_high=True),
    }  # fmt: skip
    for name, interval in ranges.items():
        value = np.asarray(getattr(dials, name), np.float64)
        good = interval.holds(value)
        if not good.all():
            first = np.unravel_index(int(np.argmin(good)), good.shape)
            where = f"[{', '.join(map(str, first))}]" if first else ""
            why = ": two clusters that always change are periodic" if name == "mixing" and value[first] == 1 else ""
            raise DialError(f"{name}{where} = {value[first]} is outside {interval}{why}")


@struct.dataclass
class Draws:
    """Everything random about an instance, drawn before any dial is looked at.  L padded branches, zero p0 on padding.

    branch: p0 [N, Y, A, L]; value: v [N, Y]; loss: u [N, Y, A], 0 on the best option and in [1, 2] elsewhere with the
    smallest one exactly 1; offset [N, Y, A, L] with zero mean under p0; rho [N, Y, H, A] with zero mean over h;
    xi [N, Y, H, A, L] of modulus at most MAX_TILT with zero mean over h and under p0; length, rounding: uniforms
    uniforms [N, Y, A, L] behind the durations; next_agent, next_visible [N, L].
    """

    branch: Float[Arr, "N Y A L"]
    value: Float[Arr, "N Y"]
    loss: Float[Arr, "N Y A"]
    offset: Float[Arr, "N Y A L"]
    rho: Float[Arr, "N Y H A"]
    xi: Float[Arr, "N Y H A L"]
    length: Float[Arr, "N Y A L"]
    rounding: Float[Arr, "N Y A L"]
    next_agent: Int[Arr, "N L"]
    next_visible: Int[Arr, "N L"]


def draw(shape: Shape, key: Key[Array, ""]) -> Draws:
    """The random part of an instance: a function of independent uniforms on (0, 1)."""
    n, y, h, a, l = shape.agents, shape.visible, shape.hidden, shape.options, shape.branches
    table, mask = shape.topology.table()
    next_agent = jnp.asarray(np.repeat(table, y, axis=1))
    next_visible = jnp.asarray(np.tile(np.arange(y), (n, shape.topology.degree)))
    valid = jnp.asarray(np.repeat(mask, y, axis=1))[:, None, None, :]
    to_branch, to_option = (n, y, a, l), (n, y, a)
    weight, offset, length, rounding, level, best, u, pattern, noise = _uniforms(
        key, to_branch, to_branch, to_branch, to_branch, (n, y), (n, y, 1), to_option, (n, y, h, a), (n, y, h, a, l)
    )
    value = VALUES[0] + (VALUES[1] - VALUES[0]) * level
    worse = jnp.floor(a * best) != jnp.arange(a, dtype=best.dtype)[None, None, :]
    # The best option pays less now and hands over to better places: only the scalar tells it apart.
    rank = jnp.argsort(jnp.argsort(value[next_agent, next_visible], axis=1), axis=1) / l - 0.5
    lean = jnp.where(worse[..., None], -STEER, STEER) * rank[:, None, None, :]
    branch = jnp.where(valid, (0.5 + weight) * jnp.exp(lean), 0.0)
    branch = branch / branch.sum(-1, keepdims=True)
    loss = jnp.where(worse, 1.0 + u - jnp.where(worse, u, jnp.inf).min(), 0.0)
    offset = OFFSET * (2.0 * offset - 1.0)
    offset = jnp.where(valid, offset - (branch * offset).sum(-1, keepdims=True), 0.0)
    # Centred over h and over a: what is hidden is which option is better.
    pattern = pattern - pattern.mean(2, keepdims=True)
    pattern = pattern - pattern.mean(3, keepdims=True)
    pattern = pattern / jnp.abs(pattern).max((2, 3), keepdims=True)
    return Draws(
        branch=branch, value=value, loss=loss, offset=offset, rho=REWARD_TILT * pattern,
        xi=_kernel_tilt(pattern, branch, value[next_agent, next_visible], 2.0 * noise - 1.0),
        length=length, rounding=rounding, next_agent=next_agent, next_visible=next_visible,
    )  # fmt: skip


def _uniforms(key: Key[Array, ""], *sizes: tuple[int, ...]) -> list[Array]:
    """Independent uniforms of these shapes from one call (the generator is what takes long to compile)."""
    ends = np.cumsum([int(np.prod(size)) for size in sizes])
    flat = jax.random.uniform(key, (int(ends[-1]),))
    return [part.reshape(size) for part, size in zip(jnp.split(flat, ends[:-1].tolist()), sizes)]


def _kernel_tilt(
    pattern: Float[Array, "N Y H A"],
    branch: Float[Array, "N Y A L"],
    target: Float[Array, "N L"],
    noise: Float[Array, "N Y H A L"],
) -> Float[Array, "N Y H A L"]:
    """xi: where the hidden part favours an option, the odds lean to valuable successors, with noise.

    Centring over h first and under p0 second leaves both means zero, because p0 does not depend on h.
    """
    spread = 0.5 * (VALUES[1] - VALUES[0])
    direction = target[:, None, None, None, :] - 0.5 * (VALUES[0] + VALUES[1])
    xi = pattern[..., None] * (direction + spread * noise)
    xi = xi - xi.mean(2, keepdims=True)
    weight = branch[:, :, None]
    xi = jnp.where(weight > 0, xi - (weight * xi).sum(-1, keepdims=True), 0.0)
    return MAX_TILT * xi / jnp.abs(xi).max((2, 4), keepdims=True)


def durations(draws: Draws, mean: Dial, spread: Dial) -> Int[Arr, "N Y A L"]:
    """tau = floor(1 + (mean - 1)(1 + spread (2 U - 1)) + U') with the instance's uniforms U, U'.

    Its mean over U, U' is exactly `mean`; each tau is nondecreasing in `mean`.
    """
    real = 1.0 + (mean - 1.0) * (1.0 + spread * (2.0 * draws.length - 1.0))
    return jnp.floor(real + draws.rounding).astype(jnp.int64)


def amplitude(draws: Draws, dials: Dials) -> Float[Arr, "N Y A"]:
    """Size of the two-point reward noise: sqrt(reward_noise^2 + (compensate max_h |rho| / MAX_TILT)^2).

    Free of g and k, and large enough that its odds can carry the reward gap within MAX_TILT.
    """
    carried = dials.compensate * jnp.abs(draws.rho).max(2) / MAX_TILT
    return jnp.sqrt(dials.reward_noise**2 + carried**2)


def assemble(shape: Shape, dials: Dials, draws: Draws) -> ICSMDP:
    """The instance that the dials make of the draws.  Assumes dials inside their ranges (`check`)."""
    n, c, y, h, a = shape.agents, shape.clusters, shape.visible, shape.hidden, shape.options
    tau = durations(draws, dials.duration_mean, dials.duration_spread)
    target = draws.value[draws.next_agent, draws.next_visible][:, None, None, :]
    continuation = (draws.branch * dials.gamma ** tau.astype(jnp.float64) * target).sum(-1)
    q_bar = draws.value[..., None] - dials.action_gap * draws.loss
    size, sign = amplitude(draws, dials), jnp.array([1.0, -1.0])
    rho = (1.0 - dials.kernel_share) * draws.rho

    # [N, Y, H, A, L, sign]
    odds = dials.compensate * rho / jnp.where(size > 0, size, 1.0)[:, :, None]
    tilt = dials.kernel_share * draws.xi[..., None] + odds[..., None, None] * sign[None, None, None, None, None]
    prob = 0.5 * draws.branch[:, :, None, ..., None] * (1.0 + dials.gap * tilt)
    shift = dials.gap * (1.0 - dials.compensate) * rho
    reward = (
        (q_bar - continuation)[:, :, None, :, None, None]
        + draws.offset[:, :, None, ..., None]
        + shift[..., None, None]
        + size[:, :, None, :, None, None] * sign[None, None, None, None, None]
    )
    move = dials.mixing / (c - 1)
    cluster = jnp.full((c, c), move) + (1.0 - dials.mixing - move) * jnp.eye(c)
    hidden = (1.0 - dials.persistence) / h + dials.persistence * jnp.eye(h)
    following = (draws.next_agent[:, :, None] * c + jnp.arange(c)[None, None, :]) * y + draws.next_visible[:, :, None]
    following = following[..., None] * h + jnp.arange(h)[None, None, None, :]

    full = (n, c, y, h, a, shape.branches, c, h, 2)  # axes (i, c, y, h, a, l, c', h', sign)
    flat = (shape.states, a, shape.outcomes)

    def spread(x: Arr, *axes: int) -> Array:
        """Put the axes of x at these positions of `full`, repeat along the others, flatten to [S, A, B]."""
        other = tuple(k for k in range(len(full)) if k not in axes)
        return jnp.broadcast_to(jnp.expand_dims(x, other), full).reshape(flat)

    observation = np.repeat(np.arange(shape.observations), h)
    return ICSMDP(
        prob=jnp.einsum("iyhals,cd,hk->icyhaldks", prob, cluster, hidden).reshape(flat),
        next_state=spread(following, 0, 5, 6, 7),
        duration=spread(tau, 0, 2, 4, 5),
        reward=spread(reward, 0, 2, 3, 4, 5, 8),
        terminal=jnp.zeros(flat, bool),
        observation=jnp.asarray(observation),
        agent=jnp.asarray(np.repeat(np.arange(n), c * y)),
        available=jnp.ones((shape.observations, a), bool),
        gamma=jnp.asarray(dials.gamma),
        behaviour=jnp.full((shape.observations, a), 1.0 / a),
    )


def make(shape: Shape, dials: Dials, key: Key[Array, ""]) -> ICSMDP:
    """One instance as pure JAX: trace, compile (shape static) or vmap it over dials and keys.

    Dials are not checked here; call it inside `jax.enable_x64(True)`.  Raises RuntimeError in single precision.
    """
    if jnp.zeros(()).dtype != jnp.float64:
        raise RuntimeError("the dials family needs float64: call make inside `with jax.enable_x64(True):`")
    dials = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), dials)
    return assemble(shape, dials, draw(shape, key))


@partial(jax.jit, static_argnums=0)
def _make_batch(shape: Shape, dials: Dials, seeds: Int[Array, "n"]) -> ICSMDP:
    return jax.vmap(lambda d, seed: make(shape, d, jax.random.key(seed)))(dials, seeds)


def make_many(shape: Shape, dials: Dials, seeds: Int[np.ndarray, "..."] | int) -> ICSMDP:
    """A stacked batch of validated NumPy instances: dial leaves and seeds broadcast to one leading axis.

    Equal seeds share every random draw, so that only the dials differ.  Raises DialError for a bad dial.
    """
    check(shape, dials)
    size = np.broadcast_shapes((1,), np.shape(seeds), *map(np.shape, jax.tree.leaves(dials)))
    with jax.enable_x64(True):
        batch = _make_batch(
            shape,
            jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float64), size), dials),
            jnp.broadcast_to(jnp.asarray(seeds, jnp.int64), size),
        )
        return jax.tree.map(np.asarray, batch).validate()


def dials_instance(shape: Shape | None = None, dials: Dials | None = None, seed: int = DialsSettings.seed) -> ICSMDP:
    """One validated NumPy instance; the default is the N = 10 workflow.  Raises DialError for a bad dial."""
    batch = make_many(shape or Shape(), dials or Dials(), seed)
    return index(batch, 0)
