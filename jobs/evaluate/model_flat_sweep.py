"""The same states as `model_sweep.sweep`, at the speed of a GPU.

Prompts lie end to end without padding, only the trunk runs, states are pooled in float32 on the device inside hooks,
and a batch's pooled states travel to the host while the next one computes.

Legend: R prompts of a batch, T their tokens, N all prompts, L layers, D width; entries of the layer axis as there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.evaluate.batching import flat_batches
from jobs.evaluate.model_fused import fused_layers
from jobs.evaluate.model_sweep import Pooling, Rows, find_trunk, first_pooled, hooked, states_of
from pipeline_common.gpu.attention import flatten_rows, register_varlen
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
        what: for the progress display.
        on_halved: told the smaller budget when a batch did not fit, to be recorded.

    Returns:
        The array [M, L + 1, D] that they went into.

    Raises:
        InputError: a prompt without a token to pool, or a trunk of another shape.
        torch.OutOfMemoryError: half of the budget does not fit either.
    """
    firsts = [first_pooled(ids, pooling, bos_id) for ids in prompts]
    trunk, layers, norm = find_trunk(model)
    device = next(trunk.parameters()).device
    shape = states_of(model)
    target = into or Rows.new(len(prompts), model)
    copies = _HostCopies(target, device)
    # The hooks read what the current batch is from here: there is no other way to tell them.
    state: dict[str, Any] = {}

    def keep(entry: int, hidden: Any) -> None:
        state["pooled"][:, entry] = state["pool"](hidden[0])

    def read(batch: Sequence[int]) -> None:
        state["pool"] = _make_pool([(firsts[index], len(prompts[index])) for index in batch], pooling, device)
        state["pooled"] = torch.empty((len(batch), *shape), dtype=torch.float32, device=device)
        trunk(**_to_device(flatten_rows([prompts[index] for index in batch]), device).model_inputs())

    lengths = [len(ids) for ids in prompts]
    waiting = deque(flat_batches(lengths, batch_tokens, within))
    halved = False
    with _varlen(trunk), fused_layers(trunk) as replaced, hooked(layers, norm, keep), track(what, len(prompts)) as told:
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
            else:
                copies.send(batch, state.pop("pooled"))
                done += len(batch)
                told(done)
                continue
            # Outside the handler, whose traceback keeps the failed batch's tensors alive.
            torch.cuda.empty_cache()
            rest = [*batch, *(index for later in waiting for index in later)]
            again = flat_batches([lengths[index] for index in rest], batch_tokens // 2)
            waiting = deque([rest[place] for place in places] for places in again)
            on_halved(batch_tokens // 2)
        copies.finish()
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


def _to_device(batch: Any, device: torch.device) -> Any:
    return batch.to(device) if device.type == "cuda" else batch


def _make_pool(spans: Sequence[tuple[int, int]], pooling: Pooling, device: torch.device) -> Callable[[Any], Any]:
    """Mean over tokens first ... end - 1 of each row: hidden states [T, D] -> [R, D] in float32."""
    ends = torch.tensor([end for _, end in spans])
    if pooling == "last":
        last = (ends.cumsum(0) - 1).to(device)
        return lambda hidden: hidden[last].float()
    firsts = torch.tensor([first for first, _ in spans])
    # What is left out and what is pooled take turns; each sum is one token after the other, whatever lies beside it.
    lengths = torch.stack([firsts, ends - firsts], dim=1).flatten().to(device)
    counts = (ends - firsts)[:, None].to(device)

    def pool(hidden: Any) -> Any:
        return torch.segment_reduce(hidden.float(), "sum", lengths=lengths, unsafe=True)[1::2] / counts

    return pool


class _HostCopies:
    """Copies pooled states into rows on the host; on CUDA by a stream of its own, while the next batch computes."""

    def __init__(self, target: Rows, device: torch.device) -> None:
        self._target = target
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._under_way: deque[tuple[Sequence[int], Any, Any]] = deque()

    def send(self, batch: Sequence[int], pooled: Any) -> None:
        """Start copying pooled states [R, L + 1, D] of these prompts; ends the copy before the last one."""
        if self._stream is None:
            self._store(batch, pooled)
            return
        # Pinned, or the copy would not overlap; torch keeps such memory for the next batch of this size.
        target = torch.empty(pooled.shape, dtype=pooled.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            target.copy_(pooled, non_blocking=True)
            pooled.record_stream(self._stream)
            copied = torch.cuda.Event()
            copied.record()
        self._under_way.append((batch, target, copied))
        if len(self._under_way) > 1:
            self._receive()

    def finish(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            self._receive()

    def _receive(self) -> None:
        batch, pooled, copied = self._under_way.popleft()
        copied.synchronize()
        self._store(batch, pooled)

    def _store(self, batch: Sequence[int], pooled: Any) -> None:
        self._target.array[[self._target.places[index] for index in batch]] = pooled.numpy()
