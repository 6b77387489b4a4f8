"""python -m jobs.pipeline.dev_secret: random credentials for the services of a namespace, where there are none yet.

One Secret, `services-credentials`, is made first and in one request; the others are derived from it. So this may be
killed anywhere and started again, or run twice at once, and the passwords the servers know stay the ones the pipeline
is given. A Secret that exists is left as it is, so that your own bucket or database stays chosen.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from typing import Any, Final

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pipeline_common.cli import guard
from pipeline_common.errors import ConfigError, TransientError

CREDENTIALS: Final = "services-credentials"
_LABELS: Final = {"app.kubernetes.io/name": "alignment-pipeline", "app.kubernetes.io/component": "dev-secret"}
_REQUEST_TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 6


def make_credentials() -> dict[str, str]:
    """A name for the bucket's user, and 256 random bits for each password; letters, digits, - and _ only."""
    passwords = ("bucket-password", "database-password", "database-owner-password", "database-writer-password")
    return {
        "bucket-user": f"alignment-{secrets.token_hex(4)}",
        **{name: secrets.token_urlsafe(32) for name in passwords},
    }


def derive_secrets(credentials: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The Secrets the pipeline reads, for the services `bucket` and `database` of its own namespace."""

    def database_url(role: str) -> str:
        return f"postgresql+psycopg2://pipeline_{role}:{credentials[f'database-{role}-password']}@database:5432/results"

    return {
        "pipeline-storage": {
            "ARTIFACTS_URI": "s3://alignment/artifacts",
            "AWS_ENDPOINT_URL_S3": "http://bucket:9000",
            "AWS_ACCESS_KEY_ID": credentials["bucket-user"],
            "AWS_SECRET_ACCESS_KEY": credentials["bucket-password"],
            "DATABASE_URL": database_url("writer"),
        },
        "pipeline-database-owner": {"DATABASE_URL": database_url("owner")},
    }


def ensure_secrets(api: Any, namespace: str) -> dict[str, bool]:
    """Create what is missing.

    Args:
        api: a `kubernetes.client.CoreV1Api`.
        namespace: where.

    Returns:
        Secret -> whether this call created it.

    Raises:
        ConfigError: the API refuses (401, 403, 404), or the credentials there are not ours.
        TransientError: the API did not answer, several times.
    """
    credentials = make_credentials()
    made = {CREDENTIALS: _create(api, namespace, CREDENTIALS, credentials)}
    if not made[CREDENTIALS]:
        credentials = _read(api, namespace, expected=set(credentials))
    for name, values in derive_secrets(credentials).items():
        made[name] = _create(api, namespace, name, values)
    return made


def main() -> int:
    """Ensure the Secrets of `POD_NAMESPACE`; say which were made, never what is in them."""

    def work() -> int:
        namespace = os.environ.get("POD_NAMESPACE", "alignment")
        for name, made in ensure_secrets(_connect(), namespace).items():
            sys.stdout.write(f"dev-secret   {name}: {'created' if made else 'exists, left as it is'}\n")
        return 0

    return guard("dev-secret", work)


def _connect() -> Any:
    """The API: the pod's own account inside a cluster, the current context of KUBECONFIG outside."""
    from kubernetes import client, config

    from jobs.pipeline.cluster.connection import UNREADABLE, explain_kubeconfig

    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config()
        else:
            config.load_kube_config()
    except config.ConfigException as error:
        raise ConfigError(f"no Kubernetes API to speak to: {error}; set KUBECONFIG, or run this in a pod") from error
    except UNREADABLE as error:
        raise ConfigError(explain_kubeconfig(error)) from error
    return client.CoreV1Api()


def _create(api: Any, namespace: str, name: str, values: Mapping[str, str]) -> bool:
    """True when the Secret was created now, False when there was one."""
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": _LABELS},
        "type": "Opaque",
        "stringData": dict(values),
    }
    created: bool = _ask(
        f"create the Secret {name}",
        lambda: api.create_namespaced_secret(namespace, body, _request_timeout=_REQUEST_TIMEOUT_S) is not None,
        conflict=False,
    )
    return created


def _read(api: Any, namespace: str, expected: set[str]) -> dict[str, str]:
    found = _ask(
        f"read the Secret {CREDENTIALS}",
        lambda: api.read_namespaced_secret(CREDENTIALS, namespace, _request_timeout=_REQUEST_TIMEOUT_S).data or {},
    )
    missing = sorted(expected - set(found))
    if missing:
        raise ConfigError(
            f"the Secret {CREDENTIALS} lacks {', '.join(missing)}; someone else made it. Delete it and the volumes of "
            "bucket and database for a fresh start, or add what is missing"
        )
    return {key: base64.b64decode(value).decode() for key, value in found.items()}


def _ask(what: str, request: Any, **conflict: Any) -> Any:
    """Ask the API, several times where that may help; `conflict` is the answer when it says 409."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    def once() -> Any:
        try:
            return request()
        except ApiException as error:
            if error.status == 409 and "conflict" in conflict:
                return conflict["conflict"]
            if error.status in {401, 403, 404}:
                raise ConfigError(
                    f"the API refused to {what}: {error.status} {error.reason}; this needs the Role `dev-secret` and "
                    "the namespace of k8s/services.yaml"
                ) from error
            raise TransientError(f"the API could not {what}: {error.status} {error.reason}") from error
        except HTTPError as error:
            raise TransientError(f"no answer from the API, asked to {what}: {error}") from error

    for attempt in Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    ):
        with attempt:
            answer = once()
    return answer


if __name__ == "__main__":
    raise SystemExit(main())
