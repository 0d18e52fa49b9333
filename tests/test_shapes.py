"""What a checked function has accepted says nothing about calls that differ in type, shape or plain value."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Int, TypeCheckError, jaxtyped
from shapes import once

CALLS = {
    "another size": (np.zeros((2, 3)), np.zeros(2)),
    "another rank": (np.zeros((2, 3)), np.zeros((3, 1))),
    "another type": (np.zeros((2, 3)), [0.0] * 3),
    "other numbers": (np.zeros((2, 3)), np.zeros(3, int)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("calls", [0, 3])
def test_arguments(name, calls):
    @jaxtyped(typechecker=once)
    def product(a: Float[np.ndarray, "m n"], b: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m"]:
        return a @ b

    for _ in range(calls):
        assert product(np.zeros((2, 3)), np.zeros(3)).shape == product(np.zeros((4, 2)), b=np.zeros(2))[:2].shape
    with pytest.raises(TypeCheckError):
        product(*CALLS[name])
    with pytest.raises(TypeCheckError):
        product(CALLS[name][0], b=CALLS[name][1])


def test_results():
    @jaxtyped(typechecker=once)
    def cut(a: Float[np.ndarray, "n"], end: int) -> Float[np.ndarray, "n"]:
        return a[:end]

    assert cut(np.zeros(3), 3).shape == cut(np.zeros(3), 4).shape
    with pytest.raises(TypeCheckError):
        cut(np.zeros(3), 2)


def test_parts_of_sequences_and_mappings():
    @jaxtyped(typechecker=once)
    def first(rows: tuple[Float[Array, "n"], ...] | list[Int[Array, "n"]], names: dict[str, int]) -> Float[Array, "n"]:
        return rows[0]

    first((jnp.zeros(3), jnp.ones(3)), {"a": 1})
    first((jnp.zeros(3), jnp.ones(3)), {"a": 1})
    for rows, names in (
        ((jnp.zeros(3), jnp.ones(2)), {"a": 1}), ((jnp.zeros(3), jnp.ones(3)), {"a": "1"}), ([jnp.zeros(3)], {"a": 1}),
    ):  # fmt: skip
        with pytest.raises(TypeCheckError):
            for _ in range(64):  # beartype looks at one item, chosen by chance
                first(rows, names)


def test_plain_values_and_tracers():
    @jaxtyped(typechecker=once)
    def power(x: Float[Array, "n"], of: Literal[1, 2], how: Literal["up", "down"] = "up") -> Float[Array, "n"]:
        return x**of

    assert jax.jit(lambda x: power(x, 1) + power(x, 2, "down"))(jnp.ones(2)).sum() == 4
    power(jnp.ones(2), 1)
    for call in ((jnp.ones(2), 3), (jnp.ones(2), 1, "left"), (jnp.ones((2, 2)), 1), (np.ones(2, np.float32), 1)):
        with pytest.raises(TypeCheckError):
            power(*call)
    with pytest.raises(TypeCheckError):
        jax.jit(lambda x: power(x, 1))(jnp.ones((2, 2)))
