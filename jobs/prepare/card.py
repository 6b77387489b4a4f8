"""The data card: what went in, what was left out and why, what came out; as JSON and as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np

from jobs.prepare.categories import CATEGORIES, NONE, UNKNOWN
from jobs.prepare.examples import PreparedRows
from jobs.prepare.labelled_prompts import SAFE, UNSAFE, LabelledPrompt, PromptCounts
from jobs.prepare.reading import Source
from pipeline_common.config import PrepareConfig

CARD_SCHEMA: Final = 1
_TEMPLATE: Final = "data_card.md.j2"
_QUANTILES: Final = {"median": 0.5, "p90": 0.9, "p99": 0.99}


def make_card(
    config: PrepareConfig,
    model_title: str,
    dataset: Source,
    rows: PreparedRows,
    is_validation: Sequence[bool],
    prompt_source: Source,
    prompts: Sequence[LabelledPrompt],
    prompt_counts: PromptCounts,
) -> dict[str, Any]:
    """Everything the card says, as plain JSON values; no times, so the same data gives the same card.

    Args:
        config: of the stage.
        model_title: whose tokenizer was used.
        dataset: the fine-tuning set.
        rows: what became of its rows.
        is_validation: for each usable row.
        prompt_source: the labelled prompts' data set.
        prompts: those kept.
        prompt_counts: what became of the others.
    """
    validation = int(np.sum(np.asarray(is_validation)))
    cells = Counter((prompt.axiom, prompt.safety_label) for prompt in prompts)
    sources = Counter((prompt.source_dataset, prompt.safety_label) for prompt in prompts)
    return {
        "schema": CARD_SCHEMA,
        "tokenizer": model_title,
        "settings": config.model_dump(mode="json"),
        "dataset": {
            "reference": dataset.reference,
            **dataset.facts,
            "rows": asdict(rows.counts),
            "train": rows.counts.usable - validation,
            "validation": validation,
            "tokens": {
                "prompt_before_cut": describe_lengths(rows.lengths.prompt),
                "answer": describe_lengths(rows.lengths.answer),
                "row": describe_lengths(rows.lengths.row),
            },
            "safety_categories": _count_categories(rows.categories, is_validation),
        },
        "prompts": {
            "reference": prompt_source.reference,
            **prompt_source.facts,
            "rows": asdict(prompt_counts),
            "axioms": _by_label(cells),
            "sources": _by_label(sources),
            "tokens": {
                label: describe_lengths([entry.prompt_tokens for entry in prompts if entry.safety_label == label])
                for label in (SAFE, UNSAFE)
            },
        },
    }


def describe_lengths(lengths: Sequence[int]) -> dict[str, float | int]:
    """Smallest, mean, quantiles and largest of token counts.

    Args:
        lengths: at least one.
    """
    values = np.asarray(lengths, dtype=np.int64)
    quantiles = {name: int(np.quantile(values, share, method="inverted_cdf")) for name, share in _QUANTILES.items()}
    return {
        "total": int(values.sum()),
        "min": int(values.min()),
        "mean": round(float(values.mean()), 2),
        **quantiles,
        "max": int(values.max()),
    }


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write data_card.json and data_card.md."""
    (folder / "data_card.json").write_text(
        json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown; names from the data go through `cell`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    text = environment.get_template(_TEMPLATE).render(card=card, categories={**CATEGORIES, NONE: "", UNKNOWN: ""})
    (folder / "data_card.md").write_text(text, encoding="utf-8")


def _cell(value: object) -> str:
    """A value inside a Markdown table: no line breaks, no bars, no markup."""
    text = f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\|`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def _count_categories(categories: Sequence[str], is_validation: Sequence[bool]) -> dict[str, dict[str, int]]:
    counted = Counter(zip(categories, (bool(value) for value in is_validation), strict=True))
    return {
        name: {"train": counted[name, False], "validation": counted[name, True]}
        for name in (*CATEGORIES, NONE, UNKNOWN)
    }


def _by_label(counted: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    names = sorted({name for name, _ in counted})
    return {name: {label: counted.get((name, label), 0) for label in (SAFE, UNSAFE)} for name in names}
