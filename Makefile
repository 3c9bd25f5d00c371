SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
CORES ?= all
PROCESSES ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

$(STAMP): constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,download,export]'
	@touch $@

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: install
install: $(STAMP) ## make .venv with the pinned dependencies

.PHONY: demo
demo: $(STAMP) ## the whole chain on a small generated data set; ends with the result table and the report's path
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) demo
	@$(BIN)/python -m pipeline_lib results demo

.PHONY: format
format: $(STAMP) ## format Python and Snakemake files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

.PHONY: check
check: $(STAMP) ## format, lint, types, snakemake --lint, Dockerfile, the documents' code blocks
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/hadolint Dockerfile
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint
	$(BIN)/python -m pytest --quiet tests/unit/configuration/test_document_blocks.py

.PHONY: test
test: check ## check, then every test but the soak tests, in PROCESSES processes (2)
	@PATH="$(CURDIR)/$(BIN):$$PATH" pytest --numprocesses $(PROCESSES) --dist loadscope

.PHONY: soak
soak: $(STAMP) ## the same tests with larger counts (many kills, many seeds); hours
	@PATH="$(CURDIR)/$(BIN):$$PATH" pytest --soak --timeout 7200

.PHONY: benchmarks
benchmarks: $(STAMP) ## every benchmark, a line of JSON each
	@set -e; for file in $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file; done

.PHONY: benchmarks-gpu
benchmarks-gpu: $(STAMP) ## the figures that need a GPU, kept in benchmarks/results under the card's name
	@benchmarks/gpu.sh

.PHONY: unlock
unlock: $(STAMP) ## remove the lock that a killed snakemake left (make sure that none is running)
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --unlock

.PHONY: clean
clean: ## remove caches, not results
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
