"""Log-odds that an answer opens with a refusal, for every prompt, without generating anything.

Prompt and the whole tree of openings go through the model as one sequence: every tree token sees the prompt, its
own ancestors and itself, at the position it would have in an answer. So a prompt is read once whatever the number of
openings, and a beginning that openings share is read once as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.model import pad_left
from jobs.evaluate.openings import OpeningTree
from pipeline_common.progress import track

_MAX_LOGITS: Final = 1 << 27
"""Entries of one batch's logits: half a GiB in float32."""


def refusal_log_odds(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tree: OpeningTree,
    *,
    pad_id: int,
    batch_tokens: int,
    within: Sequence[int] | None = None,
    what: str = "refusal log-odds",
) -> NDArray[np.float64]:
    """Log-odds that the answer begins with one of the tree's openings.

    log p and log(1 - p) are both summed up from what the model gives to staying in the tree and to leaving it at each
    node, so neither is lost to rounding when the other is near 0.

    Args:
        model: a causal language model of transformers that takes a 4-dimensional attention mask.
        prompts: token ids of each prompt [N].
        tree: the openings.
        pad_id: padding token.
        batch_tokens: most tokens in a batch; changes speed, not results beyond rounding.
        within: prompts that may share a batch, as so many in a row each; None = all of them.
        what: for the progress display.

    Returns:
        Nats per prompt [N]; positive = a refusal opening is the more probable.
    """
    nodes = len(tree.tokens)
    device = str(next(model.parameters()).device)
    result = np.empty(len(prompts), dtype=np.float64)
    with track(what, len(prompts)) as advance:
        done = 0
        for batch in token_budget_batches(
            [len(ids) + nodes for ids in prompts], batch_tokens, rows_at_once(model, tree), within
        ):
            tokens, mask = pad_left([prompts[index] for index in batch], pad_id, device)
            result[batch] = _score_batch(model, tokens, mask, tree).cpu().numpy()
            done += len(batch)
            advance(done)
    return result


def rows_at_once(model: Any, tree: OpeningTree) -> int:
    """Most prompts in a batch: each row has the logits of all nodes."""
    return max(1, _MAX_LOGITS // ((len(tree.tokens) + 1) * int(model.config.vocab_size)))


def _score_batch(model: Any, tokens: Any, mask: Any, tree: OpeningTree) -> Any:
    """Log-odds [B] of prompts [B, T] padded on the left."""
    nodes = len(tree.tokens)
    logits = model(
        input_ids=torch.cat([tokens, tokens.new_tensor([tree.tokens]).expand(len(tokens), nodes)], dim=1),
        attention_mask=_tree_mask(mask, tree),
        position_ids=_tree_positions(mask, tree),
        use_cache=False,
        logits_to_keep=nodes + 1,
    ).logits
    log_probs = logits.float().log_softmax(dim=-1)  # [B, M + 1, V]
    reached = [log_probs.new_zeros(len(tokens), dtype=torch.float64)]
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        reached.append(reached[parent] + log_probs[:, parent, token].double())
    refusing = [reached[parent] + log_probs[:, parent, token].double() for parent, token in tree.leaves]
    for node, followers in enumerate(tree.children):
        log_probs[:, node, list(followers)] = -torch.inf
    left = torch.stack(reached, dim=1) + log_probs.logsumexp(dim=-1).double()
    return torch.stack(refusing, dim=1).logsumexp(dim=1) - left.logsumexp(dim=1)


def _tree_mask(mask: Any, tree: OpeningTree) -> Any:
    """Who sees whom [B, 1, T + M, T + M]: prompts causally, tree tokens their prompt, ancestors and themselves."""
    batch, width = mask.shape
    nodes = len(tree.tokens)
    sees = torch.zeros(batch, width + nodes, width + nodes, dtype=torch.bool, device=mask.device)
    causal = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()
    real = mask.bool()[:, None, :]
    sees[:, :width, :width] = causal & real
    sees[:, width:, :width] = real
    lineage = torch.zeros(nodes + 1, nodes + 1, dtype=torch.bool)
    for node, parent in enumerate(tree.parents, start=1):
        lineage[node] = lineage[parent]
        lineage[node, node] = True
    sees[:, width:, width:] = lineage[1:, 1:].to(mask.device)
    # Padding sees itself: a row that sees nothing would turn into NaN and poison those that are masked from it.
    sees |= torch.eye(width + nodes, dtype=torch.bool, device=mask.device)
    return sees[:, None]


def _tree_positions(mask: Any, tree: OpeningTree) -> Any:
    """Position of each token [B, T + M]: padding does not count, and siblings share a place."""
    prompt = (mask.cumsum(dim=1) - 1).clamp(min=0)
    depths = mask.new_tensor([tree.depths])
    return torch.cat([prompt, prompt[:, -1:] + depths], dim=1)
