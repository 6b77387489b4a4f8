"""A server that speaks the Kubernetes API's paths and semantics for what the orchestrator uses, with faults on demand.

Jobs, CronJobs, pods, pod logs and events of any namespace: get, list (label and field selectors), watch (resource
versions, bookmarks, timeoutSeconds, 410 as status or as event), create (409, dry run), delete with garbage collection.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.servers.kubernetes_http import KINDS, TOKEN, Fault, Request, make_handler


class KubernetesApi:
    """The server and what it keeps; use as a context manager."""

    def __init__(self, namespace: str = "alignment") -> None:
        self.namespace = namespace
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[str, dict[str, dict[str, Any]]] = {resource: {} for resource in KINDS}
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.on_request: Callable[[Request, str], None] = lambda _request, _when: None
        self.on_create: Callable[[dict[str, Any]], None] = lambda _job: None
        self.bookmark_every_s = 0.5
        self.stopping = False
        self._history: list[tuple[int, str, str, dict[str, Any]]] = []
        self._version = 100
        self._oldest = 100
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> KubernetesApi:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def write_kubeconfig(self, path: Path, token: str = TOKEN) -> Path:
        """A kubeconfig whose current context `made` is this server."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "made",
            "clusters": [{"name": "made", "cluster": {"server": self.url}}],
            "users": [{"name": "made", "user": {"token": token}}],
            "contexts": [{"name": "made", "context": {"cluster": "made", "user": "made"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    # What tests and the kubelet do to the cluster.

    def put(self, resource: str, item: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object."""
        with self.changed:
            known = self.objects[resource].get(item["metadata"]["name"])
            self._version += 1
            metadata = item["metadata"]
            metadata.setdefault("namespace", self.namespace)
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", now())
            metadata["resourceVersion"] = str(self._version)
            self.objects[resource][metadata["name"]] = item
            self._remember(resource, "ADDED" if known is None else "MODIFIED", item)
            return item

    def change(self, resource: str, name: str, **status: Any) -> None:
        """Set fields of an object's status; an object that is gone stays gone."""
        with self.changed:
            item = self.objects[resource].get(name)
            if item is not None:
                item = copy.deepcopy(item)
                item.setdefault("status", {}).update(status)
                self.put(resource, item)

    def suspend(self, job: str, *, held: bool) -> None:
        """Write `spec.suspend` of a Job, as Kueue does: at its creation, and to take its place away."""
        with self.changed:
            item = copy.deepcopy(self.objects["jobs"][job])
            item["spec"]["suspend"] = held
            self.put("jobs", item)

    def remove(self, resource: str, name: str) -> bool:
        """Delete an object, its pods and what it owns."""
        with self.changed:
            item = self.objects[resource].pop(name, None)
            if item is None:
                return False
            self._version += 1
            item["metadata"]["resourceVersion"] = str(self._version)
            self._remember(resource, "DELETED", item)
            for kind in ("jobs", "pods"):
                for other in list(self.objects[kind].values()):
                    owners = [entry["uid"] for entry in other["metadata"].get("ownerReferences", [])]
                    if item["metadata"]["uid"] in owners:
                        self.remove(kind, other["metadata"]["name"])
            return True

    def compact(self, before: int | None = None) -> None:
        """Forget the history, all or what is older than a version: watches from there are answered with 410."""
        with self.changed:
            self._version += before is None
            self._oldest = self._version if before is None else before
            self._history = [entry for entry in self._history if entry[0] > self._oldest]

    def count(self, verb: str, resource: str) -> int:
        """Requests of a kind so far."""
        return sum(request.verb == verb and request.resource == resource for request in self.requests)

    def jobs(self) -> list[str]:
        """Names of the Jobs that are there."""
        with self.changed:
            return sorted(self.objects["jobs"])

    def _remember(self, resource: str, event: str, item: dict[str, Any]) -> None:
        self._history.append((self._version, resource, event, copy.deepcopy(item)))
        self.changed.notify_all()

    def snapshot(self, resource: str, query: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
        """A list and its version."""
        with self.changed:
            found = [copy.deepcopy(item) for item in self.objects[resource].values() if _selected(item, query)]
            return self._version, found

    def events_after(self, resource: str, version: int, query: dict[str, str]) -> list[tuple[int, str, dict[str, Any]]]:
        """What changed after a version; raises LookupError when that is forgotten."""
        with self.changed:
            if version < self._oldest:
                raise LookupError(f"too old resource version: {version} ({self._oldest})")
            return [
                (found, event, item)
                for found, kind, event, item in self._history
                if found > version and kind == resource and _selected(item, query)
            ]

    def take_fault(self, request: Request) -> Fault | None:
        """The fault that befalls this request, if any."""
        with self.changed:
            for fault in self.faults:
                if fault.times > 0 and fault.verb == request.verb and fault.resource == request.resource:
                    fault.times -= 1
                    return fault
            return None

    @property
    def version(self) -> int:
        """The newest resource version."""
        return self._version


def now() -> str:
    """The present as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _selected(item: dict[str, Any], query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    for part in filter(None, query.get("labelSelector", "").split(",")):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = part.partition("=")
        node: Any = item
        for key in path.split("."):
            node = node.get(key, {})
        if node != value:
            return False
    return True
