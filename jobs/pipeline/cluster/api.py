"""A cluster's API: what can be asked of one namespace, and one short watch.

Objects stay the API's own JSON: the `kubernetes` client's generated models would cost the orchestrator memory and
start-up time, and would hide fields that they do not know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from jobs.pipeline.cluster.connection import Connection
from jobs.pipeline.cluster.transport import CONNECT_TIMEOUT_S, ApiError, Transport, stream_lines
from pipeline_common.errors import PipelineError
from pipeline_common.logs import get_logger

Json = dict[str, Any]
_BATCH: Final = "/apis/batch/v1"
_CORE: Final = "/api/v1"
_GROUPS: Final = {
    **dict.fromkeys(("jobs", "cronjobs"), _BATCH),
    **dict.fromkeys(("pods", "events", "configmaps", "persistentvolumeclaims"), _CORE),
}
_log = get_logger(__name__)


class WatchExpiredError(PipelineError):
    """The resource version is too old to watch from: list again."""


class ClusterApi:
    """Requests to one namespace.

    Args:
        connection: the cluster.
        patience_s: how long an API server that is away or overloaded is asked again before that is an error.
    """

    def __init__(self, connection: Connection, patience_s: float = 300.0) -> None:
        self.connection = connection
        self.namespace = connection.namespace
        self._transport = Transport(connection, patience_s)
        self.host = self._transport.host

    def get(self, resource: str, name: str) -> Json | None:
        """One object; None when there is none of that name."""
        return self._unless_missing("GET", self._path(resource, name))

    def list(self, resource: str, **selectors: str) -> Json:
        """A list as the API gives it: `items` and `metadata.resourceVersion`."""
        return self._ask("GET", self._path(resource), selectors)

    def create(self, resource: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        """Create an object.

        Raises:
            ApiError: 409 when its name is taken.
        """
        return self._ask("POST", self._path(resource), {"dryRun": "All"} if dry_run else {}, body)

    def delete(self, resource: str, name: str) -> None:
        """Delete an object and, in the background, what it owns; absent is fine."""
        self._unless_missing("DELETE", self._path(resource, name), {"propagationPolicy": "Background"})

    def read_log(self, pod: str, container: str, *, tail_lines: int) -> tuple[str, ...]:
        """The last lines of a container; none when the pod or its log is gone."""
        query = {"container": container, "tailLines": str(tail_lines)}
        try:
            text = self._transport.send("GET", self._path("pods", f"{pod}/log"), query).data.decode("utf-8", "replace")
        except ApiError as error:
            if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
                return ()
            raise
        return tuple(text.splitlines())

    def follow_log(self, pod: str, container: str, since: str | None) -> Iterator[str]:
        """Lines with their time stamps, from `since` (RFC 3339) on, until the connection or the container ends."""
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        response = self._transport.send(
            "GET", self._path("pods", f"{pod}/log"), query, stream=True, read_timeout_s=60.0
        )
        yield from stream_lines(response)

    def watch(self, resource: str, version: str, timeout_s: float, **selectors: str) -> Iterator[tuple[str, Json]]:
        """Changes after `version`, until `timeout_s` have passed or the connection ends, whichever is first.

        Bookmarks are passed on as events of their own; the caller keeps the newest version from every event.

        Raises:
            WatchExpiredError: the version is gone (410), as status or as an event.
        """
        query = {
            **selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        # A server or a proxy that has forgotten us must not hold us for ever: our own clock ends it too.
        deadline = time.monotonic() + timeout_s + CONNECT_TIMEOUT_S
        try:
            response = self._transport.send(
                "GET", self._path(resource), query, stream=True, read_timeout_s=timeout_s + CONNECT_TIMEOUT_S
            )
        except ApiError as error:
            if error.status == HTTPStatus.GONE:
                raise WatchExpiredError(str(error)) from error
            raise
        for line in stream_lines(response):
            try:
                event = json.loads(line)
            except ValueError:
                return  # Cut in the middle of a line: what it would have said, the next list says.
            if event["type"] == "ERROR":
                if event["object"].get("code") == HTTPStatus.GONE:
                    raise WatchExpiredError(event["object"].get("message", "the resource version is too old"))
                _log.debug("watch: %s", event["object"])
                return
            yield event["type"], event["object"]
            if time.monotonic() > deadline:
                return

    def _path(self, resource: str, name: str = "") -> str:
        return f"{_GROUPS[resource]}/namespaces/{self.namespace}/{resource}{f'/{name}' if name else ''}"

    def _unless_missing(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Json | None:
        try:
            return self._ask(method, path, query or {})
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer: Json = json.loads(self._transport.send(method, path, query, body).data)
        return answer
