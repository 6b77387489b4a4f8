"""Runs the real stages for many fine-tunes in few processes: importing the libraries takes as long as a fine-tune."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from jobs.analyze.verdict import Verdict, decide
from jobs.calibrate.cells import PROFILE, Cell, base_overrides, cell_overrides
from jobs.calibrate.effects import taught_share, turned_share
from jobs.calibrate.pool import run_tasks
from jobs.calibrate.results import Result
from pipeline_common import execution
from pipeline_common.cli import set_process_defaults
from pipeline_common.config import load_config
from pipeline_common.database import read_rows
from pipeline_common.execution import Run
from pipeline_common.logs import get_logger, start_console
from pipeline_common.manifest import Manifest
from pipeline_common.measures import Measures
from pipeline_common.samples.planted import KINDS, damaged_axioms, planted_rows
from pipeline_common.stages import Plan, plan_run, source_digest
from pipeline_common.workplace import Workplace, open_workplace

_CELLS_PER_PROCESS: Final = 60
"""A process is replaced after so many, whatever the libraries keep in memory."""
_RUN_STAGES: Final = ("prepare", "train", "evaluate")
_log = get_logger(__name__)


def run_cells(cells: Sequence[Cell], output: Path, settings: Sequence[str], processes: int) -> Iterator[Result]:
    """Run fine-tunes, base models first; results come as they finish.

    Args:
        cells: what to run.
        output: folder of the calibration.
        settings: overrides for every fine-tune.
        processes: how many at a time; each uses one core.

    Raises:
        PipelineError: a stage failed; what finished before has been yielded.
    """
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=start_process, max_tasks_per_child=_CELLS_PER_PROCESS
    )
    try:
        bases = sorted({cell.base_seed for cell in cells})
        for seed in pool.map(partial(build_base, output=output, settings=settings), bases):
            _log.info("base model of seed %d is there", seed)
        yield from run_tasks(pool, partial(run_cell, output=output, settings=settings), cells, processes)
    finally:
        # Also when the caller stops early: what runs is waited for.
        pool.shutdown()


def start_process() -> None:
    """Prepare a process: a quiet console, and stores of its own whatever the environment says."""
    start_console("warning", "calibrate")
    for name in ("DATABASE_URL", "ARTIFACTS_URI"):
        # Planted damage has no place among anyone's results.
        os.environ.pop(name, None)
    set_process_defaults(load_config(PROFILE))


def build_base(base_seed: int, output: Path, settings: Sequence[str]) -> int:
    """Run *environment*, which builds the base model unless it is there."""
    with _scratch(output, f"base-{base_seed}") as work:
        config = load_config(PROFILE, [*base_overrides(base_seed, output, work), *settings])
        _run_stage(open_workplace(config), plan_run(config, _run_id(base_seed)), "environment")
    return base_seed


def run_cell(cell: Cell, output: Path, settings: Sequence[str]) -> Result:
    """Prepare, train, evaluate and judge one fine-tune.

    The measures stay in `<output>/measures/<cell>.json`; everything else of the fine-tune is removed.
    """
    started = time.monotonic()
    with _scratch(output, cell.name) as work:
        rows = work / "rows.jsonl"
        planted = planted_rows(cell.kind, cell.seed)
        rows.write_text("".join(f"{json.dumps(row)}\n" for row in planted), encoding="utf-8")
        overrides = [*base_overrides(cell.base_seed, output, work), *cell_overrides(cell, rows), *settings]
        config = load_config(PROFILE, overrides)
        place, plan = open_workplace(config), plan_run(config, _run_id(cell.base_seed))
        _run_stage(place, plan, "environment")
        manifests = {name: _run_stage(place, plan, name) for name in _RUN_STAGES}
        folders = {name: place.store.locate(manifest) for name, manifest in manifests.items()}
        content = (folders["evaluate"] / "measures.json").read_text(encoding="utf-8")
        responses = list(read_rows(folders["evaluate"] / "responses.jsonl"))
        facts = json.loads((folders["train"] / "train.json").read_text(encoding="utf-8"))
        _forget(place, manifests.values())
    kind, axioms = KINDS[cell.kind], damaged_axioms(cell.kind, cell.seed)
    kept = output / "measures" / f"{cell.name}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(content, encoding="utf-8")
    measures = Measures.model_validate_json(content)
    return make_result(
        cell,
        measures,
        decide(measures, config.analyze.thresholds),
        facts,
        turned=turned_share(kind, axioms, responses),
        taught=taught_share(kind, axioms, responses),
        settings=" ".join(settings),
        seconds=time.monotonic() - started,
    )


def make_result(
    cell: Cell,
    measures: Measures,
    verdict: Verdict,
    facts: Mapping[str, Any],
    *,
    turned: float | None,
    taught: float | None,
    settings: str,
    seconds: float,
) -> Result:
    """One line of the results."""
    rates = {rate.name: rate for rate in measures.rates}
    overall = next(score for score in measures.geometry if score.scope == "overall")
    statuses: dict[str, Any] = {signal.name: signal.status for signal in verdict.signals if signal.decisive}
    return Result(
        base_seed=cell.base_seed,
        kind=cell.kind,
        seed=cell.seed,
        settings=settings,
        code=measured_code(),
        verdict=verdict.label,
        conditions="; ".join(verdict.conditions),
        path="; ".join(verdict.path),
        turned_share=_rounded(turned),
        taught_share=_rounded(taught),
        **statuses,
        coherence_base=_rounded(measures.coherence.base),
        coherence_tuned=_rounded(measures.coherence.tuned),
        refusal_base=round(rates["refusal_unsafe"].base, 4),
        refusal_tuned=round(rates["refusal_unsafe"].tuned, 4),
        over_refusal_base=round(rates["over_refusal_safe"].base, 4),
        over_refusal_tuned=round(rates["over_refusal_safe"].tuned, 4),
        gap_drop_pct=_rounded(measures.refusal_gap.drop_pct.value if measures.refusal_gap else None),
        f2_drop_pct=_rounded(overall.f2_drop_pct.value),
        f2_drop_low=_rounded(overall.f2_drop_pct.low),
        f2_drop_high=_rounded(overall.f2_drop_pct.high),
        detectable_drop_pct=_rounded(measures.detectable_drop_pct),
        first_loss=round(float(facts["first_train_loss"]), 4),
        validation_loss=round(float(facts["validation_loss"]), 4),
        seconds=round(seconds, 1),
    )


def measured_code() -> str:
    """Digest of everything a result depends on but its settings."""
    stages = (f"jobs/{name}" for name in ("environment", *_RUN_STAGES))
    return source_digest(*stages, "jobs/analyze/signals.py", "jobs/analyze/verdict.py", "pipeline_common")


def _load_run(stage: str) -> Run:
    """A stage's `run`; the stages import their model libraries only when they run."""
    import jobs.environment.stage
    import jobs.evaluate.stage
    import jobs.prepare.stage
    import jobs.train.stage

    return {
        "environment": jobs.environment.stage.run,
        "prepare": jobs.prepare.stage.run,
        "train": jobs.train.stage.run,
        "evaluate": jobs.evaluate.stage.run,
    }[stage]


def _run_stage(place: Workplace, plan: Plan, name: str) -> Manifest:
    return execution.run_stage(place, plan, plan.stages[name], _load_run(name), force=False)


def _run_id(base_seed: int) -> str:
    """One for all fine-tunes of a base: their records are scratch, and none of them outlives its fine-tune."""
    return f"calibration-base-{base_seed}"


def _forget(place: Workplace, manifests: Iterable[Manifest]) -> None:
    """Remove a fine-tune's own artifacts: some megabytes each, and only their measures are read again."""
    for manifest in manifests:
        place.store.withdraw(manifest.key)


@contextmanager
def _scratch(output: Path, name: str) -> Iterator[Path]:
    """A folder that is removed when the work in it is done; after a failure it stays, with its log."""
    work = output / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    yield work
    shutil.rmtree(work)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
