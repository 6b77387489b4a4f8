"""The base model's activations, an artifact of their own: every fine-tune of one base is compared with the same ones.

`base_activations/<fingerprint>/` in the store; the fingerprint is of everything they follow from, and of nothing of
the adapter. What is found there is compared with its sha256; what is damaged is measured again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.records import write_tensors
from pipeline_common import provenance
from pipeline_common.context import Context
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import Manifest, list_files
from pipeline_common.stages import fingerprint_of, source_digest

AREA: Final = "base_activations"
_FILE: Final = "activations.safetensors"
_TENSOR: Final = "activations"
_CODE: Final = (
    "batching.py",
    "model.py",
    "model_copies.py",
    "model_flat_sweep.py",
    "model_fused.py",
    "model_reading.py",
    "model_sweep.py",
    "sharing.py",
)
"""Files of this stage that a state follows from."""
_PACKAGES: Final = ("torch", "transformers", "bitsandbytes", "peft")
_log = get_logger(__name__)


def describe_base(
    *,
    commit: str,
    quantization: str,
    compute_dtype: str,
    device: str,
    sweep: str,
    batch_tokens: int | str,
    pooling: str,
    prompt_ids: Sequence[str],
    token_ids: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """Everything the activations follow from, for the fingerprint.

    Args:
        commit: of the base model: the hub's, or a digest of its files.
        quantization: "nf4" or "none".
        compute_dtype: of the model's arithmetic.
        device: "cpu" or "cuda": they round differently.
        sweep: "simple" or "flat": so do these.
        batch_tokens: as configured: so do other batches.
        pooling: of a prompt's tokens.
        prompt_ids: ids of the prompts, in the order of the tensor [N].
        token_ids: what the model reads [N]; follows from texts, prompt format and tokenizer.
    """
    versions = provenance.package_versions()
    prompts = json.dumps([list(prompt_ids), [list(ids) for ids in token_ids]], separators=(",", ":"))
    return {
        "base": commit,
        "quantization": quantization,
        "compute_dtype": compute_dtype,
        "device": device,
        "sweep": sweep,
        "batch_tokens": batch_tokens,
        "pooling": pooling,
        "prompts": hashlib.sha256(prompts.encode()).hexdigest(),
        "packages": {name: versions[name] for name in _PACKAGES if name in versions},
        "code": source_digest(*(f"jobs/evaluate/{name}" for name in _CODE), "pipeline_common/gpu"),
    }


def find_base(context: Context, payload: Mapping[str, Any]) -> tuple[NDArray[np.float32], str] | None:
    """Activations [N, L + 1, D] measured before, and where they come from; None when there are none to trust.

    Args:
        context: for the store.
        payload: what `describe_base` returned.
    """
    key = f"{AREA}/{fingerprint_of(payload)}"
    found = _find(context, key)
    if found is None:
        return None
    manifest, folder = found
    from safetensors.numpy import load_file

    _log.info("base activations: cached from %s, made by run %s", key, manifest.run_id)
    return np.asarray(load_file(folder / _FILE)[_TENSOR], dtype=np.float32), f"cached from {key}"


def _find(context: Context, key: str) -> tuple[Manifest, Path] | None:
    """The artifact with its folder, every file compared with its sha256; None when it is absent or damaged."""
    try:
        manifest = context.store.read_manifest(key)
        return None if manifest is None else (manifest, context.store.open(manifest))
    except InputError as error:
        _log.warning("%s: the base activations are measured again (%s)", key, error)
        return None


def keep_base(context: Context, payload: Mapping[str, Any], activations: NDArray[np.float32]) -> None:
    """Publish activations [N, L + 1, D] for the next fine-tune of this base, unless another has done so meanwhile."""
    fingerprint = fingerprint_of(payload)
    with (context.work_dir.parent / f"{AREA}-{fingerprint}.lock").open("w") as lock:
        # Two stages that replace one artifact at once would take away each other's files; released when closed.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _find(context, f"{AREA}/{fingerprint}") is None:
            _publish(context, payload, fingerprint, activations)


def _publish(context: Context, payload: Mapping[str, Any], fingerprint: str, activations: NDArray[np.float32]) -> None:
    folder = context.work_dir / AREA
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_tensors(folder / _FILE, {_TENSOR: activations}, payload)
    manifest = Manifest(
        stage=AREA,
        fingerprint=fingerprint,
        payload=dict(payload),
        run_id=context.run_id,
        files=list_files(folder),
        summary={"shape": list(activations.shape)},
        provenance=provenance.collect(provenance.now(), context.attempt),
    )
    context.store.publish(folder, manifest)
    shutil.rmtree(folder)
    _log.debug("base activations: kept as %s", manifest.key)
