"""Secrets never reach a log, a row, a manifest or a message."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus, unquote

HIDDEN: Final = "***"
_SECRET_VARIABLES: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "JUDGE_API_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
    "WANDB_API_KEY",
)
_URL_VARIABLES: Final = ("DATABASE_URL", "ARTIFACTS_URI", "AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI")
# A shorter one would also blot out everyday words of every log line; where it is used, it is hidden all the same.
_MIN_LENGTH: Final = 6


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced by `***`: as it is, percent-encoded in either way, and as Python shows it."""
    forms = {
        form
        for secret in secrets
        if secret
        for form in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret)[1:-1])
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def environment_secrets(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Secrets that this process was given: keys, tokens, and the passwords inside addresses."""
    found = {environment.get(name, "") for name in _SECRET_VARIABLES}
    for name in _URL_VARIABLES:
        found |= url_passwords(environment.get(name, ""))
    return tuple(sorted(secret for secret in found if len(secret) >= _MIN_LENGTH))


def url_passwords(url: str) -> set[str]:
    """The password in an address, as written and decoded; also of an address that no parser accepts."""
    rest = url.partition("://")[2]
    # The last @: a password typed in without percent-encoding may hold more of them, and / as well.
    userinfo, _, tail = rest.rpartition("@")
    found = {userinfo.partition(":")[2]}
    for part in tail.partition("?")[2].split("&"):
        key, _, value = part.partition("=")
        if "password" in key.lower():
            found.add(value)
    return {form for secret in found if secret for form in (secret, unquote(secret))}
