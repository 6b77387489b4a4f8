"""Fetching a data file from a bucket: `s3://bucket/key`, on any S3-compatible server.

Keys and endpoint come from the environment, as for artifacts: see `pipeline_common/s3/client.py`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Final

from pipeline_common.config import ArtifactsConfig
from pipeline_common.errors import InputError, TransientError
from pipeline_common.s3.client import make_client
from pipeline_common.sources import sha256_of

_REFUSED: Final = frozenset({401, 403})
_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchBucket"})


def download(reference: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Fetch one object into a folder.

    Args:
        reference: `s3://bucket/key`.
        folder: made if needed; an earlier download of that name is replaced.

    Returns:
        The local file, and what identifies it: ETag, version, sha256, bytes.

    Raises:
        InputError: no such bucket or key, no keys to ask with, or keys that may not read it.
        TransientError: the server cannot be reached, or failed.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    bucket, key = _split(reference)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / PurePosixPath(key).name
    partial = target.with_name(f"{target.name}.partial")
    try:
        client = make_client(ArtifactsConfig())
        answer = client.get_object(Bucket=bucket, Key=key)
        with partial.open("wb") as sink:
            for chunk in answer["Body"].iter_chunks(1 << 20):
                sink.write(chunk)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise InputError(f"{reference}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except ClientError as error:
        raise _explain(reference, error.response) from error
    except BotoCoreError as error:
        raise TransientError(
            f"{reference}: the bucket's server did not answer ({error}); check AWS_ENDPOINT_URL_S3 and the network, "
            "then run again"
        ) from error
    partial.replace(target)
    facts = {"sha256": sha256_of(target), "bytes": target.stat().st_size, "etag": str(answer["ETag"]).strip('"')}
    return target, facts | ({"version": answer["VersionId"]} if answer.get("VersionId") else {})


def _split(reference: str) -> tuple[str, str]:
    # No URL: a key may hold ? and #, and what stands behind them is a part of its name.
    bucket, _, path = reference.removeprefix("s3://").partition("/")
    key = path.lstrip("/")
    if not bucket or not key or key.endswith("/"):
        raise InputError(f"{reference}: expected s3://bucket/path/to/file.parquet")
    return bucket, key


def _explain(reference: str, response: dict[str, Any]) -> InputError | TransientError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING or status == 404:
        what = "bucket" if code == "NoSuchBucket" else "object"
        return InputError(
            f"{reference}: no such {what}; check the name, and AWS_ENDPOINT_URL_S3 if it is not AWS's own S3"
        )
    if status in _REFUSED:
        return InputError(
            f"{reference}: refused ({code or status}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that "
            "they may read this object"
        )
    message = f"{reference}: the bucket's server answered {status} {code}"
    return TransientError(f"{message}; run again later") if status >= 500 else InputError(message)
