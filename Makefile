# The environment lives in .venv; every target makes it first if it is missing or out of date.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# The version that development and CI run; a machine with a GPU may ask for another: make audit TORCH=torch==2.11.0
TORCH ?= torch==2.13.0

# Inference engines that the tests run for real; each lives in an environment of its own, in the user's cache.
ENGINES ?= vllm==0.32.0 vllm==0.27.1 sglang==0.5.23

# Processes that share the tests: an engine that starts keeps one core busy and takes a few GB.
PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup

.PHONY: audit test check format hooks benchmarks engines clean

audit: .venv/.installed
	$(BIN)/mismatchscope audit

test: .venv/.installed-dev
	$(PYTEST)

# Snapshots of tests that are left out here are unused, which is no mistake.
check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -q -x -m "not slow and not browser and not engines" --snapshot-warn-unused

engines: $(ENGINES:%=engine/%)

engine/%: .venv/.installed
	$(BIN)/mismatchscope env create $*

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The same checks before every commit.
hooks: .venv/.installed-dev
	$(BIN)/pre-commit install

benchmarks: .venv/.installed-dev
	for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done
	$(BIN)/python benchmarks/causes/run.py --part development --cases 5
	$(BIN)/python benchmarks/causes/run.py --part held-out --cases 3

clean:
	rm -rf .venv build dist *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[torch,report]"
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[torch,adapters,report,dev]"
	touch $@
