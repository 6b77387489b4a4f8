from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.prepare.reading import Source, open_source, read_batches, require_columns
from pipeline_common.errors import InputError
from pipeline_common.samples import SAMPLES

ROWS = [
    {"Prompt": "How, exactly?", "Answer": 'She said "so".'},
    {"Prompt": "line one\nline two", "Answer": ""},
    {"Prompt": "naïve 你好 🙂", "Answer": "yes"},
]


def opened(path: Path | str, tmp_path: Path) -> Source:
    return open_source(str(path), None, tmp_path / "downloads", offline=True)


def read_all(source: Source, columns: list[str], **settings: Any) -> tuple[list[tuple[int, tuple[str, ...]]], int]:
    """(row number, texts) of every readable row, and how many were unreadable."""
    batches = list(read_batches(source, columns, **settings))
    rows = [
        (number, texts)
        for batch in batches
        for number, texts in zip(
            batch.numbers, zip(*(batch.columns[name] for name in columns), strict=True), strict=True
        )
    ]
    return rows, sum(batch.unreadable for batch in batches)


def write_csv(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write(kind: str, folder: Path) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "csv":
        write_csv(path)
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(write_csv(folder / "plain.csv").read_bytes()))
    elif kind == "json":
        path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    else:
        lines = "\n".join(json.dumps(row, ensure_ascii=kind == "jsonl") for row in ROWS) + "\n\n"
        path.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else lines.encode())
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "json"])
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    source = opened(write(kind, tmp_path), tmp_path)
    assert source.file.column_names == ["Prompt", "Answer"]
    rows, unreadable = read_all(source, ["Answer", "Prompt"], batch_rows=2)
    assert rows == [(number, (row["Answer"], row["Prompt"])) for number, row in enumerate(ROWS)]
    assert unreadable == 0
    assert len(source.facts["sha256"]) == 64


def test_at_most_max_rows_are_read(tmp_path: Path) -> None:
    rows, _ = read_all(opened(write("csv", tmp_path), tmp_path), ["Prompt"], max_rows=2)
    assert [number for number, _ in rows] == [0, 1]


def test_unreadable_json_lines_are_counted_and_row_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        b'{"a": "one"}',
        b'{"a": "cut off',
        b'["a"]',
        b'{"a": 5}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": null}',
        b'{"b": "no a"}',
        b'{"a": "last"}',
    ]
    path.write_bytes(b"\n".join(lines))
    rows, unreadable = read_all(opened(path, tmp_path), ["a"])
    assert rows == [(0, ("one",)), (6, ("",)), (7, ("",)), (8, ("last",))]
    assert unreadable == 5


def test_unreadable_csv_rows_are_counted_and_row_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\n1,x\n2\n3,x,y\n4,\xff\n\n"5"z,x\n6,x\n')
    source = opened(path, tmp_path)
    assert source.file.column_names == ["a", "b"]
    rows, unreadable = read_all(source, ["a", "b"])
    # Row 3 has a byte that is not UTF-8; the empty line is no row; text after a closing quote is no CSV.
    assert rows == [(0, ("1", "x")), (5, ("6", "x"))]
    assert unreadable == 4


def test_parquet_text_that_is_not_utf8_is_unreadable(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")]
    )
    pq.write_table(pa.table({"a": broken}), tmp_path / "rows.parquet")
    rows, unreadable = read_all(opened(tmp_path / "rows.parquet", tmp_path), ["a"])
    assert (rows, unreadable) == ([(0, ("ok",))], 1)


def test_parquet_dictionary_columns_are_text_and_numbers_are_not(tmp_path: Path) -> None:
    table = pa.table({"label": pa.array(["safe", "unsafe"]).dictionary_encode(), "n": [1, 2]})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = opened(tmp_path / "rows.parquet", tmp_path)
    assert read_all(source, ["label"])[0] == [(0, ("safe",)), (1, ("unsafe",))]
    with pytest.raises(InputError, match="'n' holds int64; expected text"):
        read_all(source, ["n"])


@pytest.mark.parametrize("kind", ["parquet", "csv.gz", "jsonl.gz"])
def test_a_truncated_file_is_damaged(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        read_all(opened(path, tmp_path), ["Prompt"])


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    for name in ("rows.parquet", "rows.jsonl.gz", "rows.csv.gz"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(InputError, match="damaged or not what its name says"):
            opened(tmp_path / name, tmp_path)
    (tmp_path / "rows.json").write_text('[{"a": "b"}, ')
    with pytest.raises(InputError, match="JSON array"):
        opened(tmp_path / "rows.json", tmp_path)


def test_missing_columns_name_those_found_and_the_keys_to_set(tmp_path: Path) -> None:
    source = opened(write("csv", tmp_path), tmp_path)
    with pytest.raises(InputError) as caught:
        require_columns(source, {"prepare.columns.prompt": "Question", "prepare.columns.instruction": "Answer"})
    assert "no column 'Question'; it has 'Prompt', 'Answer': set prepare.columns.prompt=NAME" in str(caught.value)


def test_what_is_no_data_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a")
    cases = {
        str(tmp_path / "missing.csv"): "does not exist",
        str(tmp_path): r"is a folder; name one data file in it \(it holds: notes\.txt\)",
        str(tmp_path / "notes.txt"): "cannot tell the format",
        "sample:nothing": "no such sample; there are sample:",
        "embedded": "names no data set",
    }
    for reference, message in cases.items():
        with pytest.raises(InputError, match=message):
            opened(reference, tmp_path)


def test_empty_files_have_no_columns_and_no_rows(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.jsonl"):
        (tmp_path / name).write_bytes(b"")
        assert opened(tmp_path / name, tmp_path).file.column_names == []


@pytest.mark.parametrize("name", list(SAMPLES))
def test_samples_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    source = opened(f"sample:{name}", tmp_path)
    made = SAMPLES[name]()
    columns = source.file.column_names
    rows, unreadable = read_all(source, columns)
    assert unreadable == 0
    assert rows == [(number, tuple(row[column] for column in columns)) for number, row in enumerate(made)]
