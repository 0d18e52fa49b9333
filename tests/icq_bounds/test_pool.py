"""Workers of one machine share compiled programs through a folder, in processes that the tests' own has not reached."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.compiles

WORKER = """
import os, sys
import jax
from icq_bounds.sweep.engine import Pool
Pool(os.getppid(), sys.argv[1]).join()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: x + 1)(1.0), jax.config.values["jax_compilation_cache_dir"])
"""


def worker(folder, **environment):
    env = {name: x for name, x in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"} | environment
    out = subprocess.run([sys.executable, "-c", WORKER, str(folder)], env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


def test_programs_are_kept_in_the_folder_unless_the_user_has_one(tmp_path):
    pool, own = tmp_path / "pool", tmp_path / "own"
    assert worker(pool) == ["2.0", str(pool)] and list(pool.glob("jit_*"))
    assert worker(pool, JAX_COMPILATION_CACHE_DIR=str(own)) == ["2.0", str(own)]
    assert list(own.glob("jit_*"))
