# Each target does its own set-up: on a fresh Debian or Ubuntu machine `make run` is enough.
SHELL  := /bin/bash
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Workers for tests that need no virtual machine.
JOBS   ?= $(shell nproc)
PART   := .ci/part

.PHONY: help run test test-all lab-kube bench lint docs clean doctor

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml .ci/setup
	@.ci/setup $(VENV)
	@touch $@

doctor: $(READY) ## install what this machine lacks, and say what it can do
	@$(BIN)/airlock doctor --fix

run: $(READY) ## the default matrix; the result is out/latest/index.html
	@$(BIN)/airlock doctor --fix --quiet
	@$(BIN)/airlock run $(ARGS)

test: $(READY) ## the required suite
	@$(PART) system 600 $(BIN)/airlock doctor --fix --tests --quiet
	@status=0; \
	$(PART) unit 600 $(BIN)/pytest tests/unit -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 8 -m "not slow" $(ARGS) || status=$$?; \
	$(PART) lab 1080 $(BIN)/pytest tests/lab -n 2 --dist loadgroup --durations 12 -m "not slow" $(ARGS) || status=$$?; \
	exit $$status

test-all: $(READY) ## every test
	@$(PART) system 600 $(BIN)/airlock doctor --fix --tests --quiet
	@status=0; \
	$(PART) unit 900 $(BIN)/pytest tests/unit -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 8 $(ARGS) || status=$$?; \
	$(PART) lab 5400 $(BIN)/pytest tests/lab -n 2 --dist loadgroup --durations 12 $(ARGS) || status=$$?; \
	exit $$status

lab-kube: $(READY) ## tests on a real Kubernetes control plane, which is built once
	@$(PART) kubernetes 5400 $(BIN)/python -m harness.kubelab
	@$(PART) kube 900 $(BIN)/pytest tests/kube --durations 8 $(ARGS)

bench: $(READY) ## measurements; ONLY=name measures one anew
	@$(BIN)/airlock doctor --fix --tests --quiet
	@$(BIN)/python -m bench $(ONLY)

lint: $(READY) ## what tests/unit/test_house.py runs, by hand
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## the documentation as a site: site/index.html
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/properdocs build --strict

clean: ## remove everything but the system packages, which it lists
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m harness.clean
	@rm -rf $(VENV) out dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
