"""Runs of the baseline (``--compressor_type none``): its settings, what it refuses, and what comes after it."""

from __future__ import annotations

import json

import pytest
import tiny

import example_usage
import train
import train_with_evaluation
from scaledown import ScaleDownModel
from scaledown.cli import config_from
from scaledown.config import (
    NO_COMPRESSOR,
    PRESET_NAMES,
    PretrainingConfig,
    ScaleDownConfig,
    TrainingConfig,
)
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import presets
from scaledown.training.presets.run_settings import TRAINS_A_COMPRESSOR

NONE = ["--compressor_type", NO_COMPRESSOR]


def parse(*argv):
    return presets.parse(train.build_parser(), ["--train_data", "x.json", *argv])


@pytest.fixture
def data(tmp_path):
    write_records(tmp_path / "records.json", list(synthetic_records(6)))
    return ["--train_data", str(tmp_path / "records.json"), "--device", "cpu", "--batch_size", "2"]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_preset_gives_valid_settings(preset):
    args = parse("--preset", preset, *NONE)
    assert config_from(args, ScaleDownConfig).reads_text
    training = config_from(args, TrainingConfig)
    assert training.readout_loss_weight == 0 and training.readout_steps == 0
    ours = config_from(parse("--preset", preset), TrainingConfig)
    for name in ("learning_rate_generator", "batch_size", "weight_decay", "answer_tokens"):
        assert getattr(training, name) == getattr(ours, name)


@pytest.mark.parametrize("name", TRAINS_A_COMPRESSOR)
def test_flags_that_train_a_compressor_are_refused(name, capsys):
    value = "texts.txt" if name == "pretrain_data" else "3"
    assert train.main(["--train_data", "x.json", *NONE, f"--{name}", value]) == 2
    assert f"--{name} belongs to a compressor" in capsys.readouterr().err
    assert parse(*NONE, "--learning_rate", "0.1").learning_rate_generator == 0.1


def test_flags_of_a_compressor_are_refused_together(capsys):
    flags = ["--num_layers", "3", "--enable_reranking", "--memory_norm", "--compressor_lora_rank", "4"]
    assert train.main(["--train_data", "x.json", *NONE, *flags]) == 2
    said = capsys.readouterr().err
    assert all(f"{flag} belongs to a compressor" in said for flag in flags if flag.startswith("--"))


def test_the_baseline_of_a_run_takes_its_settings_but_for_the_compressor(tmp_path):
    settings = {"num_layers": 2, "memory_norm": True, "enable_reranking": True, "lora_rank": 4, "max_steps": 7,
                "readout_loss_weight": 1.0, "learning_rate_compressor": 0.5, "learning_rate_generator": 0.25,
                "compressor_type": "n_layers", "pretrain_steps": 5}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings}))
    args = parse("--config", str(tmp_path / "config.json"), *NONE)
    model, training = config_from(args, ScaleDownConfig), config_from(args, TrainingConfig)
    assert (model.reads_text, model.lora_rank, training.max_steps, training.learning_rate_generator) == (
        True, 4, 7, 0.25)
    assert training.readout_loss_weight == 0 and config_from(args, PretrainingConfig).pretrain_steps is None

    (tmp_path / "own.yaml").write_text("compressor_type: none\nnum_layers: 2\n")
    with pytest.raises(ValueError, match="--num_layers belongs to a compressor"):
        config_from(parse("--config", str(tmp_path / "own.yaml")), ScaleDownConfig)


def test_a_run_is_trained_resumed_gone_on_with_and_asked(data, tmp_path, capsys):
    flags = [*data, "--generator_model", tiny.generator_folder(tmp_path / "generator"), "--save_steps", "2"]
    run = tmp_path / "run"
    assert train.main([*flags, *NONE, "--max_steps", "3", "--output_dir", str(run)]) == 0
    said = capsys.readouterr().out
    assert "compressor none" in said
    first = ScaleDownModel.from_pretrained(run / "final")
    assert first.config.reads_text and first.progress.num_steps == 3
    assert train.main(["--resume", "--output_dir", str(run)]) == 0
    # The settings of the run, as the command that is offered after a resumed one takes them.
    assert train.main(["--config", str(run / "config.json"), "--init_compressor", str(run / "final"),
                       "--output_dir", str(tmp_path / "longer")]) == 0
    assert ScaleDownModel.from_pretrained(tmp_path / "longer" / "final").progress.num_steps == 6
    capsys.readouterr()
    assert example_usage.main(["--checkpoint", str(run / "final")]) == 0
    assert capsys.readouterr().out.count("from full text, tuned:") == len(example_usage.QUESTIONS)


def test_the_main_job_says_where_the_baseline_is_trained(capsys):
    assert train_with_evaluation.main(NONE) == 2
    said = capsys.readouterr().err
    assert "train.py" in said and "scaledown.evaluation.answering --checkpoint" in said
