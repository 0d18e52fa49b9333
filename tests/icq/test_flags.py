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
from icq.learn import classes, flags, networks, sampling
from icq.learn import learner as L

pytestmark = pytest.mark.compiles

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
        (networks.network(M, networks.random_inputs(M, 7, 0), width=5), True),
        (Sorted(TABLE.slot, TABLE.initial), False),
    ],
    ids=["table", "features", "network", "sorted"],
)
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="one kernel per loop is a matter of the CPU compiler")
def test_the_loop_is_one_kernel_unless_the_class_needs_a_library(cls, fast):
    assert in_one_kernel(program(cls)) == fast


def child(code, **environment):
    out = subprocess.run(
        [sys.executable, "-c", CHILD + code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


CHILD = """
import os, subprocess, sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp

def fast():
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 99, lambda i, c: 0.5 * c + 1, x))
    return "xla_cpu_small_call" in loop.lower(jnp.zeros(5000)).compile().as_text()
"""


def test_the_environment_stays_and_a_compiler_ignores_options_of_other_versions():
    """As a compiler that does not know the flag's option would: here its neighbour is unknown."""
    theirs = "--xla_backend_extra_options=xla_cpu_of_another_version=7"
    code = """
before = dict(os.environ)
import icq
from icq.learn import flags
print(fast(), os.environ == before, flags.in_force())
"""
    assert child(code, XLA_FLAGS=theirs) == f"True True {theirs} {flags.FLAG}"


def test_too_late_is_said():
    code = """
assert not fast()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import icq
from icq.learn import flags
print(fast(), [str(w.message).split(".  ")[1] for w in caught], flags.in_force())
"""
    assert child(code, XLA_FLAGS="--xla_cpu_enable_fast_math=false") == (
        "False ['Import icq first.'] --xla_cpu_enable_fast_math=false"
    )


def test_a_users_own_limit_wins():
    own = f"--xla_backend_extra_options={flags.OPTION}=0"
    code = "import icq\nfrom icq.learn import flags\nprint(fast(), flags.in_force())"
    assert child(code, XLA_FLAGS=own) == f"False {own}"


def test_no_option_of_a_single_program_does_it():
    """Why the flags of the whole process it must be: as soon as this fails, `jax.jit` can take the option itself."""
    for options in ({flags.OPTION: 2**62}, {"xla_backend_extra_options": f"{flags.OPTION}={2**62}"}):
        with pytest.raises(jax.errors.JaxRuntimeError, match="option"):
            jax.jit(lambda x: x, compiler_options=options).lower(1.0).compile()
