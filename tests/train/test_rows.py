from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.train.rows import IGNORED, label_answers, read_rows, sort_by_length
from pipeline_common.errors import ConfigError, InputError


def write(path: Path, ids: list[list[int]], prompts: list[int]) -> Path:
    columns = {
        "row_id": [f"row-{number}" for number in range(len(ids))],
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "prompt_length": pa.array(prompts, pa.int32()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_labels_are_the_answer_and_nothing_else() -> None:
    ids = pa.array([[1, 5, 6, 7, 2], [1, 8, 2]], pa.list_(pa.int32()))
    labels = label_answers(ids, np.array([3, 1]))
    assert labels.to_pylist() == [[IGNORED, IGNORED, IGNORED, 7, 2], [IGNORED, 8, 2]]


def test_labels_of_a_slice_do_not_shift() -> None:
    ids = pa.array([[9, 9], [1, 5, 2], [1, 6, 6, 2]], pa.list_(pa.int32())).slice(1)
    assert label_answers(ids, np.array([1, 2])).to_pylist() == [[IGNORED, 5, 2], [IGNORED, IGNORED, 6, 2]]


def test_counts(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "t.parquet", [[1, 5, 6, 7, 2], [1, 8, 2]], [3, 1]), vocabulary=10, positions=5)
    assert (rows.count, rows.tokens, rows.answer_tokens, rows.longest) == (2, 8, 4, 5)


def test_rows_in_several_chunks_keep_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    ids = [[1, *[5] * (number % 3 + 1), 2] for number in range(50)]
    write(path, ids, [1] * 50)
    pq.write_table(pq.read_table(path), path, row_group_size=7)
    table = read_rows(path, vocabulary=10, positions=None).table
    assert table.column("labels").to_pylist() == [[IGNORED, *row[1:]] for row in ids]


@pytest.mark.parametrize("prompt", [0, 3])
def test_a_row_without_prompt_or_answer_is_named(tmp_path: Path, prompt: int) -> None:
    path = write(tmp_path / "t.parquet", [[1, 5, 2], [1, 5, 2]], [1, prompt])
    with pytest.raises(InputError, match=rf"1 row.*row-1 with {prompt} prompt tokens of 3"):
        read_rows(path, vocabulary=10, positions=None)


def test_foreign_tokens_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [[1, 12, 2]], [1])
    with pytest.raises(InputError, match="from 1 to 12, but the base model knows 0 to 9"):
        read_rows(path, vocabulary=10, positions=None)


def test_a_row_beyond_the_model_names_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [[1, 5, 5, 2]], [1])
    with pytest.raises(ConfigError, match=r"prepare\.max_length=3"):
        read_rows(path, vocabulary=10, positions=3)


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        read_rows(write(tmp_path / "t.parquet", [], []), vocabulary=10, positions=None)


def test_missing_column_lists_those_found(tmp_path: Path) -> None:
    pq.write_table(pa.table({"row_id": ["a"], "text": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"no column input_ids, prompt_length; it has row_id, text"):
        read_rows(tmp_path / "t.parquet", vocabulary=10, positions=None)


def test_longest_first_and_ties_in_order() -> None:
    table = pa.table({"input_ids": [[1], [2, 2, 2], [3], [4, 4]], "labels": [[1], [2, 2, 2], [3], [4, 4]]})
    assert [row[0] for row in sort_by_length(table).column("input_ids").to_pylist()] == [2, 4, 1, 3]
