"""Tokenised rows as *prepare* left them, with the labels that put the loss on the answer and nothing else.

Legend: R rows, T tokens of a row, P tokens of its prompt. Arrow and numpy only, so fifty thousand rows take a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_common.errors import ConfigError, InputError

IGNORED: Final = -100
"""The label of a token that carries no loss; the value torch's cross-entropy ignores."""
_COLUMNS: Final = ("row_id", "input_ids", "prompt_length")


@dataclass(frozen=True)
class LabelledRows:
    """R rows ready for the trainer."""

    table: pa.Table
    """Columns `input_ids` and `labels` (list<int32> each, T long)."""
    tokens: int
    """Prompt + answer tokens."""
    answer_tokens: int
    """Tokens in the loss: the whole answer of every row, with the token that ends it."""
    longest: int
    """Tokens of the longest row."""

    @property
    def count(self) -> int:
        """R."""
        return int(self.table.num_rows)


def read_rows(path: Path, vocabulary: int, positions: int | None) -> LabelledRows:
    """Read a split and label it.

    Args:
        path: `train.parquet` or `validation.parquet` of *prepare*.
        vocabulary: size of the base model's vocabulary.
        positions: longest sequence the base model takes, in tokens; None = not limited.

    Raises:
        InputError: a column is missing, the split is empty, a row has no prompt or no answer, or its tokens are not the
            base model's.
        ConfigError: a row is longer than the base model takes.
    """
    schema = pq.read_schema(path)
    missing = [name for name in _COLUMNS if name not in schema.names]
    if missing:
        raise InputError(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(schema.names)}")
    table = pq.read_table(path, columns=list(_COLUMNS)).combine_chunks()
    if table.num_rows == 0:
        raise InputError(f"{path.name} has no rows; raise prepare.max_rows or prepare.validation_fraction")
    ids = _as_one_array(table.column("input_ids")).cast(pa.list_(pa.int32()))
    prompts = table.column("prompt_length").to_numpy().astype(np.int64)
    lengths = pc.list_value_length(ids).to_numpy(zero_copy_only=False).astype(np.int64)
    _check(path.name, table.column("row_id"), lengths, prompts)
    longest = int(lengths.max())
    if positions is not None and longest > positions:
        raise ConfigError(
            f"{path.name}: the longest row has {longest} tokens, the base model takes {positions}; "
            f"set prepare.max_length={positions} or less"
        )
    flat = ids.flatten().to_numpy()
    if int(flat.max()) >= vocabulary or int(flat.min()) < 0:
        raise InputError(
            f"{path.name}: token ids from {flat.min()} to {flat.max()}, but the base model knows 0 to {vocabulary - 1}"
            "; the rows were made with another tokenizer: run the prepare stage again"
        )
    labels = label_answers(ids, prompts)
    counted = pc.list_value_length(labels).to_numpy(zero_copy_only=False)
    answers = _count_labels(labels, len(lengths))
    # The promise of this stage: every token of every answer is in the loss, and nothing is cut off.
    if not (np.array_equal(answers, lengths - prompts) and np.array_equal(counted, lengths)):
        raise AssertionError("labels do not cover exactly the answers")
    return LabelledRows(
        table=pa.table({"input_ids": ids, "labels": labels}),
        tokens=int(lengths.sum()),
        answer_tokens=int(answers.sum()),
        longest=longest,
    )


def label_answers(ids: pa.ListArray, prompts: np.ndarray) -> pa.ListArray:
    """Labels of R rows: the token itself in the answer, `IGNORED` in the prompt.

    Args:
        ids: R lists of T token ids.
        prompts: P of each row, 0 <= P <= T.

    Returns:
        R lists of T labels.
    """
    lengths = pc.list_value_length(ids).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    place_in_row = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    flat = np.where(place_in_row < np.repeat(prompts, lengths), IGNORED, ids.flatten().to_numpy())
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(np.int32)))


def sort_by_length(rows: pa.Table) -> pa.Table:
    """The same rows, longest first: batches of like lengths hold little padding. For evaluation only."""
    lengths = pc.negate(pc.list_value_length(rows.column("input_ids")))
    order = np.argsort(lengths.to_numpy(), kind="stable")
    return rows.take(pa.array(order))


def _check(name: str, row_ids: pa.ChunkedArray, lengths: np.ndarray, prompts: np.ndarray) -> None:
    # A row's first token has nothing before it to be predicted from, so P = 0 would lose an answer token.
    bad = np.flatnonzero((prompts < 1) | (prompts >= lengths))
    if bad.size:
        row = int(bad[0])
        raise InputError(
            f"{name}: {bad.size} row(s) without a prompt or without an answer, first {row_ids[row].as_py()} with "
            f"{prompts[row]} prompt tokens of {lengths[row]}; run the prepare stage again with --force"
        )


def _count_labels(labels: pa.ListArray, rows: int) -> np.ndarray:
    """Labels other than `IGNORED` in each row."""
    kept = labels.flatten().to_numpy() != IGNORED
    owner = pc.list_parent_indices(labels).to_numpy()
    return np.bincount(owner[kept], minlength=rows)


def _as_one_array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)
