"""A cluster's API: requests with retries, errors in a person's words, and one short watch.

The `kubernetes` client finds the cluster and signs the requests; objects stay the API's own JSON. Its generated models
would cost the orchestrator memory and start-up time, and would hide fields that they do not know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from jobs.pipeline.cluster.connection import Connection
from pipeline_common.errors import ConfigError, InputError, PipelineError, TransientError
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from tenacity import RetryCallState

Json = dict[str, Any]
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
_RETRIED: Final = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_BATCH: Final = "/apis/batch/v1"
_CORE: Final = "/api/v1"
_GROUPS: Final = {
    **dict.fromkeys(("jobs", "cronjobs"), _BATCH),
    **dict.fromkeys(("pods", "events", "configmaps", "persistentvolumeclaims"), _CORE),
}
_log = get_logger(__name__)


class ApiError(PipelineError):
    """The API server answered, and said no."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


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
        self.host = connection.client.configuration.host
        self._patience_s = patience_s

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
            text = self._send("GET", self._path("pods", f"{pod}/log"), query).data.decode("utf-8", "replace")
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
        response = self._send("GET", self._path("pods", f"{pod}/log"), query, stream=True, read_timeout_s=60.0)
        yield from _lines(response)

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
            response = self._send(
                "GET", self._path(resource), query, stream=True, read_timeout_s=timeout_s + CONNECT_TIMEOUT_S
            )
        except ApiError as error:
            if error.status == HTTPStatus.GONE:
                raise WatchExpiredError(str(error)) from error
            raise
        for line in _lines(response):
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
        answer: Json = json.loads(self._send(method, path, query, body).data)
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        *,
        stream: bool = False,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """One request, again while the server is away or overloaded; a urllib3 response."""
        import tenacity
        from urllib3.exceptions import HTTPError

        def transient(error: BaseException) -> bool:
            return isinstance(error, HTTPError) or (isinstance(error, ApiError) and error.status in _RETRIED)

        pause = tenacity.wait_random_exponential(multiplier=0.25, max=20)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after_s if isinstance(error, ApiError) else 0.0
            return max(asked, pause(state))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(transient),
            wait=wait,
            stop=tenacity.stop_after_delay(self._patience_s),
            before_sleep=lambda state: _log.debug("asking again: %s", state.outcome and state.outcome.exception()),
            reraise=True,
        )
        try:
            return retrying(self._send_once, method, path, query, body, stream=stream, read_timeout_s=read_timeout_s)
        except HTTPError as error:
            raise TransientError(
                f"the API server {self.host} (context {self.connection.name}) does not answer: {_short(error)}"
            ) from error
        except ApiError as error:
            if error.status in _RETRIED:
                raise TransientError(
                    f"the API server {self.host} answers {error.status} {error.reason} for more than "
                    f"{self._patience_s:.0f} s: {error}"
                ) from error
            if "exceeded quota" in str(error):
                raise InputError(
                    f"a quota of namespace {self.namespace} is used up: {error}; remove finished Jobs, or raise it"
                ) from error
            if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise ConfigError(self._explain_refusal(error, method, path, query)) from error
            raise

    def _send_once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        *,
        stream: bool,
        read_timeout_s: float,
    ) -> Any:
        client = self.connection.client
        request = client.param_serialize(
            method=method,
            resource_path=path,
            query_params=list(query.items()),
            header_params={"Accept": "*/*" if path.endswith("/log") else "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        response = client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT_S, read_timeout_s)).response
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _api_error(response)
        if not stream:
            # Read it here, so that a connection that breaks in the middle is asked again too.
            assert response.data is not None
        return response

    def _explain_refusal(self, error: ApiError, method: str, path: str, query: Mapping[str, str]) -> str:
        if error.status == HTTPStatus.UNAUTHORIZED:
            return (
                f"the API server {self.host} does not accept the credentials of {self.connection.name} (401): log in "
                "again, or check that the pod's service account exists and mounts its token"
            )
        verb = {"POST": "create", "DELETE": "delete"}.get(method)
        if verb is None:
            verb = "watch" if "watch" in query else "get" if _names_one(path) else "list"
        resource = path.split(f"/namespaces/{self.namespace}/")[1].split("/")
        wanted = "pods/log" if resource[-1] == "log" else resource[0]
        return (
            f"{verb} {wanted} in namespace {self.namespace} is refused (403): {error}. In the cluster: apply the "
            "Role and RoleBinding `pipeline` again (kubectl apply -f k8s/pipeline.yaml); from outside: ask for a role "
            f"with this right (kubectl auth can-i {verb} {wanted} -n {self.namespace})"
        )


def _names_one(path: str) -> bool:
    """Whether a path below a namespace names a single object and not a collection."""
    return len(path.split("/namespaces/")[1].strip("/").split("/")) > 2


def _lines(response: Any) -> Iterator[str]:
    """Lines of a streamed response until it ends, however it ends; a last line without its end comes too."""
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        for chunk in response.stream(amt=None, decode_content=True):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
    except HTTPError as error:
        _log.debug("the stream ended: %s", error)
    finally:
        # Closed and not returned to the pool: unread bytes of this answer would be the next one's.
        response.close()
    if rest:
        yield rest.decode("utf-8", "replace")


def _api_error(response: Any) -> ApiError:
    text = response.data.decode("utf-8", "replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text.strip()[:300]}
    seconds = response.headers.get("Retry-After", "")
    return ApiError(
        response.status,
        status.get("reason") or response.reason or "",
        status.get("message") or f"HTTP {response.status}",
        float(seconds) if seconds.isdigit() else 0.0,
    )


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:300]
