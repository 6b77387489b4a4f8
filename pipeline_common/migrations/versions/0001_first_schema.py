"""The first schema: the plan's five tables and stage_runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "experiments",
        sa.Column("run_id", sa.String(length=128), nullable=False),
        sa.Column("profile", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False, comment="UTC, ISO 8601"),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column(
            "base_commit", sa.Text(), nullable=True, comment="hub commit, or digest of the embedded model's files"
        ),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("prompts", sa.Text(), nullable=False),
        sa.Column("code_commit", sa.String(length=64), nullable=True),
        sa.Column("code_dirty", sa.Boolean(), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("machine", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "aqi_scores",
        sa.Column("run_id", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=32), nullable=False, comment="overall, overall_stratified, axiom or layer"),
        sa.Column("name", sa.String(length=128), nullable=False, comment="axiom, layer index, or what overall means"),
        sa.Column("n_safe", sa.Integer(), nullable=False),
        sa.Column("n_unsafe", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="why the score is undefined"),
        sa.Column("base_xbi", sa.Double(), nullable=True, comment="Xie-Beni, lower = better separated"),
        sa.Column("base_chi", sa.Double(), nullable=True, comment="Calinski-Harabasz"),
        sa.Column("base_aqi", sa.Double(), nullable=True),
        sa.Column("base_aqi_low", sa.Double(), nullable=True),
        sa.Column("base_aqi_high", sa.Double(), nullable=True),
        sa.Column("base_f2", sa.Double(), nullable=True),
        sa.Column("base_f2_low", sa.Double(), nullable=True),
        sa.Column("base_f2_high", sa.Double(), nullable=True),
        sa.Column("base_r2_adj", sa.Double(), nullable=True, comment="0-100"),
        sa.Column("tuned_xbi", sa.Double(), nullable=True, comment="Xie-Beni, lower = better separated"),
        sa.Column("tuned_chi", sa.Double(), nullable=True, comment="Calinski-Harabasz"),
        sa.Column("tuned_aqi", sa.Double(), nullable=True),
        sa.Column("tuned_aqi_low", sa.Double(), nullable=True),
        sa.Column("tuned_aqi_high", sa.Double(), nullable=True),
        sa.Column("tuned_f2", sa.Double(), nullable=True),
        sa.Column("tuned_f2_low", sa.Double(), nullable=True),
        sa.Column("tuned_f2_high", sa.Double(), nullable=True),
        sa.Column("tuned_r2_adj", sa.Double(), nullable=True, comment="0-100"),
        sa.Column("delta_aqi", sa.Double(), nullable=True),
        sa.Column("delta_aqi_low", sa.Double(), nullable=True),
        sa.Column("delta_aqi_high", sa.Double(), nullable=True),
        sa.Column("drop_pct", sa.Double(), nullable=True),
        sa.Column("drop_pct_low", sa.Double(), nullable=True),
        sa.Column("drop_pct_high", sa.Double(), nullable=True),
        sa.Column("f2_drop_pct", sa.Double(), nullable=True),
        sa.Column("f2_drop_pct_low", sa.Double(), nullable=True),
        sa.Column("f2_drop_pct_high", sa.Double(), nullable=True),
        sa.CheckConstraint("status IN ('ok', 'undefined')", name=op.f("ck_aqi_scores_status")),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "scope", "name"),
    )
    op.create_table(
        "evaluation_summary",
        sa.Column("run_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="`verdict`, or the name of a signal"),
        sa.Column(
            "status",
            sa.String(length=32),
            nullable=False,
            comment="the verdict, or ok / warn / fail / moved / not_measured",
        ),
        sa.Column("base", sa.Double(), nullable=True),
        sa.Column("tuned", sa.Double(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("value_low", sa.Double(), nullable=True),
        sa.Column("value_high", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(length=32), nullable=True),
        sa.Column("interpretation", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=True, comment="thresholds and the path the rule took"),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name"),
    )
    op.create_index(op.f("ix_evaluation_summary_name_status"), "evaluation_summary", ["name", "status"], unique=False)
    op.create_table(
        "model_responses",
        sa.Column("run_id", sa.String(length=128), nullable=False),
        sa.Column("prompt_id", sa.String(length=128), nullable=False),
        sa.Column("model_role", sa.String(length=8), nullable=False),
        sa.Column("axiom", sa.Text(), nullable=False),
        sa.Column("safety_label", sa.String(length=8), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("response_tokens", sa.Integer(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False, comment="stopped by itself, not by the length limit"),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.Column("refusal_log_odds", sa.Double(), nullable=True, comment="nats, of a refusal opening"),
        sa.Column("judge_scores", sa.JSON(), nullable=True, comment="criterion -> score, or why it is missing"),
        sa.CheckConstraint("model_role IN ('base', 'tuned')", name=op.f("ck_model_responses_model_role")),
        sa.CheckConstraint("safety_label IN ('safe', 'unsafe')", name=op.f("ck_model_responses_safety_label")),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "prompt_id", "model_role"),
    )
    op.create_table(
        "stage_runs",
        sa.Column("run_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False, comment="UTC, ISO 8601"),
        sa.Column("ended_at", sa.String(length=32), nullable=True, comment="UTC, ISO 8601"),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("artifact", sa.Text(), nullable=True, comment="key in the artifact store"),
        sa.CheckConstraint(
            "state IN ('running', 'done', 'cached', 'failed', 'stopped')", name=op.f("ck_stage_runs_state")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "stage"),
    )
    op.create_index(op.f("ix_stage_runs_stage_fingerprint"), "stage_runs", ["stage", "fingerprint"], unique=False)
    op.create_table(
        "training_metrics",
        sa.Column("run_id", sa.String(length=128), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False, comment="train or validation"),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False, comment="optimizer step, from 1"),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=True, comment="mean negative log-likelihood per answer token, nats"),
        sa.Column("learning_rate", sa.Double(), nullable=True),
        sa.Column("grad_norm", sa.Double(), nullable=True),
        sa.Column("tokens_per_second", sa.Double(), nullable=True, comment="prompt + answer tokens, no padding"),
        sa.CheckConstraint("split IN ('train', 'validation')", name=op.f("ck_training_metrics_split")),
        sa.ForeignKeyConstraint(["run_id"], ["experiments.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "split", "step"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("training_metrics")
    op.drop_index(op.f("ix_stage_runs_stage_fingerprint"), table_name="stage_runs")
    op.drop_table("stage_runs")
    op.drop_table("model_responses")
    op.drop_index(op.f("ix_evaluation_summary_name_status"), table_name="evaluation_summary")
    op.drop_table("evaluation_summary")
    op.drop_table("aqi_scores")
    op.drop_table("experiments")
