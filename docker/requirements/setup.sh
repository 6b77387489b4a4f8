#!/bin/sh
# Make the virtual environment: `make setup`. Does nothing when it is already as the lock says.
#   PYTHON           interpreter to use (3.11 or 3.12; default python3)
#   TORCH_INDEX_URL  an index with the build of torch you want
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv="$root/venv_FntngEval"
torch=$(sed -n 's/^torch==//p' "$here/torch.in")
say() { printf 'setup        %s\n' "$*" >&2; }

wanted=$(cat "$here/dev.txt" "$here/torch.in" "$here/uv.txt" "$0" | sha256sum | cut -c1-16)
if [ "$(cat "$venv/.installed" 2>/dev/null || true)" = "$wanted" ]; then exit 0; fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; then
    say "$("$python" --version 2>&1 || echo "no $python"): Python 3.11 or 3.12 is needed; name one with PYTHON=..."
    exit 2
fi
if [ ! -x "$venv/bin/python" ] && ! "$python" -m venv "$venv"; then
    say "$python cannot make a virtual environment; on Debian: apt-get install python3-venv"
    exit 2
fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$here/uv.txt"

# uv reads its own settings, not pip's: hand the configured index and wheel folders on.
: "${UV_FIND_LINKS:=${PIP_FIND_LINKS:-$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null || true)}}"
: "${UV_DEFAULT_INDEX:=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}}"
[ -z "$UV_FIND_LINKS" ] || export UV_FIND_LINKS
[ -z "$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX
# Compiled once, on every core: where PYTHONDONTWRITEBYTECODE is set, every process that imports torch and the training
# libraries would compile them again, for 8 s of its 15.
export UV_COMPILE_BYTECODE=1
install() { "$venv/bin/uv" pip install --python "$venv/bin/python" "$@"; }

packages=$(install --dry-run --require-hashes --no-deps -r "$here/dev.txt" 2>&1 | grep -c '^ + ' || true)
say "$packages of the locked packages to download (about 450 MB when all are missing, 1.6 GB installed)"
install -q --require-hashes --no-deps -r "$here/dev.txt"

if [ "$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch").split("+")[0])' 2>/dev/null)" = "$torch" ]; then
    say "torch $torch is there"
elif [ -n "${TORCH_INDEX_URL:-}" ]; then
    say "torch $torch from TORCH_INDEX_URL (200 MB for the CPU build, 1 to 3 GB for CUDA)"
    install -q --index "$TORCH_INDEX_URL" --index-strategy unsafe-first-match "torch==$torch"
elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
    say "an NVIDIA driver is here: torch $torch with CUDA (about 2.8 GB to download, 4.8 GB installed)"
    install -q "torch==$torch"
elif install --dry-run --no-deps "torch==$torch+cpu" >/dev/null 2>&1; then
    say "torch $torch, CPU build (about 200 MB)"
    install -q --no-deps "torch==$torch+cpu"
else
    say "no CPU build of torch $torch is offered here (TORCH_INDEX_URL may name an index that has one)"
    say "torch $torch with CUDA instead (about 2.8 GB to download, 4.8 GB installed); it runs without a GPU too"
    install -q "torch==$torch"
fi
"$venv/bin/uv" pip check -q --python "$venv/bin/python"
printf '%s\n' "$wanted" > "$venv/.installed"
say "ready: $venv"
