"""The learner's loop really becomes one kernel, and the flag that makes it so gets along with everybody else's."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from strategies import garnet

from icq.exact import analyse
from icq.learn import classes, flags, sampling
from icq.learn import learner as L

M = garnet(5, states=12, options=3, outcomes=3, observations=6, agents=3, gamma=0.5)
TABLES = sampling.tables(analyse(M))
TABLE = classes.tabular(M)


@struct.dataclass
class Sorted(classes.Tabular):
    """A table that answers with its row sorted, whose gradient is a scatter, which no one kernel can hold."""

    def values(self, block, observation):
        return jnp.sort(block)


def program(cls):
    keys = L.seed_keys(range(2))
    arguments = TABLES, cls, L.LearnerConfig(), L.initial_params(cls, keys), keys, jnp.array([5, 9], jnp.int32)
    leaves, tree = jax.tree.flatten(arguments)
    return jax.jit(lambda leaves: L._learn(*jax.tree.unflatten(tree, leaves))).lower(leaves).compile().as_text()


def in_one_kernel(text):
    """Whether the loop over blocks of handoffs, not only loops inside it, is a call that is compiled as a whole."""
    calls = [line for line in text.splitlines() if "xla_cpu_small_call" in line and " call(" in line]
    return any(f'{L.LOOP}/while"' in line for line in calls)


@pytest.mark.parametrize(
    ("cls", "fast"),
    [
        (TABLE, True),
        (classes.random_features(M, 2, seed=1), True),
        (classes.network(M, classes.random_inputs(M, 7, 0), width=5), True),
        (Sorted(TABLE.slot, TABLE.initial), False),
    ],
    ids=["table", "features", "network", "sorted"],
)
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="one kernel per loop is a matter of the CPU compiler")
def test_the_loop_is_one_kernel_unless_the_class_needs_a_library(cls, fast):
    assert in_one_kernel(program(cls)) == fast


def test_other_flags_are_kept_and_a_users_own_limit_wins():
    assert flags.with_fast_loops("") == flags.FLAG
    assert flags.with_fast_loops("--xla_a=1 --xla_b") == f"--xla_a=1 --xla_b {flags.FLAG}"
    own = f"--xla_backend_extra_options={flags.OPTION}=0"
    assert flags.with_fast_loops(own) == own


def test_too_late_is_said(monkeypatch):
    jnp.zeros(1).block_until_ready()
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    with pytest.warns(UserWarning, match="Import icq first"):
        flags.set_fast_loops()
    assert os.environ["XLA_FLAGS"] == f"--xla_a=1 {flags.FLAG}"
    flags.set_fast_loops()  # once is enough: any further warning would be an error here


CHILD = """
import warnings
warnings.simplefilter("error")
import icq, jax, jax.numpy as jnp, os
loop = jax.jit(lambda x: jax.lax.fori_loop(0, 99, lambda i, c: 0.5 * c + 1, x)).lower(jnp.zeros(5000)).compile()
print("xla_cpu_small_call" in loop.as_text(), os.environ["XLA_FLAGS"])
"""


def test_a_compiler_ignores_options_of_other_versions():
    """As a compiler that does not know the flag's option would: here its neighbour is unknown."""
    theirs = "--xla_backend_extra_options=xla_cpu_of_another_version=7"
    out = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "XLA_FLAGS": theirs},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == f"True {theirs} {flags.FLAG}"
