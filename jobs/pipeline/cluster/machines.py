"""A stage's Job on several machines: an Indexed Job, whose pods find machine 0 by the name a headless Service gives it.

`k8s/base/pipeline/machines.yaml` has the Services; `pipeline_common/members.py` reads what is set here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from jobs.pipeline.cluster.templates import STAGE_CONTAINER
from pipeline_common.errors import InputError
from pipeline_common.members import DEFAULT_PORT, LEADER_VARIABLE, PORT_VARIABLE

if TYPE_CHECKING:
    from pipeline_common.config import Config
    from pipeline_common.stages import Stage

Json = dict[str, Any]
GPU: Final = "nvidia.com/gpu"
# An annotation in every version, a label as well since 1.28.
INDEX_KEY: Final = "batch.kubernetes.io/job-completion-index"
# How often the index had failed before the pod was made; disruptions do not count.
FAILURES_KEY: Final = "batch.kubernetes.io/job-index-failure-count"
# The network policy `train-machines` opens pods that have it to each other.
MACHINES_LABEL: Final = "alignment-pipeline/machines"
# What each process of a pod needs for itself; scratch space is shared.
_PER_PROCESS: Final = ("cpu", "memory")
_QUANTITY: Final = re.compile(r"([0-9.]+)([A-Za-z]*)")


@dataclass(frozen=True)
class Machines:
    """What a stage that uses a GPU runs on."""

    nodes: int = 1
    gpus: int = 1
    """Of each machine."""


ONE_MACHINE: Final = Machines()


def machines_of(config: Config) -> Machines:
    """`runtime.nodes` and `runtime.gpus`."""
    return Machines(config.runtime.nodes, config.runtime.gpus)


def spread_job(job: Mapping[str, Any], stage: Stage, machines: Machines) -> Json:
    """The Job on as many machines, with as many GPUs each, as the configuration says.

    A template is what one process needs, and a machine has one for each of its GPUs: `cpu` and `memory`, requested and
    limited, and volumes in memory are multiplied by `machines.gpus`. GPUs are raised only where the template asks for
    one: a cluster without any stays one.

    Args:
        job: from `templates.stage_job`.
        stage: one that does not use a GPU keeps its one machine.
        machines: how many.
    """
    changed: Json = copy.deepcopy(dict(job))
    if not stage.needs_gpu:
        return changed
    spec = changed["spec"]
    (container,) = (entry for entry in spec["template"]["spec"]["containers"] if entry["name"] == STAGE_CONTAINER)
    if machines.gpus > 1:
        _give_each_process(spec["template"]["spec"], container.get("resources", {}), machines.gpus)
    if machines.nodes > 1:
        _index(spec, changed["metadata"]["name"], stage.name, machines.nodes)
        address = {LEADER_VARIABLE: f"{changed['metadata']['name']}-0.{stage.name}", PORT_VARIABLE: str(DEFAULT_PORT)}
        kept = [entry for entry in container.get("env", []) if entry["name"] not in address]
        container["env"] = [*kept, *({"name": name, "value": value} for name, value in address.items())]
    return changed


def _give_each_process(pod: Json, resources: Json, count: int) -> None:
    """Raise what the template gives one process to what `count` of them need."""
    for side in ("limits", "requests"):
        given = resources.get(side, {})
        given |= {name: times(given[name], count) for name in _PER_PROCESS if name in given}
        # The API copies an absent request from the limit, and refuses one that differs.
        if GPU in resources.get("limits", {}):
            resources.setdefault(side, {})[GPU] = str(count)
    for volume in pod.get("volumes", []):
        empty = volume.get("emptyDir") or {}
        # /dev/shm, where each process's data loaders leave theirs; it counts as the pod's memory.
        if empty.get("medium") == "Memory" and "sizeLimit" in empty:
            empty["sizeLimit"] = times(empty["sizeLimit"], count)


def times(quantity: str | float, count: int) -> str:
    """`count` times an amount as the API writes it, in its own unit: 3 x `250m` is `750m`, 2 x `1.5Gi` is `3Gi`.

    Raises:
        InputError: not written as a number and a unit.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise InputError(
            f"a CronJob of k8s/pipeline.yaml asks for {quantity!r}; expected an amount such as 4, 500m, 8Gi"
        )
    return f"{(Decimal(found[1]) * count).normalize():f}{found[2]}"


def _index(spec: Json, name: str, service: str, nodes: int) -> None:
    """Make a Job's specification one of `nodes` pods that all run at once."""
    spec |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    # One machine's end makes the others fail as well: counted together they would use up the attempts at once. So each
    # has its own, and the first that has none left ends the Job.
    spec["backoffLimitPerIndex"] = spec.pop("backoffLimit")
    spec["maxFailedIndexes"] = 0
    spec["template"]["spec"]["subdomain"] = service
    spec["template"].setdefault("metadata", {}).setdefault("labels", {})[MACHINES_LABEL] = str(nodes)


def machine_count(job: Mapping[str, Any]) -> int:
    """Machines of a Job; 1 when it is not indexed."""
    spec = job.get("spec", {})
    return int(spec.get("completions") or 1) if spec.get("completionMode") == "Indexed" else 1


def index_of(pod: Mapping[str, Any]) -> int:
    """The machine that a pod of an Indexed Job is; 0 for other pods."""
    metadata = pod["metadata"]
    found = metadata.get("annotations", {}).get(INDEX_KEY) or metadata.get("labels", {}).get(INDEX_KEY) or "0"
    return int(found)


def attempt_of(pod: Mapping[str, Any]) -> int:
    """Which attempt of its index a pod is, from 1."""
    return 1 + int(pod["metadata"].get("annotations", {}).get(FAILURES_KEY) or 0)


def parse_indexes(text: str | None) -> set[int]:
    """Indexes as a Job's status lists them: `0,2-4` are 0, 2, 3 and 4."""
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def list_indexes(indexes: list[int]) -> str:
    """`index 1`, or `indexes 1, 2`."""
    return f"index{'es' if len(indexes) > 1 else ''} {', '.join(map(str, indexes))}"
