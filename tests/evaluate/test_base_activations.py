"""The base model's activations are measured once for all its fine-tunes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jobs.evaluate.base_activations import AREA, describe_base
from pipeline_common.artifacts import DirectoryStore
from pipeline_common.config import load_config
from pipeline_common.errors import InputError
from pipeline_common.manifest import MANIFEST_NAME, list_files, parse_manifest
from tests.evaluate.made_models import build_adapter, labelled_prompts, publish_inputs

FACTS = {
    "commit": "b" * 40,
    "quantization": "nf4",
    "compute_dtype": "bfloat16",
    "device": "cuda",
    "sweep": "flat",
    "batch_tokens": "auto",
    "pooling": "mean",
    "prompt_ids": ["a", "b"],
    "token_ids": [[1, 2], [3]],
}


@pytest.mark.parametrize(
    "other",
    [
        {"commit": "c" * 40},
        {"quantization": "none"},
        {"compute_dtype": "float32"},
        {"device": "cpu"},
        {"sweep": "simple"},
        {"batch_tokens": 100},
        {"pooling": "last"},
        {"prompt_ids": ["b", "a"]},
        {"token_ids": [[1], [2, 3]]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_changes_a_state_changes_the_fingerprint(other):
    assert describe_base(**FACTS) == describe_base(**FACTS)
    assert describe_base(**FACTS | other) != describe_base(**FACTS)


def evaluate(base_folder, adapter, output, store):
    from jobs.evaluate.stage import run
    from pipeline_common.execution import run_stage

    config = load_config(
        "tiny",
        [
            f"model.base={base_folder}",
            "model.quantization=none",
            f"runtime.output_dir={output}",
            f"artifacts.uri={store}",
            "evaluate.prompts_per_class=64",
            "evaluate.resamples=200",
            "evaluate.permutations=199",
            "evaluate.max_new_tokens=8",
            "evaluate.judge.kind=none",
            f"train.seed={adapter.name.removeprefix('adapter-')}",
        ],
    )
    place, plan = publish_inputs(config, base_folder, adapter, judge=None, prompts=labelled_prompts())
    manifest = run_stage(place, plan, plan.stages["evaluate"], run, force=True)
    return manifest, place.store.locate(manifest)


def test_two_fine_tunes_of_one_base_read_it_once(base_folder, tmp_path):
    first = build_adapter(base_folder, tmp_path / "adapter-1")
    second = build_adapter(base_folder, tmp_path / "adapter-2", scale=0.2)
    store = tmp_path / "store"
    one, one_files = evaluate(base_folder, first, tmp_path / "out", store)
    assert one.summary["base_activations"] == "measured in this run"
    (kept,) = (store / AREA).iterdir()
    two, two_files = evaluate(base_folder, second, tmp_path / "out", store)
    assert two.key != one.key
    assert two.summary["base_activations"] == f"cached from {AREA}/{kept.name}"
    assert list((store / AREA).iterdir()) == [kept]

    def read(files, role):
        return (files / f"activations_{role}.safetensors").read_bytes()

    assert read(two_files, "base") == read(one_files, "base")
    assert read(two_files, "tuned") != read(one_files, "tuned")

    # Damaged, they are measured again, to the same bytes.
    tensors = kept / "activations.safetensors"
    sound = tensors.read_bytes()
    tensors.write_bytes(sound[:-4] + b"\0\0\0\0")
    three, three_files = evaluate(base_folder, second, tmp_path / "out", store)
    assert three.summary["base_activations"] == "measured in this run"
    assert tensors.read_bytes() == sound
    for name in ("measures.json", "activations_base.safetensors", "responses.jsonl"):
        assert (three_files / name).read_bytes() == (two_files / name).read_bytes(), name
    assert json.loads((kept / "manifest.json").read_text())["stage"] == AREA


def test_kept_ones_that_are_not_finite_are_refused_before_anything_is_made_of_them(base_folder, tmp_path):
    """A sound artifact by its checksums, with a value that no measurement keeps."""
    evaluate(base_folder, build_adapter(base_folder, tmp_path / "adapter-1"), tmp_path / "out", tmp_path / "store")
    (kept,) = (tmp_path / "store" / AREA).iterdir()
    tensors = load_file(kept / "activations.safetensors")
    tensors["activations"][5, 2, 0] = np.inf
    (tmp_path / "spoilt").mkdir()
    save_file(tensors, tmp_path / "spoilt" / "activations.safetensors")
    manifest = parse_manifest((kept / MANIFEST_NAME).read_bytes(), "here")
    spoilt = manifest.model_copy(update={"files": list_files(tmp_path / "spoilt")})
    DirectoryStore(tmp_path / "store").publish(tmp_path / "spoilt", spoilt)
    second = build_adapter(base_folder, tmp_path / "adapter-2", scale=0.2)
    with pytest.raises(
        InputError, match=r"base activations: NaN or infinity at prompt 5 \(prompt-\d+\), layer 2 \(1 of "
    ):
        evaluate(base_folder, second, tmp_path / "out", tmp_path / "store")
