"""Every test runs with shapes checked at call time, strict dtype promotion and no implicit broadcasting."""

import fcntl
import importlib
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
for library in LIBRARIES:
    importlib.import_module(library)

_hook = install_import_hook(("icq", "synthetic", "estimators", "bounds", "icq_bounds", "audits"), "beartype.beartype")
_hook.__enter__()  # kept for the whole run: the packages are imported later, by the tests

settings.register_profile(
    "repo", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
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
