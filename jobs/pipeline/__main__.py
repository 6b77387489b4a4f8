"""python -m jobs.pipeline --config tiny [section.field=value ...]: all five stages, each in its own process."""

from __future__ import annotations

from pipeline_common.cli import build_parser, guard, load_plan, print_plan


def main() -> int:
    """Parse the command line and run the pipeline."""
    parser = build_parser("python -m jobs.pipeline", "All five stages in order; what is finished is not run again.")
    parser.add_argument(
        "--runner",
        choices=("local", "kubernetes"),
        default="local",
        help="local: processes of this machine; kubernetes: Jobs, from inside the Job `pipeline`",
    )

    def work() -> int:
        arguments = parser.parse_intermixed_args()
        config, plan = load_plan(arguments)
        if arguments.dry_run:
            print_plan(config, plan)
            return 0
        from pipeline_common.logs import start_console

        start_console(config.runtime.log_level, "pipeline")
        command = ["--config", arguments.config, *arguments.overrides, "--run-id", plan.run_id]
        if arguments.runner == "kubernetes" and not arguments.explain:
            from jobs.pipeline.cluster.run import run_on_cluster

            return run_on_cluster(config, plan, command, force=arguments.force)
        from jobs.pipeline.local import explain_plan, refuse_several_machines, run_locally
        from pipeline_common.workplace import open_workplace

        if not arguments.explain:
            refuse_several_machines(config)
        place = open_workplace(config)
        if arguments.explain:
            explain_plan(place, plan)
            return 0
        return run_locally(place, plan, command, force=arguments.force)

    return guard("pipeline", work)


if __name__ == "__main__":
    raise SystemExit(main())
