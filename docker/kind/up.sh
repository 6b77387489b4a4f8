#!/bin/sh
# A cluster on this machine: `make kind-up` (with its NVIDIA GPUs), `make kind-up GPU=0` (without).
# May be run again; goes on where it was.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
gpu=${GPU:-1}
name=alignment
node=$name-control-plane
context=kind-$name
say() { printf 'kind-up      %s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }

for tool in docker kind kubectl; do
    command -v "$tool" >/dev/null 2>&1 || stop "$tool is not installed; install it, then: make kind-up"
done
docker info >/dev/null 2>&1 || stop "docker does not answer (docker info); start it, or let your user use it"

if [ "$gpu" != 0 ]; then
    command -v nvidia-smi >/dev/null 2>&1 || stop "no NVIDIA driver here (nvidia-smi); without a GPU: make kind-up GPU=0"
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    [ "${driver%%.*}" -ge 580 ] 2>/dev/null || stop "NVIDIA driver ${driver:-unknown}: the images' CUDA 13 needs 580 or newer"
    for tool in nvidia-ctk nvidia-container-runtime nvidia-container-runtime-hook nvidia-container-cli; do
        command -v "$tool" >/dev/null 2>&1 || stop "$tool is missing: install the NVIDIA Container Toolkit"
    done
    runtime=$(docker info --format '{{.DefaultRuntime}}')
    [ "$runtime" = nvidia ] || stop "docker's default runtime is $runtime, kind's node needs nvidia:
             sudo nvidia-ctk runtime configure --runtime=docker --set-as-default
             sudo nvidia-ctk config --set accept-nvidia-visible-devices-as-volume-mounts=true --in-place
             sudo systemctl restart docker"
fi

config=$here/cluster.yaml
[ "$gpu" = 0 ] || config=$here/cluster-gpu.yaml
if kind get clusters 2>/dev/null | grep -qx "$name"; then
    say "the cluster $name is there; to make it anew: make kind-down"
else
    kind create cluster --config "$config" --wait 180s
fi

if [ "$gpu" != 0 ]; then
    docker exec "$node" nvidia-smi >/dev/null 2>&1 || stop "the node does not see the GPU. Allow GPUs by mount, then start anew:
             sudo nvidia-ctk config --set accept-nvidia-visible-devices-as-volume-mounts=true --in-place
             sudo systemctl restart docker; make kind-down kind-up"
    if ! docker exec "$node" test -e /etc/nvidia-ready; then
        # The node starts containers by itself, so it needs the toolkit too: the host's own files.
        for tool in nvidia-ctk nvidia-container-runtime nvidia-container-runtime-hook nvidia-container-cli; do
            docker cp -L "$(command -v "$tool")" "$node:/usr/bin/$tool" >/dev/null
        done
        ldconfig -p | sed -n 's/.*=> \(.*libnvidia-container[-a-z]*\.so\.[0-9]*\)$/\1/p' | while read -r library; do
            docker cp -L "$library" "$node:/usr/lib/$(basename "$library")" >/dev/null
        done
        docker exec "$node" ldconfig
        # The driver's own parameters are the host's: a copy that says "leave the device files alone" hides them.
        docker exec "$node" sh -c '
            umount -R /proc/driver/nvidia 2>/dev/null || true
            sed "s/^ModifyDeviceFiles: 1$/ModifyDeviceFiles: 0/" /proc/driver/nvidia/params > /root/nvidia-params
            mount --bind /root/nvidia-params /proc/driver/nvidia/params
            nvidia-ctk runtime configure --runtime=containerd --set-as-default
            systemctl restart containerd
            touch /etc/nvidia-ready' >/dev/null
    fi
    kubectl --context "$context" apply -f "$here/device-plugin.yaml" >/dev/null
    say "waiting for nvidia.com/gpu (two minutes at most)"
    tries=0
    until count=$(kubectl --context "$context" get nodes -o 'jsonpath={.items[0].status.allocatable.nvidia\.com/gpu}') &&
        [ "${count:-0}" -gt 0 ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || stop "the node offers no nvidia.com/gpu; the plugin says why:
             kubectl --context $context logs -n kube-system daemonset/nvidia-device-plugin"
        sleep 2
    done
    say "the node offers $count GPU(s)"
fi
overlay=local
[ "$gpu" != 0 ] || overlay=local/cpu
say "ready. Next: make images kind-load, then
             kubectl --context $context apply -k k8s/overlays/local/services
             kubectl --context $context apply -k k8s/overlays/$overlay"
