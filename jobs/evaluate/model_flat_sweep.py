"""The same states as `model_sweep.sweep`, at the speed of a GPU.

Prompts lie end to end without padding, only the trunk runs, states are pooled in float32 on the device inside hooks,
and a batch's pooled states travel to the host while the next one computes.

Legend: R prompts of a batch, T their tokens, N all prompts, L layers, D width; entries of the layer axis as there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.evaluate.batching import flat_batches
from jobs.evaluate.model_copies import HostCopies, copying
from jobs.evaluate.model_fused import fused_layers
from jobs.evaluate.model_sweep import Pooling, Rows, first_pooled, hooked, states_of
from pipeline_common.gpu.attention import flatten_rows, register_varlen
from pipeline_common.gpu.trunk import find_trunk
from pipeline_common.logs import get_logger
from pipeline_common.progress import track

_log = get_logger(__name__)


def sweep_flat(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    pooling: Pooling,
    bos_id: int | None,
    batch_tokens: int,
    within: Sequence[int] | None = None,
    into: Rows | None = None,
    copies: HostCopies | None = None,
    what: str = "activations",
    on_halved: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Pool the hidden states of every prompt at every layer.

    In float32 the result is `sweep`'s within 1e-5; in bfloat16 within the rounding that any other order of summation
    gives. The same holds for how prompts are batched and ordered: a matrix product may choose another kernel for
    another number of tokens. A batch that the GPU's memory does not hold is halved once, and all that follow with it.

    Args:
        model: a causal language model of transformers with a Llama-like trunk, without gradients.
        prompts: token ids of each prompt [N], none empty.
        pooling: "last" = the last prompt token; "mean" = all but a leading BOS.
        bos_id: what counts as BOS; None = the model has none.
        batch_tokens: most tokens in a batch.
        within: prompts that may share a batch, as so many in a row each; None = all of them.
        into: where the states go; None = a new array, in the order of `prompts`.
        copies: who stores them; the states are there, and known to be finite, once it has finished. None = before this
            returns.
        what: for the progress display.
        on_halved: told the smaller budget when a batch did not fit, to be recorded.

    Returns:
        The array [M, L + 1, D] that they went into.

    Raises:
        InputError: a prompt without a token to pool, a trunk of another shape, or a state that is not finite (prompt
            and layer named).
        torch.OutOfMemoryError: half of the budget does not fit either.
    """
    firsts = [first_pooled(ids, pooling, bos_id) for ids in prompts]
    trunk, layers, norm = find_trunk(model)
    device = next(trunk.parameters()).device
    shape = states_of(model)
    target = into or Rows.new(len(prompts), model)
    # The hooks read what the current batch is from here: there is no other way to tell them.
    state: dict[str, Any] = {}

    def keep(entry: int, hidden: Any) -> None:
        state["pooled"][:, entry] = state["pool"](hidden[0])

    def read(batch: Sequence[int]) -> None:
        state["pool"] = _make_pool([(firsts[index], len(prompts[index])) for index in batch], pooling, device)
        state["pooled"] = torch.empty((len(batch), *shape), dtype=torch.float32, device=device)
        trunk(**_inputs([prompts[index] for index in batch], device))

    lengths = [len(ids) for ids in prompts]
    waiting = deque(flat_batches(lengths, batch_tokens, within))
    halved = False
    store = copying(device) if copies is None else nullcontext(copies)
    with (
        store as sink,
        _varlen(trunk),
        fused_layers(trunk) as replaced,
        hooked(layers, norm, keep),
        track(what, len(prompts)) as told,
    ):
        _log.debug("%s: %d batches of at most %d tokens; fused: %s", what, len(waiting), batch_tokens, replaced)
        done = 0
        while waiting:
            batch = waiting.popleft()
            try:
                read(batch)
            except torch.OutOfMemoryError:
                if halved or batch_tokens == 1 or len(batch) == 1:
                    raise
                halved, state["pooled"] = True, None
                # Of what it held: evenly filled batches may be far below the budget.
                half = min(batch_tokens, sum(lengths[index] for index in batch)) // 2
            else:
                sink.send(target, batch, state.pop("pooled"))
                done += len(batch)
                told(done)
                continue
            # Outside the handler, whose traceback keeps the failed batch's tensors alive.
            torch.cuda.empty_cache()
            rest = [*batch, *(index for later in waiting for index in later)]
            again = flat_batches([lengths[index] for index in rest], half)
            waiting = deque([rest[place] for place in places] for places in again)
            on_halved(half)
    return target.array


@contextmanager
def _varlen(trunk: Any) -> Iterator[None]:
    """Attention inside each row only; the model's own implementation again at the end."""
    before = trunk.config._attn_implementation
    trunk.set_attn_implementation(register_varlen())
    try:
        yield
    finally:
        trunk.set_attn_implementation(before)


def _to_device(tensor: Any, device: torch.device) -> Any:
    """On CUDA from pinned memory: from any other a copy would wait until the batches before it have been computed."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _inputs(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    batch = flatten_rows(rows)
    moved = {name: _to_device(getattr(batch, name), device) for name in ("input_ids", "position_ids", "cu_seqlens")}
    return replace(batch, **moved).model_inputs()


def _make_pool(spans: Sequence[tuple[int, int]], pooling: Pooling, device: torch.device) -> Callable[[Any], Any]:
    """Mean over tokens first ... end - 1 of each row: hidden states [T, D] -> [R, D] in float32."""
    ends = torch.tensor([end for _, end in spans])
    if pooling == "last":
        last = _to_device(ends.cumsum(0) - 1, device)
        return lambda hidden: hidden[last].float()
    firsts = torch.tensor([first for first, _ in spans])
    # What is left out and what is pooled take turns; each sum is one token after the other, whatever lies beside it.
    lengths = _to_device(torch.stack([firsts, ends - firsts], dim=1).flatten(), device)
    counts = _to_device((ends - firsts)[:, None], device)

    def pool(hidden: Any) -> Any:
        return torch.segment_reduce(hidden.float(), "sum", lengths=lengths, unsafe=True)[1::2] / counts

    return pool
