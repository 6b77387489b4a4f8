"""The configuration: one frozen tree, YAML profiles, overrides only as `section.field=value`.

Every mistake is reported at once, each with its path and the nearest valid key. Secrets never pass through here: the
database's address, the bucket's keys and the hub's token come from the environment alone.
"""

from pipeline_common.config.analyze import AnalyzeConfig
from pipeline_common.config.environment import EnvironmentConfig
from pipeline_common.config.evaluate import MIN_PER_CLASS, EvaluateConfig, JudgeConfig
from pipeline_common.config.loading import PROFILES, load_config, profile_names
from pipeline_common.config.models import ModelConfig
from pipeline_common.config.places import ArtifactsConfig, DatabaseConfig, RuntimeConfig
from pipeline_common.config.prepare import DatasetColumns, PrepareConfig, PromptColumns
from pipeline_common.config.section import Section
from pipeline_common.config.train import TrainConfig
from pipeline_common.config.tree import Config, flatten, valid_keys

__all__ = [
    "MIN_PER_CLASS",
    "PROFILES",
    "AnalyzeConfig",
    "ArtifactsConfig",
    "Config",
    "DatabaseConfig",
    "DatasetColumns",
    "EnvironmentConfig",
    "EvaluateConfig",
    "JudgeConfig",
    "ModelConfig",
    "PrepareConfig",
    "PromptColumns",
    "RuntimeConfig",
    "Section",
    "TrainConfig",
    "flatten",
    "load_config",
    "profile_names",
    "valid_keys",
]
