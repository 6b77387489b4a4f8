# Every target is a line you could type yourself. `make help` lists them.
PROFILE ?= tiny
STAGE ?=
RUN ?=
ARGS ?=
PYTHON ?= python3
venv := venv_FntngEval
py := $(venv)/bin/python
cluster := $(py) -m jobs.pipeline.cluster
# On a cluster the templates name the configuration, unless the command does.
given := $(if $(filter file,$(origin PROFILE)),,--config $(PROFILE)) $(if $(RUN),--run-id $(RUN)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup run explain job pipeline status logs cancel test check bench calibrate lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo '  options of run: PROFILE=tiny|tiny-harmful|smollm|llama3-8b STAGE=evaluate ARGS="train.max_steps=30 --dry-run"'

setup: ## make the virtual environment from the hashed lock (run and test do this by themselves)
	@PYTHON="$(PYTHON)" docker/requirements/setup.sh

run: setup ## run the pipeline, or one STAGE of it
	@$(py) -m jobs.$(if $(STAGE),$(STAGE),pipeline) --config $(PROFILE) $(ARGS)

explain: setup ## say why each stage is cached or would run
	@$(py) -m jobs.pipeline --config $(PROFILE) $(ARGS) --explain

job: setup ## run one STAGE as a Job on the current Kubernetes context, follow its log, end with its exit code
	@$(cluster) job --stage "$(STAGE)" $(given)

pipeline: setup ## start a new run on the cluster
	@$(cluster) pipeline $(given)

status: setup ## runs, their stages, what they wait for, what is cached: of this machine and of the cluster
	@$(cluster) status $(given)

logs: setup ## follow the newest Job of a STAGE, or of the pipeline
	@$(cluster) logs --stage "$(STAGE)"

cancel: setup ## delete unfinished pipelines with their stages (RUN= one of them), or single Jobs of a STAGE
	@$(cluster) cancel --stage "$(STAGE)" $(if $(RUN),--run-id $(RUN))

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

lock: setup ## compile the lock from docker/requirements/*.in
	@UV=$(CURDIR)/$(venv)/bin/uv docker/requirements/lock.sh

clean: ## remove results and the virtual environment
	rm -rf output $(venv)
