from __future__ import annotations

import pytest

from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError
from pipeline_common.workplace import open_workplace


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="output_dir"):
        open_workplace(load_config("tiny", [f"runtime.output_dir={tmp_path}/file"]))
