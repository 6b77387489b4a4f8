"""What every process but the leader does: its part of each phase, then nothing more."""

from __future__ import annotations

from jobs.evaluate.exchange import Exchange
from jobs.evaluate.judge.shared import judge_share
from jobs.evaluate.merging import read_openings
from jobs.evaluate.openings import OpeningSet
from jobs.evaluate.reading import choose_pair_placement, open_share, select
from pipeline_common.context import Context
from pipeline_common.model_location import resolved_models


def follow(context: Context, exchange: Exchange) -> None:
    """Contribute to every phase of the leader's evaluation.

    Raises:
        TransientError: the leader has been silent for `runtime.peers_timeout_s`.
        LeaderFinishedError: the stage's artifact is there already.
    """
    from jobs.evaluate.model import free_memory

    models = resolved_models(context)
    placement, _ = choose_pair_placement(context)
    share = open_share(context, models, placement, select(context), exchange)
    share.hear()
    share.activations()
    share.answers()
    openings = read_openings(exchange.hear("openings"))
    if isinstance(openings, OpeningSet):
        share.log_odds(openings)
    del share
    free_memory()
    judge_share(context, models, exchange)
