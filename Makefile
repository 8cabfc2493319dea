# `make` lists the targets. Everything runs in .venv, made and filled on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPEED := $(BIN)/python -m pytest -q -c benchmark/speed/pytest.ini benchmark/speed

.DEFAULT_GOAL := help
.PHONY: help venv run view web video test test-slow test-drop-in doctor bench bench-quick bench-cuda bench-compare bench-engine bench-memory bench-stream bench-plain bench-web fidelity sweep report gallery lint format lock clean

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

view: venv ## show comfree on primitives.xml in a window
	$(BIN)/python test_viewer.py

web: venv ## show it in a browser, at http://127.0.0.1:8080
	$(BIN)/python test_viewer.py --backend web

video: venv ## record 3 s of it, and render them to recordings/primitives.mp4
	@mkdir -p recordings && rm -f recordings/primitives.mcap
	$(BIN)/python test_headless.py --port 0 --nsteps 1500 --record recordings/primitives.mcap
	$(BIN)/python local_viewer.py --replay recordings/primitives.mcap --video recordings/primitives.mp4

test: venv ## run the tests
	$(BIN)/python -m pytest tests -n auto --dist worksteal -m "not alone"
	$(BIN)/python -m pytest tests -m alone

test-slow: venv ## run the tests that take a minute or more
	$(BIN)/python -m pytest tests -m slow

test-drop-in: venv ## run MuJoCo Warp's own tests with the import changed to comfree_warp
	$(BIN)/python tests/mujoco_warp_tests.py $(FILES)

doctor: venv ## report what this machine can do, and what would mend each lack
	$(BIN)/python -m mjsim doctor

bench: venv ## measure the speed of the engines, to benchmark/results/ (about 3 minutes)
	$(SPEED) --level standard

bench-quick: venv ## the same, a one-minute cut
	$(SPEED) --level quick

bench-cuda: venv ## the same on every CUDA device, up to 8,192 worlds
	$(SPEED) --level cuda

bench-compare: venv ## hold the newest run against the one before it, or NEW=FILE against OLD=FILE
	$(BIN)/python -m benchmark.speed.compare $(OLD) $(NEW)

bench-engine: venv ## print the speed ratios of the engines, with their spread
	$(BIN)/python -m benchmark.speed.ratios

bench-memory: venv ## print what the warm law's memory of contacts costs a step
	$(BIN)/python -m benchmark.costs.memory

bench-stream: venv ## print what streaming costs a simulation, and how late states arrive
	$(BIN)/python -m benchmark.costs.stream

bench-plain: venv ## print what a step takes longer by public functions of MuJoCo Warp alone
	$(BIN)/python -m benchmark.costs.plain

bench-web: venv ## print what a browser's view costs a simulation, and how often it is brought up to date
	$(BIN)/python -m benchmark.costs.web

gallery: venv ## draw the pictures of README and docs, one per model (offscreen)
	$(BIN)/python -m benchmark.gallery docs

fidelity: venv ## compare the engines with known physics, on small scenes over many timesteps
	$(BIN)/python -m benchmark.fidelity

sweep: venv ## run the cases of FILE, benchmark/sweeps/stiffness_damping.toml, or go on with them (Ray)
	$(BIN)/python -m benchmark.sweep $(or $(FILE),benchmark/sweeps/stiffness_damping.toml)

report: venv ## the newest results as a page and a summary, or FILES="A.json B.json"; INTO=docs/results.md
	$(BIN)/python -m benchmark.report $(if $(INTO),--into $(INTO)) $(FILES)

.PHONY: docs
# Not --quiet, with which mkdocs overlooks the warnings that are to fail it.
docs: venv ## build the pages of docs/ as a site, into build/docs; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean

lint: venv ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: venv ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Not in .venv, which cannot be made while the pins do not go with pyproject.toml.
lock: ## pin again what pyproject.toml asks for, for every Python it allows
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	build/lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --upgrade --no-header --no-annotate --no-emit-package comfree-warp --output-file constraints.txt

clean: ## remove .venv, caches and build products (not the Warp kernel cache)
	rm -rf $(VENV) .artifacts .tox .pytest_cache .ruff_cache .mypy_cache .benchmarks .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
