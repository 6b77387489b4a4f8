"""The one main of every stage: `python -m jobs.<stage> --config PROFILE_OR_FILE [section.field=value ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline_common.config import Config
    from pipeline_common.context import Context, Outputs
    from pipeline_common.stages import Plan


def stage_main(
    name: str, load_run: Callable[[], Callable[[Context], Outputs]], argv: Sequence[str] | None = None
) -> int:
    """Parse the command line, run the stage, and turn what happens into an exit code.

    Args:
        name: the stage.
        load_run: imports the stage's `run` when it is really needed, so that help and mistakes are answered at once.
        argv: the command line without the program; None = the process's own.
    """
    from pipeline_common.stages import STAGES, find_stage

    stage = find_stage(name)

    def work() -> int:
        parser = build_parser(f"python -m jobs.{name}", f"The {name} stage: {stage.summary}.")
        arguments = parser.parse_intermixed_args(argv)
        config, plan = load_plan(arguments)
        from pipeline_common.logs import start_console

        start_console(config.runtime.log_level, name)
        if arguments.dry_run:
            print_plan(config, plan, only=name)
            return 0
        from pipeline_common import execution
        from pipeline_common.explaining import why_not_cached
        from pipeline_common.members import find_member
        from pipeline_common.workplace import open_workplace

        set_process_defaults(config)
        place = open_workplace(config)
        if arguments.explain:
            manifest = place.store.read_manifest(plan.stages[name].key)
            reason = why_not_cached(place.store, plan.stages[name]) if manifest is None else "cached"
            sys.stdout.write(f"{name}: {plan.stages[name].key}: {reason}\n")
            return 0
        if not find_member(config, stage).leads:
            execution.work_along(place, plan, plan.stages[name], load_run(), force=arguments.force)
            return 0
        manifest = execution.run_stage(place, plan, plan.stages[name], load_run(), force=arguments.force)
        if stage is STAGES[-1]:
            execution.finish_run(place)
        return execution.asked_exit_code(manifest)

    return guard(name, work)


def build_parser(program: str, description: str) -> argparse.ArgumentParser:
    """The options all stages and the pipeline share."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Exit codes: 0 done; 1 unexpected or transient, try again; 2 configuration or usage; 3 an input is "
        "missing or damaged; 4 damaged, with analyze.gate=true; 130 interrupted; 143 stopped with its state saved.",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="PROFILE_OR_FILE",
        help="tiny, tiny-harmful, smollm, llama3-8b or a YAML file",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.field=value", help="settings that differ from the profile"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration, inputs and outputs; do nothing"
    )
    parser.add_argument("--force", action="store_true", help="run even when the artifact is there")
    parser.add_argument(
        "--explain", action="store_true", help="say why a stage is cached or which field differs; do nothing"
    )
    parser.add_argument(
        "--run-id", default=os.environ.get("RUN_ID"), help="name of the run (default: made from the configuration)"
    )
    return parser


def load_plan(arguments: argparse.Namespace) -> tuple[Config, Plan]:
    """Configuration and plan of a command line."""
    from pipeline_common.config import load_config
    from pipeline_common.stages import plan_run

    config = load_config(arguments.config, arguments.overrides)
    return config, plan_run(config, arguments.run_id)


def print_plan(config: Config, plan: Plan, only: str | None = None) -> None:
    """Write the resolved configuration, and each stage's inputs and outputs, to stdout as YAML."""
    import yaml

    from pipeline_common.artifacts import artifacts_uri

    stages = {
        name: {
            "artifact": planned.key,
            "inputs": [plan.stages[entry.stage].key for entry in planned.stage.inputs],
            "sources": dict(planned.payload["sources"]),
            "outputs": list(planned.stage.outputs),
        }
        for name, planned in plan.stages.items()
        if only in {None, name}
    }
    document = {
        "run_id": plan.run_id,
        "artifacts": artifacts_uri(config),
        "stages": stages,
        "config": config.model_dump(mode="json"),
    }
    sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def set_process_defaults(config: Config) -> None:
    """Settings that libraries read from the environment when they are imported."""
    # Spinning OpenMP threads cost a small model seven times its own work.
    os.environ.setdefault("OMP_NUM_THREADS", str(config.runtime.threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # The plan's determinism on CUDA: cuBLAS needs a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.runtime.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def guard(name: str, work: Callable[[], int]) -> int:
    """Run `work`; explained errors become one message and their exit code, others a traceback and 1."""
    from pipeline_common.errors import EXIT_INTERRUPTED, PipelineError
    from pipeline_common.logs import start_streams, write_end

    try:
        start_streams(name)
        return work()
    except KeyboardInterrupt:
        write_end(name, "interrupted; the same command goes on", EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence decides the exit code
        from pipeline_common.explaining import explain

        explained = explain(error)
        if isinstance(explained, PipelineError):
            write_end(name, str(explained), explained.exit_code)
            return explained.exit_code
        told = f"unexpected {type(error).__name__}; this is a defect of the pipeline or of the machine"
        write_end(name, told, 1, error)
        return 1
