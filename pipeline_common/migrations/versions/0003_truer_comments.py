"""Comments that told something else than the rows hold: units of evaluation_summary, its names, reasons of scores."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COMMENTS: Final[dict[str, dict[str, str]]] = {
    "aqi_scores": {"reason": "why the score, or a part of it, is undefined"},
    "evaluation_summary": {
        "name": "`verdict`, a signal, judge:<criterion> or control:<name>",
        "status": "the verdict, or ok / warn / fail / not_measured",
        "base": "of the base model, in details.base_unit, else in `unit`",
        "tuned": "of the tuned model, in details.base_unit, else in `unit`",
        "value": "a signal's change or a control's value, in `unit`; NULL = undefined",
        "unit": "of value; NULL = no unit",
        "interpretation": "in words",
        "details": "thresholds, the path the rule took, unit of base and tuned (base_unit)",
    },
}


def upgrade() -> None:
    """Apply; SQLite keeps no comments."""
    if op.get_bind().dialect.name == "postgresql":
        for table, comments in _COMMENTS.items():
            for column, comment in comments.items():
                quoted = comment.replace("'", "''")
                op.execute(f"COMMENT ON COLUMN {table}.{column} IS '{quoted}'")


def downgrade() -> None:
    """Undo; the column comments stay."""
