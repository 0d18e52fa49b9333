"""The kernel of a network along its population path (docs/theory.md section 5e).

K_theta(x, y) = c <grad f_theta(x), grad f_theta(y)>, c the scale of the agent's steps: one handoff at x moves the table
f_theta by alpha delta K_theta e_x, to first order, so a network is at any moment a table with the preconditioner
K_theta^{-1}.  Pairs of different agents share no parameters, so K is block diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from icq.display import Fact, Shown, spread
from icq.exact import Analysis
from icq.learn.classes import Params, q_table
from icq.learn.networks import Network

STRIDE = 0.2  # of the flow, in units of the clock times the largest eigenvalue of K D
LEAST_SHARE = 1e-6  # of the largest eigenvalue: kernels whose least one is not above it count as singular
STILL = 1e-6  # of the start's distance from Qbar: from there on the kernel stands still
FINE = 16  # strides between two looks at the kernel, at most


@dataclass(frozen=True, eq=False)
class Kernel(Shown):
    """One kernel for a stretch of the path.

    matrix K [X, X] over available pairs; since: the clock tau = sum of alpha from which it is used; drift: the largest
    ||K^{-1/2}(K_theta - K)K^{-1/2}|| seen along the path while it is used; params: of the path where it begins.
    """

    matrix: Float[np.ndarray, "X X"]
    since: float
    drift: float
    params: Params


@dataclass(frozen=True, eq=False)
class KernelPath(Shown):
    """The kernels of a path, in order of the clock.

    coarse: few, for what depends on the kernel; fine: many, for how the reference moves.  table [O, A]: f at the start;
    last: the parameters in the end.  least: the least eigenvalue of K D over its largest one, smallest along the path.
    """

    coarse: tuple[Kernel, ...]
    fine: tuple[Kernel, ...]
    table: Float[np.ndarray, "O A"]
    last: Params
    least: float

    def _facts_(self) -> list[Fact]:
        return [
            Fact("kernels", f"{len(self.coarse)}, and {len(self.fine)} finer ones"),
            Fact("drift within each", spread([k.drift for k in self.coarse])),
            Fact("least eigenvalue over the largest", self.least),
        ]  # fmt: skip


def kernel(cls: Network, params: Params, scale: Float[np.ndarray, "O A"]) -> Float[np.ndarray, "OA OA"]:
    """K at some parameters, in double precision; rows of unavailable pairs included."""
    with jax.enable_x64(True):
        return np.asarray(_kernel(_wide(cls), _wide(params), jnp.asarray(scale)))


@jax.jit
def _kernel(cls: Network, params: Params, scale: Float[Array, "O A"]) -> Float[Array, "OA OA"]:
    """Gradients of one option at a time, of all observations at once, by the block of their agent."""
    slot, options = cls.slot, scale.shape[1]
    blocks = jax.tree.map(lambda leaf: leaf[slot], params)
    gradient = jax.vmap(jax.jacrev(lambda block, o: cls.values(block, o)))(blocks, jnp.arange(len(slot)))
    flat = jnp.concatenate([leaf.reshape(len(slot), options, -1) for leaf in jax.tree.leaves(gradient)], axis=2)
    flat = (flat * jnp.sqrt(scale)[..., None]).reshape(len(slot) * options, -1)
    pair = jnp.repeat(slot, options)
    return jnp.where(pair[:, None] == pair[None, :], flat @ flat.T, 0.0)


def kernel_path(
    a: Analysis, cls: Network, scale: Float[np.ndarray, "O A"], clock: float, share: float, fine: float
) -> KernelPath:  # fmt: skip
    """The kernels along the population path through the clock sum of alpha, each used while the path's own is within
    `share` of it, finer ones within `fine`, as far as one sees at a look every few strides.  None from where the kernel
    is singular.

    The path of the parameters follows the flow d theta/d tau = sum_x d(x) c (That f - f)(x) grad f(x) by Runge-Kutta
    steps.  It only says which kernels are used: the theorem holds for any of them, and a run that leaves them is
    killed.  clock: sum of alpha; scale c [O, A].  docs/theory.md section 5e.
    """
    live = a.interface.available.reshape(-1)
    weight = a.d_pair * np.where(a.interface.available, scale, 0.0)
    with jax.enable_x64(True):
        wide, params = _wide(cls), _wide(cls.start)
        law = (jnp.asarray(a.interface.reward), jnp.asarray(a.interface.kernel.toarray()), jnp.asarray(weight),
               jnp.asarray(a.interface.available))  # fmt: skip
        now = kernel(cls, params, scale)[np.ix_(live, live)]
        start = np.asarray(q_table(wide, params))
        mass = np.sqrt(a.d_pair.reshape(-1)[live])
        spectra = np.linalg.eigvalsh(mass[:, None] * now * mass)
        seen, tau, stride = [_Seen(0.0, now, params)], 0.0, STRIDE / spectra[-1]
        least = spectra[0] / spectra[-1]
        far = a.norm_d(start - a.q_bar)
        away, strides = far, FINE
        while tau < clock and away > STILL * far and least > LEAST_SHARE:
            length = min(strides * stride, clock - tau)
            after = _flow(law, wide, params, jnp.float64(length / strides), jnp.int32(strides))
            later = kernel(cls, after, scale)[np.ix_(live, live)]
            moved = relative(later, now)
            if moved > fine and strides > 1:
                strides //= 2
                continue
            tau, params, now = tau + length, after, later
            strides = min(2 * strides, FINE) if moved < fine / 3 else strides
            away = a.norm_d(np.asarray(q_table(wide, params)) - a.q_bar)
            spectra = np.linalg.eigvalsh(mass[:, None] * now * mass)
            least, stride = min(least, spectra[0] / spectra[-1]), STRIDE / spectra[-1]
            seen.append(_Seen(float(tau), now, params))
    if not least > LEAST_SHARE:
        return KernelPath((), (), start, params, float(least))
    return KernelPath(*_nested(seen, share, fine), start, params, float(least))


@dataclass(frozen=True, eq=False)
class _Seen(Shown):
    """The path at one time of the clock."""

    tau: float
    matrix: Float[np.ndarray, "X X"]
    params: Params


def _nested(seen: list[_Seen], share: float, fine: float) -> tuple[tuple[Kernel, ...], tuple[Kernel, ...]]:
    """Coarse kernels, and fine ones that begin anew with each of them."""
    coarse, inner = [], []
    for first, last, kernel in _cover(seen, 0, len(seen) - 1, share):
        coarse.append(kernel)
        inner += [k for *_, k in _cover(seen, first, last, fine)]
    return tuple(coarse), tuple(inner)


def _cover(seen: list[_Seen], first: int, end: int, share: float) -> list[tuple[int, int, Kernel]]:
    """As few kernels as one finds by going as far as possible with each: the mean of the first and the last one."""
    out: list[tuple[int, int, Kernel]] = []
    while not out or first < end:
        step = max(end - first, 1)
        while True:
            last = min(first + step, end)
            middle = (seen[first].matrix + seen[last].matrix) / 2
            drift = max(relative(seen[i].matrix, middle) for i in _some(first, last))
            if step == 1 or drift <= share:
                break
            step //= 2
        out.append((first, last, Kernel(middle, seen[first].tau, drift, seen[first].params)))
        first = last
    return out


def _some(first: int, last: int) -> list[int]:
    """A few places between the two, ends included."""
    return sorted({first, last, *np.linspace(first, last, 5).astype(int).tolist()})


def relative(k: Float[np.ndarray, "X X"], reference: Float[np.ndarray, "X X"]) -> float:
    """||K_0^{-1/2}(K - K_0)K_0^{-1/2}||_2."""
    root = np.linalg.cholesky(reference)
    inner = np.linalg.solve(root, np.linalg.solve(root, k - reference).T)
    return float(np.abs(np.linalg.eigvalsh((inner + inner.T) / 2)[[0, -1]]).max())


@jax.jit
def _moved(cls: Network, params: Params, share: Float[Array, "O A"]) -> Params:
    """The parameters after a step along the gradient of the sum of shares times values."""
    _, pull_back = jax.vjp(partial(q_table, cls), params)
    return jax.tree.map(lambda x, y: x + y, params, pull_back(share)[0])


def responses(
    cls: Network, params: Params, scale: Float[np.ndarray, "O A"], moves: Float[np.ndarray, "m X"],
    live: Int[np.ndarray, "X"],
) -> Float[np.ndarray, "m"]:  # fmt: skip
    """How far, relative to the kernel at `params`, that of the smallest change of parameters is that moves the table by
    each of `moves` to first order.
    """  # fmt: skip
    here, out = kernel(cls, params, scale)[np.ix_(live, live)], []
    with jax.enable_x64(True):
        wide, begin = _wide(cls), _wide(params)
        for move in moves:
            share = np.zeros(scale.size)
            share[live] = scale.reshape(-1)[live] * np.linalg.solve(here, move)
            moved = _moved(wide, begin, jnp.asarray(share.reshape(scale.shape)))
            out.append(relative(kernel(cls, moved, scale)[np.ix_(live, live)], here))
    return np.array(out)


@dataclass(frozen=True, eq=False)
class Bends(Shown):
    """What a step of size eps = alpha delta at each pair x does beyond first order.

    step [X, X]: row x times eps^2 is f_theta' - f_theta less its first order, to second order; zero outside of the
    agent of x.  kernel [J, X, X]: entry j times eps is K_theta' - K_theta to first order, of the j-th pair of every
    agent at once, as their blocks do not touch each other.
    """

    step: Float[np.ndarray, "X X"]
    kernel: Float[np.ndarray, "J X X"]


def bends(cls: Network, params: Params, scale: Float[np.ndarray, "O A"], live: Int[np.ndarray, "X"]) -> Bends:
    """Both at some parameters, as exact derivatives, in double precision; live: indices o A + a of available pairs."""
    slot = np.repeat(np.asarray(cls.slot), scale.shape[1])[live]
    rank = np.array([(slot[:x] == slot[x]).sum() for x in range(len(live))])
    chosen = np.zeros((int(rank.max()) + 1, scale.size))
    chosen[rank, live] = 1.0
    with jax.enable_x64(True):
        step, turned = _bends(_wide(cls), _wide(params), jnp.asarray(scale), jnp.asarray(chosen))
    step, turned = np.asarray(step)[:, live], np.asarray(turned)[:, live][:, :, live]
    own = slot[:, None] == slot[None, :]
    return Bends(np.where(own, step[rank], 0.0), turned)


@jax.jit
def _bends(cls: Network, params: Params, scale: Float[Array, "O A"], chosen: Float[Array, "J OA"]) -> Any:
    def one(choice: Float[Array, "OA"]) -> Any:
        table, pull_back = jax.vjp(partial(q_table, cls), params)
        toward = pull_back(scale * choice.reshape(table.shape))[0]

        def slope(p: Params) -> Float[Array, "O A"]:
            return jax.jvp(partial(q_table, cls), (p,), (toward,))[1]

        second = jax.jvp(slope, (params,), (toward,))[1]
        turned = jax.jvp(lambda p: _kernel(cls, p, scale), (params,), (toward,))[1]
        return jnp.ravel(second) / 2, turned

    return jax.lax.map(one, chosen)


def turning(bent: Bends, k: Float[np.ndarray, "X X"]) -> float:
    """max over x of ||K^{-1/2} dK_x K^{-1/2}||: how much of the kernel a step of size 1 turns."""
    return max(relative(k + one, k) for one in bent.kernel)


def _wide(tree: Any) -> Any:
    def widen(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(widen, tree)


@jax.jit
def _flow(law: Any, cls: Network, params: Params, stride: Float[Array, ""], strides: Int[Array, ""]) -> Params:
    """Some Runge-Kutta steps of the flow."""
    reward, onward, weight, available = law

    def slope(p: Params) -> Params:
        q, pull_back = jax.vjp(partial(q_table, cls), p)
        value = jnp.max(jnp.where(available, q, -jnp.inf), axis=1)
        return pull_back(weight * (reward + jnp.reshape(onward @ value, q.shape) - q))[0]

    def along(p: Params, d: Params, share: Any) -> Params:
        return jax.tree.map(lambda x, y: x + share * stride * y, p, d)

    def step(_: Any, p: Params) -> Params:
        k1 = slope(p)
        k2 = slope(along(p, k1, 0.5))
        k3 = slope(along(p, k2, 0.5))
        k4 = slope(along(p, k3, 1.0))
        return jax.tree.map(lambda x, a, b, c, d: x + stride / 6 * (a + 2 * b + 2 * c + d), p, k1, k2, k3, k4)

    return jax.lax.fori_loop(jnp.int32(0), strides, step, params)
