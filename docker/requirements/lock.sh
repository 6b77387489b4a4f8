#!/bin/sh
# Compile runtime.txt, dev.txt, orchestrator.txt, uv.txt and, from torch.in, cuda.txt: `make lock`.
# The torch family is resolved (so that everything fits it) but written to cuda.txt only: see runtime.in.
set -eu
cd "$(dirname "$0")"
uv=${UV:-uv}
torch_family="torch triton cuda-bindings cuda-pathfinder cuda-toolkit
  nvidia-cublas nvidia-cuda-cccl nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13
  nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13
  nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx"
skip=""
for package in $torch_family; do skip="$skip --no-emit-package $package"; done
for set in runtime dev; do
    # shellcheck disable=SC2086  # the flags are meant to be split
    "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --constraint torch.in $skip "$set.in" -o "$set.txt"
done
"$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
    orchestrator.in -o orchestrator.txt
# The images' torch: the default build, which is CUDA's, with the CUDA libraries it names. A folder of wheels that a
# person prefers elsewhere (a CPU build) has no say here.
env -u UV_FIND_LINKS "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --constraint runtime.txt torch.in -o cuda.txt
"$uv" pip compile -q --generate-hashes --no-annotate --no-header uv.in -o uv.txt
if grep -nE '^(nvidia|cuda|triton|torch)|https?://' runtime.txt dev.txt orchestrator.txt uv.txt || grep -nE 'https?://' cuda.txt; then
    echo "lock.sh: the lock names part of the torch family or a registry host (above)" >&2
    exit 1
fi
