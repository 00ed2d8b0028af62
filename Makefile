# `make demo` and `make test` install what they need into .venv the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONWARNINGS ?= ignore::SyntaxWarning

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults test-fast check format clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed  ## Compare a classifier with one that is told where to look, on drawn birds (3 minutes)
	$(BIN)/lightning-priors compare -c configs/compare/demo.yaml

test: $(VENV)/installed  ## Run all tests and the examples in the docstrings
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not faults"

test-faults: $(VENV)/installed  ## Try malformed input by the hundred
	$(BIN)/python -m pytest -n 2 --dist worksteal -m faults tests

test-fast: $(VENV)/installed  ## Run the core in under two minutes: no slow tests, commands, comparisons, callbacks, configs or scripts
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not faults" lightning_priors tests/data tests/functional \
		tests/hypergradient tests/metrics tests/nn tests/priors tests/techniques tests/theorems tests/test_batch.py \
		tests/test_layering.py tests/test_main.py

check: $(VENV)/installed  ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

format: $(VENV)/installed  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and the caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(VENV)/installed: pyproject.toml setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing the dependencies, a few minutes the first time"
	$(BIN)/python -m pip install --quiet --editable '.[dev,annotate,offline,onnx,serve,torchjd]'
	@touch $@
