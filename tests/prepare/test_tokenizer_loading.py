from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipeline_common.errors import InputError
from pipeline_common.gpu.tokenizer import load_tokenizer
from pipeline_common.stages import REPOSITORY
from tests.prepare.made_tokenizers import llama3_style, save_model_folder


def test_the_short_way_gives_what_the_library_chooses(tmp_path: Path) -> None:
    folder = save_model_folder(llama3_style(), tmp_path)
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.chat_template == theirs.chat_template


def test_padding_takes_a_reserved_token_and_not_eos(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_model_folder(llama3_style(), tmp_path))
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert tokenizer.padding_side == "right"


def test_the_short_way_needs_no_torch(tmp_path: Path) -> None:
    folder = save_model_folder(llama3_style(), tmp_path)
    code = (
        "import sys; from pathlib import Path; from pipeline_common.gpu.tokenizer import load_tokenizer; "
        f"load_tokenizer(Path({str(folder)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="holds no loadable tokenizer"):
        load_tokenizer(tmp_path)
