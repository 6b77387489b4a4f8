from __future__ import annotations

import pytest
import yaml

from pipeline_common.config import flatten, load_config, profile_names
from pipeline_common.errors import ConfigError


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_under_its_own_name(name):
    assert load_config(name).profile == name


def test_the_four_profiles_of_the_readme_exist():
    assert profile_names() == ["llama3-8b", "smollm", "tiny", "tiny-harmful"]


def test_overrides_are_typed():
    config = load_config(
        "tiny", ["train.learning_rate=3e-4", "train.max_steps=null", "evaluate.layers=3", "prepare.dataset=a.csv"]
    )
    assert config.train.learning_rate == 3e-4
    assert config.train.max_steps is None
    assert config.evaluate.layers == 3
    assert config.prepare.dataset == "a.csv"


def test_all_mistakes_are_told_at_once_each_with_its_path():
    overrides = [
        "train.lerning_rate=1",
        "train.learning_rate=-1",
        "prepare.prompt_format=alpaca",
        "nonsense",
        "evaluate.prompts_per_class=10",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", overrides)
    text = str(caught.value)
    assert "5 mistake(s)" in text
    for part in (
        "train.lerning_rate: no such key; did you mean 'train.learning_rate'?",
        "train.learning_rate: Input should be greater than 0 (came: -1)",
        "prepare.prompt_format: Input should be 'inst' or 'chat_template' (came: 'alpaca')",
        "'nonsense': expected section.field=value",
        "evaluate.prompts_per_class: Input should be greater than or equal to 64 (came: 10)",
    ):
        assert part in text
    assert caught.value.exit_code == 2


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        load_config("tinny")


def test_a_file_extends_a_profile_and_is_checked_like_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": "tiny", "train": {"max_steps": 7}}))
    config = load_config(str(path))
    assert (config.profile, config.train.max_steps, config.train.batch_size) == ("mine", 7, 8)
    path.write_text(yaml.safe_dump({"extends": "tiny", "trian": {"max_steps": 7}}))
    with pytest.raises(ConfigError, match="trian: no such key; did you mean 'train"):
        load_config(str(path))


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        load_config(str(path))


def test_extends_in_a_circle_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {path}")
    with pytest.raises(ConfigError, match="circle"):
        load_config(str(path))


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train=3", "train: a section, not a key; name a key in it, such as train."),
        ("train.report_to=wandb", "train.report_to: Input should be a list, such as [wandb] (came: 'wandb')"),
        (
            "evaluate.layers=lerned",
            "evaluate.layers: Input should be 'band', 'all' or 'learned'; or Input should be a valid integer "
            "(came: 'lerned')",
        ),
        ("prepare.dataset=", "prepare.dataset: String should have at least 1 character"),
        ("prepare.prompts=", "prepare.prompts: String should have at least 1 character"),
        ("runtime.output_dir=", "runtime.output_dir: String should have at least 1 character"),
    ],
)
def test_one_mistake_is_one_line_in_a_persons_words(override, told):
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", [override])
    assert "1 mistake(s)" in str(caught.value)
    assert f"  - {told}" in str(caught.value)


def test_a_value_where_a_section_belongs_is_told_without_our_classes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": "tiny", "train": 3}))
    with pytest.raises(ConfigError, match=r"train: Input should be a mapping of fields \(came: 3\)"):
        load_config(str(path))
