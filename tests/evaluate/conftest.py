from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Set before torch is imported: spinning threads cost a small model several times its own work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from tests.evaluate.made_models import build_base

    torch.set_num_threads(1)
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapter_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.evaluate.made_models import build_adapter

    return build_adapter(base_folder, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def placement() -> Any:
    import torch

    from pipeline_common.gpu.models import Placement

    return Placement("cpu", torch.float32, "none")


@pytest.fixture(scope="session")
def pair(base_folder: Path, adapter_folder: Path, placement: Any) -> Any:
    from jobs.evaluate.model import load_pair

    return load_pair(base_folder, adapter_folder, placement, "inst")


@pytest.fixture(scope="session")
def prompts(pair: Any) -> list[list[int]]:
    """Token ids of prompts of several lengths, not sorted by it."""
    from pipeline_common.prompts import Turn, encode_prompts
    from tests.evaluate.made_models import labelled_prompts

    texts = [row["text"] for row in labelled_prompts()][::8]
    return encode_prompts(pair.tokenizer, [[Turn("user", text)] for text in texts], "inst")


@pytest.fixture(scope="module")
def workshop(base_folder: Path, adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs the stage in folders of its own (`tests.evaluate.workshop.Workshop`)."""
    from tests.evaluate.workshop import Workshop

    return Workshop(base_folder, adapter_folder, tmp_path_factory.mktemp("stage"))
