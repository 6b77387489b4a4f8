"""The train stage: fine-tune the base model with QLoRA. Heavy libraries are imported when it runs, not before."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.train.shares import count_processes
from pipeline_common.context import Context, Outputs
from pipeline_common.logs import get_logger
from pipeline_common.model_location import model_folder, resolved_models

if TYPE_CHECKING:
    from jobs.train.order import Order
    from jobs.train.recipe import Recipe
    from jobs.train.sft import Trained
    from pipeline_common.measures import Degradation
    from pipeline_common.model_location import ResolvedModel

METRICS_FILE: Final = "training_metrics.jsonl"
FACTS_FILE: Final = "train.json"
ADAPTER_FOLDER: Final = "adapter"
_log = get_logger(__name__)


def run(context: Context) -> Outputs:
    """Train the adapter, write it with its metrics and facts.

    With several processes this one is the first of its machine; on a machine that does not lead it writes nothing.

    Files: adapter/ (adapter_model.safetensors, adapter_config.json, README.md), training_metrics.jsonl, train.json.
    Rows: `training_metrics`.

    Raises:
        ConfigError: settings that do not fit the model or the machine, or a loss that diverges.
        InputError: rows that do not fit the model.
        TransientError: the GPU's memory does not suffice, or another process was lost.
        TerminatedError: SIGTERM; a checkpoint was saved.
    """
    from jobs.train.allocator import let_segments_grow
    from jobs.train.arithmetic import choose_arithmetic
    from jobs.train.leading import await_artifact, gather_team
    from jobs.train.trackers import prepare_trackers

    let_segments_grow()
    config = context.config
    count_processes(config)
    order = _place_order(context)
    if not context.member.leads:
        from jobs.train.follower import follow

        with gather_team(context, order) as team:
            if team is not None:
                follow(order, team, context.stop)
        await_artifact(context)
        return Outputs()
    prepare_trackers(config.train.report_to, Path(config.runtime.output_dir) / "tensorboard" / context.run_id)
    degradations: list[Degradation] = []

    def degrade(name: str, detail: str) -> None:
        degradations.append(context.degrade(name, detail))

    with context.clock.phase("imports"):
        placement, optimizer = choose_arithmetic(config, 0, degrade)
        import_module("jobs.train.sft")
    with gather_team(context, order) as team:
        base = resolved_models(context).base
        from jobs.train.adapter import save_adapter
        from jobs.train.checkpoint_copies import find_copies
        from jobs.train.materials import build_recipe, load_models
        from jobs.train.metrics import MetricsWriter, build_rows
        from jobs.train.model_card import render_model_card
        from jobs.train.quiet import quiet_libraries
        from jobs.train.sft import fine_tune

        quiet_libraries()
        recipe = build_recipe(
            order, placement, optimizer, degrade, copies=find_copies(context), team=team, clock=context.clock
        )
        _log_plan(base, recipe)
        with context.clock.phase("load"):
            model, tokenizer = load_models(order, placement)
        with context.feed_rows("training_metrics") as feed, context.clock.phase("training"):
            writer = MetricsWriter(context.files / METRICS_FILE, feed.add)
            trained = fine_tune(model, tokenizer, recipe, writer, context.stop)

    rows = build_rows(trained.log, config.train.logging_steps, recipe.schedule.steps)
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


def _place_order(context: Context) -> Order:
    from jobs.train.order import Order

    return Order(
        config=context.config,
        model=model_folder(resolved_models(context).base, context.store).absolute(),
        train_rows=context.input_file("prepare", "train.parquet").absolute(),
        validation_rows=context.input_file("prepare", "validation.parquet").absolute(),
        checkpoints=(context.work_dir / "checkpoints").absolute(),
    )


def _log_plan(base: ResolvedModel, recipe: Recipe) -> None:
    schedule, placement = recipe.schedule, recipe.placement
    _log.info("engine %s", recipe.engine.describe())
    if recipe.processes > 1:
        _log.info("%d processes, each with its share of a step's rows", recipe.processes)
    _log.info(
        "%s on %s, %s: %d rows, %d tokens (%d in the loss), %d steps = %.2f epochs%s",
        base.title,
        placement.device,
        placement.quantization if placement.quantization != "none" else "not quantised",
        recipe.train_rows.count,
        recipe.train_rows.tokens,
        recipe.train_rows.answer_tokens,
        schedule.steps,
        schedule.effective_epochs,
        " (train.max_steps ends it)" if schedule.capped else "",
    )


def _collect_facts(
    context: Context, base: ResolvedModel, recipe: Recipe, trained: Trained, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Content of train.json."""
    import torch

    from jobs.train.adapter import count_base_bytes

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
        "processes": recipe.processes,
        "sharding": train.sharding,
        "base_bytes": count_base_bytes(trained.model),
        "machines": recipe.team.place.machines if recipe.team else 1,
        "backend": recipe.team.backend if recipe.team else None,
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
        "recorded_sizes": trained.recorded_sizes,
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
