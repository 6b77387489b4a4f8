"""Volumes that one node at a time can mount: said before a Job needs more, and when it waits. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Json = Mapping[str, Any]
_SHARED: Final = {"ReadWriteMany"}
_REMEDY: Final = "accessModes: [ReadWriteMany] in k8s/base/namespace/volumes.yaml, on a storage class that has it"
# In the words of the attaching controller, and of the scheduler: a local volume, and a claim for a single pod.
_HELD_ELSEWHERE: Final = ("Multi-Attach error", "volume node affinity conflict", "ReadWriteOncePod")


def claims_of(pod_spec: Json) -> list[str]:
    """Names of the volume claims that a pod mounts."""
    volumes = pod_spec.get("volumes", [])
    return [entry["persistentVolumeClaim"]["claimName"] for entry in volumes if "persistentVolumeClaim" in entry]


def warn_of_claims(nodes: int, claims: Sequence[Json]) -> str | None:
    """What to expect of several machines whose volumes one node at a time can mount; None = nothing.

    No error: all machines may be pods of one node.

    Args:
        nodes: machines.
        claims: the PersistentVolumeClaims that their pods mount.
    """
    single = [claim for claim in claims if not _SHARED & set(claim["spec"].get("accessModes", []))]
    if nodes == 1 or not single:
        return None
    told = ", ".join(f"{claim['metadata']['name']} ({', '.join(claim['spec']['accessModes'])})" for claim in single)
    return (
        f"{nodes} machines, and volumes that one node at a time can mount: {told}. On different nodes all but the "
        f"first machine will wait; they need {_REMEDY}"
    )


def tell_shared(nodes: int, names: Sequence[str]) -> str | None:
    """What several machines need of the claims they share, for who may not look at them; None = nothing."""
    if nodes == 1 or not names:
        return None
    return f"{nodes} machines mount {', '.join(names)}: on different nodes these need {_REMEDY}"


def explain_volume(message: str) -> str:
    """What a scheduler or a kubelet said, with what to do when a pod waits for a volume that another node holds."""
    if not any(words in message for words in _HELD_ELSEWHERE):
        return message
    return f"{message} (one node at a time can mount the volume: one run on one machine, or {_REMEDY})"
