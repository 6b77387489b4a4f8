"""One bucket: small objects, listings, and making it when it is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.logs import get_logger
from pipeline_common.s3.failures import MISSING, error_code
from pipeline_common.s3.transfer import Transfers

if TYPE_CHECKING:
    from pipeline_common.config import ArtifactsConfig

_DEFAULT_REGIONS: Final = frozenset({None, "us-east-1", "aws-global"})
# Answers of servers that do not list unfinished uploads, or (rclone) have none to list.
_NOTHING_TO_ABORT: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "NoSuchUpload"})
_log = get_logger(__name__)


class Bucket:
    """A bucket of any S3-compatible server. Every method waits out outages and raises errors of the pipeline."""

    def __init__(self, name: str, prefix: str, settings: ArtifactsConfig) -> None:
        self.name = name
        self._prefix = prefix
        self._settings = settings
        self.transfers = Transfers(name, settings)
        self._seen = False

    def put(self, key: str, content: bytes) -> None:
        """Write one small object; the bucket is made first, if it is missing and may be made."""
        self.require()
        self.transfers.request("write", key, lambda client: client.put_object(Bucket=self.name, Key=key, Body=content))

    def get(self, key: str) -> bytes | None:
        """One small object; None when absent."""

        def read(client: Any) -> bytes:
            content: bytes = client.get_object(Bucket=self.name, Key=key)["Body"].read()
            return content

        found: bytes | None = self._unless_missing("read", key, read, None)
        return found

    def delete(self, key: str) -> None:
        """Remove an object; absent is fine."""
        self._unless_missing("delete", key, lambda client: client.delete_object(Bucket=self.name, Key=key), None)

    def list_objects(self, folder: str) -> dict[str, dict[str, Any]]:
        """Objects below `folder` (which ends in a slash): path in it -> size, ETag, time."""

        def read(client: Any) -> dict[str, dict[str, Any]]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=folder)
            return {item["Key"].removeprefix(folder): item for page in pages for item in page.get("Contents", [])}

        found: dict[str, dict[str, Any]] = self._unless_missing("list", folder, read, {})
        return found

    def abort_uploads(self, folder: str) -> None:
        """End large uploads that a killed attempt began: their parts are kept, and paid for, until someone does."""
        from botocore.exceptions import ClientError

        def abort(client: Any) -> None:
            try:
                uploads = client.list_multipart_uploads(Bucket=self.name, Prefix=folder).get("Uploads", [])
            except ClientError as error:
                if error_code(error) in _NOTHING_TO_ABORT:
                    return
                raise
            for upload in uploads:
                # Some servers list more than the prefix asked for.
                if upload["Key"].startswith(folder):
                    client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])

        self._unless_missing("list", folder, abort, None)

    def require(self) -> None:
        """Before a write: make the bucket, if it is missing and may be made."""
        from botocore.exceptions import ClientError

        if self._seen or not self._settings.create_bucket:
            return

        def probe(client: Any) -> Any:
            return client.list_objects_v2(Bucket=self.name, Prefix=self._prefix, MaxKeys=1)

        try:
            self.transfers.request("list", self._prefix, probe, passing=("NoSuchBucket",))
        except ClientError:
            region = self.transfers.client.meta.region_name
            where = {} if region in _DEFAULT_REGIONS else {"LocationConstraint": region}
            settings = {"CreateBucketConfiguration": where} if where else {}
            self.transfers.request(
                "create the bucket", "", lambda client: client.create_bucket(Bucket=self.name, **settings)
            )
            _log.warning("made the bucket %s, which was missing", self.name)
        self._seen = True

    def _unless_missing(self, what: str, key: str, work: Callable[[Any], Any], nothing: Any) -> Any:
        """The result of `work`; `nothing` when there is no such object, or no bucket yet and it may be made."""
        from botocore.exceptions import ClientError

        passing = {*MISSING, *(["NoSuchBucket"] if self._settings.create_bucket else [])}
        try:
            return self.transfers.request(what, key, work, passing)
        except ClientError:
            return nothing
