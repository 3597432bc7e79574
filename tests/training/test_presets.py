"""--preset: what it sets, that a flag beside it wins, and that the documented table is the code's."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import tiny

import train
import train_with_evaluation
from scaledown import hub
from scaledown.cli import config_from
from scaledown.config import (
    COMPRESSOR_TYPES,
    DEFAULT_GENERATOR,
    EMBEDDED_MODERNBERT,
    PRESET_NAMES,
    EvaluationConfig,
    ScaleDownConfig,
    TrainingConfig,
)
from scaledown.data.records import eval_path, write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.hub import connection
from scaledown.models.loading import pretrained
from scaledown.training import presets
from scaledown.training.presets import PRESETS, demo, settings

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "REAL_DATA_TRAINING.md"
CONFIGS = (ScaleDownConfig, TrainingConfig, EvaluationConfig)
SCRIPTS = {"train": train, "train_with_evaluation": train_with_evaluation}


def parse(script, argv):
    return presets.parse(script.build_parser(), argv)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("compressor_type", COMPRESSOR_TYPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_valid_settings_for_every_compressor(script, compressor_type, preset):
    args = parse(SCRIPTS[script], ["--preset", preset, "--compressor_type", compressor_type, "--train_data", "x.json"])
    model, training = config_from(args, ScaleDownConfig), config_from(args, TrainingConfig)
    assert model.generator_model == PRESETS[preset]["generator_model"]
    assert training.batch_size == PRESETS[preset]["batch_size"] and args.preset == preset
    if preset == "demo":
        assert training.optimizer == "muon" and model.memory_norm == demo.MODEL[compressor_type]["memory_norm"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_flag_beside_a_preset_wins_also_where_it_is_the_usual_default(script):
    args = parse(SCRIPTS[script], ["--preset", "paper", "--batch_size", "4", "--generator_model", "here",
                                  "--no-gradient_checkpointing", "--train_data", "x.json"])
    assert (args.batch_size, args.generator_model, args.gradient_checkpointing) == (4, "here", False)
    assert args.gradient_accumulation_steps == PRESETS["paper"]["gradient_accumulation_steps"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_readout_shows_the_way_to_encoders_and_to_all_that_learn_scores_as_well(script):
    def weight(*flags):
        return parse(SCRIPTS[script], ["--preset", "demo", "--train_data", "x.json", *flags]).readout_loss_weight

    assert weight() == 0.0 and weight("--compressor_type", "modernbert") == weight("--enable_reranking") == 1.0
    assert weight("--enable_reranking", "--readout_loss_weight", "0.3") == 0.3


def test_without_a_preset_nothing_changes():
    assert settings(None, "n_layers", False) == {}
    args = parse(train, ["--train_data", "x.json"])
    assert config_from(args, TrainingConfig) == TrainingConfig() and args.preset is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_embedded_generator_brings_the_demos_settings_below_all_that_is_asked_for(script):
    args = parse(SCRIPTS[script], ["--generator_model", "embedded", "--train_data", "x.json", "--answer_tokens", "9"])
    assert args.memory_norm and args.optimizer == "muon" and args.num_layers == 4 and args.answer_tokens == 9
    assert args.batch_size == demo.TRAINING["batch_size"] and args.preset is None
    args = parse(SCRIPTS[script], ["--preset", "laptop", "--generator_model", "embedded", "--train_data", "x.json"])
    assert args.memory_norm and args.batch_size == PRESETS["laptop"]["batch_size"]


def test_layers_that_are_named_take_the_place_of_a_presets_number_of_them():
    flags = ["--generator_model", "embedded", "--train_data", "x.json", "--layers", "0,2-3"]
    assert parse(train, flags).num_layers is None and parse(train, flags).layers == "0,2-3"
    assert parse(train, flags[:4]).num_layers == 4
    # Two that are asked for contradict each other, which the config says.
    assert parse(train, [*flags, "--num_layers", "3"]).num_layers == 3


def test_the_main_job_takes_the_demos_generator_for_the_demos_data_alone():
    assert parse(train_with_evaluation, []).generator_model == "embedded"
    assert parse(train_with_evaluation, ["--train_data", "x.json"]).generator_model == DEFAULT_GENERATOR
    assert parse(train, ["--pretrain_steps", "1"]).generator_model == DEFAULT_GENERATOR


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_learning_rate_sets_both_but_for_the_one_that_is_named_beside_it(script):
    def rates(*flags):
        args = parse(SCRIPTS[script], ["--train_data", "x.json", *flags])
        return args.learning_rate_generator, args.learning_rate_compressor

    assert rates() == (1e-4, None) and rates("--learning_rate", "0.1") == (0.1, 0.1)
    assert rates("--learning_rate", "0.1", "--learning_rate_compressor", "0.2") == (0.1, 0.2)
    assert rates("--preset", "demo", "--learning_rate", "0.1") == (0.1, 0.1)


def test_training_alone_gets_no_settings_of_the_evaluation():
    assert not hasattr(parse(train, ["--preset", "laptop", "--train_data", "x.json"]), "max_new_tokens")


def test_a_preset_is_written_into_the_runs_config(tmp_path):
    data, folder = tmp_path / "records.json", tmp_path / "run"
    write_records(data, list(synthetic_records(4)))
    write_records(eval_path(data), list(synthetic_records(2, split="eval")))
    assert train.main(["--preset", "laptop", "--train_data", str(data), "--output_dir", str(folder), "--max_steps", "1",
                       "--generator_model", tiny.generator_folder(tmp_path)]) == 0
    written = json.loads((folder / "config.json").read_text())["settings"]
    assert written["preset"] == "laptop" and written["answer_tokens"] == PRESETS["laptop"]["answer_tokens"]


def test_the_24_gb_preset_trains_a_tiny_model(tmp_path, monkeypatch):
    """All of its flags but the 4 bits, which need bitsandbytes: they are asked for, and the base is loaded whole."""
    asked = []
    monkeypatch.setattr(pretrained, "quantisation", lambda config, *_: asked.append(config.load_in_4bit))
    data, folder = tmp_path / "records.json", tmp_path / "run"
    write_records(data, list(synthetic_records(32)))
    assert train.main(["--preset", "gpu_24gb", "--train_data", str(data), "--output_dir", str(folder), "--max_steps",
                       "1", "--generator_model", tiny.generator_folder(tmp_path / "generator")]) == 0
    written = json.loads((folder / "final" / "config.json").read_text())
    assert asked == [True] and written["load_in_4bit"] and written["compressor_lora_rank"] == 16
    settings_of_run = json.loads((folder / "config.json").read_text())["settings"]
    assert {name: settings_of_run[name] for name in PRESETS["gpu_24gb"] if name in settings_of_run} == {
        name: value for name, value in PRESETS["gpu_24gb"].items() if name in settings_of_run} | {
        "generator_model": str(tmp_path / "generator")}


def test_a_baseline_without_a_compressor_leaves_out_what_belongs_to_one():
    args = parse(train, ["--preset", "gpu_24gb", "--compressor_type", "none", "--train_data", "x.json"])
    assert args.load_in_4bit and config_from(args, ScaleDownConfig).compressor_lora_rank is None


def test_the_table_in_the_guide_is_the_codes():
    names = dict.fromkeys(itertools.chain.from_iterable(PRESETS.values()))
    fields = itertools.chain.from_iterable(dataclasses.fields(config) for config in CONFIGS)
    defaults = {field.name: field.default for field in fields}
    defaults["learning_rate_compressor"] = "by type"
    rows = [["setting", *PRESETS]]
    for name in names:
        values = [str(each.get(name, defaults[name])) for each in PRESETS.values()]
        rows.append([f"`{name}`", *values])
    for row in rows:
        assert f"| {' | '.join(row)} |" in GUIDE.read_text(encoding="utf-8")


def test_the_flag_offers_the_presets_that_there_are():
    assert tuple(PRESETS) == PRESET_NAMES


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_checkpoint_to_start_from_says_what_its_model_is(script, tmp_path):
    model = ScaleDownConfig(generator_model="../generator", compressor_type="llm", compressor_model="../generator",
                            compressor_lora_rank=4, num_memory_tokens=4, system_prompt="Be brief.",
                            enable_reranking=True)
    (tmp_path / "generator").mkdir()
    (tmp_path / "start").mkdir()
    model.save(tmp_path / "start")
    start = ["--init_compressor", str(tmp_path / "start"), "--train_data", "x.json"]

    args = parse(SCRIPTS[script], [*start, "--preset", "laptop"])
    assert args.generator_model == args.compressor_model == str(tmp_path / "generator")
    assert (args.compressor_type, args.compressor_lora_rank, args.num_memory_tokens) == ("llm", 4, 4)
    assert args.batch_size == PRESETS["laptop"]["batch_size"], "how it is trained is the preset's"
    assert not args.enable_reranking, "scores are trained only if that is asked for"
    # What is asked for beside it wins here, and is compared with the checkpoint when that is loaded.
    assert parse(SCRIPTS[script], [*start, "--num_memory_tokens", "8"]).num_memory_tokens == 8


def test_a_checkpoint_on_the_hub_says_it_too(tmp_path, monkeypatch):
    ScaleDownConfig(generator_model="a/b", num_memory_tokens=4, lora_rank=8).save(tmp_path)
    monkeypatch.setattr(hub, "locate", lambda name: name)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, token: str(tmp_path / file))
    args = parse(SCRIPTS["train"], ["--init_compressor", "me/start", "--train_data", "x.json"])
    assert (args.generator_model, args.num_memory_tokens, args.lora_rank) == ("a/b", 4, 8)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_demos_settings_are_for_the_compressor_of_the_checkpoint(script):
    start = ["--init_compressor", EMBEDDED_MODERNBERT, "--train_data", "x.json"]
    args = parse(SCRIPTS[script], start)
    assert args == parse(SCRIPTS[script], [*start, "--compressor_type", "modernbert"])
    assert args.readout_loss_weight == 1.0


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_checkpoint_with_soft_tokens_is_trained_further_as_it_was(script, tmp_path):
    model = ScaleDownConfig(generator_model="../g", compressor_type="llm", compressor_model="../g", soft_tokens=True)
    (tmp_path / "start").mkdir()
    model.save(tmp_path / "start")
    start = ["--init_compressor", str(tmp_path / "start"), "--train_data", "x.json", "--preset", "laptop"]

    args = parse(SCRIPTS[script], start)
    assert (args.readout_loss_weight, args.learning_rate_compressor) == (1.0, 1e-4)
    args = parse(SCRIPTS[script], [*start, "--readout_loss_weight", "0", "--learning_rate", "3e-5"])
    assert (args.readout_loss_weight, args.learning_rate_compressor) == (0.0, 3e-5), "flags win"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("flags", "field", "other"), [
    ([], "init_compressor", "generator_model"), (["--compressor_type", "n_layers"], "generator_model", None)])
def test_without_a_hub_a_laptop_starts_from_smollm2(script, flags, field, other, monkeypatch, tmp_path, capsys):
    def locate(name, *_, **__):
        if name == "smollm2":
            return str(tmp_path)
        raise ValueError("model 'x': the Hub cannot be reached. What works without it: nothing")

    monkeypatch.setattr(hub, "locate", locate)
    argv = ["--preset", "laptop", "--train_data", "x.json", *flags]
    args = presets.parse_or_offline(SCRIPTS[script].build_parser(), argv)
    assert getattr(args, field) == args.generator_model == "smollm2"
    assert capsys.readouterr().err == "model 'x': the Hub cannot be reached. Starting from smollm2 instead.\n"

    named = presets.parse_or_offline(SCRIPTS[script].build_parser(), [*argv, "--generator_model", DEFAULT_GENERATOR])
    assert named.generator_model == DEFAULT_GENERATOR and named.init_compressor is None, "one that is named stays"
    monkeypatch.setattr(hub, "locate", lambda name, *_, **__: name)
    reached = presets.parse_or_offline(SCRIPTS[script].build_parser(), argv)
    assert reached.generator_model == DEFAULT_GENERATOR and reached.init_compressor is None


def test_without_a_hub_and_smollm2_the_message_has_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(connection, "ask_in_time", lambda *_: "the Hub cannot be reached (no network).")
    with pytest.raises(ValueError, match="python -m scaledown.hub smollm2"):
        presets.parse_or_offline(train.build_parser(), ["--preset", "laptop", "--train_data", "x.json"])
