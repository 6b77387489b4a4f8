"""python -m jobs.pipeline.cluster job|pipeline|status|logs|cancel: what `make job` and its like call."""

from __future__ import annotations

import argparse

from pipeline_common.cli import guard


def main() -> int:
    """Parse the command line and do it."""
    arguments = _parser().parse_intermixed_args()

    def work() -> int:
        if arguments.command == "status":
            return _print_status(arguments)
        from jobs.pipeline.cluster import commands

        if arguments.command == "job":
            return commands.run_stage_job(
                _stage(arguments, needed=True) or "",
                arguments.config,
                arguments.overrides,
                arguments.run_id,
                force=arguments.force,
                follow=not arguments.no_follow,
            )
        if arguments.command == "pipeline":
            return commands.start_pipeline(
                arguments.config, arguments.overrides, arguments.run_id, force=arguments.force
            )
        if arguments.command == "logs":
            return commands.follow_logs(_stage(arguments), _index(arguments))
        return commands.cancel(_stage(arguments), arguments.run_id)

    return guard(arguments.command, work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.pipeline.cluster",
        description="The pipeline on the cluster of the current Kubernetes context.",
        epilog="job: run one stage as a Job and follow it. pipeline: start a run from k8s/pipeline.yaml. status: runs, "
        "stages, what they wait for. logs: follow a stage's Job, or the pipeline's. cancel: delete unfinished Jobs.",
    )
    parser.add_argument("command", choices=("job", "pipeline", "status", "logs", "cancel"))
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="settings that differ")
    parser.add_argument("--stage", help="the stage; empty = none")
    parser.add_argument(
        "--index", metavar="N", help="logs: which of the stage's machines; empty = 0, the one that leads"
    )
    parser.add_argument("--config", metavar="PROFILE_OR_FILE", help="in place of the one the templates name")
    parser.add_argument("--run-id", help="name of the run (default: made from the configuration)")
    parser.add_argument("--force", action="store_true", help="run even when the artifact is there")
    parser.add_argument("--no-follow", action="store_true", help="job: do not wait for the end")
    parser.add_argument("--json", action="store_true", help="status: one JSON object for programs")
    return parser


def _stage(arguments: argparse.Namespace, *, needed: bool = False) -> str | None:
    from pipeline_common.errors import ConfigError
    from pipeline_common.stages import STAGE_NAMES

    if needed and not arguments.stage:
        raise ConfigError(f"which stage? make job STAGE=...; the stages are {', '.join(STAGE_NAMES)}")
    return arguments.stage or None


def _index(arguments: argparse.Namespace) -> int | None:
    from pipeline_common.errors import ConfigError

    text = arguments.index or ""
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError(f"INDEX={text} is no machine's number: 0, 1, ...")
    return int(text) if text else None


def _print_status(arguments: argparse.Namespace) -> int:
    """The cluster, if there is one, and the results this machine can see."""
    import json
    import os
    import sys
    from pathlib import Path
    from typing import Any

    from jobs.pipeline.cluster.commands import open_cluster
    from jobs.pipeline.cluster.overview import print_cluster_status, read_cluster_status
    from jobs.pipeline.status import print_status, read_status
    from pipeline_common.config import load_config
    from pipeline_common.errors import ConfigError, TransientError
    from pipeline_common.stages import plan_run
    from pipeline_common.workplace import open_workplace

    config = load_config(arguments.config or "tiny", arguments.overrides)
    plan = plan_run(config, arguments.run_id)
    told: dict[str, Any] = {}
    try:
        told["cluster"] = read_cluster_status(open_cluster("make run"))
    except (ConfigError, TransientError) as error:
        # Most runs are local: that there is no cluster is an answer here, and not a failure.
        told["cluster"] = {"none": str(error)}
    stores = ("ARTIFACTS_URI", "DATABASE_URL")
    if Path(config.runtime.output_dir).exists() or any(os.environ.get(name) for name in stores):
        told["results"] = read_status(open_workplace(config), plan)
    else:
        # Opening them would make them.
        told["results"] = {"none": f"none yet in {config.runtime.output_dir}/"}
    if arguments.json:
        sys.stdout.write(f"{json.dumps(told, default=str)}\n")
        return 0
    print_cluster_status(told["cluster"])
    if "none" in told["results"]:
        sys.stdout.write(f"Results: {told['results']['none']}\n")
    else:
        print_status(told["results"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
