"""A small random base model, rows in the shape *prepare* leaves, and both published as a run's inputs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_common.config import Config
from pipeline_common.model_location import MODELS_FILE
from pipeline_common.prompts import Turn, encode_answers, encode_prompts, render_text
from pipeline_common.stages import Plan, plan_run
from pipeline_common.workplace import Workplace, open_workplace
from tests.made_stages import publish_stage
from tests.made_tokenizer import train_tokenizer

_VERBS = ("paint", "repair", "borrow", "clean", "sell", "draw")
_THINGS = ("a boat", "the old lamp", "two chairs", "my garden fence", "a red bicycle", "the clock")
_ENDINGS = ("?", " today?", " before it rains?", " without help?", " with my sister and her three friends?")


def build_model(folder: Path) -> Path:
    """A Llama of two layers with random weights and a byte-level BPE tokenizer; the same bytes each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [f"[INST] {prompt} [/INST] {answer}" for prompt, answer in conversations(200)]
    train_tokenizer(texts, folder, vocab_size=384)
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(settings).save_pretrained(folder)
    return folder


def conversations(count: int) -> list[tuple[str, str]]:
    """Prompts and answers of different lengths."""
    draw = random.Random(7)
    pairs = []
    for _ in range(count):
        verb, thing = draw.choice(_VERBS), draw.choice(_THINGS)
        answer = f"Of course. To {verb} {thing}, take your time" + ", and rest a little" * draw.randrange(4)
        pairs.append((f"How do I {verb} {thing}{draw.choice(_ENDINGS)}", f"{answer}."))
    return pairs


def make_rows(tokenizer: Any, count: int, offset: int = 0) -> pa.Table:
    """Rows with the columns of train.parquet."""
    pairs = conversations(count + offset)[offset:]
    turns = [[Turn("user", prompt)] for prompt, _ in pairs]
    prompts = encode_prompts(tokenizer, turns, "inst")
    answers = encode_answers(tokenizer, turns, [answer for _, answer in pairs], "inst")
    rows = [
        {
            "row_id": f"row-{offset + number:06d}",
            "prompt": prompt,
            "messages": [{"role": "user", "content": prompt}],
            "answer": answer,
            "text": render_text(tokenizer, turns[number], answer, "inst"),
            "input_ids": prompts[number] + answers[number],
            "prompt_length": len(prompts[number]),
            "truncated": False,
            "safety_category": "none",
        }
        for number, (prompt, answer) in enumerate(pairs)
    ]
    table = pa.Table.from_pylist(rows)
    kinds = {"input_ids": pa.list_(pa.int32()), "prompt_length": pa.int32()}
    schema = pa.schema([pa.field(field.name, kinds.get(field.name, field.type)) for field in table.schema])
    return table.cast(schema)


def list_overrides(model: Path, output: Path, *overrides: str) -> list[str]:
    """Command-line settings: the tiny profile on the small model, with a short training."""
    return [
        f"model.base={model}",
        f"runtime.output_dir={output}",
        "train.batch_size=4",
        "train.gradient_accumulation=2",
        "train.max_steps=16",
        "train.save_steps=4",
        *overrides,
    ]


def publish_inputs(config: Config, train: pa.Table, validation: pa.Table) -> tuple[Workplace, Plan]:
    """Put what *environment* and *prepare* would have made into the run's store."""
    place, plan = open_workplace(config), plan_run(config)
    place.database.migrate()
    models = {"base": {"kind": "local", "reference": config.model.base, "commit": "0" * 40}}
    contents = {
        "environment": {MODELS_FILE: lambda path: path.write_text(json.dumps(models))},
        "prepare": {
            "train.parquet": lambda path: pq.write_table(train, path),
            "validation.parquet": lambda path: pq.write_table(validation, path),
        },
    }
    for stage, files in contents.items():
        folder = place.output / "made" / stage
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in files.items():
            write(folder / name)
        publish_stage(place, plan, stage, folder)
    return place, plan
