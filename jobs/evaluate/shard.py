"""A further process of an evaluation, started by the stage: `python -m jobs.evaluate.shard REQUEST.json`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline_common.followers import follower_main


def main(request_file: Path) -> None:
    """Read this process's share of the prompts."""
    from jobs.evaluate.exchange import LeaderFinishedError
    from jobs.evaluate.follower import follow
    from jobs.evaluate.team import join_team, read_request
    from pipeline_common.cli import set_process_defaults
    from pipeline_common.config import Config
    from pipeline_common.logs import get_logger, start_file

    request = read_request(request_file)
    start_file(Path(request.log))
    set_process_defaults(Config.model_validate(request.config))
    try:
        follow(*join_team(request))
    except LeaderFinishedError:
        get_logger(__name__).info("the stage is done: this part is not needed any more")


if __name__ == "__main__":
    sys.exit(follower_main(lambda: main(Path(sys.argv[1]))))
