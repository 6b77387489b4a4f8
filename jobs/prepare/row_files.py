"""The prepared rows as Arrow: first a scratch stream of all usable rows, then train.parquet and validation.parquet.

Which rows are usable is known only after the last one, so the split cannot be written on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.prepare.tasks import Example
from jobs.prepare.truncation import EncodedRow

ROW_SCHEMA: Final = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("answer", pa.string()),
        ("text", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("prompt_length", pa.int32()),
        ("truncated", pa.bool_()),
        ("safety_category", pa.string()),
    ]
)
_ROW_GROUP: Final = 2000


def record_batch(
    numbers: Sequence[int],
    examples: Sequence[Example],
    texts: Sequence[str],
    encoded: Sequence[EncodedRow],
    categories: Sequence[str],
) -> pa.RecordBatch:
    """Rows in the shape of `ROW_SCHEMA`.

    Args:
        numbers: B row numbers in the source.
        examples: B examples.
        texts: B rendered texts.
        encoded: B encoded rows.
        categories: B safety categories.
    """
    turns = [turn for example in examples for turn in example.turns]
    messages = pa.StructArray.from_arrays(
        [pa.array([turn.role for turn in turns], pa.string()), pa.array([turn.content for turn in turns], pa.string())],
        names=["role", "content"],
    )
    lengths = np.array([len(ids.prompt_ids) + len(ids.answer_ids) for ids in encoded])
    flat = chain.from_iterable(chain(ids.prompt_ids, ids.answer_ids) for ids in encoded)
    input_ids = np.fromiter(flat, np.int32, count=int(lengths.sum()))
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"row-{number:06d}" for number in numbers], pa.string()),
            pa.array([example.prompt for example in examples], pa.string()),
            pa.ListArray.from_arrays(_offsets(np.array([len(example.turns) for example in examples])), messages),
            pa.array([example.answer for example in examples], pa.string()),
            pa.array(texts, pa.string()),
            pa.ListArray.from_arrays(_offsets(lengths), pa.array(input_ids)),
            pa.array([len(ids.prompt_ids) for ids in encoded], pa.int32()),
            pa.array([ids.truncated for ids in encoded], pa.bool_()),
            pa.array(categories, pa.string()),
        ],
        schema=ROW_SCHEMA,
    )


@contextmanager
def open_spool(path: Path) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Write batches to an Arrow stream while the caller makes the next one."""
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, ROW_SCHEMA, options=options) as writer,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        pending: deque[Future[None]] = deque()

        def write(batch: pa.RecordBatch) -> None:
            while pending:
                pending.popleft().result()
            pending.append(thread.submit(writer.write_batch, batch))

        yield write
        while pending:
            pending.popleft().result()


def write_splits(spool: Path, is_validation: npt.NDArray[np.bool_], folder: Path) -> None:
    """Part the scratch rows into train.parquet and validation.parquet, in source order.

    Args:
        spool: Arrow stream of N usable rows.
        is_validation: shape (N,).
        folder: where the files go.
    """
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["safety_category"]}
    done = 0
    with (
        pa.OSFile(str(spool), "rb") as source,
        pa.ipc.open_stream(source) as reader,
        pq.ParquetWriter(folder / "train.parquet", ROW_SCHEMA, **options) as train,
        pq.ParquetWriter(folder / "validation.parquet", ROW_SCHEMA, **options) as validation,
    ):
        for batch in reader:
            members = is_validation[done : done + batch.num_rows]
            done += batch.num_rows
            for writer, mask in ((train, ~members), (validation, members)):
                if mask.any():
                    writer.write_table(pa.Table.from_batches([batch.filter(pa.array(mask))]), row_group_size=_ROW_GROUP)
    if done != len(is_validation):
        raise RuntimeError(f"{spool} holds {done} rows, expected {len(is_validation)}")


def _offsets(lengths: Any) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
