from __future__ import annotations

import json

import pytest

from pipeline_common.errors import InputError
from pipeline_common.run_record import parse_record, record_key


def test_a_record_is_read_with_all_it_notes():
    record = {"run_id": "a", "profile": "tiny", "stages": {"train": {"artifact": "train/f", "manifest_sha256": "0"}}}
    assert parse_record(json.dumps(record).encode(), record_key("a")) == record
    assert record_key("a") == "runs/a/run.json"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b'{"stages": []}', b'{"stages": {"a": {}}}', b"\xff"]
)
def test_what_is_no_record_is_named_with_what_to_do(content):
    with pytest.raises(InputError, match=r"runs/a/run\.json in the store is damaged.*Remove the file"):
        parse_record(content, "runs/a/run.json")
