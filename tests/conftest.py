"""Every test runs with shapes checked at call time, strict dtype promotion and no implicit broadcasting."""

import fcntl
import importlib
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A program is compiled once for all workers, kernels of notebooks and child processes, and kept for the next run: half
# of what the tests take is compiling.  JAX asks for the same program, compiler and flags before it takes one.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / "build/programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest
from browser import NAMES, Browser, find
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Libraries first: what a module under the hook is the first to import is compiled from source, cached or not.
LIBRARIES = (
    "flax.linen", "h5netcdf", "jinja2", "joblib", "matplotlib.pyplot", "numba", "optax", "ot", "pyarrow.parquet",
    "rich.progress", "rich.table", "scipy.optimize", "scipy.sparse.csgraph", "scipy.stats", "sympy", "tyro", "xarray",
)  # fmt: skip
CHECKED = ("icq", "synthetic", "estimators", "bounds", "icq_bounds", "audits")


def pytest_configure(config):
    """Load what the tests need and check shapes from here on; the process that only deals out tests needs neither."""
    alone = not hasattr(config, "workerinput")
    deals_out = alone and config.getoption("dist", "no") != "no" and not config.option.collectonly
    if alone:
        for program in Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*"):
            # What a killed process only began to write would be tried, in vain, forever.
            if not program.stat().st_size:
                program.unlink()
    if not deals_out:
        for library in LIBRARIES:
            importlib.import_module(library)
        install_import_hook(CHECKED, "beartype.beartype").__enter__()  # for good: the tests import the packages


settings.register_profile(
    "repo", deadline=None, derandomize=True, max_examples=16, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repo")


@pytest.fixture(scope="session")
def quantecon(tmp_path_factory):
    """QuantEcon, loaded by one worker at a time: two that fill its cache of compiled code leave unfit halves."""
    with (tmp_path_factory.getbasetemp().parent / "quantecon.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return importlib.import_module("quantecon")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A real browser without a window, shared by all tests that look at pages."""
    program = find()
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}")
    running = Browser(program, tmp_path_factory.mktemp("browser"))
    yield running
    running.close()
