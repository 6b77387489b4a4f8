#!/bin/sh
# A Kubernetes cluster on this machine, in docker: kind.sh up|load|down
#   GPU=1            with the machine's NVIDIA GPUs (driver 580 or newer, NVIDIA container toolkit)
#   DEVICE_PLUGIN    file or address of the manifest of NVIDIA's device plugin, applied by `up` with GPU=1
#   TAG              of the images `load` copies (default: dev)
# `up` first says everything that is missing; it changes nothing then.
set -eu
cd "$(dirname "$0")"
cluster=alignment
node=$cluster-control-plane
missing=0

say() { printf 'kind: %s\n' "$*" >&2; }
miss() { missing=$((missing + 1)); say "missing: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

preflight() {
    have docker || miss "docker (its engine runs the cluster)"
    if have docker && ! docker info >/dev/null 2>&1; then
        miss "docker's engine: the command is there, but \`docker info\` fails (is it started, may you use it?)"
    fi
    have kind || miss "kind 0.27 or newer, on PATH"
    have kubectl || miss "kubectl, on PATH"
    [ -z "${GPU:-}" ] || preflight_gpu
    if [ "$missing" -gt 0 ]; then
        say "$missing missing; nothing was changed. \`make run\` needs none of it"
        exit 2
    fi
}

preflight_gpu() {
    if have nvidia-smi; then
        driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
        case ${driver%%.*} in
            ''|*[!0-9]*) miss "a working NVIDIA driver (\`nvidia-smi\` fails)" ;;
            *) [ "${driver%%.*}" -ge 580 ] || miss "NVIDIA driver 580 or newer for CUDA 13 (found $driver)" ;;
        esac
    else
        miss "an NVIDIA driver, 580 or newer (no nvidia-smi)"
    fi
    for tool in nvidia-ctk nvidia-cdi-hook nvidia-container-runtime; do
        [ -x "/usr/bin/$tool" ] || miss "NVIDIA container toolkit 1.17 or newer (no /usr/bin/$tool)"
    done
    if have docker && docker info >/dev/null 2>&1; then
        [ "$(docker info --format '{{.DefaultRuntime}}')" = nvidia ] \
            || miss "nvidia as docker's default runtime: sudo nvidia-ctk runtime configure --runtime=docker --set-as-default, then restart docker"
    fi
    config=/etc/nvidia-container-runtime/config.toml
    grep -Eq '^ *accept-nvidia-visible-devices-as-volume-mounts *= *true' "$config" 2>/dev/null \
        || miss "GPUs by volume mount: sudo nvidia-ctk config --in-place --set accept-nvidia-visible-devices-as-volume-mounts=true"
}

hand_gpus_to_pods() {
    docker exec "$node" nvidia-ctk config --in-place --set nvidia-container-runtime.mode=cdi
    docker exec "$node" nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml
    docker exec "$node" nvidia-ctk runtime configure --runtime=containerd --set-as-default --cdi.enabled
    docker exec "$node" systemctl restart containerd
    if [ -z "${DEVICE_PLUGIN:-}" ]; then
        say "the cluster is up; one step is left: apply NVIDIA's device plugin (k8s-device-plugin, its static manifest),"
        say "with DEVICE_PLUGIN=file-or-address make kind-up GPU=1, or kubectl apply -f of it"
        return
    fi
    kubectl --context "kind-$cluster" apply -f "$DEVICE_PLUGIN"
    waited=0
    while [ "$waited" -lt 120 ]; do
        gpus=$(kubectl --context "kind-$cluster" get nodes -o 'jsonpath={.items[*].status.allocatable.nvidia\.com/gpu}')
        if [ -n "$gpus" ] && [ "$gpus" != 0 ]; then
            say "the node offers $gpus nvidia.com/gpu"
            return
        fi
        sleep 3
        waited=$((waited + 3))
    done
    say "no nvidia.com/gpu in the node's allocatable after 120 s; look at the device plugin's log:"
    say "kubectl --context kind-$cluster -n kube-system logs -l name=nvidia-device-plugin-ds"
    exit 1
}

case ${1:-} in
    up)
        preflight
        if kind get clusters 2>/dev/null | grep -qx "$cluster"; then
            say "the cluster $cluster is there already"
        else
            kind create cluster --config "$([ -n "${GPU:-}" ] && echo gpu.yaml || echo cpu.yaml)" --wait 120s
        fi
        [ -z "${GPU:-}" ] || hand_gpus_to_pods
        say "current context: kind-$cluster"
        ;;
    load)
        preflight
        for target in environment prepare train evaluate analyze orchestrator; do
            kind load docker-image "alignment-pipeline-$target:${TAG:-dev}" --name "$cluster"
        done
        ;;
    down) preflight; kind delete cluster --name "$cluster" ;;
    *) say "usage: kind.sh up|load|down"; exit 2 ;;
esac
