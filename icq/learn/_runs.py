"""Many runs of one compiled loop, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
from jax.custom_batching import custom_vmap

T = TypeVar("T")


def each(loop: Callable[..., T]) -> Callable[..., T]:
    """`loop`, whose vmap runs the chains one after another on CPU and side by side elsewhere.

    On CPU a chain is one kernel that way; batched, its updates in place would turn into scatters.  Arguments are
    pytrees of arrays; nothing traced may be closed over.
    """

    def call(*args: Any) -> T:
        leaves, tree = jax.tree.flatten(args)
        result: list[Any] = []

        def flat(*leaves: Any) -> list[Any]:
            out, structure = jax.tree.flatten(loop(*jax.tree.unflatten(tree, leaves)))
            result.append(structure)
            return out

        chain = custom_vmap(flat)

        @chain.def_vmap
        def chains(size: int, batched: list[bool], *leaves: Any) -> tuple[list[Any], list[bool]]:
            def one(run: Callable[..., list[Any]], moving: Sequence[Any]) -> list[Any]:
                rest = iter(moving)
                return run(*[next(rest) if b else x for x, b in zip(leaves, batched)])

            moving = [x for x, b in zip(leaves, batched) if b]
            one_by_one, side_by_side = partial(jax.lax.map, partial(one, chain)), jax.vmap(partial(one, flat))
            out = jax.lax.platform_dependent(moving, cpu=one_by_one, default=side_by_side)
            return out, [True] * len(out)

        out = chain(*leaves)
        return jax.tree.unflatten(result[0], out)

    return call
