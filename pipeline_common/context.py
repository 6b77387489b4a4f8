"""What a stage is given and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_common.clock import PhaseClock
from pipeline_common.errors import InputError
from pipeline_common.measures import Degradation
from pipeline_common.members import ALONE, Member

if TYPE_CHECKING:
    from pipeline_common.artifacts import ArtifactStore
    from pipeline_common.config import Config
    from pipeline_common.database import Database
    from pipeline_common.database.feed import RowFeed
    from pipeline_common.manifest import Manifest
    from pipeline_common.stages import Plan, PlannedStage
    from pipeline_common.termination import StopSignal


@dataclass(frozen=True)
class Outputs:
    """What a stage found, beside the files it wrote into `Context.files`."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Table -> rows without `run_id`; kept in the artifact and written to the database for every run that uses it."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """A few facts for the manifest and the last lines on the console."""
    degradations: tuple[Degradation, ...] = ()
    when_published: Callable[[], None] = lambda: None
    """Called once the artifact is in the store: for what only an attempt that fails after all would need."""


@dataclass(frozen=True)
class Context:
    """One attempt at one stage of one run."""

    config: Config
    plan: Plan
    planned: PlannedStage
    store: ArtifactStore
    database: Database
    inputs: Mapping[str, Manifest]
    work_dir: Path
    """Scratch that outlives a killed attempt (checkpoints); removed once the artifact is published."""
    files: Path
    """Everything in here becomes the artifact."""
    stop: StopSignal
    attempt: int
    member: Member = ALONE
    """Which of the stage's machines this is; only the leader's outputs count."""
    is_current: Callable[[], bool] = lambda: True
    """Whether the database still says that this attempt is the one at work; does not wait for it."""
    clock: PhaseClock = field(default_factory=PhaseClock)
    """Where the seconds go: `with context.clock.phase("load"):`; the report shows it."""

    def __post_init__(self) -> None:
        """A phase that begins after SIGTERM ends the stage, also where a library has caught what SIGTERM raised."""
        self.clock.before_phase = self.stop.heed

    @property
    def run_id(self) -> str:
        """The run this attempt belongs to."""
        return self.plan.run_id

    def input_file(self, stage: str, path: str) -> Path:
        """A file of an input's artifact (verified when the stage started).

        Raises:
            InputError: the artifact has no such file.
        """
        manifest = self.inputs[stage]
        if all(entry.path != path and not entry.path.startswith(f"{path}/") for entry in manifest.files):
            held = ", ".join(entry.path for entry in manifest.files)
            raise InputError(f"{manifest.key} holds no {path}; it holds {held}")
        return self.store.locate(manifest) / path

    def input_json(self, stage: str, path: str) -> Any:
        """A JSON file of an input's artifact, parsed."""
        return json.loads(self.input_file(stage, path).read_text(encoding="utf-8"))

    @contextmanager
    def feed_rows(self, table: str) -> Iterator[RowFeed]:
        """Upsert rows of this run while the stage is still running; they may arrive late, and stop nothing.

        The stage returns the same rows in its `Outputs`: these are what the table holds in the end.
        """
        from pipeline_common.database.feed import RowFeed
        from pipeline_common.database.lock import LockLostError

        def send(rows: Sequence[Mapping[str, Any]]) -> None:
            if not self.is_current():
                raise LockLostError("another process works on this stage of this run")
            self.database.upsert(table, [{"run_id": self.run_id, **row} for row in rows], patient=False)

        feed = RowFeed(send)
        try:
            yield feed
        finally:
            feed.close(timeout_s=2 * self.config.database.connect_timeout_s)

    def degrade(self, name: str, detail: str) -> Degradation:
        """Name a lesser way of running; the caller puts it into its `Outputs`."""
        from pipeline_common.logs import get_logger

        get_logger(self.planned.stage.name).warning("degraded: %s: %s", name, detail)
        return Degradation(stage=self.planned.stage.name, name=name, detail=detail)
