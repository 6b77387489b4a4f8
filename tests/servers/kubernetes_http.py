"""The HTTP side of the made Kubernetes API: paths, verbs, watches and logs, and the faults."""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlparse

from tests.servers.kubernetes_answers import Answers, status_body

if TYPE_CHECKING:
    from tests.servers.kubernetes_api import KubernetesApi

TOKEN = "token-of-the-pipeline"
USER = "system:serviceaccount:alignment:pipeline"
KINDS = {"jobs": "Job", "cronjobs": "CronJob", "pods": "Pod", "events": "Event", "configmaps": "ConfigMap"}
KINDS["persistentvolumeclaims"] = "PersistentVolumeClaim"
GROUPS = dict.fromkeys(KINDS, "") | {"jobs": "batch", "cronjobs": "batch"}
_PATH = re.compile(rf"/(?:api/v1|apis/batch/v1)/namespaces/([^/]+)/({'|'.join(KINDS)})(?:/([^/]+))?(/log)?$")


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
    message: str = "made fault"
    headers: dict[str, str] = field(default_factory=dict)


def make_handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(Answers):
        def do_GET(self) -> None:
            self._serve("get")

        def do_POST(self) -> None:
            self._serve("create")

        def do_DELETE(self) -> None:
            self._serve("delete")

        def do_PUT(self) -> None:
            self._serve("update")

        def do_PATCH(self) -> None:
            self._serve("patch")

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
                reasons = {
                    403: "Forbidden",
                    410: "Expired",
                    429: "TooManyRequests",
                    500: "InternalError",
                    503: "ServiceUnavailable",
                }
                self._fail(fault.action, reasons.get(fault.action, "Failure"), fault.message, fault.headers)
                return True
            return False

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
                    if not events and time.monotonic() < min(deadline, bookmark_at):
                        api.changed.wait(min(deadline, bookmark_at) - time.monotonic())
                        continue
                    if not events:
                        # Nothing of this resource is newer, so the newest version of all is as good.
                        version, bookmark_at = api.version, time.monotonic() + api.bookmark_every_s
                        if query.get("allowWatchBookmarks") == "true":
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

        def _update(self, resource, _name, _log, _query, _body, _fault) -> None:
            # Nobody here may change an object: what is made stays as it was made.
            self._fail(405, "MethodNotAllowed", f"{resource} are not changed through this server")

        _patch = _update

    return Handler
