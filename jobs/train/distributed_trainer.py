"""The trainers, for several processes: every one reads the same rows and computes its share of them.

The library would deal whole batches to the processes, and repeat rows where an epoch's end does not divide. Here every
process's loader yields all rows of a batch, in the order of one process, and the collator keeps this process's share.
Losses are summed over all and divided by all answer tokens, so a step is the step of one process.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate.data_loader import BatchSamplerShard
from transformers import TrainerCallback

from jobs.train.callbacks import end_after_this_step, is_evaluation_due, leave_evaluation
from jobs.train.checkpoints import Checkpoint
from jobs.train.distributed import Team
from jobs.train.flat import FlatTrainer
from jobs.train.rows import IGNORED
from jobs.train.shares import balance, deal
from jobs.train.trainer import AnswerTrainer

if TYPE_CHECKING:
    from jobs.train.recipe import Recipe
    from pipeline_common.termination import StopSignal

_TOKENS: Final = "all_tokens"
Row = dict[str, Any]


class ShareCollator:
    """A batch of which this process gets its share; where there is none, a row that carries no loss."""

    def __init__(self, inner: Callable[[list[Row]], dict[str, Any]], team: Team, *, by_tokens: bool) -> None:
        """Wrap a collator.

        Args:
            inner: makes a batch of rows.
            team: P processes.
            by_tokens: shares of like token count; otherwise of the same row count, filled up where one lacks.
        """
        self._inner = inner
        self._place = team.place
        self._by_tokens = by_tokens

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The share of R rows; `all_tokens` counts the tokens of all of them."""
        lengths = [len(row["input_ids"]) for row in rows]
        shares = balance(lengths, self._place.processes) if self._by_tokens else deal(len(rows), self._place.processes)
        own = [rows[number] for number in shares[self._place.rank]]
        size = 1 if self._by_tokens else max(map(len, shares))
        own += [silent(rows[0])] * (size - len(own))
        return {**self._inner(own), _TOKENS: sum(lengths)}


def silent(row: Row) -> Row:
    """A short row none of whose tokens is in the loss, for a process that must take part without a row."""
    return {"input_ids": row["input_ids"][:2], "labels": [IGNORED, IGNORED]}


class TeamMixin:
    """What differs from one process alone."""

    team: Team

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The library's loader, without its division of batches among the processes."""
        loader = super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        sampler = loader.batch_sampler
        if not isinstance(sampler, BatchSamplerShard):
            raise AssertionError(f"the library divides batches in a way of its own: {type(sampler).__name__}")
        sampler.num_processes, sampler.process_index, sampler.even_batches = 1, 0, False
        return loader

    def training_step(self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """One process's part of a step; the tokens that are reported are those of all."""
        # An evaluation switches the model inside, not its wrapper.
        if not self.model.training:
            model.train()
        total = self._total_train_tokens + inputs.pop(_TOKENS)
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        self._total_train_tokens = total
        self._metrics["train"]["num_tokens"] = [total]
        return loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """One process's part of an evaluation batch."""
        inputs.pop(_TOKENS)
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def pool(self, nats: float, tokens: int) -> tuple[float, int]:
        """Sums over the processes, the same at each."""
        found = self.team.gather((nats, tokens))
        return sum(part for part, _ in found), sum(part for _, part in found)

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing: random numbers are drawn anew for every step (`TeamWatcher`)."""


class TeamTrainer(TeamMixin, AnswerTrainer):
    """TRL's padded batches."""


class TeamFlatTrainer(TeamMixin, FlatTrainer):
    """Rows end to end."""


def make_shared(trainer: Any, team: Team) -> None:
    """Let a trainer that has been built take its share only."""
    trainer.team = team
    trainer.data_collator = ShareCollator(trainer.data_collator, team, by_tokens=isinstance(trainer, FlatTrainer))
    # What is frozen is the same everywhere; sending it around would only take time.
    frozen = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    frozen += [name for name, _ in trainer.model.named_buffers()]
    trainer.model._ddp_params_and_buffers_to_ignore = frozen


class TeamWatcher(TrainerCallback):  # type: ignore[misc]  # the library is untyped
    """What every process does around a step, so that all do the same."""

    def __init__(self, team: Team, recipe: Recipe, stop: StopSignal) -> None:
        self._team = team
        self._train = recipe.train
        self._steps = recipe.schedule.steps
        self._stop = stop

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Random numbers that depend on nothing but seed, step and process: a resume draws the same."""
        torch.manual_seed(derive_seed(self._train.seed, state.global_step, self._team.place.rank))

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate together; stop together when SIGTERM has reached any of the processes."""
        if is_evaluation_due(state.global_step, self._train.eval_steps, self._steps):
            control.should_evaluate = True
        if self._team.agree_to_stop(self._stop.requested):
            self._stop.requested = True
            end_after_this_step(control)

    def on_prediction_step(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Leave a long evaluation at once after SIGTERM.

        Raises:
            TerminatedError: SIGTERM has reached this process.
        """
        leave_evaluation(self._stop)


def derive_seed(seed: int, step: int, rank: int) -> int:
    """Of one step's dropout in one process: 63 bits."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def share_checkpoint(team: Team, found: Checkpoint | None, root: Path) -> Checkpoint | None:
    """The checkpoint that process 0 goes on from, in a folder that this process can read.

    Args:
        team: met.
        found: what process 0 found; the others' do not matter.
        root: this process's folder of checkpoints.
    """
    place = team.place
    files = None
    if place.leads and found is not None:
        # On the other machines it has to be written first.
        paths = [path for path in sorted(found.folder.iterdir()) if path.is_file()] if place.machines > 1 else []
        files = (found.folder.name, found.step, {path.name: path.read_bytes() for path in paths})
    told = team.share(files)
    if told is None:
        return None
    name, step, contents = told
    folder = root / name
    if place.machine > 0 and place.local_rank == 0:
        shutil.rmtree(root, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, content in contents.items():
            (folder / file).write_bytes(content)
    team.gather(None)  # written everywhere
    return Checkpoint(folder, step)
