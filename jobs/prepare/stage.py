"""The prepare stage: fine-tuning rows and labelled prompts, verified, split, formatted and encoded.

    python -m jobs.prepare --config tiny

Files: train.parquet, validation.parquet, prompts.parquet, data_card.json, data_card.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from jobs.prepare.card import make_card, write_card
from jobs.prepare.examples import check_columns, prepare_rows
from jobs.prepare.labelled_prompts import (
    SAFE,
    UNSAFE,
    LabelledPrompt,
    check_enough,
    measure_prompts,
    prompt_table,
    read_prompts,
)
from jobs.prepare.matching import KnownTexts
from jobs.prepare.reading import Source, open_source
from jobs.prepare.row_files import write_splits
from jobs.prepare.splitting import validation_members
from jobs.prepare.tokenization import WordCachingTokenizer
from pipeline_common.context import Context, Outputs
from pipeline_common.logs import get_logger
from pipeline_common.model_location import model_folder, resolved_models

_log = get_logger(__name__)


def run(context: Context) -> Outputs:
    """Prepare the data of one run; see `jobs.prepare` for the files."""
    config, clock = context.config.prepare, context.clock
    with clock.phase("opening the sources", "transfer"):
        dataset, prompt_source = _open_sources(context)
    check_columns(dataset, config)
    with clock.phase("reading the labelled prompts"):
        candidates, prompt_counts = read_prompts(prompt_source, config.prompt_columns)
    per_class, floor = context.config.evaluate.prompts_per_class, context.config.evaluate.min_prompts_per_class
    check_enough(prompt_source.reference, list(candidates.values()), per_class, prompt_counts, floor)

    model = resolved_models(context).base
    with clock.phase("load"):
        tokenizer = _load_tokenizer(model_folder(model, context.store))
    spool = context.work_dir / "rows.arrow"
    labelled = KnownTexts(prompt.text for prompt in candidates.values())
    with clock.phase("cleaning and encoding the rows"):
        rows = prepare_rows(dataset, config, tokenizer, labelled, spool)
    prompts, prompt_counts.in_training_rows = _outside_training(candidates, rows.overlapping)
    with clock.phase("encoding the labelled prompts"):
        measured = measure_prompts(tokenizer, prompts, config.prompt_format, config.max_length)
    prompt_counts.too_long = len(prompts) - len(measured)
    prompt_counts.kept = len(measured)
    prompt_counts.safe = sum(prompt.safety_label == SAFE for prompt in measured)
    prompt_counts.unsafe = sum(prompt.safety_label == UNSAFE for prompt in measured)
    check_enough(prompt_source.reference, measured, per_class, prompt_counts, floor)

    is_validation = validation_members(rows.counts.usable, config.validation_fraction, config.seed)
    with clock.phase("writing the splits", "transfer"):
        write_splits(spool, is_validation, context.files)
    spool.unlink()
    pq.write_table(prompt_table(measured), context.files / "prompts.parquet", compression="zstd")
    card = make_card(config, model.title, dataset, rows, is_validation.tolist(), prompt_source, measured, prompt_counts)
    write_card(card, context.files)
    _log.info(
        "%d of %d rows usable, %d prompts cut; %d safe and %d unsafe labelled prompts kept, %d left out as trained on",
        rows.counts.usable,
        rows.counts.read,
        rows.counts.truncated,
        prompt_counts.safe,
        prompt_counts.unsafe,
        prompt_counts.in_training_rows,
    )
    return Outputs(
        summary={
            "rows": rows.counts.read,
            "train": card["dataset"]["train"],
            "validation": card["dataset"]["validation"],
            "removed": rows.counts.read - rows.counts.usable,
            "truncated": rows.counts.truncated,
            "prompts_safe": prompt_counts.safe,
            "prompts_unsafe": prompt_counts.unsafe,
            "prompts_removed": prompt_counts.removed,
        }
    )


def _open_sources(context: Context) -> tuple[Source, Source]:
    config = context.config.prepare
    offline = context.config.runtime.offline
    downloads = context.work_dir / "downloads"
    return (
        open_source(config.dataset, config.dataset_revision, downloads / "dataset", offline=offline),
        open_source(config.prompts, config.prompts_revision, downloads / "prompts", offline=offline),
    )


def _load_tokenizer(folder: Path) -> WordCachingTokenizer:
    from pipeline_common.gpu.tokenizer import load_tokenizer

    tokenizer = WordCachingTokenizer(load_tokenizer(folder))
    if not tokenizer.cuts_at_words:
        _log.info("this tokenizer is not one whose words can be cached: the same ids, only slower")
    return tokenizer


def _outside_training(
    candidates: dict[bytes, LabelledPrompt], overlapping: set[bytes]
) -> tuple[Sequence[LabelledPrompt], int]:
    """The labelled prompts that training never sees, and how many it would have seen."""
    outside = [prompt for key, prompt in candidates.items() if key not in overlapping]
    return outside, len(candidates) - len(outside)
