"""Quantising a base on the GPU when the machine's memory is to hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.bitsandbytes import Bnb4bitQuantize
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer


@contextmanager
def quantised_by(device: torch.device) -> Iterator[None]:
    """In here 4-bit weights are quantised on a device, one after the other, and come back.

    A processor takes a second for 20 million weights, a GPU takes none; and the codes are then the same bits as where
    the whole base is loaded onto the GPU.

    Args:
        device: holds one weight at a time, as it comes and in 4 bits.
    """

    class Quantize(Bnb4bitQuantize):  # type: ignore[misc]
        def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            there = {name: [one.to(device) for one in _listed(value)] for name, value in input_dict.items()}
            return {name: value.to("cpu") for name, value in super().convert(there, **kwargs).items()}

    class Quantizer(Bnb4BitHfQuantizer):  # type: ignore[misc]
        def get_quantize_ops(self) -> Any:
            return Quantize(self)

    # transformers finds the class by this name only.
    before = AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"]
    AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] = Quantizer
    try:
        yield
    finally:
        AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] = before


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
