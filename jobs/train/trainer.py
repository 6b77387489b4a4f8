"""TRL's trainer as this stage runs it: an exact evaluation that leaves no trace, and no model cards."""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTTrainer

from jobs.train.rows import IGNORED


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]  # the library is untyped
    """TRL's trainer with an evaluation that is exact and leaves no trace in the training."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate; dropout's random numbers afterwards are those of a run without evaluation."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The library's loop, its loss replaced by the mean over all answer tokens.

        The library averages the batches' means over rows, so that the loss would depend on how rows fall into batches.
        """
        self._nats, self._tokens = 0.0, 0
        output = super().evaluation_loop(*args, **kwargs)
        nats, tokens = self.pool(self._nats, self._tokens)
        output.metrics["eval_loss"] = nats / tokens
        return output

    def pool(self, nats: float, tokens: int) -> tuple[float, int]:
        """Sums over all processes; here over this one."""
        return nats, tokens

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """One evaluation batch: labels [B, T]."""
        loss, logits, labels = super().prediction_step(model, inputs, *args, **kwargs)
        tokens = int((inputs["labels"] != IGNORED).sum())
        self._nats += float(loss) * tokens
        self._tokens += tokens
        return loss, logits, labels

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the library would write one into every checkpoint; the adapter gets ours."""
