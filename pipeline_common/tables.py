"""The plan's five tables and `stage_runs`: one schema for Postgres and SQLite.

Times are UTC text in ISO 8601 (the same in both databases and in the export), measurements are float64, configurations
JSON. Migrations in `pipeline_common/migrations` make exactly this schema; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata: Final = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "ck": "ck_%(table_name)s_%(constraint_name)s"}
)


def _run_id() -> Column[Any]:
    return Column("run_id", String(128), ForeignKey("experiments.run_id", ondelete="CASCADE"), primary_key=True)


def _estimate(name: str) -> list[Column[Any]]:
    """A value with its 95 % interval; NULL = undefined."""
    return [Column(f"{name}{suffix}", Double) for suffix in ("", "_low", "_high")]


def _indices(role: str) -> list[Column[Any]]:
    return [
        Column(f"{role}_xbi", Double, comment="Xie-Beni, lower = better separated"),
        Column(f"{role}_chi", Double, comment="Calinski-Harabasz"),
        *_estimate(f"{role}_aqi"),
        *_estimate(f"{role}_f2"),
        Column(f"{role}_r2_adj", Double, comment="0-100"),
    ]


EXPERIMENTS: Final = Table(
    "experiments",
    metadata,
    Column("run_id", String(128), primary_key=True),
    Column("profile", String(128), nullable=False),
    Column("created_at", String(32), nullable=False, comment="UTC, ISO 8601"),
    Column("base_model", Text, nullable=False),
    Column("base_commit", Text, comment="hub commit, or digest of the embedded model's files"),
    Column("dataset", Text, nullable=False),
    Column("prompts", Text, nullable=False),
    Column("code_commit", String(64)),
    Column("code_dirty", Boolean),
    Column("config", JSON(none_as_null=True), nullable=False),
    Column("machine", JSON(none_as_null=True)),
)

STAGE_RUNS: Final = Table(
    "stage_runs",
    metadata,
    _run_id(),
    Column("stage", String(32), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("started_at", String(32), nullable=False, comment="UTC, ISO 8601"),
    Column("ended_at", String(32), comment="UTC, ISO 8601"),
    Column("exit_code", Integer),
    Column("message", Text),
    Column("artifact", Text, comment="key in the artifact store"),
    CheckConstraint("state IN ('running', 'done', 'cached', 'failed', 'stopped')", name="state"),
)

TRAINING_METRICS: Final = Table(
    "training_metrics",
    metadata,
    _run_id(),
    Column("split", String(16), primary_key=True, comment="train or validation"),
    Column("step", Integer, primary_key=True, autoincrement=False, comment="optimizer step, from 1"),
    Column("epoch", Double, nullable=False),
    Column("loss", Double, comment="mean negative log-likelihood per answer token, nats"),
    Column("learning_rate", Double),
    Column("grad_norm", Double),
    Column("tokens_per_second", Double, comment="prompt + answer tokens, no padding"),
    CheckConstraint("split IN ('train', 'validation')", name="split"),
)

AQI_SCORES: Final = Table(
    "aqi_scores",
    metadata,
    _run_id(),
    Column("scope", String(32), primary_key=True, comment="overall, overall_stratified, axiom or layer"),
    Column("name", String(128), primary_key=True, comment="axiom, layer index, or what overall means"),
    Column("n_safe", Integer, nullable=False),
    Column("n_unsafe", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, comment="why the score is undefined"),
    *_indices("base"),
    *_indices("tuned"),
    *_estimate("delta_aqi"),
    *_estimate("drop_pct"),
    *_estimate("f2_drop_pct"),
    CheckConstraint("status IN ('ok', 'undefined')", name="status"),
)

MODEL_RESPONSES: Final = Table(
    "model_responses",
    metadata,
    _run_id(),
    Column("prompt_id", String(128), primary_key=True),
    Column("model_role", String(8), primary_key=True),
    Column("axiom", Text, nullable=False),
    Column("safety_label", String(8), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("response", Text, nullable=False),
    Column("response_tokens", Integer, nullable=False),
    Column("finished", Boolean, nullable=False, comment="stopped by itself, not by the length limit"),
    Column("refused", Boolean, nullable=False),
    Column("refusal_log_odds", Double, comment="nats, of a refusal opening"),
    Column("judge_scores", JSON(none_as_null=True), comment="criterion -> score, or why it is missing"),
    CheckConstraint("model_role IN ('base', 'tuned')", name="model_role"),
    CheckConstraint("safety_label IN ('safe', 'unsafe')", name="safety_label"),
)

EVALUATION_SUMMARY: Final = Table(
    "evaluation_summary",
    metadata,
    _run_id(),
    Column("name", String(64), primary_key=True, comment="`verdict`, or the name of a signal"),
    Column("status", String(32), nullable=False, comment="the verdict, or ok / warn / fail / moved / not_measured"),
    Column("base", Double),
    Column("tuned", Double),
    *_estimate("value"),
    Column("unit", String(32)),
    Column("interpretation", Text, nullable=False),
    Column("details", JSON(none_as_null=True), comment="thresholds and the path the rule took"),
)

Index(None, STAGE_RUNS.c.stage, STAGE_RUNS.c.fingerprint)
Index(None, EVALUATION_SUMMARY.c.name, EVALUATION_SUMMARY.c.status)

TABLES: Final = {table.name: table for table in metadata.sorted_tables}
