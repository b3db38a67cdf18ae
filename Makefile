# Every target is one line of `make help`; the environment lives in .venv and is built on demand.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# The tests start Python thousands of times: without its compiled files each start takes seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "installing the pinned dependencies into $(VENV), about a minute, once"
	@$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: install
install: $(STAMP) ## Build the environment in .venv (pinned, hash-checked)
	@echo "next: . $(BIN)/activate && taskyard --help"

.PHONY: demo
demo: $(STAMP) ## Watch a job's whole way, a failure and its replay, in under a minute
	$(BIN)/taskyard demo

.PHONY: up
up: $(STAMP) ## Run the whole stack on this machine until Ctrl-C
	$(BIN)/taskyard up

.PHONY: test
# Six processes on two cores: most of a test's time is spent waiting for servers and deadlines.
test: $(STAMP) ## Run the tests, except those that take long (7 minutes on two cores)
	$(BIN)/pytest -m "not slow" --numprocesses 6 --dist loadfile

.PHONY: test-all
test-all: test test-slow ## Run every test: `make test`, then `make test-slow`

.PHONY: test-slow
test-slow: $(STAMP) ## Run what takes long: property runs, storms, documents' tours
	$(BIN)/pytest -m slow --numprocesses 3 --dist loadfile

.PHONY: test-unit
test-unit: $(STAMP) ## Run the tests that need no server
	$(BIN)/pytest tests/unit

.PHONY: test-e2e
test-e2e: $(STAMP) ## Run the tests against real servers and workers
	$(BIN)/pytest tests/integration tests/conformance tests/chaos tests/acceptance

.PHONY: chaos
chaos: $(STAMP) ## Blow every storm over 20,000 jobs (JOBS=, RATE= a second); writes build/chaos.json
	TASKYARD_CHAOS_JOBS=$(or $(JOBS),20000) $(BIN)/pytest tests/chaos
	PYTHONPATH=.:tests $(BIN)/python -m chaos --jobs $(or $(JOBS),20000) $(if $(RATE),--rate $(RATE)) --page docs/reliability.md

.PHONY: bench
bench: $(STAMP) ## Measure beside Celery and others; QUICK=1 about 3 minutes, else half an hour; writes build/bench.json
	PYTHONPATH=.:tests $(BIN)/python -m bench $(if $(QUICK),--quick)

.PHONY: check
check: $(STAMP) ## Check style, types, layers and files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(STAMP) ## Pin the dependencies again (needs uv)
	tools/lock.sh

.PHONY: clean
clean: ## Remove what the targets built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
