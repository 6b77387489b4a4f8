# Every target is a line you could type yourself. `make help` lists them.
PROFILE ?= tiny
STAGE ?=
ARGS ?=
REGISTRY ?=
TAG ?= dev
PUSH ?=
PYTHON ?= python3
venv := venv_FntngEval
py := $(venv)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup run explain test check bench calibrate lock images image-check clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo '  options of run: PROFILE=tiny|tiny-harmful|smollm|llama3-8b STAGE=evaluate ARGS="train.max_steps=30 --dry-run"'

setup: ## make the virtual environment from the hashed lock (run and test do this by themselves)
	@PYTHON="$(PYTHON)" docker/requirements/setup.sh

run: setup ## run the pipeline, or one STAGE of it
	@$(py) -m jobs.$(if $(STAGE),$(STAGE),pipeline) --config $(PROFILE) $(ARGS)

explain: setup ## say why each stage is cached or would run
	@$(py) -m jobs.pipeline --config $(PROFILE) $(ARGS) --explain

test: setup ## run the tests, real servers included
	@$(py) -m pytest

check: setup ## format, lint, docstrings, types, Dockerfile
	@$(py) -m ruff format --check .
	@$(py) -m ruff check .
	@$(py) -m mypy
	@$(venv)/bin/hadolint Dockerfile.gpu

bench: setup ## time the commands people wait for; see tests/benchmarks/README.md
	@$(py) -m tests.benchmarks $(ARGS)

calibrate: setup ## plant damage in the embedded model and count what the verdict finds (an hour of one core)
	@$(py) -m jobs.calibrate $(ARGS)

lock: setup ## compile the lock from docker/requirements/*.in
	@UV=$(CURDIR)/$(venv)/bin/uv docker/requirements/lock.sh

images: ## build the six images with docker; REGISTRY=... TAG=... PUSH=1, others in docker/images.sh
	@REGISTRY="$(REGISTRY)" TAG="$(TAG)" PUSH="$(PUSH)" docker/images.sh

image-check: ## build them on a stand-in base without docker or a registry, and run everything in them (root, buildah)
	@$(PYTHON) docker/image_check.py $(ARGS)

clean: ## remove results and the virtual environment
	rm -rf output $(venv)
