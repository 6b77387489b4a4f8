from __future__ import annotations

import datasets
import numpy as np
import pytest

from jobs.prepare.splitting import split_sizes, validation_members
from pipeline_common.errors import InputError


def test_the_real_sets_sizes() -> None:
    assert split_sizes(50_001, 0.1) == (45_000, 5_001)


@pytest.mark.parametrize("rows", [10, 99, 100, 101, 1234])
def test_membership_is_that_of_datasets(rows: int) -> None:
    expected = datasets.Dataset.from_dict({"number": range(rows)}).train_test_split(test_size=0.1, seed=42)
    members = validation_members(rows, 0.1, 42)
    assert np.flatnonzero(members).tolist() == sorted(expected["test"]["number"])
    assert np.flatnonzero(~members).tolist() == sorted(expected["train"]["number"])


def test_another_seed_gives_another_split_of_the_same_size() -> None:
    first, second = validation_members(500, 0.1, 1), validation_members(500, 0.1, 2)
    assert first.sum() == second.sum() == 50
    assert (first != second).any()


@pytest.mark.parametrize(("rows", "fraction"), [(0, 0.1), (1, 0.1), (3, 0.9)])
def test_an_empty_split_is_refused(rows: int, fraction: float) -> None:
    with pytest.raises(InputError, match=r"prepare\.validation_fraction"):
        split_sizes(rows, fraction)
