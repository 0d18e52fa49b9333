"""Every test runs with shapes checked at call time, strict dtype promotion and no implicit broadcasting."""

import os
import subprocess
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest
from browser import NAMES, Browser, find
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_hook = install_import_hook(("icq", "synthetic", "estimators", "bounds", "icq_bounds", "audits"), "beartype.beartype")
_hook.__enter__()  # kept for the whole run: the packages are imported later, by the tests

settings.register_profile(
    "repo", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repo")


def pytest_configure(config):
    """Fill quantecon's cache of compiled code once: two workers that fill it together leave halves that do not fit."""
    if not hasattr(config, "workerinput"):
        subprocess.run([sys.executable, "-c", "import quantecon"], check=True)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A real browser without a window, shared by all tests that look at pages."""
    program = find()
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}")
    running = Browser(program, tmp_path_factory.mktemp("browser"))
    yield running
    running.close()
