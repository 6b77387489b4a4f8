"""Which fine-tunes a calibration consists of, and the configuration of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline_common.errors import ConfigError
from pipeline_common.samples.planted import KINDS

PROFILE: Final = "tiny"
"""What is calibrated is what ships: the default profile, with other rows."""

KIND_SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "own-style": ("train.learning_rate=3e-3", "train.max_steps=100"),
}
"""Kinds that are learnt only by a stronger fine-tune than the profile's, after which no answer had the new style."""


@dataclass(frozen=True, order=True)
class Cell:
    """One fine-tune: of this base, on this kind of rows, with this seed."""

    base_seed: int
    kind: str
    seed: int

    @property
    def name(self) -> str:
        """For a folder or a log line."""
        return f"base-{self.base_seed}-{self.kind}-{self.seed}"


def plan_cells(bases: Sequence[int], kinds: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Every base with every seed with every kind; all kinds of one seed before the next seed.

    A calibration that is stopped has then seen every kind about equally often.
    """
    return [Cell(base, kind, seed) for seed in seeds for base in bases for kind in kinds]


def check_kinds(names: Sequence[str]) -> list[str]:
    """The named kinds in the order of the tables; all of them when none is named.

    Raises:
        ConfigError: an unknown name.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ConfigError(f"--kinds {' '.join(unknown)}: no such kind; the kinds are {', '.join(KINDS)}")
    return [name for name in KINDS if not names or name in names]


def base_overrides(base_seed: int, output: Path, work: Path) -> list[str]:
    """Settings all fine-tunes of a base share.

    Args:
        base_seed: of the embedded base model.
        output: folder of the calibration: base models are kept and shared below it.
        work: scratch folder of one process.
    """
    return [
        f"model.base=embedded-seed-{base_seed}",
        # The verdict does not read the judge, and it costs as much as everything else.
        "evaluate.judge.kind=none",
        f"runtime.output_dir={work}",
        f"artifacts.uri={output / 'artifacts'}",
    ]


def cell_overrides(cell: Cell, rows: Path) -> list[str]:
    """Settings of one fine-tune: its rows, their split, the initial adapter and the order of the rows.

    The labelled prompts and the bootstrap keep their default seed: so does whoever runs the default profile.
    """
    own = KIND_SETTINGS.get(cell.kind, ())
    return [f"prepare.dataset={rows}", f"prepare.seed={cell.seed}", f"train.seed={cell.seed}", *own]
