# Two commands do everything on a machine with Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
PEERS  := $(VENV)/peers

.DEFAULT_GOAL := help
.PHONY: help demo up test test-fleet test-containers check bench soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'bridge_tasks needs Python 3.11 or newer (set PYTHON=...)'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# What only tests, checks and benchmarks need beside that: a demonstration is not to wait for it.
$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,manifests]'
	@touch $@

demo: $(READY) ## Stamp 300 real files through real workers, in a temporary directory
	@$(BIN)/bridge-tasks demo

up: $(READY) ## Start Redis, both sandbox services, a worker and Flower on this machine
	@$(BIN)/bridge-tasks up

test: $(PEERS) ## Run the tests, but for those that take long
	@$(BIN)/python -m pytest -m 'not fleet and not containers' --numprocesses 3 --dist loadgroup

test-fleet: $(PEERS) ## Run the tests that start fleets, kill workers and Redis, and measure
	@$(BIN)/python -m pytest -m 'fleet and not containers' --numprocesses 3 --dist loadgroup

test-containers: $(PEERS) ## Run the tests on containers; a container engine must run
	@$(BIN)/python -m pytest -m containers --timeout 600 tests/containers tests/integration

check: $(PEERS) ## Lint, types, architecture, what is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/dependencies

ifdef SHORT
soak: $(READY)
	@$(BIN)/python -m tests.chaos.soak --short
else
soak: $(PEERS) ## Search for an hour's worth of trouble, then kill workers and Redis (SHORT=1: a minute of killing)
	@HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest --timeout 3600 tests/policies tests/state tests/models \
		tests/clients/test_any_answer.py tests/cache tests/fleet
	@$(BIN)/python -m tests.chaos.soak --jobs 5000 --kills 100 --restarts 5 --json
endif

bench: $(PEERS) ## Measure against peers in the same run, and renew docs/performance.md (minutes)
	@$(BIN)/python -m benchmarks.report

clean: ## Remove what the targets above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .pytest_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
