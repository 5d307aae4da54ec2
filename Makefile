# Every target makes .venv and installs what it needs, on a fresh clone and again where
# pyproject.toml or constraints.txt has changed. `make` lists the targets.

PYTHON ?= python3
# PyTorch goes first and by its exact version, so that pip settles on one build of it. Another build
# of that version: make demo TORCH='torch==2.13.0 --extra-index-url URL', or the path of a wheel.
TORCH ?= $(shell grep '^torch==' constraints.txt)

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt
DEFINITION := pyproject.toml constraints.txt src/bequest/_version.py
# A worker holds PyTorch, what the tests import and their networks: up to two gigabytes.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal
BENCHMARKS = $(basename $(notdir $(shell grep -l '^if __name__' benchmarks/*.py)))

# Two pips must not write into one environment at the same time.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test test-architectures test-certificates test-random lint benchmarks docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.demo  ## train a small network on real digits, prune it, restore it, show what is left
	$(BIN)/bequest demo

test: lint  ## lint, then all tests, on all cores: what CI runs
	$(BIN)/pytest $(PARALLEL)

test-architectures: .venv/.dev  ## prune all networks of timm, transformers and other libraries; takes hours
	$(BIN)/pytest -m "architectures or not architectures" tests/architectures

test-certificates: .venv/.dev  ## search 1,000 random networks for what their certificates exclude
	$(BIN)/python -m benchmarks.certified_networks 1000

test-random: .venv/.dev  ## prune 500 random networks; SEEDS=17 or SEEDS=500:900 takes others
	BEQUEST_RANDOM_NETWORKS=$(or $(SEEDS),0:500) $(BIN)/pytest tests/random_networks

lint: .venv/.dev  ## lint, formatting, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

benchmarks: .venv/.dev  ## answer every question of benchmarks/ anew, in turn
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

docs: .venv/.docs  ## build the documentation into build/docs
	$(BIN)/mkdocs build --strict --quiet
	@echo "open build/docs/index.html"

clean:  ## remove .venv and whatever the targets above have written
	rm -rf .venv build dist demo-out .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; choose another: make PYTHON=python3.12"; exit 1; }
	@echo "making .venv and installing PyTorch; this can take minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) $(TORCH)
	@touch $@

.venv/.demo .venv/.dev .venv/.docs: .venv/.%: .venv/.torch $(DEFINITION)
	@echo "installing bequest[$*]"
	@$(INSTALL) -e '.[$*]'
	@touch $@
