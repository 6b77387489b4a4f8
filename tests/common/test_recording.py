from __future__ import annotations

import sqlalchemy as sa

from pipeline_common import execution
from pipeline_common.stages import plan_run
from pipeline_common.tables import TABLES
from tests.common.made_stage import write_one_file


def test_a_cached_stage_gives_another_run_its_rows(place, plan):
    execution.run_stage(place, plan, plan.stages["environment"], write_one_file, force=False)
    other = plan_run(place.config, "other")
    execution.run_stage(place, other, other.stages["environment"], write_one_file, force=False)
    states = {row["run_id"]: row["state"] for row in place.database.select(sa.select(TABLES["stage_runs"]))}
    assert states == {plan.run_id: "done", "other": "cached"}
    runs = place.database.select(sa.select(TABLES["experiments"].c.run_id, TABLES["experiments"].c.base_commit))
    assert {row["run_id"]: row["base_commit"] for row in runs} == {plan.run_id: "abc", "other": "abc"}
