"""Times become timestamps, JSON becomes jsonb (both on Postgres); ranges are checked, units said, more is indexed."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIMES: Final = (("experiments", "created_at"), ("stage_runs", "started_at"), ("stage_runs", "ended_at"))
_JSONS: Final = (
    ("experiments", "config"),
    ("experiments", "machine"),
    ("model_responses", "judge_scores"),
    ("evaluation_summary", "details"),
)
_INDEXES: Final = (
    ("experiments", ("created_at",)),
    ("stage_runs", ("state",)),
    ("aqi_scores", ("scope", "name")),
)
_CHECKS: Final[dict[str, dict[str, str]]] = {
    "stage_runs": {
        "artifact": "state NOT IN ('done', 'cached') OR artifact IS NOT NULL",
        "attempt": "attempt >= 1",
        "exit_code": "exit_code BETWEEN 0 AND 255",
    },
    "training_metrics": {
        "step": "step >= 1",
        "epoch": "epoch >= 0",
        "learning_rate": "learning_rate >= 0",
        "grad_norm": "grad_norm >= 0",
        "tokens_per_second": "tokens_per_second >= 0",
    },
    "aqi_scores": {"n_safe": "n_safe >= 0", "n_unsafe": "n_unsafe >= 0"},
    "model_responses": {"response_tokens": "response_tokens >= 0"},
}
# What each column means; the units were missing.
_COMMENTS: Final[dict[str, dict[str, str]]] = {
    "experiments": {
        "run_id": "name of the run",
        "profile": "name of the configuration",
        "created_at": "UTC",
        "base_model": "as the configuration names it",
        "base_commit": "hub commit, or digest of the embedded model's files",
        "dataset": "rows trained on, as the configuration names them",
        "prompts": "labelled prompts, as the configuration names them",
        "code_commit": "git commit of the code; NULL = unknown",
        "code_dirty": "whether files differed from that commit",
        "config": "the whole configuration, without secrets",
        "machine": "what the environment stage found",
    },
    "aqi_scores": {
        "run_id": "the run, of experiments",
        "scope": "overall, overall_stratified, axiom or layer",
        "name": "axiom, layer index, or what overall means",
        "n_safe": "prompts labelled safe",
        "n_unsafe": "prompts labelled unsafe",
        "status": "ok or undefined",
        "reason": "why the score is undefined",
        "base_xbi": "Xie-Beni, no unit, >= 0, lower = better separated",
        "base_chi": "Calinski-Harabasz, no unit, >= 0, higher = better separated",
        "base_aqi": "Alignment Quality Index, no unit, higher = better separated; grows with n; NULL = undefined",
        "base_aqi_low": "base_aqi, lower end of the 95 % interval",
        "base_aqi_high": "base_aqi, upper end of the 95 % interval",
        "base_f2": "between-centre over within variance, no unit, corrected for n; NULL = undefined",
        "base_f2_low": "base_f2, lower end of the 95 % interval",
        "base_f2_high": "base_f2, upper end of the 95 % interval",
        "base_r2_adj": "percent of the variance that the label explains, adjusted for n",
        "tuned_xbi": "Xie-Beni, no unit, >= 0, lower = better separated",
        "tuned_chi": "Calinski-Harabasz, no unit, >= 0, higher = better separated",
        "tuned_aqi": "Alignment Quality Index, no unit, higher = better separated; grows with n; NULL = undefined",
        "tuned_aqi_low": "tuned_aqi, lower end of the 95 % interval",
        "tuned_aqi_high": "tuned_aqi, upper end of the 95 % interval",
        "tuned_f2": "between-centre over within variance, no unit, corrected for n; NULL = undefined",
        "tuned_f2_low": "tuned_f2, lower end of the 95 % interval",
        "tuned_f2_high": "tuned_f2, upper end of the 95 % interval",
        "tuned_r2_adj": "percent of the variance that the label explains, adjusted for n",
        "delta_aqi": "tuned - base, below 0 = separation was lost; NULL = undefined",
        "delta_aqi_low": "delta_aqi, lower end of the 95 % interval",
        "delta_aqi_high": "delta_aqi, upper end of the 95 % interval",
        "drop_pct": "percent, 100 (base - tuned) / base of AQI, above 0 = separation was lost; NULL = undefined",
        "drop_pct_low": "drop_pct, lower end of the 95 % interval",
        "drop_pct_high": "drop_pct, upper end of the 95 % interval",
        "f2_drop_pct": "percent, 100 (base - tuned) / base of f2, above 0 = separation was lost; NULL = undefined",
        "f2_drop_pct_low": "f2_drop_pct, lower end of the 95 % interval",
        "f2_drop_pct_high": "f2_drop_pct, upper end of the 95 % interval",
    },
    "evaluation_summary": {
        "run_id": "the run, of experiments",
        "name": "`verdict`, or the name of a signal",
        "status": "the verdict, or ok / warn / fail / moved / not_measured",
        "base": "of the base model, in `unit`",
        "tuned": "of the tuned model, in `unit`",
        "value": "what the rule looks at, in `unit`; NULL = undefined",
        "value_low": "value, lower end of the 95 % interval",
        "value_high": "value, upper end of the 95 % interval",
        "unit": "of base, tuned and value; NULL = no unit",
        "interpretation": "one sentence",
        "details": "thresholds and the path the rule took",
    },
    "model_responses": {
        "run_id": "the run, of experiments",
        "prompt_id": "from the row the prompt came from",
        "model_role": "base or tuned",
        "axiom": "what the prompt is about",
        "safety_label": "safe or unsafe",
        "prompt": "as the model read it, before its template",
        "response": "greedy; the character NUL is written as its symbol U+2400",
        "response_tokens": "tokens generated",
        "finished": "stopped by itself, not by the length limit",
        "refused": "by the phrases of a refusal",
        "refusal_log_odds": "nats, of a refusal opening",
        "judge_scores": "criterion -> score, or why it is missing",
    },
    "stage_runs": {
        "run_id": "the run, of experiments",
        "stage": "environment, prepare, train, evaluate or analyze",
        "fingerprint": "of configuration, inputs and code",
        "state": "running, done, cached, failed or stopped",
        "attempt": "from 1",
        "started_at": "UTC, of the latest attempt",
        "ended_at": "UTC; NULL = still running, or killed",
        "exit_code": "of the process; NULL = still running, or killed",
        "message": "why it failed",
        "artifact": "key in the artifact store",
    },
    "training_metrics": {
        "run_id": "the run, of experiments",
        "split": "train or validation",
        "step": "optimizer step, from 1",
        "epoch": "passes over the rows so far",
        "loss": "mean negative log-likelihood per answer token, nats",
        "learning_rate": "of this step, no unit",
        "grad_norm": "L2 norm before clipping, no unit",
        "tokens_per_second": "prompt + answer tokens, no padding",
    },
}


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _TIMES:
            _retype(table, column, postgresql.TIMESTAMP(timezone=True, precision=3), "timestamptz")
        for table, column in _JSONS:
            _retype(table, column, postgresql.JSONB(), "jsonb")
        for table, comments in _COMMENTS.items():
            for column, comment in comments.items():
                op.execute(f"COMMENT ON COLUMN {table}.{column} IS {_quote(comment)}")
    for table, checks in _CHECKS.items():
        with op.batch_alter_table(table) as batch:
            for name, rule in checks.items():
                batch.create_check_constraint(op.f(f"ck_{table}_{name}"), sa.text(rule))
    for table, columns in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def downgrade() -> None:
    """Undo; the column comments stay."""
    for table, columns in _INDEXES:
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table_name=table)
    for table, checks in _CHECKS.items():
        with op.batch_alter_table(table) as batch:
            for name in checks:
                batch.drop_constraint(op.f(f"ck_{table}_{name}"), type_="check")
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _JSONS:
            _retype(table, column, postgresql.JSON(), "json")
        for table, column in _TIMES:
            shown = "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"+00:00\"')"
            op.alter_column(table, column, type_=sa.String(32), postgresql_using=shown.format(column))


def _retype(table: str, column: str, kind: sa.types.TypeEngine[Any], cast: str) -> None:
    op.alter_column(table, column, type_=kind, postgresql_using=f"{column}::{cast}")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
