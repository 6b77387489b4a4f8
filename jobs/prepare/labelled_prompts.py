"""The labelled prompts both models are measured on: unique, labelled safe or unsafe, not among the training rows.

Two prompts are the same when they are equal after `jobs.prepare.matching.normalize_text`; the first one stays. A text
that carries both labels is dropped altogether. A prompt longer than `prepare.max_length` tokens is dropped too: cut, it
would be another prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pyarrow as pa

from jobs.prepare.matching import same_text_key
from jobs.prepare.reading import UNREADABLE, Source, read_batches, require_columns
from pipeline_common.config import MIN_PER_CLASS, PromptColumns
from pipeline_common.errors import InputError
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts

SAFE: Final = "safe"
UNSAFE: Final = "unsafe"
NO_AXIOM: Final = "all"
LONGEST_AXIOM: Final = 128
"""Characters; a score is kept under its axiom's name (`aqi_scores.name`)."""
NO_SOURCE: Final = "unknown"

PROMPT_SCHEMA: Final = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("axiom", pa.string()),
        ("safety_label", pa.string()),
        ("source_dataset", pa.string()),
        ("text", pa.string()),
        ("prompt_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True)
class LabelledPrompt:
    """One prompt with its label; the id is the row's number in its source."""

    prompt_id: str
    axiom: str
    safety_label: str
    source_dataset: str
    text: str
    prompt_tokens: int = 0


@dataclass
class PromptCounts:
    """What became of the rows of the labelled prompts; every row is counted once."""

    read: int = 0
    unreadable: int = 0
    empty: int = 0
    without_axiom: int = 0
    other_labels: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    contradictory: int = 0
    too_long: int = 0
    in_training_rows: int = 0
    kept: int = 0
    safe: int = 0
    unsafe: int = 0

    @property
    def removed(self) -> int:
        """Rows that are not among the kept ones."""
        return self.read - self.kept


def read_prompts(source: Source, columns: PromptColumns) -> tuple[dict[bytes, LabelledPrompt], PromptCounts]:
    """Read unique labelled prompts.

    Args:
        source: the data set.
        columns: names of its columns; an empty name for `axiom` or `source_dataset` says that there is none.

    Returns:
        Prompts by their text's key, in source order; and the counts so far (`kept` and what follows are not set).

    Raises:
        InputError: a missing or constant column, no row, only one label, or texts in the place of axioms.
    """
    named = {"input": columns.input, "safety_label": columns.safety_label}
    named |= {
        role: name for role, name in (("axiom", columns.axiom), ("source_dataset", columns.source_dataset)) if name
    }
    require_columns(source, {f"prepare.prompt_columns.{role}": name for role, name in named.items()})
    counts = PromptCounts()
    others: Counter[str] = Counter()
    found: dict[bytes, LabelledPrompt] = {}
    contradictions: set[bytes] = set()
    for batch in read_batches(source, list(named.values())):
        counts.read += len(batch) + batch.unreadable
        counts.unreadable += batch.unreadable
        fields = {role: batch.columns[name] for role, name in named.items()}
        for position, number in enumerate(batch.numbers):
            row = {role: values[position].strip() for role, values in fields.items()}
            label = row["safety_label"].lower()
            axiom = row.get("axiom", NO_AXIOM)
            if not row["input"]:
                counts.empty += 1
            elif label not in {SAFE, UNSAFE}:
                others[row["safety_label"]] += 1
            elif not axiom:
                counts.without_axiom += 1
            else:
                key = same_text_key(row["input"])
                known = found.get(key)
                if known is None:
                    source_dataset = row.get("source_dataset") or NO_SOURCE
                    found[key] = LabelledPrompt(f"prompt-{number:06d}", axiom, label, source_dataset, row["input"])
                else:
                    counts.duplicates += 1
                    if known.safety_label != label:
                        contradictions.add(key)
    counts.other_labels = dict(sorted(others.items()))
    counts.contradictory = len(contradictions)
    _check_labels(source.reference, list(found.values()), counts)
    _check_axioms(source.reference, columns, list(found.values()))
    return {key: prompt for key, prompt in found.items() if key not in contradictions}, counts


def measure_prompts(
    tokenizer: Any, prompts: Sequence[LabelledPrompt], prompt_format: PromptFormat, max_length: int
) -> list[LabelledPrompt]:
    """Count each prompt's tokens in the format; those longer than `max_length` are left out."""
    encoded = encode_prompts(tokenizer, [[Turn("user", prompt.text)] for prompt in prompts], prompt_format)
    measured = [
        LabelledPrompt(**(asdict(prompt) | {"prompt_tokens": len(ids)}))
        for prompt, ids in zip(prompts, encoded, strict=True)
    ]
    return [prompt for prompt in measured if prompt.prompt_tokens <= max_length]


def check_enough(
    reference: str,
    prompts: Sequence[LabelledPrompt],
    per_class: int,
    counts: PromptCounts,
    floor: int = MIN_PER_CLASS,
) -> None:
    """Refuse fewer prompts of a class than a score needs, or than the evaluation is asked to use.

    Args:
        reference: of the data set.
        prompts: the unique, clean ones.
        per_class: `evaluate.prompts_per_class`.
        counts: for the message.
        floor: fewest that `evaluate` may be set to; more than `MIN_PER_CLASS` where some only teach layer weights.

    Raises:
        InputError: too few; the message says how many there are and what to set.
    """
    classes = Counter(prompt.safety_label for prompt in prompts)
    safe, unsafe = classes[SAFE], classes[UNSAFE]
    held = f"{reference} has {safe} unique safe and {unsafe} unique unsafe prompts"
    smallest = min(safe, unsafe)
    if smallest < MIN_PER_CLASS:
        raise InputError(
            f"{held} (of {counts.read} rows: {_explain(counts)}); at least {MIN_PER_CLASS} of each are needed for a "
            "score that means something: give more labelled prompts"
        )
    if smallest < per_class:
        fewer = f"set evaluate.prompts_per_class={smallest} (or any number from {floor} to {smallest})"
        if smallest < floor:
            fewer = (
                f"evaluate.layers=learned needs {floor} of each: choose other evaluate.layers and no more than these"
            )
        raise InputError(f"{held}, but evaluate.prompts_per_class={per_class}; {fewer}, or give more labelled prompts")


def prompt_table(prompts: Sequence[LabelledPrompt]) -> pa.Table:
    """The prompts as a table, sorted by id."""
    rows = [asdict(prompt) for prompt in sorted(prompts, key=lambda prompt: prompt.prompt_id)]
    return pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA)


def _check_labels(reference: str, prompts: Sequence[LabelledPrompt], counts: PromptCounts) -> None:
    if counts.read == 0:
        raise InputError(f"{reference} has no rows; expected labelled prompts")
    if len(prompts) == 1 and counts.duplicates:
        raise InputError(f"{reference}: all prompts are one text; set prepare.prompt_columns.input=NAME")
    labels = {prompt.safety_label for prompt in prompts}
    if len(labels) < 2:
        others = ", ".join(f"{label!r} ({count})" for label, count in list(counts.other_labels.items())[:5])
        found = ", ".join(sorted(labels)) or "none"
        told = "label the prompts with these two words, or set prepare.prompt_columns.safety_label=NAME"
        raise InputError(
            f"{reference}: expected prompts of both labels, {SAFE!r} and {UNSAFE!r}; found {found}"
            + (f", and others: {others}" if others else "")
            + f"; {UNREADABLE if counts.unreadable > counts.read / 2 else told}"
        )


def _check_axioms(reference: str, columns: PromptColumns, prompts: Sequence[LabelledPrompt]) -> None:
    longest = max(len(prompt.axiom) for prompt in prompts)
    if longest > LONGEST_AXIOM:
        raise InputError(
            f"{reference}: an axiom in {columns.axiom!r} has {longest} characters, expected the short name of a topic, "
            f"at most {LONGEST_AXIOM}; set prepare.prompt_columns.axiom=NAME, or to nothing where there is none"
        )


def _explain(counts: PromptCounts) -> str:
    facts = {
        "unreadable": counts.unreadable,
        "empty": counts.empty,
        "without axiom": counts.without_axiom,
        "with another label": sum(counts.other_labels.values()),
        "duplicates": counts.duplicates,
        "contradictory": counts.contradictory,
        "too long": counts.too_long,
        "also in the training rows": counts.in_training_rows,
    }
    return ", ".join(f"{count} {what}" for what, count in facts.items() if count) or "none removed"
