"""The published schemas are what the code says, and files of the kinds they describe fit them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from jobs.schemas.documents import FOLDER, build_schemas, stale_schemas, write_schemas
from pipeline_common.config import PROFILES, profile_names, valid_keys
from pipeline_common.stages import REPOSITORY


def read(name: str) -> Draft202012Validator:
    schema = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_files_in_the_repository_are_current():
    assert stale_schemas(FOLDER) == []


def test_a_stale_or_missing_file_is_named_and_written_again(tmp_path):
    assert stale_schemas(tmp_path) == list(build_schemas())
    write_schemas(tmp_path)
    assert stale_schemas(tmp_path) == []
    (tmp_path / "config.schema.json").write_text("{}\n")
    command = [sys.executable, "-m", "jobs.schemas", "--check", "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("is not what the code says") == 1
    assert "config.schema.json" in done.stderr


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_fits_the_schema_of_the_configuration(profile):
    read("config.schema.json").validate(yaml.safe_load((PROFILES / f"{profile}.yaml").read_text()))


@pytest.mark.parametrize(
    "wrong",
    [{"trian": {}}, {"train": {"learning_rate": -1}}, {"train": {"lora_rank": 8}}, {"model": {"quantization": "int8"}}],
    ids=["unknown section", "negative", "unknown field", "unknown choice"],
)
def test_a_mistake_does_not_fit(wrong):
    with pytest.raises(ValidationError):
        read("config.schema.json").validate({"extends": "tiny", **wrong})


def test_every_field_and_every_section_is_described():
    schema = read("config.schema.json").schema
    described: dict[str, str] = {}

    def walk(section: dict, prefix: str) -> None:
        for name, field in section["properties"].items():
            if "$ref" in field:
                inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
                assert inner["description"], name
                walk(inner, f"{prefix}{name}.")
            else:
                described[f"{prefix}{name}"] = field.get("description", "")

    walk(schema, "")
    assert set(described) == {*valid_keys(), "extends"}
    assert [name for name, text in described.items() if not text] == []
