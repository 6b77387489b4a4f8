"""Libraries' own progress bars and notices: out of the console, into the stage's log."""

from __future__ import annotations

import os


def quiet_libraries() -> None:
    """Send transformers', datasets' and the hub client's messages to the root logger, and switch their bars off.

    Filters nothing: a warning that is not shown is in the log file.
    """
    # Read when TRL builds a trainer; it would announce each one to its makers.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import datasets
    import transformers
    from huggingface_hub.utils import logging as hub_logging

    transformers.logging.disable_progress_bar()
    transformers.logging.disable_default_handler()
    transformers.logging.enable_propagation()
    datasets.disable_progress_bars()
    datasets.logging.enable_propagation()
    hub_logging.enable_propagation()
