"""Train and validation: the sizes and the membership of `datasets.Dataset.train_test_split`, in source order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline_common.errors import InputError


def split_sizes(rows: int, validation_fraction: float) -> tuple[int, int]:
    """(train, validation) rows: validation is rounded up, so 50,001 rows at 0.1 give (45,000, 5,001).

    Args:
        rows: usable rows.
        validation_fraction: in (0, 1).

    Raises:
        InputError: one of the two would be empty.
    """
    validation = math.ceil(validation_fraction * rows)
    # scikit-learn and datasets floor the training share apart; both shares come from one number here and sum to `rows`.
    train = rows - validation
    if train < 1 or validation < 1:
        raise InputError(
            f"{rows} usable row(s) at prepare.validation_fraction={validation_fraction} leave {train} for training and "
            f"{validation} for validation; give more rows or another fraction"
        )
    return train, validation


def validation_members(rows: int, validation_fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Mark the rows of the validation split.

    Args:
        rows: usable rows, in source order.
        validation_fraction: in (0, 1).
        seed: of the permutation.

    Returns:
        Shape (rows,): True = validation.

    Raises:
        InputError: one of the two splits would be empty.
    """
    _, validation = split_sizes(rows, validation_fraction)
    members = np.zeros(rows, dtype=np.bool_)
    members[np.random.default_rng(seed).permutation(rows)[:validation]] = True
    return members
