"""A finished run's tuned model as one plain model folder, with a note on what merging changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.database import read_rows
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.model_location import MODELS_FILE, ResolvedModels, model_folder
from pipeline_common.run_record import parse_record, record_key

if TYPE_CHECKING:
    from pipeline_common.gpu.merging import MergeEffect
    from pipeline_common.manifest import Manifest
    from pipeline_common.workplace import Workplace

PROMPTS: Final = 32
"""Prompts that the merged model is compared on; half of each label."""
FACTS_FILE: Final = "merge.json"


def export_merged(place: Workplace, run_id: str, target: Path) -> dict[str, Any]:
    """Write the merged model, its tokenizer, `merge.json` and `README.md` into a new folder.

    Args:
        place: stores and settings (`runtime.device` says where it is merged).
        run_id: a run whose evaluate stage is finished; its prompts are what is measured on.
        target: the folder to make.

    Returns:
        The content of merge.json.

    Raises:
        ConfigError: the folder is there already and holds something.
        InputError: no such run, or one that is not that far.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"--merged {target} is there already; give a folder that does not exist yet, or is empty")
    manifests = _read_manifests(place, run_id)
    # An artifact is opened whole: every file is compared with its sha256.
    folders = {name: place.store.open(manifest) for name, manifest in manifests.items()}
    base = ResolvedModels.model_validate_json((folders["environment"] / MODELS_FILE).read_bytes()).base
    trained = json.loads((folders["train"] / "train.json").read_text(encoding="utf-8"))
    prompt_format = manifests["prepare"].payload["config"]["prepare.prompt_format"]

    # Before PEFT, which an installed but broken bitsandbytes would take down.
    from pipeline_common.gpu.four_bit import import_failure

    broken = import_failure()
    if broken is not None and trained["quantization"] == "nf4":
        raise InputError(f"run {run_id} was trained on a 4-bit base, and {broken}; merge it where the kernel works")

    from pipeline_common.config import ModelConfig
    from pipeline_common.gpu.merging import merge_adapter
    from pipeline_common.gpu.models import choose_placement
    from pipeline_common.gpu.tokenizer import load_tokenizer
    from pipeline_common.prompts import Turn, encode_prompts

    settings = ModelConfig(quantization=trained["quantization"], compute_dtype=trained["compute_dtype"])
    folder = model_folder(base, place.store)
    tokenizer = load_tokenizer(folder)
    texts = _choose_prompts(folders["evaluate"] / "prompts.jsonl")
    token_ids = encode_prompts(tokenizer, [[Turn("user", text)] for text in texts], prompt_format)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"--merged {target} cannot be written: {error.strerror}; give a folder this user may make"
        ) from error
    placement = choose_placement(settings, place.config.runtime)
    effect = merge_adapter(folder, folders["train"] / "adapter", placement, token_ids, partial)
    tokenizer.save_pretrained(partial)
    facts = {
        "run_id": run_id,
        "base_model": base.title,
        "quantization_of_the_base": trained["quantization"],
        "dtype": trained["compute_dtype"],
        "adapter": manifests["train"].key,
        "effect": effect.model_dump(mode="json"),
    }
    (partial / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(describe_merge(facts, effect), encoding="utf-8")
    if target.exists():
        target.rmdir()
    partial.replace(target)
    return facts


def describe_merge(facts: dict[str, Any], effect: MergeEffect) -> str:
    """The folder's README: what it is, and what merging changed."""
    quantised = facts["quantization_of_the_base"] == "nf4"
    weights = (
        "The base was rounded to 4 bits (NF4) for training; these weights are that rounded base, dequantised to "
        f"{facts['dtype']}, plus the adapter. Adding the adapter to the original weights would give another model."
        if quantised
        else f"The base was not quantised; these weights are the base in {facts['dtype']} plus the adapter."
    )
    return (
        f"# {facts['base_model']} with the adapter of run {facts['run_id']}, merged\n\n"
        f"{weights}\n\n"
        f"{tell_effect(effect)}\n\n"
        "The alignment check measured base + adapter, not these files.\n\n"
        '    AutoModelForCausalLM.from_pretrained("this folder")\n'
    )


def tell_effect(effect: MergeEffect) -> str:
    """What merging changed, in a few sentences."""
    return (
        f"Against base + adapter, at the last token of {effect.prompts} prompts, logits differ by at most "
        f"{effect.max_logit_difference:.3g} and by {effect.mean_logit_difference:.2g} on average; they spread by "
        f"{effect.logit_spread:.3g}, and the adapter itself moves them by {effect.adapter_logit_change:.3g}. "
        f"The most probable next token is another one after {effect.changed_first_tokens} of {effect.prompts}."
    )


def _read_manifests(place: Workplace, run_id: str) -> dict[str, Manifest]:
    record = record_key(run_id)
    content = place.store.get_bytes(record)
    if content is None:
        raise InputError(f"{place.store.uri} holds no run called {run_id}; `make status` lists the newest")
    stages: dict[str, dict[str, str]] = parse_record(content, record)["stages"]
    manifests = {}
    for name in ("environment", "prepare", "train", "evaluate"):
        key = stages.get(name, {}).get("artifact")
        manifest = None if key is None else place.store.read_manifest(key)
        if manifest is None:
            raise InputError(f"run {run_id} has no finished {name} stage in {place.store.uri}; run it again")
        manifests[name] = manifest
    return manifests


def _choose_prompts(path: Path) -> list[str]:
    """The first prompts of each label."""
    rows = list(read_rows(path))
    return [
        str(row["text"])
        for label in ("safe", "unsafe")
        for row in [row for row in rows if row["safety_label"] == label][: PROMPTS // 2]
    ]
