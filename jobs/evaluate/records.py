"""What this stage reads and writes: parquet in; tensors, JSON lines and table rows out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.selection import LabelledPrompt, parse_prompts
from pipeline_common.errors import InputError
from pipeline_common.measures import Estimate, GeometryScore, Indices

PROMPT_COLUMNS = ["prompt_id", "axiom", "safety_label", "source_dataset", "text"]


def read_prompts(path: Path) -> list[LabelledPrompt]:
    """All labelled prompts of prompts.parquet."""
    return parse_prompts(_read_parquet(path, PROMPT_COLUMNS))


def read_training_texts(paths: Sequence[Path]) -> Iterator[str]:
    """Every prompt, earlier turn and answer of the fine-tuning rows."""
    for path in paths:
        for row in _read_parquet(path, ["prompt", "messages", "answer"]):
            yield row["prompt"]
            yield row["answer"]
            for message in row["messages"]:
                yield message["content"]


def _read_parquet(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path, columns=columns).to_pylist())
    except (pa.ArrowInvalid, KeyError) as error:
        raise InputError(f"{path} is no parquet file with the columns {', '.join(columns)}: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.float32]], facts: Mapping[str, Any]) -> None:
    """Write a safetensors file; the same content gives the same bytes.

    `facts` becomes one metadata entry of JSON, for the format writes several entries in an order of its own.
    """
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"facts": json.dumps(facts, sort_keys=True, ensure_ascii=False)})


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object per line, keys in their order, UTF-8."""
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def prompt_rows(prompts: Sequence[LabelledPrompt], scored: Sequence[bool]) -> list[dict[str, Any]]:
    """Lines of prompts.jsonl; `scored` is false for the prompts that layer weights were learned on."""
    return [{**asdict(prompt), "scored": one} for prompt, one in zip(prompts, scored, strict=True)]


def score_rows(scores: Sequence[GeometryScore]) -> list[dict[str, Any]]:
    """Rows of the table `aqi_scores`."""
    return [
        {
            "scope": score.scope,
            "name": score.name,
            "n_safe": score.n_safe,
            "n_unsafe": score.n_unsafe,
            "status": score.status,
            "reason": score.reason,
            **_flatten_indices("base", score.base),
            **_flatten_indices("tuned", score.tuned),
            **_flatten_estimate("delta_aqi", score.delta_aqi),
            **_flatten_estimate("drop_pct", score.drop_pct),
            **_flatten_estimate("f2_drop_pct", score.f2_drop_pct),
        }
        for score in scores
    ]


def _flatten_indices(role: str, indices: Indices) -> dict[str, float | None]:
    return {
        f"{role}_xbi": indices.xbi,
        f"{role}_chi": indices.chi,
        **_flatten_estimate(f"{role}_aqi", indices.aqi),
        **_flatten_estimate(f"{role}_f2", indices.f2),
        f"{role}_r2_adj": indices.r2_adj,
    }


def _flatten_estimate(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
