# Two commands for a fresh machine: `make demo` and `make test`. Each sets everything up first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Modules are compiled when they are first used: most of what torch brings never is. Where this variable is set, they are
# compiled again in every process, which takes half a minute each.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: help demo test test-fast check format pictures clean
help:
	@echo "make demo   set up, then the whole pipeline on a synthetic world; names the map and the report"
	@echo "make test   set up, then the tests"
	@echo "make test-fast  the same without the slow tests"
	@echo "make check  set up, then formatting, lint, types, import direction; changes no file"
	@echo "make format set up, then rewrite the files in the format that make check expects"
	@echo "make pictures  set up, then draw the pictures of docs/lecture.md"
	@echo "VENV=DIR reuses or makes the virtual environment DIR (default .venv)"

# One install for use and one for development: stamp files, renewed when the dependencies change.
USED := $(VENV)/.landscribe-installed
DEVELOPED := $(VENV)/.landscribe-dev-installed
$(USED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@
$(DEVELOPED): $(USED)
	$(INSTALL) -e ".[dev]"
	touch $@

demo: $(USED)
	$(BIN)/landscribe demo --out demo

# Worksteal keeps all cores busy until the end: one long file is shared among the processes.
# A process of tests that crashes is not begun anew: pytest-xdist could wait for ever at the end.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --max-worker-restart 0

test: $(DEVELOPED)
	$(PYTEST)

test-fast: $(DEVELOPED)
	$(PYTEST) -m "not slow"

check: $(DEVELOPED)
	$(BIN)/ruff format --check src tests benchmarks docs/pictures
	$(BIN)/ruff check src tests benchmarks docs/pictures
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPED)
	$(BIN)/ruff format src tests benchmarks docs/pictures

pictures: $(USED)
	$(BIN)/python docs/pictures/lecture.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache demo
