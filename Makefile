# Everything a fresh clone needs: Python >= 3.11, pip, make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Quick tests run on the cores that there are.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
# Slow tests start processes of their own and wait for them: two at once.
TOGETHER := -n 2 --dist load

.PHONY: setup quickstart study study-paper test test-all test-gpu campaigns lint docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The toy's rows and questions are made in the same few wordings: 13 words in a row say nothing there.
quickstart: setup
	$(BIN)/python -m sftmix_jax.train --config quickstart.py --workdir runs/quickstart
	$(BIN)/python -m sftmix_jax.evaluate --workdir runs/quickstart --tasks tiny_math,tiny_code,tiny_general --picture --skip_contamination

study: setup
	$(BIN)/python -m sftmix_jax.study --config studies/rq4.py:tiny --workdir runs/study

study-paper: setup
	$(BIN)/python -m sftmix_jax.study --config studies/paper.py:tiny --workdir runs/study-paper

test: setup
	$(BIN)/python -m pytest -q -m "not slow and not gpu" $(PARALLEL)

test-all: setup
	$(BIN)/python -m pytest -q -m "slow and not gpu" $(TOGETHER)

# One GPU, whatever is installed beside this package: make test-gpu BIN=/usr/bin. JAX_PLATFORMS=cpu: small, on a CPU.
test-gpu:
	JAX_PLATFORMS=$${JAX_PLATFORMS:-cuda,cpu} $(BIN)/python -m pytest -q -rA --durations=10 -m gpu tests/test_gpu.py

# Many injected faults each, hours in all: not part of CI. One of them, with fewer: python -m tests.campaigns.kills --count 20
campaigns: setup
	@status=0; for file in tests/campaigns/[a-z]*.py; do \
	    echo "== $$(basename $$file .py)"; \
	    $(BIN)/python -m tests.campaigns.$$(basename $$file .py) || status=1; \
	done; exit $$status

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy sftmix_jax
	$(BIN)/mypy --explicit-package-bases --disable-error-code misc --disable-error-code arg-type benchmarks

# The site, docs/_build/html/index.html; a warning is an error.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) runs build dist docs/_build docs/reference *.egg-info
