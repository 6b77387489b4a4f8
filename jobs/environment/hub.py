"""The hub token: present, and valid when the hub is asked at all."""

from __future__ import annotations

import os

from jobs.environment.checks import Check
from pipeline_common.config import Config
from pipeline_common.errors import ConfigError
from pipeline_common.sources import source_kind


def check_hub_token(config: Config) -> Check:
    """Ask the hub who the token belongs to; the token itself is never shown."""
    references = [config.model.base, config.prepare.dataset, config.prepare.prompts]
    if config.evaluate.judge.kind == "local":
        references.append(config.evaluate.judge.model)
    needed = [reference for reference in references if source_kind(reference) == "hub"]
    present = bool(os.environ.get("HF_TOKEN"))
    if not needed:
        return Check(
            "hub token", "ok", "not needed: nothing of this run comes from the hub", facts={"present": present}
        )
    if config.runtime.offline:
        return Check("hub token", "ok", "not asked: runtime.offline=true", facts={"present": present})
    if not present:
        detail = "HF_TOKEN is not set; public repositories work without, gated ones (Llama-3) do not"
        return Check("hub token", "ok", detail, facts={"present": False})
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        name = HfApi().whoami(token=os.environ["HF_TOKEN"])["name"]
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in {401, 403}:
            return Check(
                "hub token",
                "failed",
                "the hub refuses HF_TOKEN",
                "make a new token with read access",
                error=ConfigError,
            )
        return Check(
            "hub token", "degraded", f"the hub answered {status}; the token was not checked", facts={"present": True}
        )
    except (httpx2.HTTPError, OSError) as error:
        detail = f"the hub cannot be reached ({type(error).__name__}); the token was not checked"
        return Check(
            "hub token", "degraded", detail, "check the network, or set runtime.offline=true", {"present": True}
        )
    return Check("hub token", "ok", f"valid, belongs to {name}", facts={"present": True})
