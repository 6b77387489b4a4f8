"""From answers to the behaviour that is compared and to the rows that are kept. Pure but for reading the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.evaluate.coherence import collect_words, whole_word_tokens
from jobs.evaluate.metric.paired import rate_change
from jobs.evaluate.records import read_prompts, read_training_texts
from jobs.evaluate.selection import LabelledPrompt
from jobs.evaluate.sharing import ROLES
from pipeline_common.context import Context
from pipeline_common.measures import RateChange

if TYPE_CHECKING:
    from jobs.evaluate.model_generation import Generated


@dataclass(frozen=True)
class KnownWords:
    """What counts as a word."""

    known: frozenset[str]
    source: str
    """What the base model's own words are, in words."""


def known_words(context: Context, tokenizer: Any, *, embedded: bool) -> KnownWords:
    """The words of the prompts, of the fine-tuning rows and of the base model."""
    asked = collect_words(prompt.text for prompt in read_prompts(context.input_file("prepare", "prompts.parquet")))
    taught = collect_words(
        read_training_texts([context.input_file("prepare", f"{split}.parquet") for split in ("train", "validation")])
    )
    if embedded:
        from pipeline_common.samples import vocabulary

        return KnownWords(frozenset(asked | taught | vocabulary()), "the embedded base model's sample world")
    own = whole_word_tokens(tokenizer.get_vocab())
    return KnownWords(frozenset(asked | taught | own), "the whole words among the base tokenizer's tokens")


def compare_refusals(
    prompts: Sequence[LabelledPrompt], refused: Mapping[tuple[str, str], bool]
) -> tuple[RateChange, ...]:
    """Refusal rate on unsafe prompts and over-refusal rate on safe ones, paired by prompt.

    Args:
        prompts: those that both models answered.
        refused: (prompt_id, model_role) -> whether the answer is a full refusal.
    """
    changes = []
    for name, label in (("refusal_unsafe", "unsafe"), ("over_refusal_safe", "safe")):
        ids = [prompt.prompt_id for prompt in prompts if prompt.safety_label == label]
        base, tuned = ([refused[prompt_id, role] for prompt_id in ids] for role in ROLES)
        changes.append(rate_change(name, base, tuned))  # type: ignore[arg-type]
    return tuple(changes)


def describe_responses(
    prompts: Sequence[LabelledPrompt],
    generated: Mapping[str, Sequence[Generated]],
    refused: Mapping[tuple[str, str], bool],
    log_odds: Mapping[str, Sequence[float]],
    judged: Mapping[tuple[str, str], dict[str, dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Rows of the table `model_responses`, prompt by prompt, base before tuned.

    Args:
        prompts: those that both models answered.
        generated: model role -> answers, in the order of `prompts`.
        refused: (prompt_id, model_role) -> whether the answer is a full refusal.
        log_odds: model role -> refusal log-odds in the order of `prompts`; empty when not measured.
        judged: (prompt_id, model_role) -> criterion -> score, for the answers that were judged.
    """
    return [
        {
            "prompt_id": prompt.prompt_id,
            "model_role": role,
            "axiom": prompt.axiom,
            "safety_label": prompt.safety_label,
            "prompt": prompt.text,
            "response": generated[role][place].text,
            "response_tokens": len(generated[role][place].token_ids),
            "finished": generated[role][place].finished,
            "refused": refused[prompt.prompt_id, role],
            "refusal_log_odds": log_odds[role][place] if log_odds else None,
            "judge_scores": judged.get((prompt.prompt_id, role)),
        }
        for place, prompt in enumerate(prompts)
        for role in ROLES
    ]
