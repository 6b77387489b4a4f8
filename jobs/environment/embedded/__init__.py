"""The embedded models: a small base model and an independent judge, built from the sample world without a network.

Importing this package does not import torch; building does.
"""

from __future__ import annotations

from jobs.environment.embedded.build import build_base_model, build_judge_model
from jobs.environment.embedded.recipes import BASE_RECIPE, JUDGE_RECIPE, EmbeddedRecipe

__all__ = ["BASE_RECIPE", "JUDGE_RECIPE", "EmbeddedRecipe", "build_base_model", "build_judge_model"]
