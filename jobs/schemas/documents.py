"""The schemas themselves: pydantic's, with what a reader of the files needs beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pipeline_common.config import Config
from pipeline_common.run_summary import RunSummary
from pipeline_common.stages import REPOSITORY

FOLDER: Final = REPOSITORY / "docs" / "schema"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def build_schemas() -> dict[str, str]:
    """File name -> content, canonical JSON."""
    return {
        "config.schema.json": _encode(config_schema()),
        "summary.schema.json": _encode(RunSummary.model_json_schema(mode="serialization")),
    }


def config_schema() -> dict[str, Any]:
    """The schema of a configuration *file*: everything may be left out, and it may extend a profile."""
    schema = Config.model_json_schema()
    schema["title"] = "Configuration of the alignment check"
    schema["description"] = "A profile, or your own file that extends one. Every field may be left out."
    schema.pop("required", None)  # the name of the file stands in for `profile`
    schema["properties"] = {
        "extends": {"type": "string", "description": "profile or YAML file whose settings this file starts from"},
        **schema["properties"],
    }
    schema["properties"]["profile"]["description"] = "name of this configuration; default: the file's"
    for section in (schema, *schema["$defs"].values()):
        for field in section["properties"].values():
            if "$ref" in field:
                # A default of a whole section would only repeat its fields'.
                field.pop("default", None)
    return schema


def write_schemas(folder: Path) -> list[str]:
    """Write every schema; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    schemas = build_schemas()
    for name, content in schemas.items():
        (folder / name).write_text(content, encoding="utf-8")
    return list(schemas)


def stale_schemas(folder: Path) -> list[str]:
    """Names of the files in `folder` that are absent or not what the code says."""
    return [
        name
        for name, content in build_schemas().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != content
    ]


def _encode(schema: dict[str, Any]) -> str:
    return json.dumps({"$schema": _DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"
