#!/bin/sh
# Build the six images of Dockerfile.gpu: `make images`. Reads from the environment:
#   REGISTRY, TAG                          names: REGISTRY/alignment-pipeline-<target>:TAG (default: no registry, dev)
#   PUSH=1                                 push them, instead of loading them into this machine's docker
#   BASE_IMAGE, ORCHESTRATOR_BASE_IMAGE    other bases; PYTHON, TORCH_BUILD: see Dockerfile.gpu
#   INDEX_URL_FILE, FIND_LINKS_FILE, CA_FILE   files with your package index, wheel folder or page, and CA (PEM)
set -eu
cd "$(dirname "$0")/.."
say() { printf 'images       %s\n' "$*" >&2; }

if ! command -v docker >/dev/null 2>&1; then
    say "docker is not installed here; install it with its buildx plugin, or use: make image-check (buildah)"
    exit 2
fi
if ! docker buildx version >/dev/null 2>&1; then
    say "docker has no buildx plugin here (docker buildx version fails); install docker-buildx-plugin"
    exit 2
fi
if ! docker info >/dev/null 2>&1; then
    say "no docker daemon answers (docker info fails); start it, or point DOCKER_HOST at one"
    exit 2
fi
if [ -n "${PUSH:-}" ] && [ -z "${REGISTRY:-}" ]; then
    say "PUSH=1 needs REGISTRY=your.registry/project"
    exit 2
fi
GIT_COMMIT=$(git rev-parse HEAD 2>/dev/null || true)
GIT_DIRTY=$([ -z "$(git status --porcelain 2>/dev/null)" ] && echo false || echo true)
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
export GIT_COMMIT GIT_DIRTY VERSION
# Newer bakes ask before they read a file outside of this folder, and refuse where nobody can answer. The three files above
# are named by whoever runs this. Older ones do not know --allow.
export BUILDX_BAKE_ENTITLEMENTS_FS=0
if [ -n "${PUSH:-}" ]; then
    # The file says under which digest each image was pushed: `make pin` reads it. What is only loaded has no such digest;
    # its own number, which bake writes in the same place, is one that no registry knows.
    mkdir -p output
    set -- --metadata-file output/images.json --push
else
    set -- --load
fi
exec docker buildx bake -f docker/docker-bake.hcl "$@"
