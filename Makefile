# The commands of this project; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

PYTEST := $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal
SAMPLE ?=
DATE ?=
QUICK := $(addprefix tests/, test_layers.py test_commands.py test_cli.py test_run_files.py \
	test_state.py test_checkpoints.py test_streams.py test_metrics.py test_search_algo.py \
	test_gates.py test_recipes.py::test_the_run_directory_is_complete) -k "not wheel"
TIMED := TIMEFORMAT='took %0lR, and %0U s of CPU time'; time

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help search test quick soak lint types check clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

search: $(VENV)/installed ## search an architecture for real images of digits: about two minutes
	$(BIN)/nasrun search

test: $(VENV)/installed ## run the tests: about four minutes on two cores
	@$(TIMED) $(PYTEST) --durations 25

quick: $(VENV)/installed ## run a few tests that cover much: under a minute
	@$(TIMED) $(PYTEST) $(QUICK)

soak: $(VENV)/installed ## run the long tests, hours; SAMPLE=8 runs eight of today, DATE=... of a day
	@export NASRUN_SOAK=1 NASRUN_SOAK_SAMPLE=$(SAMPLE) NASRUN_SOAK_DATE=$(DATE); \
		$(TIMED) $(PYTEST) --durations 10 tests/soak tests/test_*.py

lint: $(VENV)/installed ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed ## mypy, strict
	$(BIN)/mypy

check: lint types test ## everything that must pass

clean: ## remove the environment and the caches, keep outputs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "nasrun needs Python 3.11 to 3.13, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing nasrun and its packages into $(VENV) (torch is large: a few minutes)"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
