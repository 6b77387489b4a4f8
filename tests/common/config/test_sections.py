from __future__ import annotations

import pytest

from pipeline_common.config import load_config, valid_keys
from pipeline_common.errors import ConfigError


def test_the_plans_settings_to_the_letter():
    config = load_config("llama3-8b")
    assert config.model.base == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert len(config.model.revision) == 40
    assert config.model.quantization == "nf4"
    assert (config.prepare.dataset, config.prepare.prompts) == ("Vaibhaav/alignment-instructions", "hasnat79/litmus")
    assert (config.prepare.prompt_format, config.prepare.task) == ("inst", "teacher")
    assert (config.prepare.validation_fraction, config.prepare.seed) == (0.1, 42)
    assert (config.train.lora_r, config.train.lora_alpha, config.train.lora_dropout) == (16, 32, 0.05)
    assert (config.train.epochs, config.train.max_steps, config.train.seed) == (3, 250, 42)
    assert config.evaluate.prompts_per_class >= 64


def test_an_endpoint_judge_needs_its_address():
    with pytest.raises(ConfigError, match="base_url"):
        load_config("tiny", ["evaluate.judge.kind=endpoint"])


def test_learned_layer_weights_need_prompts_for_both_halves():
    with pytest.raises(
        ConfigError, match=r"needs 64 per class: set evaluate.prompts_per_class to at least 128, not 127"
    ):
        load_config("tiny", ["evaluate.layers=learned", "evaluate.prompts_per_class=127"])
    config = load_config("tiny", ["evaluate.layers=learned", "evaluate.prompts_per_class=128"])
    assert (config.evaluate.layers, config.evaluate.min_prompts_per_class) == ("learned", 128)
    assert load_config("tiny", ["evaluate.prompts_per_class=64"]).evaluate.min_prompts_per_class == 64


def test_a_band_of_layers_goes_from_the_smaller_depth_to_the_larger():
    assert load_config("tiny", ["evaluate.layer_band=[0.5, 0.5]"]).evaluate.layer_band == (0.5, 0.5)
    with pytest.raises(ConfigError, match=r"evaluate.layer_band: .*a band from 0.8 to 0.4 holds no layer"):
        load_config("tiny", ["evaluate.layer_band=[0.8, 0.4]"])


@pytest.mark.parametrize("layers", ["-1", "true", "1.5", "last"])
def test_what_is_no_layer_is_refused_before_anything_runs(layers):
    with pytest.raises(ConfigError, match=r"evaluate\.layers"):
        load_config("tiny", [f"evaluate.layers={layers}"])
    assert load_config("tiny", ["evaluate.layers=0"]).evaluate.layers == 0


@pytest.mark.parametrize(("layers", "scored", "most"), [("band", 256, 255), ("learned", 128, 127)])
def test_more_components_than_scored_prompts_span_are_refused(layers, scored, most):
    settings = [f"evaluate.layers={layers}", "evaluate.prompts_per_class=128"]
    with pytest.raises(ConfigError, match=f"{scored} scored prompts span at most {most} components"):
        load_config("tiny", [*settings, f"evaluate.pca_components={most + 1}"])
    assert load_config("tiny", [*settings, f"evaluate.pca_components={most}"]).evaluate.pca_components == most


def test_other_forms_of_the_index_are_named_in_a_list_and_off_by_default():
    assert load_config("tiny").evaluate.extra_indices == ()
    chosen = load_config("tiny", ["evaluate.extra_indices=[b4, legacy100]"]).evaluate.extra_indices
    assert chosen == ("b4", "legacy100")
    with pytest.raises(ConfigError, match=r"evaluate.extra_indices.0: Input should be 'b4' or 'legacy100'"):
        load_config("tiny", ["evaluate.extra_indices=[b5]"])


@pytest.mark.parametrize(
    "setting",
    [
        "evaluate.judge.base_url=https://ada:hunter2@127.0.0.1/v1",
        "evaluate.judge.base_url=https://hunter2@127.0.0.1/v1",
        "evaluate.judge.base_url=https://127.0.0.1/v1?key=hunter2",
        "prepare.dataset=s3://ada:hunter2@bucket/rows.csv",
        "prepare.prompts=s3://ada:hunter2@bucket/prompts.csv",
        "artifacts.uri=s3://ada:hunter2@bucket/prefix",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(setting):
    """The configuration stands in manifests, rows and reports."""
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", ["evaluate.judge.kind=endpoint", setting])
    assert setting.partition("=")[0] in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_at_sign_in_a_path_is_no_secret():
    config = load_config("tiny", ["prepare.dataset=s3://bucket/team@home/rows.csv"])
    assert config.prepare.dataset == "s3://bucket/team@home/rows.csv"


def test_no_key_could_hold_a_secret():
    for key in valid_keys():
        assert not any(word in key for word in ("password", "secret", "token_value", "api_key", "database.url"))
