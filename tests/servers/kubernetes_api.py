"""A server that speaks the Kubernetes API's paths and semantics for what the orchestrator uses, with faults on demand.

Jobs, CronJobs, pods, pod logs and events of any namespace: get, list (label and field selectors), watch (resource
versions, bookmarks, timeoutSeconds, 410 as status or as event), create (409, dry run), delete with garbage collection.
"""

from __future__ import annotations

import copy
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml

TOKEN = "token-of-the-pipeline"
USER = "system:serviceaccount:alignment:pipeline"
KINDS = {"jobs": "Job", "cronjobs": "CronJob", "pods": "Pod", "events": "Event"}
GROUPS = {"jobs": "batch", "cronjobs": "batch", "pods": "", "events": ""}
_PATH = re.compile(r"/(?:api/v1|apis/batch/v1)/namespaces/([^/]+)/(jobs|cronjobs|pods|events)(?:/([^/]+))?(/log)?$")


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    verb: str
    resource: str
    name: str
    query: dict[str, str]
    at: float


@dataclass
class Fault:
    """Goes wrong `times` times for requests of this verb and resource.

    `action`: a status code; `drop` (no answer, nothing done), `drop-after` (done, no answer), `slow` (answers after
    `seconds`), `cut` (a watch that breaks inside a line), `end` (a watch that ends at once), `gone-event` (410 as an
    event of a watch).
    """

    verb: str
    resource: str
    action: int | str
    times: int = 1
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


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
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
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

    def compact(self) -> None:
        """Forget the history: watches from earlier versions are answered with 410."""
        with self.changed:
            self._history.clear()
            self._version += 1
            self._oldest = self._version

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


def status_body(code: int, reason: str, message: str) -> dict[str, Any]:
    """The API's `Status` of a failed request."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


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


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self._serve("get")

        def do_POST(self) -> None:
            self._serve("create")

        def do_DELETE(self) -> None:
            self._serve("delete")

        def _serve(self, verb: str) -> None:
            # The body is read before anything is answered, or the next request would begin inside it.
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlparse(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            match = _PATH.fullmatch(parts.path)
            if match is None:
                self._fail(404, "NotFound", "the server could not find the requested resource")
                return
            namespace, resource, name, log = match.groups()
            if verb == "get":
                verb = "watch" if query.get("watch") == "true" else "get" if name else "list"
            kind = "pods/log" if log else resource
            request = Request(verb, kind, name or "", query, time.monotonic())
            with api.changed:
                api.requests.append(request)
            api.on_request(request, "before")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._fail(401, "Unauthorized", "Unauthorized")
                return
            if (verb, kind) in api.forbidden:
                full = f"{kind}.{GROUPS[resource]}".rstrip(".")
                self._fail(
                    403,
                    "Forbidden",
                    f'{full} is forbidden: User "{USER}" cannot {verb} resource "{kind}" in API group '
                    f'"{GROUPS[resource]}" in the namespace "{namespace}"',
                )
                return
            fault = api.take_fault(request)
            if fault is not None and self._befall(fault):
                return
            try:
                getattr(self, f"_{verb}")(resource, name or "", log, query, body, fault)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            api.on_request(request, "after")

        def _befall(self, fault: Fault) -> bool:
            """Answer as the fault says; False to go on."""
            if fault.action == "drop":
                self._hang_up()
                return True
            if fault.action == "slow":
                time.sleep(fault.seconds)
            if isinstance(fault.action, int):
                reasons = {410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
                self._fail(fault.action, reasons.get(fault.action, "Failure"), "made fault", fault.headers)
                return True
            return False

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _get(self, resource, name, log, query, _body, _fault) -> None:
            item = api.objects[resource].get(name)
            if item is None:
                self._fail(404, "NotFound", f'{resource} "{name}" not found')
            elif log:
                self._log(item, query)
            else:
                self._answer(200, item)

        def _list(self, resource, _name, _log, query, _body, _fault) -> None:
            version, found = api.snapshot(resource, query)
            self._answer(
                200,
                {"kind": f"{KINDS[resource]}List", "metadata": {"resourceVersion": str(version)}, "items": found},
            )

        def _create(self, resource, _name, _log, query, body, fault) -> None:
            item = json.loads(body)
            if not item.get("spec", {}).get("template", {}).get("spec", {}).get("containers"):
                self._fail(422, "Invalid", "Job is invalid: spec.template.spec.containers: Required value")
                return
            with api.changed:
                if item["metadata"]["name"] in api.objects[resource]:
                    self._fail(409, "AlreadyExists", f'jobs.batch "{item["metadata"]["name"]}" already exists')
                    return
                if query.get("dryRun") != "All":
                    item["status"] = {}
                    item = api.put(resource, item)
                    api.on_create(copy.deepcopy(item))
            if fault is not None and fault.action == "drop-after":
                self._hang_up()
                return
            self._answer(201, item)

        def _delete(self, resource, name, _log, _query, _body, _fault) -> None:
            if api.remove(resource, name):
                self._answer(200, {"kind": "Status", "status": "Success"})
            else:
                self._fail(404, "NotFound", f'{resource} "{name}" not found')

        def _watch(self, resource, _name, _log, query, _body, fault) -> None:
            version = int(query.get("resourceVersion") or 0)
            deadline = time.monotonic() + float(query.get("timeoutSeconds", 300))
            self._begin_stream("application/json")
            if fault is not None and fault.action == "end":
                self._end_stream()
                return
            bookmark_at = time.monotonic() + api.bookmark_every_s
            while time.monotonic() < deadline and not api.stopping:
                with api.changed:
                    try:
                        if fault is not None and fault.action == "gone-event":
                            raise LookupError("too old resource version: made fault")
                        events = api.events_after(resource, version, query)
                    except LookupError as error:
                        self._event("ERROR", status_body(410, "Expired", str(error)))
                        break
                    if not events:
                        api.changed.wait(max(0.0, min(deadline, bookmark_at) - time.monotonic()))
                        if time.monotonic() < bookmark_at:
                            continue
                        version, bookmark_at = api.version, time.monotonic() + api.bookmark_every_s
                        if query.get("allowWatchBookmarks") == "true" and not api.events_after(
                            resource, version, query
                        ):
                            events = [(version, "BOOKMARK", {"metadata": {"resourceVersion": str(version)}})]
                for found, event, item in events:
                    if fault is not None and fault.action == "cut":
                        self._chunk(json.dumps({"type": event, "object": item}).encode()[:40])
                        self._hang_up()
                        return
                    self._event(event, item)
                    version = found
            self._end_stream()

        def _log(self, pod, query) -> None:
            name = pod["metadata"]["name"]
            if not api.logs.get(name) and not query.get("follow"):
                self._fail(400, "BadRequest", f'container "{query.get("container")}" in pod "{name}" is not running')
                return
            self._begin_stream("text/plain")
            lines = list(api.logs.get(name, []))
            if "tailLines" in query:
                lines = lines[-int(query["tailLines"]) :]
            sent = 0
            while True:
                for at, line in lines[sent:]:
                    if at >= query.get("sinceTime", ""):
                        self._chunk((f"{at} {line}\n" if query.get("timestamps") else f"{line}\n").encode())
                    sent += 1
                current = api.objects["pods"].get(name)
                ended = current is None or current["status"].get("phase") in {"Succeeded", "Failed"}
                if not query.get("follow") or api.stopping or (ended and sent == len(api.logs.get(name, []))):
                    break
                if api.take_fault(Request("follow", "pods/log", name, query, 0.0)) is not None:
                    self._hang_up()
                    return
                time.sleep(0.02)
                lines = list(api.logs.get(name, []))
            self._end_stream()

        def _event(self, event: str, item: dict[str, Any]) -> None:
            self._chunk(json.dumps({"type": event, "object": item}).encode() + b"\n")

        def _begin_stream(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()

        def _chunk(self, content: bytes) -> None:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()

        def _end_stream(self) -> None:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

        def _fail(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
            self._answer(code, status_body(code, reason, message), headers)

        def _answer(self, code: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler
