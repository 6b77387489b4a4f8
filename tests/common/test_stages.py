from __future__ import annotations

import pytest

from pipeline_common import stages
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.sources import source_kind
from pipeline_common.stages import STAGE_NAMES, find_stage, plan_run


def changed_stages(*overrides: str) -> list[str]:
    before = plan_run(load_config("tiny")).stages
    after = plan_run(load_config("tiny", overrides)).stages
    return [name for name in STAGE_NAMES if before[name].fingerprint != after[name].fingerprint]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("train.learning_rate=0.003", ["train", "evaluate", "analyze"]),
        ("prepare.seed=7", ["prepare", "train", "evaluate", "analyze"]),
        ("prepare.prompts=sample:other", ["prepare", "evaluate", "analyze"]),
        ("evaluate.prompts_per_class=100", ["evaluate", "analyze"]),
        ("evaluate.judge.kind=none", ["environment", "evaluate", "analyze"]),
        ("analyze.thresholds.gap_fall_warn_pct=12", ["analyze"]),
        ("environment.min_free_disk_gib=1", ["environment"]),
        ("model.quantization=none", list(STAGE_NAMES)),
        ("train.report_to=[mlflow]", []),
        ("runtime.threads=2", []),
        ("runtime.output_dir=elsewhere", []),
        ("runtime.log_level=debug", []),
        ("artifacts.uri=elsewhere", []),
        ("database.connect_timeout_s=9", []),
    ],
)
def test_a_setting_changes_only_the_stages_that_depend_on_it(override, stages):
    assert changed_stages(override) == stages


def test_the_same_configuration_is_the_same_run():
    assert plan_run(load_config("tiny")).run_id == plan_run(load_config("tiny")).run_id
    assert plan_run(load_config("tiny")).run_id != plan_run(load_config("tiny-harmful")).run_id
    assert plan_run(load_config("tiny"), "mine").run_id == "mine"


def test_a_local_file_counts_by_its_content_not_its_name(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("x\n1\n")
    second.write_text("x\n1\n")

    def fingerprint(path):
        planned = plan_run(load_config("tiny", [f"prepare.dataset={path}"])).stages["prepare"]
        return planned.payload["sources"]["prepare.dataset"]

    assert fingerprint(first) == fingerprint(second)
    second.write_text("x\n2\n")
    assert fingerprint(first) != fingerprint(second)


def test_every_source_file_of_a_room_counts_also_in_its_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "REPOSITORY", tmp_path)
    (folder := tmp_path / "room" / "config").mkdir(parents=True)
    digests = [stages.source_digest("room")]
    for name, content in (("train.py", "1"), ("train.py", "2"), ("loading.py", "2"), ("../report.css", "")):
        (folder / name).write_text(content)
        digests.append(stages.source_digest("room"))
    assert len(set(digests)) == 5
    (folder / "notes.txt").write_text("no code")
    assert stages.source_digest("room") == digests[-1]


def test_a_missing_file_is_an_input_error():
    with pytest.raises(InputError, match="does not exist"):
        plan_run(load_config("tiny", ["prepare.dataset=./no-such-file.csv"]))


def test_an_unknown_stage_lists_the_stages():
    with pytest.raises(ConfigError, match="environment, prepare, train, evaluate, analyze"):
        find_stage("evalute")


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("embedded", "embedded"),
        ("sample:litmus", "sample"),
        ("s3://bucket/a.csv", "s3"),
        ("./a", "local"),
        ("/a/b", "local"),
        ("rows.jsonl.gz", "local"),
        ("hasnat79/litmus", "hub"),
    ],
)
def test_source_kinds(reference, kind):
    assert source_kind(reference) == kind


@pytest.mark.parametrize("name", ["two words", "../up", "a/b", "-dash", "é", "x" * 129])
def test_a_run_id_that_no_store_could_keep_is_refused_before_anything_runs(name, tmp_path):
    with pytest.raises(ConfigError, match="cannot be the name of a run: expected at most 128 letters"):
        plan_run(load_config("tiny"), name)
    if "/" not in name:
        path = tmp_path / f"{name}.yaml"
        path.write_text("extends: tiny\n")
        with pytest.raises(ConfigError, match="rename the file, or set `profile: NAME`"):
            plan_run(load_config(str(path)))
        assert plan_run(load_config(str(path)), "mine").run_id == "mine"


@pytest.mark.parametrize("address", ["http://host/rows.csv", "https://host/rows", "gs://bucket/rows.parquet"])
def test_an_address_that_nothing_fetches_is_said_at_once(address):
    with pytest.raises(InputError, match="only s3://bucket/key is read; fetch it and give the file"):
        plan_run(load_config("tiny", [f"prepare.dataset={address}"]))
