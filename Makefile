# `make` lists the targets. Everything runs in .venv, made and filled on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv run test test-slow doctor bench-engine bench-stream fidelity picture lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## create .venv with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt comfree_warp/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11 to 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "This Python has no venv; on Debian: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: venv ## run comfree on primitives.xml: headless, on the CPU, 10,000 steps
	MJSTREAM_PORT=0 $(BIN)/python test_headless.py

test: venv ## run the tests
	$(BIN)/python -m pytest tests -n auto --dist worksteal -m "not alone"
	$(BIN)/python -m pytest tests -m alone

test-slow: venv ## run the tests that take a minute or more
	$(BIN)/python -m pytest tests -m slow

doctor: venv ## report what this machine can do, and what would mend each lack
	$(BIN)/python doctor.py

bench-engine: venv ## print the speed ratios of the engines, with their spread
	$(BIN)/python benchmark/ratios.py

bench-stream: venv ## print what streaming costs a simulation, and how late states arrive
	$(BIN)/python benchmark/stream_cost.py

fidelity: venv ## compare the engines with known physics, on small scenes over many timesteps
	$(BIN)/python benchmark/fidelity.py

picture: venv ## draw the README's picture (offscreen: MUJOCO_GL=egl or osmesa)
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(BIN)/python benchmark/picture.py docs/primitives.png

lint: venv ## check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: venv ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: venv ## pin again what pyproject.toml asks for, for every Python it allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	  --no-header --no-annotate --no-emit-package comfree-warp --output-file constraints.txt

clean: ## remove .venv, caches and build products (not the Warp kernel cache)
	rm -rf $(VENV) .tox .pytest_cache .ruff_cache .benchmarks .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
