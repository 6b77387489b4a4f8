"""The plan's five tables and `stage_runs`: one schema for Postgres and SQLite.

Times are UTC to the millisecond (`timestamptz` on Postgres, ISO 8601 text in SQLite), measurements are float64,
configurations JSON (`jsonb` on Postgres). Migrations in `pipeline_common/migrations` make exactly this schema; a test
compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

metadata: Final = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "ck": "ck_%(table_name)s_%(constraint_name)s"}
)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC, to the millisecond; written as an aware datetime or as its ISO 8601 text."""

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`timestamptz(3)` on Postgres, text elsewhere."""
        kind: TypeEngine[Any] = (
            TIMESTAMP(timezone=True, precision=3) if dialect.name == "postgresql" else String(length=32)
        )
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | str | None, dialect: Dialect) -> Any:
        """To what the database keeps.

        Raises:
            ValueError: a time without its zone.
        """
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if moment.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; times are kept in UTC")
        moment = moment.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.isoformat(timespec="milliseconds")

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        """Always an aware datetime in UTC."""
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


_JSON: Final = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def _run_id() -> Column[Any]:
    return Column(
        "run_id",
        String(128),
        ForeignKey("experiments.run_id", ondelete="CASCADE"),
        primary_key=True,
        comment="the run, of experiments",
    )


def _estimate(name: str, meaning: str) -> list[Column[Any]]:
    """A value with its 95 % interval; NULL = undefined."""
    return [
        Column(name, Double, comment=f"{meaning}; NULL = undefined"),
        Column(f"{name}_low", Double, comment=f"{name}, lower end of the 95 % interval"),
        Column(f"{name}_high", Double, comment=f"{name}, upper end of the 95 % interval"),
    ]


def _indices(role: str) -> list[Column[Any]]:
    return [
        Column(f"{role}_xbi", Double, comment="Xie-Beni, no unit, >= 0, lower = better separated"),
        Column(f"{role}_chi", Double, comment="Calinski-Harabasz, no unit, >= 0, higher = better separated"),
        *_estimate(f"{role}_aqi", "Alignment Quality Index, no unit, higher = better separated; grows with n"),
        *_estimate(f"{role}_f2", "between-centre over within variance, no unit, corrected for n"),
        Column(f"{role}_r2_adj", Double, comment="percent of the variance that the label explains, adjusted for n"),
    ]


def _at_least(column: str, least: int) -> CheckConstraint:
    return CheckConstraint(f"{column} >= {least}", name=column)


EXPERIMENTS: Final = Table(
    "experiments",
    metadata,
    Column("run_id", String(128), primary_key=True, comment="name of the run"),
    Column("profile", String(128), nullable=False, comment="name of the configuration"),
    Column("created_at", UtcTime, nullable=False, comment="UTC"),
    Column("base_model", Text, nullable=False, comment="as the configuration names it"),
    Column("base_commit", Text, comment="hub commit, or digest of the embedded model's files"),
    Column("dataset", Text, nullable=False, comment="rows trained on, as the configuration names them"),
    Column("prompts", Text, nullable=False, comment="labelled prompts, as the configuration names them"),
    Column("code_commit", String(64), comment="git commit of the code; NULL = unknown"),
    Column("code_dirty", Boolean, comment="whether files differed from that commit"),
    Column("config", _JSON, nullable=False, comment="the whole configuration, without secrets"),
    Column("machine", _JSON, comment="what the environment stage found"),
)

STAGE_RUNS: Final = Table(
    "stage_runs",
    metadata,
    _run_id(),
    Column("stage", String(32), primary_key=True, comment="environment, prepare, train, evaluate or analyze"),
    Column("fingerprint", String(64), nullable=False, comment="of configuration, inputs and code"),
    Column("state", String(16), nullable=False, comment="running, done, cached, failed or stopped"),
    Column("attempt", Integer, nullable=False, comment="from 1"),
    Column("started_at", UtcTime, nullable=False, comment="UTC, of the latest attempt"),
    Column("ended_at", UtcTime, comment="UTC; NULL = still running, or killed"),
    Column("exit_code", Integer, comment="of the process; NULL = still running, or killed"),
    Column("message", Text, comment="why it failed"),
    Column("artifact", Text, comment="key in the artifact store"),
    CheckConstraint("state IN ('running', 'done', 'cached', 'failed', 'stopped')", name="state"),
    CheckConstraint("state NOT IN ('done', 'cached') OR artifact IS NOT NULL", name="artifact"),
    _at_least("attempt", 1),
    CheckConstraint("exit_code BETWEEN 0 AND 255", name="exit_code"),
)

TRAINING_METRICS: Final = Table(
    "training_metrics",
    metadata,
    _run_id(),
    Column("split", String(16), primary_key=True, comment="train or validation"),
    Column("step", Integer, primary_key=True, autoincrement=False, comment="optimizer step, from 1"),
    Column("epoch", Double, nullable=False, comment="passes over the rows so far"),
    Column("loss", Double, comment="mean negative log-likelihood per answer token, nats"),
    Column("learning_rate", Double, comment="of this step, no unit"),
    Column("grad_norm", Double, comment="L2 norm before clipping, no unit"),
    Column("tokens_per_second", Double, comment="prompt + answer tokens, no padding"),
    CheckConstraint("split IN ('train', 'validation')", name="split"),
    _at_least("step", 1),
    _at_least("epoch", 0),
    _at_least("learning_rate", 0),
    _at_least("grad_norm", 0),
    _at_least("tokens_per_second", 0),
)

AQI_SCORES: Final = Table(
    "aqi_scores",
    metadata,
    _run_id(),
    Column("scope", String(32), primary_key=True, comment="overall, overall_stratified, axiom or layer"),
    Column("name", String(128), primary_key=True, comment="axiom, layer index, or what overall means"),
    Column("n_safe", Integer, nullable=False, comment="prompts labelled safe"),
    Column("n_unsafe", Integer, nullable=False, comment="prompts labelled unsafe"),
    Column("status", String(16), nullable=False, comment="ok or undefined"),
    Column("reason", Text, comment="why the score, or a part of it, is undefined"),
    *_indices("base"),
    *_indices("tuned"),
    *_estimate("delta_aqi", "tuned - base, below 0 = separation was lost"),
    *_estimate("drop_pct", "percent, 100 (base - tuned) / base of AQI, above 0 = separation was lost"),
    *_estimate("f2_drop_pct", "percent, 100 (base - tuned) / base of f2, above 0 = separation was lost"),
    CheckConstraint("status IN ('ok', 'undefined')", name="status"),
    _at_least("n_safe", 0),
    _at_least("n_unsafe", 0),
)

MODEL_RESPONSES: Final = Table(
    "model_responses",
    metadata,
    _run_id(),
    Column("prompt_id", String(128), primary_key=True, comment="from the row the prompt came from"),
    Column("model_role", String(8), primary_key=True, comment="base or tuned"),
    Column("axiom", Text, nullable=False, comment="what the prompt is about"),
    Column("safety_label", String(8), nullable=False, comment="safe or unsafe"),
    Column("prompt", Text, nullable=False, comment="as the model read it, before its template"),
    Column("response", Text, nullable=False, comment="greedy; the character NUL is written as its symbol U+2400"),
    Column("response_tokens", Integer, nullable=False, comment="tokens generated"),
    Column("finished", Boolean, nullable=False, comment="stopped by itself, not by the length limit"),
    Column("refused", Boolean, nullable=False, comment="by the phrases of a refusal"),
    Column("refusal_log_odds", Double, comment="nats, of a refusal opening"),
    Column("judge_scores", _JSON, comment="criterion -> score, or why it is missing"),
    CheckConstraint("model_role IN ('base', 'tuned')", name="model_role"),
    CheckConstraint("safety_label IN ('safe', 'unsafe')", name="safety_label"),
    _at_least("response_tokens", 0),
)

EVALUATION_SUMMARY: Final = Table(
    "evaluation_summary",
    metadata,
    _run_id(),
    Column("name", String(64), primary_key=True, comment="`verdict`, a signal, judge:<criterion> or control:<name>"),
    Column("status", String(32), nullable=False, comment="the verdict, or ok / warn / fail / not_measured"),
    Column("base", Double, comment="of the base model, in details.base_unit, else in `unit`"),
    Column("tuned", Double, comment="of the tuned model, in details.base_unit, else in `unit`"),
    *_estimate("value", "a signal's change or a control's value, in `unit`"),
    Column("unit", String(32), comment="of value; NULL = no unit"),
    Column("interpretation", Text, nullable=False, comment="in words"),
    Column("details", _JSON, comment="thresholds, the path the rule took, unit of base and tuned (base_unit)"),
)

# A run's own rows are found by primary keys, which begin with run_id. These serve the questions across runs.
Index(None, EXPERIMENTS.c.created_at)  # the newest runs
Index(None, STAGE_RUNS.c.stage, STAGE_RUNS.c.fingerprint)  # who made this artifact
Index(None, STAGE_RUNS.c.state)  # what runs, what failed
Index(None, AQI_SCORES.c.scope, AQI_SCORES.c.name)  # one score over all runs
Index(None, EVALUATION_SUMMARY.c.name, EVALUATION_SUMMARY.c.status)  # verdicts over all runs

TABLES: Final = {table.name: table for table in metadata.sorted_tables}
