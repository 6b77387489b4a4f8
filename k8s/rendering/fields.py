"""The fields of a kustomization.yaml that this tree uses; any other is refused."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Resource = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Strict):
    """Which objects: a kind, and a name as an anchored regular expression."""

    kind: str
    name: str = ".*"

    def matches(self, resource: Resource) -> bool:
        """Whether it means this object."""
        return resource["kind"] == self.kind and re.fullmatch(self.name, resource["metadata"]["name"]) is not None


class Patch(_Strict):
    """A JSON patch (RFC 6902), in the file or beside it."""

    target: Target
    path: str | None = None
    patch: str | None = None


class Image(_Strict):
    """What an image's name stands for."""

    name: str
    new_name: str | None = Field(None, alias="newName")
    new_tag: str | None = Field(None, alias="newTag")
    digest: str | None = None


class Labels(_Strict):
    """Labels for every object and every pod template."""

    pairs: dict[str, str]
    include_templates: Literal[True] = Field(alias="includeTemplates")


class GeneratorOptions(_Strict):
    """Generated names are always the given ones."""

    disable_hash: Literal[True] = Field(alias="disableNameSuffixHash")
    labels: dict[str, str] = {}


class ConfigMapSource(_Strict):
    """A ConfigMap made of files."""

    name: str
    files: list[str]
    options: GeneratorOptions
    behavior: Literal["create", "replace"] = "create"


class ReplacementSource(_Strict):
    """The field that is copied."""

    kind: str
    name: str
    field_path: str = Field(alias="fieldPath")


class ReplacementTarget(_Strict):
    """The fields it is copied to."""

    select: Target
    field_paths: list[str] = Field(alias="fieldPaths")


class Replacement(_Strict):
    """One field copied to others."""

    source: ReplacementSource
    targets: list[ReplacementTarget]


class SortOptions(_Strict):
    """Objects stay in the order in which they are listed."""

    order: Literal["fifo"]


class Kustomization(_Strict):
    """A kustomization.yaml."""

    api_version: str = Field(alias="apiVersion")
    kind: Literal["Kustomization", "Component"]
    sort_options: SortOptions | None = Field(None, alias="sortOptions")
    resources: list[str] = []
    components: list[str] = []
    config_maps: list[ConfigMapSource] = Field([], alias="configMapGenerator")
    patches: list[Patch] = []
    namespace: str | None = None
    labels: list[Labels] = []
    images: list[Image] = []
    replacements: list[Replacement] = []
