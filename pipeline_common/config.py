"""The configuration: one frozen tree, YAML profiles, overrides only as `section.field=value`.

Every mistake is reported at once, each with its path and the nearest valid key. Secrets never pass through here: the
database's address, the bucket's keys and the hub's token come from the environment alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline_common.errors import ConfigError
from pipeline_common.thresholds import Thresholds

PROFILES = Path(__file__).parent / "profiles"

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

MIN_PER_CLASS: Final = 64
"""Scored prompts of a label below which no score is worth printing."""


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """The base model every stage speaks of."""

    base: str = Field(
        "embedded", description="`embedded` or `embedded-seed-N` (built by the project), a hub id, or a local folder"
    )
    revision: str | None = Field(None, description="hub revision; pin a commit (40 hex digits) for repeatable runs")
    quantization: Literal["nf4", "none"] = Field("nf4", description="nf4 = 4-bit NormalFloat, double quantisation")
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of the forward pass, and of the 4-bit products"
    )


class EnvironmentConfig(Section):
    """What the machine must offer before anything long starts."""

    min_free_disk_gib: Annotated[float, Field(ge=0)] = Field(
        2.0, description="less free disk in the output folder is an error"
    )
    min_memory_gib: Annotated[float, Field(ge=0)] = Field(2.0, description="less memory is an error")
    min_gpu_memory_gib: Annotated[float, Field(ge=0)] = Field(0.0, description="0 = the profile runs without a GPU")


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

    dataset: str = Field("sample:alignment-healthy", description="sample:NAME, hub id, local or s3:// file")
    dataset_revision: str | None = Field(None, description="hub revision of the dataset; pin a commit")
    columns: DatasetColumns = DatasetColumns()
    task: Literal["teacher", "sft_safe"] = Field(
        "teacher", description="teacher: Prompt -> Instruction generated; sft_safe: last human turn -> accepted answer"
    )
    prompts: str = Field("sample:litmus", description="labelled prompts: sample:NAME, hub id, local or s3:// file")
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


class TrainConfig(Section):
    """QLoRA fine-tuning."""

    epochs: PositiveFloat = Field(3.0, description="passes over the rows")
    max_steps: PositiveInt | None = Field(250, description="wins over epochs when smaller; None = epochs alone")
    batch_size: PositiveInt = Field(4, description="rows per forward pass; more need more memory")
    gradient_accumulation: PositiveInt = Field(2, description="forward passes per optimizer step")
    learning_rate: PositiveFloat = Field(2e-4, description="the highest one, after the warm-up")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="how the learning rate falls")
    warmup_fraction: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW, of the adapter")
    max_grad_norm: PositiveFloat = Field(1.0, description="L2 norm that gradients are clipped to")
    optimizer: Literal["adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit"] = Field(
        "adamw_torch", description="paged: its state may leave the GPU; 8bit: states in 8 bits"
    )
    lora_r: PositiveInt = Field(16, description="rank of the adapter")
    lora_alpha: PositiveInt = Field(32, description="the adapter is scaled by lora_alpha / lora_r")
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="share of the adapter's inputs that is dropped"
    )
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="all-linear, or names of projections"
    )
    engine: Literal["auto", "plain", "flat"] = Field(
        "plain",
        description="plain: TRL's padded batches; flat: rows end to end, no padding; auto: flat on CUDA",
    )
    tokens_per_batch: PositiveInt | Literal["auto"] = Field(
        "auto", description="flat: tokens of one forward and backward pass; auto: from the GPU's free memory"
    )
    activation_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="true: less memory, about a third more time; auto: flat: only if the GPU's memory demands it; "
        "plain: on CUDA",
    )
    logging_steps: PositiveInt = Field(1, description="steps per row of training_metrics")
    eval_steps: PositiveInt | None = Field(None, description="None = evaluation loss at the end only")
    save_steps: PositiveInt = Field(25, description="steps between checkpoints")
    seed: Seed = Field(42, description="of the adapter, the dropout and the order of the rows")
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="trackers that see the metrics besides; their packages must be installed"
    )


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
    layers: Literal["band", "all", "learned"] | int = Field(
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


class AnalyzeConfig(Section):
    """How the verdict is reached and what it does to the exit code."""

    thresholds: Thresholds = Thresholds()
    gate: bool = Field(False, description="true: a damaged verdict exits 4, for CI")


class ArtifactsConfig(Section):
    """Where artifacts live; `ARTIFACTS_URI` in the environment wins over this."""

    uri: str = Field("", description="directory, file:// or s3://bucket/prefix; empty = <runtime.output_dir>/artifacts")
    create_bucket: bool = Field(True, description="make a missing bucket at the first write")
    transfers: PositiveInt = Field(8, description="requests to the bucket under way at once")
    connect_timeout_s: PositiveFloat = Field(5.0, description="bucket: to its server")
    read_timeout_s: PositiveFloat = Field(30.0, description="bucket: silence of its server")
    give_up_after_s: PositiveFloat = Field(90.0, description="an outage of the bucket's server is waited out so long")


class DatabaseConfig(Section):
    """How patiently the database is spoken to; its address is `DATABASE_URL` in the environment."""

    connect_timeout_s: PositiveFloat = Field(10.0, description="one connection; SQLite: another process's lock")
    give_up_after_s: PositiveFloat = Field(60.0, description="a server that is away is tried again for so long")


class RuntimeConfig(Section):
    """Where and how it runs; never part of a fingerprint."""

    output_dir: str = Field("output", description="results, scratch and local copies")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")
    gpus: PositiveInt = Field(
        1, description="processes of train and evaluate on a machine, a GPU each where there are GPUs"
    )
    nodes: PositiveInt = Field(1, description="machines that train and evaluate run on together")
    peers_timeout_s: PositiveFloat = Field(
        1800.0,
        description="evaluate on several GPUs or machines: longest silence of another process that is waited for",
    )
    threads: PositiveInt = Field(1, description="CPU threads of torch: more only helps models above some 100 M")
    offline: bool = Field(False, description="true: the hub is never asked, only its cache")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="of the console; the log file has everything"
    )


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


def profile_names() -> list[str]:
    """Names of the profiles that ship with the project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_config(profile_or_file: str, overrides: Sequence[str] = ()) -> Config:
    """Read a profile (or a YAML file), apply `section.field=value` overrides, validate.

    Raises:
        ConfigError: with every mistake at once, each with its path.
    """
    tree = _read_profile(profile_or_file, seen=())
    problems = list(_apply_overrides(tree, overrides))
    tree.setdefault("profile", Path(profile_or_file).stem)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems += [_explain(detail) for detail in error.errors(include_url=False)]
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ConfigError(f"the configuration {profile_or_file!r} has {len(problems)} mistake(s):\n{lines}")
    return config


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


def _read_profile(profile_or_file: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = PROFILES / f"{profile_or_file}.yaml"
    if profile_or_file not in profile_names():
        path = Path(profile_or_file)
        if not path.is_file():
            known = ", ".join(profile_names())
            near = difflib.get_close_matches(profile_or_file, profile_names(), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"--config {profile_or_file!r} is neither a profile nor a file{hint}; profiles are {known}, "
                "or give the path of a YAML file"
            )
    if path in seen:
        raise ConfigError(f"{path.name}: `extends` goes in a circle through {', '.join(p.name for p in seen)}")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds a {type(loaded).__name__}; expected a mapping of sections")
    parent = loaded.pop("extends", None)
    if parent is None:
        return loaded
    base = _read_profile(str(parent), (*seen, path))
    base.pop("profile", None)
    return _merge(base, loaded)


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
    return base


def _apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Write each override into `tree`; yield what is wrong with the others."""
    known = set(valid_keys())
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals:
            yield f"{override!r}: expected section.field=value, for example train.max_steps=10"
            continue
        if key not in known:
            yield _unknown_key(key)
            continue
        try:
            value = yaml.safe_load(raw) if raw.strip() else ""
        except yaml.YAMLError:
            value = raw
        *sections, field = key.split(".")
        node = tree
        for section in sections:
            child = node.get(section)
            if not isinstance(child, dict):
                child = node[section] = {}
            node = child
        node[field] = value


def _explain(detail: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return _unknown_key(path)
    return f"{path}: {detail['msg']} (came: {detail.get('input')!r})"


def _unknown_key(path: str) -> str:
    known = valid_keys()
    near = difflib.get_close_matches(path, [*known, *{key.rpartition(".")[0] for key in known} - {""}], n=1, cutoff=0.5)
    leaf = path.rpartition(".")[2]
    if not near:
        near = [key for key in known if key.rpartition(".")[2] == leaf][:1]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{path}: no such key{hint}"


def _field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _field_paths(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
