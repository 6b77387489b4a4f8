"""Training of a small Llama from scratch in plain torch, deterministic to the byte on a CPU.

Shapes: B sequences in a batch, T tokens (padded), D width, V vocabulary.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jobs.environment.embedded.recipes import EmbeddedRecipe

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss of the last step)."""

TokenSequence = tuple[list[int], int]
"""Token ids, and how many of them are the prompt."""

_BUCKET_BATCHES = 20
_REPORT_EVERY = 10


@contextmanager
def one_thread(seed: int) -> Iterator[None]:
    """Run torch in one thread with a seed of its own; the caller's thread count and random state come back after.

    One thread because a sum's order, hence its last bits, may depend on how many share it.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def new_model(recipe: EmbeddedRecipe, tokenizer: Any) -> Any:
    """Make an untrained float32 Llama with tied embeddings for the tokenizer, from torch's current random state."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_hidden_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_key_value_heads,
        max_position_embeddings=recipe.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).to(torch.float32)


def bucket(sequences: Sequence[TokenSequence], batch_size: int, rng: random.Random) -> list[list[TokenSequence]]:
    """Make batches of similar lengths, in random order.

    Every `_BUCKET_BATCHES` batches' worth of sequences are sorted by length, so little of a batch is padding while
    the mixture stays the same over the training.

    Returns:
        Full batches only.
    """
    batches: list[list[TokenSequence]] = []
    span = batch_size * _BUCKET_BATCHES
    for start in range(0, len(sequences), span):
        chunk = sorted(sequences[start : start + span], key=lambda sequence: len(sequence[0]))
        cut = [chunk[at : at + batch_size] for at in range(0, len(chunk) - batch_size + 1, batch_size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def lr_share(step: int, recipe: EmbeddedRecipe) -> float:
    """Learning rate of a step (from 0) as a share of its peak: linear warm-up, then a cosine, in (0, 1]."""
    warmup = max(1, round(recipe.warmup_share * recipe.steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, recipe.steps - warmup)
    return recipe.final_lr_share + (1 - recipe.final_lr_share) * 0.5 * (1 + math.cos(math.pi * progress))


def _pad(batch: Sequence[TokenSequence], pad_id: int, recipe: EmbeddedRecipe) -> tuple[Any, Any]:
    """Pad a batch on the right; return token ids and the loss weight of each, both [B, T], 0 under padding."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.full((len(batch), longest), pad_id)
    weights = torch.zeros((len(batch), longest))
    for row, (ids, prompt_length) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        weights[row, :prompt_length] = recipe.prompt_weight
        weights[row, prompt_length] = recipe.first_answer_weight
        weights[row, prompt_length + 1 : len(ids)] = 1.0
    return inputs, weights


def train(
    model: Any, sequences: Sequence[TokenSequence], recipe: EmbeddedRecipe, *, seed: int, progress: Progress | None
) -> float:
    """Train the model in place on the sequences, `recipe.steps` batches, each sequence at most once.

    No attention mask: under causal attention a real token never sees the padding on its right.

    Args:
        model: From `new_model`.
        sequences: At least `recipe.size` of them.
        recipe: Hyperparameters.
        seed: Of the order of the batches.
        progress: Called every tenth step and at the last.

    Returns:
        The mean loss of the last tenth of the steps, in nats per weighted token.

    Raises:
        ValueError: There are fewer sequences than the recipe uses.
    """
    import torch
    from torch.nn import functional

    if len(sequences) < recipe.size:
        raise ValueError(f"{len(sequences)} sequences for {recipe.steps} steps of {recipe.batch_size}: too few")
    batches = bucket(sequences[: recipe.size], recipe.batch_size, random.Random(seed))
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_share(step, recipe))
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(batches, start=1):
        inputs, weights = _pad(batch, model.config.pad_token_id, recipe)
        states = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]  # [B, T-1, D]
        counted = weights[:, 1:] > 0
        logits = model.lm_head(states[counted])  # [tokens that count, V]: padding costs nothing here
        per_token = functional.cross_entropy(logits, inputs[:, 1:][counted], reduction="none")
        kept = weights[:, 1:][counted]
        loss = (per_token * kept).sum() / kept.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if progress is not None and (step % _REPORT_EVERY == 0 or step == len(batches)):
            progress(step, len(batches), losses[-1])
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)
