"""One state per prompt and layer, without keeping any token's states.

Legend: B batch, T tokens, N prompts, L layers, D width. Entry 0 of the layer axis is the embeddings, entry l the state
after layer l, the last one after the final norm: as in `output_hidden_states` of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.metric.representation import require_finite
from jobs.evaluate.model import pad_right
from pipeline_common.errors import InputError
from pipeline_common.gpu.trunk import find_trunk
from pipeline_common.progress import track

Pooling = Literal["last", "mean"]


@dataclass(frozen=True)
class Rows:
    """Some rows of an array."""

    array: NDArray[np.float32]
    """[M, L + 1, D]."""
    places: Sequence[int]
    """The row of each prompt [N], no two the same."""
    role: str = "the model's"
    """Whose states they are, for messages."""
    prompt_ids: Sequence[str] = ()
    """Of every row of the array [M], for messages; empty = they have none."""

    @classmethod
    def new(cls, prompts: int, model: Any) -> Rows:
        """An array of its own for so many prompts, in their order."""
        return cls(np.empty((prompts, *states_of(model)), dtype=np.float32), range(prompts))

    def refuse(self) -> NoReturn:
        """Name what is not finite in these rows, once something is known to be.

        Raises:
            InputError: prompt and layer of the first such state.
        """
        require_finite(
            self.array, self.prompt_ids or [f"{row}" for row in range(len(self.array))], self.role, self.places
        )
        raise AssertionError(f"{self.role} activations: not finite on the device, finite on the host")


def states_of(model: Any) -> tuple[int, int]:
    """L + 1 and D of a causal language model."""
    _, layers, _ = find_trunk(model)
    return len(layers) + 1, int(model.config.hidden_size)


def sweep(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    pooling: Pooling,
    pad_id: int,
    bos_id: int | None,
    batch_tokens: int,
    within: Sequence[int] | None = None,
    into: Rows | None = None,
    what: str = "activations",
) -> NDArray[np.float32]:
    """Pool the hidden states of every prompt at every layer.

    Padding is on the right and unmasked: in a causal model no real token sees it, and attention takes its fast path.
    Pooling is in float32 on the model's device; one copy at the end.

    Args:
        model: a causal language model of transformers with a Llama-like trunk.
        prompts: token ids of each prompt [N], none empty.
        pooling: "last" = the last prompt token; "mean" = all but a leading BOS, whose state is huge and the same
            for every prompt.
        pad_id: padding token.
        bos_id: what counts as BOS; None = the model has none.
        batch_tokens: most tokens in a batch; changes speed, not results beyond rounding.
        within: prompts that may share a batch, as so many in a row each; None = all of them.
        into: where the states go; None = a new array, in the order of `prompts`.
        what: for the progress display.

    Returns:
        The array [M, L + 1, D] that they went into.

    Raises:
        InputError: a prompt without a token to pool, a trunk of another shape, or a state that is not finite (prompt
            and layer named).
    """
    firsts = [first_pooled(ids, pooling, bos_id) for ids in prompts]
    trunk, layers, norm = find_trunk(model)
    device = next(trunk.parameters()).device
    pooled = torch.empty((len(prompts), *states_of(model)), dtype=torch.float32, device=device)
    # The hooks read what the current batch is from here: there is no other way to tell them.
    state: dict[str, Any] = {}

    def keep(entry: int, hidden: Any) -> None:
        pooled[state["rows"], entry] = state["pool"](hidden)

    with hooked(layers, norm, keep), track(what, len(prompts)) as advance:
        done = 0
        for batch in token_budget_batches([len(ids) for ids in prompts], batch_tokens, within=within):
            rows = [prompts[index] for index in batch]
            state["rows"] = torch.tensor(batch, device=device)
            state["pool"] = _make_pool([(firsts[index], len(prompts[index])) for index in batch], device)
            trunk(input_ids=pad_right(rows, pad_id, str(device)), use_cache=False)
            done += len(batch)
            advance(done)
    target = into or Rows.new(len(prompts), model)
    finite = not prompts or all_finite(pooled)
    target.array[list(target.places)] = pooled.cpu().numpy()
    if not finite:
        target.refuse()
    return target.array


def all_finite(states: Any) -> Any:
    """Whether no value of a tensor that is not empty is NaN or infinite: a bool tensor [] on its device.

    NaN and infinity show in the least or the greatest value; one pass over the tensor, and nothing of its size is made.
    """
    return torch.isfinite(torch.stack(states.aminmax())).all()


def first_pooled(ids: Sequence[int], pooling: Pooling, bos_id: int | None) -> int:
    """Where the pooled tokens of a prompt begin."""
    first = len(ids) - 1 if pooling == "last" else int(bos_id is not None and len(ids) > 0 and ids[0] == bos_id)
    if not 0 <= first < len(ids):
        raise InputError(f"a prompt of {len(ids)} token(s) has none to pool ({pooling}); expected text in every prompt")
    return first


def _make_pool(spans: Sequence[tuple[int, int]], device: Any) -> Callable[[Any], Any]:
    """Mean over tokens first ... end - 1 of each row: hidden states [B, T, D] -> [B, D] in float32."""
    if all(end - first == 1 for first, end in spans):
        index = torch.arange(len(spans), device=device)
        last = torch.tensor([first for first, _ in spans], device=device)
        return lambda hidden: hidden[index, last].float()
    width = max(end for _, end in spans)
    positions = torch.arange(width, device=device)
    first = torch.tensor([[first] for first, _ in spans], device=device)
    end = torch.tensor([[end] for _, end in spans], device=device)
    inside = (positions >= first) & (positions < end)
    weights = inside.float() / (end - first)

    def mean(hidden: Any) -> Any:
        # Autocast would make a bfloat16 product of this.
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.einsum("bt,btd->bd", weights, hidden.float())

    return mean


@contextmanager
def hooked(layers: Any, norm: Any, keep: Callable[[int, Any], None]) -> Iterator[None]:
    """Call `keep(entry, hidden states)` for every entry of the layer axis while the trunk runs."""

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(0, args[0] if args else kwargs["hidden_states"])

    def after(entry: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            keep(entry, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [layer.register_forward_hook(after(entry)) for entry, layer in enumerate(layers[:-1], start=1)]
    handles.append(norm.register_forward_hook(after(len(layers))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
