# Two commands for a fresh machine: `make demo` and `make test`. Each sets everything up first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: help setup demo test check format clean
help:
	@echo "make demo   set up, then the whole pipeline on a synthetic world; names the map and the report"
	@echo "make test   set up, then the tests"
	@echo "make check  set up, then format, lint, types, import direction"
	@echo "VENV=DIR reuses or makes the virtual environment DIR (default .venv)"

# One install for all: a stamp file, renewed when the dependencies change.
STAMP := $(VENV)/.landscribe-installed
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
setup: $(STAMP)

demo: setup
	$(BIN)/landscribe demo --out demo

test: setup
	$(BIN)/python -m pytest -n auto --dist loadscope

check: setup
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache demo
