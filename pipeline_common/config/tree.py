"""The whole configuration, and the names of its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pipeline_common.config.analyze import AnalyzeConfig
from pipeline_common.config.environment import EnvironmentConfig
from pipeline_common.config.evaluate import EvaluateConfig
from pipeline_common.config.models import ModelConfig
from pipeline_common.config.places import ArtifactsConfig, DatabaseConfig, RuntimeConfig
from pipeline_common.config.prepare import PrepareConfig
from pipeline_common.config.section import Section
from pipeline_common.config.train import TrainConfig


class Config(Section):
    """The whole tree."""

    profile: str
    model: ModelConfig = ModelConfig()
    environment: EnvironmentConfig = EnvironmentConfig()
    prepare: PrepareConfig = PrepareConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    analyze: AnalyzeConfig = AnalyzeConfig()
    artifacts: ArtifactsConfig = ArtifactsConfig()
    database: DatabaseConfig = DatabaseConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {"a.b.c": leaf}; lists and empty mappings are leaves."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def valid_keys() -> list[str]:
    """Every `section.field` an override may name."""
    return sorted(_field_paths(Config))


def _field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _field_paths(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
