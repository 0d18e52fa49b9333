PYTHON ?= python3
BIN := .venv/bin
# A worker that has nothing left takes from the other; notebooks first, because one of them is long for a last test.
PYTEST := $(BIN)/pytest -n 2 --dist worksteal
export OPENBLAS_NUM_THREADS ?= 1
# Shapes are checked by rewritten modules: every process would rewrite them all if none might keep them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: reproduce smoke check test test-lowest lint bench check-bounds calibrate notebooks docs clean

# Pinned versions hold for the build environment too.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

reproduce: .venv/ready  ## the ten-agent experiment: figures and summary.json in results/n10
	$(BIN)/icq reproduce n10 --out results/n10

smoke: .venv/ready  ## the same experiment, small, in about a minute
	$(BIN)/icq reproduce n10 --preset smoke --out results/smoke

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint  ## style, types, and the tests that compile nothing and are not slow: between two edits
	$(PYTEST) -m 'not compiles and not slow' tests

test: lint  ## style, types, every test and every notebook
	$(PYTEST) --nbmake notebooks tests

# Notebooks and tools for style and types have no part in what the lowest versions must do.
test-lowest: .venv-lowest/ready  ## the tests of the libraries with the lowest versions of everything
	.venv-lowest/bin/pytest -n 2 --dist worksteal tests/icq tests/synthetic tests/estimators tests/bounds

.venv-lowest/ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	PIP_CONSTRAINT=$(CURDIR)/constraints-lowest.txt .venv-lowest/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

check-bounds: .venv/ready  ## a search for counterexamples to every lemma, 10 000 random instances
	$(BIN)/python -m audits.counterexamples --instances 10000 --jobs 2

calibrate: .venv/ready  ## coverage and bias of every estimator: docs/calibration.md, about half an hour on two cores
	$(BIN)/python -m audits.calibration --jobs 2

bench: .venv/ready  ## speed beside C, numba, NumPy and (if installed: extra `bench`) PyTorch: docs/benchmarks.md and docs/scaling.md, on a quiet machine
	$(BIN)/python -m benchmarks.learner
	$(BIN)/python -m benchmarks.exact
	$(BIN)/python -m benchmarks.workflows
	$(BIN)/python -m benchmarks.path
	$(BIN)/python -m benchmarks.scaling

notebooks: .venv/ready  ## brings notebooks and their scripts in step, executes every cell and keeps the outputs
	$(BIN)/python -m audits.notebooks

docs: .venv/ready  ## the documentation with every cell executed: build/site/index.html, about two minutes
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	rm -rf docs/api
	$(BIN)/sphinx-build -W --keep-going -q -j 2 -b html -d build/doctrees docs build/site

clean:
	rm -rf .venv .venv-lowest build results
