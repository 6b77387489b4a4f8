"""What every section of the configuration is built on."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

_USER_INFO: Final = re.compile(r"://[^/?#]*@")


class SecretValueError(ValueError):
    """A mistake in a value that must not be repeated in the message."""


class Section(BaseModel):
    """Base of every section: immutable, unknown keys and addresses with credentials refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_credentials(cls, value: object) -> object:
        # What is configured stands in manifests, rows and reports.
        if isinstance(value, str) and _USER_INFO.search(value):
            raise SecretValueError(
                "the address holds credentials; give it without them, and secrets in the environment"
            )
        return value
