# Every target is a line you could type yourself. `make help` lists them.
PROFILE ?= tiny
STAGE ?=
RUN ?=
RUNS ?=
INDEX ?=
MERGED ?=
ARGS ?=
GPU ?= 1
REGISTRY ?=
TAG ?= dev
PUSH ?=
METADATA ?= output/images.json
PYTHON ?= python3
venv := venv_FntngEval
py := $(venv)/bin/python
cluster := $(py) -m jobs.pipeline.cluster
stages := environment prepare train evaluate analyze
# On a cluster the templates name the configuration, unless the command does.
given := $(if $(filter file,$(origin PROFILE)),,--config $(PROFILE)) $(if $(RUN),--run-id $(RUN)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup run explain job pipeline status logs cancel test check bench bench-gpu calibrate compare export prune \
	services-up services-down lock images image-check render verify pin dev-secret \
	kind-up kind-load kind-down clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo '  options of run: PROFILE=tiny|tiny-harmful|smollm|llama3-8b STAGE=evaluate ARGS="train.max_steps=30 --dry-run"'

setup: ## make the virtual environment from the hashed lock (run and test do this by themselves)
	@PYTHON="$(PYTHON)" docker/requirements/setup.sh

run: setup ## run the pipeline, or one STAGE of it
	$(if $(filter-out $(stages),$(STAGE)),$(error no stage is called '$(STAGE)'; the stages are $(stages)))
	@$(py) -m jobs.$(if $(STAGE),$(STAGE),pipeline) --config $(PROFILE) $(ARGS)

explain: setup ## say why each stage is cached or would run
	@$(py) -m jobs.pipeline --config $(PROFILE) $(ARGS) --explain

job: setup ## run one STAGE as a Job on the current Kubernetes context, follow its log, end with its exit code
	@$(cluster) job --stage "$(STAGE)" $(given)

pipeline: setup ## start a new run on the cluster
	@$(cluster) pipeline $(given)

status: setup ## runs, their stages, what they wait for, what is cached: of this machine and of the cluster
	@$(cluster) status $(given)

logs: setup ## follow the newest Job of a STAGE (INDEX= one of its machines), or of the pipeline
	@$(cluster) logs --stage "$(STAGE)" $(if $(INDEX),--index $(INDEX))

cancel: setup ## delete unfinished pipelines with their stages (RUN= one of them), or single Jobs of a STAGE
	@$(cluster) cancel --stage "$(STAGE)" $(if $(RUN),--run-id $(RUN))

test: setup ## run the tests on every core (at most 4), real servers and a browser included; ARGS: options of pytest
	@docker/requirements/browser.sh
	@$(py) -m pytest -n auto $(ARGS)

check: setup ## format, lint, docstrings, types, Dockerfile, manifests (rendered files up to date, valid by the API's schemas)
	@$(py) -m ruff format --check .
	@$(py) -m ruff check .
	@$(py) -m mypy
	@$(venv)/bin/yamllint --strict .
	@$(py) -m k8s.rendering --check
	@$(py) -m jobs.schemas --check
	@$(venv)/bin/hadolint Dockerfile.gpu

bench: setup ## time the commands people wait for; see tests/benchmarks/README.md
	@$(py) -m tests.benchmarks $(ARGS)

bench-gpu: setup ## speed on this machine's GPU: training against plain TRL, activations; see tests/benchmarks/README.md
	@$(py) -m tests.benchmarks.bench_gpu_training $(ARGS)
	@$(py) -m tests.benchmarks.bench_gpu_activations

calibrate: setup ## plant damage in activations, then in the embedded model, and count what is found (hours of one core)
	@$(py) -m jobs.calibrate --synthetic $(ARGS)
	@$(py) -m jobs.calibrate $(ARGS)

compare: setup ## put several fine-tunes of one base into one ranked report; RUNS="a b c", default: all of the newest base
	@$(py) -m jobs.compare --config $(PROFILE) $(foreach run,$(RUNS),--run $(run)) $(ARGS)

export: setup ## write the results database as one SQLite file; RUN=... for one run, MERGED=folder for its tuned model
	@$(py) -m jobs.export --config $(PROFILE) $(if $(RUN),--run $(RUN)) $(if $(MERGED),--merged "$(MERGED)") $(ARGS)

prune: setup ## say what no run refers to any more (ARGS=--apply removes it); RUNS="a b" forgets these runs first
	@$(py) -m jobs.prune --config $(PROFILE) $(foreach run,$(RUNS),--run $(run)) $(ARGS)

services-up: ## start a bucket and a Postgres on this machine (Docker), and wait until they answer
	@docker/services.sh up

services-down: ## stop them; their data stays
	@docker/services.sh down

lock: setup ## compile the lock from docker/requirements/*.in
	@UV=$(CURDIR)/$(venv)/bin/uv docker/requirements/lock.sh

images: ## build the six images with docker; REGISTRY=... TAG=... PUSH=1, others in docker/images.sh
	@REGISTRY="$(REGISTRY)" TAG="$(TAG)" PUSH="$(PUSH)" docker/images.sh

image-check: ## build them on a stand-in base without docker or a registry, and run everything in them (root, buildah)
	@$(PYTHON) docker/image_check $(ARGS)

render: setup ## write what is made from the tree, after a change of it: k8s/pipeline.yaml, the services, docs/schema
	@$(py) -m k8s.rendering
	@$(py) -m jobs.schemas

verify: setup ## fail when a rendered file is not what the tree gives (a part of check)
	@$(py) -m k8s.rendering --check
	@$(py) -m jobs.schemas --check

pin: setup ## name the pushed images by digest in the manifests: REGISTRY=... METADATA=the build's JSON file
	@$(py) -m k8s.rendering --registry "$(REGISTRY)" --metadata "$(METADATA)"

dev-secret: setup ## make the services' random credentials from this machine, where no image can be pulled yet
	@$(py) -m jobs.pipeline.dev_secret

kind-up: ## start a cluster on this machine with its NVIDIA GPUs; GPU=0: without
	@GPU="$(GPU)" docker/kind/up.sh

kind-load: ## give this machine's images to it
	@docker/kind/load.sh

kind-down: ## remove it with everything in it
	@kind delete cluster --name alignment

clean: ## remove results and the virtual environment
	rm -rf output $(venv)
