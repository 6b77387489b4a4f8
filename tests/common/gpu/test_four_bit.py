from __future__ import annotations

import pytest

from pipeline_common.gpu.four_bit import FourBitTrial, import_failure, kernel_failure, multiply_in_four_bits


def test_this_machine_multiplies_in_four_bits():
    assert import_failure() is None
    assert kernel_failure("cpu") is None


def test_a_product_is_near_the_float_one_and_equals_its_own_weights():
    trial = multiply_in_four_bits("cpu")
    # NF4 rounds normal weights by 9 % (Dettmers et al. 2023, 2305.14314: 4-bit NormalFloat).
    assert 0.03 < trial.from_float < 0.15
    assert trial.from_own_weights < 1e-3


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (FourBitTrial(1.4, 0.0), "off by 140%"),
        (FourBitTrial(0.09, 0.5), "off by 50.0% from those of the kernel's own weights"),
        (FourBitTrial(float("nan"), 0.0), "off by nan%"),
    ],
)
def test_wrong_products_are_a_failure(trial, words):
    assert words in trial.failure
