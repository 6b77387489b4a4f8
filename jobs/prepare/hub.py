"""Rows of a data set on the hub, at a commit that is written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from jobs.prepare.arrow_files import ArrowRows
from pipeline_common.errors import InputError

_SPLIT: Final = "train"
_BATCH_ROWS: Final = 1000
_WHAT_TO_DO: Final = (
    "check the name and the network, set HF_TOKEN if it is private or gated, or give a local .parquet, .csv or .jsonl "
    "file"
)


class HubRows(ArrowRows):
    """A split of a loaded data set."""

    def __init__(self, dataset: Any, name: str) -> None:
        super().__init__(dataset.features.arrow_schema, len(dataset), name)
        self._dataset = dataset

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `ArrowRows`."""
        wanted = self._dataset.select_columns(list(columns)).with_format("arrow")
        for table in wanted.iter(batch_size=_BATCH_ROWS):
            yield from table.to_batches()


def load_hub_rows(reference: str, revision: str | None, *, offline: bool) -> tuple[HubRows, dict[str, Any]]:
    """Load the split `train` of a data set.

    Args:
        reference: hub id, `owner/name`.
        revision: branch, tag or commit; None = the default branch.
        offline: use what the cache has and ask nobody.

    Returns:
        The rows, and {"revision": as asked, "commit": 40 hex digits, or None when offline}.

    Raises:
        InputError: it is not there, may not be read, cannot be reached, or has no such split.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    offline = offline or bool(HF_HUB_OFFLINE)
    commit = None if offline else _resolve(reference, revision)
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_dataset(reference, revision=commit or revision, split=_SPLIT)
    except (OSError, ValueError, DatasetsError) as error:
        where = " while offline (runtime.offline=true or HF_HUB_OFFLINE=1)" if offline else ""
        raise InputError(f"{reference} could not be loaded{where}: {_first_line(error)}; {_WHAT_TO_DO}") from error
    return HubRows(dataset, reference), {"revision": revision, "commit": commit}


def _resolve(reference: str, revision: str | None) -> str:
    """The commit a revision stands for now."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    named = f"{reference}@{revision}" if revision else reference
    try:
        return str(HfApi().dataset_info(reference, revision=revision, timeout=30).sha)
    except GatedRepoError as error:
        raise InputError(
            f"{named} is gated; accept its terms on its page and set HF_TOKEN to a token of that account"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{named}: the data set exists but has no such revision") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{named} is not on the hub, or private; {_WHAT_TO_DO}") from error
    except _connection_errors() as error:
        raise InputError(f"{named}: the hub could not be reached ({_first_line(error)}); {_WHAT_TO_DO}") from error


def _connection_errors() -> tuple[type[Exception], ...]:
    """OSError, and the base of the errors of the HTTP client that the hub's library brings."""
    from huggingface_hub.errors import HfHubHTTPError

    client_errors = tuple(base for base in HfHubHTTPError.__mro__[1:] if base.__name__ == "HTTPError")
    return (OSError, ValueError, *client_errors)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
