"""Whether a training's passes are recorded, and the proof on this machine that a recording computes the same.

Recording pays where starting a pass's kernels takes the host about as long as the GPU works on them: small steps.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from jobs.train import dropped_products
from jobs.train.flat import flat_inputs
from jobs.train.recorded_passes import RecordedPasses, Sizes
from pipeline_common.errors import ConfigError
from pipeline_common.gpu.recordable import can_be_recorded
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.batch_plan import BatchPlan, Work
    from jobs.train.flat import FlatTrainer
    from jobs.train.recipe import Recipe

_PAYS_FROM: Final = 0.7
"""How long starting a pass takes over how long the GPU works on it: below that the host is ahead of the GPU."""
_FEWEST_STEPS: Final = 50
"""Recording a size takes about as long as two steps, and there are some twenty sizes."""
_GRADIENT_APART: Final = 0.05
"""Relative Frobenius norm: some roundings of 0.4 %, the products' order of summation depends on the filling."""
_NATS_APART: Final = 0.01
_log = get_logger(__name__)


def record_passes(trainer: FlatTrainer, recipe: Recipe, plan: BatchPlan, work: Work) -> RecordedPasses | None:
    """Recorded passes for a trainer whose plan has been made; None where they are started kernel by kernel.

    All processes of a training do the same.

    Raises:
        ConfigError: `train.cuda_graphs=true`, and it cannot be done.
    """
    asked = recipe.train.cuda_graphs
    mean = min(plan.tokens_per_batch, work.mean_step / recipe.processes / work.passes(plan.tokens_per_batch))
    wanted = pays(plan, mean, recipe.schedule.steps) if asked == "auto" else asked
    if not _all(recipe, wanted):
        return None
    obstacle = find_obstacle(trainer, recipe, plan)
    recorded = None
    if obstacle is None:
        recorded = _build(trainer, recipe, plan, work, mean)
        with recipe.clock.phase("recording passes", "compile"):
            obstacle = try_recording(trainer, recorded, plan, recipe.placement.compute_dtype)
    if _all(recipe, obstacle is None):
        _log.info("passes are recorded as CUDA graphs, one for each size")
        return recorded
    obstacle = obstacle or "another process cannot"
    if asked is True:
        raise ConfigError(f"train.cuda_graphs=true, but {obstacle}; set it to auto or false")
    recipe.degrade("no recorded passes", f"{obstacle}; each pass's kernels are started one by one, which is slower")
    return None


def pays(plan: BatchPlan, mean_tokens: float, steps: int) -> bool:
    """Whether recording passes of `mean_tokens` is worth its time in a training of so many steps.

    Where memory is so short that activations are recomputed, it is no question.
    """
    if plan.launch_tokens is None or plan.recomputed_layers:
        return False
    return plan.launch_tokens >= _PAYS_FROM * mean_tokens and steps >= _FEWEST_STEPS


def find_obstacle(trainer: FlatTrainer, recipe: Recipe, plan: BatchPlan) -> str | None:
    """Why passes of this training cannot be recorded; None when nothing is known to be in the way."""
    if recipe.placement.device != "cuda":
        return "there is no GPU"
    if not recipe.engine.varlen:
        return "attention is computed row by row"
    if plan.recomputed_layers:
        return "activations are recomputed (train.activation_checkpointing, train.memory_gib)"
    adapters = trainer.adapters
    trained = sum(parameter.requires_grad for parameter in trainer.model.parameters())
    if adapters is None or len(adapters.parameters) != trained:
        return "some adapters are computed by PEFT"
    if any(group.drop and not dropped_products.fills_a_tile(group.rank) for group in adapters.groups):
        return "the dropout kernels have no products of this rank (train.lora_r)"
    if recipe.train.lora_dropout and (broken := dropped_products.kernel_failure()) is not None:
        return f"there are no dropout kernels ({broken})"
    config = trainer.model.get_base_model().config
    return None if can_be_recorded(config) else f"a {config.model_type} model's layers may need the host"


def try_recording(
    trainer: FlatTrainer, recorded: RecordedPasses, plan: BatchPlan, compute_dtype: torch.dtype
) -> str | None:
    """Record a pass over two rows and compare it with the same pass unrecorded; random numbers stay as they were.

    Returns:
        What went wrong; None when both agree.
    """
    # Two rows, or what there is room for: the unrecorded pass needs memory beside the recording's.
    rows: list[Any] = []
    for row in trainer.train_dataset.select(range(min(len(trainer.train_dataset), recorded.sizes.rows - 1, 2))):
        if rows and len(rows[0]["input_ids"]) + len(row["input_ids"]) > plan.tokens_per_batch:
            break
        rows.append(row)
    parts = ([torch.tensor(row[name]) for row in rows] for name in ("input_ids", "labels"))
    inputs = flat_inputs(*parts)
    assert trainer.adapters is not None
    with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
        trainer.model.train()
        try:
            recorded.try_out(inputs)
            torch.cuda.empty_cache()
            recorded.begin()
            recorded.add(inputs)
            with trainer.adapters.same_seeds(), torch.autocast("cuda", compute_dtype):
                nats = trainer.model(**trainer.to_device(inputs))
            nats.backward()
            torch.cuda.synchronize()
        except (RuntimeError, AssertionError) as error:
            _log.debug("recording failed", exc_info=True)
            trainer.model.zero_grad(set_to_none=True)
            return f"recording failed: {_first_cause(error)}"
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trainer.adapters.parameters]
    expected = torch.cat([slope.flatten() for slope in found])
    trainer.model.zero_grad(set_to_none=True)
    apart = float((recorded.gradient - expected).norm() / expected.norm())
    nats_apart = abs(float(recorded.nats / nats.detach()) - 1.0)
    _log.debug("recorded and unrecorded pass: gradients %.2e apart, nats %.2e", apart, nats_apart)
    if not (apart <= _GRADIENT_APART and nats_apart <= _NATS_APART):
        return f"a recorded pass is not the unrecorded one: gradients differ by {apart:.1%}, losses by {nats_apart:.1%}"
    return None


def _build(trainer: FlatTrainer, recipe: Recipe, plan: BatchPlan, work: Work, mean: float) -> RecordedPasses:
    assert trainer.adapters is not None
    # Other passes' memory would lie idle beside the recordings'.
    gc.collect()
    torch.cuda.empty_cache()
    sizes = Sizes.plan(
        mean_tokens=mean,
        most_tokens=max(work.longest_row, min(plan.tokens_per_batch, work.largest_step)),
        most_rows=recipe.train.batch_size * recipe.train.gradient_accumulation,
        longest_row=work.longest_row,
    )
    return RecordedPasses(
        trainer.model,
        trainer.adapters,
        sizes,
        autocast=torch.bfloat16 if trainer.args.bf16 else None,
        recording=partial(recipe.clock.phase, "recording passes", "compile"),
    )


def _first_cause(error: BaseException) -> str:
    """What went wrong first: the end of a recording that has failed raises an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _all(recipe: Recipe, here: Any) -> bool:
    """Whether it holds in every process."""
    return bool(here) if recipe.team is None else all(recipe.team.gather(bool(here)))
