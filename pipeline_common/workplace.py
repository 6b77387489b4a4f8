"""Where a configuration lets its stages work: the artifact store, the database, the output folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline_common.artifacts import ArtifactStore, artifacts_uri, open_store
from pipeline_common.config import Config
from pipeline_common.database import Database, database_url
from pipeline_common.errors import ConfigError


@dataclass(frozen=True)
class Workplace:
    """The stores and folders a configuration points at."""

    config: Config
    store: ArtifactStore
    database: Database
    output: Path


def open_workplace(config: Config) -> Workplace:
    """Open the stores; the output folder must be writable.

    Raises:
        ConfigError: an unusable output folder or address.
    """
    output = Path(config.runtime.output_dir).expanduser().resolve()
    try:
        (output / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"runtime.output_dir={config.runtime.output_dir}: {error.strerror or error}; "
            "give a folder this user may write"
        ) from error
    if not os.access(output / "work", os.W_OK):
        raise ConfigError(
            f"runtime.output_dir={config.runtime.output_dir}: not writable; give a folder this user may write"
        )
    return Workplace(
        config=config,
        store=open_store(artifacts_uri(config), config.artifacts, output / "cache"),
        database=Database(database_url(config), config.database.connect_timeout_s, config.database.give_up_after_s),
        output=output,
    )
