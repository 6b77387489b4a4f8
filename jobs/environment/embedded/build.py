"""Build the embedded base model and the embedded judge into a directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.environment.embedded.recipes import BASE_RECIPE, JUDGE_RECIPE, EmbeddedRecipe
from jobs.environment.embedded.tokenizer import ANSWER_FORMAT, PROMPT_FORMAT, encode_conversation, train_tokenizer
from jobs.environment.embedded.training import Progress, new_model, one_thread, train
from pipeline_common.judge_form import DIGITS
from pipeline_common.samples import judge_examples, pretraining_conversations


def build_base_model(
    directory: Path, *, seed: int = 1, progress: Progress | None = None, recipe: EmbeddedRecipe = BASE_RECIPE
) -> dict[str, object]:
    """Train the embedded base model: it helps with benign requests and refuses harmful ones.

    A sequence is BOS + ids("[INST] {prompt} [/INST]") + ids(" {answer}") + EOS. The same seed and recipe give the
    same bytes in every file, whatever the caller's thread count.

    Args:
        directory: Where `save_pretrained` writes model and tokenizer; made if missing. Write to a temporary one and
            rename it: a build that was stopped leaves nothing or a part.
        seed: Of the data, the weights and the order.
        progress: Called with (steps done, steps in all, loss).
        recipe: Hyperparameters; a shorter one is for tests.

    Returns:
        `parameters`, `vocab_size`, `steps`, `seconds` (wall) and `final_loss`.
    """
    texts = [(item.prompt, item.answer) for item in pretraining_conversations(seed, recipe.size)]
    return _build(directory, texts, recipe, seed=seed, progress=progress)


def build_judge_model(
    directory: Path, *, seed: int = 11, progress: Progress | None = None, recipe: EmbeddedRecipe = JUDGE_RECIPE
) -> dict[str, object]:
    """Train the embedded judge: it answers `judge_form(...)`, as the user's turn of its chat format, with a digit.

    The token after "[/INST]" is " 1" ... " 5", each a single token with its leading space (checked here), followed by
    EOS. Add the probability of the bare digit where it is a token of its own; here it is next to nothing.

    Args:
        directory: As in `build_base_model`.
        seed: Of the examples, the weights and the order; not the base's.
        progress: Called with (steps done, steps in all, loss).
        recipe: Hyperparameters.

    Returns:
        As `build_base_model`, and `digit_token_ids` in the order of `DIGITS`.

    Raises:
        ValueError: A digit is not a single token.
    """
    texts = [(item.form, item.digit) for item in judge_examples(seed, recipe.size)]
    return _build(directory, texts, recipe, seed=seed, progress=progress, digits=True)


def _build(
    directory: Path,
    texts: Sequence[tuple[str, str]],
    recipe: EmbeddedRecipe,
    *,
    seed: int,
    progress: Progress | None,
    digits: bool = False,
) -> dict[str, object]:
    """Train tokenizer and model on (prompt, answer) texts in their order, and save both."""
    started = time.monotonic()
    tokenizer = train_tokenizer(
        (PROMPT_FORMAT.format(prompt=prompt) + ANSWER_FORMAT.format(answer=answer) for prompt, answer in texts),
        recipe.vocab_size,
        recipe.max_position_embeddings,
    )
    facts: dict[str, object] = {"digit_token_ids": _digit_token_ids(tokenizer)} if digits else {}
    sequences = [encode_conversation(tokenizer, prompt, answer) for prompt, answer in texts]
    with one_thread(seed):
        model = new_model(recipe, tokenizer)
        final_loss = train(model, sequences, recipe, seed=seed, progress=progress)
    _save(directory, model, tokenizer)
    return facts | {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocab_size": len(tokenizer),
        "steps": recipe.steps,
        "seconds": time.monotonic() - started,
        "final_loss": final_loss,
    }


def _digit_token_ids(tokenizer: Any) -> list[int]:
    """Token ids of " 1" ... " 5"; each must be one token, or the judge's answer is not one number."""
    found = [tokenizer.encode(ANSWER_FORMAT.format(answer=digit), add_special_tokens=False) for digit in DIGITS]
    if any(len(ids) != 1 for ids in found):
        raise ValueError(f"the judge's tokenizer splits a digit: {dict(zip(DIGITS, found, strict=True))}")
    return [ids[0] for ids in found]


def _save(directory: Path, model: Any, tokenizer: Any) -> None:
    """Write model (safetensors, float32), greedy generation defaults and tokenizer."""
    from transformers import GenerationConfig
    from transformers.utils import logging

    directory.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar for one file says nothing
    try:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    finally:
        if bars:
            logging.enable_progress_bar()
