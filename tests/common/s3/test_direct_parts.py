"""What the transfer manager is given is in its file before the manager is told so."""

from __future__ import annotations

import hashlib
import io

import pytest

from pipeline_common.s3 import direct_parts
from pipeline_common.s3.direct_parts import DirectClient, DirectFile, Kept
from pipeline_common.s3.verified_sink import VerifiedSink

MIB = 1 << 20
CONTENT = bytes(range(256)) * (5 * MIB // 256) + b"the rest"


class StoredObject:
    """A client of the manager's kind, with one object."""

    region = "somewhere"

    def get_object(self, **request):
        first, _, last = request["Range"].removeprefix("bytes=").partition("-")
        return {"Body": io.BytesIO(CONTENT[int(first) : int(last) + 1 if last else None]), "ETag": "e"}


def read_part(client, requested):
    body = client.get_object(Bucket="b", Key="k", Range=requested)["Body"]
    steps = []
    while piece := body.read(2 * MIB):
        steps.append(len(piece))
    assert piece == b"", "as a stream ends"
    return steps


def test_parts_are_in_their_file_as_they_are_read(tmp_path):
    client = DirectClient(StoredObject())
    with VerifiedSink(tmp_path / "file") as sink, client.keeping("k", sink):
        assert read_part(client, f"bytes={3 * MIB}-") == [2 * MIB, len(b"the rest")]
        assert read_part(client, f"bytes=0-{3 * MIB - 1}") == [2 * MIB, MIB]
        assert (tmp_path / "file").read_bytes() == CONTENT
        sink.end()
        assert sink.hash_until_written() == hashlib.sha256(CONTENT).hexdigest()


def test_a_slow_connection_is_told_of_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(direct_parts, "_LONGEST_READ_S", 0.0)
    client = DirectClient(StoredObject())
    with VerifiedSink(tmp_path / "file") as sink, client.keeping("k", sink):
        assert read_part(client, "bytes=0-") == [MIB] * 5 + [len(b"the rest")]


def test_everything_else_is_the_clients_own():
    assert DirectClient(StoredObject()).region == "somewhere"


def test_the_manager_writes_only_what_was_not_kept(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        file = DirectFile(sink)
        sink.keep(0, b"kept")
        assert file.seekable()
        assert file.seek(0) == 0
        assert file.write(Kept(4)) == 4
        assert file.tell() == 4
        assert file.write(b" by hand") == 8
        assert (tmp_path / "file").read_bytes() == b"kept by hand"
        with pytest.raises(ValueError, match="whence=2"):
            file.seek(0, 2)
