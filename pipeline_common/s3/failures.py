"""What went wrong with a bucket, in a person's words and with the right exit code.

Messages hold the server's error code and status, never its text: some servers repeat parts of a signed request in it.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline_common.errors import ConfigError, InputError, PipelineError, TransientError

MISSING: Final = frozenset({"404", "NoSuchKey"})
_TRANSIENT_CODES: Final = frozenset(
    {
        *("RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException"),
        *("TooManyRequests", "RequestLimitExceeded", "PriorRequestNotComplete", "OperationAborted"),
        # The parts are gone, as after a restart of a server that keeps them in memory: all is sent again.
        *("NoSuchUpload", "InternalError", "ServiceUnavailable"),
    }
)
_TRANSIENT_STATUS: Final = frozenset({408, 429})
_EXPIRED: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"})


def error_code(error: BaseException) -> str:
    """The server's error code (`AccessDenied`, `404`); empty when no server answered."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """True when the same request may succeed later: the server is away, busy or broken."""
    from botocore.exceptions import (
        ClientError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
        SSLError,
    )
    from botocore.exceptions import ConnectionError as NotConnectedError
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError
    from urllib3.exceptions import HTTPError

    if isinstance(error, RetriesExceededError):
        return is_transient(error.last_exception)
    if isinstance(error, ClientError):
        return error_code(error) in _TRANSIENT_CODES or _status(error) in _TRANSIENT_STATUS or _status(error) >= 500
    if isinstance(error, SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    # S3DownloadFailedError: the object was replaced while it was read.
    lost = (
        NotConnectedError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
        S3DownloadFailedError,
        HTTPError,
    )
    return isinstance(error, (*lost, ConnectionError, TimeoutError))


def explain_failure(error: BaseException, where: str, what: str) -> BaseException:
    """The error to raise instead of one of boto3's; others unchanged.

    Args:
        error: what was caught.
        where: the bucket and object, `s3://bucket/key`.
        what: what was tried, as a verb: read, write, list.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError, SSLError

    if isinstance(error, PipelineError):
        return error
    if is_transient(error):
        return TransientError(
            f"{where}: the bucket's server is away ({_name(error)}); check AWS_ENDPOINT_URL_S3 and the network, then "
            "run again"
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ConfigError(
            f"{where}: no complete credentials ({_name(error)}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or run where a role gives them"
        )
    if isinstance(error, SSLError):
        return ConfigError(
            f"{where}: the server's certificate is not trusted; set AWS_CA_BUNDLE to the file of the authority that "
            "signed it"
        )
    if isinstance(error, ClientError):
        return _explain_answer(error, where, what)
    if isinstance(error, BotoCoreError):
        return ConfigError(f"{where}: {error}; check the AWS_ variables and ~/.aws/config")
    return error


def _explain_answer(error: Any, where: str, what: str) -> PipelineError:
    code, status = error_code(error), _status(error)
    if code == "NoSuchBucket":
        return ConfigError(
            f"{where}: there is no such bucket; create it, set artifacts.create_bucket=true, or check ARTIFACTS_URI "
            "and AWS_ENDPOINT_URL_S3"
        )
    if code == "RequestTimeTooSkewed":
        return ConfigError(f"{where}: this machine's clock and the server's differ too much ({code}); set the clock")
    if code in _EXPIRED:
        return ConfigError(f"{where}: the credentials have expired ({code}); fetch new ones and run again")
    if status == 400 and code == "AccessDenied":
        # What `rclone serve s3` says of a signature made an hour ago.
        return ConfigError(
            f"{where}: may not {what} ({status} {code}); the server may take the request's time for long past: set the "
            "clock; else check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if status in {401, 403}:
        return ConfigError(
            f"{where}: may not {what} ({code or status}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that "
            f"the bucket's policy lets them {what} here"
        )
    if code in MISSING or status == 404:
        return InputError(f"{where}: there is no such object")
    return ConfigError(f"{where}: the server refused to {what} ({status} {code})")


def _status(error: BaseException) -> int:
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _name(error: BaseException) -> str:
    """The code a server gave, else the class of the failure: its text may hold an address with anything in it."""
    inner = getattr(error, "last_exception", error)
    return f"{_status(inner)} {error_code(inner)}".strip() if error_code(inner) else type(inner).__name__
