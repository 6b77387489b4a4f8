"""Moving objects in parallel: boto3's transfer manager for large ones, single requests for small ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.errors import InputError
from pipeline_common.s3.client import make_client
from pipeline_common.s3.direct_parts import DirectClient
from pipeline_common.s3.failures import MISSING, error_code, explain_failure
from pipeline_common.s3.patience import Patience
from pipeline_common.s3.verified_sink import VerifiedSink

if TYPE_CHECKING:
    from pipeline_common.config import ArtifactsConfig

PART_BYTES: Final = 32 << 20
# Up to here an object is one request with its content in memory.
SMALL_BYTES: Final = 1 << 20
# So many at once keep all requests busy, and each is verified while the next ones arrive.
_LARGE_AT_ONCE: Final = 3
# The manager hands over a part in so large steps (see `direct_parts`: lengths, not bytes).
_IO_BYTES: Final = 8 << 20
_IO_QUEUE: Final = 32
# s3transfer queues an object's parts from within its own workers: a full queue would stop them all.
_REQUEST_QUEUE: Final = 1_000_000

Report = Callable[[int], None]
"""Takes the bytes moved since the last call; negative when they were lost."""


@dataclass(frozen=True)
class Upload:
    """One object to write: a large file by its path, or what `content` makes."""

    key: str
    size: int
    file: Path
    content: Callable[[], bytes]

    @property
    def large(self) -> bool:
        """Too large for memory."""
        return self.size > SMALL_BYTES and self.file.is_file()


@dataclass(frozen=True)
class Arrived:
    """A file as it lies on the disk."""

    file: Path
    sha256: str


@dataclass(frozen=True)
class Download:
    """One object to read, and what becomes of it."""

    key: str
    size: int
    take: Callable[[bytes | Arrived], str | None]
    """Gets the content, or for a large one where it lies; says what is wrong with it, if anything."""
    absent: str
    """What to say when there is no such object."""
    partial: Path
    """Where a large one is written first."""
    large: bool


class Transfers:
    """The requests of one process to one bucket."""

    def __init__(self, bucket: str, settings: ArtifactsConfig) -> None:
        self.bucket = bucket
        self._settings = settings
        self._patience = Patience(settings.give_up_after_s)
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The S3 client, made when it is first needed."""
        if self._client is None:
            # Single requests and the transfer manager's parts may be under way together.
            self._client = make_client(self._settings, 2 * self._settings.transfers)
        return self._client

    def request(self, what: str, key: str, work: Callable[[Any], Any], passing: Collection[str] = ()) -> Any:
        """One request, made again while the server is away.

        Args:
            what: read, write, list ... for the message.
            key: the object, for the message.
            work: takes the client.
            passing: error codes whose `ClientError` the caller handles.

        Raises:
            PipelineError: see `explain_failure`.
        """
        from botocore.exceptions import ClientError

        client = self.client
        with self._explaining(what, key):
            try:
                return self._patience.call(lambda: work(client))
            except ClientError as error:
                if error_code(error) not in passing:
                    raise
                passed = error
        raise passed

    def upload(self, objects: Sequence[Upload], report: Report) -> None:
        """Write objects, several at once.

        Raises:
            PipelineError: the first that failed; the others are cancelled.
        """

        def send(item: Upload, manager: Any) -> None:
            with self._explaining("write", item.key):
                self._patience.call(lambda: self._send(item, manager, report))

        self._run(send, objects)

    def download(self, objects: Sequence[Download], report: Report) -> None:
        """Read objects, several at once.

        Raises:
            PipelineError: the first that failed; the others are cancelled.
        """

        def receive(item: Download, manager: Any) -> None:
            with self._explaining("read", item.key):
                self._patience.call(lambda: self._receive(item, manager, report))

        self._run(receive, objects)

    def _send(self, item: Upload, manager: Any, report: Report) -> None:
        if not item.large:
            self.client.put_object(Bucket=self.bucket, Key=item.key, Body=item.content())
            report(item.size)
            return
        counter = _Counter(report)
        try:
            manager.upload(str(item.file), self.bucket, item.key, subscribers=[counter.subscriber()]).result()
        except BaseException:
            counter.take_back()
            raise

    def _receive(self, item: Download, manager: Any, report: Report) -> None:
        # Damage on the way is mended by reading again; damage in the bucket is not.
        try:
            flaw = self._receive_once(item, manager, report) and self._receive_once(item, manager, report)
        except Exception as error:
            if error_code(error) not in MISSING:
                raise
            raise InputError(item.absent) from error
        if flaw:
            raise InputError(flaw)

    def _receive_once(self, item: Download, manager: Any, report: Report) -> str | None:
        if not item.large:
            answer = self.client.get_object(Bucket=self.bucket, Key=item.key)
            flaw = item.take(answer["Body"].read())
            report(0 if flaw else item.size)
            return flaw
        counter = _Counter(report)
        flaw = "interrupted"
        try:
            with VerifiedSink(item.partial) as sink, manager.client.keeping(item.key, sink) as file:
                future = manager.download(self.bucket, item.key, file, subscribers=[counter.subscriber(sink.end)])
                sha256 = sink.hash_until_written()
                future.result()
            flaw = item.take(Arrived(item.partial, sha256))
        finally:
            item.partial.unlink(missing_ok=True)
            if flaw:
                counter.take_back()
        return flaw

    def _run(self, move: Callable[[Any, Any], None], objects: Sequence[Any]) -> None:
        if not objects:
            return
        from s3transfer.manager import TransferConfig, TransferManager

        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_request_concurrency=self._settings.transfers,
            max_request_queue_size=_REQUEST_QUEUE,
            max_io_queue_size=_IO_QUEUE,
            io_chunksize=_IO_BYTES,
            num_download_attempts=3,
        )
        pools = [ThreadPoolExecutor(_LARGE_AT_ONCE), ThreadPoolExecutor(self._settings.transfers)]
        try:
            # Leaving by an exception (also SIGTERM's) cancels what the manager has under way.
            with TransferManager(DirectClient(self.client), config) as manager:
                try:
                    futures = [pools[0 if item.large else 1].submit(move, item, manager) for item in objects]
                    wait(futures, return_when=FIRST_EXCEPTION)
                    _raise_first(futures)
                except BaseException:
                    self._patience.stop()
                    raise
        finally:
            # Nothing may go on in the background.
            for pool in pools:
                pool.shutdown(wait=True, cancel_futures=True)
            self._patience.resume()

    @contextmanager
    def _explaining(self, what: str, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            explained = explain_failure(error, f"s3://{self.bucket}/{key}", what)
            if explained is error:
                raise
            raise explained from error


def _raise_first(futures: Sequence[Future[None]]) -> None:
    """Raise the failure that came first; those after it are its consequences (cancelled, or stopped waiting)."""
    for future in futures:
        if future.done() and not future.cancelled():
            future.result()


class _Counter:
    """Bytes of one transfer as they pass, so that they can be taken back when it fails."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        self._report(count)

    def take_back(self) -> None:
        self._report(-self._bytes)
        self._bytes = 0

    def subscriber(self, end: Callable[[], None] = lambda: None) -> Any:
        """What the transfer manager tells of its progress; `end` is called once, however the transfer ends."""
        from s3transfer.subscribers import BaseSubscriber

        counter = self

        class Progress(BaseSubscriber):  # type: ignore[misc]  # the library is untyped
            def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
                counter.add(bytes_transferred)

            def on_done(self, future: Any, **_: Any) -> None:
                end()

        return Progress()
