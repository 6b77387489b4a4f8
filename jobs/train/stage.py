"""The train stage: fine-tune the base model with QLoRA. Heavy libraries are imported when it runs, not before."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.context import Context, Outputs
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.sft import Recipe, Trained
    from pipeline_common.gpu.models import Placement
    from pipeline_common.measures import Degradation
    from pipeline_common.model_location import ResolvedModel

METRICS_FILE: Final = "training_metrics.jsonl"
FACTS_FILE: Final = "train.json"
ADAPTER_FOLDER: Final = "adapter"
_log = get_logger(__name__)


def run(context: Context) -> Outputs:
    """Train the adapter, write it with its metrics and facts.

    Files: adapter/ (adapter_model.safetensors, adapter_config.json, README.md), training_metrics.jsonl, train.json.
    Rows: `training_metrics`.

    Raises:
        ConfigError: settings that do not fit the model, or a loss that diverges.
        InputError: rows that do not fit the model.
        TransientError: the GPU's memory does not suffice.
        TerminatedError: SIGTERM; a checkpoint was saved.
    """
    from jobs.train.allocator import let_segments_grow
    from jobs.train.trackers import prepare_trackers

    let_segments_grow()
    config = context.config
    prepare_trackers(config.train.report_to, Path(config.runtime.output_dir) / "tensorboard" / context.run_id)
    with context.clock.phase("imports"):
        placement, optimizer, degradations = _choose_arithmetic(context)
        import_module("jobs.train.sft")

    import torch

    from jobs.train.adapter import save_adapter
    from jobs.train.checkpoint_copies import find_copies
    from jobs.train.engine import choose_engine
    from jobs.train.metrics import MetricsWriter, build_rows
    from jobs.train.model_card import render_model_card
    from jobs.train.quiet import quiet_libraries
    from jobs.train.rows import read_rows
    from jobs.train.schedule import plan_steps
    from jobs.train.sft import Recipe, fine_tune
    from pipeline_common.gpu.models import load_base
    from pipeline_common.gpu.tokenizer import load_tokenizer
    from pipeline_common.model_location import model_folder, resolved_models

    quiet_libraries()
    # On the CPU every operation used here has a deterministic form; on a GPU some cost much or are missing.
    torch.use_deterministic_algorithms(placement.device == "cpu")
    base = resolved_models(context).base
    folder = model_folder(base, context.store)
    sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocabulary, positions = int(sizes["vocab_size"]), sizes.get("max_position_embeddings")
    train_rows = read_rows(context.input_file("prepare", "train.parquet"), vocabulary, positions)
    validation_rows = read_rows(context.input_file("prepare", "validation.parquet"), vocabulary, positions)
    schedule = plan_steps(train_rows.count, config.train)

    def degrade(name: str, detail: str) -> None:
        degradations.append(context.degrade(name, detail))

    engine = choose_engine(config.train, placement, degrade)
    recipe = Recipe(
        train=config.train,
        placement=placement,
        optimizer=optimizer,
        schedule=schedule,
        train_rows=train_rows,
        validation_rows=validation_rows,
        checkpoints=context.work_dir / "checkpoints",
        copies=find_copies(context),
        engine=engine,
        on_less_memory=lambda detail: degrade("less memory than measured", detail),
    )
    _log.info("engine %s", engine.describe())
    _log.info(
        "%s on %s, %s: %d rows, %d tokens (%d in the loss), %d steps = %.2f epochs%s",
        base.title,
        placement.device,
        placement.quantization if placement.quantization != "none" else "not quantised",
        train_rows.count,
        train_rows.tokens,
        train_rows.answer_tokens,
        schedule.steps,
        schedule.effective_epochs,
        " (train.max_steps ends it)" if schedule.capped else "",
    )
    with context.clock.phase("load"):
        model, tokenizer = load_base(folder, placement), load_tokenizer(folder)
    with context.feed_rows("training_metrics") as feed, context.clock.phase("training"):
        writer = MetricsWriter(context.files / METRICS_FILE, feed.add)
        trained = fine_tune(model, tokenizer, recipe, writer, context.stop)

    rows = build_rows(trained.log, config.train.logging_steps, schedule.steps)
    facts = _collect_facts(context, base, recipe, trained, rows)
    with context.clock.phase("writing the adapter", "transfer"):
        save_adapter(trained.model, context.files / ADAPTER_FOLDER, base, render_model_card(config, facts))
    content = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (context.files / FACTS_FILE).write_text(content + "\n", encoding="utf-8")
    shown = ("steps", "effective_epochs", "final_train_loss", "validation_loss", "quantization", "tokens_per_second")
    return Outputs(
        rows={"training_metrics": rows},
        summary={name: _round(facts[name]) for name in shown},
        degradations=tuple(degradations),
    )


def _choose_arithmetic(context: Context) -> tuple[Placement, str, list[Degradation]]:
    """Where and how it is computed, with what had to be given up."""
    from pipeline_common.gpu.four_bit import import_failure, kernel_failure

    # Before anything imports PEFT, which a broken bitsandbytes would take down.
    broken = import_failure()

    from pipeline_common.gpu.models import choose_placement

    config = context.config
    placement = choose_placement(config.model, config.runtime)
    optimizer = config.train.optimizer
    degradations = []
    if placement.quantization == "nf4":
        reason = broken or kernel_failure(placement.device)
        if reason is not None:
            degradations.append(
                context.degrade(
                    "no 4-bit kernel", f"{reason}; LoRA on the base in {config.model.compute_dtype} instead"
                )
            )
            placement = replace(placement, quantization="none")
    if broken is not None and optimizer.startswith("paged_"):
        degradations.append(context.degrade("no paged optimizer", f"{broken}; adamw_torch instead of {optimizer}"))
        optimizer = "adamw_torch"
    return placement, optimizer, degradations


def _collect_facts(
    context: Context, base: ResolvedModel, recipe: Recipe, trained: Trained, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Content of train.json."""
    import torch

    config, train, schedule = context.config, recipe.train, recipe.schedule
    steps = [entry for entry in trained.log if "loss" in entry]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    trained_tokens = sum(entry["tokens"] for entry in steps)
    seconds = sum(entry["seconds"] for entry in steps)
    cuda = recipe.placement.device == "cuda"
    lora = trained.model.peft_config["default"]
    return {
        "base_model": base.model_dump(include={"kind", "reference", "commit"}),
        "device": recipe.placement.device,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "compute_dtype": config.model.compute_dtype,
        "quantization": recipe.placement.quantization,
        "quantization_requested": config.model.quantization,
        "optimizer": recipe.optimizer,
        "engine": recipe.engine.name,
        "engine_requested": train.engine,
        "varlen_attention": recipe.engine.varlen,
        "liger": recipe.engine.liger,
        "tokens_per_batch": trained.plan.tokens_per_batch if trained.plan else None,
        "mib_per_token": trained.plan.mib_per_token if trained.plan else None,
        "activation_checkpointing": trained.activation_checkpointing,
        "recomputed_layers": trained.plan.recomputed_layers if trained.plan else None,
        "weights_kept": trained.plan.weights_kept if trained.plan else None,
        "memory_gib": train.memory_gib,
        "expected_tokens_per_second": trained.plan.tokens_per_second if trained.plan else None,
        "seed": train.seed,
        "train_rows": recipe.train_rows.count,
        "validation_rows": recipe.validation_rows.count,
        "train_tokens": recipe.train_rows.tokens,
        "train_answer_tokens": recipe.train_rows.answer_tokens,
        "validation_answer_tokens": recipe.validation_rows.answer_tokens,
        "longest_row_tokens": max(recipe.train_rows.longest, recipe.validation_rows.longest),
        "rows_per_step": train.batch_size * train.gradient_accumulation,
        "requested_epochs": train.epochs,
        "max_steps": train.max_steps,
        "steps": schedule.steps,
        "steps_per_epoch": schedule.steps_per_epoch,
        "warmup_steps": schedule.warmup_steps,
        "effective_epochs": schedule.effective_epochs,
        "ended_by_max_steps": schedule.capped,
        "first_train_loss": losses[0],
        "final_train_loss": losses[-1],
        "validation_loss": trained.validation_loss,
        "lora": {
            "r": lora.r,
            "alpha": lora.lora_alpha,
            "dropout": lora.lora_dropout,
            # PEFT lists every layer's modules for a small model; the kinds of projection say the same.
            "target_modules": sorted({name.rpartition(".")[2] for name in lora.target_modules}),
        },
        "trainable_parameters": trained.trainable_parameters,
        "all_parameters": trained.all_parameters,
        "trained_tokens": trained_tokens,
        "training_seconds": seconds,
        "tokens_per_second": trained_tokens / seconds,
        "attempt": context.attempt,
        "resumed_from_step": trained.resumed_from,
    }


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
