"""The base model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_common.config.section import Section


class ModelConfig(Section):
    """The base model every stage speaks of."""

    base: str = Field(
        "embedded",
        min_length=1,
        description="`embedded` or `embedded-seed-N` (built by the project), a hub id, or a local folder",
    )
    revision: str | None = Field(None, description="hub revision; pin a commit (40 hex digits) for repeatable runs")
    quantization: Literal["nf4", "none"] = Field("nf4", description="nf4 = 4-bit NormalFloat, double quantisation")
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of the forward pass, and of the 4-bit products"
    )
