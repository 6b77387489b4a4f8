"""Settings of the train stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline_common.config.section import Fraction, PositiveFloat, PositiveInt, Section, Seed


class TrainConfig(Section):
    """QLoRA fine-tuning."""

    epochs: PositiveFloat = Field(3.0, description="passes over the rows")
    max_steps: PositiveInt | None = Field(250, description="wins over epochs when smaller; None = epochs alone")
    batch_size: PositiveInt = Field(4, description="rows per forward pass; more need more memory")
    gradient_accumulation: PositiveInt = Field(2, description="forward passes per optimizer step")
    learning_rate: PositiveFloat = Field(2e-4, description="the highest one, after the warm-up")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="how the learning rate falls")
    warmup_fraction: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW, of the adapter")
    max_grad_norm: PositiveFloat = Field(1.0, description="L2 norm that gradients are clipped to")
    optimizer: Literal["adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit"] = Field(
        "adamw_torch", description="paged: its state may leave the GPU; 8bit: states in 8 bits"
    )
    lora_r: PositiveInt = Field(16, description="rank of the adapter")
    lora_alpha: PositiveInt = Field(32, description="the adapter is scaled by lora_alpha / lora_r")
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="share of the adapter's inputs that is dropped"
    )
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="all-linear, or names of projections"
    )
    engine: Literal["auto", "plain", "flat"] = Field(
        "auto",
        description="plain: TRL's padded batches; flat: rows end to end, no padding; auto: flat on CUDA in bfloat16",
    )
    tokens_per_batch: PositiveInt | Literal["auto"] = Field(
        "auto", description="flat: tokens of one forward and backward pass; auto: from the GPU's free memory"
    )
    activation_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="true: less memory, about a third more time; auto: flat: for as many layers as makes it fastest "
        "in the GPU's memory; plain: on CUDA",
    )
    cuda_graphs: bool | Literal["auto"] = Field(
        "auto",
        description="flat: passes are recorded once per size and replayed; auto: where starting a pass's kernels was "
        "measured to take about as long as the GPU works on them",
    )
    memory_gib: PositiveFloat | None = Field(
        None, description="flat: GPU memory that training may take, GiB; None = what is free"
    )
    sharding: Literal["none", "full"] = Field(
        "none",
        description="full: each of several processes keeps a part of the base only (FSDP), for models larger than a "
        "GPU; plain engine",
    )
    logging_steps: PositiveInt = Field(1, description="steps per row of training_metrics")
    eval_steps: PositiveInt | None = Field(None, description="None = evaluation loss at the end only")
    save_steps: PositiveInt = Field(25, description="steps between checkpoints")
    seed: Seed = Field(42, description="of the adapter, the dropout and the order of the rows")
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="trackers that see the metrics besides; their packages must be installed"
    )
