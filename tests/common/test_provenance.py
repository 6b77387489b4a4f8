"""The command that a manifest names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pipeline_common.stages import REPOSITORY

TELL = "import json\nfrom pipeline_common.provenance import command\nprint(json.dumps(command()))\n"


def told(*arguments: str, path: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{path}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_module_is_named_so_that_the_command_can_be_typed_again(tmp_path):
    (package := tmp_path / "made").mkdir()
    (package / "__main__.py").write_text(TELL)
    arguments = ["--config", "tiny", "train.max_steps=3"]
    assert told("-m", "made", *arguments, path=str(tmp_path)) == ["python", "-m", "made", *arguments]


def test_of_a_script_the_folder_is_not_told(tmp_path):
    (script := tmp_path / "script.py").write_text(TELL)
    assert told(str(script), "--all", path=str(tmp_path)) == ["script.py", "--all"]
