# Each target installs its requirements; only Python >= 3.10 and git must be present.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles the few modules that are used on first use; compiling all of them takes minutes.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Number of test processes; two suit the smallest machines.
JOBS ?= 2

# Options of the demo that `make smoke` runs.
DEMO ?=

# Number of cases of `make fuzz`, over all readers.
N ?= 10000

.PHONY: demo test test-slow test-ultralytics docs dist smoke smoke-core smoke-torch smoke-lowest fuzz lint format clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Secateur needs Python >= 3.10; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[all,dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/secateur demo

# No restart of workers: with tests distributed by file, pytest-xdist waits forever after a restart.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --max-worker-restart 0 --timeout 600

# The tests that `make test` skips (listed in tests/slow_tests.py).
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --max-worker-restart 0 --timeout 600 -m slow

# Installs the package ultralytics (AGPL-3.0), which no other target needs.
$(VENV)/.ultralytics: $(VENV)/.dev
	$(PIP) -e '.[ultralytics]'
	@# It replaces cv2 by a build that needs GUI libraries; restore the headless build.
	$(PIP) --force-reinstall --no-deps opencv-python-headless
	@touch $@

test-ultralytics: $(VENV)/.ultralytics
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --max-worker-restart 0 --timeout 600 tests/families/ultralytics

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

# Builds the site in build/site; broken links and anchors are errors.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site

# The wheel and the source distribution in build/dist; the wheel is built from the source distribution.
dist: $(VENV)/.dev
	rm -rf build/dist
	$(BIN)/python -m build --no-isolation --outdir build/dist .

# The wheel in an empty environment of $(PYTHON), with all extras and the demo: make smoke PYTHON=python3.12
# DEMO holds options of the demo: make smoke DEMO='--images 32 --image-size 64' takes a minute.
smoke: dist
	$(PYTHON) tests/smoke --extras all --demo '$(DEMO)'

# The same without extras, with the commands that need none.
smoke-core: dist
	$(PYTHON) tests/smoke

# The oldest PyTorch, the newest of everything else.
smoke-torch: dist
	$(PYTHON) tests/smoke --extras all --lowest torch torchvision --demo '$(DEMO)'

# The lower bounds of all dependencies.
smoke-lowest: dist
	$(PYTHON) tests/smoke --extras all --lowest all --demo '$(DEMO)'

fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz -n $(N)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell src tests docs benchmarks *.md

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
