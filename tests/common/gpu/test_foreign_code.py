"""A model that brings code of its own: it is refused, and nobody is asked whether to run it."""

import json
import subprocess
import sys

import pytest

LOADERS = {
    "model": "from pipeline_common.gpu.models import Placement, load_base as load\n"
    "import torch\n"
    "load(folder, Placement('cpu', torch.float32, 'none'))",
    "architecture": "from pipeline_common.gpu.trunk import require_trunk\nrequire_trunk(folder)",
    "tokenizer": "from pipeline_common.gpu.tokenizer import load_tokenizer\nload_tokenizer(folder)",
}
PROGRAM = """
import sys
from pathlib import Path
from pipeline_common.errors import InputError
folder = Path(sys.argv[1])
try:
    {load}
except InputError as error:
    print(error)
    sys.exit(InputError.exit_code)
"""


@pytest.mark.parametrize("loader", list(LOADERS))
def test_code_that_comes_with_a_model_is_not_run_even_where_somebody_would_say_yes(loader, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "was-run"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    classes = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}
    (folder / "config.json").write_text(json.dumps({"model_type": "its_own", "auto_map": classes}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": classes}))

    program = PROGRAM.format(load=LOADERS[loader].replace("\n", "\n    "))
    command = [sys.executable, "-c", program, str(folder)]
    told = subprocess.run(command, input="y\n" * 8, capture_output=True, text=True, timeout=120, check=False)

    assert not mark.exists()
    assert told.returncode == 3, told.stderr
    assert "code of its own" in told.stdout
    assert "y/N" not in told.stdout
