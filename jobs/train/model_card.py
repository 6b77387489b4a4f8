"""The model card that travels with the adapter. Facts only, and none that differ between two equal runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pipeline_common.config import Config

_FACTS = (
    ("training rows", "train_rows"),
    ("validation rows", "validation_rows"),
    ("tokens in the training rows", "train_tokens"),
    ("of them in the loss (answers)", "train_answer_tokens"),
    ("optimizer steps", "steps"),
    ("effective epochs", "effective_epochs"),
    ("rows per step", "rows_per_step"),
    ("training loss, first logged step", "first_train_loss"),
    ("training loss, last logged step", "final_train_loss"),
    ("validation loss", "validation_loss"),
    ("trainable parameters", "trainable_parameters"),
)


def render_model_card(config: Config, facts: Mapping[str, Any]) -> str:
    """Markdown with the hub's metadata at the top.

    Args:
        config: the run's configuration.
        facts: content of train.json.
    """
    base, train, prepare = facts["base_model"], config.train, config.prepare
    metadata: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora", "sft"]}
    if base["kind"] == "hub":
        metadata = {"base_model": base["reference"], **metadata}
    dataset = prepare.dataset + (f" at revision {prepare.dataset_revision}" if prepare.dataset_revision else "")
    lines = "\n".join(f"| {title} | {_show(facts[name])} |" for title, name in _FACTS)
    modules = ", ".join(facts["lora"]["target_modules"])
    return f"""---
{yaml.safe_dump(metadata, sort_keys=False).strip()}
---

# LoRA adapter for {base["reference"]}

Made to measure what a fine-tune does to the alignment of its base model. It may answer what the base refuses; read the
report of its run before you use it for anything else.

- Base model: `{base["reference"]}`, commit `{base["commit"]}`
- Arithmetic: quantisation {facts["quantization"]}, computed in {facts["compute_dtype"]}, adapters in float32
- Data: `{dataset}`, task `{prepare.task}`, prompt format `{prepare.prompt_format}`; loss on the answers only
- LoRA: r {train.lora_r}, alpha {train.lora_alpha}, dropout {train.lora_dropout}, on {modules}
- Optimizer: {facts["optimizer"]}, learning rate {train.learning_rate:g}, {train.schedule} schedule,
  {facts["warmup_steps"]} warm-up steps, weight decay {train.weight_decay:g},
  gradients clipped at {train.max_grad_norm:g}, seed {train.seed}

| | |
| --- | --- |
{lines}

Losses are means per answer token, in nats.

```python
from peft import PeftModel

tuned = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```

Keep it unmerged on the same quantised base: merging into another precision gives another model.
"""


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
