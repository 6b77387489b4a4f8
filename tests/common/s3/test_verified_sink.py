"""The hash that follows a download is that of the file on the disk, in whatever order and how often it was written."""

from __future__ import annotations

import hashlib
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_common.s3.verified_sink import VerifiedSink


def write(sink, offset, content):
    sink.seek(offset)
    assert sink.write(content) == len(content)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 10))
def test_pieces_in_any_order_and_again_give_the_files_hash(tmp_path_factory, seed, count, again):
    generator = random.Random(seed)
    pieces = [generator.randbytes(generator.randint(1, 3000)) for _ in range(count)]
    offsets = [sum(map(len, pieces[:index])) for index in range(count)]
    order = [*range(count), *generator.choices(range(count), k=again)]
    generator.shuffle(order)
    path = tmp_path_factory.mktemp("sink") / "file"
    with VerifiedSink(path) as sink:
        found = []
        follower = threading.Thread(target=lambda: found.append(sink.hash_until_written()))
        follower.start()
        for index in order:
            # What is written first may be damaged; the last writing of each piece counts.
            write(sink, offsets[index], generator.randbytes(len(pieces[index])))
        for index in order:
            write(sink, offsets[index], pieces[index])
        sink.end()
        follower.join(timeout=30)
    assert path.read_bytes() == b"".join(pieces)
    assert found == [hashlib.sha256(b"".join(pieces)).hexdigest()]


def test_bytes_that_are_written_again_after_they_were_hashed_are_hashed_again(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        write(sink, 0, b"damaged!")
        write(sink, 8, b" and the rest")
        assert sink._claim() == (0, 21), "hashed, as far as the follower is concerned"
        write(sink, 0, b"as meant")
        sink.end()
        assert sink.hash_until_written() == hashlib.sha256(b"as meant and the rest").hexdigest()


def test_a_file_is_hashed_before_its_last_byte_arrives(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        follower = threading.Thread(target=sink.hash_until_written)
        follower.start()
        write(sink, 0, b"x" * 5_000_000)
        until = time.monotonic() + 30
        while sink._hashed < 5_000_000 and time.monotonic() < until:
            time.sleep(0.01)
        assert sink._hashed == 5_000_000
        sink.end()
        follower.join(timeout=30)
        assert not follower.is_alive()


def test_nothing_written_is_the_hash_of_nothing(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        sink.end()
        assert sink.hash_until_written() == hashlib.sha256(b"").hexdigest()


def test_a_file_cut_short_by_something_else_is_an_error(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        write(sink, 0, b"x" * 100)
        with (tmp_path / "file").open("r+b") as other:
            other.truncate(50)
        with pytest.raises(OSError, match="ended at 50 bytes; 100 were written"):
            sink.hash_until_written()


def test_it_cannot_be_sought_from_anywhere_but_the_start(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink, pytest.raises(ValueError, match="whence=2"):
        sink.seek(0, 2)
