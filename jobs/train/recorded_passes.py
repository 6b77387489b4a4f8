"""Passes of the flat engine as CUDA graphs: recorded once for each size, then started by one call.

A pass of an 8B model is some three thousand kernels. Starting them one by one takes Python as long as a GPU takes for
thousands of tokens, so that small steps would leave it idle. A graph runs the same kernels on the same addresses:
everything that changes from pass to pass is copied to where the graph reads it, and passes are filled up to a few
sizes. What fills them up is a row of its own without a loss: no other row sees it, and it adds zero to every gradient.

Legend: T tokens of a pass, R rows, M answer tokens, P numbers of the adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch

from jobs.train.fused_adapters import FusedAdapters
from jobs.train.rows import IGNORED

_SIZES_PER_MEAN: Final = 16
"""Finer sizes waste fewer tokens (here 1 in 32), coarser ones need fewer recordings."""
_TILE: Final = 64
"""Products run in tiles of so many tokens: a finer size would not be faster."""
_QUARTERS: Final = 4


@dataclass(frozen=True)
class Size:
    """What a recording is made for."""

    tokens: int
    """T, filled up."""
    targets: int
    """M, filled up: one to four quarters of T."""


@dataclass(frozen=True)
class Sizes:
    """The sizes that a training's passes are filled up to."""

    grain: int
    """T is a multiple of it."""
    rows: int
    """Most rows of a pass, with the one that fills up."""
    longest: int
    """Tokens of the longest row, rounded up."""
    most: int
    """Largest T."""

    @classmethod
    def plan(cls, mean_tokens: float, most_tokens: int, most_rows: int, longest_row: int) -> Sizes:
        """Sizes for passes.

        Args:
            mean_tokens: of a pass.
            most_tokens: of a pass.
            most_rows: of a pass.
            longest_row: its tokens.
        """
        grain = _TILE * max(1, round(mean_tokens / _SIZES_PER_MEAN / _TILE))
        longest = _round_up(max(longest_row, grain), 2 * _TILE)
        return cls(grain, most_rows + 1, longest, _round_up(most_tokens, grain))

    def of(self, tokens: int, targets: int) -> Size:
        """The smallest size that holds so much."""
        size = _round_up(tokens, self.grain)
        quarter = size // _QUARTERS
        return Size(size, quarter * max(1, -(-targets // quarter)))

    def fill_up(self, inputs: dict[str, Any]) -> tuple[Size, dict[str, torch.Tensor]]:
        """A pass's inputs (`flat_inputs`), filled up to their size.

        Returns:
            The size, and input_ids and position_ids [T], cu_seqlens [rows + 1], target_positions and target_ids [M].

        Raises:
            ValueError: more rows, or a longer one, than these sizes were planned for.
        """
        lengths = inputs["row_lengths"]
        tokens = sum(lengths)
        if len(lengths) >= self.rows or max(lengths) > self.longest or tokens > self.most:
            raise ValueError(
                f"a pass of {len(lengths)} rows, {tokens} tokens, the longest row {max(lengths)}; expected fewer than "
                f"{self.rows} rows, at most {self.most} tokens, rows of at most {self.longest}"
            )
        targets = len(inputs["target_ids"])
        size = self.of(tokens, targets)
        # The last row holds what is missing; those after it are empty.
        ends = torch.full((self.rows + 1,), size.tokens, dtype=torch.int32)
        ends[: len(lengths) + 1] = inputs["cu_seq_lens_q"]
        return size, {
            "input_ids": _extend(inputs["input_ids"][0], size.tokens, 0),
            "position_ids": torch.cat([inputs["position_ids"][0], torch.arange(size.tokens - tokens)]),
            "cu_seqlens": ends,
            "target_positions": _extend(inputs["target_positions"], size.targets, 0),
            "target_ids": _extend(inputs["target_ids"], size.targets, IGNORED),
        }


class RecordedPasses:
    """Forward and backward passes of one model; their gradients and nats add up here."""

    def __init__(
        self,
        model: Any,
        adapters: FusedAdapters,
        sizes: Sizes,
        *,
        autocast: torch.dtype | None,
        recording: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Make room for gradients and inputs.

        Args:
            model: the adapter's wrapper, with `add_flat_loss`; in training mode when passes are run.
            adapters: of the model, all that is trained of it.
            sizes: of the passes.
            autocast: the type that is computed with; None = the parameters'.
            recording: entered while a pass is recorded, to time it.
        """
        self._model = model
        self._adapters = adapters
        self.sizes = sizes
        self._autocast = autocast
        self._recording = recording
        self._parameters = adapters.parameters
        device = self._parameters[0].device
        self.gradient = torch.zeros(sum(one.numel() for one in self._parameters), device=device)
        """[P], float32, of the nats of all passes since `begin`."""
        parts = self.gradient.split([one.numel() for one in self._parameters])
        self._slopes = [part.view(one.shape) for part, one in zip(parts, self._parameters, strict=True)]
        self.nats = torch.zeros((), device=device)
        """Summed over the same passes."""
        rooms = dict.fromkeys(("input_ids", "position_ids", "target_positions", "target_ids"), sizes.most)
        self._inputs = {name: torch.zeros(room, dtype=torch.int64, device=device) for name, room in rooms.items()}
        self._inputs["cu_seqlens"] = torch.zeros(sizes.rows + 1, dtype=torch.int32, device=device)
        self._graphs: dict[Size, torch.cuda.CUDAGraph] = {}
        self._addresses: list[int] = []
        self._pool: Any = None
        self.forget()

    @property
    def recorded(self) -> int:
        """How many sizes have been recorded."""
        return len(self._graphs)

    def forget(self) -> None:
        """Let go of all recordings; sizes that come are recorded anew."""
        self._graphs.clear()
        # A pool ends with its last recording.
        self._pool = torch.cuda.graph_pool_handle() if self.gradient.is_cuda else None

    def begin(self) -> None:
        """Start a step: no nats and no gradients yet."""
        addresses = [parameter.data_ptr() for parameter in self._parameters]
        if addresses != self._addresses:
            # An optimizer that joins the parameters has moved them, say: recordings would read what is there no more.
            self.forget()
            self._addresses = addresses
        self.gradient.zero_()
        self.nats.zero_()

    def add(self, inputs: dict[str, Any]) -> None:
        """Run a pass (`flat_inputs`, on the host); a size that has not been met before is recorded first.

        Call `try_out` before the first one.

        Raises:
            torch.OutOfMemoryError: while recording.
        """
        size, filled = self.sizes.fill_up(inputs)
        self._adapters.draw_seeds()
        self._copy_in(filled)
        if self._pool is None:
            with self._adapters.same_seeds():
                self._run(size)
            return
        if size not in self._graphs:
            with self._recording(), self._adapters.same_seeds():
                self._graphs[size] = self._record(size)
        self._graphs[size].replay()

    def try_out(self, inputs: dict[str, Any]) -> None:
        """Run a pass unrecorded, so that kernels are compiled and libraries set up; `begin` forgets what it adds."""
        size, filled = self.sizes.fill_up(inputs)
        self._copy_in(filled)
        self._run(size)

    def hand_over(self, scale: torch.Tensor | float) -> None:
        """End a step: the parameters' gradients are those of `scale` times the nats."""
        self.gradient.mul_(scale)
        for parameter, slope in zip(self._parameters, self._slopes, strict=True):
            parameter.grad = slope

    def _copy_in(self, filled: dict[str, torch.Tensor]) -> None:
        for name, value in filled.items():
            source = value if self._pool is None else value.pin_memory()
            self._inputs[name][: len(value)].copy_(source, non_blocking=True)

    def _run(self, size: Size) -> None:
        inside = self._inputs
        device = self.gradient.device.type
        autocast = torch.autocast(device, self._autocast, enabled=self._autocast is not None, cache_enabled=False)
        with self._adapters.fresh_leaves() as leaves:
            with autocast:
                nats = self._model(
                    input_ids=inside["input_ids"][: size.tokens][None],
                    position_ids=inside["position_ids"][: size.tokens][None],
                    cu_seq_lens_q=inside["cu_seqlens"],
                    cu_seq_lens_k=inside["cu_seqlens"],
                    max_length_q=self.sizes.longest,
                    max_length_k=self.sizes.longest,
                    use_cache=False,
                    target_positions=inside["target_positions"][: size.targets],
                    target_ids=inside["target_ids"][: size.targets],
                    filled_up=True,
                )
            torch._foreach_add_(self._slopes, torch.autograd.grad(nats, leaves))
        self.nats.add_(nats.detach())

    def _record(self, size: Size) -> torch.cuda.CUDAGraph:
        """Nothing runs. What passes need between their kernels lies in one pool, for they run one after the other."""
        graph = torch.cuda.CUDAGraph()
        # Relaxed: a kernel that is used for the first time may be loaded meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="relaxed"):
            self._run(size)
        return graph


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _extend(values: torch.Tensor, length: int, filler: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)), value=filler)
