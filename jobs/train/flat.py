"""The flat engine: one optimizer step's rows end to end, cut into passes by a token budget. No padding anywhere.

A step holds the rows that the plain engine's step holds, in the same order, and its loss is the same mean over the
step's answer tokens; only how many rows go through the model at once differs. With dropout the two draw different
random numbers, so their losses agree only in distribution.

Legend: R rows, T tokens of all of them, M answer tokens.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jobs.train.flat_loss import sum_nats
from jobs.train.fused_adapters import FusedAdapters
from jobs.train.joined_optimizer import join_parameters
from jobs.train.recorded_passes import RecordedPasses
from jobs.train.rows import IGNORED
from jobs.train.trainer import AnswerTrainer
from pipeline_common.gpu.attention import flatten_rows, split_by_tokens
from pipeline_common.logs import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class StepRows:
    """The R rows of one step, on the host."""

    input_ids: tuple[torch.Tensor, ...]
    """R times int64 [T]."""
    labels: tuple[torch.Tensor, ...]
    """R times int64 [T], `IGNORED` where a token carries no loss."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """R lengths."""
        return tuple(len(ids) for ids in self.input_ids)

    def passes(self, budget: int) -> Iterator[dict[str, Any]]:
        """Model inputs of one forward pass after the other, on the host.

        Args:
            budget: tokens of one pass; a longer row is a pass of its own.
        """
        for rows in split_by_tokens(self.lengths, budget):
            yield flat_inputs([self.input_ids[row] for row in rows], [self.labels[row] for row in rows])


def flat_inputs(input_ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Model inputs of rows laid end to end: those of `VarlenBatch`, and which positions predict what.

    `target_positions` [M] are the positions before answer tokens, `target_ids` [M] those tokens. A row's first token is
    never in the loss, so no row's end predicts the next row's start.
    """
    following = torch.cat(list(labels))[1:]
    positions = (following != IGNORED).nonzero().flatten()
    return {
        **flatten_rows(input_ids).model_inputs(),
        "target_positions": positions,
        "target_ids": following[positions],
    }


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the loader hands to the trainer: the rows as they are, and labels [1, T] for the trainer to count."""
    ids, labels = (
        # Through NumPy, which reads lists eight times as fast.
        tuple(torch.from_numpy(np.array(row[name], dtype=np.int64)) for row in rows)
        for name in ("input_ids", "labels")
    )
    return {"labels": torch.cat(labels)[None], "step": StepRows(ids, labels)}


def add_flat_loss(model: Any, *, liger: bool) -> None:
    """Let `model(..., target_positions=, target_ids=)` return summed nats; without them it answers as before.

    With `filled_up=True` some of the targets may be `IGNORED`, and the host never waits for the device.

    Args:
        model: the transformers model inside the adapter's wrapper.
        liger: use Liger's fused head.
    """
    before = model.forward

    def forward(
        self: Any,
        *args: Any,
        target_positions: Any = None,
        target_ids: Any = None,
        filled_up: bool = False,
        labels: Any = None,
        **kwargs: Any,
    ) -> Any:
        if target_positions is None:
            return before(*args, **kwargs) if labels is None else before(*args, labels=labels, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        # Liger's head asks the device how many targets count.
        fast = liger and not filled_up
        return sum_nats(hidden[0, target_positions], self.get_output_embeddings(), target_ids, liger=fast)

    model.forward = types.MethodType(forward, model)


class FlatTrainer(AnswerTrainer):
    """The trainer, fed with a step's rows at once; passes are cut here, so that their size may change on the way."""

    tokens_per_batch: int
    """Budget of one pass."""
    adapters: FusedAdapters | None = None
    """The projections whose forward is ours; None = all are PEFT's."""
    recorded: RecordedPasses | None = None
    """Passes as CUDA graphs; None = started kernel by kernel."""
    on_less_memory: Callable[[str], None]
    """Told once, if the budget had to be halved."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one step; once in a run, less memory than planned for means half the budget.

        Passes that are recorded are first started kernel by kernel again, for recordings keep memory.
        """
        try:
            return self._run_passes(model, inputs["step"], num_items_in_batch)
        except torch.cuda.OutOfMemoryError as error:
            if getattr(self, "_halved", False) or self.accelerator.num_processes > 1:
                raise
            reason = str(error).splitlines()[0][:120]
        # Outside the handler: the exception would hold the failed pass's activations.
        if self.recorded is not None:
            self.recorded = None
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.on_less_memory(f"{reason}; passes are not recorded from here on")
            return self.training_step(model, inputs, num_items_in_batch)
        self._halved = True
        self.let_go()
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        before, self.tokens_per_batch = self.tokens_per_batch, max(1, self.tokens_per_batch // 2)
        self.on_less_memory(f"{reason}; {self.tokens_per_batch} instead of {before} tokens in a pass from here on")
        return self._run_passes(model, inputs["step"], num_items_in_batch)

    def let_go(self) -> None:
        """Free what can be made again: dequantised weights, and what a pass that failed has left."""
        for group in self.adapters.groups if self.adapters else ():
            group.forget()
            group.weights = []

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The library's choice, over one vector of parameters."""
        if self.optimizer is None:
            join_parameters(super().create_optimizer(*args, **kwargs))
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def _run_passes(self, model: Any, step: StepRows, items: Any) -> torch.Tensor:
        # The library's own step goes through thousands of modules each time to switch them to training.
        if not self.model.training:
            model.train()
        passes = list(step.passes(self.tokens_per_batch))
        if self.recorded is not None:
            total = self._replay(self.recorded, passes, items)
        else:
            total = torch.zeros((), device=self.args.device)
            for number, inputs in enumerate(passes, 1):
                # Gradients travel between processes once a step, with its last pass.
                alone = self.accelerator.num_processes == 1 or number == len(passes)
                with nullcontext() if alone else self.accelerator.no_sync(model):
                    total += self._run_pass(model, self.to_device(inputs), items)
        tokens = sum(step.lengths)
        if self.accelerator.num_processes > 1:
            tokens = int(self.accelerator.reduce(torch.tensor(tokens, device=total.device)))
        self._total_train_tokens += tokens
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return total

    def _replay(self, recorded: RecordedPasses, passes: Sequence[dict[str, Any]], items: Any) -> torch.Tensor:
        """A step's gradients, of all processes, by recorded passes; its loss as `_run_pass` would add it up."""
        recorded.begin()
        for inputs in passes:
            recorded.add(inputs)
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(recorded.gradient)
        recorded.hand_over(1.0 / items)
        return recorded.nats * (self.accelerator.num_processes / items)

    def _run_pass(self, model: Any, inputs: dict[str, Any], items: Any) -> torch.Tensor:
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs, num_items_in_batch=items)
        self.accelerator.backward(loss)
        detached: torch.Tensor = loss.detach()
        return detached

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This pass's share of the step's mean loss."""
        loss = model(**inputs) / num_items_in_batch
        if self.args.average_tokens_across_devices:
            # `num_items_in_batch` counts every process's tokens, and gradients are averaged over the processes.
            loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def try_pass(self, tokens: int) -> None:
        """Forward and backward over about `tokens` tokens of training rows, for measuring; gradients are junk."""
        rows, filled = [], 0
        while filled < tokens:
            for row in self.train_dataset.select(range(min(64, len(self.train_dataset)))):
                left = tokens - filled
                if left < 2:
                    filled = tokens
                    break
                rows.append({name: row[name][:left] for name in ("input_ids", "labels")})
                filled += len(rows[-1]["input_ids"])
        step: StepRows = collate(rows)["step"]
        for inputs in step.passes(tokens):
            with (
                self.compute_loss_context_manager(),
                torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16),
            ):
                loss = self.model(**self.to_device(inputs))
            loss.backward()

    def prediction_step(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """One evaluation batch."""
        nats = torch.zeros((), dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for part in inputs["step"].passes(self.tokens_per_batch):
                nats += model(**self.to_device(part))
        tokens = int((inputs["labels"] != IGNORED).sum())
        self._nats += float(nats)
        self._tokens += tokens
        return (nats / tokens).float(), None, None

    def to_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A pass's inputs where the model is."""
        device = self.args.device
        if device.type != "cuda":
            return inputs
        return {
            name: value.pin_memory().to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
