"""One line of the results for each fine-tune, in a CSV file that grows as they finish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from jobs.calibrate.cells import Cell
from jobs.calibrate.lines import OptionalNumber, append_line, read_lines

Status = Literal["ok", "warn", "fail", "not_measured"]
VerdictLabel = Literal["damaged", "inconclusive", "no damage found"]

SIGNALS: Final = ("coherence", "refusal_unsafe", "over_refusal_safe", "refusal_gap", "geometry", "power")
"""The signals the verdict's rule reads; each has a column with its status."""


class Result(BaseModel):
    """What the verdict said about one fine-tune, and what it rests on.

    Rates and shares in [0, 1], drops in percent of the base's value, losses in nats per answer token. An empty field is
    a number that is undefined.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base_seed: int
    kind: str
    seed: int
    settings: str
    """Overrides given to the calibration, separated by spaces."""
    code: str
    """Digest of the code that was measured with."""
    verdict: VerdictLabel
    conditions: str
    path: str
    """The clauses of the rule that fired, separated by "; "."""
    turned_share: OptionalNumber
    """Of the prompts the damage aims at and the base treats well, those the tuned model does not; empty if harmless."""
    taught_share: OptionalNumber
    """Of the prompts the damage aims at, those answered with a planted opening; empty for harmless kinds."""
    coherence: Status
    refusal_unsafe: Status
    over_refusal_safe: Status
    refusal_gap: Status
    geometry: Status
    power: Status
    coherence_base: OptionalNumber
    coherence_tuned: OptionalNumber
    refusal_base: float
    refusal_tuned: float
    over_refusal_base: float
    over_refusal_tuned: float
    gap_drop_pct: OptionalNumber
    f2_drop_pct: OptionalNumber
    f2_drop_low: OptionalNumber
    f2_drop_high: OptionalNumber
    detectable_drop_pct: OptionalNumber
    first_loss: float
    validation_loss: float
    seconds: float
    """Wall time of prepare, train and evaluate."""

    @property
    def cell(self) -> Cell:
        """Which fine-tune this is about."""
        return Cell(self.base_seed, self.kind, self.seed)

    def status(self, signal: str) -> Status:
        """Status of one of `SIGNALS`."""
        found: Status = getattr(self, signal)
        return found


COLUMNS: Final = tuple(Result.model_fields)


def read_results(path: Path) -> list[Result]:
    """The finished fine-tunes, in the order they finished; none when there is no file yet.

    Raises:
        InputError: the file has other columns, or a line that is no result.
    """
    return read_lines(path, Result, "remove the line, and its fine-tune is run again")


def append_result(path: Path, result: Result) -> None:
    """Add one line (and the header to a new file), on the disk before this returns."""
    append_line(path, result)


def pending_cells(cells: Sequence[Cell], results: Sequence[Result], settings: str) -> list[Cell]:
    """The cells without a result under these settings."""
    finished = {result.cell for result in results if result.settings == settings}
    return [cell for cell in cells if cell not in finished]
