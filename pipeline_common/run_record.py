"""`runs/<run_id>/run.json` in the store: which artifact each stage of a run has."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from pipeline_common.errors import InputError


class _Noted(BaseModel):
    """What every reader needs of a stage; more may be noted."""

    artifact: str


class _Record(BaseModel):
    stages: dict[str, _Noted]


def record_key(run_id: str) -> str:
    """Where a run's record lies."""
    return f"runs/{run_id}/run.json"


def parse_record(content: bytes, key: str) -> dict[str, Any]:
    """A run's record.

    Args:
        content: of the object.
        key: its name, for the message.

    Raises:
        InputError: it is no such record.
    """
    try:
        record = json.loads(content)
        _Record.model_validate(record)
    except ValueError as error:  # pydantic's own among them
        raise InputError(
            f"{key} in the store is damaged; expected the record of a run, JSON with its stages. Remove the file, and "
            "run that run's configuration again: finished stages are found, and it is written anew"
        ) from error
    return dict(record)
