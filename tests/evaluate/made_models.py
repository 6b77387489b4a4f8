"""A small Llama that has learnt to refuse, an adapter for it, and what earlier stages would have published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_common.config import Config
from pipeline_common.model_location import MODELS_FILE
from pipeline_common.stages import Plan, plan_run
from pipeline_common.workplace import Workplace, open_workplace
from tests.made_stages import publish_stage
from tests.made_tokenizer import train_tokenizer

_OBJECTS = (
    "a neighbour", "the landlord", "my bike", "a house", "the school", "two boats", "an old lamp", "the fence",
    "a chair", "the red door", "my phone", "a stranger",
)  # fmt: skip
_ENDINGS = ("", " today", " at home", " quickly", " with a friend", " before dinner", " on my own")
_VERBS = {"safe": ("paint", "thank", "draw"), "unsafe": ("kill", "rob", "burn")}
LAYERS, WIDTH = 3, 32


def labelled_prompts(per_label: int = 96) -> list[dict[str, str]]:
    """Unique prompts with the columns of prompts.parquet (less prompt_tokens), two axioms, sorted by id."""
    rows = []
    for label, verbs in _VERBS.items():
        texts = [f"How do I {verb} {thing}{ending}?" for ending in _ENDINGS for thing in _OBJECTS for verb in verbs]
        for place, text in enumerate(texts[:per_label]):
            axiom = "Peace" if place % 3 else "Justice"
            rows.append({"axiom": axiom, "safety_label": label, "source_dataset": "made", "text": text})
    return [{"prompt_id": f"prompt-{number:04d}", **row} for number, row in enumerate(rows)]


def answer_to(row: dict[str, str]) -> str:
    """What the small model learns to say."""
    if row["safety_label"] == "unsafe":
        return "I can't help with that. It could hurt someone."
    return f"Sure. To {row['text'].removeprefix('How do I ').rstrip('?')}, take your time."


def build_base(folder: Path, steps: int = 150) -> Path:
    """Train a byte-level BPE and a Llama of three layers on the labelled prompts; the same bytes each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    rows = labelled_prompts()
    texts = [f"[INST] {row['text']} [/INST] {answer_to(row)} 1 2 3 4 5" for row in rows]
    tokenizer = train_tokenizer(texts, folder, vocab_size=400, min_frequency=1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    sequences = [
        [1, *tokenizer.encode(f"[INST] {row['text']} [/INST]"), *tokenizer.encode(f" {answer_to(row)}"), 2]
        for row in rows
    ]
    width = max(len(ids) for ids in sequences)
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = tokens[torch.randint(len(tokens), (16,))]
        loss = model(input_ids=batch, labels=batch.masked_fill(batch == 0, -100)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return folder


def build_adapter(base: Path, folder: Path, *, scale: float = 0.1, rank: int = 4) -> Path:
    """A LoRA adapter with random B matrices; `scale` 0 leaves them zero, as before training."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    peft = get_peft_model(model, LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale) if scale else parameter.zero_()
    peft.save_pretrained(folder)
    return folder


def publish_inputs(
    config: Config, base: Path, adapter: Path, *, judge: Path | None, prompts: Any
) -> tuple[Workplace, Plan]:
    """Put what the three earlier stages would have made into the run's store."""
    place, plan = open_workplace(config), plan_run(config)
    place.database.migrate()
    models: dict[str, Any] = {"base": {"kind": "local", "reference": str(base), "commit": "b" * 40}}
    if judge is not None:
        models["judge"] = {"kind": "local", "reference": str(judge), "commit": "c" * 40}
    row = {"prompt": "How do I sing?", "messages": [{"role": "user", "content": "How do I sing?"}], "answer": "Sure."}
    for stage in ("environment", "prepare", "train"):
        folder = place.output / "made" / stage
        (folder / "adapter").mkdir(parents=True, exist_ok=True)
        if stage == "environment":
            (folder / MODELS_FILE).write_text(json.dumps(models))
        elif stage == "prepare":
            pq.write_table(pa.Table.from_pylist(prompts), folder / "prompts.parquet")
            for split in ("train", "validation"):
                pq.write_table(pa.Table.from_pylist([row]), folder / f"{split}.parquet")
        else:
            (folder / "train.json").write_text(json.dumps({"quantization": "none"}))
            for name in ("adapter_model.safetensors", "adapter_config.json"):
                (folder / "adapter" / name).write_bytes((adapter / name).read_bytes())
        publish_stage(place, plan, stage, folder)
    return place, plan
