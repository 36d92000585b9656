# `make demo` and `make test` need nothing but Python 3.11 or newer, make and a C library. Everything else is installed
# into .venv, once, with the versions of constraints.txt, and again only when those or pyproject.toml change.

PYTHON ?= python3
# What the tests may use, for example: make test EXTRAS=dev,tensorflow,torch
EXTRAS ?= dev
# What pytest is told besides, for example: make test ARGS="-k dropout"
ARGS ?=

BIN := .venv/bin
# Modules are compiled when they are first imported, by whatever process that is, which takes half as long as all at once.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
REQUIREMENTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs benchmark clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: .venv/installed ## the main job on real data: a table, and where the picture is
	@$(BIN)/regularity demo

test: .venv/installed-$(EXTRAS) ## run the tests
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/installed-dev ## check style, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright

format: .venv/installed-dev ## mend style and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: .venv/installed-docs ## build docs/_build/html and run the examples in the docs
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@$(BIN)/python -m sphinx -q -W --keep-going -b doctest docs docs/_build/doctest

benchmark: .venv/installed-benchmarks ## time Regularity beside its peers
	@$(BIN)/python -m benchmarks

clean: ## remove the environment and all that was built
	rm -rf .venv docs/_build build dist .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Regularity needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/installed: $(REQUIREMENTS) | .venv/bin/python
	@echo "Installing Regularity into .venv; the first time this takes a minute or two ..."
	@$(INSTALL) --editable .
	@touch $@

.venv/installed-%: $(REQUIREMENTS) | .venv/bin/python
	@echo "Installing Regularity with $* into .venv; the first time this takes a minute or two ..."
	@$(INSTALL) --editable ".[$*]"
	@touch $@
