"""Stages made by hand: what one is given to run, and what an earlier one would have published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline_common.context import Context
from pipeline_common.manifest import Manifest, list_files
from pipeline_common.stages import Plan
from pipeline_common.termination import StopSignal
from pipeline_common.workplace import Workplace


def make_context(place: Workplace, plan: Plan, stage: str, work_dir: Path, **changes: Any) -> Context:
    """The first attempt at a stage without inputs; `changes` are fields of `Context`."""
    context: dict[str, Any] = {
        "config": place.config,
        "plan": plan,
        "planned": plan.stages[stage],
        "store": place.store,
        "database": place.database,
        "inputs": {},
        "work_dir": work_dir,
        "files": work_dir / "files",
        "stop": StopSignal(),
        "attempt": 1,
    }
    return Context(**{**context, **changes})


def publish_stage(place: Workplace, plan: Plan, stage: str, folder: Path) -> Manifest:
    """Publish a folder as the stage's artifact, without inputs."""
    planned = plan.stages[stage]
    manifest = Manifest(
        stage=stage,
        fingerprint=planned.fingerprint,
        payload=json.loads(json.dumps(planned.payload)),
        run_id=plan.run_id,
        files=list_files(folder),
    )
    place.store.publish(folder, manifest)
    return manifest
