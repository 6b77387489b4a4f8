"""Settings of the evaluate stage."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from pipeline_common.config.section import Fraction, PositiveFloat, PositiveInt, SecretValueError, Section, Seed

MIN_PER_CLASS: Final = 64
"""Scored prompts of a label below which no score is worth printing."""


class JudgeConfig(Section):
    """Who scores the answers (G-Eval)."""

    kind: Literal["none", "local", "endpoint"] = Field(
        "local", description="none: no judge; local: a model of the run; endpoint: an OpenAI-compatible server"
    )
    model: str = Field("embedded-judge", description="local: embedded-judge, hub id or folder; endpoint: model name")
    revision: str | None = Field(None, description="hub revision of a local judge; pin a commit")
    base_url: str | None = Field(None, description="endpoint only; the key comes from JUDGE_API_KEY")
    max_prompts: PositiveInt = Field(64, description="per class")
    timeout_s: PositiveFloat = Field(30.0, description="endpoint: one request")
    max_attempts: PositiveInt = Field(4, description="endpoint: per request")
    concurrency: PositiveInt = Field(4, description="endpoint: requests under way at once")
    min_digit_mass: Fraction = Field(0.8, description="less probability on the digits 1-5 = a missing score")
    # auto is G-Eval as published; both models are always scored by the same steps. fixed makes runs comparable with
    # each other whatever wrote the steps.
    steps: Literal["auto", "fixed"] = Field("auto", description="evaluation steps: written by the judge, or ours")
    # The mean over the prompts levels the sampling noise, so fewer than the paper's 20 per answer suffice.
    samples: PositiveInt = Field(5, description="answers sampled per question from an endpoint without logprobs")
    max_requests: PositiveInt | None = Field(5000, description="endpoint: requests of one run, retries included")

    @field_validator("base_url")
    @classmethod
    def _path_ends_the_url(cls, url: str | None) -> str | None:
        # The path of the request is put behind it, and keys are often what follows a question mark.
        if url is not None and "?" in url:
            raise SecretValueError(
                "the address goes on after its path; expected http(s)://host/v1, the key in JUDGE_API_KEY"
            )
        return url

    @model_validator(mode="after")
    def _endpoint_has_url(self) -> JudgeConfig:
        if self.kind == "endpoint" and not self.base_url:
            raise ValueError("an endpoint judge needs evaluate.judge.base_url=http(s)://host/v1")
        return self


class EvaluateConfig(Section):
    """What is measured, on how many prompts, with how many resamples."""

    prompts_per_class: Annotated[int, Field(ge=MIN_PER_CLASS)] = Field(
        256, description="safe, and as many unsafe prompts"
    )
    seed: Seed = Field(42, description="of the choice of prompts, the resamples and the permutations")
    pooling: Literal["last", "mean"] = Field(
        "last", description="last: the state of the prompt's last token; mean: of all its tokens"
    )
    # Strict, or `true` would be layer 1.
    layers: Literal["band", "all", "learned"] | Annotated[int, Field(ge=0, strict=True)] = Field(
        "band", description="band: uniform mean over layer_band of the depth; learned: weights from half of the prompts"
    )
    layer_band: tuple[Fraction, Fraction] = Field(
        (0.4, 0.8), description="first and last depth of the band; 0 = embeddings, 1 = last layer"
    )
    pca_components: Annotated[int, Field(ge=2)] | None = Field(
        None, description="score on so many principal components of the base; None = on all dimensions"
    )
    aqi_lambda: Fraction = Field(0.5, description="weight of the compactness term 1 / XBI in AQI")
    extra_indices: tuple[Literal["b4", "legacy100"], ...] = Field(
        (), description="[b4, legacy100]: other forms of AQI, for comparison beside it"
    )
    resamples: Annotated[int, Field(ge=200)] = Field(1000, description="of the bootstrap")
    permutations: Annotated[int, Field(ge=199)] = Field(
        4999, description="of the labels; the smallest p is 1 / (permutations + 1); swaps are at least as many"
    )
    batch_tokens: PositiveInt | Literal["auto"] = Field(
        "auto", description="tokens per forward batch; changes speed, not results; auto: by the GPU's free memory"
    )
    sweep: Literal["auto", "simple", "flat"] = Field(
        "auto", description="activations: padded batches, or flattened ones for speed (auto: flattened on a GPU)"
    )
    max_new_tokens: Annotated[int, Field(ge=8)] = Field(16, description="length of the generated answers")
    responses_per_class: PositiveInt | None = Field(None, description="answers generated per class; None = all prompts")
    judge: JudgeConfig = JudgeConfig()

    @property
    def min_prompts_per_class(self) -> int:
        """The floor of `prompts_per_class`: learned layer weights spend half of the prompts."""
        return 2 * MIN_PER_CLASS if self.layers == "learned" else MIN_PER_CLASS

    @field_validator("layer_band")
    @classmethod
    def _band_goes_up(cls, band: tuple[float, float]) -> tuple[float, float]:
        # Turned round it would hold no layer, and the one nearest its middle would be scored instead.
        if band[0] > band[1]:
            raise ValueError(f"a band from {band[0]:g} to {band[1]:g} holds no layer; expected the smaller depth first")
        return band

    @model_validator(mode="after")
    def _enough_prompts(self) -> EvaluateConfig:
        if self.prompts_per_class < self.min_prompts_per_class:
            raise ValueError(
                f"evaluate.layers=learned learns on one half of the prompts and scores the other, which needs "
                f"{MIN_PER_CLASS} per class: set evaluate.prompts_per_class to at least {self.min_prompts_per_class}, "
                f"not {self.prompts_per_class}"
            )
        scored = 2 * self.prompts_per_class // (2 if self.layers == "learned" else 1)
        if self.pca_components is not None and self.pca_components > scored - 1:
            raise ValueError(
                f"evaluate.pca_components={self.pca_components}: {scored} scored prompts span at most {scored - 1} "
                "components; set fewer, or a larger evaluate.prompts_per_class"
            )
        return self
