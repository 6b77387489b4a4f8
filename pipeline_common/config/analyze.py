"""Settings of the analyze stage."""

from __future__ import annotations

from pydantic import Field

from pipeline_common.config.section import Section
from pipeline_common.thresholds import Thresholds


class AnalyzeConfig(Section):
    """How the verdict is reached and what it does to the exit code."""

    thresholds: Thresholds = Thresholds()
    gate: bool = Field(False, description="true: a damaged verdict exits 4, for CI")
    redact_responses: bool = Field(
        False, description="true: answers to unsafe prompts are left out of the report; false: each is behind a click"
    )
