"""Resolve the base model (and a local judge) to exact files: build, find on disk, or fetch from the hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common import provenance
from pipeline_common.config import Config
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import Manifest, list_files
from pipeline_common.model_location import ResolvedModel, ResolvedModels
from pipeline_common.progress import track
from pipeline_common.sources import local_path, source_identity, source_kind
from pipeline_common.stages import fingerprint_of, source_digest

if TYPE_CHECKING:
    from pipeline_common.context import Context

EMBEDDED_BASE: Final = "embedded"
EMBEDDED_JUDGE: Final = "embedded-judge"
_EMBEDDED_BASES: Final = re.compile(rf"{EMBEDDED_BASE}(?:-seed-([0-9]{{1,9}}))?")
_DEFAULT_SEED: Final = 1
_MODEL_FILES: Final = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_log = get_logger(__name__)


def embedded_seed(reference: str) -> int | None:
    """Seed of an embedded base: "embedded" -> 1, "embedded-seed-7" -> 7; None for any other reference."""
    found = _EMBEDDED_BASES.fullmatch(reference)
    return None if found is None else int(found[1] or _DEFAULT_SEED)


def check_references(config: Config) -> None:
    """Names and combinations that cannot work, before anything is fetched.

    Raises:
        ConfigError: a name of no embedded model, the base as its own judge, or the embedded judge for a base it was
            never shown.
    """
    judge = config.evaluate.judge
    if _is_made_here(config.model.base) and embedded_seed(config.model.base) is None:
        raise ConfigError(
            f"model.base={config.model.base}: the project builds {EMBEDDED_BASE} and {EMBEDDED_BASE}-seed-N (N of up "
            "to nine digits); give one of them, a hub id or a folder"
        )
    if judge.kind == "local" and judge.model == EMBEDDED_JUDGE and embedded_seed(config.model.base) is None:
        raise ConfigError(
            "evaluate.judge.model=embedded-judge understands only the project's own sample sentences; for "
            f"model.base={config.model.base} set evaluate.judge.model to a hub id or a folder, "
            "or evaluate.judge.kind=none"
        )
    if judge.kind == "local" and _is_made_here(judge.model) and judge.model != EMBEDDED_JUDGE:
        raise ConfigError(f"evaluate.judge.model={judge.model} is no judge; use {EMBEDDED_JUDGE}, a hub id or a folder")


def _is_made_here(reference: str) -> bool:
    """Whether a reference can only mean a model that the project builds: a hub id has an owner."""
    return source_kind(reference) == EMBEDDED_BASE and "/" not in reference


def resolve_models(context: Context) -> ResolvedModels:
    """The base model, and the judge when it is a local model.

    Raises:
        InputError: a model that cannot be found, fetched or opened.
    """
    config = context.config
    judge = config.evaluate.judge
    wants_judge = judge.kind == "local"
    seed = embedded_seed(config.model.base)
    if seed is not None:
        with_judge = wants_judge and judge.model == EMBEDDED_JUDGE
        base, embedded_judge = _build_embedded(context, seed, with_judge=with_judge)
    else:
        base, embedded_judge = _resolve_outside(config.model.base, config.model.revision, config), None
    if wants_judge and embedded_judge is None:
        return ResolvedModels(base=base, judge=_resolve_outside(judge.model, judge.revision, config))
    return ResolvedModels(base=base, judge=embedded_judge)


def _resolve_outside(reference: str, revision: str | None, config: Config) -> ResolvedModel:
    if source_kind(reference) == "local":
        folder = local_path(reference)
        if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
            raise InputError(
                f"{reference} holds no config.json with *.safetensors; expected a saved transformers model"
            )
        return ResolvedModel(kind="local", reference=reference, commit=str(source_identity(reference, None)["content"]))
    return _fetch_from_hub(reference, revision, config)


def _fetch_from_hub(reference: str, revision: str | None, config: Config) -> ResolvedModel:
    """Fetch a snapshot into the hub's cache; offline, find it there."""
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    _log.info("resolving %s at %s (a first fetch may take long)", reference, revision or "its newest revision")
    try:
        folder = Path(
            snapshot_download(
                reference, revision=revision, allow_patterns=_MODEL_FILES, local_files_only=config.runtime.offline
            )
        )
    except GatedRepoError as error:
        raise InputError(
            f"{reference} is gated: accept its licence on its hub page, then set HF_TOKEN to a token with access"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{reference} has no revision {revision!r}; set model.revision to a commit of that repository"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub knows no model {reference!r}, or HF_TOKEN may not see it; check the name, or give a local folder"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        why = "runtime.offline=true" if config.runtime.offline else "the hub cannot be reached"
        raise InputError(
            f"{reference} is not in the hub cache of this machine, and {why}; run once with the network, give a local "
            "folder as model.base, or use --config tiny, which needs neither"
        ) from error
    # The cache names a snapshot's folder by its commit.
    return ResolvedModel(kind="hub", reference=reference, commit=folder.name)


def _build_embedded(context: Context, seed: int, *, with_judge: bool) -> tuple[ResolvedModel, ResolvedModel | None]:
    from jobs.environment.embedded import BASE_RECIPE, JUDGE_RECIPE

    base_key, base_payload = _artifact_of("base_model", asdict(BASE_RECIPE) | {"seed": seed})
    judge_key, judge_payload = _artifact_of("judge_model", asdict(JUDGE_RECIPE))
    judge_manifest = context.store.read_manifest(judge_key) if with_judge else None
    base_manifest = context.store.read_manifest(base_key)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        building: Future[dict[str, Any]] | None = None
        if with_judge and judge_manifest is None:
            # Beside the base model's own training: each of the two keeps one core busy.
            building = pool.submit(build_judge, _fresh_folder(context.work_dir / "judge_model"))
        if base_manifest is None:
            folder = _fresh_folder(context.work_dir / "base_model")
            base_manifest = _publish(context, base_key, base_payload, folder, build_base(folder, seed))
        if building is not None:
            facts = building.result()
            judge_manifest = _publish(context, judge_key, judge_payload, context.work_dir / "judge_model", facts)
    base = _embedded(context.config.model.base, base_manifest)
    return base, None if judge_manifest is None else _embedded(EMBEDDED_JUDGE, judge_manifest)


def build_base(folder: Path, seed: int) -> dict[str, Any]:
    """Build the embedded base model into `folder`, with progress."""
    from jobs.environment.embedded import BASE_RECIPE, build_base_model

    _log.info("building the embedded base model (about 45 CPU seconds, once)")
    return _with_progress(
        "building the base model",
        BASE_RECIPE.steps,
        lambda report: build_base_model(folder, seed=seed, progress=report),
    )


def build_judge(folder: Path) -> dict[str, Any]:
    """Build the embedded judge into `folder`; runs in a process of its own, so without progress."""
    from jobs.environment.embedded import build_judge_model

    return dict(build_judge_model(folder))


def _with_progress(
    what: str, steps: int, build: Callable[[Callable[[int, int, float], None]], dict[str, Any]]
) -> dict[str, Any]:
    with track(what, steps) as advance:
        return dict(build(lambda done, _total, loss: advance(done, f"loss {loss:.2f}")))


def _artifact_of(name: str, recipe: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    versions = provenance.package_versions()
    payload = {
        "recipe": recipe,
        "packages": {package: versions[package] for package in ("torch", "transformers", "tokenizers", "safetensors")},
        "code": source_digest("jobs/environment/embedded", "pipeline_common/samples", "pipeline_common/judge_form.py"),
    }
    return f"{name}/{fingerprint_of(payload)}", payload


def _publish(context: Context, key: str, payload: dict[str, Any], folder: Path, facts: dict[str, Any]) -> Manifest:
    name, _, fingerprint = key.partition("/")
    manifest = Manifest(
        stage=name,
        fingerprint=fingerprint,
        payload=payload,
        run_id=context.run_id,
        files=list_files(folder),
        summary=facts,
        provenance=provenance.collect(provenance.now(), context.attempt),
    )
    context.store.publish(folder, manifest)
    shutil.rmtree(folder)
    return manifest


def _embedded(reference: str, manifest: Manifest) -> ResolvedModel:
    weights = next(entry.sha256 for entry in manifest.files if entry.path.endswith(".safetensors"))
    facts = {name: value for name, value in manifest.summary.items() if "second" not in name}
    return ResolvedModel(kind="embedded", reference=reference, commit=weights[:40], artifact=manifest.key, facts=facts)


def _fresh_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
