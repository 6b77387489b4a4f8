"""Who may speak to whom, worked out from the NetworkPolicies as a cluster does: closed unless something opens it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from jobs.pipeline.cluster.machines import MACHINES_LABEL
from k8s.rendering.fields import Resource
from tests.manifests.pods import of_kind, pods


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod by its labels (in this namespace or another), or an address outside."""

    port: int
    labels: tuple[tuple[str, str], ...] = ()
    same_namespace: bool = True
    address: str | None = None
    protocol: str = "TCP"


def component(name: str, port: int) -> Peer:
    return Peer(port, (("app.kubernetes.io/name", "alignment-pipeline"), ("app.kubernetes.io/component", name)))


def allowed(resources: list[Resource], source: dict[str, str], target: Peer) -> bool:
    """Whether a pod with the labels `source` may open a connection to `target`: out of the one, into the other."""
    out = [entry["spec"] for entry in of_kind(resources, "NetworkPolicy") if _concerns(entry, source, "Egress")]
    if out and not any(_opens(opening, "to", target) for spec in out for opening in spec.get("egress", [])):
        return False
    if target.address is not None or not target.same_namespace:
        return True
    into = [
        entry["spec"]
        for entry in of_kind(resources, "NetworkPolicy")
        if _concerns(entry, dict(target.labels), "Ingress")
    ]
    caller = Peer(target.port, tuple(source.items()), protocol=target.protocol)
    return not into or any(_opens(opening, "from", caller) for spec in into for opening in spec.get("ingress", []))


def unused_policies(resources: list[Resource]) -> list[str]:
    """Policies whose selector meets no pod template, nor its pods on several machines; `default-deny` meets all."""
    labels = [pod.template["metadata"]["labels"] for pod in pods(resources)]
    labels += [{**entry, MACHINES_LABEL: "2"} for entry in labels]
    return [
        policy["metadata"]["name"]
        for policy in of_kind(resources, "NetworkPolicy")
        if not any(_selects(policy["spec"]["podSelector"], entry) for entry in labels)
    ]


def _concerns(policy: Resource, labels: dict[str, str], direction: str) -> bool:
    spec = policy["spec"]
    return direction in spec["policyTypes"] and _selects(spec["podSelector"], labels)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for entry in selector.get("matchExpressions", []):
        assert entry["operator"] in {"In", "Exists"}
        met = entry["key"] in labels if entry["operator"] == "Exists" else labels.get(entry["key"]) in entry["values"]
        if not met:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def _opens(opening: dict[str, Any], side: str, peer: Peer) -> bool:
    ports = opening.get("ports")
    if ports is not None and not any(
        (entry.get("protocol", "TCP"), entry["port"]) == (peer.protocol, peer.port) for entry in ports
    ):
        return False
    return side not in opening or any(_meets(entry, peer) for entry in opening[side])


def _meets(entry: dict[str, Any], peer: Peer) -> bool:
    if "ipBlock" in entry:
        if peer.address is None:
            return False
        address = ipaddress.ip_address(peer.address)
        block = entry["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except", []))
    if peer.address is not None:
        return False
    if "namespaceSelector" in entry:
        assert entry["namespaceSelector"] == {}
    elif not peer.same_namespace:
        return False
    return _selects(entry.get("podSelector", {}), dict(peer.labels))
