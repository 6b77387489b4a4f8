# Every target is a line you could type yourself. `make help` lists them.
PROFILE ?= tiny
STAGE ?=
RUN ?=
ARGS ?=
PYTHON ?= python3
venv := venv_FntngEval
py := $(venv)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup run explain test check bench calibrate export services-up services-down lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo '  options of run: PROFILE=tiny|tiny-harmful|smollm|llama3-8b STAGE=evaluate ARGS="train.max_steps=30 --dry-run"'

setup: ## make the virtual environment from the hashed lock (run and test do this by themselves)
	@PYTHON="$(PYTHON)" docker/requirements/setup.sh

run: setup ## run the pipeline, or one STAGE of it
	@$(py) -m jobs.$(if $(STAGE),$(STAGE),pipeline) --config $(PROFILE) $(ARGS)

explain: setup ## say why each stage is cached or would run
	@$(py) -m jobs.pipeline --config $(PROFILE) $(ARGS) --explain

test: setup ## run the tests, real servers included
	@$(py) -m pytest

check: setup ## format, lint, docstrings, types
	@$(py) -m ruff format --check .
	@$(py) -m ruff check .
	@$(py) -m mypy

bench: setup ## time the commands people wait for; see tests/benchmarks/README.md
	@$(py) -m tests.benchmarks $(ARGS)

calibrate: setup ## plant damage in the embedded model and count what the verdict finds (an hour of one core)
	@$(py) -m jobs.calibrate $(ARGS)

export: setup ## write the results database as one SQLite file; RUN=... for one run
	@$(py) -m jobs.export --config $(PROFILE) $(if $(RUN),--run $(RUN)) $(ARGS)

services-up: ## start a bucket and a Postgres on this machine (Docker), and wait until they answer
	@docker/services.sh up

services-down: ## stop them; their data stays
	@docker/services.sh down

lock: setup ## compile the lock from docker/requirements/*.in
	@UV=$(CURDIR)/$(venv)/bin/uv docker/requirements/lock.sh

clean: ## remove results and the virtual environment
	rm -rf output $(venv)
