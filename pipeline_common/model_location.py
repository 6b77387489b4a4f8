"""Which files the base model and the judge are, as *environment* resolved them. No model library is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from pipeline_common.errors import InputError
from pipeline_common.sources import local_path

if TYPE_CHECKING:
    from pipeline_common.artifacts import ArtifactStore
    from pipeline_common.context import Context

MODELS_FILE: Final = "base_model.json"


class ResolvedModel(BaseModel):
    """One model after resolution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["embedded", "local", "hub"]
    reference: str
    """As configured: `embedded`, a folder, or a hub id."""
    commit: str
    """Hub commit (40 hex digits), or a digest of the files."""
    artifact: str | None = None
    """Key in the artifact store; embedded models only."""
    facts: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """Name and commit, for people."""
        return f"{self.reference}@{self.commit[:12]}"


class ResolvedModels(BaseModel):
    """Content of `base_model.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: ResolvedModel
    judge: ResolvedModel | None = None


def resolved_models(context: Context) -> ResolvedModels:
    """What *environment* resolved for this run."""
    return ResolvedModels.model_validate(context.input_json("environment", MODELS_FILE))


def model_folder(model: ResolvedModel, store: ArtifactStore) -> Path:
    """The local folder with a model's files; the hub is not asked, only its cache.

    Raises:
        InputError: the files are not where *environment* left them.
    """
    if model.kind == "local":
        return local_path(model.reference)
    if model.kind == "embedded":
        manifest = store.read_manifest(str(model.artifact))
        if manifest is None:
            raise InputError(
                f"the embedded model {model.artifact} is not in {store.uri}; run the environment stage with --force"
            )
        return store.open(manifest)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.reference, revision=model.commit, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{model.title} is not in the hub cache of this machine; run the environment stage with --force, or mount "
            "the cache it filled (HF_HOME)"
        ) from error
