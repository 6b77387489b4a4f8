"""The hash that follows a download is that of the file on the disk, in whatever order and how often it was written."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_common.s3.verified_sink import VerifiedSink


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
            sink.keep(offsets[index], generator.randbytes(len(pieces[index])))
        for index in order:
            sink.keep(offsets[index], pieces[index])
        sink.end()
        follower.join(timeout=30)
    assert path.read_bytes() == b"".join(pieces)
    assert found == [hashlib.sha256(b"".join(pieces)).hexdigest()]


def test_bytes_that_are_written_again_after_they_were_hashed_are_hashed_again(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        sink.keep(0, b"damaged!")
        sink.keep(8, b" and the rest")
        sink.keep(0, b"as meant")
        sink.end()
        assert sink.hash_until_written() == hashlib.sha256(b"as meant and the rest").hexdigest()


def test_a_file_is_hashed_before_its_last_byte_arrives(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        # Nothing follows: what comes in order is hashed as it comes.
        sink.keep(0, b"x" * 5_000_000)
        assert sink._hashed == 5_000_000
        sink.keep(6_000_000, b"z" * 1_000_000)
        assert sink._hashed == 5_000_000
        sink.keep(5_000_000, b"y" * 1_000_000)
        assert sink._hashed == 6_000_000
        # What came before its turn is read by the follower.
        follower = threading.Thread(target=sink.hash_until_written)
        follower.start()
        until = time.monotonic() + 30
        while sink._hashed < 7_000_000 and time.monotonic() < until:
            time.sleep(0.01)
        assert sink._hashed == 7_000_000
        sink.end()
        follower.join(timeout=30)
        assert not follower.is_alive()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_parts_from_several_threads_some_of_them_cut_off(tmp_path_factory, seed, count):
    generator = random.Random(seed)
    parts = [generator.randbytes(generator.randint(1, 200_000)) for _ in range(count)]
    offsets = [sum(map(len, parts[:index])) for index in range(count)]
    cuts = [generator.choice([0, generator.randint(0, len(part))]) for part in parts]
    found = []

    def arrive(sink, offset, part, step=7_000):
        for start in range(0, len(part), step):
            sink.keep(offset + start, part[start : start + step])

    def fetch(sink, index):
        # As after a lost connection, with bytes that were damaged on the way.
        arrive(sink, offsets[index], bytes(cuts[index]))
        arrive(sink, offsets[index], parts[index])

    path = tmp_path_factory.mktemp("sink") / "file"
    with VerifiedSink(path) as sink:
        threads = [threading.Thread(target=fetch, args=(sink, index)) for index in range(count)]
        follower = threading.Thread(target=lambda: found.append(sink.hash_until_written()))
        for thread in (follower, *threads):
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        sink.end()
        follower.join(timeout=30)
    assert path.read_bytes() == b"".join(parts)
    assert found == [hashlib.sha256(b"".join(parts)).hexdigest()]


def test_a_piece_that_could_not_be_written_is_not_hashed(tmp_path, monkeypatch):
    with VerifiedSink(tmp_path / "file") as sink:
        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                sink.keep(0, b"lost")
        sink.keep(0, b"kept")
        sink.end()
        assert sink.hash_until_written() == hashlib.sha256(b"kept").hexdigest()


def test_a_piece_that_comes_too_late_is_written_nowhere(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        sink.keep(0, b"in time")
    # The descriptor's number is the next file's.
    with (tmp_path / "other").open("w+b"), pytest.raises(ValueError, match="after its file was closed"):
        sink.keep(0, b"too late")
    assert (tmp_path / "other").read_bytes() == b""
    assert (tmp_path / "file").read_bytes() == b"in time"


def test_nothing_written_is_the_hash_of_nothing(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        sink.end()
        assert sink.hash_until_written() == hashlib.sha256(b"").hexdigest()


def test_a_file_cut_short_by_something_else_is_an_error(tmp_path):
    with VerifiedSink(tmp_path / "file") as sink:
        sink.keep(50, b"x" * 50)
        sink.keep(0, b"x" * 50)
        with (tmp_path / "file").open("r+b") as other:
            other.truncate(60)
        with pytest.raises(OSError, match="ended at 60 bytes; 100 were written"):
            sink.hash_until_written()
