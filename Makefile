# `make demo` and `make test` install what they need into .venv the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONWARNINGS ?= ignore::SyntaxWarning

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults test-fast check docs notebooks release format clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed  ## Compare a plain classifier, six techniques and a combination on drawn birds (3 minutes)
	$(BIN)/lightning-priors compare -c configs/compare/demo.yaml --jobs 2

test: $(VENV)/installed  ## Run all tests and the examples in the docstrings
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not faults"

test-faults: $(VENV)/installed  ## Try malformed input by the hundred
	$(BIN)/python -m pytest -n 2 --dist worksteal -m faults tests

test-fast: $(VENV)/installed  ## Run the core in under two minutes: no slow tests, commands, comparisons, callbacks, configs or scripts
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not faults" lightning_priors tests/data tests/functional \
		tests/hypergradient tests/metrics tests/nn tests/priors tests/techniques tests/theorems tests/test_batch.py \
		tests/test_layering.py tests/test_main.py

check: $(VENV)/installed  ## Check style, types and the direction of imports
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

docs: $(VENV)/installed  ## Make the documentation; it begins with docs/_build/index.html
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build

release: $(VENV)/installed  ## Build wheel and sdist, and run the documents' commands with the wheel in an empty environment
	rm -rf dist build
	$(BIN)/python -m build --quiet --outdir dist
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet "$$(ls dist/*.whl)[onnx,offline]" 'pytest>=9.1' 'sybil>=9.0'
	cp -r README.md conftest.py configs experiments docs build/empty
	echo '[pytest]' > build/empty/pytest.ini  # else pytest takes the options of the clone
	cd build/empty && bin/python -m pytest -q README.md docs/getting_started.md

notebooks: $(VENV)/installed  ## Write the notebooks anew from their sources and execute them
	OMP_NUM_THREADS=1 $(BIN)/python docs/execute_notebooks.py

format: $(VENV)/installed  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment, the caches and what was built
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist docs/_build docs/notebooks

$(VENV)/installed: pyproject.toml setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing the dependencies, a few minutes the first time"
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs,annotate,dashboard,offline,onnx,serve,torchjd]'
	@touch $@
