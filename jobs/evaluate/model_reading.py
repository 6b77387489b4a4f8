"""The prompts as both models read them, and their activations.

A list of batches, the same in every process, and a way to read some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.batching import MOST_GENERATED_TOKENS, flat_batches, token_budget_batches
from jobs.evaluate.model import ModelPair, resolve_batch_tokens
from jobs.evaluate.model_copies import HostCopies
from jobs.evaluate.model_flat_sweep import sweep_flat
from jobs.evaluate.model_fused import liger_kernels
from jobs.evaluate.model_sweep import Rows, states_of, sweep
from jobs.evaluate.selection import LabelledPrompt, take_stratified
from jobs.evaluate.sharing import Batch, Share, list_batches
from pipeline_common.config import EvaluateConfig
from pipeline_common.gpu.attention import kernel_failure
from pipeline_common.gpu.models import Placement
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts

READ: Final = "activations"
"""Task of a batch."""

Activations = NDArray[np.float32]
Degrade = Callable[[str, str], object]


@dataclass(frozen=True)
class EncodedPrompts:
    """The selected prompts and their tokens, in one order everywhere."""

    prompts: Sequence[LabelledPrompt]
    token_ids: Sequence[Sequence[int]]
    answered: Sequence[int]
    """Places of those that are answered."""


def encode_selected(
    pair: ModelPair, selected: Sequence[LabelledPrompt], prompt_format: PromptFormat, config: EvaluateConfig
) -> EncodedPrompts:
    """Encode the selected prompts and say which of them are answered."""
    token_ids = encode_prompts(pair.tokenizer, [[Turn("user", prompt.text)] for prompt in selected], prompt_format)
    subset = {prompt.prompt_id for prompt in take_stratified(selected, config.responses_per_class, config.seed)}
    answered = [place for place, prompt in enumerate(selected) if prompt.prompt_id in subset]
    return EncodedPrompts(selected, token_ids, answered)


@dataclass(frozen=True)
class Budgets:
    """Most tokens of a batch."""

    reading: int
    generating: int

    def within(self, other: Budgets) -> Budgets:
        """The smaller of each."""
        return Budgets(min(self.reading, other.reading), min(self.generating, other.generating))


def measure_budgets(pair: ModelPair, config: EvaluateConfig) -> Budgets:
    """As configured, or what this process's memory allows."""
    with pair.playing("base") as model:
        return Budgets(
            resolve_batch_tokens(config.batch_tokens, model),
            resolve_batch_tokens(config.batch_tokens, model, MOST_GENERATED_TOKENS),
        )


def chosen_sweep(pair: ModelPair, config: EvaluateConfig) -> str:
    """How activations are read here: "simple" (padded batches) or "flat"."""
    if config.sweep != "auto":
        return config.sweep
    return "flat" if pair.placement.device == "cuda" else "simple"


def activation_batches(prompts: EncodedPrompts, sweep: str, roles: Sequence[str], budgets: Budgets) -> list[Batch]:
    """Batches of all prompts."""
    group = flat_batches if sweep == "flat" else token_budget_batches
    lengths = [len(ids) for ids in prompts.token_ids]
    return list_batches(READ, roles, lengths, lambda lengths: group(lengths, budgets.reading))


def activation_shape(pair: ModelPair, prompts: EncodedPrompts) -> tuple[int, int, int]:
    """[N, L + 1, D] of all prompts."""
    with pair.playing("base") as model:
        return (len(prompts.prompts), *states_of(model))


def read_activations(
    pair: ModelPair,
    prompts: EncodedPrompts,
    config: EvaluateConfig,
    role: str,
    share: Share,
    budgets: Budgets,
    degrade: Degrade,
    *,
    table: Activations | None = None,
    copies: HostCopies | None = None,
) -> Activations:
    """A role's pooled activations of some prompts.

    Args:
        pair: both models.
        prompts: what they read.
        config: pooling and the way of reading.
        role: in `ROLES`.
        share: which prompts.
        budgets: of this process.
        degrade: told (name, detail) when batches must be smaller than planned, or a kernel is missing.
        table: [N, L + 1, D] of all prompts, to write into.
        copies: who stores what the flat sweep reads; None = all is stored before this returns.

    Returns:
        The table, or [len(share.rows), L + 1, D] where there is none.

    Raises:
        InputError: NaN or infinity (which prompt, which layer), here or once `copies` has finished.
    """
    flat = chosen_sweep(pair, config) == "flat"
    if flat:
        tell_missing_kernels(pair.placement, degrade)
    token_ids = [prompts.token_ids[row] for row in share.rows]
    ids = [prompt.prompt_id for prompt in prompts.prompts]
    if table is None:
        shape = (len(share.rows), *activation_shape(pair, prompts)[1:])
        ids = [ids[row] for row in share.rows]
        into = Rows(np.empty(shape, dtype=np.float32), range(len(share.rows)), role, ids)
    else:
        into = Rows(table, share.rows, role, ids)
    pooled = {
        "pooling": config.pooling,
        "bos_id": pair.tokenizer.bos_token_id,
        "batch_tokens": budgets.reading,
        "within": share.sizes,
        "into": into,
        "what": f"activations of the {role} model",
    }
    with pair.playing(role) as model:
        if flat:
            halved = partial(_tell_halved, degrade, role, budgets.reading)
            return sweep_flat(model, token_ids, on_halved=halved, copies=copies, **pooled)
        return sweep(model, token_ids, pad_id=pair.pad_id, **pooled)


def tell_missing_kernels(placement: Placement, degrade: Degrade) -> None:
    """Name the fast parts of the flat sweep that a GPU's machine lacks; on the CPU there are none."""
    if placement.device != "cuda":
        return
    if (failure := kernel_failure()) is not None:
        degrade("no varlen attention", f"{failure}; activations: attention is computed row by row, which is slower")
    if liger_kernels() is None:
        degrade("no Liger kernels", "activations: liger-kernel is not installed; torch's own operations are slower")


def _tell_halved(degrade: Degrade, role: str, planned: int, halved: int) -> None:
    degrade(
        "smaller batches",
        f"activations of the {role} model: batches of up to {planned} tokens did not fit the GPU's free memory, "
        f"{halved} did; set evaluate.batch_tokens={halved}",
    )
