"""Settings of the prepare stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline_common.config.section import PositiveInt, Section, Seed


class DatasetColumns(Section):
    """Names of the fine-tuning set's columns."""

    prompt: str = Field("Prompt", description="what the model is asked")
    instruction: str = Field("Instruction generated", description="the answer to learn with task teacher")
    accepted: str = Field("Accepted Response", description="the better transcript or answer")
    rejected: str = Field("Rejected Response", description="the worse one; counted, never learned")


class PromptColumns(Section):
    """Names of the labelled prompts' columns."""

    axiom: str = Field("axiom", description="what the prompt is about")
    safety_label: str = Field("safety_label", description="safe or unsafe")
    source_dataset: str = Field("source_dataset", description="where the prompt is from")
    input: str = Field("input", description="the prompt")
    target: str = Field("target", description="a reference answer; not scored")


class PrepareConfig(Section):
    """Which rows are trained on, which prompts are measured on, and how both are written down."""

    dataset: str = Field(
        "sample:alignment-healthy", min_length=1, description="sample:NAME, hub id, local or s3:// file"
    )
    dataset_revision: str | None = Field(None, description="hub revision of the dataset; pin a commit")
    columns: DatasetColumns = DatasetColumns()
    task: Literal["teacher", "sft_safe"] = Field(
        "teacher", description="teacher: Prompt -> Instruction generated; sft_safe: last human turn -> accepted answer"
    )
    prompts: str = Field(
        "sample:litmus", min_length=1, description="labelled prompts: sample:NAME, hub id, local or s3:// file"
    )
    prompts_revision: str | None = Field(None, description="hub revision of the prompts; pin a commit")
    prompt_columns: PromptColumns = PromptColumns()
    prompt_format: Literal["inst", "chat_template"] = Field(
        "inst", description="inst: Llama 2's [INST]; chat_template: the tokenizer's own"
    )
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="share of the rows that is kept from training"
    )
    seed: Seed = Field(42, description="of the split")
    max_length: Annotated[int, Field(ge=8)] = Field(1024, description="tokens of prompt + answer; prompts are cut")
    max_rows: PositiveInt | None = Field(None, description="read at most so many rows (None = all)")
    min_rows: PositiveInt = Field(100, description="fewer usable rows than this is an error")
