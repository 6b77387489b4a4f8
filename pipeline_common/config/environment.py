"""Settings of the environment stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline_common.config.section import Section


class EnvironmentConfig(Section):
    """What the machine must offer before anything long starts."""

    min_free_disk_gib: Annotated[float, Field(ge=0)] = Field(
        2.0, description="less free disk in the output folder is an error"
    )
    min_memory_gib: Annotated[float, Field(ge=0)] = Field(2.0, description="less memory is an error")
    min_gpu_memory_gib: Annotated[float, Field(ge=0)] = Field(0.0, description="0 = the profile runs without a GPU")
