"""The one place that makes S3 clients.

Keys, region, endpoint and certificates come from the environment by their usual names (`AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3`, `AWS_CA_BUNDLE`), from profiles, or
from the machine's role, in boto3's own order.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    from pipeline_common.config import ArtifactsConfig

# For a request that is refused or lost now and then; an outage is waited out by `Patience`.
ATTEMPTS: Final = 3
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def make_client(settings: ArtifactsConfig, connections: int = 10) -> Any:
    """An S3 client that every S3-compatible server understands; nothing is sent yet.

    Args:
        settings: time-outs.
        connections: how many requests may be under way at once.

    Raises:
        ConfigError: a profile, an endpoint or a certificate bundle that cannot be used.
    """
    _check_endpoint()
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # Path-style addresses and no checksums beyond the required ones: servers differ in the rest.
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=connections,
    )
    try:
        # A session of its own: the default one would keep the keys of an earlier call.
        return boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"no S3 client can be made: {error}; check AWS_PROFILE, AWS_ENDPOINT_URL_S3 and ~/.aws/config"
        ) from error


def _check_endpoint() -> None:
    """Refuse an endpoint that carries keys: it would be shown in messages.

    Raises:
        ConfigError: naming the variable, never its value.
    """
    for name in _ENDPOINTS:
        if "@" in urlsplit(os.environ.get(name, "")).netloc:
            raise ConfigError(
                f"{name} holds credentials; give the address alone and put the keys into AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
