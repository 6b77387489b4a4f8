"""Requests to a cluster's API server: retries while it is away or overloaded, refusals in a person's words.

The `kubernetes` client finds the cluster and signs the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from jobs.pipeline.cluster.connection import Connection
from pipeline_common.errors import ConfigError, InputError, PipelineError, TransientError
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from tenacity import RetryCallState

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
_RETRIED: Final = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_log = get_logger(__name__)


class ApiError(PipelineError):
    """The API server answered, and said no."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class Transport:
    """The way to one API server.

    Args:
        connection: the cluster.
        patience_s: how long an API server that is away or overloaded is asked again before that is an error.
    """

    def __init__(self, connection: Connection, patience_s: float) -> None:
        self._connection = connection
        self.host = connection.client.configuration.host
        self._namespace = connection.namespace
        self._patience_s = patience_s

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        *,
        stream: bool = False,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """One request, again while the server is away or overloaded.

        Args:
            method: GET, POST or DELETE.
            path: below the server's address.
            query: parameters of the URL.
            body: sent as JSON.
            stream: whether the answer is read by the caller, as it comes.
            read_timeout_s: longest silence of the server.

        Returns:
            A urllib3 response.

        Raises:
            TransientError: the server is away or overloaded for longer than our patience.
            ConfigError: credentials or rights are missing.
            InputError: a quota of the namespace is used up.
            ApiError: any other answer that is no.
        """
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
                f"the API server {self.host} (context {self._connection.name}) does not answer: {_short(error)}"
            ) from error
        except ApiError as error:
            if error.status in _RETRIED:
                raise TransientError(
                    f"the API server {self.host} answers {error.status} {error.reason} for more than "
                    f"{self._patience_s:.0f} s: {error}"
                ) from error
            if "exceeded quota" in str(error):
                raise InputError(
                    f"a quota of namespace {self._namespace} is used up: {error}; remove finished Jobs, or raise it"
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
        client = self._connection.client
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
                f"the API server {self.host} does not accept the credentials of {self._connection.name} (401): log in "
                "again, or check that the pod's service account exists and mounts its token"
            )
        verb = {"POST": "create", "DELETE": "delete"}.get(method)
        if verb is None:
            verb = "watch" if "watch" in query else "get" if _names_one(path) else "list"
        resource = path.split(f"/namespaces/{self._namespace}/")[1].split("/")
        wanted = "pods/log" if resource[-1] == "log" else resource[0]
        return (
            f"{verb} {wanted} in namespace {self._namespace} is refused (403): {error}. In the cluster: apply the "
            "Role and RoleBinding `pipeline` again (kubectl apply -f k8s/pipeline.yaml); from outside: ask for a role "
            f"with this right (kubectl auth can-i {verb} {wanted} -n {self._namespace})"
        )


def stream_lines(response: Any) -> Iterator[str]:
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


def _names_one(path: str) -> bool:
    """Whether a path below a namespace names a single object and not a collection."""
    return len(path.split("/namespaces/")[1].strip("/").split("/")) > 2


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
