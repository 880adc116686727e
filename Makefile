# The commands of this project. `make help` lists them.
#
# Variables:
#   PYTHON=python3.12   the interpreter that .venv is built on (3.11 or 3.12)
#   TORCH=cpu           cpu | cu126 | cu128 | cu130 | auto; remembered by .venv until given again
#   CONFIG, ARGS        what `make run` runs:  make run CONFIG=configs/laptop.yaml ARGS="name=try1"
#   HOST, PORT, DB      of `make dashboard`

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
TORCH ?= $(shell cat .venv/.torch-choice 2>/dev/null || echo cpu)
CONFIG ?= configs/quickstart.yaml
HOST ?= 127.0.0.1
PORT ?= 5000
DB ?= runs/mlflow.db
export PYTHON TORCH

BIN := .venv/bin
CODE := embodichain envs tasks learner benchmarks tests
# What an environment depends on. Its stamp is named after their content: no change, no reinstall.
INPUTS := pyproject.toml constraints.txt scripts/setup.sh
STAMP := .venv/.setup-$(shell cat $(INPUTS) | sha256sum | cut -c1-16)-$(TORCH)

.PHONY: help setup renderer run test check lint types dashboard doctor lerobot-client clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: renderer $(STAMP) ## .venv and the software renderer; instant when nothing changed

renderer:
	@scripts/install_renderer.sh

$(STAMP):
	@rm -f .venv/.setup-*
	@scripts/setup.sh
	@touch $@

run: setup ## the main job: generate, learn, evaluate (CONFIG=, ARGS=)
	@$(BIN)/embodichain run $(CONFIG) $(ARGS)

test: setup ## the default tests (ARGS= for pytest)
	@$(BIN)/python -m pytest $(ARGS)

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## mypy
	@$(BIN)/mypy $(CODE)

check: lint types test ## all that CI runs (the import-direction rule is tests/test_imports.py)

dashboard: setup ## MLflow's pages for all runs (HOST=, PORT=, DB=)
	@mkdir -p $(dir $(DB))
	@echo "MLflow: http://$(HOST):$(PORT) in 20 seconds or so, up to a minute on a busy machine; choose 'Model training' at its top left. Ctrl-C ends it"
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec $(BIN)/mlflow ui --host $(HOST) --port $(PORT) --workers 1 --backend-store-uri sqlite:///$(DB)

doctor: setup ## what works on this machine, and what to do about the rest
	@$(BIN)/embodichain doctor

lerobot-client: ## .venv-lerobot with the real lerobot, for the tests marked so (LEROBOT_PYTHON=)
	@scripts/lerobot_client.sh

clean: ## caches and build outputs; keeps .venv and runs/
	@rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
	@find . -path ./.venv -prune -o -path ./.venv-lerobot -prune -o -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
