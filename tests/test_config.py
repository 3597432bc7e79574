from __future__ import annotations

import dataclasses
import json

import pytest

from scaledown.config import EvaluationConfig, PretrainingConfig, RunConfig, ScaleDownConfig, TrainingConfig
from scaledown.settings import from_dict, numbers_in

CONFIGS = (RunConfig, ScaleDownConfig, TrainingConfig, PretrainingConfig, EvaluationConfig)


@pytest.mark.parametrize("cls", CONFIGS)
def test_defaults_are_valid_and_every_setting_has_help(cls):
    cls()
    assert all(field.metadata["help"].strip() for field in dataclasses.fields(cls))


@pytest.mark.parametrize("cls", CONFIGS)
def test_configs_are_frozen(cls):
    field = dataclasses.fields(cls)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), field.name, field.default)


def test_document_tokens_are_memory_tokens_times_the_rate():
    assert ScaleDownConfig().document_tokens == 128
    assert ScaleDownConfig(num_memory_tokens=4, compression_rate=32).document_tokens == 128


def test_all_faults_are_told_together():
    with pytest.raises(ValueError) as fault:
        ScaleDownConfig(num_memory_tokens=0, compression_rate=-1, lora_dropout=1.0, compressor_type="magic")
    for flag in ("--num_memory_tokens", "--compression_rate", "--lora_dropout", "--compressor_type"):
        assert flag in str(fault.value)


def test_an_unknown_compressor_is_named_whatever_stands_beside_it():
    with pytest.raises(ValueError, match="--compressor_type must be one of n_layers, .*, none, got 'magic'"):
        ScaleDownConfig(compressor_type="magic", num_layers=4, memory_init="reply", compressor_model="x")


@pytest.mark.parametrize("settings", [
    {"num_layers": 4, "compressor_type": "modernbert"},
    {"compressor_model": "some/encoder", "compressor_type": "n_layers"},
])
def test_settings_of_the_other_compressor_are_refused(settings):
    with pytest.raises(ValueError, match="belongs to --compressor_type"):
        ScaleDownConfig(**settings)


@pytest.mark.parametrize("settings", [
    {"batch_size": 0}, {"num_epochs": 0}, {"max_steps": -1}, {"warmup_ratio": 1.0}, {"learning_rate_generator": -1e-4},
    {"batch_size": 6, "gradient_accumulation_steps": 4}, {"learning_rate_generator": float("nan")},
    {"learning_rate_compressor": float("inf")}, {"weight_decay": -0.1}, {"reranking_loss_weight": -1.0}, {"seed": -1},
    {"seed": 2**32}, {"num_workers": -1},
])
def test_impossible_training_settings_are_refused_by_flag(settings):
    with pytest.raises(ValueError, match=f"--{list(settings)[0]}"):
        TrainingConfig(**settings)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EvaluationConfig)])
def test_impossible_evaluation_settings_are_refused_by_flag(name):
    with pytest.raises(ValueError, match=f"--{name}"):
        EvaluationConfig(**{name: 0})


def test_save_and_load_give_the_same_config(tmp_path):
    config = ScaleDownConfig(generator_model="embedded", num_layers=3, enable_reranking=True, lora_dropout=0.0)
    config.save(tmp_path)
    assert ScaleDownConfig.load(tmp_path) == config


def test_json_may_write_a_float_as_a_whole_number_and_nothing_as_null():
    assert from_dict(TrainingConfig, {"num_epochs": 2, "max_steps": None}).num_epochs == 2


def test_an_unknown_key_is_an_error_that_names_key_and_source():
    with pytest.raises(ValueError, match=r"run\.json: unknown keys \['batchsize'\]"):
        from_dict(TrainingConfig, {"batchsize": 4}, source="run.json")


@pytest.mark.parametrize(("text", "message"), [
    (None, "no config.json"),
    ('{\n"num_layers": ,}', "line 2"),
    (json.dumps({"num_memory_token": 8}), "unknown keys"),
    (json.dumps({"num_memory_tokens": 0}), "--num_memory_tokens"),
    (json.dumps({"num_memory_tokens": "8"}), "num_memory_tokens is '8', expected a whole number"),
    (json.dumps({"enable_reranking": 1}), "enable_reranking is 1, expected true or false"),
    (json.dumps({"num_layers": 2.5}), r"num_layers is 2.5, expected a whole number"),
    (json.dumps({"model_type": "llama", "num_layers": 4}), "no ScaleDown checkpoint"),
    ("[1]", "no ScaleDown checkpoint"),
])
def test_a_folder_with_a_bad_config_says_what_is_wrong(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        ScaleDownConfig.load(tmp_path)


@pytest.mark.parametrize("layers", ["0,3-1", "7-2,9", "3-1", "0-99999999999", "9" * 5000, "1,1", ""])
def test_layers_that_are_no_rising_numbers_are_refused(layers):
    with pytest.raises(ValueError, match="--layers must be rising numbers such as 0-5,24-29, of at most 4 digits"):
        ScaleDownConfig(layers=layers)


def test_layers_are_numbers_and_ranges_of_them():
    assert numbers_in("0-2,7,9-9,0010") == [0, 1, 2, 7, 9, 10]
    assert ScaleDownConfig(layers="0-2,7").layers == "0-2,7"


def test_all_faults_of_a_file_are_told_together_and_with_it(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"num_layers": "a", "lora_rank": 1.5, "foo": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: num_layers is 'a', .*lora_rank is 1\.5, .*keys \['foo'\]"):
        ScaleDownConfig.load(tmp_path)
    path.write_text(json.dumps({"num_layers": -1, "lora_dropout": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: --num_layers must .*--lora_dropout must"):
        ScaleDownConfig.load(tmp_path)


@pytest.mark.parametrize(("settings", "message"), [
    ({"keep_threshold": float("nan")}, "keep_threshold must be finite"),
    ({"keep_threshold": -float("inf")}, "keep_threshold must be finite"),
    ({"expand_threshold": 7.0}, "expand_threshold must be from 0 to 1"),
    ({"expand_threshold": float("nan")}, "expand_threshold must be from 0 to 1"),
])
def test_thresholds_that_no_calibration_gives_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ScaleDownConfig(**settings)
