#!/bin/sh
# Runs inside the image build only: one step of Dockerfile.gpu, as its argument says.
#   uv                      the installer itself, for the other steps
#   torch                   the virtual environment, and torch in it (TORCH_BUILD: cuda or cpu)
#   runtime, orchestrator   the hashed lock of that name
# Reads the build secrets index_url, find_links and ca where they are given; writes none of them down.
set -eu
venv=/opt/venv_FntngEval
uv=/opt/uv/bin/uv
python=${PYTHON:-python3}

secret() { if [ -s "/run/secrets/$1" ]; then cat "/run/secrets/$1"; fi; }
index_url=$(secret index_url)
find_links=$(secret find_links)
if [ -n "$index_url" ]; then export UV_DEFAULT_INDEX="$index_url" PIP_INDEX_URL="$index_url"; fi
if [ -n "$find_links" ]; then export UV_FIND_LINKS="$find_links" PIP_FIND_LINKS="$find_links"; fi
if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi
# The cache is a mount of the build and lies on another file system than the environment.
export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# Bytecode is made here, once, and never checked against times that differ from build to build.
export UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH

create() { [ -x "$venv/bin/python" ] || "$uv" venv -q --python "$(command -v "$python")" "$venv"; }
install() { "$uv" pip install -q --python "$venv/bin/python" "$@"; }
# The wheel of bitsandbytes carries a library for every release of CUDA, ROCm and XPU; this torch loads one of them.
prune_bitsandbytes() {
    folder=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/bitsandbytes")')
    cuda=$("$venv/bin/python" -c 'import torch; print((torch.version.cuda or "").replace(".", ""))')
    kept="$folder/libbitsandbytes_${cuda:+cuda}${cuda:-cpu}.so"
    if [ ! -f "$kept" ]; then
        echo "install.sh: bitsandbytes has no $kept for this torch; lock versions that fit each other" >&2
        exit 1
    fi
    find "$folder" -name 'libbitsandbytes_*.so' ! -path "$kept" ! -name libbitsandbytes_cpu.so -delete
}

case "$1" in
uv)
    "$python" -m venv /opt/uv
    /opt/uv/bin/python -m pip install -q --disable-pip-version-check --no-cache-dir --require-hashes -r /build/uv.txt
    ;;
torch)
    create
    case "${TORCH_BUILD:-cuda}" in
    cuda) install --require-hashes --no-deps -r /build/cuda.txt ;;
    cpu) install --no-deps "$(grep '^torch==' /build/torch.in)+cpu" ;;
    *)
        echo "install.sh: TORCH_BUILD=$TORCH_BUILD: give cuda or cpu" >&2
        exit 2
        ;;
    esac
    ;;
runtime)
    install --require-hashes --no-deps -r /build/runtime.txt
    prune_bitsandbytes
    "$uv" pip check -q --python "$venv/bin/python"
    ;;
orchestrator)
    create
    install --require-hashes --no-deps -r /build/orchestrator.txt
    "$uv" pip check -q --python "$venv/bin/python"
    ;;
*)
    echo "install.sh: $1: give uv, torch, runtime or orchestrator" >&2
    exit 2
    ;;
esac
