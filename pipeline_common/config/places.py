"""Where a run runs and keeps what it makes: no part of any fingerprint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_common.config.section import PositiveFloat, PositiveInt, Section


class ArtifactsConfig(Section):
    """Where artifacts live; `ARTIFACTS_URI` in the environment wins over this."""

    uri: str = Field("", description="directory, file:// or s3://bucket/prefix; empty = <runtime.output_dir>/artifacts")
    create_bucket: bool = Field(True, description="make a missing bucket at the first write")
    transfers: PositiveInt = Field(8, description="requests to the bucket under way at once")
    connect_timeout_s: PositiveFloat = Field(5.0, description="bucket: to its server")
    read_timeout_s: PositiveFloat = Field(30.0, description="bucket: silence of its server")
    give_up_after_s: PositiveFloat = Field(90.0, description="an outage of the bucket's server is waited out so long")


class DatabaseConfig(Section):
    """How patiently the database is spoken to; its address is `DATABASE_URL` in the environment."""

    connect_timeout_s: PositiveFloat = Field(10.0, description="one connection; SQLite: another process's lock")
    give_up_after_s: PositiveFloat = Field(60.0, description="a server that is away is tried again for so long")


class RuntimeConfig(Section):
    """Where and how it runs; never part of a fingerprint."""

    output_dir: str = Field("output", min_length=1, description="results, scratch and local copies")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")
    gpus: PositiveInt = Field(
        1, description="processes of train and evaluate on a machine, a GPU each where there are GPUs"
    )
    nodes: PositiveInt = Field(1, description="machines that train and evaluate run on together")
    peers_timeout_s: PositiveFloat = Field(
        1800.0,
        description="evaluate on several GPUs or machines: longest silence of another process that is waited for",
    )
    threads: PositiveInt = Field(1, description="CPU threads of torch: more only helps models above some 100 M")
    offline: bool = Field(False, description="true: the hub is never asked, only its cache")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="of the console; the log file has everything"
    )
