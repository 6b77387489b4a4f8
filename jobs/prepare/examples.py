"""Rows of the fine-tuning set -> clean, encoded rows in a scratch file; everything on the way is counted."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.prepare.categories import categorize
from jobs.prepare.matching import KnownTexts, exact_key
from jobs.prepare.reading import UNREADABLE, Batch, Source, read_batches, require_columns
from jobs.prepare.row_files import open_spool, record_batch
from jobs.prepare.tasks import Example, Role, make_example, task_columns
from jobs.prepare.truncation import EncodedRow, encode_rows, find_frame
from pipeline_common.config import PrepareConfig
from pipeline_common.errors import InputError
from pipeline_common.progress import track
from pipeline_common.prompts import render_text


@dataclass
class RowCounts:
    """What became of the rows of the fine-tuning set."""

    read: int = 0
    unreadable: int = 0
    empty: int = 0
    no_answer: int = 0
    """Transcripts that do not end with an answer to a human (`sft_safe`)."""
    duplicates: int = 0
    """Same conversation and answer as an earlier row, letter by letter."""
    answer_too_long: int = 0
    usable: int = 0
    identical_pairs: int = 0
    """Usable rows whose accepted and rejected responses are the same; they stay."""
    truncated: int = 0
    """Usable rows whose prompt was cut."""
    unique_prompts: int = 0
    unique_answers: int = 0


@dataclass
class Lengths:
    """Token counts of the usable rows."""

    prompt: list[int] = field(default_factory=list)
    """Before any cut."""
    answer: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    """Prompt and answer after the cut."""


@dataclass
class PreparedRows:
    """Result of the pass over the fine-tuning set."""

    counts: RowCounts = field(default_factory=RowCounts)
    lengths: Lengths = field(default_factory=Lengths)
    categories: list[str] = field(default_factory=list)
    overlapping: set[bytes] = field(default_factory=set)
    """Keys of labelled prompts that occur in usable rows."""


class _Columns:
    """Whether a column holds more than one text."""

    def __init__(self, named: Mapping[Role, str]) -> None:
        self._first: dict[Role, str] = {}
        self._undecided = set(named)

    def note(self, texts: Mapping[Role, Sequence[str]]) -> None:
        for role in list(self._undecided):
            for text in texts[role]:
                if text and self._first.setdefault(role, text) != text:
                    self._undecided.discard(role)
                    break

    @property
    def constant(self) -> list[Role]:
        return sorted(self._undecided)


def check_columns(source: Source, config: PrepareConfig) -> dict[Role, str]:
    """The columns the task reads, by role.

    Raises:
        InputError: one is missing.
    """
    needed, welcome = task_columns(config.task, config.columns)
    columns = needed | welcome
    try:
        require_columns(source, {f"prepare.columns.{role}": name for role, name in columns.items()})
    except InputError as error:
        if welcome.keys() and all(name in source.file.column_names for name in needed.values()):
            absent = " ".join(f"prepare.columns.{role}=" for role in welcome)
            raise InputError(
                f"{error}; or, if the set has no such responses, {absent} (nothing after the =)"
            ) from error
        raise
    return columns


def prepare_rows(
    source: Source, config: PrepareConfig, tokenizer: Any, labelled: KnownTexts, spool: Path
) -> PreparedRows:
    """Clean, format and encode the fine-tuning set, in source order.

    Args:
        source: the fine-tuning set.
        config: of the stage.
        tokenizer: the base model's.
        labelled: the labelled prompts' texts, to find those that training would see.
        spool: Arrow stream to write the usable rows to (`ROW_SCHEMA`).

    Returns:
        Counts, lengths, categories (one for each usable row), and the labelled prompts that occur in the rows.

    Raises:
        InputError: a missing or constant column, no rows, or too few usable ones.
    """
    columns = check_columns(source, config)
    frame = find_frame(tokenizer, config.prompt_format)
    result = PreparedRows()
    counts = result.counts
    texts_seen = _Columns(columns)
    rows_seen: set[bytes] = set()
    prompts_seen: set[bytes] = set()
    answers_seen: set[bytes] = set()
    total = source.file.row_count
    if total is not None and config.max_rows is not None:
        total = min(total, config.max_rows)
    with track("preparing rows", total or 0) as advance, open_spool(spool) as write, without_cycle_collection():
        for batch in read_batches(source, list(columns.values()), config.max_rows):
            counts.read += len(batch) + batch.unreadable
            counts.unreadable += batch.unreadable
            texts_seen.note({role: batch.columns[name] for role, name in columns.items()})
            numbers: list[int] = []
            examples: list[Example] = []
            for number, example in _examples(batch, config, columns, counts):
                row_key = exact_key(*(turn.content for turn in example.turns), example.answer)
                if row_key in rows_seen:
                    counts.duplicates += 1
                    continue
                rows_seen.add(row_key)
                numbers.append(number)
                examples.append(example)
            encoded = encode_rows(
                tokenizer,
                [example.turns for example in examples],
                [example.answer for example in examples],
                config.prompt_format,
                config.max_length,
                frame,
            )
            kept = [row for row, ids in enumerate(encoded) if ids is not None]
            counts.answer_too_long += len(encoded) - len(kept)
            if kept:
                numbers = [numbers[row] for row in kept]
                examples = [examples[row] for row in kept]
                ids = [row for row in encoded if row is not None]
                categories = [categorize(example.human_texts) for example in examples]
                result.categories += categories
                _count(result, examples, ids)
                for example in examples:
                    prompts_seen.add(exact_key(*(turn.content for turn in example.turns)))
                    answers_seen.add(exact_key(example.answer))
                    for text in (example.prompt, *example.human_texts):
                        key = labelled.find(text)
                        if key is not None:
                            result.overlapping.add(key)
                texts = [
                    render_text(tokenizer, example.turns, example.answer, config.prompt_format) for example in examples
                ]
                write(record_batch(numbers, examples, texts, ids, categories))
            advance(counts.read)
    counts.unique_prompts = len(prompts_seen)
    counts.unique_answers = len(answers_seen)
    _check_rows(source.reference, columns, texts_seen.constant, counts, config)
    return result


@contextmanager
def without_cycle_collection() -> Iterator[None]:
    """Keep Python's cycle collector from walking millions of token ids again and again: nothing here makes cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _examples(
    batch: Batch, config: PrepareConfig, columns: Mapping[Role, str], counts: RowCounts
) -> Iterator[tuple[int, Example]]:
    texts = {role: batch.columns[name] for role, name in columns.items()}
    for position, number in enumerate(batch.numbers):
        example = make_example(config.task, {role: values[position].strip() for role, values in texts.items()})
        if example == "empty":
            counts.empty += 1
        elif example == "no_answer":
            counts.no_answer += 1
        elif isinstance(example, Example):
            yield number, example


def _count(result: PreparedRows, examples: Sequence[Example], encoded: Sequence[EncodedRow]) -> None:
    result.counts.usable += len(examples)
    result.counts.identical_pairs += sum(example.identical_pair for example in examples)
    result.counts.truncated += sum(ids.truncated for ids in encoded)
    result.lengths.prompt += [ids.prompt_tokens for ids in encoded]
    result.lengths.answer += [len(ids.answer_ids) for ids in encoded]
    result.lengths.row += [len(ids.prompt_ids) + len(ids.answer_ids) for ids in encoded]


def _check_rows(
    reference: str, columns: Mapping[Role, str], constant: Sequence[Role], counts: RowCounts, config: PrepareConfig
) -> None:
    min_rows = config.min_rows
    if counts.read == 0:
        raise InputError(f"{reference} has no rows; expected a fine-tuning set of at least {min_rows}")
    if constant and counts.read - counts.unreadable > 1:
        named = ", ".join(f"{columns[role]!r} (prepare.columns.{role})" for role in constant)
        raise InputError(
            f"{reference}: every row has the same text, or none, in {named}; nothing can be learnt from a constant "
            f"column: name another column, or check how the file was written{_without(constant, config)}"
        )
    if counts.usable < min_rows:
        advice = UNREADABLE if counts.unreadable > counts.read / 2 else "give more rows, or lower it"
        raise InputError(
            f"{reference} has {counts.usable} usable row(s) of {counts.read} read ({counts.unreadable} unreadable, "
            f"{counts.empty} empty, {counts.no_answer} without an answer, {counts.duplicates} duplicates, "
            f"{counts.answer_too_long} with an answer longer than prepare.max_length allows), fewer than "
            f"prepare.min_rows={min_rows}: {advice}"
        )


def _without(constant: Sequence[Role], config: PrepareConfig) -> str:
    """How to go without columns that the task does not need."""
    _, welcome = task_columns(config.task, config.columns)
    spare = [f"prepare.columns.{role}=" for role in constant if role in welcome]
    return f"; or, to go without, {' '.join(spare)} (nothing after the =)" if len(spare) == len(constant) else ""
