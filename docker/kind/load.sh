#!/bin/sh
# Give this machine's images to the cluster of `make kind-up`: `make kind-load`.
set -eu
name=alignment
say() { printf 'kind-load    %s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }

for tool in docker kind; do
    command -v "$tool" >/dev/null 2>&1 || stop "$tool is not installed; install it, then: make kind-up"
done
docker info >/dev/null 2>&1 || stop "docker does not answer (docker info); start it, or let your user use it"
kind get clusters 2>/dev/null | grep -qx "$name" || stop "there is no cluster $name on this machine: make kind-up"
targets="environment prepare train evaluate analyze orchestrator"
for target in $targets; do
    docker image inspect "alignment-pipeline-$target:dev" >/dev/null 2>&1 ||
        stop "alignment-pipeline-$target:dev is not in this machine's docker: make images"
done
for target in $targets; do
    kind load docker-image --name "$name" "alignment-pipeline-$target:dev" ||
        stop "kind could not load alignment-pipeline-$target:dev (its message is above); often the disk is full: docker system df"
done
say "the cluster has all six"
